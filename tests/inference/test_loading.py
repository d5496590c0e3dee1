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
    for name, tensor in model.state_dict().items():
        assert tensor.dtype == (products if name.endswith(("wh", "wmh")) else parameters)
        weights = torch.from_numpy(WEIGHTS[name])
        assert torch.equal(tensor, weights.to(tensor.dtype))
        assert (tensor.data_ptr() == weights.data_ptr()) == (tensor.dtype == torch.float32)


def test_what_is_not_there_is_refused():
    with pytest.raises(ValueError, match="Device 'gpu' is not available"):
        load(device="gpu")
    with pytest.raises(ValueError, match="Unknown backend 'tpu'"):
        load(backend="tpu")
