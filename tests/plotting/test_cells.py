import unicodedata

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skdiscovery.plotting.cells import UNDRAWABLE, Cell, text_cells, text_rows, value_grid

# Valid text, and bytes of every kind with it.
documents = st.one_of(
    st.binary(max_size=60),
    st.text(max_size=40).map(str.encode),
    st.lists(st.one_of(st.binary(max_size=4), st.text(max_size=4).map(str.encode))).map(b"".join),
)


def cells_with_positions(document):
    return text_cells(document, np.arange(len(document)))


@given(documents)
def test_every_byte_belongs_to_exactly_one_cell(document):
    cells = cells_with_positions(document)
    encoded = [cell.character.encode("utf-8", "surrogateescape") for cell in cells]
    assert b"".join(encoded) == document


@given(documents)
def test_value_is_that_after_the_last_byte(document):
    n_bytes = 0
    for cell in cells_with_positions(document):
        n_bytes += len(cell.character.encode("utf-8", "surrogateescape"))
        assert cell.value == n_bytes - 1


@given(st.text())
def test_characters_of_valid_text_are_its_code_points(text):
    assert "".join(cell.character for cell in cells_with_positions(text.encode())) == text


@given(documents)
def test_a_cell_has_one_symbol_and_its_mark_at_most(document):
    for cell in cells_with_positions(document):
        symbol = cell.symbol
        assert len(symbol) == (2 if unicodedata.combining(cell.character) else 1)
        symbol.encode()  # no lone surrogate is left
        assert symbol == " " or symbol[-1].isprintable()


@pytest.mark.parametrize(
    ("character", "symbol"),
    [
        ("a", "a"),
        ("é", "é"),
        ("😀", "😀"),
        ("\n", "↵"),
        ("\t", "→"),
        (" ", " "),
        ("\r", " "),
        ("\u3000", " "),
        ("\u0301", "\u00a0\u0301"),
        ("\x00", UNDRAWABLE),
        ("\u200d", UNDRAWABLE),
        ("\udcff", "\ufffd"),
    ],
)
def test_symbol(character, symbol):
    assert Cell(character, 0.0).symbol == symbol


def test_an_invalid_byte_has_its_own_cell():
    # 0xE2 0x82 begins a euro sign that never ends; 0xED 0xA0 0x80 would be a surrogate.
    cells = cells_with_positions(b"a\xe2\x82b\xed\xa0\x80")
    assert "".join(cell.symbol for cell in cells) == "a\ufffd\ufffdb\ufffd\ufffd\ufffd"
    assert [cell.value for cell in cells] == [0, 1, 2, 3, 4, 5, 6]


def test_values_may_be_a_column():
    assert text_cells(b"ab", np.array([[1], [2]], dtype=np.float32)) == [("a", 1), ("b", 2)]


@pytest.mark.parametrize("n_values", [0, 2, 4])
def test_one_value_per_byte_is_required(n_values):
    with pytest.raises(ValueError, match=f"got {n_values} values for 3 bytes"):
        text_cells("aé".encode(), np.zeros(n_values))


def test_values_must_be_finite():
    with pytest.raises(ValueError, match="values contains NaN"):
        text_cells(b"ab", [0.0, np.nan])


@given(st.lists(st.integers(0, 50), max_size=4), st.integers(1, 12))
def test_rows_are_full_and_texts_apart(lengths, width):
    texts = [[Cell("x", value) for value in range(n)] for n in lengths]
    rows = text_rows(texts, width)
    assert [cell for row in rows for cell in row] == [cell for cells in texts for cell in cells]
    assert all(len(row) <= width for row in rows)
    n_rows = [max(1, -(-n // width)) for n in lengths]
    assert len(rows) == max(1, sum(n_rows) + len(lengths) - 1)
    first = 0
    for cells, n in zip(texts, n_rows, strict=True):
        assert [cell for row in rows[first : first + n] for cell in row] == cells
        assert all(len(row) == width for row in rows[first : first + n - 1])
        first += n + 1


@given(st.lists(st.integers(0, 7), min_size=1, max_size=4))
def test_grid_is_masked_where_there_is_no_cell(lengths):
    rows = [[Cell("x", 10 * row + column) for column in range(n)] for row, n in enumerate(lengths)]
    grid = value_grid(rows, 7)
    assert grid.shape == (len(rows), 7)
    for row, (values, n) in enumerate(zip(grid, lengths, strict=True)):
        assert values.compressed().tolist() == [10 * row + column for column in range(n)]
        assert np.ma.getmaskarray(values).tolist() == [False] * n + [True] * (7 - n)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_no_value_is_nan_or_infinite(value):
    with pytest.raises(ValueError, match="values contains"):
        text_cells(b"ab", [0.0, value])


def test_values_are_kept_to_the_last_digit():
    assert text_cells(b"a", [0.1]) == [("a", 0.1)]
    with pytest.raises(ValueError, match="1d array"):
        text_cells(b"abcd", np.zeros((2, 2)))
