"""A corpus as training batches: lanes that read its bytes side by side, a chunk at a time."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from skdiscovery.ops.runtime import copied_to
from skdiscovery.text.corpus import TextCorpus
from skdiscovery.training.stream import ShuffledStream

PersistState = Literal["document", "shard", "always"]

NOT_A_TARGET = -100
"""Target where a lane is at its end: what torch's cross entropy ignores."""

BYTES_READ_AT_ONCE = 2**14
"""Of each lane, unless one batch has more: few calls, and little memory."""


@dataclass(frozen=True)
class Batch:
    """One training step's bytes: a chunk of T bytes of each of B lanes.

    ``inputs`` and ``targets`` are int64 of shape (T, B); a target is the byte after its input, or
    ``NOT_A_TARGET``. ``keep`` of shape (T, B) is 0 where the state is reset before the input is
    read, else 1. ``n_bytes`` is the number of targets in all lanes, those of other ranks included.
    """

    inputs: Tensor
    targets: Tensor
    keep: Tensor
    n_bytes: int

    def to(self, device: torch.device, dtype: torch.dtype) -> "Batch":
        """Return the batch on ``device``, with ``keep`` in ``dtype``."""
        return Batch(
            copied_to(self.inputs, device),
            copied_to(self.targets, device),
            copied_to(self.keep, device).to(dtype),
            self.n_bytes,
        )

    def of_lanes(self, chosen: slice) -> "Batch":
        """Return the part of some lanes; it counts the targets of all."""
        return Batch(
            self.inputs[:, chosen], self.targets[:, chosen], self.keep[:, chosen], self.n_bytes
        )


class Lanes:
    """The documents of a corpus, shuffled anew each epoch and dealt to ``batch_size`` lanes.

    The documents follow each other in a circle, as :class:`ShuffledStream` orders them. A lane
    reads a contiguous piece of it; the pieces' lengths differ by a byte at most. So each byte is a
    target once an epoch, predicted from the byte before it in the circle.

    Parameters
    ----------
    corpus : TextCorpus
        What to read.
    batch_size : int
        Number of lanes.
    seq_length : int
        Bytes of a lane per batch, at most. The batches of an epoch are of nearly equal length:
        none is a stump whose gradient is noise. A negative number ``-k`` is the length of ``k``
        sequences that make up the corpus, as in sentiment-discovery.
    persist_state : {"document", "shard", "always"}
        What the state is kept through: a document, a shard of the stream (or as much of it as a
        lane has), or everything.

    Raises
    ------
    ValueError
        If the corpus is shorter than one sequence, or has less than a byte for each lane.
    """

    def __init__(
        self, corpus: TextCorpus, batch_size: int, seq_length: int, persist_state: PersistState
    ):
        self.corpus = corpus
        self.n_bytes = corpus.n_bytes
        self.batch_size = batch_size
        self.persist_state = persist_state
        if seq_length < 0:
            seq_length = max(1, (self.n_bytes - 1) // -seq_length)
        needed = max(batch_size, seq_length)
        if self.n_bytes < needed:
            raise ValueError(
                f"The corpus has {self.n_bytes} bytes in {len(corpus)} documents, but "
                f"batch_size={batch_size} and seq_length={seq_length} need at least {needed}: give "
                "more text, or lower them."
            )
        self._edges = self.n_bytes * np.arange(batch_size + 1) // batch_size
        lane_length = -(-self.n_bytes // batch_size)
        self.n_batches = -(-lane_length // seq_length)
        self._batch_edges = lane_length * np.arange(self.n_batches + 1) // self.n_batches
        self.seq_length = int(np.diff(self._batch_edges).max())

    def epoch(
        self, seed: Sequence[int], first_batch: int = 0, chosen: slice = slice(None)
    ) -> Iterator[Batch]:
        """Yield the batches of one epoch from ``first_batch`` on, or the chosen lanes of them.

        The order of the documents follows from ``seed``.
        """
        stream = ShuffledStream(self.corpus, seed)
        starts, lengths = self._edges[:-1], np.diff(self._edges)
        per_block = max(1, BYTES_READ_AT_ONCE // self.seq_length)
        for block in range(first_batch, self.n_batches, per_block):
            edges = self._batch_edges[block : block + per_block + 1]
            # From the byte before the first target to the last.
            symbols, resets = stream.read(
                starts[chosen] + edges[0] - 1, edges[-1] - edges[0] + 1, self.persist_state
            )
            for start, stop in pairwise(edges):
                now = slice(start - edges[0], stop - edges[0])
                inputs = _time_major(symbols[:, :-1][:, now]).long()
                targets = _time_major(symbols[:, 1:][:, now]).long()
                keep = _time_major(~resets[:, :-1][:, now]).float()
                if start == 0 and self.persist_state != "always":
                    keep[0] = 0
                is_short = torch.from_numpy(lengths[chosen] < stop)
                targets[-1, is_short] = NOT_A_TARGET
                n_short = int((lengths < stop).sum())
                yield Batch(inputs, targets, keep, targets.shape[0] * self.batch_size - n_short)


def _time_major(lanes: np.ndarray) -> Tensor:
    return torch.from_numpy(lanes.T.copy())
