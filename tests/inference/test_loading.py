import pytest
import torch

from skdiscovery.inference.loading import load_model
from skdiscovery.nn import Architecture, ByteLanguageModel
from skdiscovery.nn.weights import folded_weights, lock
from skdiscovery.ops import Int8Matrix

ARCHITECTURE = Architecture(6, 4, n_layers=2)
WEIGHTS = folded_weights(ByteLanguageModel(ARCHITECTURE).initialise(torch.Generator()))


every_precision = pytest.mark.parametrize("precision", ["float32", "bfloat16", "int8"])


def load(device="cpu", precision="auto", backend="auto", weights=WEIGHTS):
    return load_model(weights, ARCHITECTURE, device, precision, backend)


@torch.no_grad()
def states(model, dtype):
    """What the model says of a few bytes."""
    symbols = torch.arange(40, 52)
    return model.forward_packed(symbols, [1] * 12, model.zero_state(1, dtype))[0].tolist()


@pytest.fixture
def locked():
    """A copy of the weights that cannot be written to."""
    weights = {name: array.copy() for name, array in WEIGHTS.items()}
    lock(weights)
    return weights


@pytest.mark.parametrize(
    ("precision", "dtype", "parameters"),
    [
        ("auto", torch.float32, torch.float32),
        ("float32", torch.float32, torch.float32),
        ("float64", torch.float64, torch.float64),
        ("bfloat16", torch.bfloat16, torch.float32),
    ],
)
def test_precision_on_the_cpu(precision, dtype, parameters):
    model, products = load(precision=precision)
    assert products == dtype
    for name, tensor in model.state_dict().items():
        assert tensor.dtype == (products if name.endswith(("wh", "wmh")) else parameters)
        weights = torch.from_numpy(WEIGHTS[name])
        assert torch.equal(tensor, weights.to(tensor.dtype))
        assert (tensor.data_ptr() == weights.data_ptr()) == (tensor.dtype == torch.float32)


def test_int8_on_the_cpu_rounds_the_recurrent_matrices_of_every_layer():
    model, states = load(precision="int8")
    assert states == torch.float32
    for k, layer in enumerate(model.recurrent_layers):
        for name, matrix in zip(("wh", "wmh"), layer.int8_matrices, strict=True):
            expected = Int8Matrix.of(torch.from_numpy(WEIGHTS[f"layers.{k}.{name}"]))
            assert torch.equal(matrix.values, expected.values)
            assert torch.equal(matrix.scales, expected.scales)
    assert all(layer.int8_matrices is None for layer in load()[0].recurrent_layers)


def test_what_is_not_there_is_refused():
    with pytest.raises(ValueError, match="Device 'gpu' is not available"):
        load(device="gpu")
    with pytest.raises(ValueError, match="Unknown backend 'tpu'"):
        load(backend="tpu")


@every_precision
def test_the_last_module_is_kept_if_its_weights_cannot_change(locked, precision):
    model, dtype = load(precision=precision, weights=locked)
    again, same_dtype = load(precision=precision, weights=dict(reversed(locked.items())))
    assert again is model
    assert same_dtype == dtype
    other = {name: array.copy() for name, array in locked.items()}
    lock(other)
    assert load(precision=precision, weights=other)[0] is not model
    assert load(precision=precision, weights=locked)[0] is not model  # one is kept, and no more


@pytest.mark.parametrize("other", [{"precision": "float64"}, {"backend": "torch"}])
def test_a_module_is_kept_for_the_same_settings_only(locked, other):
    settings = {"precision": "float32", "backend": "auto", "weights": locked}
    assert load(**settings)[0] is not load(**settings | other)[0]


@every_precision
def test_another_array_of_the_same_name_is_seen(locked, precision):
    before = states(*load(precision=precision, weights=locked))
    locked["layers.1.wh"] = 2 * locked["layers.1.wh"]
    lock(locked)
    assert states(*load(precision=precision, weights=locked)) != before


@every_precision
def test_weights_that_are_written_to_are_seen(precision):
    weights = {name: array.copy() for name, array in WEIGHTS.items()}
    before = states(*load(precision=precision, weights=weights))
    weights["layers.1.wh"] *= 2
    after = states(*load(precision=precision, weights=weights))
    assert after != before
    expected = states(*load(precision=precision, weights=dict(weights)))
    assert after == expected


@every_precision
def test_what_a_view_for_reading_shows_is_seen(precision):
    whole = {name: array.copy() for name, array in WEIGHTS.items()}
    views = {name: array[:] for name, array in whole.items()}
    for view in views.values():
        view.setflags(write=False)
    before = states(*load(precision=precision, weights=views))
    whole["layers.1.wh"] *= 2
    assert states(*load(precision=precision, weights=views)) != before


def test_a_module_that_was_made_in_inference_mode_reads_outside_of_it(locked):
    with torch.inference_mode():
        expected = states(*load(precision="int8", weights=locked))
    assert states(*load(precision="int8", weights=locked)) == expected
