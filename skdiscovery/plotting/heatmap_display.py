"""The display of one neuron over a text: its data, drawn by matplotlib or written as HTML."""

from __future__ import annotations

from numbers import Integral, Real
from typing import TYPE_CHECKING, Any

from sklearn.utils._param_validation import Interval, validate_params

from skdiscovery.plotting.cells import text_cells
from skdiscovery.plotting.drawing import draw_heatmap
from skdiscovery.plotting.html import heatmap_html
from skdiscovery.plotting.neuron_values import neuron_values

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_LAYOUT_CONSTRAINTS = {
    "width": [Interval(Integral, 1, None, closed="left")],
    "vmin": [Interval(Real, None, None, closed="neither")],
    "vmax": [Interval(Real, None, None, closed="neither")],
}


class HeatmapDisplay:
    """Heat map of one neuron over a text.

    Use `plot_heatmap`, `HeatmapDisplay.from_estimator` or `HeatmapDisplay.from_activations` to
    create one. All parameters are stored as attributes.

    Parameters
    ----------
    text_bytes : bytes
        The text, as UTF-8. A byte that is not valid UTF-8 gets a cell of its own.
    values : array-like of shape (n_bytes,) or (n_bytes, 1), dtype float
        The neuron's value after each byte.
    description : str, default=""
        What the values are, for the caption.
    width : int, default=74
        Characters per row.
    vmin, vmax : float, default=-1.0 and 1.0
        The ends of the colour scale. Values beyond them get the colour of the end.

    Attributes
    ----------
    ax_ : matplotlib Axes
        Axes with the heat map.
    figure_ : matplotlib Figure
        Figure that holds it.
    mesh_ : matplotlib QuadMesh
        The coloured cells.

    See Also
    --------
    plot_heatmap : The heat map of a fitted estimator.

    Examples
    --------
    >>> from skdiscovery.plotting import HeatmapDisplay
    >>> display = HeatmapDisplay(b"so good", [0.0, 0.1, 0.1, 0.4, 0.7, 0.9, 1.0], width=4)
    >>> display.plot()
    <...HeatmapDisplay object at ...>
    >>> display.ax_.get_xlabel()
    'colour scale -1 to 1'
    """

    def __init__(
        self,
        text_bytes: bytes,
        values: Any,
        *,
        description: str = "",
        width: int = 74,
        vmin: float = -1.0,
        vmax: float = 1.0,
    ):
        self.text_bytes = text_bytes
        self.values = values
        self.description = description
        self.width = width
        self.vmin = vmin
        self.vmax = vmax

    @classmethod
    @validate_params(
        {
            "text": [str, bytes],
            "neuron": [Integral, None],
            "layer": [Integral],
            "negate": ["boolean"],
            **_LAYOUT_CONSTRAINTS,
        },
        prefer_skip_nested_validation=False,
    )
    def from_estimator(
        cls,
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
        """Run a fitted estimator over a text and plot one neuron; see `plot_heatmap`.

        Parameters
        ----------
        estimator, text, neuron, layer, negate, width, vmin, vmax, ax
            As in `plot_heatmap`.

        Returns
        -------
        HeatmapDisplay
            The display, plotted.
        """
        _check_scale(vmin, vmax)
        found = neuron_values(estimator, text, neuron=neuron, layer=layer, negate=negate)
        return cls.from_activations(**found._asdict(), width=width, vmin=vmin, vmax=vmax, ax=ax)

    @classmethod
    @validate_params(
        {"text_bytes": [bytes], "values": ["array-like"], "description": [str]}
        | _LAYOUT_CONSTRAINTS,
        prefer_skip_nested_validation=False,
    )
    def from_activations(
        cls,
        text_bytes: bytes,
        values: Any,
        *,
        description: str = "",
        width: int = 74,
        vmin: float = -1.0,
        vmax: float = 1.0,
        ax: Axes | None = None,
    ) -> HeatmapDisplay:
        """Plot values that are already there.

        Parameters
        ----------
        text_bytes, values, description, width, vmin, vmax
            As in `HeatmapDisplay`.
        ax : matplotlib Axes, default=None
            Axes to draw on. If None, a new figure is made.

        Returns
        -------
        HeatmapDisplay
            The display, plotted.

        Raises
        ------
        ValueError
            If there is not one finite value per byte, ``width`` is below 1 or ``vmin`` is not
            below ``vmax``.

        Examples
        --------
        >>> import numpy as np
        >>> from skdiscovery.plotting import HeatmapDisplay
        >>> text = "I loved it. Then the café closed.".encode()
        >>> display = HeatmapDisplay.from_activations(text, np.linspace(1, -1, len(text)), width=12)
        >>> display.mesh_.get_array().shape
        (3, 12)
        """
        _check_scale(vmin, vmax)
        return cls(
            text_bytes, values, description=description, width=width, vmin=vmin, vmax=vmax
        ).plot(ax=ax)

    def plot(self, *, ax: Axes | None = None) -> HeatmapDisplay:
        """Draw the heat map.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Axes to draw on; the letters take the size of its cells. If None, a new figure is made,
            0.15 inches wide per column and 0.325 high per row, and a margin.

        Returns
        -------
        HeatmapDisplay
            The display itself.
        """
        self.ax_, self.mesh_ = draw_heatmap(**self._picture(), ax=ax)
        self.figure_: Any = self.ax_.figure
        return self

    def to_html(self) -> str:
        """Write the same grid as HTML.

        Returns
        -------
        str
            A ``<figure>`` that needs nothing else: a coloured ``<span>`` per character, with the
            value as its tooltip, and the caption. All text is escaped.

        Examples
        --------
        >>> from skdiscovery.plotting import HeatmapDisplay
        >>> html = HeatmapDisplay(b"<3", [0.0, 0.9]).to_html()
        >>> "&lt;</span>" in html
        True
        """
        return heatmap_html(**self._picture())

    def _picture(self) -> dict[str, Any]:
        """Return what every rendering of the heat map shows."""
        scale = f"colour scale {self.vmin:g} to {self.vmax:g}"
        return {
            "cells": text_cells(self.text_bytes, self.values),
            "width": self.width,
            "vmin": self.vmin,
            "vmax": self.vmax,
            "caption": f"{self.description}, {scale}" if self.description else scale,
        }


def _check_scale(vmin: float, vmax: float) -> None:
    if vmin >= vmax:
        raise ValueError(f"vmin must be below vmax. Got vmin={vmin!r} and vmax={vmax!r}.")
