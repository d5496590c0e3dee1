"""From a fitted estimator to its featurizer, its classifier, and the names of the features."""

from typing import Any

import numpy as np
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted

from skdiscovery.plotting.neuron_values import best_of_search, is_featurizer, texts_before_step


def steps_and_classifier(estimator: Any) -> tuple[Pipeline | None, Any]:
    """Return the steps of a pipeline before its classifier, if it is one, and the classifier."""
    model = best_of_search(estimator)
    is_pipeline = isinstance(model, Pipeline)
    steps = model[:-1] if is_pipeline and len(model) > 1 else None
    classifier = model[-1] if is_pipeline else model
    check_is_fitted(classifier)
    if not hasattr(classifier, "all_neurons_"):
        raise TypeError(
            "estimator must be a fitted SentimentNeuronClassifier, a fitted Pipeline that ends "
            f"with one, or a fitted search over one of these. Got {estimator!r} instead."
        )
    return steps, classifier


def featurizer_and_classifier(estimator: Any, texts: list) -> tuple[list, Any, Any]:
    """Return the texts as the featurizer receives them, it, and the classifier on its columns."""
    model = best_of_search(estimator)
    steps = [step for _, step in model.steps] if isinstance(model, Pipeline) else [model]
    positions = [position for position, step in enumerate(steps) if is_featurizer(step)]
    if not positions:
        raise TypeError(
            "estimator must be a fitted featurizer, a fitted Pipeline with one, or a fitted search "
            f"over one of these. Got {estimator!r} instead."
        )
    position = positions[0]
    check_is_fitted(steps[position], "language_model_")
    if position:
        texts = texts_before_step(model, position, texts)
    # After a step in between, neither columns nor thresholds would be those of the neurons.
    is_next = position == len(steps) - 2 and hasattr(steps[-1], "neuron_indices_")
    return texts, steps[position], steps[-1] if is_next else None


def feature_names(steps: Pipeline | None, classifier: Any) -> np.ndarray | None:
    """Return the names of the classifier's features; None if they have none."""
    if steps is None:
        return getattr(classifier, "feature_names_in_", None)
    # Names begin at the featurizer: what comes before it handles texts, and may name nothing.
    starts = [position for position, (_, step) in enumerate(steps.steps) if is_featurizer(step)]
    try:
        return steps[max(starts, default=0) :].get_feature_names_out()
    except AttributeError:  # a step after it that does not tell its names
        return None
