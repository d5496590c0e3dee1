"""The operators ``skdiscovery::mlstm``, its backward, and ``skdiscovery::mlstm_packed``.

The loops of :mod:`skdiscovery.ops.reference` are the kernels on every device. Where a compiled
kernel registers itself for the CPU, torch's dispatcher prefers it, with no change here. The same
operators are there a second time as ``mlstm_torch`` and so on, which no compiled kernel registers
for: that is how the loops are called where others are loaded. And a third time as ``mlstm_cuda``,
by :mod:`skdiscovery.ops.cuda`, whose kernels work step by step.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from skdiscovery.ops import cuda, reference
from skdiscovery.ops.operands import check_batch_sizes, check_operand, check_operands


def mlstm(
    x: Tensor,
    mx: Tensor | None,
    symbols: Tensor | None,
    wh: Tensor,
    wmh: Tensor | None,
    h0: Tensor,
    c0: Tensor,
    keep: Tensor | None = None,
    *,
    backend: str = "auto",
) -> tuple[Tensor, Tensor, Tensor]:
    """Run a multiplicative LSTM over T steps of B sequences; differentiable.

    Parameters
    ----------
    x : Tensor of shape (n_symbols, 4H), or (T, B, 4H) without ``symbols``
        The gates' input side, bias included: a row per symbol, or per step and sequence.
    mx : Tensor of shape (n_symbols, H) or (T, B, H), or None
        The multiplicative state's input side. None, with ``wmh`` None, makes it an LSTM.
    symbols : int64 Tensor of shape (T, B), or None
        The input symbols, where ``x`` and ``mx`` are tables.
    wh : Tensor of shape (4H, H)
        Recurrent weights of the gates, in the order i, f, o, u.
    wmh : Tensor of shape (H, H), or None
        Recurrent weights of the multiplicative state.
    h0, c0 : Tensor of shape (B, H)
        State before the first step. ``c0`` may be float32 where the others are bfloat16.
    keep : Tensor of shape (T, B), or None
        What the state is multiplied by before a step: 0 resets it, 1 keeps it. No gradient.
    backend : str, default="auto"
        What :func:`skdiscovery.ops.resolve_backend` returns: "torch" takes the plain loops, "cuda"
        the kernels for CUDA; anything else those for the CPU, if they are loaded.

    Returns
    -------
    h, c : Tensor of shape (T, B, H)
        Hidden and cell state after each step.
    gates : Tensor of shape (T, B, 4H)
        The activated gates i, f, o, u of each step. No gradient.

    Raises
    ------
    ValueError
        If an operand has the wrong shape, dtype or device, or there is no step.
    """
    steps = (len(x if symbols is None else symbols), len(h0))
    check_operands(x, mx, symbols, wh, wmh, h0, c0, steps, n_sequences=len(h0))
    if keep is not None:
        check_operand("keep", keep, steps, keep.dtype, x.device)
    operator = _operator("mlstm", backend)
    h, c, gates, _ = operator(x, mx, symbols, wh, wmh, h0, c0, keep)
    return h, c, gates


def mlstm_packed(
    x: Tensor,
    mx: Tensor | None,
    symbols: Tensor | None,
    batch_sizes: Sequence[int],
    wh: Tensor,
    wmh: Tensor | None,
    h0: Tensor,
    c0: Tensor,
    *,
    backend: str = "auto",
) -> tuple[Tensor, Tensor]:
    """Run a multiplicative LSTM over sequences of unequal lengths; keeps nothing for a gradient.

    The sequences are packed as in :class:`torch.nn.utils.rnn.PackedSequence`: sorted by falling
    length, one step of all that are still running after the other, N rows in all. So no padding is
    ever computed.

    Parameters
    ----------
    x : Tensor of shape (n_symbols, 4H), or (N, 4H) without ``symbols``
        As in :func:`mlstm`.
    mx : Tensor of shape (n_symbols, H) or (N, H), or None
        As in :func:`mlstm`.
    symbols : int64 Tensor of shape (N,), or None
        As in :func:`mlstm`.
    batch_sizes : sequence of int
        How many sequences run at each step: falling, with sum N.
    wh, wmh, h0, c0, backend
        As in :func:`mlstm`.

    Returns
    -------
    h, c : Tensor of shape (N, H)
        Hidden and cell state after each step.

    Raises
    ------
    ValueError
        If an operand has the wrong shape, dtype or device, or the batch sizes are not falling.
    """
    sizes = check_batch_sizes(batch_sizes)
    check_operands(x, mx, symbols, wh, wmh, h0, c0, (sum(sizes),), n_sequences=sizes[0])
    operator = _operator("mlstm_packed", backend)
    return operator(x, mx, symbols, sizes, wh, wmh, h0, c0)


def _operator(name: str, backend: str) -> Any:
    return getattr(torch.ops.skdiscovery, name + _SUFFIXES.get(backend, ""))


_OPERANDS = "Tensor x, Tensor? mx, Tensor? symbols, Tensor wh, Tensor? wmh, Tensor h0, Tensor c0"
_SCHEMAS = {
    "mlstm": f"({_OPERANDS}, Tensor? keep) -> (Tensor h, Tensor c, Tensor gates, Tensor mh)",
    "mlstm_backward": f"(Tensor dh, Tensor? dc, {_OPERANDS}, Tensor? keep, Tensor h, Tensor c, "
    "Tensor gates, Tensor mh) -> (Tensor dx, Tensor dmx, Tensor dwh, Tensor dwmh, Tensor dh0, "
    "Tensor dc0)",
    "mlstm_packed": "(Tensor x, Tensor? mx, Tensor? symbols, int[] batch_sizes, Tensor wh, "
    "Tensor? wmh, Tensor h0, Tensor c0) -> (Tensor h, Tensor c)",
}
_SUFFIXES = {"torch": "_torch", "cuda": "_cuda"}


def _fake_mlstm(
    x: Tensor,
    mx: Tensor | None,
    symbols: Tensor | None,
    wh: Tensor,
    wmh: Tensor | None,
    h0: Tensor,
    c0: Tensor,
    keep: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    n_steps = (x if symbols is None else symbols).shape[0]
    h = h0.new_empty(n_steps, *h0.shape)
    gates = x.new_empty(*h.shape[:2], x.shape[-1])
    return h, c0.new_empty(h.shape), gates, h.new_empty(h.shape if wmh is not None else 0)


def _fake_backward(
    dh: Tensor,
    dc: Tensor | None,
    x: Tensor,
    mx: Tensor | None,
    symbols: Tensor | None,
    wh: Tensor,
    wmh: Tensor | None,
    h0: Tensor,
    c0: Tensor,
    *saved: Tensor,
) -> tuple[Tensor, ...]:
    mh = saved[-1]
    shapes = ((x, x), (mh, mh if mx is None else mx), (wh, wh), (mh, mh if wmh is None else wmh))
    gradients = tuple(like.new_empty(shaped.shape) for like, shaped in shapes)
    return (*gradients, h0.new_empty(h0.shape), c0.new_empty(c0.shape))


def _fake_packed(
    x: Tensor,
    mx: Tensor | None,
    symbols: Tensor | None,
    batch_sizes: Sequence[int],
    wh: Tensor,
    wmh: Tensor | None,
    h0: Tensor,
    c0: Tensor,
) -> tuple[Tensor, Tensor]:
    n_rows, hidden = (x if symbols is None else symbols).shape[0], h0.shape[1]
    return h0.new_empty(n_rows, hidden), c0.new_empty(n_rows, hidden)


_FAKES: dict[str, Callable[..., Any]] = {
    "mlstm": _fake_mlstm,
    "mlstm_backward": _fake_backward,
    "mlstm_packed": _fake_packed,
}


def _save_for_backward(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    *_, gates, mh = output
    ctx.mark_non_differentiable(gates, mh)
    ctx.set_materialize_grads(False)  # those of gates and mh would be large, zero, and unused
    ctx.save_for_backward(*inputs, *output)


def _differentiate(backend: str) -> Callable[..., Any]:
    """Return the backward pass of ``mlstm`` for autograd."""

    def differentiate(
        ctx: Any, dh: Tensor | None, dc: Tensor | None, *_: Any
    ) -> tuple[Tensor | None, ...]:
        saved = ctx.saved_tensors
        dh = torch.zeros_like(saved[-4]) if dh is None else dh
        with torch.autocast(dh.device.type, enabled=False):
            dx, dmx, dwh, dwmh, dh0, dc0 = _operator("mlstm_backward", backend)(dh, dc, *saved)
        if saved[1] is None:  # the LSTM, without mx and wmh
            return dx, None, None, dwh, None, dh0, dc0, None
        return dx, dmx, None, dwh, dwmh, dh0, dc0, None

    return differentiate


def _refuse(ctx: Any, *gradients: Any) -> None:
    raise NotImplementedError(
        "A double backward through the mLSTM is not supported: its gradients have no gradient. "
        "Leave out create_graph=True."
    )


for _backend, _loops in (("auto", reference), ("torch", reference), ("cuda", cuda)):
    _implementations: dict[str, Callable[..., Any]] = {
        "mlstm": _loops.forward,
        "mlstm_backward": _loops.backward,
        "mlstm_packed": torch.no_grad()(_loops.packed_forward),
    }
    for _name, _schema in _SCHEMAS.items():
        _qualified = "skdiscovery::" + _name + _SUFFIXES.get(_backend, "")
        torch.library.define(_qualified, _schema)
        torch.library.impl(_qualified, "default", _implementations[_name])
        torch.library.register_fake(_qualified, _FAKES[_name])
        if _name == "mlstm":
            torch.library.register_autograd(
                _qualified, _differentiate(_backend), setup_context=_save_for_backward
            )
        elif _name == "mlstm_backward":
            torch.library.register_autograd(_qualified, _refuse)
