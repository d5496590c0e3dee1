"""Features on disk, per document: one SQLite file that processes share.

SQLite writes atomically and orders concurrent writers, so a killed process leaves no half entry.
"""

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from hashlib import blake2b
from pathlib import Path

import numpy as np

_BUSY_SECONDS = 60
_KEYS_PER_QUERY = 500


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
    """

    def __init__(self, folder: Path, settings: bytes, dtype: type):
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / "features.sqlite"
        self.settings = settings
        self.dtype = dtype
        with closing(self._connect()) as connection, connection:
            connection.execute(
                "CREATE TABLE IF NOT EXISTS features (key BLOB PRIMARY KEY, vector BLOB) "
                "WITHOUT ROWID"
            )

    def get(self, documents: Sequence[bytes]) -> dict[int, np.ndarray]:
        """Return the vectors that are there, by the position of their document."""
        keys = [self._key(document) for document in documents]
        found: dict[bytes, bytes] = {}
        with closing(self._connect()) as connection:
            for some in _batched(keys, _KEYS_PER_QUERY):
                marks = ",".join("?" * len(some))
                found |= connection.execute(
                    f"SELECT key, vector FROM features WHERE key IN ({marks})", some
                )
        return {
            position: np.frombuffer(found[key], dtype=self.dtype)
            for position, key in enumerate(keys)
            if key in found
        }

    def put(self, documents: Sequence[bytes], vectors: np.ndarray) -> None:
        """Keep a vector, a row of ``vectors``, for each document."""
        rows = ((self._key(d), v.tobytes()) for d, v in zip(documents, vectors, strict=True))
        with closing(self._connect()) as connection, connection:
            connection.executemany("INSERT OR REPLACE INTO features VALUES (?, ?)", rows)

    def _connect(self) -> sqlite3.Connection:
        return sqlite3.connect(self.path, timeout=_BUSY_SECONDS)

    def _key(self, document: bytes) -> bytes:
        return blake2b(document, key=self.settings, digest_size=20).digest()


def _batched(keys: Iterable[bytes], size: int) -> Iterator[list[bytes]]:
    keys = list(keys)
    for start in range(0, len(keys), size):
        yield keys[start : start + size]
