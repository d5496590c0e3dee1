"""The operators ``skdiscovery::mlstm``, its backward, and ``skdiscovery::mlstm_packed``.

The loops of :mod:`skdiscovery.ops.reference` are the kernels on every device. Where a compiled
kernel registers itself for a device, torch's dispatcher prefers it, with no change here.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from skdiscovery.ops import reference


def mlstm(
    x: Tensor,
    mx: Tensor | None,
    symbols: Tensor | None,
    wh: Tensor,
    wmh: Tensor | None,
    h0: Tensor,
    c0: Tensor,
    keep: Tensor | None = None,
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

    Returns
    -------
    h, c : Tensor of shape (T, B, H)
        Hidden and cell state after each step.
    gates : Tensor of shape (T, B, 4H)
        The activated gates i, f, o, u of each step. No gradient.
    """
    h, c, gates, _ = torch.ops.skdiscovery.mlstm(x, mx, symbols, wh, wmh, h0, c0, keep)
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
    wh, wmh, h0, c0
        As in :func:`mlstm`.

    Returns
    -------
    h, c : Tensor of shape (N, H)
        Hidden and cell state after each step.
    """
    return torch.ops.skdiscovery.mlstm_packed(x, mx, symbols, batch_sizes, wh, wmh, h0, c0)


_OPERANDS = "Tensor x, Tensor? mx, Tensor? symbols, Tensor wh, Tensor? wmh, Tensor h0, Tensor c0"

torch.library.define(
    "skdiscovery::mlstm",
    f"({_OPERANDS}, Tensor? keep) -> (Tensor h, Tensor c, Tensor gates, Tensor mh)",
)
torch.library.define(
    "skdiscovery::mlstm_backward",
    f"(Tensor dh, Tensor dc, {_OPERANDS}, Tensor? keep, Tensor h, Tensor c, Tensor gates, "
    "Tensor mh) -> (Tensor dx, Tensor dmx, Tensor dwh, Tensor dwmh, Tensor dh0, Tensor dc0)",
)
torch.library.define(
    "skdiscovery::mlstm_packed",
    "(Tensor x, Tensor? mx, Tensor? symbols, int[] batch_sizes, Tensor wh, Tensor? wmh, Tensor h0,"
    " Tensor c0) -> (Tensor h, Tensor c)",
)
torch.library.impl("skdiscovery::mlstm", "default", reference.forward)
torch.library.impl("skdiscovery::mlstm_backward", "default", reference.backward)
torch.library.impl(
    "skdiscovery::mlstm_packed", "default", torch.no_grad()(reference.packed_forward)
)


@torch.library.register_fake("skdiscovery::mlstm")
def _(
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


@torch.library.register_fake("skdiscovery::mlstm_backward")
def _(
    dh: Tensor,
    dc: Tensor,
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


@torch.library.register_fake("skdiscovery::mlstm_packed")
def _(
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


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    *_, gates, mh = output
    ctx.mark_non_differentiable(gates, mh)
    ctx.save_for_backward(*inputs, *output)


def _differentiate(ctx: Any, dh: Tensor, dc: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
    saved = ctx.saved_tensors
    dx, dmx, dwh, dwmh, dh0, dc0 = torch.ops.skdiscovery.mlstm_backward(dh, dc, *saved)
    if saved[1] is None:  # the LSTM, without mx and wmh
        return dx, None, None, dwh, None, dh0, dc0, None
    return dx, dmx, None, dwh, dwmh, dh0, dc0, None


torch.library.register_autograd("skdiscovery::mlstm", _differentiate, setup_context=_setup_context)
