"""Documents and labels out of CSV, TSV, JSON and text files, one at a time."""

import bz2
import codecs
import csv
import gzip
import json
import logging
import lzma
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, TextIO

from skdiscovery.text.json_list import BLOCK, LONGEST_RECORD, JSONList, NotJSONListError
from skdiscovery.text.labels import Label

logger = logging.getLogger("skdiscovery")

FORMATS = ("csv", "tsv", "json", "jsonl", "txt")
_OPENERS: dict[str, Callable[..., IO[Any]]] = {
    ".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open,
}  # fmt: skip
# Where lines end. JSON lines end at "\n" only, as texts may have "\r" or "\u2028" between blanks;
# csv wants to see line ends as they are, within quotes too.
_NEWLINE = {"csv": "", "tsv": "", "json": "\n", "jsonl": "\n", "txt": None}


class _BadRecordError(ValueError):
    """A record that has no document, and why."""


# What a file holds for one document, with the line on which it starts.
_Record = tuple[int, Any]

# Made once: both are needed for every record.
_LABEL_TYPES = (str, int, float, type(None))
_decode_json = json.JSONDecoder().decode


@dataclass(frozen=True)
class Reader:
    """How to find the documents and the labels in files.

    Parameters are those of :meth:`~skdiscovery.TextCorpus.from_file`.

    Examples
    --------
    >>> import json, tempfile
    >>> from pathlib import Path
    >>> from skdiscovery.text.readers import Reader
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "reviews.jsonl"
    ...     _ = path.write_text(json.dumps({"sentence": "Great!", "label": 1}))
    ...     list(Reader(label_key="label").read([path]))
    [('Great!', 1)]
    """

    text_key: str = "sentence"
    label_key: str | None = None
    format: str = "auto"
    delimiter: str = ","
    encoding: str = "utf-8"
    decode_error: str = "strict"
    errors: str = "raise"

    def __post_init__(self) -> None:
        for name, allowed in {
            "format": ("auto", *FORMATS),
            "decode_error": ("strict", "ignore", "replace"),
            "errors": ("raise", "skip"),
        }.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name}={getattr(self, name)!r}: expected one of {allowed}.")
        if not isinstance(self.delimiter, str) or len(self.delimiter) != 1:
            raise ValueError(f"delimiter={self.delimiter!r}: expected a string of one character.")
        try:
            "".encode(self.encoding)
        except LookupError as error:
            raise ValueError(f"encoding={self.encoding!r}: {error}.") from error

    def read(self, paths: Iterable[Path]) -> Iterator[tuple[str, Label]]:
        """Yield the text and the label (None where there is none) of all documents of all files.

        Raises
        ------
        ValueError
            If a file's format is unknown, a file or (unless ``errors="skip"``) a record is not as
            expected, or there is no document at all. The message names the file and the line.
        """
        n_read, n_skipped, first_problem = 0, 0, ""
        files = [(path, self._format_of(path)) for path in paths]
        for path, format in files:
            for line, record in self._records(path, format):
                try:
                    document = self._document(record)
                except _BadRecordError as problem:
                    where_and_what = f"{path}, line {line}: {problem}"
                    if self.errors == "raise":
                        raise ValueError(where_and_what) from problem
                    n_skipped += 1
                    first_problem = first_problem or where_and_what
                else:
                    n_read += 1
                    yield document
        if n_read == 0:
            names = ", ".join(str(path) for path, _ in files)
            raise ValueError(f"There is no document in {names}. {first_problem}".rstrip())
        if n_skipped:
            logger.warning(
                "Skipped %d of %d records. The first: %s",
                n_skipped, n_skipped + n_read, first_problem,
            )  # fmt: skip

    def _document(self, record: Any) -> tuple[str, Label]:
        if isinstance(record, _BadRecordError):
            raise record
        if not isinstance(record, dict):
            raise _BadRecordError(
                f"expected an object with the key {self.text_key!r}, got {type(record).__name__}"
            )
        if self.text_key not in record:
            raise _BadRecordError(f"no key {self.text_key!r}, found {_listed(record)}")
        text = record[self.text_key]
        if not isinstance(text, str):
            got = "is missing (null)" if text is None else f"is of type {type(text).__name__}"
            raise _BadRecordError(f"the text {self.text_key!r} {got}: expected a string")
        label = None if self.label_key is None else record.get(self.label_key)
        if not isinstance(label, _LABEL_TYPES):
            raise _BadRecordError(
                f"the label {self.label_key!r} is of type {type(label).__name__}: expected a "
                "number, a string or null"
            )
        return text, label

    def _records(self, path: Path, format: str) -> Iterator[_Record]:
        with self._open(path, newline=_NEWLINE[format]) as file:
            if format in ("csv", "tsv"):
                yield from self._csv_records(
                    path, file, "\t" if format == "tsv" else self.delimiter
                )
            elif format == "txt":
                yield from self._text_records(path, file)
            else:
                yield from self._json_records(path, file, format)

    def _csv_records(self, path: Path, file: TextIO, delimiter: str) -> Iterator[_Record]:
        # The limit is one for the whole process: raise it, never lower it.
        csv.field_size_limit(max(csv.field_size_limit(), LONGEST_RECORD))
        rows = _csv_rows(file, delimiter)
        line, header = next(rows, (1, []))
        if isinstance(header, _BadRecordError):
            raise ValueError(f"{path}, line {line}: {header}")
        keys = [self.text_key] if self.label_key is None else [self.text_key, self.label_key]
        for key in keys:
            if key not in header:
                raise ValueError(f"{path} has no column {key!r}, found {_listed(header)}.")
            if header.count(key) > 1:
                raise ValueError(f"{path} has several columns {key!r}: rename all but one.")
        for line, row in rows:
            if isinstance(row, _BadRecordError):
                yield line, row
            elif len(row) == len(header):
                yield line, dict(zip(header, row, strict=True))
            elif row:  # else a blank line
                yield line, _BadRecordError(f"{len(row)} fields, but the header has {len(header)}")

    def _text_records(self, path: Path, file: TextIO) -> Iterator[_Record]:
        if self.label_key is not None:
            raise ValueError(f"{path} is plain text: it has no labels, so no {self.label_key!r}.")
        for line, text in enumerate(file, start=1):
            yield line, {self.text_key: text.removesuffix("\n")}

    def _json_records(self, path: Path, file: TextIO, format: str) -> Iterator[_Record]:
        keys: dict[str, None] = {}
        for line, record in self._json_values(path, file, format):
            if self.label_key is not None and self.label_key not in keys:
                keys.update(dict.fromkeys(record if isinstance(record, dict) else ()))
            yield line, record
        if keys and self.label_key not in keys:
            raise ValueError(f"{path} has no key {self.label_key!r}, found {_listed(keys)}.")

    def _json_values(self, path: Path, file: TextIO, format: str) -> Iterator[_Record]:
        if format == "json":
            is_list = file.read(BLOCK).lstrip().startswith("[")
            file.seek(0)
            if is_list:
                try:
                    yield from JSONList(file)
                except NotJSONListError as error:
                    raise ValueError(f"{path}, {error}") from error
                return
        for line, text in enumerate(file, start=1):
            if not text.isspace():
                yield line, _json_value(text)

    def _format_of(self, path: Path) -> str:
        if self.format != "auto":
            return self.format
        uncompressed = path.with_suffix("") if path.suffix.lower() in _OPENERS else path
        extension = uncompressed.suffix.lower().removeprefix(".")
        if extension not in FORMATS:
            raise ValueError(
                f"The format of {path} cannot be told from its name: name it .csv, .tsv, .json, "
                f".jsonl or .txt (and .gz, .bz2 or .xz), or give format=, one of {FORMATS}."
            )
        return extension

    @contextmanager
    def _open(self, path: Path, newline: str | None) -> Iterator[TextIO]:
        """Open a file as text; whatever is wrong with its bytes is an error that names it."""
        opener = _OPENERS.get(path.suffix.lower(), open)
        encoding = self.encoding
        if codecs.lookup(encoding).name == "utf-8":
            encoding = "utf-8-sig"  # Some editors put a byte order mark first: it is no text.
        try:
            with opener(
                path, "rt", encoding=encoding, errors=self.decode_error, newline=newline
            ) as file:
                try:
                    yield file
                except UnicodeDecodeError as error:
                    with opener(path, "rb") as binary:  # which may be damaged, too
                        where = _first_undecodable(binary, self.encoding)
                    raise ValueError(
                        f"{path} is not {self.encoding}: {error.reason} at {where}. Give another "
                        'encoding, or decode_error="replace" or "ignore".'
                    ) from error
        except (EOFError, OSError, zlib.error, lzma.LZMAError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                error.filename = str(path)  # known when opening fails, not when reading does
                raise
            raise ValueError(f"{path} is damaged or not complete: {error}") from error


def _csv_rows(file: TextIO, delimiter: str) -> Iterator[tuple[int, list[str] | _BadRecordError]]:
    rows = csv.reader(file, delimiter=delimiter, strict=True)
    while True:
        line = rows.line_num + 1
        try:
            yield line, next(rows)
        except StopIteration:
            return
        except csv.Error as error:
            yield line, _BadRecordError(f"not CSV: {error}; a quotation mark may be left open")


def _json_value(text: str) -> Any:
    try:
        return _decode_json(text)
    except (ValueError, RecursionError) as error:
        return _BadRecordError(f"not JSON: {error}")


def _first_undecodable(file: IO[bytes], encoding: str) -> str:
    """Return in words where the first bytes are that cannot be decoded."""
    decoder = codecs.getincrementaldecoder(encoding)()
    position, line = 0, 1
    while block := file.read(BLOCK):
        n_pending = len(decoder.getstate()[0])
        try:
            line += decoder.decode(block).count("\n")
        except UnicodeDecodeError as error:
            line += error.object[: error.start].decode(encoding, "ignore").count("\n")
            return f"byte {position - n_pending + error.start}, line {line}"
        position += len(block)
    return "its end"


def _listed(names: Iterable[str]) -> str:
    return ", ".join(map(repr, names)) or "none"
