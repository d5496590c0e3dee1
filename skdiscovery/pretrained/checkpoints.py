"""What training leaves on its way, as a model: a checkpoint of ``fit(checkpoint_dir=...)``."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from torch import Tensor

from skdiscovery.nn.weights import Weights, weight_shapes
from skdiscovery.pretrained.format import FORMAT_VERSION, Config, architecture_of, parse_config
from skdiscovery.pretrained.imported import (
    ImportedModel,
    check_names,
    check_shapes,
    fold_weight_norm,
)
from skdiscovery.training.checkpoint import DamagedError, Snapshot, read_checkpoint

_SYSTEM = "skdiscovery"
_MODEL = "model."  # what the names of the model's own arrays begin with
_LENGTH, _DIRECTION = ".original0", ".original1"  # of weight norm


def is_checkpoint(path: Path) -> bool:
    """Return whether a ``.safetensors`` file is a checkpoint, whole or not."""
    try:
        with safe_open(path, framework="numpy") as file:
            return {"run", "values"} <= (file.metadata() or {}).keys()
    except SafetensorError:
        return False


def import_checkpoint(path: Path) -> ImportedModel:
    """Read the model of a checkpoint.

    Raises
    ------
    ValueError
        If it is damaged, or of no model.
    """
    try:
        snapshot, run, _ = read_checkpoint(path)
        header, arrays = _header(run, snapshot), _arrays(snapshot.tensors)
    except (DamagedError, AttributeError, KeyError, TypeError) as error:
        raise ValueError(
            f"{os.fspath(path)!r} is a damaged checkpoint ({error!r}): take another of its folder."
        ) from error
    config = parse_config(path, header, len(arrays))
    expected = weight_shapes(architecture_of(config))
    check_names(path, _SYSTEM, arrays.keys(), expected.keys())
    check_shapes(path, _SYSTEM, {name: array.shape for name, array in arrays.items()}, expected)
    return ImportedModel(_SYSTEM, arrays, config)


def _header(run: Config, snapshot: Snapshot) -> str:
    """Return what :func:`write_model` would write of the model."""
    values: dict[str, Any] = snapshot.values
    names = ("hidden_size", "embedding_size", "n_layers", "cell", "preprocessor")
    config = {name: run[name] for name in names}
    config |= {"n_steps": values["n_steps"], "n_bytes_seen": values["n_bytes"]}
    for row in values["validation_history"][-1:]:
        config["bits_per_byte"] = row["bits_per_byte"]
    return json.dumps({"format_version": FORMAT_VERSION, **config})


def _arrays(tensors: dict[str, Tensor]) -> Weights:
    """Return the model's arrays, weight norm and double biases folded in."""
    given = {
        name.removeprefix(_MODEL): tensor.float().numpy()
        for name, tensor in tensors.items()
        if name.startswith(_MODEL)
    }
    arrays = {}
    for name, array in given.items():
        if name.endswith(_LENGTH):
            direction = given[name.removesuffix(_LENGTH) + _DIRECTION]
            matrix = name.removesuffix(_LENGTH).replace("parametrizations.", "")
            arrays[matrix] = fold_weight_norm(direction, np.squeeze(array, 1))
        elif name.endswith(".bias"):
            arrays[name] = array + given.get(name.replace(".bias", ".recurrent_bias"), 0)
        elif not name.endswith((_DIRECTION, ".recurrent_bias")):
            arrays[name] = array
    return arrays
