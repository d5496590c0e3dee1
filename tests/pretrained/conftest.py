"""Small models as other systems write them.

The toy models are those whose values were computed with the code of OpenAI and of NVIDIA; their
arrays are sines that anyone can write down.
"""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from skdiscovery.nn.model import Architecture
from skdiscovery.nn.weights import weight_shapes


def sine(k, *shape):
    return (0.5 * np.sin(0.7 * np.arange(math.prod(shape)) + k)).reshape(shape)


@pytest.fixture
def toy_state_dict():
    """Return the toy mLSTM's state dict in the names of sentiment-discovery v0."""

    def make(n_layers=1):
        state = {"embedder.weight": sine(0, 256, 3)}
        for k in range(n_layers):
            layer, n_inputs = f"rnn.layers.{k}", 4 if k else 3
            state[f"{layer}.wx.weight"] = sine(10 * k + 1, 16, n_inputs)
            state[f"{layer}.wh.weight"] = sine(10 * k + 2, 16, 4)
            state[f"{layer}.wh.bias"] = sine(10 * k + 3, 16)
            state[f"{layer}.wmx.weight"] = sine(10 * k + 4, 4, n_inputs)
            state[f"{layer}.wmh.weight"] = sine(10 * k + 5, 4, 4)
        state |= {"rnn.h2o.weight": sine(6, 256, 4), "rnn.h2o.bias": sine(7, 256)}
        return {name: torch.from_numpy(array).float() for name, array in state.items()}

    return make


@pytest.fixture
def openai_toy(tmp_path):
    """A folder with the toy model of OpenAI's parameterisation, weight norm and all."""
    wh = sine(2, 4, 16)
    arrays = [
        sine(0, 256, 3), sine(1, 3, 16), wh[:, :4], wh[:, 4:8], wh[:, 8:12], wh[:, 12:],
        sine(4, 3, 4), sine(5, 4, 4), sine(3, 16), 1 + sine(8, 16), 1 + sine(9, 16),
        1 + sine(10, 4), 1 + sine(11, 4), sine(6, 4, 256), sine(7, 256),
    ]  # fmt: skip
    folder = tmp_path / "openai"
    folder.mkdir()
    for number, array in enumerate(arrays):
        np.save(folder / f"{number}.npy", array.astype(np.float32))
    return folder


@pytest.fixture
def port_folder():
    """Write weights of ours as the ``.npy`` files of pytorch-sentiment-neuron."""

    def write(folder, weights):
        folder.mkdir()
        names = {"wx": "wx", "wh": "wh", "wmx": "wmx", "wmh": "wmh", "b0": "bias"}
        arrays = {theirs: weights[f"layers.0.{ours}"].T for theirs, ours in names.items()}
        arrays |= {"embd": weights["embedding"], "w": weights["head.weight"].T}
        arrays["b"] = weights["head.bias"]
        for name, array in arrays.items():
            np.save(folder / f"{name}.npy", array)

    return write


@pytest.fixture
def random_weights():
    """Return random weights of a model of ours."""

    def make(hidden_size=5, embedding_size=3, n_layers=1, cell="mlstm"):
        random = np.random.default_rng(0)
        shapes = weight_shapes(Architecture(hidden_size, embedding_size, n_layers, cell))
        return {name: random.normal(size=shape).astype("f4") for name, shape in shapes.items()}

    return make


@pytest.fixture
def assert_same_weights():
    def check(got, expected, rtol=0.0):
        assert got.keys() == expected.keys()
        for name, array in expected.items():
            assert got[name].dtype == np.float32
            assert got[name].flags.c_contiguous
            np.testing.assert_allclose(got[name], array, rtol=rtol, err_msg=name)

    return check


class Hostile:
    """When it is unpickled as anyone's object, it leaves a file behind."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (Path(self.path),)


@pytest.fixture
def hostile(tmp_path):
    """An object that runs code when it is unpickled, and the file that shows that it did."""
    return Hostile(tmp_path / "code has run"), tmp_path / "code has run"
