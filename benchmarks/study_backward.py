"""Whether a second model, one that reads backwards, is worth its bytes.

    python benchmarks/study_backward.py --csv backward.csv

trains three small models on the same IMDB training and unlabelled reviews: two that differ by their
seed, and one that reads each review from its last byte to its first. Then an L1 regression on the
states of each, and of two together, on SST-2's training sentences, with the C that does best on
its validation sentences: a second model of either kind doubles the features, so the pair that
reads both ways is to be held against the pair that does not. The test sentences are not looked at.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from reporting import machine
from search_recipe import RECIPE, model_for, read_reviews
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skdiscovery import ByteMLSTMLanguageModel, MLSTMFeaturizer, TextCorpus
from skdiscovery.datasets import fetch_sst2
from skdiscovery.inference.pooling import POOLINGS

C_GRID = np.geomspace(1e-3, 1, 7)


def main() -> None:
    """Print a row per model or pair, and pooling."""
    options = parse_arguments()
    print(machine())
    train, held_out = read_reviews(n_held_out=500)
    sentences = {part: fetch_sst2(subset=part) for part in ("train", "validation")}
    texts = {part: TextCorpus.from_documents(data.data) for part, data in sentences.items()}
    y = {part: np.asarray(data.target) for part, data in sentences.items()}
    states = {}
    for name, seed, way in (("a", 0, forward), ("b", 1, forward), ("backward", 0, backward)):
        lm = model_for(
            RECIPE,
            options.n_megabytes,
            hidden_size=options.hidden_size,
            preprocessor=None,
            precision=options.precision,
            random_state=seed,
        ).fit(way(train))
        print(f"{name}: {-lm.score(way(held_out)):.3f} bits per byte", flush=True)
        states[name] = {part: pooled(lm, way(corpus)) for part, corpus in texts.items()}
    rows = []
    for names in (("a",), ("b",), ("backward",), ("a", "b"), ("a", "backward")):
        row: dict[str, object] = {"model": " and ".join(names)}
        for pooling in POOLINGS:
            X = {part: np.hstack([states[name][part][pooling] for name in names]) for part in y}
            row[pooling] = round(100 * max(accuracy(X, y, C) for C in C_GRID), 2)
        rows.append(row)
    table = pd.DataFrame(rows)
    print(table.to_string(index=False))
    if options.csv:
        table.to_csv(options.csv, index=False)


def pooled(lm: ByteMLSTMLanguageModel, corpus: TextCorpus) -> dict[str, np.ndarray]:
    """Return the features of documents by the way they are pooled."""
    features = MLSTMFeaturizer(lm, pooling=POOLINGS).fit_transform(corpus)
    return dict(zip(POOLINGS, np.split(features, len(POOLINGS), axis=1), strict=True))


def forward(corpus: TextCorpus) -> TextCorpus:
    """Return the documents as they are, as bytes that need no preprocessor."""
    return TextCorpus.from_documents(corpus, preprocessor=None)


def backward(corpus: TextCorpus) -> TextCorpus:
    """Return the documents from their last byte to their first."""
    return TextCorpus.from_documents((text[::-1] for text in corpus), preprocessor=None)


def accuracy(X: dict, y: dict, C: float) -> float:
    """Return the validation accuracy of an L1 regression on all features."""
    regression = LogisticRegression(C=C, l1_ratio=1, solver="liblinear", random_state=0)
    model = make_pipeline(StandardScaler(), regression)
    return model.fit(X["train"], y["train"]).score(X["validation"], y["validation"])


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--hidden-size", type=int, default=256)
    parser.add_argument("--n-megabytes", type=float, default=16.0)
    parser.add_argument("--precision", default="bfloat16")
    parser.add_argument("--csv", type=Path, help="write the table to this file")
    return parser.parse_args(argv)


if __name__ == "__main__":
    main()
