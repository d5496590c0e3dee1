r"""The mLSTM in plain torch: the loops behind the operators, on every device and dtype.

One step, with the gates in the order i, f, o, u (Krause et al. 2016, arXiv:1609.07959, eqs. 18-22;
Radford et al. 2017, arXiv:1704.01444)::

    m  = (Wmx x) * (Wmh h)
    i, f, o, u = split(Wx x + Wh m + b)
    c' = sigmoid(f) * c + sigmoid(i) * tanh(u)
    h' = sigmoid(o) * tanh(c')

The input sides ``Wx x + b`` and ``Wmx x`` do not depend on the state, so they come ready made: a
row per step and sequence, or, where the input is one of a few symbols, a table with a row per
symbol and the symbols themselves. Without ``mx`` and ``wmh``, ``m`` is ``h``: that is the LSTM.

The loops work in place in buffers that all steps share: a step allocates nothing.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

_sigmoid_backward = torch.ops.aten.sigmoid_backward.grad_input
_tanh_backward = torch.ops.aten.tanh_backward.grad_input


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
    """Return ``h``, ``c``, and for :func:`backward` the gates and ``Wmh h``, of all steps.

    The arguments are those of :func:`skdiscovery.ops.mlstm`.
    """
    gates = x.clone(memory_format=torch.contiguous_format) if symbols is None else _rows(x, symbols)
    h = gates.new_empty(gates.shape[0], *h0.shape)
    c = c0.new_empty(gates.shape[0], *c0.shape)
    mh = torch.empty_like(h) if wmh is not None else h.new_empty(0)
    m, h_kept, c_kept = torch.empty_like(h0), torch.empty_like(h0), torch.empty_like(c0)
    mx = None if mx is None else _rows(mx, symbols)
    wh_t = wh.t()
    wmh_t = None if wmh is None else wmh.t()

    h_before, c_before = h0, c0
    for t in range(len(gates)):
        if keep is not None:
            h_before = torch.mul(h_before, keep[t, :, None], out=h_kept)
            c_before = torch.mul(c_before, keep[t, :, None], out=c_kept)
        if mx is None or wmh_t is None:
            m = h_before
        else:
            torch.mm(h_before, wmh_t, out=mh[t])
            torch.mul(mh[t], mx[t], out=m)
        gates[t].addmm_(m, wh_t)
        _update_state(gates[t], c_before, c[t], h[t])
        h_before, c_before = h[t], c[t]
    return h, c, gates, mh


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
    """Return the gradients of ``x``, ``mx``, ``wh``, ``wmh``, ``h0`` and ``c0``.

    The loop carries the gradient of the state back in time; the weights' gradients are one
    product each over all steps. For an LSTM those of ``mx`` and ``wmh`` are empty.
    """
    hidden = h.shape[-1]
    c_before = torch.cat([c0[None], c[:-1]])
    if keep is not None:
        c_before *= keep[:, :, None]
    mx_rows = None if mx is None else _rows(mx, symbols)
    dz, dm = torch.empty_like(gates), torch.empty_like(h0)
    dmx, dmh = torch.empty_like(mh), torch.empty_like(mh)
    dh_carried, dc_carried = h0.new_zeros(h0.shape), c0.new_zeros(c0.shape)
    tanh_c, through_tanh = torch.empty_like(c0), torch.empty_like(c0)

    for t in reversed(range(len(gates))):
        i, f, o, u = gates[t].split(hidden, dim=1)
        dz_i, dz_f, dz_o, dz_u = dz[t].split(hidden, dim=1)
        dh_carried += dh[t]
        if dc is not None:
            dc_carried += dc[t]
        torch.tanh(c[t], out=tanh_c)
        torch.mul(dh_carried, tanh_c, out=dz_o)
        torch.mul(dh_carried, o, out=through_tanh)
        dc_carried += _tanh_backward(through_tanh, tanh_c, grad_input=through_tanh)
        torch.mul(dc_carried, u, out=dz_i)
        torch.mul(dc_carried, c_before[t], out=dz_f)
        torch.mul(dc_carried, i, out=dz_u)
        dc_carried *= f
        dz_ifo, ifo = dz[t, :, : 3 * hidden], gates[t, :, : 3 * hidden]
        _sigmoid_backward(dz_ifo, ifo, grad_input=dz_ifo)
        _tanh_backward(dz_u, u, grad_input=dz_u)
        if keep is not None:
            dc_carried *= keep[t, :, None]
        if mx_rows is None or wmh is None:
            torch.mm(dz[t], wh, out=dh_carried)
            if keep is not None:
                dh_carried *= keep[t, :, None]
        else:
            torch.mm(dz[t], wh, out=dm)
            torch.mul(dm, mh[t], out=dmx[t])
            torch.mul(dm, mx_rows[t], out=dmh[t])
            if keep is not None:
                dmh[t] *= keep[t, :, None]
            torch.mm(dmh[t], wmh, out=dh_carried)

    gradients = parameter_gradients(dz, dmx, dmh, x, mx, symbols, wmh, h0, keep, h, mh)
    return *gradients, dh_carried, dc_carried


def _sum_rows(rows: Tensor, symbols: Tensor, n_symbols: int) -> Tensor:
    """Reverse :func:`_rows`: sum the gradients of all look-ups of a symbol."""
    # On the CPU in the dtype of the rows: bfloat16 sums would stop growing.
    wide = rows.to(torch.promote_types(rows.dtype, torch.float32))
    sums = torch.ops.aten.embedding_dense_backward(wide, symbols, n_symbols, -1, False)
    return sums.to(rows.dtype)


def parameter_gradients(
    dz: Tensor,
    dmx: Tensor,
    dmh: Tensor,
    x: Tensor,
    mx: Tensor | None,
    symbols: Tensor | None,
    wmh: Tensor | None,
    h0: Tensor,
    keep: Tensor | None,
    h: Tensor,
    mh: Tensor,
    *,
    sum_rows: Callable[[Tensor, Tensor, int], Tensor] = _sum_rows,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the gradients of ``x``, ``mx``, ``wh`` and ``wmh``, each one product over all steps.

    ``dz``, ``dmx`` and ``dmh`` are those of the gates before activation, of the rows of ``mx``, and
    of ``Wmh h``, with ``h`` as it is before ``keep`` resets it. ``sum_rows`` takes rows (T, B,
    width), their symbols, and the number of symbols.
    """
    h_before = torch.cat([h0[None], h[:-1]])
    if mx is None or wmh is None:
        m, dwmh = h_before, dmh
        if keep is not None:
            m *= keep[:, :, None]
    else:
        m = _rows(mx, symbols) * mh
        dwmh = dmh.flatten(0, 1).t() @ h_before.flatten(0, 1)
    dwh = dz.flatten(0, 1).t() @ m.flatten(0, 1)
    if symbols is None:
        return dz, dmx, dwh, dwmh
    dmx = dmx if mx is None else sum_rows(dmx, symbols, len(mx))
    return sum_rows(dz, symbols, len(x)), dmx, dwh, dwmh


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
    """Return ``h`` and ``c`` of all steps of a packed batch; nothing is kept for a gradient.

    The arguments are those of :func:`skdiscovery.ops.mlstm_packed`.
    """
    n_rows = sum(batch_sizes)
    h, c = h0.new_empty(n_rows, h0.shape[1]), c0.new_empty(n_rows, c0.shape[1])
    gates_buffer, m_buffer = x.new_empty(len(h0), x.shape[-1]), torch.empty_like(h0)
    mx_buffer = torch.empty_like(h0)
    wh_t = wh.t()
    wmh_t = None if wmh is None else wmh.t()

    h_before, c_before, start = h0, c0, 0
    for n in batch_sizes:
        now = slice(start, start + n)
        gates, m = gates_buffer[:n], m_buffer[:n]
        _copy_rows(x, symbols, now, gates)
        if mx is None or wmh_t is None:
            m = h_before[:n]
        else:
            _copy_rows(mx, symbols, now, mx_buffer[:n])
            torch.mm(h_before[:n], wmh_t, out=m).mul_(mx_buffer[:n])
        gates.addmm_(m, wh_t)
        _update_state(gates, c_before[:n], c[now], h[now])
        h_before, c_before, start = h[now], c[now], now.stop
    return h, c


def _update_state(z: Tensor, c_before: Tensor, c: Tensor, h: Tensor) -> None:
    """Turn pre-activations ``z`` (B, 4H) into gates in place, and write the next state."""
    hidden = c.shape[1]
    z[:, : 3 * hidden].sigmoid_()
    z[:, 3 * hidden :].tanh_()
    i, f, o, u = z.split(hidden, dim=1)
    torch.mul(f, c_before, out=c).addcmul_(i, u)
    torch.tanh(c, out=h).mul_(o)


def _rows(table: Tensor, symbols: Tensor | None) -> Tensor:
    """Look the symbols up in a table; rows that are already one per step stay as they are."""
    return table if symbols is None else torch.nn.functional.embedding(symbols, table)


def _copy_rows(table: Tensor, symbols: Tensor | None, now: slice, out: Tensor) -> None:
    if symbols is None:
        out.copy_(table[now])
    else:
        torch.index_select(table, 0, symbols[now], out=out)
