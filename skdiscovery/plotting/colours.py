"""The colours of classes, of a cell, and of the ink that is legible on it."""

import numpy as np

COLOUR_MAP = "RdYlGn"

# Of Okabe and Ito's palette, which the colour-blind can tell apart: all but black and yellow.
CLASS_COLOURS = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")

# Relative luminance below which white ink reads better than black. The contrast ratio of WCAG 2 is
# even at 0.18, but black letters on red and green of that luminance are hard to read.
_DARK = 0.25


def cell_colours(values: np.ndarray, vmin: float, vmax: float) -> np.ndarray:
    """Colour the values on the fixed scale; those beyond it get the colour of its end.

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


def relative_luminance(rgb: np.ndarray) -> np.ndarray:
    """Return the relative luminance, 0 to 1, of sRGB colours of shape (n, 3)."""
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    return linear @ [0.2126, 0.7152, 0.0722]


def ink_colours(rgb: np.ndarray) -> list[str]:
    """Choose black or white, whichever reads better, for each colour of shape (n, 3)."""
    return ["white" if y < _DARK else "black" for y in relative_luminance(rgb)]
