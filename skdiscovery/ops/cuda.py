"""The mLSTM on a GPU: which steps to enqueue, and the CUDA graphs that make it cheap.

A step is two matrix products and two kernels (``csrc/mlstm_cuda.cu``), a few microseconds of the
GPU's time and more of the CPU's to enqueue them one by one. So a block of steps is captured once
as a CUDA graph, and then replayed: through a sequence, and through all later ones of that size. A
graph knows its arrays by address. What each step works in is therefore one set of buffers per
stream, and what belongs to a sequence is found through a struct in the GPU's memory.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import lru_cache
from itertools import pairwise
from threading import Lock
from typing import Literal

import torch
from torch import Tensor

from skdiscovery.ops import reference
from skdiscovery.ops.runtime import copied_to

Direction = Literal["forward", "backward"]
Block = tuple[int, int]
"""How many lanes are computed together, and for how many steps."""

Weights = tuple[Tensor, Tensor | None]
"""``wh`` and, for an mLSTM, ``wmh``."""

STEPS_PER_GRAPH = 16
"""A sequence's last few steps, fewer than this, are enqueued one by one."""

N_BUFFERS = 4
"""How many kinds of recurrence (device, stream, size, dtype, cell) keep their buffers."""

_SEQUENCE_BYTES = 256
"""Room for the struct of a sequence."""

_READ_AT_ONCE = 16
"""The most that kernels read at once, in bytes: kAtOnce in csrc/packs.h."""


def forward(
    x: Tensor,
    mx: Tensor | None,
    symbols: Tensor | None,
    wh: Tensor,
    wmh: Tensor | None,
    h0: Tensor,
    c0: Tensor,
    keep: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return what :func:`skdiscovery.ops.reference.forward` does."""
    n_steps, n_lanes = (x if symbols is None else symbols).shape[:2]
    h = h0.new_empty(n_steps, *h0.shape)
    gates = h0.new_empty(n_steps, n_lanes, x.shape[-1])
    mh = torch.empty_like(h) if wmh is not None else None
    sizes = [n_lanes] * n_steps
    c = _read(x, mx, symbols, wh, wmh, h0, c0, keep, sizes, _blocks(sizes), h, gates, mh)
    return h, c, gates, h.new_empty(0) if mh is None else mh


def packed_forward(
    x: Tensor,
    mx: Tensor | None,
    symbols: Tensor | None,
    batch_sizes: Sequence[int],
    wh: Tensor,
    wmh: Tensor | None,
    h0: Tensor,
    c0: Tensor,
) -> tuple[Tensor, Tensor]:
    """Return what :func:`skdiscovery.ops.reference.packed_forward` does."""
    h = h0.new_empty(sum(batch_sizes), h0.shape[1])
    # Rounded up, so that sequences which end one by one need few graphs.
    blocks = [(round_up(n_lanes), n_steps) for n_lanes, n_steps in _blocks(batch_sizes)]
    c = _read(x, mx, symbols, wh, wmh, h0, c0, None, batch_sizes, blocks, h, None, None)
    return h, c


def backward(
    dh: Tensor,
    dc: Tensor | None,
    x: Tensor,
    mx: Tensor | None,
    symbols: Tensor | None,
    wh: Tensor,
    wmh: Tensor | None,
    h0: Tensor,
    c0: Tensor,
    keep: Tensor | None,
    h: Tensor,
    c: Tensor,
    gates: Tensor,
    mh: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return what :func:`skdiscovery.ops.reference.backward` does."""
    multiplicative = wmh is not None
    n_steps, n_lanes = h.shape[:2]
    narrow, wide = x.dtype, _cell_dtype(x.dtype)
    dz, dmx, dmh = torch.empty_like(gates), torch.empty_like(mh), torch.empty_like(mh)
    read = (
        _ready(mx, narrow), _ready(symbols, torch.int64), _ready(keep, wide), _ready(c0, wide),
        _ready(c, wide), _ready(gates, narrow), _ready(mh, narrow) if multiplicative else None,
        _ready(dh, narrow), _ready(dc, wide),
    )  # fmt: skip
    written = (dz, dmx, dmh) if multiplicative else (dz, None, None)

    def begin(buffers: "_Buffers") -> None:
        torch.ops.skdiscovery.cuda_begin_backward(buffers.sequence, n_steps, *read, *written)

    with _buffers_for(h0, multiplicative) as buffers:
        buffers.run("backward", _blocks([n_lanes] * n_steps), begin, (wh, wmh), (None, None))
        dh0, dc0 = buffers.h[:n_lanes].clone(), buffers.c[:n_lanes].to(c0.dtype, copy=True)
    gradients = reference.parameter_gradients(
        dz, dmx, dmh, x, mx, symbols, wmh, h0, keep, h, mh, sum_rows=sum_rows
    )
    return *gradients, dh0, dc0


def sum_rows(rows: Tensor, symbols: Tensor, n_symbols: int) -> Tensor:
    """Sum the rows (T, B, width) of each symbol: a product, since a GPU's atomics have no order."""
    flat = symbols.flatten()
    one_hot = rows.new_zeros(len(flat), n_symbols).scatter_(1, flat[:, None], 1)
    return one_hot.t() @ rows.flatten(0, 1)


def _read(
    x: Tensor,
    mx: Tensor | None,
    symbols: Tensor | None,
    wh: Tensor,
    wmh: Tensor | None,
    h0: Tensor,
    c0: Tensor,
    keep: Tensor | None,
    batch_sizes: Sequence[int],
    blocks: list[Block],
    h: Tensor,
    gates: Tensor | None,
    mh: Tensor | None,
) -> Tensor:
    """Run forward into ``h``, ``gates`` and ``mh``; return ``c``, of the shape of ``h``."""
    wide = _cell_dtype(x.dtype)
    c = torch.empty_like(h, dtype=wide)
    offsets = _offsets(batch_sizes, h0.device)
    read = (
        _ready(x, x.dtype), _ready(mx, x.dtype), _ready(symbols, torch.int64), _ready(keep, wide),
    )  # fmt: skip

    def begin(buffers: "_Buffers") -> None:
        torch.ops.skdiscovery.cuda_begin_forward(buffers.sequence, offsets, *read, h, c, gates, mh)

    with _buffers_for(h0, wmh is not None) as buffers:
        buffers.run("forward", blocks, begin, (wh, wmh), (h0, c0))
    return c.to(c0.dtype)


def _offsets(batch_sizes: Sequence[int], device: torch.device) -> Tensor:
    """Return at which row each step begins, and the last one ends."""
    if batch_sizes[0] == batch_sizes[-1]:  # all the same, as they never grow: nothing to copy
        return torch.arange(len(batch_sizes) + 1, device=device) * batch_sizes[0]
    return copied_to(torch.tensor([0, *batch_sizes], device="cpu").cumsum(0), device)


def _blocks(batch_sizes: Sequence[int]) -> list[Block]:
    """Cut the steps into blocks. Lanes that end within one are computed on, and write nothing."""
    firsts = range(0, len(batch_sizes), STEPS_PER_GRAPH)
    edges = pairwise([*firsts, len(batch_sizes)])
    return [(batch_sizes[first], stop - first) for first, stop in edges]


def round_up(n: int) -> int:
    """Return the next number of three binary digits and zeros: at most a quarter more."""
    unit = 1 << max(0, n.bit_length() - 3)
    return -(-n // unit) * unit


class _Buffers:
    """What the steps of one kind of recurrence work in, and the graphs captured over it."""

    @torch.inference_mode(False)  # or they could not be written to outside of it
    def __init__(self, like: Tensor, multiplicative: bool):
        hidden = like.shape[1]
        self.lock = Lock()
        self.graphs: dict[tuple[Direction, int], torch.cuda.CUDAGraph] = {}
        self.sequence = like.new_empty(_SEQUENCE_BYTES, dtype=torch.uint8)
        self.wh = like.new_empty(4 * hidden, hidden)
        self.wmh = like.new_empty(hidden, hidden) if multiplicative else None
        self._allocate(0, like)

    @torch.inference_mode(False)
    def _allocate(self, n_lanes: int, like: Tensor) -> None:
        """Make room for so many lanes. What was captured has lost its buffers."""
        self.graphs.clear()
        hidden = self.wh.shape[1]
        # Its length is for how many lanes there is room, which may be none: memory may run out.
        self.h = like.new_empty(0, hidden)
        self.m = like.new_zeros(n_lanes, hidden)
        self.c = torch.zeros_like(self.m, dtype=_cell_dtype(like.dtype))
        self.z = like.new_zeros(n_lanes, 4 * hidden)
        self.h = torch.zeros_like(self.m)

    def run(
        self,
        direction: Direction,
        blocks: list[Block],
        begin: Callable[["_Buffers"], None],
        weights: Weights,
        state: tuple[Tensor | None, Tensor | None],
    ) -> None:
        """Run all blocks from a state, or from zero; leave the last one in ours.

        ``begin`` tells the kernels of the sequence.
        """
        most_lanes = blocks[0][0]
        if most_lanes > len(self.h):
            # To the next power of two: batches come with ever more lanes, as the longest texts come
            # first, and all graphs are lost each time.
            self._allocate(1 << (most_lanes - 1).bit_length(), self.h)
        replayed = [n_lanes for n_lanes, n_steps in blocks if n_steps == STEPS_PER_GRAPH]
        if most_lanes == 0 or not _can_capture(self.h):
            replayed = []
        if replayed:
            weights = self._take_in(weights)
        for n_lanes in replayed:
            if (direction, n_lanes) not in self.graphs:
                begin(self)  # a capture takes steps, too
                self.graphs[direction, n_lanes] = self._capture(direction, n_lanes)
        begin(self)
        for buffer, value in zip((self.h, self.c), state, strict=True):
            if value is None:
                buffer.zero_()
            else:
                buffer[: len(value)].copy_(value)
        for n_lanes, n_steps in blocks:
            if replayed and n_steps == STEPS_PER_GRAPH:
                self.graphs[direction, n_lanes].replay()
            else:
                self._enqueue(direction, n_lanes, n_steps, weights)

    def _take_in(self, weights: Weights) -> Weights:
        """Copy weights to where graphs find them."""
        wh, wmh = weights
        self.wh.copy_(wh)
        if self.wmh is not None and wmh is not None:
            self.wmh.copy_(wmh)
        return self.wh, self.wmh

    def _enqueue(
        self,
        direction: Direction,
        n_lanes: int,
        n_steps: int,
        weights: Weights,
    ) -> None:
        working = [buffer[:n_lanes] for buffer in (self.h, self.c, self.m, self.z)]
        wh, wmh = weights
        if direction == "forward":
            wh, wmh = wh.t(), None if wmh is None else wmh.t()
            torch.ops.skdiscovery.cuda_step_forward(self.sequence, *working, wh, wmh, n_steps)
        else:
            torch.ops.skdiscovery.cuda_step_backward(self.sequence, *working, wh, wmh, n_steps)

    def _capture(self, direction: Direction, n_lanes: int) -> torch.cuda.CUDAGraph:
        weights = self.wh, self.wmh
        # A run for real, which gives cuBLAS its handle and its kernels.
        self._enqueue(direction, n_lanes, STEPS_PER_GRAPH, weights)
        graph = torch.cuda.CUDAGraph()
        pool = next((other.pool() for other in self.graphs.values()), None)
        # Torch gives cuBLAS a workspace per stream, and has few streams: one that an older graph
        # uses would end with that graph. Forgotten before, it is made in this graph's memory, and
        # forgotten after, no later one gets it.
        torch._C._cuda_clearCublasWorkspaces()
        with torch.cuda.stream(torch.cuda.Stream()):
            graph.capture_begin(pool=pool, capture_error_mode="thread_local")
            try:
                self._enqueue(direction, n_lanes, STEPS_PER_GRAPH, weights)
            finally:
                graph.capture_end()
        torch._C._cuda_clearCublasWorkspaces()
        return graph


def _can_capture(like: Tensor) -> bool:
    """Return whether graphs can be captured where a tensor is, as within another they cannot."""
    return like.is_cuda and not torch.cuda.is_current_stream_capturing()


@contextmanager
def _buffers_for(like: Tensor, multiplicative: bool) -> Iterator[_Buffers]:
    """Give the buffers for states such as ``like`` to this thread alone.

    Those of a stream serve one sequence after the other, in the stream's order. Where the caller
    captures a graph of its own, the buffers are new, and belong to that graph.
    """
    with torch.cuda.device(like.device) if like.is_cuda else nullcontext():
        if like.is_cuda and not _can_capture(like):
            buffers = _Buffers(like, multiplicative)
        else:
            stream = torch.cuda.current_stream().cuda_stream if like.is_cuda else 0
            buffers = _kept_buffers(like.device, stream, like.shape[1], like.dtype, multiplicative)
        with buffers.lock:
            yield buffers


@lru_cache(maxsize=N_BUFFERS)
def _kept_buffers(
    device: torch.device, stream: int, hidden: int, dtype: torch.dtype, multiplicative: bool
) -> _Buffers:
    return _Buffers(torch.empty(0, hidden, device=device, dtype=dtype), multiplicative)


def _cell_dtype(dtype: torch.dtype) -> torch.dtype:
    """Return what kernels compute with and keep cell states in, for stored numbers of a dtype."""
    return torch.promote_types(dtype, torch.float32)


def _ready(tensor: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    """Return a tensor as a kernel reads it: contiguous, of that dtype, and many bytes at once."""
    if tensor is None:
        return None
    ready = tensor.to(dtype).contiguous()
    return ready if ready.data_ptr() % _READ_AT_ONCE == 0 else ready.clone()


_SEQUENCE = "Tensor(a!) sequence"
_WORKING = "Tensor(b!) h, Tensor(c!) c, Tensor(d!) m, Tensor(e!) z"
for _name, _schema in {
    "cuda_begin_forward": f"({_SEQUENCE}, Tensor offsets, Tensor x, Tensor? mx, Tensor? symbols, "
    "Tensor? keep, Tensor(b!) h, Tensor(c!) c, Tensor(d!)? gates, Tensor(e!)? mh) -> ()",
    "cuda_step_forward": f"({_SEQUENCE}, {_WORKING}, Tensor wh_t, Tensor? wmh_t, int n_steps) "
    "-> ()",
    "cuda_begin_backward": f"({_SEQUENCE}, int n_steps, Tensor? mx, Tensor? symbols, Tensor? keep, "
    "Tensor c0, Tensor c, Tensor gates, Tensor? mh, Tensor dh, Tensor? dc, Tensor(b!) dz, "
    "Tensor(c!)? dmx, Tensor(d!)? dmh) -> ()",
    "cuda_step_backward": f"({_SEQUENCE}, {_WORKING}, Tensor wh, Tensor? wmh, int n_steps) -> ()",
}.items():
    torch.library.define(f"skdiscovery::{_name}", _schema)
