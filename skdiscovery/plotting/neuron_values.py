"""From a fitted estimator to the values of one neuron over a text."""

import warnings
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted, column_or_1d

from skdiscovery.plotting.neuron_features import (
    best_of_search,
    feature_names,
    featurizer_position,
    is_featurizer,
    language_model_of,
    texts_before_step,
)
from skdiscovery.text import TextCorpus

_EXPECTED = (
    "a fitted language model, a fitted featurizer, a fitted Pipeline of a featurizer and a "
    "SentimentNeuronClassifier, or a fitted search over one of these"
)


class NeuronValues(NamedTuple):
    """What one neuron does over a text, or over each of several.

    ``text_bytes`` is the preprocessed text, ``values`` the float32 value after each byte, of shape
    (n_bytes,), or they are lists of these; ``description`` says in words which neuron it is.
    """

    text_bytes: bytes | list[bytes]
    values: np.ndarray | list[np.ndarray]
    description: str


def neuron_values(
    estimator: Any,
    text: str | bytes | Iterable[str | bytes],
    *,
    neuron: int | None,
    state: str | None,
    layer: int,
    negate: bool,
) -> NeuronValues:
    """Run the language model inside ``estimator`` over ``text``; see `plot_heatmap`."""
    is_single = isinstance(text, str | bytes)
    texts = [text] if is_single else list(column_or_1d(text, dtype=object))
    sign = -1 if negate else 1
    model = best_of_search(estimator)
    if isinstance(model, Pipeline):
        check_is_fitted(model)
        position = featurizer_position(model)
        if position is None:
            names = ", ".join(type(step).__name__ for _, step in model.steps)
            raise TypeError(f"estimator must be {_EXPECTED}. Got a Pipeline of {names} instead.")
        texts = texts_before_step(model, position, texts)
        if neuron is None:
            neuron, learned_sign = _sentiment_neuron(model, model[position])
            sign *= learned_sign
        model = model[position]
    if is_featurizer(model):
        check_is_fitted(model, "language_model_")
        state = state or model.state
        layer = model.layer if layer == -1 else layer
        model = language_model_of(model)
    if not hasattr(model, "activations"):
        raise TypeError(f"estimator must be {_EXPECTED}. Got {model!r} instead.")
    check_is_fitted(model)
    if neuron is None:
        raise ValueError(
            f"Which neuron to show? {type(estimator).__name__} does not tell: give neuron=, an "
            f"index from 0 to {model.config_['hidden_size'] - 1}."
        )
    state = state or "cell"
    text_bytes = model.preprocess(texts)
    documents = TextCorpus.from_documents(text_bytes, preprocessor=None)  # they have been through
    values = model.activations(documents, neurons=[neuron], state=state, layer=layer)
    values = [sign * of_text[:, 0] for of_text in values]
    flipped = " (sign flipped)" if sign < 0 else ""
    where = layer_name(layer, model.config_["n_layers"])
    description = f"neuron {neuron}{flipped}, {state} state of {where}"
    if is_single:
        return NeuronValues(text_bytes[0], values[0], description)
    return NeuronValues(text_bytes, values, description)


def _sentiment_neuron(pipeline: Pipeline, featurizer: Any) -> tuple[int, int]:
    """Return the neuron that the classifier relies on most, and the sign it gives to it."""
    classifier = pipeline[-1]
    if not hasattr(classifier, "neuron_indices_"):
        raise TypeError(
            f"estimator must be {_EXPECTED}. Got a Pipeline that ends with "
            f"{type(classifier).__name__} instead; give neuron= to show one of its featurizer."
        )
    # By name: steps in between may leave columns out, move them, or make new ones of them.
    names = feature_names(pipeline[:-1], classifier)
    chosen = None if names is None else names[first_column(classifier)]
    (columns,) = np.nonzero(featurizer.get_feature_names_out() == chosen)
    if not len(columns):
        raise ValueError(
            "A step between the featurizer and the classifier makes new features, or does not tell "
            "which is which, so the classifier's choice names no neuron. Give neuron=."
        )
    return int(featurizer.feature_neurons_[columns[0]]), int(classifier.neuron_sign_)


def first_column(classifier: Any) -> int:
    """Return the column that the classifier relies on most; warn if it relies on none."""
    if not classifier.coef_.any():
        warnings.warn(
            "The classifier has found no neuron, so the first stands for it: raise its C, or give "
            "neuron=.",
            stacklevel=2,
        )
    return int(classifier.neuron_indices_[0])


def layer_name(layer: int, n_layers: int) -> str:
    """Return what to call the layer."""
    return "the last layer" if layer in (-1, n_layers - 1) else f"layer {layer % n_layers}"
