"""List and draw the texts at both ends of a neuron's distribution.

    python examples/extremes.py
    python examples/extremes.py --neuron 423 --n-texts 3

reads the 400 reviews that ship, and shows where the neuron is highest and where it is lowest: as a
list, and in a picture, below the histogram of its values. The default is the neuron that a
classifier picks on these reviews.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from sklearn.pipeline import Pipeline, make_pipeline

from skdiscovery import (
    MLSTMFeaturizer,
    NeuronHistogramDisplay,
    SentimentNeuronClassifier,
    plot_heatmap,
)
from skdiscovery.datasets import load_reviews
from skdiscovery.files import whole_file
from skdiscovery.plotting import extreme_texts

WIDTH = 100
"""Characters per row of the picture."""


def main(argv: Sequence[str] | None = None) -> None:
    """Print the list and save the picture."""
    parser = make_parser()
    options = parser.parse_args(argv)
    try:
        check_is_picture(options.output)
        options.output.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(options.output) as file:  # which says at once if it cannot be written
            list_and_draw(options).savefig(file, dpi=150)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    print(options.output)


def list_and_draw(options: argparse.Namespace) -> Figure:
    """Print the texts of both ends; return the picture of them."""
    texts, is_positive = load_reviews(return_X_y=True)
    labels = np.where(is_positive, "positive", "negative")
    with TemporaryDirectory() as memory:  # the reviews are read once, for three uses
        featurizer = MLSTMFeaturizer(options.language_model, device=options.device, memory=memory)
        pipeline = make_pipeline(featurizer, SentimentNeuronClassifier(random_state=0))
        pipeline.fit(texts, labels)
        table = extreme_texts(pipeline, texts, neuron=options.neuron, n_texts=options.n_texts)
        neurons, picked = featurizer.feature_neurons_, pipeline[-1].neuron_indices_[0]
        column = picked if options.neuron is None else np.argmax(neurons == options.neuron)
        print_list(table, labels, neurons[column])
        return draw(pipeline, int(column), table, texts, labels)


def print_list(table: pd.DataFrame, labels: np.ndarray, neuron: int) -> None:
    """Print the texts of both ends, with their labels and the neuron's values."""
    for tail, rows in table.groupby("tail", sort=False):
        print(f"neuron {neuron}, {tail} values")
        for value, label, text in zip(rows["value"], labels[rows.index], rows["text"], strict=True):
            print(f"  {value:+.3f} {label}: {text}")


def check_is_picture(path: Path) -> None:
    """Raise a ValueError if matplotlib knows no format by the extension."""
    formats = Figure().canvas.get_supported_filetypes()
    if path.suffix.lower().removeprefix(".") not in formats:
        raise ValueError(f"--output: expected a name that ends in one of {[*formats]}, got {path}")


def draw(
    pipeline: Pipeline, column: int, table: pd.DataFrame, texts: list[str], labels: np.ndarray
) -> Figure:
    """Draw the histogram, and below it the texts of both ends, coloured by the neuron."""
    height = 0.6 * len(table)
    figure = Figure(figsize=(12, 4 + height), layout="constrained")
    histogram, heatmap = figure.subplots(2, 1, height_ratios=[4, height])
    NeuronHistogramDisplay.from_estimator(pipeline, texts, labels, neuron=column, ax=histogram)
    plot_heatmap(
        pipeline,
        table["text"].tolist(),
        neuron=int(pipeline[0].feature_neurons_[column]),
        width=WIDTH,
        rows_per_page=1000,  # all, on the one page that there is
        scale="symmetric",
        ax=heatmap,
    )
    heatmap.set_title("from the highest value to the lowest", loc="left", fontsize="medium")
    return figure


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--neuron", type=int, help="default: the one that a classifier picks")
    add("--n-texts", type=int, default=5, help="how many at each end (%(default)s)")
    add("--language-model", default="default", help="name of a shipped model, or a file")
    add("--output", type=Path, default=Path("extremes.png"), help="the picture (%(default)s)")
    add("--device", default="auto", help="a torch device")
    return parser


if __name__ == "__main__":
    main()
