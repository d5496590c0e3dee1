"""The colours of classes, of a cell, and of the ink that is legible on it."""

from typing import Literal

import numpy as np

Scale = Literal["fixed", "symmetric", "data"]

COLOUR_MAP = "RdYlGn"

# Of Okabe and Ito's palette, which the colour-blind can tell apart: all but black and yellow.
CLASS_COLOURS = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")

# Relative luminance below which white ink reads better than black. The contrast ratio of WCAG 2 is
# even at 0.18, but black letters on red and green of that luminance are hard to read.
_DARK = 0.25


def cell_colours(values: np.ndarray, vmin: float, vmax: float) -> np.ndarray:
    """Colour the values on the scale; those beyond it get the colour of its end.

    Parameters
    ----------
    values : ndarray of shape (n_cells,), dtype float
        The values.
    vmin, vmax : float
        The two ends of the scale.

    Returns
    -------
    ndarray of shape (n_cells, 3), dtype float64
        Red, green and blue, each from 0 to 1.
    """
    from matplotlib import colormaps
    from matplotlib.colors import Normalize

    return colormaps[COLOUR_MAP](Normalize(vmin, vmax)(values))[:, :3]


def scale_ends(values: np.ndarray, scale: Scale, vmin: float, vmax: float) -> tuple[float, float]:
    """Return the two ends of the colour scale.

    Parameters
    ----------
    values : ndarray of shape (n_cells,), dtype float
        All that the scale is to show.
    scale : {"fixed", "symmetric", "data"}
        ``vmin`` to ``vmax``, as far on both sides of 0 as the values reach, or the least to the
        largest value. A scale between equal ends is widened by 1 on either side.
    vmin, vmax : float
        The ends of the fixed scale.
    """
    if scale == "fixed":
        return vmin, vmax
    if scale == "symmetric":
        reach = float(np.abs(values).max(initial=0))
        low, high = -reach, reach
    else:
        low, high = (float(values.min()), float(values.max())) if len(values) else (0.0, 0.0)
    return (low, high) if low < high else (low - 1, high + 1)


def relative_luminance(rgb: np.ndarray) -> np.ndarray:
    """Return the relative luminance, 0 to 1, of sRGB colours of shape (n, 3)."""
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    return linear @ [0.2126, 0.7152, 0.0722]


def ink_colours(rgb: np.ndarray) -> list[str]:
    """Choose black or white, whichever reads better, for each colour of shape (n, 3)."""
    return ["white" if y < _DARK else "black" for y in relative_luminance(rgb)]
