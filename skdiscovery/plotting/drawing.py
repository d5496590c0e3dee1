"""The heat map as matplotlib draws it."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from skdiscovery.plotting.cells import UNDRAWABLE, Cell, value_grid
from skdiscovery.plotting.colours import COLOUR_MAP, cell_colours, ink_colours

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.collections import QuadMesh
    from matplotlib.figure import Figure
    from matplotlib.font_manager import FontProperties

# Inches.
_CELL_WIDTH, _CELL_HEIGHT = 0.15, 0.325
_MARGIN = 0.1
_CAPTION_LINE, _CAPTION_CHARACTER = 0.16, 0.065
_CAPTION_MIN_WIDTH = 3.0
_BAR_SPACE, _BAR_MAX_HEIGHT = 0.65, 3.0

_CAPTION_FONT_SIZE = 8


def draw_heatmap(
    rows: Sequence[Sequence[Cell]],
    *,
    width: int,
    vmin: float,
    vmax: float,
    caption: str,
    colorbar: bool = False,
    ax: Axes | None = None,
    make_figure: Callable[..., Figure] | None = None,
) -> tuple[Axes, QuadMesh]:
    """Draw rows of cells, ``width`` columns wide, with the caption below.

    They go on ``ax`` or a new figure, which is pyplot's or what ``make_figure`` makes of a
    ``figsize``.

    Returns
    -------
    ax : matplotlib Axes
        The axes drawn on.
    mesh : matplotlib QuadMesh
        The coloured cells.
    """
    bar_ax = None
    if ax is None:
        ax, bar_ax = _new_axes(make_figure, len(rows), width, caption, colorbar)
    mesh = ax.pcolormesh(value_grid(rows, width), cmap=COLOUR_MAP, vmin=vmin, vmax=vmax)
    ax.set(xlim=(0, width), ylim=(len(rows), 0), xticks=[], yticks=[])
    ax.spines[:].set_visible(False)
    if colorbar:
        bar = ax.figure.colorbar(mesh, cax=bar_ax, ticks=[vmin, vmax])
        bar.ax.set_yticklabels([f"{end:.3g}" for end in (vmin, vmax)], fontsize=_CAPTION_FONT_SIZE)
    axes_width, axes_height = np.array(ax.bbox.size) / ax.figure.dpi
    font_size = 72 * min(0.92 * axes_width / width, 0.6 * axes_height / len(rows))
    _write_symbols(ax, rows, vmin, vmax, font_size)
    words = _wrap(caption, axes_width)
    ax.set_xlabel(words, loc="left", fontsize=_CAPTION_FONT_SIZE, parse_math=False)
    return ax, mesh


def _new_axes(
    make_figure: Callable[..., Figure] | None,
    n_rows: int,
    n_columns: int,
    caption: str,
    colorbar: bool,
) -> tuple[Axes, Axes | None]:
    """Make a figure around a grid of this size, with room for the caption and the colour bar."""
    if make_figure is None:
        import matplotlib.pyplot as plt

        make_figure = plt.figure
    width, height = n_columns * _CELL_WIDTH, n_rows * _CELL_HEIGHT
    caption_height = _CAPTION_LINE * len(_wrap(caption, width).splitlines())
    bar_space = _BAR_SPACE if colorbar else 0
    page = np.array(
        [
            max(width + bar_space, _CAPTION_MIN_WIDTH) + 2 * _MARGIN,
            height + caption_height + 2 * _MARGIN,
        ]
    )
    figure = make_figure(figsize=page)

    def add_axes(left: float, top: float, width: float, height: float) -> Axes:
        corner = np.array([_MARGIN + left, page[1] - _MARGIN - top - height])
        return figure.add_axes((*(corner / page), *(np.array([width, height]) / page)))

    grid = add_axes(0, 0, width, height)
    if not colorbar:
        return grid, None
    inset = _CAPTION_LINE / 4  # for the numbers at its ends not to be cut off
    bar_height = min(height, _BAR_MAX_HEIGHT) - 2 * inset
    return grid, add_axes(width + _MARGIN, inset, _CELL_WIDTH, bar_height)


def _wrap(caption: str, width: float) -> str:
    """Break the caption into lines of ``width`` inches."""
    return textwrap.fill(caption, int(max(width, _CAPTION_MIN_WIDTH) / _CAPTION_CHARACTER))


def _write_symbols(
    ax: Axes, rows: Sequence[Sequence[Cell]], vmin: float, vmax: float, font_size: float
) -> None:
    font, has_glyph = _monospace_font()
    for row, cells in enumerate(rows):
        inks = ink_colours(cell_colours(np.array([cell.value for cell in cells]), vmin, vmax))
        for column, (cell, ink) in enumerate(zip(cells, inks, strict=True)):
            if cell.symbol == " ":
                continue
            ax.text(
                column + 0.5,
                row + 0.5,
                cell.symbol if all(map(has_glyph, cell.symbol)) else UNDRAWABLE,
                color=ink,
                font=font,
                fontsize=font_size,
                ha="center",
                va="center_baseline",
            )


def _monospace_font() -> tuple[FontProperties, Callable[[str], int]]:
    """Return the font of the letters, and a test whether it has a character.

    One font, never a fallback: what it lacks is replaced, so no glyph breaks the grid and
    matplotlib has nothing to warn of.
    """
    from matplotlib.font_manager import FontProperties, findfont, get_font

    path = findfont(FontProperties(family="monospace"))
    font = get_font(path)
    return FontProperties(fname=path), lambda character: font.get_char_index(ord(character))
