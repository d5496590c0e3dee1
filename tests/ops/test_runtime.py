from pathlib import Path

import pytest
import torch

from skdiscovery.ops import extension, flush_denormals, resolve_backend, resolve_device
from skdiscovery.ops.runtime import BACKEND_VARIABLE, resolve_precision


def test_auto_is_a_gpu_if_there_is_one():
    expected = "cuda" if torch.cuda.is_available() else "cpu"
    assert resolve_device().type == resolve_device("auto").type == expected


@pytest.mark.parametrize("device", ["cpu", torch.device("cpu")])
def test_a_named_device_is_taken(device):
    assert resolve_device(device) == torch.device("cpu")


@pytest.mark.parametrize("device", ["", "gpu", "cuda:4096", "meta"])
def test_a_device_that_is_not_there_is_refused(device):
    with pytest.raises(ValueError, match=f"Device '{device}' is not available: "):
        resolve_device(device)


CPU = torch.device("cpu")


@pytest.fixture
def kernels(monkeypatch):
    """The compiled kernels that can be loaded; none unless a test adds some."""
    loadable = set()

    def load(backend):
        if backend in loadable:
            return extension.Outcome(Path("kernels.so"), "built before")
        return extension.Outcome(None, "there is no compiler")

    monkeypatch.setattr(extension, "load", load)
    monkeypatch.delenv(BACKEND_VARIABLE, raising=False)
    return loadable


def test_auto_takes_compiled_kernels_where_there_are_some(kernels):
    assert resolve_backend() == resolve_backend("auto", CPU) == "torch"
    kernels.add("cpp")
    assert resolve_backend() == resolve_backend("auto", CPU) == "cpp"
    assert resolve_backend("auto", torch.device("meta")) == "torch"


def test_torch_loads_nothing(monkeypatch):
    monkeypatch.setattr(extension, "load", lambda backend: pytest.fail("loaded"))
    assert resolve_backend("torch") == "torch"


def test_a_named_backend_raises_where_it_is_missing(kernels):
    with pytest.raises(ValueError, match=r"Backend 'cpp' is not .* there is no compiler"):
        resolve_backend("cpp")
    kernels.add("cpp")
    assert resolve_backend("cpp") == "cpp"


@pytest.mark.parametrize(("backend", "device"), [("cuda", "cpu"), ("cpp", "meta")])
def test_a_backend_of_another_device_is_refused(kernels, backend, device):
    kernels |= {"cpp", "cuda"}
    with pytest.raises(ValueError, match=f"'{backend}' does not run on device '{device}'"):
        resolve_backend(backend, torch.device(device))


def test_the_environment_says_what_auto_is(kernels, monkeypatch):
    kernels.add("cpp")
    monkeypatch.setenv(BACKEND_VARIABLE, "")
    assert resolve_backend("auto") == "cpp"
    monkeypatch.setenv(BACKEND_VARIABLE, "torch")
    assert resolve_backend("auto") == "torch"
    assert resolve_backend("cpp") == "cpp"
    kernels.clear()
    monkeypatch.setenv(BACKEND_VARIABLE, "cpp")
    with pytest.raises(ValueError, match="Backend 'cpp' is not available"):
        resolve_backend("auto")
    monkeypatch.setenv(BACKEND_VARIABLE, "fast")
    with pytest.raises(ValueError, match=f"Unknown backend 'fast'.*{BACKEND_VARIABLE}"):
        resolve_backend("auto")


def test_an_unknown_backend_is_refused():
    with pytest.raises(ValueError, match=r"Unknown backend 'tpu': expected one of \['auto', "):
        resolve_backend("tpu")


@pytest.mark.parametrize(
    ("precision", "device", "expected"),
    [
        ("auto", "cpu", torch.float32),
        ("auto", "cuda", torch.bfloat16),
        ("float32", "cuda", torch.float32),
        ("float64", "cpu", torch.float64),
        ("bfloat16", "cpu", torch.bfloat16),
        ("int8", "cpu", torch.int8),
    ],
)
def test_precision(precision, device, expected):
    assert resolve_precision(precision, torch.device(device)) == expected


def test_int8_is_for_the_cpu():
    with pytest.raises(ValueError, match="'int8' is for the CPU, got device 'cuda'"):
        resolve_precision("int8", torch.device("cuda"))


def test_an_unknown_precision_is_refused():
    with pytest.raises(ValueError, match=r"Unknown precision 'half': expected one of \['auto', "):
        resolve_precision("half", torch.device("cpu"))


def flushes():
    return bool(torch.tensor(1e-310, dtype=torch.float64) * 1.0 == 0)


can_flush = pytest.mark.skipif(not torch.set_flush_denormal(False), reason="this CPU cannot flush")


@can_flush
def test_denormals_are_zero_within_and_as_before_after():
    assert not flushes()
    with flush_denormals():
        assert flushes()
        with flush_denormals():
            assert flushes()
        assert flushes()
    assert not flushes()


def flush_and_fail():
    with flush_denormals():
        raise KeyError


def test_an_error_does_not_leave_denormals_flushed():
    with pytest.raises(KeyError):
        flush_and_fail()
    assert not flushes()


ON_TWO_THREADS = """
import sys
import torch
from skdiscovery import ops

ops.resolve_backend("cpp")
torch.set_num_threads(1)
# c becomes half of c0, a denormal number; an array's first half is the first thread's.
x, wh, symbols = torch.zeros(1, 4 * 512), torch.zeros(4 * 512, 512), torch.zeros(1, 64, dtype=int)
h0, c0 = torch.zeros(64, 512), torch.full((64, 512), 1.5e-38)
n = 2**18
torch.set_num_threads(2)
if sys.argv[1] == "started":
    torch.ones(n).sqrt()
with ops.flush_denormals():
    _, c, _ = ops.mlstm(x, None, symbols, wh, None, h0, c0, None, backend="cpp")
after = torch.full((n,), 1.5e-38) * 0.5
for share in (*c.view(torch.int32).chunk(2, dim=1), *after.view(torch.int32).chunk(2)):
    print(int(share.count_nonzero()))
"""


@can_flush
@pytest.mark.parametrize("threads", ["started", "not started"])
def test_denormals_are_zero_on_all_threads_of_the_kernels_and_on_none_after(run_script, threads):
    done = run_script(ON_TWO_THREADS, threads)
    assert done.stdout.split() == ["0", "0", str(2**17), str(2**17)], done.stderr
