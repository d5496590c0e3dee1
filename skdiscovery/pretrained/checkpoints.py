"""What training leaves on its way, as a model: a checkpoint of ``fit(checkpoint_dir=...)``."""

import os
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from skdiscovery.nn import Architecture, ByteLanguageModel
from skdiscovery.nn.model import Config, WeightNorm
from skdiscovery.nn.weights import Weights, folded_weights
from skdiscovery.pretrained.format import check_config
from skdiscovery.pretrained.imported import ImportedModel
from skdiscovery.training.checkpoint import DamagedError, Snapshot, read_checkpoint

_MODEL = "model."  # what the names of the model's own arrays begin with


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
        config = _config(run, snapshot)
        tensors = {
            name.removeprefix(_MODEL): tensor
            for name, tensor in snapshot.tensors.items()
            if name.startswith(_MODEL)
        }
        check_config(path, config, len(tensors))
        weights = _weights(tensors, Architecture.from_config(config), run["weight_norm"])
    except (DamagedError, AttributeError, KeyError, RuntimeError, TypeError) as error:
        raise ValueError(
            f"{os.fspath(path)!r} is a damaged checkpoint ({error!r}): take another of its folder."
        ) from error
    return ImportedModel("skdiscovery", weights, config)


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


def _weights(
    tensors: dict[str, Tensor], architecture: Architecture, weight_norm: WeightNorm
) -> Weights:
    """Return the weights that training would end with here."""
    with torch.device("meta"):
        model = ByteLanguageModel(architecture).normalise_weights(weight_norm)
    model.load_state_dict(tensors, assign=True)
    return folded_weights(model)
