import numpy as np
import pytest
import torch

from skdiscovery.nn import Architecture, ByteLanguageModel
from skdiscovery.nn.weights import folded_weights, model_from_weights, weight_shapes
from skdiscovery.nn.widening import widen_weights

TEXT = torch.tensor(list(b"It begins as good as it was."))[:, None]


def weights_of(architecture):
    generator = torch.Generator().manual_seed(0)
    return folded_weights(ByteLanguageModel(architecture).initialise(generator))


def widened(architecture, hidden_size, seed=0):
    return widen_weights(
        weights_of(architecture), architecture, hidden_size, np.random.RandomState(seed)
    )


@torch.no_grad()
def run(weights, architecture):
    model = model_from_weights(weights, architecture)
    top, _ = model(TEXT, model.zero_state(1, torch.float32))
    return model.logits(top)[:, 0], top[:, 0]


@pytest.mark.parametrize("cell", ["mlstm", "lstm"])
@pytest.mark.parametrize("n_layers", [1, 3])
@pytest.mark.parametrize("hidden_size", [8, 11, 16, 29])
def test_a_wider_model_computes_the_same(cell, n_layers, hidden_size):
    narrow, wide = (Architecture(size, 5, n_layers, cell) for size in (8, hidden_size))
    weights = widened(narrow, hidden_size)
    assert {name: array.shape for name, array in weights.items()} == weight_shapes(wide)
    assert {array.dtype for array in weights.values()} == {np.dtype(np.float32)}
    logits, states = run(weights, wide)
    expected, narrow_states = run(weights_of(narrow), narrow)
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-5)
    copied = torch.arange(hidden_size) % 8
    torch.testing.assert_close(states, narrow_states[:, copied], rtol=1e-4, atol=1e-5)


def test_copies_get_different_gradients():
    architecture = Architecture(16, 5)
    weights = widened(Architecture(8, 5), 16)
    model = model_from_weights(weights, architecture)
    top, _ = model(TEXT, model.zero_state(1, torch.float32))
    logits = model.logits(top)[:-1, 0]
    torch.nn.functional.cross_entropy(logits, TEXT[1:, 0]).backward()
    for name in ("wh", "wmh"):
        first, second = model.get_parameter(f"layers.0.{name}").grad.view(-1, 2, 8, 16).unbind(1)
        assert (first - second).norm() > 0.1 * first.norm()


def test_the_smaller_model_is_left_alone():
    architecture = Architecture(8, 5)
    weights = weights_of(architecture)
    before = {name: array.copy() for name, array in weights.items()}
    widen_weights(weights, architecture, 16, np.random.RandomState(0))
    assert all(np.array_equal(weights[name], before[name]) for name in before)


def test_no_model_is_narrowed():
    with pytest.raises(ValueError, match="it has 8 neurons, and hidden_size=7"):
        widened(Architecture(8, 5), 7)


def test_a_random_state_decides_the_shares():
    architecture = Architecture(8, 5)
    one, same, other = (widened(architecture, 16, seed)["layers.0.wh"] for seed in (0, 0, 1))
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)


def test_the_wider_model_has_arrays_of_its_own():
    architecture = Architecture(8, 5)
    weights = weights_of(architecture)
    wide = widen_weights(weights, architecture, 16, np.random.RandomState(0))
    assert not any(np.shares_memory(wide[name], weights[name]) for name in weights)


def test_neurons_read_copies_in_shares_of_their_own():
    before, after = (widened(Architecture(8, 5), size)["head.weight"] for size in (8, 16))
    shares = after[:, :8] / before
    assert np.ptp(shares, axis=0).min() > 0.1
