"""The heat map as HTML: a fragment for a notebook, and a page of its own."""

from collections.abc import Sequence
from html import escape

import numpy as np

from skdiscovery.plotting.cells import Cell
from skdiscovery.plotting.colours import cell_colours, ink_colours

# A grid of fixed tracks keeps its shape whatever glyphs the reader's fonts have, and reads from
# left to right, as the model does, whatever the script. A narrow screen has room for fewer tracks.
_GRID_STYLE = (
    "display:grid;grid-template-columns:repeat(auto-fill,1.1em);max-width:{max_width:.1f}em;"
    "grid-auto-rows:1.7em;min-height:1.7em;margin-bottom:1em;direction:ltr;"
    "font-family:monospace;line-height:1.7em;text-align:center;white-space:pre"
)
_BAR_STYLE = "display:inline-block;width:12em;height:0.8em;margin:0 0.5em;background:{gradient}"

# So that the browser has nothing to fetch and nothing to run, whatever the text may be.
_PAGE = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
</head>
<body style="font-family:sans-serif">
{body}
</body>
</html>
"""


def heatmap_html(
    texts: Sequence[Sequence[Cell]],
    *,
    width: int,
    vmin: float,
    vmax: float,
    caption: str,
    colorbar: bool = False,
) -> str:
    """Write each text as a grid of ``width`` coloured spans, with the caption below them all."""
    style = _GRID_STYLE.format(max_width=1.1 * width + 0.1)
    grids = "".join(f'<div style="{style}">{_spans(cells, vmin, vmax)}</div>' for cells in texts)
    bar = f"<br>{_colour_bar(vmin, vmax)}" if colorbar else ""
    return (
        f'<figure style="margin:0.5em">{grids}'
        f'<figcaption style="font-size:smaller">{escape(caption)}{bar}</figcaption>'
        "</figure>"
    )


def html_page(title: str, body: str) -> str:
    """Write a page that loads nothing and runs no script; ``body`` is HTML, ``title`` text."""
    return _PAGE.format(title=escape(title), body=body)


def hex_colours(rgb: np.ndarray) -> list[str]:
    """Return colours of shape (n, 3), each channel from 0 to 1, as HTML writes them."""
    return [f"#{bytes(channels).hex()}" for channels in np.rint(255 * rgb).astype(np.uint8)]


def _spans(cells: Sequence[Cell], vmin: float, vmax: float) -> str:
    colours = cell_colours(np.array([cell.value for cell in cells]), vmin, vmax)
    return "".join(
        f'<span style="background:{colour};color:{ink}" title="{cell.value:.3f}">'
        f"{escape(cell.symbol)}</span>"
        for cell, colour, ink in zip(cells, hex_colours(colours), ink_colours(colours), strict=True)
    )


def _colour_bar(vmin: float, vmax: float) -> str:
    colours = ",".join(hex_colours(cell_colours(np.linspace(vmin, vmax, 11), vmin, vmax)))
    gradient = f"linear-gradient(to right,{colours})"
    return f'{vmin:.3g}<i style="{_BAR_STYLE.format(gradient=gradient)}"></i>{vmax:.3g}'
