"""The heat map as a fragment of HTML."""

from collections.abc import Sequence
from html import escape

import numpy as np

from skdiscovery.plotting.cells import Cell
from skdiscovery.plotting.colours import cell_colours, ink_colours

# A grid of fixed tracks keeps its shape whatever glyphs the reader's fonts have.
_GRID_STYLE = (
    "display:grid;grid-template-columns:repeat({width},1.1em);grid-auto-rows:1.7em;"
    "font-family:monospace;line-height:1.7em;text-align:center;white-space:pre"
)


def heatmap_html(
    cells: Sequence[Cell], *, width: int, vmin: float, vmax: float, caption: str
) -> str:
    """Write the cells as a grid of coloured spans with the caption below it."""
    colours = cell_colours(np.array([cell.value for cell in cells]), vmin, vmax)
    spans = map(_span, cells, colours, ink_colours(colours))
    return (
        '<figure style="margin:0.5em;overflow-x:auto">'
        f'<div style="{_GRID_STYLE.format(width=width)}">{"".join(spans)}</div>'
        f'<figcaption style="font-size:smaller">{escape(caption)}</figcaption>'
        "</figure>"
    )


def _span(cell: Cell, colour: np.ndarray, ink: str) -> str:
    red, green, blue = (round(255 * channel) for channel in colour)
    return (
        f'<span style="background:#{red:02x}{green:02x}{blue:02x};color:{ink}" '
        f'title="{cell.value:.3f}">{escape(cell.symbol)}</span>'
    )
