import os

import numpy as np
import pytest
import torch
from scipy.special import expit

from skdiscovery import ops
from skdiscovery.ops import Int8Matrix
from skdiscovery.ops.runtime import BACKEND_VARIABLE

N_SYMBOLS = 7


@pytest.fixture(scope="module", params=["torch", "cpp"])
def backend(request):
    if request.param == "cpp" and os.environ.get(BACKEND_VARIABLE) == "torch":
        pytest.skip(f"{BACKEND_VARIABLE} forbids the compiled kernels")
    return ops.resolve_backend(request.param)


def operands(batch_sizes, hidden, *, cell="mlstm", form="symbols", seed=0):
    """Return the arguments of ``ops.mlstm_packed``."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(shape, generator=generator)

    n_rows = N_SYMBOLS if form == "symbols" else sum(batch_sizes)
    symbols = torch.randint(N_SYMBOLS, (sum(batch_sizes),), generator=generator)
    multiplicative = cell == "mlstm"
    return (
        normal(n_rows, 4 * hidden),
        normal(n_rows, hidden) if multiplicative else None,
        symbols if form == "symbols" else None,
        batch_sizes,
        normal(4 * hidden, hidden) / hidden**0.5,
        normal(hidden, hidden) / hidden**0.5 if multiplicative else None,
        normal(batch_sizes[0], hidden),
        normal(batch_sizes[0], hidden),
    )


def rounded(x, mx, symbols, batch_sizes, wh, wmh, h0, c0, rounding=Int8Matrix.of):
    """Return the same operands with the matrices in int8."""
    wmh = None if wmh is None else rounding(wmh)
    return x, mx, symbols, batch_sizes, rounding(wh), wmh, h0, c0


def narrow(matrix):
    """Round a matrix to integers up to 32: any processor has room for the sums of these."""
    values, scales = Int8Matrix.of(matrix)
    return Int8Matrix((values / 4).round().to(torch.int8), scales * 4)


def numpy_int8(x, mx, symbols, batch_sizes, wh, wmh, h0, c0):
    """Return h and c: float64, but for the states that meet a matrix, which are rounded."""

    def multiply(rows, matrix):
        largest = np.abs(rows).max(axis=1, keepdims=True)
        whole = np.rint(rows * np.divide(127, largest, where=largest > 0, out=largest * 0))
        return largest / 127 * (whole @ matrix.values.double().numpy().T) * matrix.scales.numpy()

    x, h, c = (tensor.double().numpy() for tensor in (x, h0, c0))
    result, start = [], 0
    for n in batch_sizes:
        rows = np.arange(start, start + n)
        rows = rows if symbols is None else symbols.numpy()[rows]
        m = h[:n] if wmh is None else mx.double().numpy()[rows] * multiply(h[:n], wmh)
        i, f, o, u = np.split(x[rows] + multiply(m, wh), 4, axis=1)
        c = expit(f) * c[:n] + expit(i) * np.tanh(u)
        h = expit(o) * np.tanh(c)
        result.append((h, c))
        start += n
    return [np.concatenate(states) for states in zip(*result, strict=True)]


def relative_error(value, expected):
    value, expected = (torch.as_tensor(v).double() for v in (value, expected))
    assert value.shape == expected.shape
    return float((value - expected).norm() / expected.norm())


every_cell = pytest.mark.parametrize("cell", ["mlstm", "lstm"])
every_form = pytest.mark.parametrize("form", ["symbols", "dense"])


@pytest.mark.parametrize("shape", [(1, 1), (4, 3), (33, 64)])
def test_a_matrix_is_off_by_half_a_unit_at_most(shape):
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    values, scales = Int8Matrix.of(matrix)
    assert (values.dtype, scales.dtype) == (torch.int8, torch.float32)
    assert (values.abs().amax(dim=1) == 127).all()
    error = (values * scales[:, None] - matrix).abs()
    assert (error <= scales[:, None] * 0.5001).all()


def test_a_row_of_zeros_stays_zero():
    values, scales = Int8Matrix.of(torch.zeros(2, 3))
    assert not values.any()
    assert not scales.any()


def test_a_row_too_small_for_a_scale_keeps_its_signs():
    smallest = torch.finfo(torch.float32).smallest_normal * torch.finfo(torch.float32).eps
    values, _ = Int8Matrix.of(torch.tensor([[190.0, -190.0]]) * smallest)
    assert values.tolist() == [[127, -127]]


def test_a_parameter_is_rounded_where_it_is():
    matrix = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    expected = Int8Matrix.of(matrix)
    with torch.device("meta"):
        rounded = Int8Matrix.of(matrix.t().contiguous().t().requires_grad_())
    for got, tensor in zip(rounded, expected, strict=True):
        assert not got.requires_grad
        assert got.is_contiguous()
        torch.testing.assert_close(got, tensor, rtol=0, atol=0)


@every_cell
@every_form
@pytest.mark.parametrize(
    ("batch_sizes", "hidden"),
    [([1], 1), ([3, 3, 1], 5), ([1] * 9, 40), ([20] * 4 + [7], 65), ([33] * 3, 130)],
)
def test_is_the_plain_loop(backend, cell, form, batch_sizes, hidden):
    given = rounded(*operands(batch_sizes, hidden, cell=cell, form=form), rounding=narrow)
    result = ops.mlstm_packed_int8(*given, backend=backend)
    for value, expected in zip(result, numpy_int8(*given), strict=True):
        assert value.dtype == torch.float32
        # A state half-way between two whole numbers may go either way.
        assert relative_error(value, expected) <= 1e-3


@pytest.mark.parametrize("hidden", [1, 4, 7, 8, 33, 64])
@pytest.mark.parametrize("sign", [-1, 1])
@pytest.mark.parametrize("weights", ["largest", "random", "one_in_eight"])
def test_no_sum_overflows(backend, hidden, sign, weights):
    # The largest states there are, whose products with the largest weights all have one sign.
    generator = torch.Generator().manual_seed(0)
    values = torch.full((5 * hidden, hidden), 127)
    if weights == "random":
        values = torch.randint(1, 128, values.shape, generator=generator)
    elif weights == "one_in_eight":
        values = values * (torch.arange(hidden) % 8 == 0)
    values = (sign * values).to(torch.int8)
    scales = torch.full((5 * hidden,), 1 / (127 * hidden))
    wh = Int8Matrix(values[:-hidden], scales[:-hidden])
    wmh = Int8Matrix(values[-hidden:], scales[-hidden:])
    x, mx = torch.zeros(1, 4 * hidden), torch.ones(1, hidden)
    h0, c0 = torch.ones(1, hidden), torch.zeros(1, hidden)
    given = (x, mx, None, [1], wh, wmh, h0, c0)
    for value, expected in zip(
        ops.mlstm_packed_int8(*given, backend=backend), numpy_int8(*given), strict=True
    ):
        assert relative_error(value, expected) <= 5e-2  # an overflow is off by half or more


@every_cell
def test_stays_near_float32(backend, cell):
    given = operands([64] * 30, 128, cell=cell)
    result = ops.mlstm_packed_int8(*rounded(*given), backend=backend)
    for value, exact in zip(result, ops.mlstm_packed(*given), strict=True):
        assert relative_error(value, exact) <= 2e-2


@every_cell
def test_neighbours_change_nothing(backend, cell):
    batch_sizes = [5] * 6
    x, mx, symbols, _, wh, wmh, h0, c0 = rounded(*operands(batch_sizes, 16, cell=cell))
    together = ops.mlstm_packed_int8(x, mx, symbols, batch_sizes, wh, wmh, h0, c0, backend=backend)
    own = symbols.view(6, 5)[:, 2].contiguous()
    alone = ops.mlstm_packed_int8(x, mx, own, [1] * 6, wh, wmh, h0[2:3], c0[2:3], backend=backend)
    for some, one in zip(together, alone, strict=True):
        torch.testing.assert_close(some.view(6, 5, -1)[:, 2], one)


def test_a_zero_state_and_a_number_that_is_none(backend):
    x, mx, symbols, sizes, wh, wmh, h0, c0 = rounded(*operands([2] * 3, 4, form="dense"))
    x[0, 0] = torch.nan  # of the first sequence, in the first step
    h, c = ops.mlstm_packed_int8(x, mx, symbols, sizes, wh, wmh, h0 * 0, c0 * 0, backend=backend)
    assert c[0, 0].isnan()
    assert h[2].isnan().all()
    assert h.view(3, 2, 4)[:, 1].isfinite().all()


@every_cell
@every_form
def test_opcheck(backend, cell, form):
    x, mx, symbols, sizes, wh, wmh, h0, c0 = rounded(*operands([4, 2, 1], 3, cell=cell, form=form))
    name = "mlstm_packed_int8" + ("_torch" if backend == "torch" else "")
    arguments = (x, mx, symbols, sizes, *wh, *(wmh or (None, None)), h0, c0)
    torch.library.opcheck(getattr(torch.ops.skdiscovery, name).default, arguments)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": torch.zeros(7, 16, dtype=torch.float64)}, "x of dtype torch.float32, got"),
        ({"batch_sizes": [1, 2]}, r"positive and falling, got \[1, 2\]"),
        (
            {"wh": Int8Matrix(torch.zeros(16, 4), torch.zeros(16))},
            "wh of dtype torch.int8, got torch.float32",
        ),
        (
            {"wh": Int8Matrix(torch.zeros(16, 4, dtype=torch.int8), torch.zeros(1))},
            r"scales of wh of shape \(16,\), got \(1,\)",
        ),
        (
            {"wmh": Int8Matrix(torch.zeros(4, 4, dtype=torch.int8), torch.zeros(4).double())},
            "scales of wmh of dtype torch.float32, got torch.float64",
        ),
        ({"h0": torch.zeros(3, 5)}, r"h0 of shape \(3, 4\), got \(3, 5\)"),
    ],
    ids=["x", "batch_sizes", "wh", "scales of wh", "scales of wmh", "h0"],
)
def test_operands_that_do_not_fit_are_named(change, message):
    names = ("x", "mx", "symbols", "batch_sizes", "wh", "wmh", "h0", "c0")
    given = dict(zip(names, rounded(*operands([3, 2], 4)), strict=True))
    with pytest.raises(ValueError, match=message):
        ops.mlstm_packed_int8(**given | change)
