"""What training leaves on its way, as a model: a checkpoint of ``fit(checkpoint_dir=...)``."""

import os
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from skdiscovery.nn import Architecture, ByteLanguageModel
from skdiscovery.nn.model import Config, WeightNorm, make_config
from skdiscovery.nn.weights import Weights, folded_weights
from skdiscovery.pretrained.format import check_config
from skdiscovery.pretrained.imported import ImportedModel
from skdiscovery.training.checkpoint import DamagedError, Snapshot, read_checkpoint
from skdiscovery.training.history import rows_after

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
    n_steps_before = values["n_steps"] - values["step"]  # of the runs that this one went on from
    validations = rows_after(n_steps_before, values["validation_history"])
    return make_config(
        Architecture.from_config(run),
        run["preprocessor"],
        n_steps=values["n_steps"],
        n_bytes_seen=values["n_bytes"],
        pooling=run["pooling"],
        bits_per_byte=validations[-1]["bits_per_byte"] if validations else None,
    )


def _weights(
    tensors: dict[str, Tensor], architecture: Architecture, weight_norm: WeightNorm
) -> Weights:
    """Return the weights that training would end with here."""
    with torch.device("meta"):
        model = ByteLanguageModel(architecture).normalise_weights(weight_norm)
    model.load_state_dict(tensors, assign=True)
    return folded_weights(model)
