"""Features on disk, per document: one SQLite file that processes share.

SQLite writes atomically and orders concurrent writers, so a killed process leaves no half entry.
A cache saves time and decides nothing: where its file can be opened, whatever befalls it or its
disk, or keeps it busy, is logged, and costs the time to compute anew. The order of entries is not
the clock's.
"""

import logging
import os
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import TypeVar
from zlib import crc32

import numpy as np

logger = logging.getLogger("skdiscovery")

_T = TypeVar("_T")

_BUSY_SECONDS = 60
_ROWS_AT_ONCE = 500
_ROWS_EVICTED_AT_ONCE = 32
_CHECKSUM_BYTES = 4
# Large pages hold several vectors with little waste, and the file gives back those without any.
# Entries are numbered in the order in which they come.
_SETUP = (
    "PRAGMA page_size = 16384",
    "PRAGMA auto_vacuum = FULL",
    "CREATE TABLE IF NOT EXISTS vectors "
    "(number INTEGER PRIMARY KEY, key BLOB UNIQUE, checked_vector BLOB)",
)
# Not "the file has a page": the pragmas give it one before there is a table.
_IS_SET_UP = "SELECT 1 FROM sqlite_master WHERE name = 'vectors'"
_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


class FeatureCache:
    """Maps documents to feature vectors, for one model and one set of settings.

    Parameters
    ----------
    folder : path-like
        Where the file is kept; made if missing.
    settings : bytes
        What, besides its bytes, the vector of a document depends on.
    dtype : numpy dtype
        Dtype of the vectors.
    max_bytes : int, default=None
        Size of the file beyond which the oldest entries make room for new ones.

    Raises
    ------
    OSError
        If the folder cannot be made, or the file in it cannot be opened.
    """

    def __init__(self, folder: Path, settings: bytes, dtype: type, max_bytes: int | None = None):
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / "vectors.sqlite"
        self.settings = settings
        self.dtype = np.dtype(dtype)
        self.max_bytes = max_bytes
        self._is_usable = True
        try:
            self._transact(lambda connection: None)
        except sqlite3.DatabaseError as error:
            if _kind(error) == sqlite3.SQLITE_BUSY:
                self._give_up(error)
            elif not self._discard_if_damaged(error):
                raise OSError(
                    f"The cache of features {os.fspath(self.path)!r} cannot be opened: {error}. "
                    "Name another folder with memory=."
                ) from error

    def get(self, documents: Sequence[bytes]) -> dict[int, np.ndarray]:
        """Return the vectors that are there, by the position of their document."""
        keys = [self._key(document) for document in documents]
        found: dict[bytes, bytes] = {}
        for start in range(0, len(keys), _ROWS_AT_ONCE):
            some = keys[start : start + _ROWS_AT_ONCE]
            found |= self._attempt(partial(_select, keys=some)) or {}
        vectors = {}
        for position, key in enumerate(keys):
            if key in found and (vector := self._unpack(key, found[key])) is not None:
                vectors[position] = vector
        return vectors

    def put(self, documents: Sequence[bytes], vectors: np.ndarray) -> None:
        """Keep a vector, a row of ``vectors``, for each document."""
        for start in range(0, len(documents), _ROWS_AT_ONCE):
            part = slice(start, start + _ROWS_AT_ONCE)
            rows = [
                (key := self._key(document), _checksum(key, content := vector.tobytes()) + content)
                for document, vector in zip(documents[part], vectors[part], strict=True)
            ]
            self._attempt(partial(self._insert, rows=rows))

    def _insert(self, connection: sqlite3.Connection, rows: Sequence[tuple[bytes, bytes]]) -> None:
        connection.executemany(
            "INSERT OR REPLACE INTO vectors (key, checked_vector) VALUES (?, ?)", rows
        )
        while self.max_bytes is not None and _n_bytes(connection) > self.max_bytes:
            evicted = connection.execute(
                "DELETE FROM vectors WHERE number IN "
                "(SELECT number FROM vectors ORDER BY number LIMIT ?)",
                (_ROWS_EVICTED_AT_ONCE,),
            )
            if evicted.rowcount == 0:
                break

    def _attempt(self, work: Callable[[sqlite3.Connection], _T]) -> _T | None:
        """Do some work on the file; if that fails, say so, return None, and do no more.

        What fails once, as for want of space or of an end to another's writing, would again.
        """
        if not self._is_usable:
            return None
        try:
            return self._transact(work)
        except sqlite3.DatabaseError as error:
            if not self._discard_if_damaged(error):
                self._give_up(error)
            return None

    def _transact(self, work: Callable[[sqlite3.Connection], _T]) -> _T:
        with closing(sqlite3.connect(self.path, timeout=_BUSY_SECONDS)) as connection, connection:
            if not connection.execute(_IS_SET_UP).fetchone():
                for statement in _SETUP:
                    connection.execute(statement)
            return work(connection)

    def _discard_if_damaged(self, error: sqlite3.DatabaseError) -> bool:
        if _kind(error) not in _DAMAGED:
            return False
        logger.warning("the cache of features %s is damaged (%s): a new one", self.path, error)
        for name in (self.path, self.path.with_name(f"{self.path.name}-journal")):
            with suppress(OSError):
                name.unlink()
        return True

    def _give_up(self, error: sqlite3.DatabaseError) -> None:
        self._is_usable = False
        logger.warning("the cache of features %s is not used: %s", self.path, error)

    def _unpack(self, key: bytes, checked_vector: bytes) -> np.ndarray | None:
        """Return the vector of an entry; None if it is not what was written."""
        checksum, content = checked_vector[:_CHECKSUM_BYTES], checked_vector[_CHECKSUM_BYTES:]
        if checksum != _checksum(key, content):
            logger.warning("an entry of the cache of features %s is damaged", self.path)
            return None
        return np.frombuffer(content, dtype=self.dtype)

    def _key(self, document: bytes) -> bytes:
        return blake2b(document, key=self.settings, digest_size=20).digest()


def _kind(error: sqlite3.DatabaseError) -> int:
    return error.sqlite_errorcode & 0xFF  # the other bytes say more


def _select(connection: sqlite3.Connection, keys: Sequence[bytes]) -> dict[bytes, bytes]:
    marks = ",".join("?" * len(keys))
    return dict(
        connection.execute(f"SELECT key, checked_vector FROM vectors WHERE key IN ({marks})", keys)
    )


def _n_bytes(connection: sqlite3.Connection) -> int:
    """Return how large the file will be after this transaction."""
    n_pages = _pragma(connection, "page_count") - _pragma(connection, "freelist_count")
    return n_pages * _pragma(connection, "page_size")


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    return connection.execute(f"PRAGMA {name}").fetchone()[0]


def _checksum(key: bytes, content: bytes) -> bytes:
    return crc32(content, crc32(key)).to_bytes(_CHECKSUM_BYTES, "big")
