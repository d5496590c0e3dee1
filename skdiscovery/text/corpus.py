"""A corpus of bytes: every document of a collection, end to end, in one array."""

from collections.abc import Iterator
from hashlib import sha256
from typing import Any, overload

import numpy as np

from skdiscovery.text.documents import encode_documents
from skdiscovery.text.preprocessing import Preprocessor


class TextCorpus:
    r"""Documents as one array of bytes, with the offsets at which they start.

    Parameters
    ----------
    data : ndarray of shape (n_bytes,), dtype uint8
        The preprocessed documents, one after the other.
    offsets : ndarray of shape (n_documents + 1,), dtype int64
        Document ``i`` is ``data[offsets[i]:offsets[i + 1]]``.
    labels : ndarray of shape (n_documents,), default=None
        A label per document, where there are labels.

    Examples
    --------
    >>> from skdiscovery import TextCorpus
    >>> corpus = TextCorpus.from_documents(["Great!", "Awful."], labels=[1, 0])
    >>> len(corpus), corpus.n_bytes, corpus[1]
    (2, 18, b'\n Awful. ')
    """

    def __init__(self, data: np.ndarray, offsets: np.ndarray, labels: np.ndarray | None = None):
        self.data = data
        self.offsets = offsets
        self.labels = labels

    @classmethod
    def from_documents(
        cls,
        docs: Any,
        labels: Any = None,
        *,
        preprocessor: str | Preprocessor | None = "review",
    ) -> "TextCorpus":
        """Build a corpus in memory.

        Parameters
        ----------
        docs : iterable of str or bytes, or Series
            The documents.
        labels : array-like of shape (n_documents,), default=None
            A label per document.
        preprocessor : {"review", "openai", "nvidia"}, callable or None, default="review"
            How a text becomes bytes.

        Returns
        -------
        TextCorpus

        Raises
        ------
        ValueError
            If the numbers of labels and documents differ, or a document is missing.
        TypeError
            If a document is neither ``str`` nor ``bytes``.
        """
        encoded = encode_documents(docs, preprocessor)
        if labels is not None and len(labels) != len(encoded):
            raise ValueError(f"Got {len(labels)} labels for {len(encoded)} documents.")
        offsets = np.zeros(len(encoded) + 1, dtype=np.int64)
        np.cumsum([len(document) for document in encoded], out=offsets[1:])
        data = np.frombuffer(b"".join(encoded), dtype=np.uint8)
        return cls(data, offsets, None if labels is None else np.asarray(labels))

    def fingerprint(self) -> str:
        """Return a hash of all documents, as a string of hexadecimal digits."""
        digest = sha256(self.offsets.tobytes())
        digest.update(self.data.data)
        return digest.hexdigest()

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def n_bytes(self) -> int:
        """Number of bytes of all documents together."""
        return int(self.offsets[-1])

    @overload
    def __getitem__(self, index: int) -> bytes: ...
    @overload
    def __getitem__(self, index: slice | np.ndarray) -> "TextCorpus": ...
    def __getitem__(self, index: Any) -> "bytes | TextCorpus":
        """Return one document as bytes, or several (a slice, an array) as a corpus."""
        chosen = np.arange(len(self))[index]
        if chosen.ndim == 0:
            return self.data[self.offsets[chosen] : self.offsets[chosen + 1]].tobytes()
        corpus = TextCorpus.from_documents((self[int(i)] for i in chosen), preprocessor=None)
        corpus.labels = None if self.labels is None else self.labels[chosen]
        return corpus

    def __iter__(self) -> Iterator[bytes]:
        return (self[i] for i in range(len(self)))
