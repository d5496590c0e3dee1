"""A small model, and what it computes written once more, byte by byte, in numpy."""

from copy import deepcopy

import numpy as np
import pytest
import torch

from skdiscovery.nn import Architecture, ByteLanguageModel
from skdiscovery.nn.weights import folded_weights, model_from_weights


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


@pytest.fixture(scope="package", params=["mlstm", "lstm"])
def weights(request):
    architecture = Architecture(6, 4, 2, request.param)
    model = ByteLanguageModel(architecture).initialise(torch.Generator().manual_seed(0))
    weights = folded_weights(model)
    weights["head.weight"] *= 8  # opinions about what comes next
    return weights


@pytest.fixture(scope="package")
def model(weights):
    """The model in float64, of two layers and six neurons."""
    cell = "mlstm" if "layers.0.wmh" in weights else "lstm"
    return model_from_weights(weights, Architecture(6, 4, 2, cell)).double()


@pytest.fixture(scope="package")
def float32_model(model):
    return deepcopy(model).float()


@pytest.fixture(scope="package")
def reference(weights):
    return NumpyModel(weights)


@pytest.fixture(scope="session")
def numpy_read():
    """Return a function of weights and a document: hidden states, cell states and logits."""
    return lambda weights, document: NumpyModel(weights).read(document)


@pytest.fixture(scope="session")
def make_documents():
    """Random bytes of given lengths."""

    def make(lengths, seed=0):
        rng = np.random.default_rng(seed)
        return [rng.bytes(length) for length in lengths]

    return make
