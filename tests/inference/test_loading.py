import numpy as np
import pytest
import torch

from skdiscovery.inference.loading import load_model
from skdiscovery.nn import Architecture, ByteLanguageModel
from skdiscovery.nn.weights import folded_weights

ARCHITECTURE = Architecture(6, 4)
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
    assert {parameter.dtype for parameter in model.parameters()} == {parameters}
    for name, tensor in model.state_dict().items():
        np.testing.assert_array_equal(tensor.numpy(), WEIGHTS[name])
        assert np.shares_memory(tensor.numpy(), WEIGHTS[name]) == (precision != "float64")


def test_what_is_not_there_is_refused():
    with pytest.raises(ValueError, match="Device 'gpu' is not available"):
        load(device="gpu")
    with pytest.raises(ValueError, match="Unknown backend 'tpu'"):
        load(backend="tpu")
