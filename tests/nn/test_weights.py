import gc
import hashlib
import warnings
import weakref

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from skdiscovery.nn import Architecture, ByteLanguageModel
from skdiscovery.nn import weights as weights_module
from skdiscovery.nn.weights import (
    folded_weights,
    is_locked,
    lock,
    model_from_weights,
    shared_tensor,
    weight_shapes,
    weights_hash,
)

every_cell = pytest.mark.parametrize("cell", ["mlstm", "lstm"])
with_and_without_norm = pytest.mark.parametrize("weight_norm", [False, True, "all"])


def make_model(architecture, weight_norm=False):
    """A model with no parameter at its initial value, and its rows of other lengths than 1."""
    model = ByteLanguageModel(architecture).initialise(torch.Generator().manual_seed(0))
    model.normalise_weights(weight_norm)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=generator)
    return model


def outputs(model):
    symbols = torch.arange(40).view(10, 4)
    top, states = model(symbols, model.zero_state(4, torch.float32))
    return [model.logits(top), *(tensor for state in states for tensor in state)]


@settings(max_examples=20, deadline=None, derandomize=True, database=None)
@given(
    hidden_size=st.integers(1, 5),
    embedding_size=st.integers(1, 5),
    n_layers=st.integers(1, 3),
    cell=st.sampled_from(["mlstm", "lstm"]),
    weight_norm=st.sampled_from([False, True, "all"]),
)
def test_shapes_are_those_of_the_folded_weights(
    hidden_size, embedding_size, n_layers, cell, weight_norm
):
    architecture = Architecture(hidden_size, embedding_size, n_layers, cell)
    weights = folded_weights(make_model(architecture, weight_norm))
    shapes = {name: array.shape for name, array in weights.items()}
    assert shapes == weight_shapes(architecture)
    assert {array.dtype for array in weights.values()} == {np.dtype(np.float32)}


@every_cell
@with_and_without_norm
def test_a_model_of_folded_weights_computes_the_same(cell, weight_norm):
    model = make_model(Architecture(6, 5, 2, cell), weight_norm)
    weights = folded_weights(model)
    copy = model_from_weights(weights, model.architecture)
    torch.testing.assert_close(outputs(copy), outputs(model), rtol=1e-5, atol=1e-6)
    for name, array in folded_weights(copy).items():
        np.testing.assert_array_equal(array, weights[name])


@every_cell
@with_and_without_norm
def test_training_on_leaves_the_folded_arrays_alone(cell, weight_norm):
    model = make_model(Architecture(6, 5, 2, cell), weight_norm)
    weights = folded_weights(model)
    before = {name: array.copy() for name, array in weights.items()}
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    sum(output.square().sum() for output in outputs(model)).backward()
    optimizer.step()
    for name, array in folded_weights(model).items():
        np.testing.assert_array_equal(weights[name], before[name])
        assert not np.array_equal(array, before[name])


def test_a_model_shares_the_memory_of_its_weights():
    architecture = Architecture(6, 5, 2)
    weights = folded_weights(make_model(architecture))
    tensors = model_from_weights(weights, architecture).state_dict()
    for name, array in weights.items():
        assert np.shares_memory(tensors[name].numpy(), array)


@pytest.mark.parametrize("change", [{}, {"hidden_size": 7}, {"cell": "lstm"}, {"n_layers": 1}])
def test_weights_of_another_architecture_are_refused(change):
    asked = {"hidden_size": 6, "embedding_size": 5, "n_layers": 2, "cell": "mlstm"} | change
    weights = folded_weights(make_model(Architecture(6, 5, 2)))
    if not change:
        del weights["head.bias"]
    with pytest.raises(RuntimeError, match="Error"):
        model_from_weights(weights, Architecture(**asked))


def constant(value):
    """An array that cannot be written to."""
    array = np.full(8, value, dtype=np.float32)
    array.setflags(write=False)
    return array


def mapped(path, mode):
    path.write_bytes(bytes(8))
    return np.memmap(path, np.float32, mode)


@pytest.mark.parametrize(
    ("make", "locked_before", "locked_after"),
    [
        (lambda path: np.zeros(2, np.float32), False, True),
        (lambda path: np.zeros(8, np.float32)[2:].reshape(2, 3), False, True),
        (lambda path: np.frombuffer(bytes(8), np.float32), True, True),
        (lambda path: np.frombuffer(bytearray(8), np.float32), False, False),
        (lambda path: torch.zeros(2).numpy(), False, False),
        (lambda path: mapped(path, "r"), False, False),  # others may write to the file
        (lambda path: np.asarray(mapped(path, "c")), False, False),
    ],
    ids=["owner", "view", "bytes", "bytearray", "tensor", "memmap", "view_of_memmap"],
)
def test_locked_is_what_nobody_can_write_to(make, locked_before, locked_after, tmp_path):
    array = make(tmp_path / "array")
    assert is_locked(array) == locked_before
    lock({"a": array})
    assert not array.flags.writeable
    assert is_locked(array) == locked_after


def test_what_a_locked_view_shows_is_locked():
    whole = np.zeros(8, np.float32)
    view = whole[2:]
    view.setflags(write=False)
    assert not is_locked(view)
    lock({"a": view})
    assert is_locked(view)
    with pytest.raises(ValueError, match="read-only"):
        whole[3] = 1


def test_a_hash_tells_names_and_values_apart_and_no_order():
    one, two = np.float32([1, 2]), np.float32([3, 4])
    expected = weights_hash({"a": one, "b": two})
    assert weights_hash({"b": two.copy(), "a": one.copy()}) == expected
    for other in ({"a": two, "b": one}, {"a": one, "c": two}, {"a": one}, {"a": one, "b": two[:1]}):
        assert weights_hash(other) != expected


def test_a_hash_follows_an_array_that_is_written_to():
    weights = {"a": np.zeros(8, np.float32)}
    before = weights_hash(weights)
    weights["a"][3] = 1
    assert weights_hash(weights) != before


def test_a_hash_follows_what_is_seen_through_a_view_for_reading():
    whole = np.zeros(8, np.float32)
    weights = {"a": whole[:]}
    weights["a"].setflags(write=False)
    before = weights_hash(weights)
    whole[3] = 1
    assert weights_hash(weights) != before


def test_arrays_that_cannot_change_are_hashed_once(monkeypatch):
    weights = {"a": constant(1), "b": constant(2)}
    expected = weights_hash(weights)
    hashed = []

    def sha256(data=b""):
        hashed.append(len(data))
        return hashlib.sha256(data)

    monkeypatch.setattr(weights_module, "sha256", sha256)
    assert weights_hash(dict(weights)) == expected
    assert hashed == [0]  # that of the hashes


def test_a_hash_is_not_that_of_an_array_that_was_where_this_one_is():
    assert len({weights_hash({"a": constant(value)}) for value in range(500)}) == 500


def test_a_hash_is_of_the_values_whatever_their_order_in_memory():
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    expected = weights_hash({"a": array})
    assert weights_hash({"a": np.asfortranarray(array)}) == expected


def test_dropout_is_as_asked_for():
    architecture = Architecture(6, 5, 2)
    weights = folded_weights(make_model(architecture))
    assert model_from_weights(weights, architecture, 0.5).dropout.p == 0.5
    assert model_from_weights(weights, architecture).dropout.p == 0


def test_weights_of_any_precision_are_folded_in_float32():
    for dtype in (torch.float64, torch.bfloat16):
        weights = folded_weights(make_model(Architecture(6, 5, 2)).to(dtype))
        assert {array.dtype for array in weights.values()} == {np.dtype(np.float32)}


def test_a_tensor_shares_memory_that_cannot_be_written_to_and_keeps_it():
    array = constant(3)
    alive = weakref.ref(array)
    warned = torch.is_warn_always_enabled()
    torch.set_warn_always(True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            tensor = shared_tensor(array)
    finally:
        torch.set_warn_always(warned)
    assert np.shares_memory(tensor.numpy(), array)
    assert not array.flags.writeable
    del array
    gc.collect()
    assert alive() is not None
    assert tensor.tolist() == [3] * 8
