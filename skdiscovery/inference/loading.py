"""From fitted weights to a torch module that is ready to read."""

from functools import lru_cache
from typing import Any

import torch

from skdiscovery.nn import Architecture, ByteLanguageModel
from skdiscovery.nn.weights import Weights, is_locked, model_from_weights
from skdiscovery.ops.runtime import resolve_backend, resolve_device, resolve_precision


def load_model(
    weights: Weights, architecture: Architecture, device: str, precision: str, backend: str
) -> tuple[ByteLanguageModel, torch.dtype]:
    """Return a module on the device, and the dtype of the states that it reads with.

    On the CPU in float32 the module shares the memory of ``weights``. The last module is kept for
    who asks for it again, if its weights are locked: to move a large model to a GPU, or to round
    it, takes longer than to read a short text.

    Raises
    ------
    ValueError
        If the device or the backend is not available, or not in this precision.
    """
    where = resolve_device(device)
    dtype = resolve_precision(precision, where)
    settings = architecture, where, dtype, resolve_backend(backend, where)
    if all(map(is_locked, weights.values())):
        model = _last_module(_LockedWeights(weights), *settings)
    else:
        model = _new_module(weights, *settings)
    return model, torch.float32 if dtype == torch.int8 else dtype


class _LockedWeights:
    """Weights that are equal to others if they are the same arrays."""

    def __init__(self, weights: Weights):
        self.weights = dict(weights)
        self._identity = tuple(sorted((name, id(array)) for name, array in weights.items()))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _LockedWeights) and self._identity == other._identity

    def __hash__(self) -> int:
        return hash(self._identity)


@lru_cache(maxsize=1)
def _last_module(locked: _LockedWeights, *settings: Any) -> ByteLanguageModel:
    return _new_module(locked.weights, *settings)


def _new_module(
    weights: Weights,
    architecture: Architecture,
    device: torch.device,
    dtype: torch.dtype,
    backend: str,
) -> ByteLanguageModel:
    model = model_from_weights(weights, architecture).use_backend(backend)
    model.to(device, torch.promote_types(dtype, torch.float32))
    for layer in model.recurrent_layers:
        if dtype == torch.int8:
            layer.round_to_int8()
        else:
            layer.round_products_to(dtype)
    return model
