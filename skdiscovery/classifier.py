"""The sentiment neuron: a linear classifier on the few features that matter."""

import warnings
from numbers import Integral, Real
from typing import ClassVar

import numpy as np
import pandas as pd
from scipy.special import log_expit, logit, softmax
from sklearn import config_context
from sklearn.base import BaseEstimator, _fit_context
from sklearn.linear_model import LogisticRegression
from sklearn.linear_model._base import LinearClassifierMixin
from sklearn.multiclass import OneVsRestClassifier
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.class_weight import compute_class_weight
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import _check_sample_weight, validate_data

_ROUNDING = 1e-9  # in sums of weights


class SentimentNeuronClassifier(LinearClassifierMixin, BaseEstimator):
    """Logistic regression on the few neurons that an L1 penalty selects.

    A first L1-penalised logistic regression sees all features (neurons of a language model).
    The neurons are ranked by the L1 norm, over the classes, of their coefficients, and a second
    regression with the same settings sees only the first `n_neurons` of them. With one neuron
    and two classes the classifier is a threshold on that neuron [1]_.

    Parameters
    ----------
    C : float, default=0.25
        Inverse of the strength of the L1 penalty, positive and finite. Smaller values keep
        fewer neurons.
    n_neurons : int or None, default=1
        Number of neurons to classify by. `None` takes every neuron whose coefficient in the
        first regression is not zero, and at least one.
    solver : {"liblinear", "saga"}, default="liblinear"
        With more than two classes, "liblinear" is one-vs-rest and "saga" multinomial. "liblinear"
        also penalises the intercept.
    class_weight : dict, "balanced" or None, default=None
        Weight of each class, as a dict from label to weight; labels that are not in it get 1, if
        all that are in it are in `y`. "balanced" weights a class inversely to its total sample
        weight.
    max_iter : int, default=1000
        Maximum number of iterations of the solver, in each regression.
    tol : float, default=1e-4
        Tolerance at which the solver stops.
    random_state : int, RandomState instance or None, default=None
        Seed of the order in which the solver visits coordinates or samples.

    Attributes
    ----------
    all_neurons_ : LogisticRegression or OneVsRestClassifier
        The first regression, fitted on all features. Of more than two classes, "liblinear"
        gives a `OneVsRestClassifier`.
    neuron_indices_ : ndarray of shape (n_neurons,), dtype int
        Columns that the classifier uses, the most important first; ties go to the lower index.
    n_features_used_ : int
        Number of features whose coefficient in `all_neurons_` is not zero.
    coef_ : ndarray of shape (1, n_features) or (n_classes, n_features), dtype float64
        Coefficients over all features, zero outside `neuron_indices_`; one row if there are
        two classes.
    intercept_ : ndarray of shape (1,) or (n_classes,), dtype float64
        Intercepts.
    classes_ : ndarray of shape (n_classes,)
        Labels, sorted.
    majority_score_ : float
        Weighted accuracy, on the data of `fit`, of always predicting the majority class: the
        baseline that the classifier has to beat.
    threshold_ : float or None
        Value of the neuron at which the decision flips, if there are two classes and one neuron
        whose coefficient is not zero.
    neuron_sign_ : int
        1 if larger values of the first neuron speak for `classes_[-1]` or its coefficient is
        zero, -1 if they speak against.
    n_iter_ : ndarray of shape (1,) or (n_classes,), dtype int32
        Iterations that the first regression took; one per class if it is one-vs-rest.
    n_features_in_ : int
        Number of features seen in `fit`.
    feature_names_in_ : ndarray of shape (n_features_in_,), dtype object
        Names of the features, if `X` had names that are all strings.

    See Also
    --------
    sklearn.linear_model.LogisticRegression : The regression underneath.

    Notes
    -----
    If the penalty removes every neuron, the intercept is set to predict the frequencies of the
    classes, so that the majority class wins with either solver.

    A text that is neither praise nor blame gets one of the two labels like any other. Where it
    may stay undecided, decide by the probabilities:
    ``np.where(np.abs(p - 0.5) < 0.1, "undecided", classifier.predict(X))`` with
    ``p = classifier.predict_proba(X)[:, 1]``.

    Weights are divided by the largest of them, and `C` is multiplied by it: an equivalent
    problem on which "saga" converges. `all_neurons_.C` is the product.

    References
    ----------
    .. [1] A. Radford, R. Jozefowicz and I. Sutskever, "Learning to Generate Reviews and
       Discovering Sentiment", 2017, arXiv:1704.01444.

    Examples
    --------
    >>> import numpy as np
    >>> from skdiscovery import SentimentNeuronClassifier
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(200, 8))
    >>> y = np.where(X[:, 5] < 0.5, "praise", "blame")
    >>> classifier = SentimentNeuronClassifier(random_state=0).fit(X, y)
    >>> classifier.neuron_indices_, classifier.neuron_sign_
    (array([5]), -1)
    >>> round(classifier.threshold_, 1)
    0.5
    >>> classifier.score(X, y) > 0.9
    True
    """

    _parameter_constraints: ClassVar[dict] = {
        "C": [Interval(Real, 0, None, closed="neither")],
        "n_neurons": [Interval(Integral, 1, None, closed="left"), None],
        "solver": [StrOptions({"liblinear", "saga"})],
        "class_weight": [dict, StrOptions({"balanced"}), None],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "tol": [Interval(Real, 0, None, closed="neither")],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        C=0.25,
        *,
        n_neurons=1,
        solver="liblinear",
        class_weight=None,
        max_iter=1000,
        tol=1e-4,
        random_state=None,
    ):
        self.C = C
        self.n_neurons = n_neurons
        self.solver = solver
        self.class_weight = class_weight
        self.max_iter = max_iter
        self.tol = tol
        self.random_state = random_state

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y, sample_weight=None):
        """Rank the neurons and fit the classifier on the first of them.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Features, for example from `MLSTMFeaturizer`; converted to float64.
        y : array-like of shape (n_samples,)
            Labels: numbers or strings, of at least two classes.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the samples, not negative; `None` weighs each by 1. A sample of weight
            zero counts as absent, also in `classes_`.

        Returns
        -------
        SentimentNeuronClassifier
            Self.

        Raises
        ------
        ValueError
            If `y` is continuous or has one class only, the lengths differ, `X` has fewer
            features than `n_neurons`, a value is missing or infinite, or a weight, of a sample or
            of a class, is negative.

        Warns
        -----
        UserWarning
            If it is no more accurate on the data that it was fitted on than `majority_score_`.
        """
        X, y = validate_data(self, X, y, accept_sparse="csr", dtype=np.float64, order="C")
        if y.dtype == object and pd.isna(y).any():
            index = int(pd.isna(y).argmax())
            raise ValueError(f"The label at index {index} is missing ({y[index]!r}).")
        check_classification_targets(y)
        if self.n_neurons is not None and self.n_neurons > X.shape[1]:
            raise ValueError(
                f"n_neurons={self.n_neurons} is larger than n_features={X.shape[1]} of X: "
                "lower it, or give None"
            )
        weight = _check_sample_weight(sample_weight, X, ensure_non_negative=True)
        if not weight.all():  # what weighs nothing is as good as absent
            X, y, weight = X[weight > 0], y[weight > 0], weight[weight > 0]
        self.classes_, codes = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:  # LogisticRegression words this misleadingly for liblinear
            raise ValueError(
                "Samples of at least 2 classes with a positive weight are needed, "
                f"got {len(self.classes_)} class(es): {self.classes_.tolist()}"
            )
        # A one-vs-rest model renames the labels, so it could not look up weights by label.
        class_weight = _weight_per_class(self.class_weight, self.classes_, y, weight)
        # One-vs-rest with liblinear would know nothing of a class that weighs nothing.
        tiny = np.finfo(np.float64).eps * class_weight.max()
        weight = weight * np.maximum(class_weight, tiny)[codes]

        self.all_neurons_ = self._fit_logistic(X, y, weight)
        coef, _, self.n_iter_ = linear_terms(self.all_neurons_)
        importance = np.abs(coef).sum(axis=0)
        self.n_features_used_ = int(np.count_nonzero(importance))
        n_neurons = self.n_neurons or max(self.n_features_used_, 1)
        self.neuron_indices_ = np.argsort(-importance, kind="stable")[:n_neurons]

        chosen = self._fit_logistic(X[:, self.neuron_indices_], y, weight)
        chosen_coef, self.intercept_, _ = linear_terms(chosen)
        self.coef_ = np.zeros_like(coef)
        self.coef_[:, self.neuron_indices_] = chosen_coef
        if not chosen_coef.any():
            self.intercept_ = self._prior_intercept(codes, weight)
        self._describe_first_neuron()
        self._compare_with_majority(X, codes, weight)
        return self

    def _fit_logistic(self, X, y, weight):
        # saga steps too far where weights exceed one; C times weight is all that matters.
        scale = weight.max()
        weight = weight / scale
        logistic = LogisticRegression(
            C=self.C * scale,
            l1_ratio=1,
            solver=self.solver,
            max_iter=self.max_iter,
            tol=self.tol,
            random_state=self.random_state,
        )
        if self.solver == "saga" or len(self.classes_) == 2:
            return logistic.fit(X, y, sample_weight=weight)
        # Routing is the only way by which one-vs-rest hands on weights.
        with config_context(enable_metadata_routing=True):
            logistic.set_fit_request(sample_weight=True)
            return OneVsRestClassifier(logistic).fit(X, y, sample_weight=weight)

    def _prior_intercept(self, codes, weight):
        """Return the intercept that alone predicts each class as often as it occurs.

        Without coefficients, liblinear's penalised intercept may be zero, so that the first class
        wins whatever the majority, and saga stops before its intercept has converged.
        """
        share = _shares(codes, weight)
        tiny = np.finfo(np.float64).eps  # finite odds where class_weight is zero
        share = np.clip(share, tiny, 1 - tiny)
        if len(share) == 2:
            return logit(share[1:])
        if self.solver == "liblinear":
            return logit(share)
        return np.log(share) - np.log(share).mean()

    def _describe_first_neuron(self):
        slope = self.coef_[-1, self.neuron_indices_[0]]
        self.neuron_sign_ = -1 if slope < 0 else 1
        is_threshold = self.coef_.shape[0] == len(self.neuron_indices_) == 1 and slope != 0
        # Plus zero, which turns -0 into 0.
        self.threshold_ = float(-self.intercept_[0] / slope + 0) if is_threshold else None

    def _compare_with_majority(self, X, codes, weight):
        """Record how accurate the majority class alone is; warn if the classifier is no better."""
        shares = _shares(codes, weight)
        self.majority_score_ = float(shares.max())
        # Not decision_function: X is a plain array by now, so it would warn of missing names.
        scores = X @ self.coef_.T + self.intercept_
        predicted = scores.argmax(axis=1) if scores.shape[1] > 1 else scores[:, 0] > 0
        accuracy = np.average(predicted == codes, weights=weight)
        if accuracy > self.majority_score_ + _ROUNDING:
            return
        reason = (
            "the L1 penalty leaves no neuron; raise C"
            if not self.coef_.any()
            else "raise n_neurons or C, or give it features that know more of the labels"
        )
        warnings.warn(
            f"This classifier is right in {accuracy:.1%} of the data that it was fitted on, no "
            f"better than always predicting {self.classes_.tolist()[shares.argmax()]!r} "
            f"({self.majority_score_:.1%}): {reason}.",
            stacklevel=4,
        )

    def predict_proba(self, X):
        """Probability of each class.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Features.

        Returns
        -------
        ndarray of shape (n_samples, n_classes), dtype float64
            Probabilities, in the order of `classes_`.
        """
        scores = self.decision_function(X)
        if scores.ndim == 1:
            scores = np.column_stack([np.zeros_like(scores), scores])
        elif isinstance(self.all_neurons_, OneVsRestClassifier):
            scores = log_expit(scores)  # each class against the rest, scaled to sum to one
        return softmax(scores, axis=1)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        # One neuron orders the samples on a line: of three classes it often misses the middle one.
        tags.classifier_tags.poor_score = self.n_neurons == 1
        return tags


def _weight_per_class(class_weight, classes, y, sample_weight):
    """Return the weight of each of `classes` that the parameter `class_weight` asks for."""
    if isinstance(class_weight, dict):  # scikit-learn's error does not name what is unknown
        labels = classes.tolist()
        unknown = [label for label in class_weight if label not in labels]
        left_out = [label for label in labels if label not in class_weight]
        if unknown and left_out:
            raise ValueError(
                f"class_weight has weights for {unknown}, which y has not, and none for "
                f"{left_out}, which it has"
            )
    weights = compute_class_weight(class_weight, classes=classes, y=y, sample_weight=sample_weight)
    if not ((weights >= 0).all() and 0 < weights.max() < np.inf):
        raise ValueError(
            "class_weight must be finite numbers, none of them negative and one at least "
            f"positive, got {class_weight!r}"
        )
    return weights


def _shares(codes, weight):
    """Return the share of the weight that each class has."""
    return np.bincount(codes, weights=weight) / weight.sum()


def linear_terms(model):
    """Return coefficients, intercepts and iteration counts of a fitted model, a row per part."""
    parts = getattr(model, "estimators_", [model])
    return tuple(
        np.concatenate([getattr(part, name) for part in parts])
        for name in ("coef_", "intercept_", "n_iter_")
    )
