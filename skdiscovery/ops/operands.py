"""Whether the operands of the mLSTM fit together: kernels trust the shapes that they are given."""

from collections.abc import Sequence

import torch
from torch import Tensor


def check_operands(
    x: Tensor,
    mx: Tensor | None,
    symbols: Tensor | None,
    wh: Tensor,
    wmh: Tensor | None,
    h0: Tensor,
    c0: Tensor,
    steps: Sequence[int],
    n_sequences: int,
    weight_dtype: torch.dtype | None = None,
) -> None:
    """Check the operands of :func:`skdiscovery.ops.mlstm`, or of its packed form.

    Parameters
    ----------
    x, mx, symbols, wh, wmh, h0, c0
        As in :func:`skdiscovery.ops.mlstm`.
    steps : sequence of int
        The first dimensions of what there is one of per step and sequence.
    n_sequences : int
        How many sequences there are.
    weight_dtype : torch.dtype, default=None
        What ``wh`` and ``wmh`` are to be; None is as ``x``.

    Raises
    ------
    ValueError
        If one does not fit; the message names it.
    """
    if steps[0] == 0:
        raise ValueError("Expected one step or more, got none.")
    if (mx is None) != (wmh is None):
        given, missing = ("wmh", "mx") if mx is None else ("mx", "wmh")
        raise ValueError(f"Expected both mx and wmh or neither, got {given} without {missing}.")
    hidden = wh.shape[-1]
    if hidden == 0:
        raise ValueError(f"Expected one unit or more, got none in wh of shape {tuple(wh.shape)}.")
    rows = steps if symbols is None else x.shape[:1]
    dtype, device = x.dtype, x.device
    weight_dtype = weight_dtype or dtype
    check_operand("wh", wh, (4 * hidden, hidden), weight_dtype, device)
    check_operand("x", x, (*rows, 4 * hidden), dtype, device)
    if mx is not None and wmh is not None:
        check_operand("mx", mx, (*rows, hidden), dtype, device)
        check_operand("wmh", wmh, (hidden, hidden), weight_dtype, device)
    if symbols is not None:
        check_operand("symbols", symbols, steps, torch.int64, device)
    check_operand("h0", h0, (n_sequences, hidden), dtype, device)
    wider = torch.promote_types(dtype, torch.float32)  # the cell state may be so beside bfloat16
    c0_dtype = wider if c0.dtype == wider else dtype
    check_operand("c0", c0, (n_sequences, hidden), c0_dtype, device)


def check_batch_sizes(batch_sizes: Sequence[int]) -> list[int]:
    """Return the batch sizes of a packed batch as a list, or raise a ValueError."""
    sizes = list(batch_sizes)
    if sizes != sorted(sizes, reverse=True) or min(sizes, default=0) < 1:
        raise ValueError(f"Expected batch_sizes to be positive and falling, got {sizes}.")
    return sizes


def check_operand(
    name: str, operand: Tensor, shape: Sequence[int], dtype: torch.dtype, device: torch.device
) -> None:
    """Raise a ValueError if an operand has another shape, dtype or device than the ones given."""
    if operand.shape != torch.Size(shape):
        raise ValueError(f"Expected {name} of shape {tuple(shape)}, got {tuple(operand.shape)}.")
    if operand.dtype != dtype:
        raise ValueError(f"Expected {name} of dtype {dtype}, got {operand.dtype}.")
    if operand.device != device:
        raise ValueError(f"Expected {name} on device {device}, got {operand.device}.")
