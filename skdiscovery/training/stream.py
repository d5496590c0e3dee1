"""The documents of a corpus end to end in a random order, read where they lie."""

from collections.abc import Iterator, Sequence

import numpy as np

from skdiscovery.text.corpus import TextCorpus, document_offsets

SHARD_BYTES = 2**20
"""About the size of a shard. A lane holds one in memory, so they are small beside a corpus."""


class ShuffledStream:
    """A circle of bytes: a corpus's shards in a random order, and in each, its documents in one.

    A shard is a stretch of consecutive documents. It is read when a lane enters it and forgotten
    when all have left it: a corpus may be larger than memory, and is read in large pieces.

    Parameters
    ----------
    corpus : TextCorpus
        The documents.
    seed : sequence of int
        What the order follows from.
    """

    def __init__(self, corpus: TextCorpus, seed: Sequence[int]):
        self._corpus = corpus
        self._seed = seed
        offsets = corpus.offsets
        ends = np.searchsorted(offsets, np.arange(SHARD_BYTES, offsets[-1], SHARD_BYTES))
        # Where shards begin and end, as numbers of documents: at the first end of a document
        # after each SHARD_BYTES. A document of many shards' length makes some of them empty.
        edges = np.unique([0, *ends, len(corpus)])
        shuffled = np.random.default_rng(seed).permutation(len(edges) - 1)
        self._documents = np.stack([edges[shuffled], edges[shuffled + 1]], axis=1)
        self._lengths = np.diff(offsets[self._documents]).ravel()
        self._ends = np.cumsum(self._lengths)
        self._open: dict[int, tuple[np.ndarray, np.ndarray]] = {}

    def read(self, starts: np.ndarray, n: int, reset_at: str) -> tuple[np.ndarray, np.ndarray]:
        """Read ``n`` bytes from each of some places of the circle.

        Parameters
        ----------
        starts : ndarray of int, shape (n_places,)
            Where to begin; a place before the first byte or after the last is one of the circle.
        n : int
            How many bytes.
        reset_at : {"document", "shard", "always"}
            What is marked.

        Returns
        -------
        symbols : ndarray of shape (n_places, n), dtype uint8
            The bytes.
        marked : ndarray of shape (n_places, n), dtype bool
            Whether a byte is the first of a document, or of a shard; none is for "always".
        """
        symbols = np.empty((len(starts), n), np.uint8)
        marked = np.zeros((len(starts), n), bool)
        in_use: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        for row, start in enumerate(starts.tolist()):
            done = 0
            for k, piece in self._pieces(start, n):
                in_use[k] = shard = self._open.get(k) or in_use.get(k) or self._read_shard(k)
                now = slice(done, done + piece.stop - piece.start)
                done = now.stop
                symbols[row, now] = shard[0][piece]
                if reset_at == "document":
                    first, last = np.searchsorted(shard[1], [piece.start, piece.stop])
                    marked[row, now.start - piece.start + shard[1][first:last]] = True
                elif reset_at == "shard":
                    marked[row, now.start] = piece.start == 0
        self._open = in_use
        return symbols, marked

    def _pieces(self, start: int, n: int) -> Iterator[tuple[int, slice]]:
        """Yield the shards that ``n`` bytes from ``start`` on lie in, and where in them."""
        total = int(self._ends[-1])
        while n > 0:
            start %= total
            k = int(np.searchsorted(self._ends, start, side="right"))
            first = start - int(self._ends[k] - self._lengths[k])
            piece = slice(first, min(first + n, int(self._lengths[k])))
            yield k, piece
            n -= piece.stop - first
            start += piece.stop - first

    def _read_shard(self, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the bytes of shard ``k`` in their order, and where in it documents begin."""
        first, last = self._documents[k].tolist()
        order = np.random.default_rng([*self._seed, first]).permutation(last - first) + first
        documents = [self._corpus[i] for i in order.tolist()]
        symbols = np.frombuffer(b"".join(documents), np.uint8)
        lengths = np.array([len(document) for document in documents])
        return symbols, document_offsets(lengths)[:-1][lengths > 0]
