"""From fitted weights to a torch module that is ready to read."""

import torch

from skdiscovery.nn import Architecture, ByteLanguageModel
from skdiscovery.nn.weights import Weights, model_from_weights
from skdiscovery.ops.runtime import resolve_backend, resolve_device, resolve_precision


def load_model(
    weights: Weights, architecture: Architecture, device: str, precision: str, backend: str
) -> tuple[ByteLanguageModel, torch.dtype]:
    """Return a module on the device, and the dtype of the states that it reads with.

    On the CPU in float32 the module shares the memory of ``weights``.

    Raises
    ------
    ValueError
        If the device or the backend is not available, or not in this precision.
    """
    where = resolve_device(device)
    dtype = resolve_precision(precision, where)
    model = model_from_weights(weights, architecture).use_backend(resolve_backend(backend, where))
    model.to(where, torch.promote_types(dtype, torch.float32))
    if dtype == torch.int8:
        for layer in model.recurrent_layers:
            layer.round_to_int8()
        return model, torch.float32
    for layer in model.recurrent_layers:
        layer.round_products_to(dtype)
    return model, dtype
