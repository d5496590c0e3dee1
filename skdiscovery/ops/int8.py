"""The operator ``skdiscovery::mlstm_packed_int8``: reading with weights in eight bits, on the CPU.

Each row of a recurrent matrix, and at each step each row of the state that meets it, is rounded to
integers from -127 to 127 and a scale. Their products are exact in int32, and nearly so in
float32, which takes its place where the processor has no instruction for them; the gates and the
cell state stay float32. With AVX2 and without VNNI the compiled kernel rounds most rows of a matrix
further, since its sums would else have no room (csrc/int8_products.h).
"""

from collections.abc import Sequence
from typing import NamedTuple, Self

import torch
from torch import Tensor

from skdiscovery.ops.operands import check_batch_sizes, check_operand, check_operands
from skdiscovery.ops.runtime import has_narrow_products

_ROWS_AT_ONCE = 256  # which stay in the cache: all at once take nine times as long


class Int8Matrix(NamedTuple):
    """A matrix of ``values`` (n, k), int8, times a scale per row: ``scales`` (n,), float32."""

    values: Tensor
    scales: Tensor

    @classmethod
    def of(cls, matrix: Tensor) -> Self:
        """Round a matrix; a row's largest number becomes 127."""
        matrix = matrix.detach()
        values = matrix.new_empty(matrix.shape, dtype=torch.int8)
        scales = matrix.new_empty(len(matrix), dtype=torch.float32)
        parts = (tensor.split(_ROWS_AT_ONCE) for tensor in (matrix, values, scales))
        for rows, integers, scale in zip(*parts, strict=True):
            scale.copy_(rows.abs().amax(dim=1)).div_(127)
            # A row of zeros has the scale zero, and zeros.
            integers.copy_((rows / scale[:, None]).nan_to_num_().round_().clamp_(-127, 127))
        return cls(values, scales)


def mlstm_packed_int8(
    x: Tensor,
    mx: Tensor | None,
    symbols: Tensor | None,
    batch_sizes: Sequence[int],
    wh: Int8Matrix,
    wmh: Int8Matrix | None,
    h0: Tensor,
    c0: Tensor,
    *,
    backend: str = "auto",
) -> tuple[Tensor, Tensor]:
    """Run a multiplicative LSTM over sequences of unequal lengths, its matrices in int8.

    Parameters
    ----------
    x, mx, symbols, batch_sizes, h0, c0, backend
        As in :func:`skdiscovery.ops.mlstm_packed`, in float32, on the CPU.
    wh : Int8Matrix of shape (4H, H)
        Recurrent weights of the gates.
    wmh : Int8Matrix of shape (H, H), or None
        Recurrent weights of the multiplicative state.

    Returns
    -------
    h, c : Tensor of shape (N, H), float32
        Hidden and cell state after each step.

    Raises
    ------
    ValueError
        If an operand has the wrong shape, dtype or device, or the batch sizes are not falling.
    """
    sizes = check_batch_sizes(batch_sizes)
    check_operand("x", x, x.shape, torch.float32, torch.device("cpu"))
    check_operands(
        x, mx, symbols, wh.values, None if wmh is None else wmh.values, h0, c0, (sum(sizes),),
        n_sequences=sizes[0], weight_dtype=torch.int8,
    )  # fmt: skip
    for name, matrix in (("wh", wh), ("wmh", wmh)):
        if matrix is not None:
            n_rows = len(matrix.values)
            check_operand(f"scales of {name}", matrix.scales, (n_rows,), torch.float32, x.device)
    name = "mlstm_packed_int8_torch" if backend == "torch" else "mlstm_packed_int8"
    return getattr(torch.ops.skdiscovery, name)(
        x, mx, symbols, sizes, *wh, *(wmh or (None, None)), h0, c0
    )


@torch.no_grad()
@torch.autocast("cpu", enabled=False)
def _loop(
    x: Tensor,
    mx: Tensor | None,
    symbols: Tensor | None,
    batch_sizes: Sequence[int],
    wh: Tensor,
    wh_scales: Tensor,
    wmh: Tensor | None,
    wmh_scales: Tensor | None,
    h0: Tensor,
    c0: Tensor,
) -> tuple[Tensor, Tensor]:
    if not has_narrow_products():  # float32's sums are nearly as exact
        wh, wmh = wh.float(), None if wmh is None else wmh.float()
    hidden_states, cell_states = [], []
    h, c, start = h0, c0, 0
    for n in batch_sizes:
        now = slice(start, start + n)
        rows = now if symbols is None else symbols[now]
        m, c = h[:n], c[:n]
        if mx is not None and wmh is not None and wmh_scales is not None:
            m = mx[rows] * _multiply(m, wmh, wmh_scales)
        i, f, o, u = (x[rows] + _multiply(m, wh, wh_scales)).chunk(4, dim=1)
        c = f.sigmoid() * c + i.sigmoid() * u.tanh()
        h = o.sigmoid() * c.tanh()
        hidden_states.append(h)
        cell_states.append(c)
        start = now.stop
    return torch.cat(hidden_states), torch.cat(cell_states)


def _multiply(state: Tensor, values: Tensor, scales: Tensor) -> Tensor:
    rounded = Int8Matrix.of(state)
    if values.dtype == torch.int8:
        # torch misreads the transpose of a single column.
        columns = values.t() if values.shape[1] > 1 else values.view(1, -1)
        sums = torch._int_mm(rounded.values, columns)
    else:
        sums = rounded.values.float() @ values.t()
    return rounded.scales[:, None] * scales * sums


def _fake(x: Tensor, mx: Tensor | None, symbols: Tensor | None, *rest: Tensor) -> tuple:
    n_rows, (h0, c0) = (x if symbols is None else symbols).shape[0], rest[-2:]
    return h0.new_empty(n_rows, h0.shape[1]), c0.new_empty(n_rows, c0.shape[1])


for _name in ("skdiscovery::mlstm_packed_int8", "skdiscovery::mlstm_packed_int8_torch"):
    torch.library.define(
        _name,
        "(Tensor x, Tensor? mx, Tensor? symbols, int[] batch_sizes, Tensor wh, Tensor wh_scales, "
        "Tensor? wmh, Tensor? wmh_scales, Tensor h0, Tensor c0) -> (Tensor h, Tensor c)",
    )
    torch.library.impl(_name, "default", _loop)
    torch.library.register_fake(_name, _fake)
