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
    from matplotlib.font_manager import FontProperties

# Inches.
_CELL_WIDTH, _CELL_HEIGHT = 0.15, 0.325
_MARGIN = 0.1
_CAPTION_LINE, _CAPTION_CHARACTER = 0.16, 0.065
_CAPTION_MIN_WIDTH = 3.0

_CAPTION_FONT_SIZE = 8


def draw_heatmap(
    cells: Sequence[Cell],
    *,
    width: int,
    vmin: float,
    vmax: float,
    caption: str,
    ax: Axes | None,
) -> tuple[Axes, QuadMesh]:
    """Draw the cells, ``width`` to a row, with the caption below, on ``ax`` or a new figure.

    Returns
    -------
    ax : matplotlib Axes
        The axes drawn on.
    mesh : matplotlib QuadMesh
        The coloured cells.
    """
    grid = value_grid(cells, width)
    if ax is None:
        ax = _new_axes(len(grid), width, caption)
    mesh = ax.pcolormesh(grid, cmap=COLOUR_MAP, vmin=vmin, vmax=vmax)
    ax.set(xlim=(0, width), ylim=(len(grid), 0), xticks=[], yticks=[])
    ax.spines[:].set_visible(False)
    axes_width, axes_height = np.array(ax.bbox.size) / ax.figure.dpi
    font_size = 72 * min(0.92 * axes_width / width, 0.6 * axes_height / len(grid))
    inks = ink_colours(cell_colours(np.array([cell.value for cell in cells]), vmin, vmax))
    _write_symbols(ax, cells, inks, width, font_size)
    ax.set_xlabel(_wrap(caption, axes_width), loc="left", fontsize=_CAPTION_FONT_SIZE)
    return ax, mesh


def _new_axes(n_rows: int, n_columns: int, caption: str) -> Axes:
    """Make a figure around a grid of this size, with room for the caption below."""
    import matplotlib.pyplot as plt

    width, height = n_columns * _CELL_WIDTH, n_rows * _CELL_HEIGHT
    caption_height = _CAPTION_LINE * len(_wrap(caption, width).splitlines())
    page_width = max(width, _CAPTION_MIN_WIDTH) + 2 * _MARGIN
    page_height = height + caption_height + 2 * _MARGIN
    bottom = caption_height + _MARGIN
    figure = plt.figure(figsize=(page_width, page_height))
    return figure.add_axes(
        (_MARGIN / page_width, bottom / page_height, width / page_width, height / page_height)
    )


def _wrap(caption: str, width: float) -> str:
    """Break the caption into lines of ``width`` inches."""
    return textwrap.fill(caption, int(max(width, _CAPTION_MIN_WIDTH) / _CAPTION_CHARACTER))


def _write_symbols(
    ax: Axes, cells: Sequence[Cell], inks: Sequence[str], width: int, font_size: float
) -> None:
    font, has_glyph = _monospace_font()
    for position, (cell, ink) in enumerate(zip(cells, inks, strict=True)):
        if cell.symbol == " ":
            continue
        row, column = divmod(position, width)
        ax.text(
            column + 0.5,
            row + 0.5,
            cell.symbol if all(map(has_glyph, cell.symbol)) else UNDRAWABLE,
            color=ink,
            font=font,
            fontsize=font_size,
            ha="center",
            va="center_baseline",
            parse_math=False,
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
