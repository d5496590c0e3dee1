"""What reproduce.py measures: data sets, edited texts, classifiers, learning from few labels."""

import sys
import warnings
from collections.abc import Sequence
from itertools import count, takewhile
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from regressions import L1_GRID, TFIDF_GRID, Parts, fit_tfidf, mask, search_l1
from scipy.sparse import issparse
from sklearn.base import clone
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, train_test_split

from skdiscovery import MLSTMFeaturizer, SentimentNeuronClassifier
from skdiscovery.classifier import linear_terms
from skdiscovery.datasets import fetch_imdb, fetch_sst2

FETCH = {"sst2": fetch_sst2, "imdb": fetch_imdb}
N_EDITED = 2000
N_LABELS = (10, 100, 1000)
N_DRAWS = 5
N_LEAST = 50
N_AT_ONCE = 2000
SEED = 0
LETTERS = "abcdefghijklmnopqrstuvwxyz"

EDITED = {"0% edits": 0.0, "2% edits": 0.02, "5% edits": 0.05, "10% edits": 0.10}
# What the columns of accuracies are measured on.
COLUMNS = {"train": "train", "validation": "valid", "test": "test"}
COLUMNS |= {part: part for part in EDITED}

ALL, MASKED, ONE = "all neurons", "one neuron, the others masked", "one neuron"
MAJORITY, TFIDF = "majority class", "tf-idf"


class Method(NamedTuple):
    """A fitted classifier, what it predicts from, its C, and how many features it uses."""

    model: Any
    X: Parts
    C: float | None = None
    n_features: int | None = None


class Outcome(NamedTuple):
    """What came of a data set; ``curve`` is the accuracy on the test set by number of neurons."""

    classes: list[str]
    y: Parts
    methods: dict[str, Method]
    ranking: np.ndarray
    table: pd.DataFrame
    curve: pd.Series


# ---- texts


def load(name: str, n_train: int | None, n_test: int | None) -> tuple[Parts, Parts, list[str]]:
    """Return texts and labels of training, validation, test and edited test, and the classes."""
    texts: Parts = {}
    y: Parts = {}
    for part, n_texts in (("train", n_train), ("test", n_test)):
        if n_texts is not None and n_texts < N_LEAST:
            raise ValueError(f"--n-{part}: expected {N_LEAST} or more, got {n_texts}")
        data = FETCH[name](subset=part)
        texts[part], y[part] = data.data[:n_texts], data.target[:n_texts]
    if name == "sst2":
        texts["valid"], y["valid"] = fetch_sst2(subset="validation", return_X_y=True)
    else:
        cut = 4 * len(y["train"]) // 5
        for parts in (texts, y):
            parts["train"], parts["valid"] = parts["train"][:cut], parts["train"][cut:]
    for part, share in EDITED.items():
        texts[part] = edited(texts["test"][:N_EDITED], share)
        y[part] = y["test"][:N_EDITED]
    return texts, y, data.target_names


def edited(texts: Sequence[str], share: float) -> list[str]:
    """Return the texts with about this share of the characters of each edited at random."""
    rng = np.random.default_rng(SEED)
    return [edit(text, share, rng) for text in texts]


def edit(text: str, share: float, rng: np.random.Generator) -> str:
    """Replace, drop, add to, or swap with the next, each character with a chance of ``share``."""
    characters = list(text)
    for i in np.flatnonzero(rng.random(len(text)) < share):
        letter = LETTERS[rng.integers(len(LETTERS))]
        match rng.integers(4):
            case 0:
                characters[i] = letter
            case 1:
                characters[i] = ""
            case 2:
                characters[i] += letter
            case 3:
                characters[i : i + 2] = characters[i : i + 2][::-1]
    return "".join(characters)


# ---- measurements


def measure(
    name: str, texts: Parts, y: Parts, classes: list[str], featurizer: MLSTMFeaturizer
) -> Outcome:
    """Fit all methods on a data set and return what they achieve."""
    X = {}
    for part, some in texts.items():
        log(f"{name}: featurising {len(some):,} texts: {part}")
        X[part] = featurise(featurizer, some)
    log(f"{name}: fitting on {len(y['train']):,} texts")
    methods = fit_methods(texts, X, y)
    coef, *_ = linear_terms(methods[ALL].model)
    ranking = np.argsort(-np.abs(coef).sum(axis=0), kind="stable")
    log(f"{name}: accuracy by the number of neurons and of labels")
    table = pd.DataFrame.from_dict(
        {method: accuracies(fitted, y) for method, fitted in methods.items()}, orient="index"
    ).join(learn_from_few(methods, y))
    return Outcome(classes, y, methods, ranking, table, accuracy_by_neurons(methods, y, ranking))


def featurise(featurizer: MLSTMFeaturizer, texts: Sequence[str]) -> np.ndarray:
    """Return the features of texts, some at a time: a run that is killed keeps those it had."""
    with warnings.catch_warnings():
        # Edited texts do look unlike what the model has read.
        warnings.filterwarnings("ignore", message="The texts look unlike")
        return np.concatenate(
            [
                featurizer.transform(texts[start : start + N_AT_ONCE])
                for start in range(0, len(texts), N_AT_ONCE)
            ]
        )


def fit_methods(texts: Parts, X: Parts, y: Parts) -> dict[str, Method]:
    """Return all methods of the table, by their names."""
    best = search_l1(X, y, 1, SEED)
    everything, top = best.all_neurons_, best.neuron_indices_
    X_one = {part: features[:, top] for part, features in X.items()}
    alone = search_l1(X_one, y, 1, SEED)
    tfidf, X_words = fit_tfidf(texts, y)
    return {
        ALL: Method(everything, X, best.C, best.n_features_used_),
        MASKED: Method(mask(everything, top), X, best.C, 1),
        ONE: Method(alone.all_neurons_, X_one, alone.C, 1),
        MAJORITY: Method(DummyClassifier().fit(X["train"], y["train"]), X),
        TFIDF: Method(tfidf, X_words, tfidf.C, X_words["train"].shape[1]),
    }


def accuracies(method: Method, y: Parts) -> dict[str, float | None]:
    """Return a row of the table but for its last columns."""
    scored = {
        column: 100 * method.model.score(method.X[part], y[part])
        for column, part in COLUMNS.items()
    }
    return {**scored, "C": method.C, "features": method.n_features}


def accuracy_by_neurons(methods: dict[str, Method], y: Parts, ranking: np.ndarray) -> pd.Series:
    """Return the accuracy on the test set of regressions on the first 1, 2, 4, ... neurons."""
    model, X, *_ = methods[ALL]
    curve = {len(ranking): model.score(X["test"], y["test"])}
    for k in takewhile(lambda k: k < len(ranking), (2**i for i in count())):
        first = ranking[:k]
        fitted = clone(model).fit(X["train"][:, first], y["train"])
        curve[k] = fitted.score(X["test"][:, first], y["test"])
    return 100 * pd.Series(curve).sort_index()


def learn_from_few(methods: dict[str, Method], y: Parts) -> pd.DataFrame:
    """Return the columns of training on few labels: means and standard deviations."""
    everything = SentimentNeuronClassifier(n_neurons=None, random_state=SEED)
    one = SentimentNeuronClassifier(n_neurons=1, random_state=SEED)
    words = LogisticRegression(max_iter=1000)
    searches = {
        ALL: (GridSearchCV(everything, {"C": L1_GRID}, cv=3), methods[ALL].X),
        ONE: (GridSearchCV(one, {"C": L1_GRID}, cv=3), methods[ALL].X),
        TFIDF: (GridSearchCV(words, {"C": TFIDF_GRID}, cv=3), methods[TFIDF].X),
    }
    columns = {}
    for n_labels in few_labels(y):
        drawn = {
            name: [accuracy_from_few(search, X, y, n_labels, k) for k in range(N_DRAWS)]
            for name, (search, X) in searches.items()
        }
        columns[f"{n_labels} labels"] = pd.DataFrame(drawn).mean()
        columns[f"{n_labels} labels, std"] = pd.DataFrame(drawn).std(ddof=0)
    return pd.DataFrame(columns)


def few_labels(y: Parts) -> list[int]:
    """Return on how few labels to learn: so few that a text of either class is left over."""
    return [n for n in N_LABELS if n + 2 <= len(y["train"])]


def accuracy_from_few(search: GridSearchCV, X: Parts, y: Parts, n_labels: int, draw: int) -> float:
    """Return the accuracy on the test set after training on so many texts, drawn at random."""
    every = np.arange(len(y["train"]))
    rows, _ = train_test_split(
        every, train_size=n_labels, stratify=y["train"], random_state=SEED + draw
    )
    X_few, X_test = X["train"][rows], X["test"]
    if issparse(X_few):  # a word that no text has gets no weight
        words = np.unique(X_few.indices)
        X_few, X_test = X_few[:, words], X_test[:, words]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="This classifier is right in")
        fitted = clone(search).fit(X_few, y["train"][rows])
    return 100 * fitted.score(X_test, y["test"])


def log(line: str) -> None:
    """Say what is going on, beside the results."""
    print(line, file=sys.stderr, flush=True)
