"""Which way to pool a model's states tells most of a text's sentiment.

    python benchmarks/study_pooling.py --csv pooling.csv

For the cell states and the hidden states of a model, on SST-2's training and validation sentences:
an L1 regression on the state after the last byte ("last"), on the mean, largest and smallest over
the bytes, and on means in which a byte counts half as much as the one 16 or 64 bytes later; on
several of these side by side; and on two of them as they are, where the others are scaled to unit
variance. The accuracy is that of cross-validation with the C that does best in it, so these figures
flatter, each as much as the other. The test sentences are not looked at.
"""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from reporting import machine
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skdiscovery import ByteMLSTMLanguageModel
from skdiscovery.datasets import fetch_sst2

HALF_LIVES = {"recent 16": 16, "recent 64": 64}
POOLINGS = ("last", "mean", "max", "min", *HALF_LIVES)
TOGETHER = (
    ("last", "mean"),
    ("mean", "max"),
    ("mean", "max", "min"),
    ("last", "mean", "max", "min"),
)
C_GRID = {True: (0.01, 0.03, 0.1), False: (0.03, 0.125, 0.5)}  # by whether features are scaled
N_TEXTS_AT_ONCE = 256  # their states are some 100 MB


def main() -> None:
    """Print a row per state, pooling and scaling."""
    options = parse_arguments()
    print(machine())
    parts = [fetch_sst2(subset=part) for part in ("train", "validation")]
    texts = [text for part in parts for text in part.data]
    y = np.concatenate([part.target for part in parts])
    lm = ByteMLSTMLanguageModel.from_pretrained(options.language_model)
    rows = []
    for state in ("cell", "hidden"):
        pooled = pool_all(lm, texts, state)
        for poolings, scaled in trials():
            X = np.hstack([pooled[pooling] for pooling in poolings])
            accuracy = max(cross_validated(X, y, scaled, C) for C in C_GRID[scaled])
            row = {"state": state, "pooling": " + ".join(poolings), "scaled": scaled}
            rows.append(row | {"accuracy": round(100 * accuracy, 2)})
            print(pd.DataFrame(rows[-1:]).to_string(index=False, header=len(rows) == 1), flush=True)
    if options.csv:
        pd.DataFrame(rows).to_csv(options.csv, index=False)


def trials() -> Iterator[tuple[tuple[str, ...], bool]]:
    """Yield what to put side by side, and whether to scale it."""
    yield from (((pooling,), True) for pooling in POOLINGS)
    yield from ((poolings, True) for poolings in TOGETHER)
    yield from (((pooling,), False) for pooling in ("mean", "max"))


def pool_all(lm: ByteMLSTMLanguageModel, texts: list[str], state: str) -> dict[str, np.ndarray]:
    """Return the features of the texts by the way they are pooled."""
    features: dict[str, list[np.ndarray]] = {pooling: [] for pooling in POOLINGS}
    for first in range(0, len(texts), N_TEXTS_AT_ONCE):
        for states in lm.activations(texts[first : first + N_TEXTS_AT_ONCE], state=state):
            for pooling in POOLINGS:
                features[pooling].append(pool(states, pooling))
    return {pooling: np.stack(some) for pooling, some in features.items()}


def pool(states: np.ndarray, pooling: str) -> np.ndarray:
    """Return one vector for the states (n_bytes, n_neurons) of a text."""
    if pooling == "last":
        return states[-1]
    if pooling in HALF_LIVES:
        n_bytes_after = np.arange(len(states))[::-1]
        return np.average(states, axis=0, weights=0.5 ** (n_bytes_after / HALF_LIVES[pooling]))
    return getattr(states, pooling)(axis=0)


def cross_validated(X: np.ndarray, y: np.ndarray, scaled: bool, C: float) -> float:
    """Return the accuracy of an L1 regression on all features."""
    regression = LogisticRegression(C=C, l1_ratio=1, solver="liblinear", random_state=0)
    model = make_pipeline(StandardScaler() if scaled else "passthrough", regression)
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    return cross_val_score(model, X, y, cv=folds).mean()


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--language-model", default="default", help="a shipped name or a file")
    parser.add_argument("--csv", type=Path, help="write the table to this file")
    return parser.parse_args(argv)


if __name__ == "__main__":
    main()
