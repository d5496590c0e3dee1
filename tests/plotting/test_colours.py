import numpy as np
import pytest
from matplotlib import colormaps

from skdiscovery.plotting.colours import cell_colours, ink_colours, relative_luminance, scale_ends


@pytest.mark.parametrize(("value", "place"), [(-1, 0.0), (0, 0.5), (1, 1.0), (-3, 0.0), (9, 1.0)])
def test_the_scale_is_red_yellow_green_and_clipped(value, place):
    colour = cell_colours(np.array([value]), -1.0, 1.0)[0]
    np.testing.assert_array_equal(colour, colormaps["RdYlGn"](place)[:3])


def test_the_scale_follows_its_ends():
    narrow = cell_colours(np.array([-0.2, 0.3]), -0.2, 0.3)
    np.testing.assert_array_equal(narrow, cell_colours(np.array([-1, 1]), -1, 1))


def test_no_cells_no_colours():
    assert cell_colours(np.array([]), -1, 1).shape == (0, 3)


def test_relative_luminance_of_known_colours():
    rgb = np.array([[0, 0, 0], [1, 1, 1], [1, 0, 0], [0.5, 0.5, 0.5], [0.02, 0.02, 0.02]])
    expected = [0, 1, 0.2126, 0.2140, 0.0015]
    np.testing.assert_allclose(relative_luminance(rgb), expected, atol=1e-4)


def test_ink_is_white_at_the_ends_and_black_between():
    colours = cell_colours(np.array([-1, -0.5, 0, 0.5, 1]), -1, 1)
    assert ink_colours(colours) == ["white", "black", "black", "black", "white"]


def test_ink_is_legible_on_every_cell():
    colours = cell_colours(np.linspace(-1, 1, 501), -1, 1)
    cell = relative_luminance(colours)
    ink = np.array([float(name == "white") for name in ink_colours(colours)])
    contrast = (np.maximum(cell, ink) + 0.05) / (np.minimum(cell, ink) + 0.05)
    assert contrast.min() > 3.4


@pytest.mark.parametrize(
    ("values", "symmetric", "data"),
    [
        ([-0.2, 0.5, 0.1], (-0.5, 0.5), (-0.2, 0.5)),
        ([-3, -2], (-3, 3), (-3, -2)),
        ([2, 2], (-2, 2), (1, 3)),
        ([0, 0], (-1, 1), (-1, 1)),
        ([], (-1, 1), (-1, 1)),
    ],
)
def test_ends_of_the_scale(values, symmetric, data):
    values = np.array(values, dtype=float)
    assert scale_ends(values, "fixed", -7, 8) == (-7, 8)
    assert scale_ends(values, "symmetric", -7, 8) == symmetric
    assert scale_ends(values, "data", -7, 8) == data


def test_ink_on_the_grey_in_the_middle_is_white():
    assert ink_colours(np.array([[0.5, 0.5, 0.5]])) == ["white"]
