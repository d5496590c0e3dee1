import pytest
import torch

from skdiscovery.inference.loading import load_model
from skdiscovery.nn import Architecture, ByteLanguageModel
from skdiscovery.nn.weights import folded_weights
from skdiscovery.ops import Int8Matrix

ARCHITECTURE = Architecture(6, 4, n_layers=2)
WEIGHTS = folded_weights(ByteLanguageModel(ARCHITECTURE).initialise(torch.Generator()))


def load(device="cpu", precision="auto", backend="auto"):
    return load_model(WEIGHTS, ARCHITECTURE, device, precision, backend)


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
