"""What training leaves on its way, as a model: a checkpoint of ``fit(checkpoint_dir=...)``."""

import os
from dataclasses import asdict
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor

from skdiscovery.nn.model import Architecture, Config
from skdiscovery.nn.weights import Weights, weight_shapes
from skdiscovery.pretrained.format import check_config
from skdiscovery.pretrained.imported import (
    ImportedModel,
    check_names,
    check_shapes,
    fold_weight_norms,
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
        config, arrays = _config(run, snapshot), _arrays(path, snapshot.tensors)
    except (DamagedError, AttributeError, KeyError, TypeError) as error:
        raise ValueError(
            f"{os.fspath(path)!r} is a damaged checkpoint ({error!r}): take another of its folder."
        ) from error
    check_config(path, config, len(arrays))
    expected = weight_shapes(Architecture.from_config(config))
    check_names(path, _SYSTEM, arrays.keys(), expected.keys())
    check_shapes(path, _SYSTEM, {name: array.shape for name, array in arrays.items()}, expected)
    return ImportedModel(_SYSTEM, arrays, config)


def _config(run: Config, snapshot: Snapshot) -> Config:
    """Return the configuration of the model, as its file would have it."""
    values = snapshot.values
    config = {
        **asdict(Architecture.from_config(run)),
        "preprocessor": run["preprocessor"],
        "n_steps": values["n_steps"],
        "n_bytes_seen": values["n_bytes"],
    }
    if run["pooling"] is not None:  # what the model that it began with recommends
        config["pooling"] = run["pooling"]
    n_steps_before = values["n_steps"] - values["step"]  # of the runs that this one went on from
    for row in values["validation_history"][-1:]:
        if row["step"] > n_steps_before:
            config["bits_per_byte"] = row["bits_per_byte"]
    return config


def _arrays(path: Path, tensors: dict[str, Tensor]) -> Weights:
    """Return the model's arrays, weight norm and double biases folded in."""
    arrays = {
        name.removeprefix(_MODEL): tensor.float().numpy()
        for name, tensor in tensors.items()
        if name.startswith(_MODEL)
    }
    for name in list(arrays):
        if name.endswith(_LENGTH):
            parametrized = name.removesuffix(_LENGTH)
            matrix = parametrized.replace("parametrizations.", "")
            arrays[f"{matrix}_g"] = arrays.pop(name)
            arrays[f"{matrix}_v"] = arrays.pop(parametrized + _DIRECTION)
        elif name.endswith(".recurrent_bias"):
            bias = name.replace(".recurrent_bias", ".bias")
            arrays[bias] = arrays[bias] + arrays.pop(name)
    return fold_weight_norms(path, arrays)
