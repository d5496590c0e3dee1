import threading

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from skdiscovery import ops
from skdiscovery.ops import cuda, reference

N_SYMBOLS, HIDDEN = 7, 5
# Kernels go through the units one by one, or many at once where their number allows it.
each_width = pytest.mark.parametrize("hidden", [HIDDEN, 16], ids=["one_by_one", "many_at_once"])


@pytest.fixture(autouse=True)
def fresh_buffers():
    """Begin without buffers, and leave none that are on no graph's side."""
    cuda._kept_buffers.cache_clear()
    yield
    cuda._kept_buffers.cache_clear()


class GraphOnCpu:
    """What stands in for a captured CUDA graph: the same work, done again at each replay."""

    def __init__(self, buffers, direction, n_lanes):
        weights = buffers.wh, buffers.wmh
        self.work = lambda: buffers._enqueue(direction, n_lanes, cuda.STEPS_PER_GRAPH, weights)
        self.work()  # as a capture does
        self.n_replays = 0

    def replay(self):
        self.n_replays += 1
        self.work()


@pytest.fixture
def graphs(monkeypatch, cuda_kernels_on_cpu):
    """Let graphs be captured on the CPU; return those captured, by direction and lanes."""
    captured = []

    def capture(buffers, direction, n_lanes):
        captured.append((direction, n_lanes))
        return GraphOnCpu(buffers, direction, n_lanes)

    monkeypatch.setattr(cuda, "_can_capture", lambda like: True)
    monkeypatch.setattr(cuda._Buffers, "_capture", capture)
    return captured


def operands(n_lanes=3, n_steps=40, *, hidden=HIDDEN, device="cpu", dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64).to(device, dtype)

    symbols = torch.randint(N_SYMBOLS, (n_steps, n_lanes), generator=generator).to(device)
    return (
        normal(N_SYMBOLS, 4 * hidden), normal(N_SYMBOLS, hidden), symbols,
        normal(4 * hidden, hidden) * hidden**-0.5, normal(hidden, hidden) * hidden**-0.5,
        normal(n_lanes, hidden), normal(n_lanes, hidden),
    )  # fmt: skip


def packed_operands(batch_sizes, **kwargs):
    x, mx, symbols, wh, wmh, h0, c0 = operands(batch_sizes[0], len(batch_sizes), **kwargs)
    kept = torch.arange(batch_sizes[0]) < torch.tensor(batch_sizes)[:, None]
    return x, mx, symbols[kept.to(symbols.device)], batch_sizes, wh, wmh, h0, c0


def assert_close(got, expected, tolerance=1e-12):
    for value, other in zip(got, expected, strict=True):
        torch.testing.assert_close(value, other, rtol=tolerance, atol=tolerance)


def gradients(case, backend, keep=None):
    inputs = [t.clone().requires_grad_() if t.is_floating_point() else t for t in case]
    h, c, _ = ops.mlstm(*inputs, keep, backend=backend)
    return torch.autograd.grad((h * c).sum(), [t for t in inputs if t.requires_grad])


@each_width
def test_replayed_blocks_and_a_rest_are_the_loop(graphs, hidden):
    case = operands(n_steps=2 * cuda.STEPS_PER_GRAPH + 3, hidden=hidden)
    for _ in range(2):  # capturing, and replaying what was captured
        assert_close(cuda.forward(*case, None), reference.forward(*case, None))
        assert_close(gradients(case, "cuda"), gradients(case, "torch"))
    assert graphs == [("forward", 3), ("backward", 3)]
    buffers = cuda._kept_buffers(case[0].device, 0, hidden, torch.float64, True)
    assert buffers.graphs["backward", 3].n_replays == 4


def test_memory_that_runs_out_leaves_buffers_as_large_as_they_say(graphs, monkeypatch):
    few, too_many, many = (operands(n_lanes, n_steps=4) for n_lanes in (2, 64, 32))
    assert_close(cuda.forward(*few, None), reference.forward(*few, None))

    def run_out(*args, **kwargs):
        raise torch.cuda.OutOfMemoryError

    with monkeypatch.context() as patch:
        patch.setattr(torch, "zeros_like", run_out)
        with pytest.raises(torch.cuda.OutOfMemoryError):
            cuda.forward(*too_many, None)
    for case in (many, too_many):
        assert_close(cuda.forward(*case, None), reference.forward(*case, None))


@settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    lengths=st.lists(st.integers(1, 60), min_size=1, max_size=40),
    hidden=st.sampled_from([HIDDEN, 16]),
    seed=st.integers(0, 9),
)
def test_ragged_batches_are_the_loop(graphs, lengths, hidden, seed):
    batch_sizes = [sum(n > t for n in lengths) for t in range(max(lengths))]
    case = packed_operands(batch_sizes, hidden=hidden, seed=seed)
    assert_close(cuda.packed_forward(*case), reference.packed_forward(*case))


def test_batches_that_shrink_slowly_need_few_graphs(graphs):
    batch_sizes = [n for n in range(100, 60, -1) for _ in range(cuda.STEPS_PER_GRAPH)]
    case = packed_operands(batch_sizes)
    assert_close(cuda.packed_forward(*case), reference.packed_forward(*case))
    assert len(graphs) <= 4


def test_a_larger_batch_gets_new_buffers_and_graphs(graphs):
    for n_lanes in (2, 9, 16, 2):
        case = operands(n_lanes)
        assert_close(cuda.forward(*case, None), reference.forward(*case, None))
    # Those of two lanes had the smaller buffers, and are made anew.
    assert graphs == [("forward", 2), ("forward", 9), ("forward", 16), ("forward", 2)]
    buffers = cuda._kept_buffers(case[0].device, 0, HIDDEN, torch.float64, True)
    assert len(buffers.graphs) == 3  # 16 lanes had room in the buffers of 9


def test_a_few_steps_use_the_weights_where_they_are(graphs):
    case = operands(n_steps=3)
    assert_close(cuda.forward(*case, None), reference.forward(*case, None))
    buffers = cuda._kept_buffers(case[0].device, 0, HIDDEN, torch.float64, True)
    assert graphs == []
    assert not torch.equal(buffers.wh, case[3])


@each_width
def test_keep_may_be_any_number(cuda_kernels_on_cpu, hidden):
    case = operands(hidden=hidden)
    keep = torch.rand(case[2].shape, dtype=torch.float64)
    assert_close(gradients(case, "cuda", keep), gradients(case, "torch", keep))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
def test_arrays_may_begin_at_any_address(cuda_kernels_on_cpu, dtype):
    case = operands(hidden=16, dtype=dtype)
    keep = torch.rand(case[2].shape).to(dtype)

    def moved(tensor):
        """Return the same numbers, an element further on than torch begins an array."""
        return torch.cat([tensor.new_zeros(1), tensor.flatten()])[1:].view(tensor.shape)

    inputs = *case, keep
    outputs = cuda.forward(*inputs)
    given = tuple(torch.randn(t.shape).to(dtype) for t in outputs[:2])
    gradients = cuda.backward(*given, *inputs, *outputs)

    elsewhere = [moved(t) for t in inputs]
    assert_close(cuda.forward(*elsewhere), outputs, 1e-2 if dtype == torch.bfloat16 else 1e-5)
    others = cuda.backward(*map(moved, given), *elsewhere, *map(moved, outputs))
    assert_close(others, gradients, 5e-2 if dtype == torch.bfloat16 else 1e-4)


def test_buffers_made_in_inference_mode_serve_outside_of_it(cuda_kernels_on_cpu):
    case = operands()
    with torch.inference_mode():
        inside = cuda.forward(*case, None)
    assert_close(cuda.forward(*case, None), inside)


def test_threads_take_turns(graphs):
    cases = [operands(seed=seed) for seed in range(4)]
    expected = [reference.forward(*case, None) for case in cases]
    failures = []

    def work(k):
        try:
            for _ in range(5):
                assert_close(cuda.forward(*cases[k], None), expected[k])
        except AssertionError as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(len(cases))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


@given(n=st.integers(1, 10_000))
def test_a_batch_is_rounded_up_by_a_quarter_at_most(n):
    assert n <= cuda.round_up(n) <= 1.25 * n
    assert cuda.round_up(cuda.round_up(n)) == cuda.round_up(n)


def test_there_are_few_batch_sizes_after_rounding():
    assert len({cuda.round_up(n) for n in range(1, 1025)}) <= 4 * 10


def exactly(case):
    return [t.double() if torch.is_tensor(t) and t.is_floating_point() else t for t in case]


@pytest.mark.cuda
@pytest.mark.parametrize("repeats", [1, 10], ids=["few_steps", "graphs"])
@each_width
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)], ids=str
)
def test_on_a_gpu_all_of_it_is_the_loop(dtype, tolerance, hidden, repeats):
    ops.resolve_backend("cuda", torch.device("cuda"))
    case = operands(37, 10 * repeats, hidden=hidden, device="cuda", dtype=dtype)
    sizes = [37] * 2 * repeats + [11] * 5 * repeats
    ragged = packed_operands(sizes, hidden=hidden, device="cuda", dtype=dtype)
    got = *cuda.forward(*case, None), *cuda.packed_forward(*ragged)
    expected = (
        *reference.forward(*exactly(case), None), *reference.packed_forward(*exactly(ragged))
    )  # fmt: skip
    for value, exact in zip(got, expected, strict=True):
        assert (value.double() - exact).norm() <= tolerance * exact.norm()


@pytest.mark.cuda
@pytest.mark.parametrize("repeats", [1, 10], ids=["few_steps", "graphs"])
@each_width
@pytest.mark.parametrize("is_lstm", [False, True], ids=["mlstm", "lstm"])
def test_on_a_gpu_gradients_are_those_of_the_loop(is_lstm, hidden, repeats):
    ops.resolve_backend("cuda", torch.device("cuda"))
    x, mx, symbols, wh, wmh, h0, c0 = operands(37, 10 * repeats, hidden=hidden, device="cuda")
    keep = (torch.rand(symbols.shape, device="cuda") > 0.1).double()
    inputs = (x, *((None, symbols, wh, None) if is_lstm else (mx, symbols, wh, wmh)), h0, c0, keep)
    outputs = reference.forward(*inputs)
    given = torch.randn_like(outputs[0]), None
    got = cuda.backward(*given, *inputs, *outputs)
    assert_close(got, reference.backward(*given, *inputs, *outputs), 1e-10)


@pytest.mark.cuda
def test_work_is_ordered_with_the_stream_of_the_caller():
    ops.resolve_backend("cuda", torch.device("cuda"))
    case = operands(device="cuda")
    expected = reference.forward(*case, None)
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        torch.cuda._sleep(50_000_000)
        late = [t.clone() for t in case]  # not there before the sleep is over
        got = cuda.forward(*late, None)
    torch.cuda.current_stream().wait_stream(side)
    assert_close(got, expected)


@pytest.mark.cuda
def test_it_can_be_captured_in_a_graph_of_the_caller():
    ops.resolve_backend("cuda", torch.device("cuda"))
    case = operands(device="cuda")
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        ops.mlstm(*case, backend="cuda")
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        h, c, _ = ops.mlstm(*case, backend="cuda")
    others = operands(device="cuda", seed=1)
    for tensor, other in zip(case, others, strict=True):
        tensor.copy_(other)
    graph.replay()
    expected = reference.forward(*others, None)
    assert_close((h, c), expected[:2])


@pytest.mark.cuda
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="there are fewer than two GPUs")
def test_each_gpu_has_buffers_of_its_own():
    ops.resolve_backend("cuda", torch.device("cuda"))
    for device in ("cuda:1", "cuda:0", "cuda:1"):
        case = operands(device=device)
        assert_close(cuda.forward(*case, None), reference.forward(*case, None))
