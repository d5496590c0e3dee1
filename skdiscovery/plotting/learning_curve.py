"""The display of a language model's training: bits per byte over bytes read."""

from __future__ import annotations

from numbers import Integral
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from sklearn.utils._param_validation import Interval, validate_params
from sklearn.utils.validation import check_is_fitted

from skdiscovery.plotting.colours import CLASS_COLOURS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# A grey print tells them apart by shape.
_VALIDATION, _TRAINING = CLASS_COLOURS[:2]

# Share of the rows at the start that may leave the picture: a new model falls from 8 bits per byte
# within a few steps, and all that is of interest comes after.
_FALL = 0.02

_CONSTRAINTS = {"window": [Interval(Integral, 1, None, closed="left"), None]}


class LearningCurveDisplay:
    """Learning curve of a language model.

    Bits per byte over the text read: a line for training, smoothed, with its raw values behind it,
    and a point per validation. Of a long run, the steep fall of the first 2 % leaves the picture
    at the top. The upper axis counts steps.

    Use `LearningCurveDisplay.from_estimator` to create one from a fitted model. All parameters are
    stored as attributes.

    Parameters
    ----------
    history : DataFrame
        A row per logged step: step, bytes, bits_per_byte. The ``history_`` of a fitted
        `ByteMLSTMLanguageModel`, or a CSV file of it that was read again.
    validation_history : DataFrame, default=None
        A row per validation, with the same columns: ``validation_history_``.
    window : int, default=None
        Number of rows whose running mean is the smoothed line. None is a fiftieth of them.

    Attributes
    ----------
    ax_ : matplotlib Axes
        Axes with the curve.
    figure_ : matplotlib Figure
        Figure that holds it.
    steps_ax_ : matplotlib SecondaryAxis
        The upper axis.
    line_ : matplotlib Line2D
        The smoothed training curve.
    raw_line_ : matplotlib Line2D
        The training curve as it was logged.
    validation_line_ : matplotlib Line2D or None
        The validations; None if there are none.

    Examples
    --------
    >>> from skdiscovery import ByteMLSTMLanguageModel, LearningCurveDisplay
    >>> texts = ["What a lovely film!", "What a dull film."] * 40
    >>> lm = ByteMLSTMLanguageModel(
    ...     hidden_size=8, batch_size=8, seq_length=32, max_epochs=4, random_state=0
    ... ).fit(texts)
    >>> display = LearningCurveDisplay.from_estimator(lm)
    >>> display.ax_.get_ylabel()
    'bits per byte'
    """

    def __init__(
        self,
        history: pd.DataFrame,
        validation_history: pd.DataFrame | None = None,
        *,
        window: int | None = None,
    ):
        self.history = history
        self.validation_history = validation_history
        self.window = window

    @classmethod
    @validate_params(_CONSTRAINTS, prefer_skip_nested_validation=False)
    def from_estimator(
        cls, lm: Any, *, window: int | None = None, ax: Axes | None = None
    ) -> LearningCurveDisplay:
        """Plot the training of a fitted language model.

        Parameters
        ----------
        lm : ByteMLSTMLanguageModel
            The model, fitted in this process or unpickled.
        window : int, default=None
            As in `LearningCurveDisplay`.
        ax : matplotlib Axes, default=None
            Axes to draw on. If None, a new figure is made.

        Returns
        -------
        LearningCurveDisplay
            The display, plotted.

        Raises
        ------
        ValueError
            If the model has no history: its file keeps none.
        sklearn.exceptions.NotFittedError
            If ``lm`` is not fitted.
        """
        check_is_fitted(lm, "history_")
        if lm.history_.empty:
            raise ValueError(
                "This model has no history to draw: a model that is read from a file has none, nor "
                "has one whose training ended within its first steps. Give the model that fit "
                "returned, or LearningCurveDisplay(history).plot() a history that was kept."
            )
        return cls(lm.history_, lm.validation_history_, window=window).plot(ax=ax)

    def plot(self, *, ax: Axes | None = None) -> LearningCurveDisplay:
        """Draw the curve.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Axes to draw on. If None, a new figure is made.

        Returns
        -------
        LearningCurveDisplay
            The display itself.
        """
        if ax is None:
            import matplotlib.pyplot as plt

            _, ax = plt.subplots(figsize=(8, 4.8), layout="constrained")
        self.ax_ = ax
        self.figure_: Any = ax.figure
        megabytes = self.history["bytes"] / 1e6
        bits = self.history["bits_per_byte"]
        window = self.window or max(1, len(bits) // 50)
        smooth = bits.rolling(window, center=True, min_periods=1).mean()
        initially = f"training, initially {bits.iloc[0]:.3f}"
        smoothed = f"training, running mean (window {window})"
        # Without a window the two lines are one; matplotlib leaves "_" out of the legend.
        of_raw, of_smooth = (initially, smoothed) if window > 1 else ("_", initially)
        (self.raw_line_,) = ax.plot(
            megabytes,
            bits,
            color=_TRAINING,
            linewidth=0.6,
            alpha=0.35,
            label=of_raw,
        )
        (self.line_,) = ax.plot(
            megabytes,
            smooth,
            color=_TRAINING,
            linewidth=1.8,
            label=of_smooth,
        )
        self.validation_line_ = self._plot_validation(ax)
        ax.set(xlabel="text read (MB)", ylabel="bits per byte", ylim=self._range_of_interest())
        ax.grid(alpha=0.3)
        ax.legend()
        self.steps_ax_ = ax.secondary_xaxis("top", functions=self._steps_and_back())
        self.steps_ax_.set_xlabel("steps")
        return self

    def _plot_validation(self, ax: Axes) -> Any:
        validations = self.validation_history
        if validations is None or validations.empty:
            return None
        bits = validations["bits_per_byte"]
        (line,) = ax.plot(
            validations["bytes"] / 1e6,
            bits,
            color=_VALIDATION,
            linestyle="--",
            linewidth=1,
            marker="o",
            markeredgecolor="white",
            label=f"validation, best {bits.min():.3f}",
            zorder=3,
        )
        return line

    def _range_of_interest(self) -> tuple[float, float]:
        """Return the ends of the upright axis: all is between them but the first fall."""
        bits = self.history["bits_per_byte"]
        shown = bits[int(_FALL * len(bits)) :]
        if self.validation_history is not None:
            # As numbers, also where there are none, of which pandas 2 warns.
            shown = pd.concat([shown, self.validation_history["bits_per_byte"].astype(float)])
        low, high = shown.min(), shown.max()
        margin = 0.05 * (high - low) or 0.1  # a single value has no range
        return low - margin, high + margin

    def _steps_and_back(self) -> tuple[Any, Any]:
        """Return the function from megabytes to steps, and its inverse."""
        megabytes, steps = self.history["bytes"].to_numpy() / 1e6, self.history["step"].to_numpy()
        # On both sides of the run, for the margins: more of it, at its mean pace. It may go on from
        # one of another pace, so that its own begins with its first row.
        first = (megabytes[0], steps[0]) if len(steps) > 1 else (0.0, 0)
        pace = (steps[-1] - first[1]) / (megabytes[-1] - first[0])
        reach = megabytes[-1]
        megabytes = np.concatenate([[first[0] - reach], megabytes, [2 * reach]])
        steps = np.concatenate([[first[1] - pace * reach], steps, [steps[-1] + pace * reach]])
        return (
            lambda at: np.interp(at, megabytes, steps),
            lambda at: np.interp(at, steps, megabytes),
        )
