"""What importers share: the model they return, and the checks that it is whole."""

import os
from collections.abc import Collection, Mapping
from typing import NamedTuple

import numpy as np

from skdiscovery.nn.model import Architecture, Config, make_config
from skdiscovery.nn.weights import Weights

Shapes = Mapping[str, tuple[int, ...]]


class ImportedModel(NamedTuple):
    """A model, and the system that its files are of."""

    system: str
    weights: Weights
    config: Config


def imported_model(
    path: str | os.PathLike,
    system: str,
    weights: Weights,
    architecture: Architecture,
    preprocessor: str,
) -> ImportedModel:
    """Return the model; how long it was trained, its files do not say.

    Raises
    ------
    ValueError
        If a weight is not a finite number.
    """
    weights = {name: np.ascontiguousarray(array) for name, array in weights.items()}
    broken = [name for name, array in weights.items() if not np.isfinite(array).all()]
    if broken:
        raise ValueError(
            f"{os.fspath(path)!r} has values that are no finite numbers, in what is here "
            f"{listed(broken)}: it is damaged, or its training had diverged."
        )
    return ImportedModel(system, weights, make_config(architecture, preprocessor))


def fold_weight_norm(direction: np.ndarray, length: np.ndarray) -> np.ndarray:
    """Return ``length * direction / ||direction||``, row by row (Salimans & Kingma 2016).

    A row of zeros stays one, as with the epsilon of TensorFlow's ``l2_normalize``.
    """
    norm = np.sqrt(np.einsum("ij,ij->i", direction, direction, dtype=np.float64))
    return direction * (length / np.maximum(norm, 1e-6)).astype(np.float32)[:, None]


def fold_weight_norms(path: str | os.PathLike, state: Weights) -> Weights:
    """Replace each pair of ``*_v`` and ``*_g``, of a row's direction and length, by its matrix.

    Raises
    ------
    ValueError
        If their shapes do not fit each other.
    """
    folded = dict(state)
    for name in state:
        matrix = name.removesuffix("_v")
        if name.endswith("_v") and f"{matrix}_g" in state:
            direction, length = folded.pop(name), folded.pop(f"{matrix}_g")
            if direction.ndim != 2 or length.shape != (len(direction), 1):
                raise ValueError(
                    f"{os.fspath(path)!r} has shapes that do not fit each other: expected "
                    f"{matrix}_v of shape (n, m) and {matrix}_g of shape (n, 1), got "
                    f"{direction.shape} and {length.shape}."
                )
            folded[matrix] = fold_weight_norm(direction, length[:, 0])
    return folded


def check_names(
    path: str | os.PathLike, system: str, found: Collection[str], expected: Collection[str]
) -> None:
    """Raise a ValueError if arrays of a model are missing, or if there are others."""
    missing, unexpected = set(expected) - set(found), set(found) - set(expected)
    if missing or unexpected:
        raise ValueError(
            f"{os.fspath(path)!r} is not a whole language model of {system}: missing "
            f"{listed(missing)}; unexpected {listed(unexpected)}."
        )


def check_shapes(path: str | os.PathLike, system: str, found: Shapes, expected: Shapes) -> None:
    """Raise a ValueError that names the arrays whose shape is not the expected one."""
    wrong = [
        f"{name}: expected {shape}, got {found[name]}"
        for name, shape in expected.items()
        if found[name] != shape
    ]
    if wrong:
        raise ValueError(
            f"{os.fspath(path)!r} has arrays that do not fit each other, or the 256 bytes, in a "
            f"model of {system}: {'; '.join(wrong)}."
        )


def listed(names: Collection[str]) -> str:
    """Return some names, for a message."""
    first = sorted(names)[:8]
    return (", ".join(first) or "nothing") + (", ..." if len(names) > len(first) else "")
