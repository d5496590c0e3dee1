"""The display of one neuron's values, class by class."""

from __future__ import annotations

from itertools import cycle
from numbers import Integral
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.sparse import issparse
from sklearn.utils._param_validation import Interval, validate_params
from sklearn.utils.validation import _num_samples, check_array, column_or_1d, validate_data

from skdiscovery.plotting.colours import CLASS_COLOURS
from skdiscovery.plotting.legend import legend_entry
from skdiscovery.plotting.neuron_features import feature_names, steps_and_classifier

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# One fewer than colours, so that of many classes no two get the same pair.
_HATCHES = (None, "///", "...", "xxx", "---")

_BINS = {"bins": [Interval(Integral, 1, None, closed="left")]}


class NeuronHistogramDisplay:
    """Histogram of one neuron's values, class by class.

    All classes share the edges of the bins. They differ in colour and in hatching.

    Use `NeuronHistogramDisplay.from_estimator` to create one from a fitted classifier. All
    parameters are stored as attributes.

    Parameters
    ----------
    values : array-like of shape (n_samples,)
        The neuron's value for each sample.
    y : array-like of shape (n_samples,)
        The class of each sample.
    threshold : float, default=None
        Value at which a classifier's decision flips, drawn as a line.
    name : str, default=None
        The neuron's name.

    Attributes
    ----------
    ax_ : matplotlib Axes
        Axes with the histogram.
    figure_ : matplotlib Figure
        Figure that holds it.
    patches_ : list of matplotlib StepPatch
        The histogram of each class, in sorted order.
    threshold_line_ : matplotlib Line2D or None
        The threshold; None if there is none.

    See Also
    --------
    NeuronWeightsDisplay : The weights of all neurons.

    Examples
    --------
    >>> from skdiscovery import NeuronHistogramDisplay
    >>> values, y = [-0.4, -0.1, 0.2, 0.5, 0.6], ["bad", "bad", "good", "good", "good"]
    >>> display = NeuronHistogramDisplay(values, y, threshold=0.1, name="neuron 388").plot(bins=5)
    >>> [text.get_text() for text in display.ax_.get_legend().get_texts()]
    ['bad (2)', 'good (3)', 'threshold 0.1']
    """

    def __init__(
        self, values: Any, y: Any, *, threshold: float | None = None, name: str | None = None
    ):
        self.values = values
        self.y = y
        self.threshold = threshold
        self.name = name

    @classmethod
    @validate_params(
        {"neuron": [Interval(Integral, 0, None, closed="left"), None], **_BINS},
        prefer_skip_nested_validation=False,
    )
    def from_estimator(
        cls,
        estimator: Any,
        X: Any,
        y: Any,
        *,
        neuron: int | None = None,
        bins: int = 25,
        ax: Axes | None = None,
    ) -> NeuronHistogramDisplay:
        """Plot the values of one feature of a fitted classifier.

        Parameters
        ----------
        estimator : estimator instance
            A fitted `SentimentNeuronClassifier`, a fitted `~sklearn.pipeline.Pipeline` that ends
            with one, or a fitted search over one of these.
        X : array-like
            What the estimator predicts from: features for a classifier, texts for a pipeline that
            starts with a featurizer.
        y : array-like of shape (n_samples,)
            The class of each sample.
        neuron : int, default=None
            Which column of the features that the classifier sees: unlike in `plot_heatmap`, not a
            neuron of the language model. None is the first of its `neuron_indices_`. The
            classifier's threshold is drawn if it is one on this column.
        bins : int, default=25
            Number of bins.
        ax : matplotlib Axes, default=None
            Axes to draw on. If None, a new figure is made.

        Returns
        -------
        NeuronHistogramDisplay
            The display, plotted.

        Raises
        ------
        TypeError
            If ``estimator`` is none of the above.
        ValueError
            If ``neuron`` is out of range, or the lengths of ``X`` and ``y`` differ.
        sklearn.exceptions.NotFittedError
            If ``estimator`` is not fitted.

        Examples
        --------
        >>> from sklearn.pipeline import make_pipeline
        >>> from skdiscovery import MLSTMFeaturizer, NeuronHistogramDisplay
        >>> from skdiscovery import SentimentNeuronClassifier
        >>> X = ["A lovely film.", "A dull film.", "I loved it.", "I was bored."] * 2
        >>> y = ["good", "bad", "good", "bad"] * 2
        >>> pipeline = make_pipeline(MLSTMFeaturizer(neurons=[423]), SentimentNeuronClassifier(C=9))
        >>> display = NeuronHistogramDisplay.from_estimator(pipeline.fit(X, y), X, y)
        >>> display.ax_.get_xlabel()
        'value of mean_cell_423'
        """
        steps, classifier = steps_and_classifier(estimator)
        n_features, first = classifier.n_features_in_, classifier.neuron_indices_[0]
        column = first if neuron is None else neuron
        if column >= n_features:
            raise ValueError(
                f"neuron must be a column of the {n_features} features that the classifier sees, "
                f"from 0 to {n_features - 1}. Got {neuron}."
            )
        _check_lengths(X, y)
        features = validate_data(
            classifier,
            X if steps is None else steps.transform(X),
            accept_sparse="csr",
            reset=False,
        )
        values = features[:, [column]]
        names = feature_names(steps, classifier)
        return cls(
            (values.toarray() if issparse(values) else values).ravel(),
            y,
            threshold=classifier.threshold_ if column == first else None,
            name=f"neuron {column}" if names is None else names[column],
        ).plot(bins=bins, ax=ax)

    @validate_params(_BINS, prefer_skip_nested_validation=True)
    def plot(self, *, bins: int = 25, ax: Axes | None = None) -> NeuronHistogramDisplay:
        """Draw the histogram.

        Parameters
        ----------
        bins : int, default=25
            Number of bins.
        ax : matplotlib Axes, default=None
            Axes to draw on. If None, a new figure is made.

        Returns
        -------
        NeuronHistogramDisplay
            The display itself.

        Raises
        ------
        ValueError
            If ``values`` are not one-dimensional and finite, or not as many as ``y``.
        """
        # In float64, as in float32 the edges of bins between close values may coincide.
        values = check_array(self.values, ensure_2d=False, dtype=np.float64, input_name="values")
        if values.ndim != 1:
            raise ValueError(
                "values must be one-dimensional: those of one neuron, a value per sample. Got "
                f"shape {values.shape}; give one column."
            )
        y = _check_lengths(values, self.y)
        if ax is None:
            import matplotlib.pyplot as plt

            _, ax = plt.subplots(layout="constrained")
        self.ax_ = ax
        self.figure_: Any = ax.figure
        edges = np.histogram_bin_edges(values, bins)
        self.patches_ = []
        labels, codes = np.unique(y, return_inverse=True)
        for code, (label, colour, hatch) in enumerate(
            zip(labels, cycle(CLASS_COLOURS), cycle(_HATCHES), strict=False)
        ):
            of_class = values[codes == code]
            patch = ax.stairs(
                np.histogram(of_class, edges)[0],
                edges,
                fill=True,
                facecolor=(colour, 0.3),
                edgecolor=colour,
                linewidth=1.5,
                hatch=hatch,
                label=legend_entry(f"{label} ({len(of_class)})"),
            )
            self.patches_.append(patch)
        self.threshold_line_ = None
        if self.threshold is not None:
            self.threshold_line_ = ax.axvline(
                self.threshold,
                color="black",
                linestyle="--",
                linewidth=1,
                label=f"threshold {self.threshold:.3g}",
            )
        ax.set(xlabel=f"value of {self.name or 'the neuron'}", ylabel="samples per bin")
        ax.legend()
        return self


def _check_lengths(X: Any, y: Any) -> np.ndarray:
    """Return the labels as an array; raise if they are not as many as the samples."""
    y = column_or_1d(y)
    if _num_samples(X) != len(y):
        raise ValueError(
            f"y must have a label for each sample. Got {_num_samples(X)} samples and {len(y)} "
            "labels."
        )
    return y
