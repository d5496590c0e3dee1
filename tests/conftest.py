"""Shared fixtures, and the rules under which every test runs."""

import gc
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

# Before torch or numpy load: test processes run side by side, so each keeps to one thread.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")

import numpy as np
import pytest
import torch
from hypothesis import settings
from hypothesis import strategies as st

from skdiscovery.inference import encoding

DATA_VARIABLE = "SKDISCOVERY_DATA"

# Tests that do not say how many cases they try take the profile's: few, and the same each time, or
# with --hypothesis-profile=long many, and new ones each time.
settings.register_profile(
    "ci", max_examples=40, deadline=None, derandomize=True, database=None, print_blob=True
)
settings.register_profile(
    "long", parent=settings.get_profile("ci"), max_examples=10_000, derandomize=False
)
settings.load_profile("ci")


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


@pytest.fixture(scope="session")
def damaged():
    """Return a strategy for what may become of bytes: some changed, cut out, put in, or cut off."""

    def of(content):
        place = st.integers(0, max(0, len(content) - 1))

        def change(content, changes, stop):
            content = bytearray(content[:stop])
            for start, length, new in changes:
                content[start : start + length] = new
            return bytes(content)

        changes = st.lists(
            st.tuples(place, st.integers(0, 4), st.binary(max_size=4)), min_size=1, max_size=4
        )
        return st.builds(change, st.just(content), changes, st.none() | place)

    return of


@pytest.fixture
def run_script():
    """Run Python code in a new process that finds the package; return it when it has ended."""

    def run(code, *arguments, **options):
        return subprocess.run(
            [sys.executable, "-c", code, *map(str, arguments)],
            env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            capture_output=True,
            text=True,
            timeout=120,
            **options,
        )

    return run


@pytest.fixture
def fork():
    """Run a function in a fork of this process; return its exit code, or minus the signal."""

    def run(function, *arguments):
        process = multiprocessing.get_context("fork").Process(target=function, args=arguments)
        process.start()
        process.join()
        return process.exitcode

    return run


@pytest.fixture
def memory_growth(fork):
    """Run a function in a fork of this process; return by how many bytes its memory grew."""

    def peak():
        status = Path("/proc/self/status").read_text()
        return 1024 * int(re.search(r"VmHWM:\s+(\d+)", status)[1])

    def run(function, answer):
        torch.set_num_threads(1)  # those of the parent are not here
        signal.alarm(300)
        gc.freeze()  # collections would write to the parent's pages, and so copy them
        before = peak()
        function()
        answer.send(peak() - before)

    def measure(function):
        answer, question = multiprocessing.Pipe(duplex=False)
        assert fork(run, function, question) == 0
        return answer.recv()

    if not Path("/proc/self/status").exists():
        pytest.skip("memory is measured on Linux only")
    return measure


@pytest.fixture
def small_disk(tmp_path):
    """Mount a file system of so many bytes; return its folder."""
    mounted = []

    def mount(n_bytes):
        folder = tmp_path / "disk"
        folder.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={n_bytes}", "tmpfs", folder]
        try:
            subprocess.run(command, check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError):
            pytest.skip("file systems cannot be mounted here")
        mounted.append(folder)
        return folder

    yield mount
    for folder in mounted:
        subprocess.run(["umount", folder], check=True)


@pytest.fixture
def open_folder():
    """A folder that is not within one of root alone, as ``tmp_path`` is."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        yield Path(folder)


@pytest.fixture
def withdraw(open_folder):
    """Make ``open_folder`` one that may be read and not written to, by whoever runs the tests."""
    is_root = os.geteuid() == 0

    def lose():
        for path in [open_folder, *open_folder.rglob("*")]:
            path.chmod(0o555 if path.is_dir() else 0o444)
        if is_root:  # who may do anything, so be no one
            os.seteuid(65534)

    yield lose
    if is_root:
        os.seteuid(0)
    open_folder.chmod(0o755)


@contextmanager
def default_dtype(dtype):
    """Make torch's new tensors of this dtype."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@pytest.fixture(
    params=[
        lambda: torch.autocast("cpu", dtype=torch.bfloat16),
        lambda: default_dtype(torch.float64),
        lambda: torch.device("meta"),
        torch.no_grad,
        torch.inference_mode,
    ],
    ids=["autocast", "default_dtype", "default_device", "no_grad", "inference_mode"],
)
def surroundings(request):
    """Return a context of settings of torch's that a caller may have made for something else."""
    return request.param


@pytest.fixture
def no_own_folder(monkeypatch):
    """Look into the cache only."""
    monkeypatch.delenv(DATA_VARIABLE, raising=False)


@pytest.fixture(scope="session")
def numpy_model():
    """The class of models written once more, byte by byte, in numpy."""
    return NumpyModel


class NumpyModel:
    """Reads with folded weights, one document at a time, one byte at a time."""

    def __init__(self, weights):
        self.weights = {name: array.astype(np.float64) for name, array in weights.items()}
        self.n_layers = sum(name.endswith("wx") for name in weights)
        self.hidden_size = weights["head.weight"].shape[1]

    def zero_state(self):
        return [(np.zeros(self.hidden_size), np.zeros(self.hidden_size))] * self.n_layers

    def step(self, byte, states, held=(), held_state="hidden", held_layer=1):
        """Return the logits after a byte and the new states, some neurons of a layer held."""
        inputs, total, after = self.weights["embedding"][byte], 0.0, []
        for k, (h, c) in enumerate(states):
            wx, wh, wmx, wmh, bias = (
                self.weights.get(f"layers.{k}.{name}")
                for name in ("wx", "wh", "wmx", "wmh", "bias")
            )
            m = h if wmh is None else (wmx @ inputs) * (wmh @ h)
            i, f, o, u = np.split(wx @ inputs + wh @ m + bias, 4)
            c = sigmoid(f) * c + sigmoid(i) * np.tanh(u)
            h = sigmoid(o) * np.tanh(c)
            if k == held_layer:
                for neuron, value in dict(held).items():
                    if held_state == "cell":
                        c[neuron] = value
                        h[neuron] = sigmoid(o[neuron]) * np.tanh(value)
                    else:
                        h[neuron] = value
            after.append((h, c))
            total = inputs = total + h
        return self.weights["head.weight"] @ total + self.weights["head.bias"], after

    def read(self, document):
        """Return hidden and cell states (n_layers, n_bytes, H), and logits (n_bytes, 256)."""
        states, steps = self.zero_state(), []
        for byte in document:
            logits, states = self.step(byte, states)
            steps.append((logits, states))
        hidden, cell = (
            np.array([[states[k][s] for _, states in steps] for k in range(self.n_layers)]).reshape(
                self.n_layers, len(document), self.hidden_size
            )
            for s in (0, 1)
        )
        return hidden, cell, np.array([logits for logits, _ in steps]).reshape(-1, 256)


def sigmoid(z):
    return 1 / (1 + np.exp(-z))
