"""Heat map of one neuron over a text: each character coloured by the value after it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from skdiscovery.plotting.heatmap_display import HeatmapDisplay

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def plot_heatmap(
    estimator: Any,
    text: str | bytes,
    *,
    neuron: int | None = None,
    layer: int = -1,
    negate: bool = False,
    width: int = 74,
    vmin: float = -1.0,
    vmax: float = 1.0,
    ax: Axes | None = None,
) -> HeatmapDisplay:
    """Plot one neuron over a text, each character coloured by the value after it.

    The text is shown as the language model reads it, preprocessed. A character of several bytes
    has the value after its last one. Line ends are drawn as ``↵``, tabs as ``→``, bytes that are
    not valid UTF-8 as ``�`` and characters that the font lacks as ``□``. The font is the first of
    matplotlib's ``rcParams["font.monospace"]``.

    Parameters
    ----------
    estimator : estimator instance
        One of the following, fitted:

        - a language model: its cell state; ``neuron`` is required;
        - a featurizer: the state that it makes features of; ``neuron`` is required;
        - a `~sklearn.pipeline.Pipeline` of a featurizer and a `SentimentNeuronClassifier`: the
          classifier's first neuron, with the sign that the classifier gives to it. With
          ``neuron``, the pipeline may end with anything;
        - a search, such as `~sklearn.model_selection.GridSearchCV`: its ``best_estimator_``.
    text : str or bytes
        The text.
    neuron : int, default=None
        Which neuron to show. None leaves the choice to the classifier of a pipeline. A neuron
        given here is shown with its own sign.
    layer : int, default=-1
        Which layer of the language model. -1 is the last one, or the featurizer's own.
    negate : bool, default=False
        Whether to flip the sign of the values.
    width : int, default=74
        Characters per row.
    vmin, vmax : float, default=-1.0 and 1.0
        The ends of the colour scale, from red over yellow to green. Values beyond them get the
        colour of the end.
    ax : matplotlib Axes, default=None
        Axes to draw on. If None, a new figure is made.

    Returns
    -------
    HeatmapDisplay
        The display, plotted.

    Raises
    ------
    TypeError
        If ``estimator`` is none of the above, or ``text`` neither str nor bytes.
    ValueError
        If ``neuron`` is needed and not given, if ``neuron`` or ``layer`` is out of range, if
        ``width`` is below 1, or if ``vmin`` is not below ``vmax``.
    sklearn.exceptions.NotFittedError
        If ``estimator`` is not fitted.

    See Also
    --------
    HeatmapDisplay.from_activations : The same picture of values that are already there.
    """
    return HeatmapDisplay.from_estimator(
        estimator,
        text,
        neuron=neuron,
        layer=layer,
        negate=negate,
        width=width,
        vmin=vmin,
        vmax=vmax,
        ax=ax,
    )
