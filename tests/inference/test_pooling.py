import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from skdiscovery.inference.pooling import POOLINGS, Pooler
from skdiscovery.inference.ragged import Chunk

NUMPY_POOLINGS = {
    "last": lambda trace: trace[-1],
    "mean": lambda trace: trace.mean(axis=0),
    "max": lambda trace: trace.max(axis=0),
}


def pool(traces, poolings, n_steps=10**9, dtype=torch.float64):
    """Pool traces (n_bytes, width), sorted by falling length, in chunks of ``n_steps``."""
    lengths = torch.tensor([len(trace) for trace in traces])
    pooler = Pooler(poolings, lengths, traces[0].shape[1], dtype)
    for start in range(0, len(traces[0]), n_steps):
        steps = range(start, min(len(traces[0]), start + n_steps))
        sizes = [int((lengths > step).sum()) for step in steps]
        rows = [trace[s] for s, n in zip(steps, sizes, strict=True) for trace in traces[:n]]
        empty = torch.empty(0)
        pooler.update(
            Chunk(start, sizes, empty, empty, []), torch.as_tensor(np.array(rows), dtype=dtype)
        )
    return pooler.result()


@settings(max_examples=50, deadline=None, derandomize=True, database=None)
@given(
    lengths=st.lists(st.integers(0, 20), min_size=1, max_size=6),
    n_steps=st.integers(1, 25),
    poolings=st.permutations(POOLINGS).flatmap(
        lambda names: st.integers(1, 3).map(lambda n: names[:n])
    ),
    seed=st.integers(0, 99),
)
def test_pools_as_numpy_does_over_whole_traces(lengths, n_steps, poolings, seed):
    rng = np.random.default_rng(seed)
    traces = [rng.normal(-3, 1, (length, 2)) for length in sorted(lengths, reverse=True)]
    pooled = pool(traces, poolings, n_steps)
    for row, trace in zip(pooled, traces, strict=True):
        parts = [NUMPY_POOLINGS[name](trace) if len(trace) else np.zeros(2) for name in poolings]
        np.testing.assert_allclose(row, np.concatenate(parts), rtol=1e-12)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_a_document_without_bytes_has_the_zero_state(pooling):
    assert not pool([np.ones((3, 2)), np.empty((0, 2))], [pooling])[1].any()
    assert not pool([np.empty((0, 2))], [pooling]).any()


def test_the_mean_of_a_million_steps_is_exact():
    lengths = torch.tensor([1_000_000])
    pooler = Pooler(["mean"], lengths, 1, torch.float32)
    rows, empty = torch.full((1_000, 1), 0.1), torch.empty(0)
    for start in range(0, 1_000_000, 1_000):
        pooler.update(Chunk(start, [1] * 1_000, empty, empty, []), rows)
    assert float(pooler.result()) == pytest.approx(0.1, rel=1e-6)


def test_small_states_count_beside_a_large_sum():
    trace = np.array([[2.0**24], [1.0], [1.0], [2.0]])
    assert pool([trace], ["mean"], 1, torch.float32).item() == trace.mean()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_mean_does_not_depend_on_the_chunks(dtype):
    trace = np.random.default_rng(0).uniform(0, 1, (997, 3))
    whole = pool([trace], ["mean"], dtype=dtype)
    for n_steps in (1, 10, 300):
        torch.testing.assert_close(
            pool([trace], ["mean"], n_steps, dtype), whole, rtol=1e-6, atol=0
        )
