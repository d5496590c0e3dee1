"""Heat map of one neuron over a text: each character coloured by the value after it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from skdiscovery.plotting.colours import Scale
from skdiscovery.plotting.heatmap_display import HeatmapDisplay

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def plot_heatmap(
    estimator: Any,
    text: str | bytes | Sequence[str | bytes],
    *,
    neuron: int | None = None,
    layer: int = -1,
    negate: bool = False,
    width: int = 74,
    vmin: float = -1.0,
    vmax: float = 1.0,
    ax: Axes | None = None,
    state: Literal["cell", "hidden"] | None = None,
    scale: Scale = "fixed",
    colorbar: bool = False,
    rows_per_page: int = 60,
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

        - a language model; ``neuron`` is required;
        - a featurizer; ``neuron`` is required;
        - a `~sklearn.pipeline.Pipeline` of a featurizer and a `SentimentNeuronClassifier`: the
          classifier's first neuron, with the sign that the classifier gives to it. With
          ``neuron``, the pipeline may end with anything;
        - a search, such as `~sklearn.model_selection.GridSearchCV`: its ``best_estimator_``.
    text : str or bytes, or sequence of these
        The text, or several, which are drawn one below the other.
    neuron : int, default=None
        Which neuron to show. None leaves the choice to the classifier of a pipeline. A neuron
        given here is shown with its own sign.
    layer : int, default=-1
        Which layer of the language model. -1 is the last one, or the featurizer's own.
    negate : bool, default=False
        Whether to flip the sign of the values.
    width : int, default=74
        Characters per row, from 1 to 1000.
    vmin, vmax : float, default=-1.0 and 1.0
        The ends of the fixed colour scale, from red over yellow to green. Values beyond them get
        the colour of the end.
    ax : matplotlib Axes, default=None
        Axes to draw on. If None, a new figure is made.
    state : {"cell", "hidden"}, default=None
        Which state. None is the state that the featurizer makes features of, and the cell state of
        a language model.
    scale : {"fixed", "symmetric", "data"}, default="fixed"
        Whether the colour scale is from ``vmin`` to ``vmax``, as far on both sides of 0 as the
        values of these texts reach, or from their least value to their largest. The caption says.
    colorbar : bool, default=False
        Whether to show the colours of the scale beside the text.
    rows_per_page : int, default=60
        A text with more rows goes on on another page: see `HeatmapDisplay.plot` and
        `HeatmapDisplay.save`; from 1 to 1000.

    Returns
    -------
    HeatmapDisplay
        The display, its first page plotted. ``save`` writes all pages, ``to_html`` a page for the
        browser.

    Raises
    ------
    TypeError
        If ``estimator`` is none of the above, or a text neither str nor bytes.
    ValueError
        If ``neuron`` is needed and not given, if ``neuron``, ``layer`` or another parameter is out
        of range, or if ``vmin`` is not below ``vmax``.
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
        state=state,
        scale=scale,
        colorbar=colorbar,
        rows_per_page=rows_per_page,
    )
