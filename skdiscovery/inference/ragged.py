"""Documents of unequal length, read side by side without computing any padding.

Documents are sorted by falling length and read in chunks of steps. At each step those that are
still running are the first ones, so the batch shrinks as documents end, and the state carried into
the next chunk is the first rows of the last step's.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import torch
from torch import Tensor

from skdiscovery.nn import ByteLanguageModel, State
from skdiscovery.ops import own_arithmetic
from skdiscovery.ops.runtime import copied_to
from skdiscovery.text.corpus import document_offsets

BATCH_BYTES = {"cpu": 2**18, "cuda": 2**20}
"""Text read side by side: enough documents for efficient products, of like lengths."""

MAX_DOCUMENTS = {"cpu": 512, "cuda": 8192}
"""Most documents side by side, however short: more are no faster, and each has states and gates."""

MAX_STATE_BYTES = {"cpu": 2**24, "cuda": 2**30}
"""Memory for the cell states of one layer in a chunk: it decides how many steps there are.

A chunk's states go through the caches of a CPU; on a GPU, each chunk takes in the weights anew.
"""

LEAST_STEPS = {"cpu": 16, "cuda": 1}
"""Steps that a chunk has in any case: on a CPU, the weights are packed anew for each."""


@dataclass(frozen=True)
class Chunk:
    """Consecutive steps of a batch of documents.

    ``batch_sizes[k]`` documents run at step ``first_step + k``, the longest first; the N rows of
    ``symbols`` (N,), ``top`` (N, H) and of each layer's hidden and cell state (N, H) in ``traces``
    are step after step, those documents in order.
    """

    first_step: int
    batch_sizes: Sequence[int]
    symbols: Tensor
    top: Tensor
    traces: list[State]

    def places(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the rank in the batch of each row's document, and each row's step; both (N,)."""
        sizes = np.array(self.batch_sizes)
        starts = np.repeat(np.cumsum(sizes) - sizes, sizes)
        steps = np.repeat(np.arange(len(sizes)), sizes)
        return np.arange(len(starts)) - starts, self.first_step + steps

    def blocks(self, rows: Tensor) -> Iterator[Tensor]:
        """Yield ``rows`` (N, width) as views (n_steps, n_documents, width) of equal batch size."""
        start = 0
        for n_documents, steps in groupby(self.batch_sizes):
            n_steps = len(list(steps))
            stop = start + n_steps * n_documents
            yield rows[start:stop].view(n_steps, n_documents, -1)
            start = stop


def length_sorted_batches(
    lengths: Sequence[int], device: torch.device, batch_bytes: int | None = None
) -> Iterator[np.ndarray]:
    """Yield the indices of all documents, longest first, in batches of about ``batch_bytes``.

    None is what suits the device. A batch has no more documents than suit it, either.
    """
    most = _what_suits(device, MAX_DOCUMENTS)
    if batch_bytes is None:
        batch_bytes = _what_suits(device, BATCH_BYTES)
    order = np.argsort(lengths, kind="stable")[::-1]
    batch_of = (np.cumsum(np.asarray(lengths)[order]) - 1) // batch_bytes
    edges = np.flatnonzero(np.diff(batch_of)) + 1
    for batch in np.split(order, edges):
        yield from (batch[start : start + most] for start in range(0, len(batch), most))


@torch.no_grad()
def read(
    model: ByteLanguageModel,
    documents: Sequence[bytes],
    dtype: torch.dtype,
    *,
    max_state_bytes: int | None = None,
) -> Iterator[Chunk]:
    """Read documents, sorted by falling length, from the zero state; yield what the model sees."""
    lengths = np.array([len(document) for document in documents], dtype=np.int64)
    data = np.frombuffer(b"".join(documents), dtype=np.uint8)
    offsets = document_offsets(lengths)[:-1]
    n_steps = int(lengths.max(initial=0))
    device = model.embedding.device
    states = model.zero_state(len(documents), dtype)
    row_bytes = model.architecture.hidden_size * states[0][1].element_size()
    if max_state_bytes is None:
        of_least_steps = _what_suits(device, LEAST_STEPS) * row_bytes * len(documents)
        max_state_bytes = max(_what_suits(device, MAX_STATE_BYTES), of_least_steps)
    model.eval()
    start, n_running = 0, len(documents)
    while start < n_steps:
        stop = min(n_steps, start + max(1, max_state_bytes // (row_bytes * n_running)))
        # Those documents run at a step that are longer than it.
        running = np.searchsorted(-lengths, -np.arange(start, stop), side="left")
        n_running, batch_sizes = int(running[0]), running.tolist()
        mask = np.arange(n_running) < running[:, None]
        positions = (offsets[:n_running] + np.arange(start, stop)[:, None])[mask]
        symbols = copied_to(torch.from_numpy(data[positions]), device).to(torch.int64)
        states = [(h[:n_running], c[:n_running]) for h, c in states]
        with own_arithmetic(device):
            top, traces = model.forward_packed(symbols, batch_sizes, states)
        yield Chunk(start, batch_sizes, symbols, top, traces)
        last = slice(-batch_sizes[-1], None)
        states = [(h[last], c[last]) for h, c in traces]
        start = stop


def _what_suits(device: torch.device, limits: dict[str, int]) -> int:
    return limits.get(device.type, limits["cpu"])
