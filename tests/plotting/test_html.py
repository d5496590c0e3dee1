from html.parser import HTMLParser

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib import colormaps
from matplotlib.colors import to_hex

from skdiscovery.plotting.cells import Cell
from skdiscovery.plotting.html import heatmap_html, hex_colours, html_page


class Reader(HTMLParser):
    """Collects the spans and the text of the other elements; complains of unbalanced tags."""

    def __init__(self, page):
        super().__init__()
        self.open, self.spans, self.texts, self.tags, self.metas = [], [], {}, set(), []
        self.feed(page)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        if tag == "meta":
            self.metas.append(dict(attrs))
        if tag in ("meta", "br"):
            return
        self.open.append(tag)
        if tag == "span":
            self.spans.append({**dict(attrs), "text": ""})

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        where = self.open[-1] if self.open else ""
        if where == "span":
            self.spans[-1]["text"] += data
        else:
            self.texts[where] = self.texts.get(where, "") + data


def write(cells, *, width=74, caption="caption", colorbar=False):
    return heatmap_html(
        [cells], width=width, vmin=-1.0, vmax=1.0, caption=caption, colorbar=colorbar
    )


def test_a_span_per_character_with_its_colour_and_value():
    page = Reader(write([Cell("a", -1.0), Cell("é", 0.12345), Cell("\n", 4.0)]))
    assert [span["text"] for span in page.spans] == ["a", "é", "↵"]
    assert [span["title"] for span in page.spans] == ["-1.000", "0.123", "4.000"]
    red, green = to_hex(colormaps["RdYlGn"](0.0)), to_hex(colormaps["RdYlGn"](1.0))
    assert page.spans[0]["style"] == f"background:{red};color:white"
    assert page.spans[2]["style"] == f"background:{green};color:white"


def test_what_html_is_made_of_is_escaped():
    page = write([Cell(character, 0.0) for character in "<&>"], caption="a < b & c")
    for written in (">&lt;</span>", ">&amp;</span>", ">&gt;</span>", "a &lt; b &amp; c"):
        assert written in page
    assert "<title>a &lt; b</title>" in html_page("a < b", page)


@pytest.mark.parametrize("width", [1, 7, 30, 74])
def test_the_grid_has_its_width_and_less_where_there_is_no_room(open_page, width):
    page = open_page(html_page("", write([Cell("a", 0.0)] * 300, width=width)))

    def columns_on_a_screen_of(n_pixels):
        metrics = {"width": n_pixels, "height": 800, "deviceScaleFactor": 1, "mobile": False}
        page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        tracks = page.execute_script(
            "return getComputedStyle(document.querySelector('figure div')).gridTemplateColumns"
        )
        assert page.execute_script("return document.documentElement.scrollWidth") <= n_pixels
        return len(tracks.split())

    try:
        assert columns_on_a_screen_of(1600) == width
        assert min(width, 10) <= columns_on_a_screen_of(320) <= min(width, 29)
    finally:
        page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_a_script_in_the_text_is_only_text():
    attack = "<script>alert('&\"')</script>"
    page = write([Cell(character, 0.0) for character in attack], caption=attack)
    assert "<script" not in page
    reader = Reader(page)
    assert "".join(span["text"] for span in reader.spans) == attack
    assert reader.texts["figcaption"] == attack


@given(st.lists(st.characters()), st.text())
def test_any_text_gives_the_same_few_elements(characters, caption):
    reader = Reader(write([Cell(character, 0.5) for character in characters], caption=caption))
    assert reader.tags <= {"figure", "div", "span", "figcaption"}
    assert len(reader.spans) == len(characters)


def test_an_empty_text_is_an_empty_grid():
    page = write([])
    assert Reader(page).spans == []
    assert page.count("<div") == 1


def test_a_grid_per_text():
    texts = [[Cell("a", 0.0)], [], [Cell("b", 0.0), Cell("c", 0.0)]]
    page = heatmap_html(texts, width=9, vmin=-1.0, vmax=1.0, caption="")
    assert page.count("<div") == 3
    assert [part.count("<span") for part in page.split("</div>")] == [1, 0, 2, 0]


def test_a_colour_bar_has_the_colours_and_the_ends_of_the_scale():
    page = write([Cell("a", 0.0)], caption="scale", colorbar=True)
    assert Reader(page).texts["figcaption"] == "scale-11"
    gradient = page.partition("linear-gradient(to right,")[2].partition(")")[0].split(",")
    assert gradient == [to_hex(colormaps["RdYlGn"](place)) for place in np.linspace(0, 1, 11)]
    assert "gradient" not in write([Cell("a", 0.0)])


def test_a_page_has_a_title_and_its_body():
    attack = "</title><script>alert(1)</script>"
    page = html_page(attack, write([Cell("{", 0.0), Cell("}", 0.0)]))
    reader = Reader(page.removeprefix("<!DOCTYPE html>\n"))
    assert reader.texts["title"] == attack
    assert [span["text"] for span in reader.spans] == ["{", "}"]
    assert "script" not in reader.tags


def test_a_page_may_load_and_run_nothing():
    policies = [meta for meta in Reader(html_page("", "")).metas if "http-equiv" in meta]
    assert policies == [
        {
            "http-equiv": "Content-Security-Policy",
            "content": "default-src 'none'; style-src 'unsafe-inline'",
        }
    ]


def test_hex_colours_are_those_of_matplotlib():
    rgb = np.random.default_rng(0).random((50, 3))
    assert hex_colours(rgb) == [to_hex(colour) for colour in rgb]
    assert hex_colours(np.empty((0, 3))) == []
