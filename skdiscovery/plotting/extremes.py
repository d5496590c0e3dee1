"""The texts at the two ends of a neuron's distribution."""

from numbers import Integral
from typing import Any

import numpy as np
import pandas as pd
from sklearn.utils import column_or_1d
from sklearn.utils._param_validation import Interval, validate_params

from skdiscovery.plotting.neuron_features import featurizer_and_classifier
from skdiscovery.plotting.neuron_values import first_column


@validate_params(
    {
        "X": ["array-like"],
        "neuron": [Integral, None],
        "n_texts": [Interval(Integral, 1, None, closed="left")],
    },
    prefer_skip_nested_validation=False,
)
def extreme_texts(
    estimator: Any, X: Any, *, neuron: int | None = None, n_texts: int = 5
) -> pd.DataFrame:
    """List the texts for which a neuron is highest and lowest.

    Parameters
    ----------
    estimator : estimator instance
        A fitted `~sklearn.pipeline.Pipeline` of a featurizer and a `SentimentNeuronClassifier`, a
        fitted search over one, or, with ``neuron``, a fitted featurizer or any pipeline with one.
    X : array-like of str or bytes, of shape (n_samples,)
        The texts.
    neuron : int, default=None
        Which neuron of the language model; of several poolings, the first one's value counts. None
        is the first neuron of the classifier.
    n_texts : int, default=5
        How many texts at each end. If there are fewer than twice as many, each is listed once.

    Returns
    -------
    DataFrame of shape (at most 2 * n_texts, 3)
        Columns ``tail`` ("high" or "low"), ``value`` and ``text``, by falling value; the index is
        the position in ``X``.

    Raises
    ------
    TypeError
        If ``estimator`` is none of the above.
    ValueError
        If ``neuron`` is needed and not given, or is not one of the featurizer's.
    sklearn.exceptions.NotFittedError
        If ``estimator`` is not fitted.

    Examples
    --------
    >>> from skdiscovery import MLSTMFeaturizer
    >>> from skdiscovery.plotting import extreme_texts
    >>> X = ["A lovely film.", "Dull!", "I loved it.", "I was bored."]
    >>> table = extreme_texts(MLSTMFeaturizer().fit(), X, neuron=423, n_texts=1)
    >>> dict(zip(table["tail"], table["text"]))
    {'high': 'A lovely film.', 'low': 'Dull!'}
    """
    documents = list(column_or_1d(X, dtype=object))
    texts, featurizer, classifier = featurizer_and_classifier(estimator, documents)
    column = _column(featurizer, classifier, neuron)
    values = np.asarray(featurizer.transform(texts))[:, column] if documents else np.empty(0)
    order = np.argsort(-values, kind="stable")
    n_high = min(n_texts, -(-len(order) // 2))
    n_low = min(n_texts, len(order) - n_high)
    chosen = np.concatenate([order[:n_high], order[len(order) - n_low :]])
    return pd.DataFrame(
        {
            "tail": ["high"] * n_high + ["low"] * n_low,
            "value": values[chosen],
            "text": [documents[i] for i in chosen],
        },
        index=chosen,
    )


def _column(featurizer: Any, classifier: Any, neuron: int | None) -> int:
    neurons = featurizer.feature_neurons_
    if neuron is not None:
        (columns,) = np.nonzero(neurons == neuron)
        if len(columns):
            return int(columns[0])
        raise ValueError(
            f"Neuron {neuron} is out of range: the featurizer has {len(set(neurons))} neurons from "
            f"{neurons.min()} to {neurons.max()}."
        )
    if classifier is None:
        raise ValueError(
            "Which neuron? Without a SentimentNeuronClassifier right after the featurizer, give "
            f"neuron=, an index from {neurons.min()} to {neurons.max()}."
        )
    return first_column(classifier)
