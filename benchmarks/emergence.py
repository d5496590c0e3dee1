"""When sentiment appears: what the neurons of a model in training know of SST-2.

    python benchmarks/emergence.py runs/imdb/checkpoints/*.safetensors --figure emergence.png

reads checkpoints of ``fit(checkpoint_dir=...)``, or other models whose files say how they did on
held-out text; a run keeps its last three, so copy them aside as it goes. For each: the text read,
bits per byte on the run's validation text, and the accuracy on SST-2's validation sentences of an
L1 regression on all neurons, with each pooling, and of the best single neuron under the best of
them. The test sentences are not looked at. The regressions' C is the one that does best on the
validation sentences, so these figures flatter, each as much as the other.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from sklearn.linear_model import LogisticRegression

from skdiscovery import ByteMLSTMLanguageModel, MLSTMFeaturizer
from skdiscovery.datasets import fetch_sst2
from skdiscovery.inference.pooling import POOLINGS

C_GRID = (0.125, 0.5)


def main() -> None:
    """Print and draw a row per checkpoint."""
    options = parse_arguments()
    sentences = {part: fetch_sst2(subset=part) for part in ("train", "validation")}
    rows = []
    for path in options.checkpoints:
        rows.append(assess(path, sentences))
        print(pd.DataFrame(rows[-1:]).to_string(index=False, header=len(rows) == 1), flush=True)
    table = pd.DataFrame(rows).sort_values("megabytes")
    if options.csv:
        table.to_csv(options.csv, index=False)
    if options.figure:
        draw(table).savefig(options.figure, dpi=150)


def assess(path: Path, sentences: dict) -> dict[str, float]:
    """Return what a checkpoint knows."""
    lm = ByteMLSTMLanguageModel.from_pretrained(path)
    row = {
        "megabytes": lm.config_["n_bytes_seen"] / 1e6,
        "bits_per_byte": lm.config_["bits_per_byte"],
    }
    y = {part: np.asarray(data.target) for part, data in sentences.items()}
    featurizer = MLSTMFeaturizer(lm, pooling=POOLINGS).fit()
    pooled = {part: featurizer.transform(data.data) for part, data in sentences.items()}
    features = {}
    for k, pooling in enumerate(POOLINGS):
        features[pooling] = {
            part: np.split(X, len(POOLINGS), axis=1)[k] for part, X in pooled.items()
        }
        row[pooling] = 100 * best_of_regressions(features[pooling], y)
    best = max(POOLINGS, key=row.__getitem__)
    neuron, accuracy = best_neuron(features[best], y)
    return row | {"neuron": neuron, "one neuron": 100 * accuracy, "by": best}


def best_of_regressions(X: dict, y: dict) -> float:
    """Return the validation accuracy of L1 regression on all features, at the best C."""
    return max(
        LogisticRegression(C=C, l1_ratio=1, solver="liblinear", random_state=0)
        .fit(X["train"], y["train"])
        .score(X["validation"], y["validation"])
        for C in C_GRID
    )


def best_neuron(X: dict, y: dict) -> tuple[int, float]:
    """Return the neuron that decides the training set best by a threshold, and how validation."""
    order = np.argsort(X["train"], axis=0)
    positive = np.asarray(y["train"])[order] == np.unique(y["train"])[1]
    n = len(positive)
    # Right if all up to a threshold are negative and the others positive; or the other way round.
    right = np.cumsum(~positive, axis=0) + positive.sum(axis=0) - np.cumsum(positive, axis=0)
    accuracy = np.maximum(right, n - right).max(axis=0) / n
    neuron = int(accuracy.argmax())
    at = int(np.maximum(right, n - right)[:, neuron].argmax())
    threshold = X["train"][order[at, neuron], neuron]
    sign = right[at, neuron] * 2 >= n
    guess = (X["validation"][:, neuron] > threshold) == sign
    truth = np.asarray(y["validation"]) == np.unique(y["train"])[1]
    return neuron, float((guess == truth).mean())


def draw(table: pd.DataFrame) -> Figure:
    """Draw bits per byte, and accuracies below, over the text read."""
    figure = Figure(figsize=(7, 6), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True)
    above.plot(table["megabytes"], table["bits_per_byte"], "o-", color="#000000")
    above.set_ylabel("bits per byte, held out")
    styles = {"mean": "o-", "max": "s--", "last": "^:", "one neuron": "x-."}
    colours = {"mean": "#0072B2", "max": "#D55E00", "last": "#009E73", "one neuron": "#000000"}
    for name, style in styles.items():
        label = name if name == "one neuron" else f"all neurons, {name}"
        below.plot(table["megabytes"], table[name], style, color=colours[name], label=label)
    below.set(xlabel="text read, MB", ylabel="SST-2 validation accuracy, %")
    figure.legend(loc="outside lower center", ncols=4)
    return figure


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoints", type=Path, nargs="+")
    parser.add_argument("--csv", type=Path, help="write the table to this file")
    parser.add_argument("--figure", type=Path, help="draw it to this file")
    return parser.parse_args(argv)


if __name__ == "__main__":
    main()
