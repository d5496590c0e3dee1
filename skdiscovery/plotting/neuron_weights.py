"""The display of the weights that a classifier gives to the neurons."""

from __future__ import annotations

from itertools import cycle
from numbers import Integral
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.utils._param_validation import Interval, validate_params
from sklearn.utils.validation import check_array

from skdiscovery.classifier import linear_terms
from skdiscovery.plotting.colours import CLASS_COLOURS
from skdiscovery.plotting.legend import legend_entry
from skdiscovery.plotting.neuron_features import feature_names, steps_and_classifier

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# One fewer than colours, so that of many classes no two get the same pair.
_MARKERS = "osD^v"

_CONSTRAINTS = {"n_labelled": [Interval(Integral, 0, None, closed="left")]}


class NeuronWeightsDisplay:
    """Weights of all neurons in a linear classifier.

    A stem per weight that is not zero. The weights of a class are divided by their L2 norm. The
    neurons with the largest weights, by the L1 norm over the classes, have their names on them.

    Use `NeuronWeightsDisplay.from_estimator` to create one from a fitted classifier. All
    parameters are stored as attributes.

    Parameters
    ----------
    coef : array-like of shape (n_classes, n_features) or (1, n_features)
        The weights. One row, if there are two classes, speaks for the second.
    classes : array-like of shape (n_classes,)
        Labels of the classes.
    names : array-like of shape (n_features,), default=None
        Names of the features; None is their index.

    Attributes
    ----------
    ax_ : matplotlib Axes
        Axes with the weights.
    figure_ : matplotlib Figure
        Figure that holds them.
    stems_ : list of matplotlib LineCollection
        The stems, an element per row of ``coef``.
    heads_ : list of matplotlib Line2D
        Their heads, likewise.
    labels_ : list of matplotlib Annotation
        The names of the first neurons, the most important first.

    See Also
    --------
    NeuronHistogramDisplay : The values of one neuron.

    Examples
    --------
    >>> from skdiscovery import NeuronWeightsDisplay
    >>> display = NeuronWeightsDisplay([[0.0, 3.0, 0.0, -4.0]], ["bad", "good"]).plot()
    >>> [label.get_text() for label in display.labels_]
    ['3', '1']
    """

    def __init__(self, coef: Any, classes: Any, *, names: Any = None):
        self.coef = coef
        self.classes = classes
        self.names = names

    @classmethod
    @validate_params(_CONSTRAINTS, prefer_skip_nested_validation=False)
    def from_estimator(
        cls, estimator: Any, *, n_labelled: int = 5, ax: Axes | None = None
    ) -> NeuronWeightsDisplay:
        """Plot the weights in a fitted classifier's first regression, on all neurons.

        Parameters
        ----------
        estimator : estimator instance
            A fitted `SentimentNeuronClassifier`, a fitted `~sklearn.pipeline.Pipeline` that ends
            with one, or a fitted search over one of these. In a pipeline, the steps before the
            classifier name the neurons.
        n_labelled : int, default=5
            Number of neurons with a name, at most.
        ax : matplotlib Axes, default=None
            Axes to draw on. If None, a new figure is made.

        Returns
        -------
        NeuronWeightsDisplay
            The display, plotted.

        Raises
        ------
        TypeError
            If ``estimator`` is none of the above.
        sklearn.exceptions.NotFittedError
            If ``estimator`` is not fitted.

        Examples
        --------
        >>> import numpy as np
        >>> from skdiscovery import NeuronWeightsDisplay, SentimentNeuronClassifier
        >>> X = np.random.default_rng(0).normal(size=(200, 8))
        >>> y = np.where(X[:, 5] < 0.5, "praise", "blame")
        >>> classifier = SentimentNeuronClassifier(random_state=0).fit(X, y)
        >>> display = NeuronWeightsDisplay.from_estimator(classifier, n_labelled=1)
        >>> display.labels_[0].get_text()
        '5'
        """
        steps, classifier = steps_and_classifier(estimator)
        coefficients, _, _ = linear_terms(classifier.all_neurons_)
        names = feature_names(steps, classifier)
        return cls(coefficients, classifier.classes_, names=names).plot(
            n_labelled=n_labelled, ax=ax
        )

    @validate_params(_CONSTRAINTS, prefer_skip_nested_validation=True)
    def plot(self, *, n_labelled: int = 5, ax: Axes | None = None) -> NeuronWeightsDisplay:
        """Draw the weights.

        Parameters
        ----------
        n_labelled : int, default=5
            Number of neurons with a name, at most.
        ax : matplotlib Axes, default=None
            Axes to draw on. If None, a new figure is made.

        Returns
        -------
        NeuronWeightsDisplay
            The display itself.

        Raises
        ------
        ValueError
            If the rows of ``coef`` do not fit ``classes``, or its columns ``names``.
        """
        coef = check_array(self.coef, input_name="coef")
        n_rows, n_features = coef.shape
        expected = 1 if len(self.classes) == 2 else len(self.classes)
        if n_rows != expected:
            raise ValueError(
                f"coef must have {expected} row(s) for {len(self.classes)} classes: one row if "
                f"there are two classes, else one per class. Got shape {coef.shape}."
            )
        names = np.arange(n_features) if self.names is None else self.names
        if len(names) != n_features:
            raise ValueError(
                f"names must have an element per column of coef, {n_features}. Got {len(names)}."
            )
        if ax is None:
            import matplotlib.pyplot as plt

            _, ax = plt.subplots(figsize=(8, 4.8), layout="constrained")
        self.ax_ = ax
        self.figure_: Any = ax.figure
        norms = np.linalg.norm(coef, axis=1, keepdims=True)
        weights = coef / np.where(norms > 0, norms, 1)
        self.stems_, self.heads_ = [], []
        ax.axhline(0, color="0.6", linewidth=0.8)
        styles = list(zip(self.classes, cycle(CLASS_COLOURS), cycle(_MARKERS), strict=False))
        # The classes' stems stand side by side around the index.
        shifts = np.linspace(-0.5, 0.5, n_rows + 2)[1:-1]
        for (label, colour, marker), row, shift in zip(
            styles[-n_rows:], weights, shifts, strict=True
        ):
            (used,) = np.nonzero(row)
            self.stems_.append(ax.vlines(used + shift, 0, row[used], color=colour, linewidth=1))
            self.heads_ += ax.plot(
                used + shift,
                row[used],
                color=colour,
                linestyle="none",
                marker=marker,
                markersize=4,
                label=legend_entry(f"{label} ({len(used)} of {n_features})"),
            )
        importance = np.abs(coef).sum(axis=0)
        top = np.argsort(-importance, kind="stable")[:n_labelled]
        self.labels_ = [
            self._label(names[neuron], neuron, weights) for neuron in top if importance[neuron] > 0
        ]
        margin = max(0.02 * n_features, 0.5)
        ax.set(
            xlim=(-margin, n_features - 1 + margin),
            xlabel="neuron (feature) index",
            ylabel="weight, divided by the L2 norm of all",
        )
        ax.margins(y=0.12)
        ax.legend(title="speaks for (weights not zero)")
        return self

    def _label(self, name: Any, neuron: int, weights: np.ndarray) -> Any:
        """Write a neuron's name beyond the head of its longest stem."""
        longest = max(weights[:, neuron], key=abs)
        side = 1 if longest > 0 else -1
        place = neuron / weights.shape[1]
        return self.ax_.annotate(
            str(name),
            (neuron, longest),
            xytext=(0, 5 * side),
            textcoords="offset points",
            # A long name stays within the axes.
            ha="left" if place < 0.1 else "right" if place > 0.9 else "center",
            va="bottom" if side > 0 else "top",
            fontsize="small",
            parse_math=False,
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.7, "pad": 0.5},
        )
