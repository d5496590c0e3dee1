"""JSON lists larger than memory: their items, decoded one by one."""

import json
import re
from collections.abc import Iterator
from typing import Any, TextIO

# Characters read at a time, and those beyond which one record is taken for a damaged file.
BLOCK = 2**20
LONGEST_RECORD = 2**26

_BLANKS = re.compile(r"[ \t\n\r]*")
# What was cut off after 12 may make it 123 or 12.5; the end of the buffer, "", is in here too.
_MAY_GO_ON = "0123456789.eE+-"
_decode = json.JSONDecoder().raw_decode


class NotJSONListError(ValueError):
    """What is read is no JSON list; the message says where, from the line on."""


class JSONList:
    """The items of a JSON list with the lines that they start on, from a sliding buffer.

    Parameters
    ----------
    file : file object
        Open for reading text.

    Raises
    ------
    NotJSONListError
        On iteration, where the text is not a JSON list.
    """

    def __init__(self, file: TextIO):
        self._file = file
        self._buffer = ""
        self._position = 0
        self._line = 1

    def __iter__(self) -> Iterator[tuple[int, Any]]:
        self._expect("[")
        if self._next_character() == "]":
            self._expect("]")
        else:
            yield self._item()
            while self._expect(",", "]") == ",":
                yield self._item()
        if self._next_character():
            raise NotJSONListError(f"line {self._line}: not JSON: text after the end of the list")

    def _expect(self, *characters: str) -> str:
        found = self._next_character()
        if found not in characters:
            got = repr(found) if found else "the end of the file"
            raise NotJSONListError(
                f"line {self._line}: not JSON: expected {' or '.join(map(repr, characters))}, "
                f"got {got}"
            )
        self._position += 1
        return found

    def _next_character(self) -> str:
        """Go to the next character that is not blank and return it; "" at the end of the file."""
        while True:
            blanks = _BLANKS.match(self._buffer, self._position)
            assert blanks is not None  # it matches nothing too
            self._move_to(blanks.end())
            if self._position < len(self._buffer) or not self._read_more():
                return self._buffer[self._position : self._position + 1]

    def _item(self) -> tuple[int, Any]:
        self._next_character()
        start = self._line
        while True:
            problem = "it is not closed"
            try:
                item, end = _decode(self._buffer, self._position)
            except (ValueError, RecursionError) as error:
                problem = str(error)
            else:
                if self._buffer[end : end + 1] not in _MAY_GO_ON:
                    self._move_to(end)
                    return start, item
            # Either damaged or cut off by the end of the buffer: only more of the file can tell.
            if len(self._buffer) - self._position > LONGEST_RECORD or not self._read_more():
                raise NotJSONListError(
                    f"line {start}: the item from here on is not JSON: {problem}"
                )

    def _move_to(self, position: int) -> None:
        self._line += self._buffer.count("\n", self._position, position)
        self._position = position

    def _read_more(self) -> bool:
        """Drop what has been decoded, double the rest; return whether there was more to read."""
        rest = self._buffer[self._position :]
        block = self._file.read(max(BLOCK, len(rest)))
        self._buffer, self._position = rest + block, 0
        return bool(block)
