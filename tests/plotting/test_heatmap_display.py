import re
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest

from skdiscovery.plotting import HeatmapDisplay

TEXT = "So good – café".encode()
VALUES = np.linspace(-1, 1, len(TEXT), dtype=np.float32)


def test_init_stores_and_draws_nothing():
    display = HeatmapDisplay(TEXT, VALUES, description="mood", width=5, vmin=-2, vmax=2)
    assert display.text_bytes is TEXT
    assert display.values is VALUES
    assert (display.description, display.width) == ("mood", 5)
    assert (display.vmin, display.vmax) == (-2, 2)
    assert not hasattr(display, "ax_")
    assert plt.get_fignums() == []


def test_plot_returns_itself_and_sets_the_axes():
    display = HeatmapDisplay(TEXT, VALUES, width=5)
    assert display.plot() is display
    assert display.figure_ is display.ax_.figure
    assert display.mesh_.axes is display.ax_
    assert display.mesh_.get_array().shape == (3, 5)
    assert display.mesh_.get_clim() == (-1, 1)


def test_plot_again_on_given_axes():
    display = HeatmapDisplay.from_activations(TEXT, VALUES)
    _, ax = plt.subplots()
    assert display.plot(ax=ax).ax_ is ax


def test_from_activations_passes_everything_on():
    _, ax = plt.subplots()
    display = HeatmapDisplay.from_activations(
        TEXT, VALUES, description="mood", width=5, vmin=-0.5, vmax=2, ax=ax
    )
    assert display.ax_ is ax
    assert display.mesh_.get_clim() == (-0.5, 2)
    assert ax.get_xlim() == (0, 5)
    assert ax.get_xlabel().replace("\n", " ") == "mood, fixed colour scale -0.5 to 2"


def test_a_subclass_stays_a_subclass():
    class Display(HeatmapDisplay):
        pass

    assert type(Display.from_activations(TEXT, VALUES)) is Display


def test_html_shows_the_same_cells_and_caption():
    display = HeatmapDisplay(TEXT, VALUES, description="<mood>", width=5)
    page = display.to_html()
    assert page.count("<span") == len(TEXT.decode())
    assert "max-width:5.6em" in page
    assert "&lt;mood&gt;, fixed colour scale -1 to 1" in page
    assert plt.get_fignums() == []


def test_a_notebook_shows_the_body_of_the_page():
    display = HeatmapDisplay(TEXT, VALUES, width=5, colorbar=True)
    fragment = display._repr_html_()
    assert fragment.startswith("<figure")
    assert "linear-gradient" in fragment
    assert fragment in display.to_html()
    assert "<title>So good – café</title>" in display.to_html()
    assert "<title>Heat map</title>" in HeatmapDisplay(b"", []).to_html()


def test_a_notebook_does_not_show_it_twice(monkeypatch):
    display = HeatmapDisplay.from_activations(TEXT, VALUES)
    display._repr_html_()
    assert plt.fignum_exists(display.figure_.number)  # of another backend, whose window stays

    monkeypatch.setattr(plt, "get_backend", lambda: "module://matplotlib_inline.backend_inline")
    _, ax = plt.subplots()
    HeatmapDisplay.from_activations(TEXT, VALUES, ax=ax)._repr_html_()
    assert plt.fignum_exists(ax.figure.number)
    display._repr_html_()
    assert not plt.fignum_exists(display.figure_.number)


def test_the_page_in_a_browser(open_page):
    attack = "<script>window.hacked = 1</script><img src=x onerror='window.hacked = 1'>"
    display = HeatmapDisplay(attack.encode(), np.linspace(-1, 1, len(attack)), description=attack)
    page = open_page(display.to_html())
    assert page.title == attack[:60]
    assert page.execute_script("return window.hacked") is None
    assert page.execute_script("return performance.getEntriesByType('resource').length") == 0
    cells = page.find_elements("css selector", "figure span")
    assert len(cells) == len(attack)
    assert cells[0].get_attribute("title") == "-1.000"
    assert cells[0].value_of_css_property("background-color") == "rgba(165, 0, 38, 1)"
    caption = page.execute_script("return document.querySelector('figcaption').textContent")
    assert caption == f"{attack}, fixed colour scale -1 to 1"


@pytest.mark.parametrize(
    ("scale", "ends", "words"),
    [
        ("fixed", (-2, 1), "fixed colour scale -2 to 1"),
        ("symmetric", (-0.75, 0.75), "symmetric colour scale -0.75 to 0.75"),
        ("data", (-0.1, 0.75), "colour scale of the data -0.1 to 0.75"),
    ],
)
def test_the_scale_is_that_of_all_texts_and_stated(scale, ends, words):
    texts, values = [b"ab", b"c"], [[0.1, 0.75], [-0.1]]
    display = HeatmapDisplay(texts, values, vmin=-2, scale=scale, rows_per_page=1, width=2)
    display.plot()
    assert display.mesh_.get_clim() == ends
    assert words in display.ax_.get_xlabel().replace("\n", " ")
    assert f"{words}<" in display.to_html()
    low, high = ends
    coloured = HeatmapDisplay.from_activations(texts, values, vmin=low, vmax=high)
    assert display.to_html().count("background") == 3
    assert re.findall("#[0-9a-f]{6}", display.to_html()) == re.findall(
        "#[0-9a-f]{6}", coloured.to_html()
    )


def test_pages():
    display = HeatmapDisplay(TEXT, VALUES, width=4, rows_per_page=2)
    n_characters = len(TEXT.decode())
    assert display.n_pages == 2
    letters = ""
    for page in (1, 2):
        display.plot(page=page)
        letters += "".join(text.get_text() for text in display.ax_.texts)
        assert display.ax_.get_xlabel().endswith(f"page {page} of 2")
    assert letters == TEXT.decode().replace(" ", "")
    assert display.mesh_.get_array().shape == (-(-n_characters // 4) - 2, 4)
    for page in (0, 3, 1.5, None):
        with pytest.raises(ValueError, match=r"page must be from 1 to 2, the last page\. Got"):
            display.plot(page=page)
    assert "page" not in HeatmapDisplay(TEXT, VALUES).plot().ax_.get_xlabel()


def size_of(path):
    return plt.imread(path).shape[:2]


def test_save_names_the_file_after_the_text(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    display = HeatmapDisplay(TEXT, VALUES)
    assert display.save() == [Path("heatmap_So-good-cafe.png")]
    assert display.save(tmp_path) == [tmp_path / "heatmap_So-good-cafe.png"]
    assert HeatmapDisplay([TEXT, b"x"], [VALUES, [0]]).save() == [Path("heatmap_So-good-cafe.png")]
    assert HeatmapDisplay(b"", []).save() == [Path("heatmap.png")]
    assert HeatmapDisplay([], []).save() == [Path("heatmap.png")]
    # Versions of matplotlib round to another pixel.
    assert size_of("heatmap.png") == pytest.approx((102, 1695), abs=1)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "heatmap.png", "heatmap_So-good-cafe.png"
    ]  # fmt: skip
    assert plt.get_fignums() == []


def test_save_writes_all_pages(tmp_path):
    display = HeatmapDisplay(TEXT, VALUES, width=4, rows_per_page=2)
    paths = display.save(tmp_path / "text.png", dpi=50)
    assert paths == [tmp_path / "text-1.png", tmp_path / "text-2.png"]
    assert size_of(paths[0]) == size_of(paths[1])  # two rows each
    assert display.save(str(tmp_path / "text.PDF")) == [tmp_path / "text.PDF"]
    assert (tmp_path / "text.PDF").read_bytes().count(b"/Type /Page ") == 2
    assert display.save(tmp_path / "text.html") == [tmp_path / "text.html"]
    assert (tmp_path / "text.html").read_text(encoding="utf-8") == display.to_html()
    assert not hasattr(display, "ax_")


def test_save_without_an_extension_is_png(tmp_path):
    (path,) = HeatmapDisplay(TEXT, VALUES).save(tmp_path / "picture")
    assert path == tmp_path / "picture.png"
    assert path.read_bytes().startswith(b"\x89PNG")


def test_a_format_that_is_not_known_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"'doc' is not supported .*png"):
        HeatmapDisplay(TEXT, VALUES).save(tmp_path / "picture.doc")


@pytest.mark.parametrize(
    ("parameters", "error", "message"),
    [
        ({"text_bytes": "text"}, TypeError, "'text_bytes' parameter"),
        ({"values": 3}, TypeError, "'values' parameter"),
        ({"values": VALUES[1:]}, ValueError, "one value per byte"),
        ({"text_bytes": [TEXT]}, ValueError, "got 17 arrays of values for 1 texts"),
        ({"description": 3}, TypeError, "'description' parameter"),
        ({"width": 0}, ValueError, "'width' parameter"),
        ({"width": 7.4}, TypeError, "'width' parameter"),
        ({"vmin": -np.inf}, ValueError, "'vmin' parameter"),
        ({"vmin": 0, "vmax": 0}, ValueError, "vmin must be below vmax. Got vmin=0 and vmax=0"),
    ],
)
def test_errors_come_before_any_figure(parameters, error, message):
    with pytest.raises(error, match=message):
        HeatmapDisplay.from_activations(**{"text_bytes": TEXT, "values": VALUES} | parameters)
    assert plt.get_fignums() == []


@pytest.mark.parametrize(
    "method", [HeatmapDisplay.plot, HeatmapDisplay.save, HeatmapDisplay.to_html]
)
@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"width": 0}, r"'width' parameter of HeatmapDisplay .* range \[1, 1000\]. Got 0"),
        ({"rows_per_page": 1001}, r"'rows_per_page' .* range \[1, 1000\]. Got 1001"),
        ({"scale": "log"}, "'scale' parameter"),
        ({"vmin": 2}, "vmin must be below vmax"),
    ],
)
def test_a_display_made_by_hand_is_checked_too(tmp_path, monkeypatch, method, parameters, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=message):
        method(HeatmapDisplay(TEXT, VALUES, **parameters))
    assert list(tmp_path.iterdir()) == []
    assert plt.get_fignums() == []
