"""Shared fixtures, and the rules under which every test runs."""

import os
import signal

# Before torch or numpy load: test processes run side by side, so each keeps to one thread.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")

import pytest
import torch

from skdiscovery.inference import encoding

DATA_VARIABLE = "SKDISCOVERY_DATA"


def pytest_collection_modifyitems(items):
    """Skip, with the reason, what this machine cannot run."""
    no_data = pytest.mark.skip(reason=f"{DATA_VARIABLE} does not name a folder with real data")
    no_cuda = pytest.mark.skip(reason="no CUDA device")
    for item in items:
        if "data" in item.keywords and not os.environ.get(DATA_VARIABLE):
            item.add_marker(no_data)
        if "cuda" in item.keywords and not torch.cuda.is_available():
            item.add_marker(no_cuda)


@pytest.fixture
def ctrl_c():
    """Ctrl-C that interrupts, also where tests run in the background; return a way to press it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield lambda: signal.raise_signal(signal.SIGINT)
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def encoded(monkeypatch):
    """The documents whose features were computed, in order."""
    documents = []
    features = encoding.features

    def count(model, new, *args, **kwargs):
        documents.extend(new)
        return features(model, new, *args, **kwargs)

    monkeypatch.setattr(encoding, "features", count)
    return documents
