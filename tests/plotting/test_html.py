from html.parser import HTMLParser

from hypothesis import given
from hypothesis import strategies as st
from matplotlib import colormaps
from matplotlib.colors import to_hex

from skdiscovery.plotting.cells import Cell
from skdiscovery.plotting.html import heatmap_html


class Reader(HTMLParser):
    """Collects the spans and the text of the other elements; complains of unbalanced tags."""

    def __init__(self, page):
        super().__init__()
        self.open, self.spans, self.texts, self.tags = [], [], {}, set()
        self.feed(page)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.open.append(tag)
        self.tags.add(tag)
        if tag == "span":
            self.spans.append({**dict(attrs), "text": ""})

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open[-1] == "span":
            self.spans[-1]["text"] += data
        else:
            self.texts[self.open[-1]] = self.texts.get(self.open[-1], "") + data


def write(cells, *, width=74, caption="caption"):
    return heatmap_html(cells, width=width, vmin=-1.0, vmax=1.0, caption=caption)


def test_a_span_per_character_with_its_colour_and_value():
    page = Reader(write([Cell("a", -1.0), Cell("é", 0.12345), Cell("\n", 4.0)]))
    assert [span["text"] for span in page.spans] == ["a", "é", "↵"]
    assert [span["title"] for span in page.spans] == ["-1.000", "0.123", "4.000"]
    red, green = to_hex(colormaps["RdYlGn"](0.0)), to_hex(colormaps["RdYlGn"](1.0))
    assert page.spans[0]["style"] == f"background:{red};color:white"
    assert page.spans[2]["style"] == f"background:{green};color:white"


def test_the_grid_has_its_width():
    assert "repeat(30," in write([Cell("a", 0.0)], width=30)


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
    assert Reader(write([])).spans == []
