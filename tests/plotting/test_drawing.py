import warnings

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib import colormaps
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from skdiscovery.plotting.cells import UNDRAWABLE, Cell, text_cells, text_rows
from skdiscovery.plotting.drawing import draw_heatmap


def draw(text, values=None, *, width=74, caption="caption", **options):
    document = text if isinstance(text, bytes) else text.encode()
    values = np.zeros(len(document)) if values is None else values
    rows = text_rows([text_cells(document, values)], width)
    return draw_heatmap(rows, width=width, vmin=-1, vmax=1, caption=caption, **options)


def written(ax):
    return [text.get_text() for text in ax.texts]


def test_cells_have_the_colours_of_their_values():
    ax, mesh = draw("abcde", [-7, -1, 0, 1, 7], width=5)
    ax.figure.canvas.draw()
    ends = [colormaps["RdYlGn"](place) for place in (0.0, 0.0, 0.5, 1.0, 1.0)]
    np.testing.assert_allclose(mesh.get_facecolors(), ends)


def test_text_runs_in_rows_and_the_rest_is_blank():
    ax, mesh = draw("abcdefg", width=3)
    assert np.ma.getmaskarray(mesh.get_array()).tolist() == [[False] * 3] * 2 + [
        [False, True, True]
    ]
    assert ax.get_xlim() == (0, 3)
    assert ax.get_ylim() == (3, 0)  # the first row is on top
    positions = {text.get_text(): text.get_position() for text in ax.texts}
    assert positions["a"] == (0.5, 0.5)
    assert positions["e"] == (1.5, 1.5)
    assert positions["g"] == (0.5, 2.5)


def test_ink_is_white_on_dark_cells():
    ax, _ = draw("abc", [-1, 0, 1])
    assert [text.get_color() for text in ax.texts] == ["white", "black", "white"]


def test_letters_lie_inside_their_cells():
    ax, _ = draw("Wgj|\\_MÄ@", width=5)
    renderer = ax.figure.canvas.get_renderer()
    to_cells = ax.transData.inverted()
    for position, text in enumerate(ax.texts):
        row, column = divmod(position, 5)
        box = text.get_window_extent(renderer).transformed(to_cells)
        assert column <= box.x0 < box.x1 <= column + 1
        assert row <= min(box.y0, box.y1) < max(box.y0, box.y1) <= row + 1
        assert (box.x0 + box.x1) / 2 == pytest.approx(column + 0.5, abs=0.12)


def test_no_ticks_no_frame_no_colour_bar():
    ax, _ = draw("abc")
    assert len(ax.get_xticks()) == len(ax.get_yticks()) == 0
    assert not any(spine.get_visible() for spine in ax.spines.values())
    assert ax.figure.axes == [ax]


@pytest.mark.parametrize(("n_characters", "n_rows"), [(0, 1), (1, 1), (74, 1), (75, 2), (600, 9)])
def test_a_cell_is_0_15_by_0_325_inches(n_characters, n_rows):
    ax, _ = draw("x" * n_characters)
    np.testing.assert_allclose(ax.bbox.size / ax.figure.dpi, [0.15 * 74, 0.325 * n_rows])


@pytest.mark.parametrize("width", [1, 10, 74])
def test_nothing_is_cut_off_by_the_figure(width):
    ax, _ = draw("It was good. " * 3, width=width, caption="what is shown, in many words " * 4)
    ax.figure.canvas.draw()  # puts the caption in its place
    page = ax.figure.bbox
    grid = ax.get_window_extent()
    caption = ax.xaxis.label.get_window_extent()
    for box in (grid, caption):
        assert page.x0 <= box.x0 < box.x1 <= page.x1
        assert page.y0 <= box.y0 < box.y1 <= page.y1
    assert caption.y1 < grid.y0


def test_given_axes_are_used_and_letters_fit_them():
    figure, (left, right) = plt.subplots(1, 2, figsize=(4, 2))
    ax, mesh = draw("It was good. " * 20, width=40, ax=left)
    assert ax is left is mesh.axes
    assert plt.get_fignums() == [figure.number]
    assert not right.texts
    cell_width = ax.bbox.width / 40
    renderer = figure.canvas.get_renderer()
    assert all(text.get_window_extent(renderer).width <= cell_width for text in ax.texts)


def test_characters_are_shown_as_they_are():
    ax, _ = draw("$x_1$ \\frac {} café")
    assert "".join(written(ax)) == "$x_1$\\frac{}café"


def test_missing_glyphs_are_replaced_without_a_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ax, _ = draw("a😀日\x00b".encode() + b"\xff")
        ax.figure.canvas.draw()
    assert written(ax) == ["a", UNDRAWABLE, UNDRAWABLE, UNDRAWABLE, "b", "\ufffd"]


def test_spaces_are_coloured_and_empty():
    ax, mesh = draw("a b", [0, 1, 0])
    ax.figure.canvas.draw()
    assert written(ax) == ["a", "b"]
    assert to_hex(mesh.get_facecolors()[1]) == to_hex(colormaps["RdYlGn"](1.0))


def test_no_cells_give_a_blank_row():
    ax, mesh = draw_heatmap([[]], width=4, vmin=-1, vmax=1, caption="", ax=None)
    ax.figure.canvas.draw()
    assert mesh.get_array().mask.all()


def test_cell_values_beyond_the_scale_are_kept():
    _, mesh = draw_heatmap([[Cell("a", 2.5)]], width=1, vmin=-1, vmax=1, caption="", ax=None)
    assert mesh.get_array().item() == 2.5


def test_what_has_no_cell_has_no_value_either():
    _, mesh = draw("abc", width=50)
    assert mesh.get_array().data[0, 3:].tolist() == [0] * 47  # matplotlib computes with it


def test_a_figure_can_be_made_without_pyplot():
    ax, _ = draw("abc", make_figure=Figure)
    assert type(ax.figure) is Figure
    assert plt.get_fignums() == []


@pytest.mark.parametrize("length", [3, 75, 400])
@pytest.mark.parametrize("width", [2, 74])
def test_a_colour_bar_has_its_place_beside_the_text(length, width):
    ax, mesh = draw("x" * length, width=width, colorbar=True)
    ax.figure.canvas.draw()
    bar = mesh.colorbar.ax
    assert [label.get_text() for label in bar.get_yticklabels()] == ["-1", "1"]
    np.testing.assert_allclose(ax.bbox.width / ax.figure.dpi, 0.15 * width)
    page, grid, whole_bar = ax.figure.bbox, ax.get_window_extent(), bar.get_tightbbox()
    assert grid.x1 < whole_bar.x0 < whole_bar.x1 <= page.x1
    assert page.y0 <= whole_bar.y0 < whole_bar.y1 <= page.y1


def test_a_colour_bar_beside_given_axes_leaves_letters_that_fit():
    figure, given = plt.subplots(figsize=(4, 2))
    ax, mesh = draw("It was good. " * 20, width=40, colorbar=True, ax=given)
    assert ax is given
    assert mesh.colorbar.ax in figure.axes
    renderer = figure.canvas.get_renderer()
    assert all(text.get_window_extent(renderer).width <= ax.bbox.width / 40 for text in ax.texts)


def test_ink_is_legible_on_any_scale():
    ax, _ = draw_heatmap([text_cells(b"abc", [0, 5, 10])], width=3, vmin=0, vmax=10, caption="")
    assert [text.get_color() for text in ax.texts] == ["white", "black", "white"]


def test_the_ends_of_a_colour_bar_are_where_its_numbers_say():
    _, mesh = draw("abc", colorbar=True)
    bar = mesh.colorbar.ax
    assert {x.get_text(): x.get_position()[1] for x in bar.get_yticklabels()} == {"-1": -1, "1": 1}


def test_letters_are_no_taller_than_the_rows_of_given_axes():
    _, given = plt.subplots(figsize=(8, 1))
    ax, _ = draw("Wgj|" * 20, width=8, ax=given)
    renderer = ax.figure.canvas.get_renderer()
    row = ax.bbox.height / 10
    assert all(text.get_window_extent(renderer).height <= 1.2 * row for text in ax.texts)


def test_a_caption_is_shown_as_it_is():
    ax, _ = draw("abc", caption="$x_1$ and $y$")
    assert ax.xaxis.label.get_parse_math() is False


def test_a_mark_whose_glyph_is_missing_is_replaced_with_its_seat():
    ax, _ = draw("a\u302a")
    assert written(ax) == ["a", UNDRAWABLE]


def test_a_colour_bar_has_its_ends_in_three_digits_and_no_more_than_three_inches():
    rows = text_rows([text_cells(b"x" * 600, np.zeros(600))], 20)
    ax, mesh = draw_heatmap(rows, width=20, vmin=-1.2345, vmax=0.5, caption="", colorbar=True)
    bar = mesh.colorbar.ax
    assert [label.get_text() for label in bar.get_yticklabels()] == ["-1.23", "0.5"]
    assert bar.bbox.height / ax.figure.dpi <= 3


def test_letters_fill_their_cells():
    ax, _ = draw("W" * 74)
    renderer = ax.figure.canvas.get_renderer()
    assert ax.texts[0].get_window_extent(renderer).width > 0.5 * ax.bbox.width / 74
