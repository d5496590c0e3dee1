"""A corpus as training batches: lanes that read its bytes side by side, a chunk at a time."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from skdiscovery.text.corpus import TextCorpus

PersistState = Literal["document", "shard", "always"]


@dataclass(frozen=True)
class Batch:
    """One training step's bytes: a chunk of T bytes of each of B lanes.

    ``inputs`` and ``targets`` are int64 of shape (T, B); a target is the byte after its input.
    ``keep`` of shape (T, B) is 0 where the state is reset before the input is read, else 1.
    """

    inputs: Tensor
    targets: Tensor
    keep: Tensor

    @property
    def n_bytes(self) -> int:
        """Number of bytes to predict."""
        return self.targets.numel()

    def to(self, device: torch.device, dtype: torch.dtype) -> "Batch":
        """Return the batch on ``device``, with ``keep`` in ``dtype``."""
        return Batch(self.inputs.to(device), self.targets.to(device), self.keep.to(device, dtype))


class Lanes:
    """The documents of a corpus, shuffled anew each epoch and dealt to ``batch_size`` lanes.

    The documents follow each other end to end; a lane reads a contiguous piece of that stream, all
    lanes of the same length. Up to ``batch_size`` bytes at the end of the stream are left out of an
    epoch; shuffling makes them others in the next.

    Parameters
    ----------
    corpus : TextCorpus
        What to read.
    batch_size : int
        Number of lanes.
    seq_length : int
        Bytes of a lane per batch, at most. The batches of an epoch are of nearly equal length:
        none is a stump whose gradient is noise.
    persist_state : {"document", "shard", "always"}
        What the state is kept through: a document, a lane's piece of the stream (the shard), or
        everything.

    Raises
    ------
    ValueError
        If the corpus is shorter than one sequence, or has less than a byte for each lane.
    """

    def __init__(
        self, corpus: TextCorpus, batch_size: int, seq_length: int, persist_state: PersistState
    ):
        self.corpus = corpus
        self.batch_size = batch_size
        self.persist_state = persist_state
        self.lane_length = (corpus.n_bytes - 1) // batch_size
        needed = max(batch_size, seq_length) + 1
        if corpus.n_bytes < needed:
            raise ValueError(
                f"The corpus has {corpus.n_bytes} bytes in {len(corpus)} documents, but "
                f"batch_size={batch_size} and seq_length={seq_length} need at least {needed}: give "
                "more text, or lower them."
            )
        self.n_batches = -(-self.lane_length // seq_length)

    @property
    def n_bytes(self) -> int:
        """Number of bytes to predict in an epoch."""
        return self.lane_length * self.batch_size

    def epoch(self, random_state: np.random.RandomState, first_batch: int = 0) -> Iterator[Batch]:
        """Yield the batches of one epoch from ``first_batch`` on.

        The order of the documents is drawn from ``random_state``.
        """
        stream, starts = self._shuffled_stream(random_state)
        # Views of shape (lanes, bytes): a lane's targets are its inputs, one byte on.
        n = self.n_bytes
        inputs = stream[:n].reshape(self.batch_size, -1)
        targets = stream[1 : n + 1].reshape(self.batch_size, -1)
        resets = starts[:n].reshape(self.batch_size, -1)
        edges = np.linspace(0, self.lane_length, self.n_batches + 1).astype(int)
        for start, stop in pairwise(edges[first_batch:]):
            yield Batch(
                _time_major(inputs[:, start:stop]).long(),
                _time_major(targets[:, start:stop]).long(),
                _time_major(~resets[:, start:stop]).float(),
            )

    def _shuffled_stream(
        self, random_state: np.random.RandomState
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the bytes of all documents, and where the state is reset, in a new order."""
        corpus = self.corpus
        order = random_state.permutation(len(corpus))
        stream = np.frombuffer(b"".join([corpus[int(i)] for i in order]), dtype=np.uint8)
        resets = np.zeros(len(stream), dtype=bool)
        if self.persist_state == "document":
            lengths = np.diff(corpus.offsets)[order]
            starts = np.cumsum(lengths) - lengths
            resets[starts[lengths > 0]] = True
        if self.persist_state != "always":
            resets[: self.n_bytes : self.lane_length] = True
        return stream, resets


def _time_major(lanes: np.ndarray) -> Tensor:
    return torch.from_numpy(lanes.T.copy())
