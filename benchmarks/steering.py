"""Whether holding the sentiment neuron changes the sentiment of what the model writes.

    OMP_NUM_THREADS=1 SKDISCOVERY_DATA=path/to/data python benchmarks/steering.py
    python benchmarks/steering.py --language-model mine.safetensors --json out.json

The neuron is the one whose pooled state correlates best with the labels of SST-2's training set.
With nothing held, and with it held at each value in the direction of positive and of negative
sentiment, the model goes on from neutral prompts, and two classifiers say which of the
continuations are positive: the model's own (all neurons that L1 keeps, fitted on SST-2) and one
that counts words and knows nothing of the model (tf-idf, fitted on IMDB's training set). Printed is
the share of positive ones, its 95% interval (Wilson's) in brackets and, for the two directions,
the p-value of their difference (Fisher's exact test). Nothing is chosen by what comes of it, and
no test set is read.
"""

import argparse
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from reporting import machine
from scipy.stats import binomtest, fisher_exact
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.feature_selection import r_regression
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, PredefinedSplit
from sklearn.pipeline import Pipeline, make_pipeline

from skdiscovery import ByteMLSTMLanguageModel, MLSTMFeaturizer, SentimentNeuronClassifier
from skdiscovery.datasets import fetch_imdb, fetch_sst2

PROMPTS = (
    "I watched this",
    "This movie is",
    "The acting was",
    "I thought that the story",
    "The director has",
    "When I saw it,",
    "The ending",
    "My friends and I",
    "Overall,",
    "It is a film that",
)

Judge = Callable[[Sequence[str]], np.ndarray]  # 1 for what is positive


def main() -> None:
    """Find the neuron, fit both classifiers, write texts and judge them."""
    options = parse_arguments()
    start = time.perf_counter()
    print(machine())
    featurizer = MLSTMFeaturizer(options.language_model, device=options.device).fit()
    train, valid = (fetch_sst2(subset=subset) for subset in ("train", "validation"))
    features = featurizer.transform(train.data)
    neuron, sign = sentiment_neuron(features, train.target, featurizer.feature_neurons_)
    lm = featurizer.language_model_
    cells = np.concatenate(lm.activations(valid.data, neurons=[neuron]))
    low, high = np.percentile(cells, [1, 99])
    print(f"98% of its cell states lie between {low:.2f} and {high:.2f}")
    judges = {
        "its own classifier": own_classifier(featurizer, features, train, valid),
        "tf-idf": word_counter(),
    }
    for name, judge in judges.items():
        accuracy = np.mean(judge(valid.data) == valid.target)
        print(f"{name}: accuracy {accuracy:.3f} on SST-2's validation set")

    records = [steer(lm, judges, "nothing held", options)]
    for state, values in (("hidden", options.hidden_values), ("cell", options.cell_values)):
        for value in values:
            pair = [
                steer(
                    lm,
                    judges,
                    f"{state} state held at {towards:+g}",
                    options,
                    overwrite={neuron: sign * towards},
                    overwrite_state=state,
                )
                for towards in (value, -value)
            ]
            print_differences(*pair, options.n_samples)
            records += pair
    print()
    for record in records:
        print(f"{record['name']}: {record['example']}")
    print(f"{time.perf_counter() - start:.0f} seconds")
    if options.json:
        content = {"machine": machine(), "neuron": neuron, "sign": sign, "records": records}
        content["options"] = {name: str(value) for name, value in vars(options).items()}
        options.json.write_text(json.dumps(content, indent=1))


def steer(
    lm: ByteMLSTMLanguageModel,
    judges: dict[str, Judge],
    name: str,
    options: argparse.Namespace,
    **held: Any,
) -> dict[str, Any]:
    """Write texts with a neuron held, print how many each judge calls positive, and return it."""
    n_each = options.n_samples // len(PROMPTS)
    texts = lm.generate(
        PROMPTS,
        n_bytes=options.n_bytes,
        n_samples=n_each,
        temperature=options.temperature,
        random_state=options.seed,
        **held,
    )
    continuations = [text[len(PROMPTS[i // n_each]) :] for i, text in enumerate(texts)]
    positive = {name: int(judge(continuations).sum()) for name, judge in judges.items()}
    shares = "; ".join(f"{judge}: {share(n, len(texts))}" for judge, n in positive.items())
    print(f"{name}: {shares}")
    return {"name": name, "positive": positive, "example": " ".join(texts[n_each].split())}


def sentiment_neuron(features: np.ndarray, y: np.ndarray, neurons: np.ndarray) -> tuple[int, int]:
    """Return the neuron with the largest correlation, and the sign of that."""
    correlations = r_regression(features, y)
    best = np.argmax(np.abs(correlations))
    neuron, sign = int(neurons[best]), int(np.sign(correlations[best]))
    print(f"neuron {neuron}: correlation {correlations[best]:+.3f} with positive sentiment")
    return neuron, sign


def own_classifier(featurizer: MLSTMFeaturizer, features: np.ndarray, train, valid) -> Judge:
    """Fit the classifier on the model's features, its penalty chosen on the validation set."""
    X = np.concatenate([features, featurizer.transform(valid.data)])
    y = np.concatenate([train.target, valid.target])
    fold = np.repeat([-1, 0], [len(train.target), len(valid.target)])
    search = GridSearchCV(
        SentimentNeuronClassifier(n_neurons=None),
        {"C": 2.0 ** np.arange(-8, 1)},
        cv=PredefinedSplit(fold),
        refit=False,
    ).fit(X, y)
    classifier = SentimentNeuronClassifier(n_neurons=None, **search.best_params_)
    classifier.fit(features, train.target)
    return Pipeline([("featurizer", featurizer), ("classifier", classifier)]).predict


def word_counter() -> Judge:
    """Fit the classifier that counts words."""
    reviews = fetch_imdb(subset="train")
    words = TfidfVectorizer(ngram_range=(1, 2), min_df=5, sublinear_tf=True)
    return make_pipeline(words, LogisticRegression(C=10)).fit(reviews.data, reviews.target).predict


def share(n_positive: int, n_texts: int) -> str:
    """Return the share of positive texts with its interval, in percent."""
    low, high = binomtest(n_positive, n_texts).proportion_ci(method="wilson")
    return f"{100 * n_positive / n_texts:.1f}% [{100 * low:.1f}, {100 * high:.1f}]"


def print_differences(up: dict, down: dict, n_texts: int) -> None:
    """Print by how much the share changes from one direction to the other."""
    for judge, n_up in up["positive"].items():
        n_down = down["positive"][judge]
        table = [[n_up, n_texts - n_up], [n_down, n_texts - n_down]]
        points = 100 * (n_up - n_down) / n_texts
        print(f"    {judge}: {points:+.1f} points, p = {fisher_exact(table).pvalue:.2g}")


def parse_arguments() -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--language-model", default="default", help="name of a shipped model, or a file")
    add("--hidden-values", type=float, nargs="+", default=[1.0, 2.0], help="to hold it at")
    add("--cell-values", type=float, nargs="+", default=[1.0, 3.0], help="likewise")
    add(
        "--n-samples",
        type=int,
        default=200,
        help=f"texts of each kind; a multiple of {len(PROMPTS)}",
    )
    add("--n-bytes", type=int, default=200, help="to write after the prompt")
    add("--temperature", type=float, default=1.0)
    add("--device", default="cpu", help="a torch device")
    add("--seed", type=int, default=0)
    add("--json", type=Path, help="write all counts to this file")
    options = parser.parse_args()
    if options.n_samples < 1 or options.n_samples % len(PROMPTS):
        parser.error(f"--n-samples: expected a multiple of {len(PROMPTS)}, got {options.n_samples}")
    return options


if __name__ == "__main__":
    main()
