"""Weights as named arrays: what a fitted model keeps, what its file holds."""

import weakref
from collections.abc import Mapping
from hashlib import sha256

import numpy as np
import torch

from skdiscovery.nn.cells import LSTMLayer
from skdiscovery.nn.model import N_SYMBOLS, Architecture, ByteLanguageModel

Weights = dict[str, np.ndarray]


def weight_shapes(architecture: Architecture) -> dict[str, tuple[int, ...]]:
    """Return the name and shape of every array of a model."""
    hidden, embedding = architecture.hidden_size, architecture.embedding_size
    shapes: dict[str, tuple[int, ...]] = {"embedding": (N_SYMBOLS, embedding)}
    for k in range(architecture.n_layers):
        inputs = hidden if k else embedding
        shapes[f"layers.{k}.wx"] = (4 * hidden, inputs)
        shapes[f"layers.{k}.wh"] = (4 * hidden, hidden)
        if architecture.cell == "mlstm":
            shapes[f"layers.{k}.wmx"] = (hidden, inputs)
            shapes[f"layers.{k}.wmh"] = (hidden, hidden)
        shapes[f"layers.{k}.bias"] = (4 * hidden,)
    return shapes | {"head.weight": (N_SYMBOLS, hidden), "head.bias": (N_SYMBOLS,)}


@torch.no_grad()
def folded_weights(model: ByteLanguageModel) -> Weights:
    """Return the model's weights as float32 arrays, weight norm and double biases folded in."""
    tensors: dict[str, torch.Tensor] = {"embedding": model.embedding}
    for k, layer in enumerate(model.recurrent_layers):
        for name in layer.matrices:
            tensors[f"layers.{k}.{name}"] = getattr(layer, name)
        tensors[f"layers.{k}.bias"] = layer.gate_bias()
    tensors |= {"head.weight": model.head.weight, "head.bias": model.head.bias}
    # A copy, so that a model that trains on does not change them.
    return {name: tensor.float().cpu().numpy().copy() for name, tensor in tensors.items()}


@torch.no_grad()
def model_from_weights(
    weights: Mapping[str, np.ndarray], architecture: Architecture, dropout: float = 0.0
) -> ByteLanguageModel:
    """Return a model that holds ``weights``, without copying them where they are float32."""
    with torch.device("meta"):
        model = ByteLanguageModel(architecture, dropout)
    state = {name: shared_tensor(array) for name, array in weights.items()}
    for k, layer in enumerate(model.recurrent_layers):
        if isinstance(layer, LSTMLayer):
            bias = state[f"layers.{k}.bias"]
            state[f"layers.{k}.recurrent_bias"] = torch.zeros_like(bias)
    model.load_state_dict(state, assign=True)
    return model


def lock(weights: Weights) -> None:
    """Let nobody write to the arrays any more: what is derived from them then holds for good."""
    for array in weights.values():
        for viewed in _viewed(array):
            viewed.setflags(write=False)


def is_locked(array: np.ndarray) -> bool:
    """Return whether neither an array can be written to nor the memory that it shows."""
    viewed = _viewed(array)
    is_open = any(a.flags.writeable for a in viewed)
    return not is_open and isinstance(viewed[-1].base, bytes | None)


def _viewed(array: np.ndarray) -> list[np.ndarray]:
    """Return the array, the one that it is a view of, and so on."""
    arrays = [array]
    while isinstance(arrays[-1].base, np.ndarray):
        arrays.append(arrays[-1].base)
    return arrays


def weights_hash(weights: Weights) -> bytes:
    """Return a hash of the names and values of all arrays.

    That of an array which is locked is worked out once.
    """
    digest = sha256()
    for name, array in sorted(weights.items()):
        digest.update(name.encode())
        digest.update(_array_hash(array))
    return digest.digest()


_hashes: dict[int, bytes] = {}  # of arrays that are locked, by their id while they live


def _array_hash(array: np.ndarray) -> bytes:
    key, locked = id(array), is_locked(array)
    if not locked or key not in _hashes:
        # Not blake2b: processors have instructions for this one, and there is much to hash.
        value = sha256(np.ascontiguousarray(array).data).digest()
        if not locked:
            return value
        _hashes[key] = value
        weakref.finalize(array, _hashes.pop, key, None)
    return _hashes[key]


def shared_tensor(array: np.ndarray) -> torch.Tensor:
    """Return a tensor on the memory of ``array``, which may be a file's, mapped for reading.

    Of memory that cannot be written to torch warns, as it has no such tensors; nothing writes to a
    model's weights but training, which begins with a copy.
    """
    array = np.asarray(array)
    return torch.from_numpy(array if array.flags.writeable else np.asarray(_Writeable(array)))


class _Writeable:
    """Says of an array that it can be written to, and keeps it alive."""

    def __init__(self, array: np.ndarray):
        self._array = array
        address, _ = array.__array_interface__["data"]
        self.__array_interface__ = array.__array_interface__ | {"data": (address, False)}
