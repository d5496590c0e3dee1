"""Text as cells: one per character, with the neuron's value after the character's last byte."""

import unicodedata
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from sklearn.utils import assert_all_finite, column_or_1d

# Stands for a character that cannot be drawn.
UNDRAWABLE = "□"

_VISIBLE = {"\n": "↵", "\t": "→"}


class Cell(NamedTuple):
    """A character of the text and the neuron's value after it.

    A byte that is no valid UTF-8 is a character of its own, the lone surrogate that Python's
    ``surrogateescape`` makes of it.
    """

    character: str
    value: float

    @property
    def symbol(self) -> str:
        """What to draw in the cell: the character, or a sign for one that has no shape."""
        if self.character in _VISIBLE:
            return _VISIBLE[self.character]
        if self.character.isspace():
            return " "
        if "\udc80" <= self.character <= "\udcff":
            return "\ufffd"
        if unicodedata.combining(self.character):
            return "\N{NO-BREAK SPACE}" + self.character  # a mark needs something to sit on
        return self.character if self.character.isprintable() else UNDRAWABLE


def text_cells(text_bytes: bytes, values: ArrayLike) -> list[Cell]:
    """Lay out the values, one per byte, as one cell per character.

    Parameters
    ----------
    text_bytes : bytes
        The text, as UTF-8 where it is valid.
    values : array-like of shape (n_bytes,) or (n_bytes, 1), dtype float
        The neuron's value after each byte.

    Returns
    -------
    list of Cell
        In the order of the text; each byte belongs to exactly one cell.

    Raises
    ------
    ValueError
        If there is not one finite value per byte.
    """
    per_byte = column_or_1d(values, dtype=np.float64)
    assert_all_finite(per_byte, input_name="values")
    if len(per_byte) != len(text_bytes):
        raise ValueError(
            f"Expected one value per byte: got {len(per_byte)} values for {len(text_bytes)} bytes."
        )
    characters, last_bytes = character_ends(text_bytes)
    return [Cell(*pair) for pair in zip(characters, per_byte[last_bytes].tolist(), strict=True)]


def character_ends(text_bytes: bytes) -> tuple[str, np.ndarray]:
    """Return the characters, invalid bytes as in `Cell`, and the position of each one's last byte.

    The positions are of shape (n_characters,), dtype int.
    """
    characters = text_bytes.decode("utf-8", "surrogateescape")
    n_bytes = [len(character.encode("utf-8", "surrogateescape")) for character in characters]
    return characters, np.cumsum(n_bytes, dtype=int) - 1


def text_rows(texts: Iterable[Sequence[Cell]], width: int) -> list[Sequence[Cell]]:
    """Break texts into rows of ``width`` cells, with an empty row between one and the next.

    Returns
    -------
    list of sequence of Cell
        At least one row, also for no text or an empty one.
    """
    rows: list[Sequence[Cell]] = []
    for cells in texts:
        if rows:
            rows.append([])
        rows += [cells[start : start + width] for start in range(0, len(cells) or 1, width)]
    return rows or [[]]


def value_grid(rows: Sequence[Sequence[Cell]], width: int) -> np.ma.MaskedArray:
    """Arrange the cells' values in a grid, and mask what has no cell.

    Returns
    -------
    masked array of shape (n_rows, width), dtype float64
    """
    grid = np.ma.array(np.zeros((len(rows), width)), mask=True)
    for values, cells in zip(grid, rows, strict=True):
        values[: len(cells)] = [cell.value for cell in cells]
    return grid
