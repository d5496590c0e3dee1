"""The regressions of sentiment_transfer.py and reproduce.py, on features and on words."""

import copy
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.utils.parallel import Parallel, delayed

from skdiscovery import SentimentNeuronClassifier

L1_GRID = 2.0 ** np.arange(-8, 1)
TFIDF_GRID = 2.0 ** np.arange(0, 7)

Parts = dict[str, Any]  # what belongs to "train", "valid" and "test": tables, features, labels


def search_l1(X: Parts, y: Parts, n_ranked: int, seed: int) -> SentimentNeuronClassifier:
    """Return the classifier with the C whose regression on all features validates best.

    That regression is its ``all_neurons_``. Its second one, on the ``n_ranked`` neurons in
    ``neuron_indices_``, has the same C and is not used: here the few neurons choose their own.
    ``joblib.parallel_config`` says how many are fitted at a time.
    """
    with warnings.catch_warnings():
        # The smallest C may leave nothing to decide by, which is what a search is for.
        warnings.filterwarnings("ignore", message="This classifier is right in")
        fitted = Parallel()(
            delayed(
                SentimentNeuronClassifier(C=float(C), n_neurons=n_ranked, random_state=seed).fit
            )(X["train"], y["train"])
            for C in L1_GRID
        )
    return fitted[best_on_validation([each.all_neurons_ for each in fitted], X, y)]


def best_on_validation(models: Sequence[Any], X: Parts, y: Parts) -> int:
    """Return which model is the most accurate on the validation set, the first of equals."""
    return int(np.argmax([model.score(X["valid"], y["valid"]) for model in models]))


def mask(model: Any, kept: np.ndarray) -> Any:
    """Return the fitted model with the coefficients of all but the kept features set to zero."""
    masked = copy.deepcopy(model)
    for regression in getattr(masked, "estimators_", [masked]):  # of one class against the rest
        dropped = np.setdiff1d(np.arange(regression.coef_.shape[1]), kept)
        regression.coef_[:, dropped] = 0
    return masked


def fit_tfidf(texts: Parts, y: Parts) -> tuple[LogisticRegression, Parts]:
    """Return the regression on weighted counts of words and pairs of words, and the counts."""
    words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True).fit(texts["train"])
    X = {part: words.transform(part_texts) for part, part_texts in texts.items()}
    fitted = Parallel()(
        delayed(LogisticRegression(C=float(C), max_iter=1000).fit)(X["train"], y["train"])
        for C in TFIDF_GRID
    )
    return fitted[best_on_validation(fitted, X, y)], X
