import logging

import pytest
import torch

from skdiscovery.ops import flush_denormals, resolve_backend, resolve_device
from skdiscovery.ops.runtime import resolve_precision


def test_auto_is_a_gpu_if_there_is_one():
    expected = "cuda" if torch.cuda.is_available() else "cpu"
    assert resolve_device().type == resolve_device("auto").type == expected


@pytest.mark.parametrize("device", ["cpu", torch.device("cpu")])
def test_a_named_device_is_taken(device):
    assert resolve_device(device) == torch.device("cpu")


@pytest.mark.parametrize("device", ["", "gpu", "cuda:4096"])
def test_a_device_that_is_not_there_is_refused(device):
    with pytest.raises(ValueError, match=f"Device '{device}' is not available: "):
        resolve_device(device)


@pytest.mark.parametrize("backend", ["auto", "torch"])
def test_backends_that_are_always_there(backend):
    assert resolve_backend(backend) in ("torch", "cpp", "cuda")
    assert resolve_backend("torch") == "torch"


def test_auto_gives_its_reason_in_one_line(caplog):
    with caplog.at_level(logging.INFO, "skdiscovery"):
        resolve_backend("auto")
    (record,) = caplog.records
    assert "torch" in record.message
    assert "\n" not in record.message


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
    ],
)
def test_precision(precision, device, expected):
    assert resolve_precision(precision, torch.device(device)) == expected


def flushes():
    return bool(torch.tensor(1e-310, dtype=torch.float64) * 1.0 == 0)


@pytest.mark.skipif(not torch.set_flush_denormal(False), reason="this CPU cannot flush")
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
