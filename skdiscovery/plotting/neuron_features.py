"""From a fitted estimator to its featurizer, its classifier, and the names of the features.

Estimators are told apart by what they offer, so this file imports none of the package's own.
"""

import copy
from typing import Any

import numpy as np
from sklearn.model_selection._search import BaseSearchCV
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted


def best_of_search(estimator: Any) -> Any:
    """Return the estimator that a fitted search has found, or what is not a search as it is."""
    if isinstance(estimator, BaseSearchCV):
        check_is_fitted(
            estimator,
            "best_estimator_",
            msg="This %(name)s has no best_estimator_: call 'fit' first, with refit=True.",
        )
    return getattr(estimator, "best_estimator_", estimator)


def is_featurizer(estimator: Any) -> bool:
    """Return whether this turns texts to the states of a language model."""
    return hasattr(estimator, "language_model")


def featurizer_position(pipeline: Pipeline) -> int | None:
    """Return which step is the first featurizer, if there is one."""
    positions = (k for k, (_, step) in enumerate(pipeline.steps) if is_featurizer(step))
    return next(positions, None)


def language_model_of(featurizer: Any) -> Any:
    """Return a fitted featurizer's language model, to compute where and as the featurizer does."""
    model = copy.copy(featurizer.language_model_)  # a shallow one: they share the weights
    settings = ("device", "precision", "backend")
    return model.set_params(**{name: getattr(featurizer, name) for name in settings})


def texts_before_step(pipeline: Pipeline, position: int, texts: list) -> list:
    """Return the texts as the step at ``position`` receives them."""
    if position == 0:
        return texts
    return list(np.asarray(pipeline[:position].transform(texts), dtype=object).ravel())


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
    pipeline = model if isinstance(model, Pipeline) else Pipeline([("featurizer", model)])
    position = featurizer_position(pipeline)
    if position is None:
        raise TypeError(
            "estimator must be a fitted featurizer, a fitted Pipeline with one, or a fitted search "
            f"over one of these. Got {estimator!r} instead."
        )
    featurizer, last = pipeline[position], pipeline[-1]
    check_is_fitted(featurizer, "language_model_")
    # After a step in between, neither columns nor thresholds would be those of the neurons.
    is_next = position == len(pipeline) - 2 and hasattr(last, "neuron_indices_")
    return texts_before_step(pipeline, position, texts), featurizer, last if is_next else None


def feature_names(steps: Pipeline | None, classifier: Any) -> np.ndarray | None:
    """Return the names of the classifier's features; None if they have none."""
    if steps is None:
        return getattr(classifier, "feature_names_in_", None)
    # Names begin at the featurizer: what comes before it handles texts, and may name nothing.
    try:
        return steps[featurizer_position(steps) or 0 :].get_feature_names_out()
    except AttributeError:  # a step after it that does not tell its names
        return None
