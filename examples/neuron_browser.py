r"""Write a page in which to look at a model's neurons and at the texts they react to.

    python examples/neuron_browser.py
    python examples/neuron_browser.py --data mine.csv --text-key review --label-key stars \
        --language-model mine.safetensors --output neurons.html

The page is one file that loads nothing: open it in any browser, or send it to someone. On the left
are the neurons: first the one that a classifier decides by, then those that tell the classes of the
shown texts apart best; without labels, those that vary most. With --label-key, texts without a
label are left out.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from sklearn.pipeline import make_pipeline
from sklearn.utils import resample

from skdiscovery import MLSTMFeaturizer, SentimentNeuronClassifier, TextCorpus
from skdiscovery.datasets import load_reviews
from skdiscovery.files import whole_file
from skdiscovery.plotting import neuron_browser_html


def main(argv: Sequence[str] | None = None) -> None:
    """Write the page that the command line describes."""
    parser = make_parser()
    options = parser.parse_args(argv)
    try:
        if options.n_texts < 1:
            raise ValueError(f"--n-texts: expected 1 or more, got {options.n_texts}")
        options.output.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(options.output) as file:  # which says at once if it cannot be written
            page, n_texts = make_page(options)
            file.write_text(page, encoding="utf-8")
    except (OSError, TypeError, ValueError) as error:
        parser.error(str(error))
    print(f"{options.output}: {n_texts} texts, {len(page) / 1e6:.1f} MB; open it in a browser")


def make_page(options: argparse.Namespace) -> tuple[str, int]:
    """Return the page, and the number of its texts."""
    texts, labels = read_texts(options)
    model = featurizer = MLSTMFeaturizer(options.language_model, device=options.device).fit()
    if labels is not None:
        classifier = SentimentNeuronClassifier(random_state=options.seed)
        model = make_pipeline(featurizer, classifier).fit(texts, labels)
    shown = np.arange(len(texts))
    if len(texts) > options.n_texts:
        shown = resample(
            shown, replace=False, n_samples=options.n_texts,
            random_state=options.seed, stratify=labels,
        )  # fmt: skip
    page = neuron_browser_html(
        model,
        [texts[i] for i in shown],
        None if labels is None else labels[shown],
        n_neurons=options.n_neurons,
        max_characters=options.max_characters,
    )
    return page, len(shown)


def read_texts(options: argparse.Namespace) -> tuple[list[str], np.ndarray | None]:
    """Return the texts of the file, or the reviews that ship, and their labels if there are any."""
    if options.data is None:
        reviews, is_positive = load_reviews(return_X_y=True)
        return reviews, np.where(is_positive, "positive", "negative")
    corpus = TextCorpus.from_file(
        options.data,
        text_key=options.text_key,
        label_key=options.label_key,
        drop_unlabeled=options.label_key is not None,
        preprocessor=None,
    )
    return [document.decode("utf-8", "replace") for document in corpus], corpus.labels


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    kinds = "csv, tsv, json, jsonl, txt, or one of these compressed with gz, bz2 or xz"
    add("--data", type=Path, metavar="FILE", help=f"{kinds}. Default: the reviews that ship")
    add("--text-key", default="sentence", help="column or key of the texts (%(default)s)")
    add("--label-key", help="column or key of their classes (default: none)")
    add("--language-model", default="default", help="name of a shipped model, or a file")
    add("--n-texts", type=int, default=200, help="how many to show, drawn at random (%(default)s)")
    add("--n-neurons", type=int, default=100, help="how many to show (%(default)s)")
    add("--max-characters", type=int, default=200, help="of a text to show (%(default)s)")
    add("--output", type=Path, default=Path("neurons.html"), help="the page (%(default)s)")
    add("--device", default="auto", help="a torch device")
    add("--seed", type=int, default=0, help="of which texts are shown (%(default)s)")
    return parser


if __name__ == "__main__":
    main()
