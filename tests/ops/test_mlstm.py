import os
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit
from torch.nn.utils.rnn import pack_padded_sequence

from skdiscovery import ops
from skdiscovery.ops.runtime import BACKEND_VARIABLE

SETTINGS = settings(max_examples=25, deadline=None, derandomize=True, database=None)
N_SYMBOLS = 7
DIFFERENTIABLE = ("x", "mx", "wh", "wmh", "h0", "c0")


class Backend:
    """What the tests run with at the moment."""

    name: str
    device: str


BACKENDS = [
    pytest.param(("torch", "cpu"), id="torch"),
    pytest.param(("cpp", "cpu"), id="cpp"),
    pytest.param(("cuda", "cpu"), id="cuda_on_cpu"),
    pytest.param(("cuda", "cuda"), id="on_cuda", marks=pytest.mark.cuda),
]


@pytest.fixture(scope="module", params=BACKENDS, autouse=True)
def backend(request):
    """Run every test of this file with the loops, and with the compiled kernels."""
    Backend.name, Backend.device = request.param
    if Backend.name != "torch" and os.environ.get(BACKEND_VARIABLE) == "torch":
        pytest.skip(f"{BACKEND_VARIABLE} forbids the compiled kernels")
    if request.param == ("cuda", "cpu"):
        request.getfixturevalue("cuda_kernels_on_cpu")
    else:
        ops.resolve_backend(Backend.name, torch.device(Backend.device))
    torch.set_default_device(Backend.device)
    yield Backend.name
    torch.set_default_device(None)


def mlstm(*operands):
    return ops.mlstm(*operands, backend=Backend.name)


def operator(name):
    suffix = {"torch": "_torch", "cuda": "_cuda"}.get(Backend.name, "")
    return getattr(torch.ops.skdiscovery, name + suffix)


class Operands(NamedTuple):
    """The arguments of ``ops.mlstm``, in its order."""

    x: torch.Tensor
    mx: torch.Tensor | None
    symbols: torch.Tensor | None
    wh: torch.Tensor
    wmh: torch.Tensor | None
    h0: torch.Tensor
    c0: torch.Tensor
    keep: torch.Tensor | None

    def map(self, function) -> "Operands":
        return Operands(*(None if tensor is None else function(tensor) for tensor in self))

    def to(self, dtype, cell_dtype=None) -> "Operands":
        changed = self.map(lambda t: t.to(dtype) if t.is_floating_point() else t)
        return changed._replace(c0=self.c0.to(cell_dtype or dtype))


def operands(
    n_steps=5, n_sequences=3, hidden=4, *, cell="mlstm", form="symbols", masked=False, seed=0
) -> Operands:
    generator = torch.Generator("cpu").manual_seed(seed)

    def normal(*shape):
        drawn = torch.randn(shape, generator=generator, dtype=torch.float64, device="cpu")
        return drawn.to(Backend.device)

    def integers(high):
        drawn = torch.randint(high, (n_steps, n_sequences), generator=generator, device="cpu")
        return drawn.to(Backend.device)

    rows = (N_SYMBOLS,) if form == "symbols" else (n_steps, n_sequences)
    multiplicative = cell == "mlstm"
    return Operands(
        x=normal(*rows, 4 * hidden),
        mx=normal(*rows, hidden) if multiplicative else None,
        symbols=integers(N_SYMBOLS) if form == "symbols" else None,
        wh=normal(4 * hidden, hidden) / hidden**0.5,
        wmh=normal(hidden, hidden) / hidden**0.5 if multiplicative else None,
        h0=normal(n_sequences, hidden),
        c0=normal(n_sequences, hidden),
        keep=(integers(3) > 0).double() if masked else None,
    )


def numpy_mlstm(given: Operands):
    """Return h, c and the gates of all steps, in float64."""
    arrays = given.map(lambda t: (t if t.dtype == torch.int64 else t.double()).cpu().numpy())
    x, mx, symbols, wh, wmh, h, c, keep = arrays
    result = []
    for t in range(len(x if symbols is None else symbols)):
        row = t if symbols is None else symbols[t]
        if keep is not None:
            h, c = h * keep[t][:, None], c * keep[t][:, None]
        m = h if mx is None else mx[row] * (h @ wmh.T)
        i, f, o, u = np.split(x[row] + m @ wh.T, 4, axis=1)
        i, f, o, u = expit(i), expit(f), expit(o), np.tanh(u)
        c = f * c + i * u
        h = o * np.tanh(c)
        result.append((h, c, np.hstack([i, f, o, u])))
    return [np.stack(steps) for steps in zip(*result, strict=True)]


def leaves(given: Operands) -> list[torch.Tensor]:
    """Return the differentiable operands, and ask for their gradients."""
    named = zip(Operands._fields, given, strict=True)
    return [t.requires_grad_() for name, t in named if t is not None and name in DIFFERENTIABLE]


def gradients(given: Operands, *, weight=1.0, backend=None) -> list[torch.Tensor]:
    """Return the gradients of a loss that weighs each element of h and of c differently."""
    given = given.map(lambda t: t.detach().clone(memory_format=torch.preserve_format))
    inputs = leaves(given)
    h, c, _ = ops.mlstm(*given, backend=backend or Backend.name)
    ramp = torch.linspace(-1, 1, h.numel(), dtype=torch.float64).view(h.shape)
    loss = weight * ((h.double() * ramp).sum() + (c.double() * ramp.flip(0)).sum())
    return list(torch.autograd.grad(loss, inputs))


def relative_error(value, expected):
    """Return the L2 norm of the difference relative to that of ``expected``."""
    value, expected = (torch.as_tensor(v).detach().double().cpu() for v in (value, expected))
    assert value.shape == expected.shape
    return float((value - expected).norm() / expected.norm().clamp(min=1e-100))


def assert_same(got, expected, tolerance=0.0):
    for value, other in zip(got, expected, strict=True):
        if tolerance:
            assert relative_error(value, other) <= tolerance
        else:
            assert torch.equal(value, other)


every_form = pytest.mark.parametrize("form", ["symbols", "dense"])
every_cell = pytest.mark.parametrize("cell", ["mlstm", "lstm"])
with_and_without_mask = pytest.mark.parametrize("masked", [False, True], ids=["whole", "masked"])

# Numbers of steps and sequences, and widths, for each way of making the products.
every_size = pytest.mark.parametrize(
    "sizes",
    [(1, 1, 1), (2, 3, 5), (31, 7, 13), (16, 23, 32), (16, 23, 33), (17, 71, 9), (256, 3, 17)],
)


def every_case(test):
    return every_cell(every_form(with_and_without_mask(test)))


@every_case
@every_size
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_forward_is_the_plain_loop(cell, form, masked, sizes, dtype, tolerance):
    given = operands(*sizes, cell=cell, form=form, masked=masked).to(dtype)
    result = mlstm(*given)
    assert {output.dtype for output in result} == {dtype}
    assert_same(result, numpy_mlstm(given), tolerance)


@every_case
@every_size
def test_float32_gradients_are_those_of_float64(cell, form, masked, sizes):
    given = operands(*sizes, cell=cell, form=form, masked=masked).to(torch.float32)
    assert_same(gradients(given), gradients(given.to(torch.float64)), 1e-5)


@every_case
def test_gradients_over_many_rows_are_those_of_plain_torch(cell, form, masked):
    sizes = 61, 67, 21  # more rows than are summed at once
    given = operands(*sizes, cell=cell, form=form, masked=masked)
    assert_same(gradients(given), gradients(given, backend="torch"), 1e-12)


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@every_case
def test_threads_may_share_a_row(cell, form, masked, two_threads):
    given = operands(2, 33, 301, cell=cell, form=form, masked=masked)  # too much for one thread
    assert_same(mlstm(*given), numpy_mlstm(given), 1e-12)
    expected = gradients(given)
    torch.set_num_threads(1)
    assert_same(gradients(given), expected, 1e-12)


@every_cell
def test_gates_saturate_and_stay_finite(cell):
    given = operands(4, 2, 3, cell=cell)
    loud = given._replace(x=given.x * 1e5)
    for numbers in (loud, loud.to(torch.float32)):
        h, c, gates = mlstm(*numbers)
        assert_same((h, c, gates), numpy_mlstm(loud), 1e-5)
        assert all(gradient.isfinite().all() for gradient in gradients(numbers))


@every_cell
def test_a_number_that_is_none_spreads(cell):
    given = operands(4, 2, 3, cell=cell, form="dense")
    given.x[1, 0] = torch.nan
    h, c, _ = mlstm(*given)
    assert c.isnan()[:, :, 0].tolist() == [[False, False]] + [[True, False]] * 3
    assert h.isnan()[1:, 0].all()
    assert h[:, 1].isfinite().all()


@every_case
@pytest.mark.parametrize("outputs", [[0], [1], [0, 1]], ids=["h", "c", "both"])
def test_gradcheck(cell, form, masked, outputs):
    given = operands(3, 2, 2, cell=cell, form=form, masked=masked)
    inputs = leaves(given)

    def function(*tensors):
        assert len(tensors) == len(inputs)
        result = mlstm(*given)
        return [result[k] for k in outputs]

    assert torch.autograd.gradcheck(function, inputs)


@every_case
def test_autocast_leaves_gradients_as_they_are(cell, form, masked):
    given = operands(9, 3, 8, cell=cell, form=form, masked=masked).to(torch.float32)
    expected = gradients(given)
    with torch.autocast(Backend.device, dtype=torch.bfloat16):
        got = gradients(given)
    assert_same(got, expected, 1e-6)


@every_case
@pytest.mark.parametrize("n_steps", [3, 70])
def test_no_sequences_have_no_states_and_gradients_of_zero(cell, form, masked, n_steps):
    given = operands(n_steps, 0, 8, cell=cell, form=form, masked=masked)
    h, c, _ = mlstm(*given)
    assert h.shape == c.shape == (n_steps, 0, 8)
    assert not any(gradient.any() for gradient in gradients(given))


@every_cell
def test_gates_have_no_gradient(cell):
    given = operands(cell=cell)
    leaves(given)
    assert [output.requires_grad for output in mlstm(*given)] == [True, True, False]


@every_form
@every_cell
@pytest.mark.parametrize("sizes", [(31, 7, 13), (4, 1, 40), (9, 33, 160)])
def test_bfloat16_stays_near(cell, form, sizes):
    given = operands(*sizes, cell=cell, form=form, masked=True)
    given = given.to(torch.bfloat16, cell_dtype=torch.float32)
    h, c, gates = mlstm(*given)
    assert (h.dtype, c.dtype, gates.dtype) == (torch.bfloat16, torch.float32, torch.bfloat16)
    assert_same((h, c, gates), numpy_mlstm(given), 1e-2)
    assert_same(gradients(given), gradients(given.to(torch.float64)), 2e-2)


def test_bfloat16_stays_near_where_many_steps_read_one_symbol():
    """A sum that is kept in eight bits stops growing once it is 256 times what is added."""
    given = operands(64, 128, 8, cell="mlstm", form="symbols")
    given.symbols[:, :40] = 1
    given = given.to(torch.bfloat16, cell_dtype=torch.float32)
    assert_same(gradients(given), gradients(given.to(torch.float64)), 2e-2)


@every_cell
@pytest.mark.parametrize("dtype", [torch.float32, torch.bool], ids=str)
def test_keep_may_be_of_another_dtype(cell, dtype):
    given = operands(5, 3, 4, cell=cell, masked=True)
    other = given._replace(keep=given.keep.to(dtype))
    assert_same(gradients(other), gradients(given))


def transposed_in_memory(tensor):
    return tensor.transpose(0, -1).contiguous().transpose(0, -1)


def strided_in_memory(tensor):
    return torch.stack([tensor, tensor], dim=-1)[..., 1]


@every_case
def test_operands_need_not_be_contiguous(cell, form, masked):
    given = operands(6, 5, 3, cell=cell, form=form, masked=masked)

    for scattered in (given.map(transposed_in_memory), given.map(strided_in_memory)):
        assert not scattered.wh.is_contiguous()
        assert_same(mlstm(*scattered), mlstm(*given), 1e-12)
        assert_same(gradients(scattered), gradients(given), 1e-12)


@every_case
@SETTINGS
@given(n_steps=st.integers(2, 12), cut=st.integers(1, 11), seed=st.integers(0, 99))
def test_chunks_with_carried_state_are_one_sequence(cell, form, masked, n_steps, cut, seed):
    cut = min(cut, n_steps - 1)
    given = operands(n_steps, 3, 4, cell=cell, form=form, masked=masked, seed=seed)

    def part(steps, h0, c0):
        def of_steps(tensor):
            return None if tensor is None else tensor[steps]

        per_step = {name: of_steps(getattr(given, name)) for name in ("symbols", "keep")}
        if form == "dense":
            per_step |= {name: of_steps(getattr(given, name)) for name in ("x", "mx")}
        return mlstm(*given._replace(h0=h0, c0=c0, **per_step))

    first = part(slice(cut), given.h0, given.c0)
    second = part(slice(cut, None), first[0][-1], first[1][-1])
    chunked = [torch.cat(pair) for pair in zip(first, second, strict=True)]
    assert_same(chunked, mlstm(*given), 1e-12)


@every_cell
@SETTINGS
@given(reset=st.integers(0, 5), sequence=st.integers(0, 2), seed=st.integers(0, 99))
def test_a_reset_is_a_start_from_zero(cell, reset, sequence, seed):
    given = operands(6, 3, 4, cell=cell, seed=seed)
    keep = torch.ones(6, 3, dtype=torch.float64)
    keep[reset, sequence] = 0
    h, c, _ = mlstm(*given._replace(keep=keep))

    zero = torch.zeros(1, 4, dtype=torch.float64)
    alone = given._replace(symbols=given.symbols[reset:, sequence, None], h0=zero, c0=zero)
    fresh_h, fresh_c, _ = mlstm(*alone)
    assert_same((h[reset:, sequence], c[reset:, sequence]), (fresh_h[:, 0], fresh_c[:, 0]), 1e-12)

    others = [k for k in range(3) if k != sequence]
    whole_h, whole_c, _ = mlstm(*given)
    assert_same((h[:, others], c[:, others]), (whole_h[:, others], whole_c[:, others]), 1e-12)


@every_form
@every_cell
@SETTINGS
@given(lengths=st.lists(st.integers(1, 24), min_size=1, max_size=9), seed=st.integers(0, 99))
def test_packed_is_dense_without_the_padding(cell, form, lengths, seed):
    lengths = sorted(lengths, reverse=True)
    given = operands(lengths[0], len(lengths), 4, cell=cell, form=form, seed=seed)
    h, c, _ = mlstm(*given)
    assert_same(packed(given, lengths), (pack(h, lengths).data, pack(c, lengths).data), 1e-12)


@every_cell
@every_form
def test_packed_shrinks_from_many_sequences_to_one(cell, form):
    lengths = np.linspace(40, 2, 70).astype(int).tolist()  # past every change of product
    given = operands(lengths[0], len(lengths), 19, cell=cell, form=form)
    h, c, _ = numpy_mlstm(given)
    expected = [pack(torch.from_numpy(rows), lengths).data for rows in (h, c)]
    assert_same(packed(given, lengths), expected, 1e-12)


def pack(padded, lengths):
    return pack_padded_sequence(padded, lengths)


def packed(given: Operands, lengths):
    return ops.mlstm_packed(*packed_arguments(given, lengths), backend=Backend.name)


def packed_arguments(given: Operands, lengths) -> tuple[Any, ...]:
    symbols, x, mx = given.symbols, given.x, given.mx
    if symbols is None:
        shape = pack(x, lengths)
        x, mx = shape.data, None if mx is None else pack(mx, lengths).data
    else:
        shape = pack(symbols, lengths)
        symbols = shape.data
    batch_sizes = shape.batch_sizes.tolist()
    return x, mx, symbols, batch_sizes, given.wh, given.wmh, given.h0, given.c0


def test_packed_takes_bfloat16_with_a_float32_cell_state():
    given = operands(9, 4, 5).to(torch.bfloat16, cell_dtype=torch.float32)
    h, c = packed(given, [9, 6, 6, 1])
    assert (h.dtype, c.dtype) == (torch.bfloat16, torch.float32)
    expected = packed(given.to(torch.float64), [9, 6, 6, 1])
    assert_same((h, c), expected, 1e-2)


@every_case
def test_repeats_bit_for_bit(cell, form, masked):
    given = operands(9, 5, 7, cell=cell, form=form, masked=masked).to(torch.float32)
    assert_same(mlstm(*given), mlstm(*given))
    assert_same(gradients(given), gradients(given))
    lengths = [9, 7, 7, 2, 1]
    assert_same(packed(given, lengths), packed(given, lengths))


@every_case
def test_backward_twice_overwrites_nothing(cell, form, masked):
    given = operands(6, 3, 4, cell=cell, form=form, masked=masked)
    before = given.map(torch.clone)
    inputs = leaves(given)
    outputs = mlstm(*given)
    computed = [output.detach().clone() for output in outputs]
    loss = (outputs[0] * outputs[1]).sum()
    first = torch.autograd.grad(loss, inputs, retain_graph=True)
    first_copy = [gradient.clone() for gradient in first]
    second = torch.autograd.grad(loss, inputs)

    assert_same(second, first)
    assert_same(first, first_copy)
    assert_same(outputs, computed)
    for tensor, original in zip(given, before, strict=True):
        assert tensor is None or torch.equal(tensor, original)


def test_a_double_backward_is_refused():
    given = operands()
    inputs = leaves(given)
    (gradient, *_) = torch.autograd.grad(mlstm(*given)[0].sum(), inputs, create_graph=True)
    with pytest.raises(NotImplementedError, match="double backward through the mLSTM is not"):
        gradient.sum().backward()


@pytest.mark.parametrize("symbol", [-1, N_SYMBOLS])
def test_a_symbol_without_a_row_is_refused(symbol):
    if Backend.name == "cuda":
        pytest.skip("a GPU's kernels can only assert, which ends the process")
    given = operands()
    given.symbols[2, 1] = symbol
    with pytest.raises(IndexError, match="out of range"):
        mlstm(*given)
    with pytest.raises(IndexError, match="out of range"):
        packed(given, [5, 5, 5])


@pytest.fixture
def poisoned_memory():
    """Fill what ``torch.empty`` returns with NaN."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@every_case
def test_reads_no_memory_that_it_has_not_written(cell, form, masked, poisoned_memory):
    assert torch.empty(2).isnan().all()
    given = operands(6, 3, 4, cell=cell, form=form, masked=masked)
    results = [*mlstm(*given), *packed(given, [6, 4, 1]), *gradients(given)]
    assert all(result.isfinite().all() for result in results)


@every_case
def test_opcheck(cell, form, masked):
    given = operands(3, 2, 2, cell=cell, form=form, masked=masked)
    leaves(given)
    torch.library.opcheck(operator("mlstm").default, tuple(given))


@every_case
def test_opcheck_of_the_backward(cell, form, masked):
    given = operands(3, 2, 2, cell=cell, form=form, masked=masked)
    dh, dc, *others = backward_arguments(given)
    torch.library.opcheck(operator("mlstm_backward").default, (dh, dc, *others))
    torch.library.opcheck(operator("mlstm_backward").default, (dh, None, *others))


def backward_arguments(given: Operands) -> tuple[torch.Tensor | None, ...]:
    outputs = operator("mlstm")(*given)
    return (torch.ones_like(outputs[0]), torch.ones_like(outputs[1]), *given, *outputs)


@every_form
@every_cell
def test_opcheck_of_operands_that_are_not_contiguous(cell, form):
    given = operands(3, 2, 2, cell=cell, form=form, masked=True).map(transposed_in_memory)
    torch.library.opcheck(operator("mlstm").default, tuple(given))
    torch.library.opcheck(operator("mlstm_backward").default, backward_arguments(given))


@every_form
@every_cell
def test_opcheck_of_packed(cell, form):
    given = operands(4, 3, 2, cell=cell, form=form)
    arguments = packed_arguments(given, [4, 2, 1])
    torch.library.opcheck(operator("mlstm_packed").default, arguments)
