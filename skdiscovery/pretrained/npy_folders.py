"""Models as folders of ``.npy`` files: OpenAI's, and those of its port to PyTorch.

OpenAI's has 15, in the order in which its TensorFlow code makes the variables: the embedding; the
directions (of weight norm) of wx, of wh in four pieces side by side, of wmx and of wmh; the bias;
the lengths of wx, wh, wmx and wmh; weight and bias of the head. guillitte's port has 8 with names,
weight norm folded in. In both, matrices are (in, out) and the gates in the order i, f, o, u.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from skdiscovery.files import size_and_hash
from skdiscovery.nn.model import N_SYMBOLS, Architecture, Config
from skdiscovery.nn.weights import Weights
from skdiscovery.pretrained.imported import (
    ImportedModel,
    check_names,
    check_shapes,
    fold_weight_norm,
    imported_model,
    listed,
)


@dataclass(frozen=True)
class NpyLayout:
    """The files of a system, with their shapes for a hidden size and an embedding size."""

    system: str
    files: tuple[str, ...]
    bias: str
    shapes: Callable[[int, int], list[tuple[int, ...]]]
    to_weights: Callable[..., Weights]


def import_npy_folder(folder: str | os.PathLike) -> ImportedModel:
    """Return the model of a folder; its other files do not matter.

    Raises
    ------
    ValueError
        If files are missing, are damaged, hold anything but numbers, or do not fit each other.
    """
    there = set(os.listdir(folder))
    for layout in (OPENAI, PORT):
        if there.intersection(layout.files):
            return _import(folder, there, layout)
    models = [file for file in there if file.endswith((".safetensors", ".pt", ".pth"))]
    hint = f" It has {listed(models)}: give the path of the file." if models else ""
    raise ValueError(
        f"{os.fspath(folder)!r} is a folder without a model: expected OpenAI's 0.npy to 14.npy, or "
        f"{', '.join(PORT.files)} of {PORT.system}.{hint}"
    )


def export_openai(folder: str | os.PathLike, weights: Weights, config: Config) -> None:
    """Write a model as OpenAI's 15 files, to a new or an empty folder.

    The directions are the matrices themselves. The files do not say what the preprocessor is.

    Raises
    ------
    ValueError
        If the model is not an mLSTM of one layer.
    FileExistsError
        If there is something in the folder.
    """
    if (config["cell"], config["n_layers"]) != ("mlstm", 1):
        raise ValueError(
            "OpenAI's files hold an mLSTM of one layer, and this model is of cell "
            f"{config['cell']!r} with {config['n_layers']} layer(s)."
        )
    os.makedirs(folder, exist_ok=True)
    if os.listdir(folder):
        raise FileExistsError(f"{os.fspath(folder)!r} is not empty: name a new folder.")
    wx, wh, wmx, wmh = (weights[f"layers.0.{name}"] for name in ("wx", "wh", "wmx", "wmh"))
    lengths = [np.linalg.norm(matrix, axis=1) for matrix in (wx, wh, wmx, wmh)]
    pieces = np.split(wh.T, 4, axis=1)
    arrays = [weights["embedding"], wx.T, *pieces, wmx.T, wmh.T, weights["layers.0.bias"]]
    arrays += [*lengths, weights["head.weight"].T, weights["head.bias"]]
    for file, array in zip(OPENAI.files, arrays, strict=True):
        np.save(Path(folder, file), np.ascontiguousarray(array))


def _import(folder: str | os.PathLike, there: set[str], layout: NpyLayout) -> ImportedModel:
    check_names(folder, layout.system, there.intersection(layout.files), layout.files)
    arrays = {file: _read(Path(folder, file)) for file in layout.files}
    hidden_size = arrays[layout.bias].size // 4
    embedding_size = arrays[layout.files[0]].size // N_SYMBOLS
    shapes = layout.shapes(hidden_size, embedding_size)
    check_shapes(
        folder,
        layout.system,
        found={file: array.shape for file, array in arrays.items()},
        expected=dict(zip(layout.files, shapes, strict=True)),
    )
    weights = layout.to_weights(*arrays.values())
    architecture = Architecture(hidden_size, embedding_size)
    return imported_model(folder, layout.system, weights, architecture, "openai")


def _read(file: Path) -> np.ndarray:
    """Return a file's array as float32; one of Python objects, which runs code, is not read."""
    try:
        array = np.lib.format.open_memmap(file, mode="r")
        if array.dtype.kind != "f":
            raise ValueError(f"expected floating-point numbers, got {array.dtype}")
    except Exception as error:  # a damaged header may make numpy raise anything
        raise ValueError(
            f"{os.fspath(file)!r} is cut short, damaged, or not an array of numbers: {error}. It "
            f"has {size_and_hash(file)}."
        ) from error
    return np.array(array, dtype=np.float32)


def _openai_shapes(hidden: int, embedding: int) -> list[tuple[int, ...]]:
    gates = 4 * hidden
    directions = [
        (embedding, gates),
        *[(hidden, hidden)] * 4,
        (embedding, hidden),
        (hidden, hidden),
    ]
    vectors = [(gates,), (gates,), (gates,), (hidden,), (hidden,)]
    return [(N_SYMBOLS, embedding), *directions, *vectors, (hidden, N_SYMBOLS), (N_SYMBOLS,)]


def _openai_weights(*arrays: np.ndarray) -> Weights:
    embedding, wx, *wh, wmx, wmh, bias, gx, gh, gmx, gmh, head_weight, head_bias = arrays
    return {
        "embedding": embedding,
        "layers.0.wx": fold_weight_norm(wx.T, gx),
        "layers.0.wh": fold_weight_norm(np.concatenate(wh, axis=1).T, gh),
        "layers.0.wmx": fold_weight_norm(wmx.T, gmx),
        "layers.0.wmh": fold_weight_norm(wmh.T, gmh),
        "layers.0.bias": bias,
        "head.weight": head_weight.T,
        "head.bias": head_bias,
    }


def _port_shapes(hidden: int, embedding: int) -> list[tuple[int, ...]]:
    gates = 4 * hidden
    matrices = [(embedding, gates), (hidden, gates), (embedding, hidden), (hidden, hidden)]
    return [(N_SYMBOLS, embedding), *matrices, (gates,), (hidden, N_SYMBOLS), (N_SYMBOLS,)]


def _port_weights(*arrays: np.ndarray) -> Weights:
    embedding, wx, wh, wmx, wmh, bias, head_weight, head_bias = arrays
    return {
        "embedding": embedding,
        "layers.0.wx": wx.T,
        "layers.0.wh": wh.T,
        "layers.0.wmx": wmx.T,
        "layers.0.wmh": wmh.T,
        "layers.0.bias": bias,
        "head.weight": head_weight.T,
        "head.bias": head_bias,
    }


OPENAI = NpyLayout(
    system="OpenAI",
    files=tuple(f"{n}.npy" for n in range(15)),
    bias="8.npy",
    shapes=_openai_shapes,
    to_weights=_openai_weights,
)
PORT = NpyLayout(
    system="pytorch-sentiment-neuron",
    files=tuple(f"{name}.npy" for name in ("embd", "wx", "wh", "wmx", "wmh", "b0", "w", "b")),
    bias="b0.npy",
    shapes=_port_shapes,
    to_weights=_port_weights,
)
