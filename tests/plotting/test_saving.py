import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skdiscovery.plotting.saving import MAX_LENGTH, page_paths, safe_stem


@given(st.one_of(st.binary(), st.text().map(lambda text: text.encode("utf-8", "replace"))))
def test_any_text_gives_a_plain_short_name(text_bytes):
    stem = safe_stem(text_bytes)
    assert re.fullmatch(r"heatmap(_[A-Za-z0-9-]+)?", stem)
    assert len(stem) <= len("heatmap_") + MAX_LENGTH


@pytest.mark.parametrize(
    ("text", "stem"),
    [
        ("\n I loved it. ", "heatmap_I-loved-it"),
        ("../../etc/passwd\x00", "heatmap_etc-passwd"),
        ("C:\\con", "heatmap_C-con"),
        ("", "heatmap"),
        ("?!", "heatmap"),
        ("\u5317\u4eac caf\u00e9", "heatmap_Bei-Jing-cafe"),
        ("word " * 100, "heatmap_" + "-".join(["word"] * 10)),
        ("\u00e9" * 1000, "heatmap_" + "e" * 50),
    ],
)
def test_names(text, stem):
    assert safe_stem(text.encode()) == stem


def test_a_path_per_page():
    path = Path("folder/v1.5.png")
    assert page_paths(path, 1) == [path]
    assert page_paths(path, 3) == [Path(f"folder/v1.5-{n}.png") for n in (1, 2, 3)]
    assert page_paths(path, 10)[8:] == [Path("folder/v1.5-09.png"), Path("folder/v1.5-10.png")]
