"""Importer of state dicts: models of sentiment-discovery, and of pytorch-sentiment-neuron."""

import os
import re
from functools import reduce

import numpy as np

from skdiscovery.nn.model import N_SYMBOLS, Architecture
from skdiscovery.nn.weights import Weights, weight_shapes
from skdiscovery.pretrained.imported import (
    ImportedModel,
    check_names,
    check_shapes,
    fold_weight_norms,
    imported_model,
    listed,
)
from skdiscovery.pretrained.layouts import LAYOUTS, Gates, Layout
from skdiscovery.pretrained.torch_files import read_tensors

StateDict = dict[str, np.ndarray]


def import_state_dict(path: str | os.PathLike, gates: Gates | None = None) -> ImportedModel:
    """Return the model of a ``.pt`` file, weight norm folded in and biases added up.

    Parameters
    ----------
    path : path-like
        A state dict, bare or in the checkpoint that its system writes.
    gates : {"ifou", "ifuo"}, default=None
        Order of the gates in the file; None is that of its system. sentiment-discovery v0.2 has
        the names of later versions, and mLSTMs with "ifou".

    Raises
    ------
    ValueError
        If the file asks for code, is damaged, or does not hold a model of a known system.
    """
    state = fold_weight_norms(path, read_tensors(path))
    # Later versions save a featurizer, called encoder, that has an encoder and an rnn.
    state = {re.sub(r"^encoder\.(?=(encoder|rnn)\.)", "", name): a for name, a in state.items()}
    for layout in LAYOUTS:
        n_layers = layout.count_layers(state)
        if n_layers:
            return _import(path, state, layout, n_layers, gates)
    raise ValueError(
        f"{os.fspath(path)!r} is a file of torch.save, but not of a language model that "
        "skdiscovery reads, which are the mLSTMs and LSTMs of sentiment-discovery and of "
        f"pytorch-sentiment-neuron. Its tensors: {listed(state)}."
    )


def _import(
    path: str | os.PathLike, state: StateDict, layout: Layout, n_layers: int, gates: Gates | None
) -> ImportedModel:
    cell = layout.find_cell(state)
    names = layout.names(cell, n_layers)
    check_names(
        path, layout.system, found=set(state), expected={n for many in names.values() for n in many}
    )
    if n_layers > 1 and not layout.residual:
        raise ValueError(
            f"{os.fspath(path)!r} has {n_layers} layers of {layout.system}, each of which reads "
            "the one below alone; skdiscovery's read the sum of all below, as in v0. Of later "
            "versions it can read models of one layer."
        )
    if layout.may_pad:
        state = _without_padding_symbol(state, layout)
    bias, wx = (state[names[f"layers.0.{name}"][0]] for name in ("bias", "wx"))
    architecture = Architecture(
        hidden_size=bias.size // 4,
        embedding_size=wx.size // max(bias.size, 1),
        n_layers=n_layers,
        cell=cell.cell,
    )
    shapes = weight_shapes(architecture)
    check_shapes(
        path,
        layout.system,
        found={name: array.shape for name, array in state.items()},
        expected={name: shapes[ours] for ours, many in names.items() for name in many},
    )
    weights = {ours: reduce(np.add, [state[name] for name in many]) for ours, many in names.items()}
    if (gates or cell.gates) == "ifuo":
        _swap_last_gates(weights, n_layers)
    return imported_model(path, layout.system, weights, architecture, layout.preprocessor)


def _without_padding_symbol(state: StateDict, layout: Layout) -> StateDict:
    """Drop the rows of symbol 0, if there are rows for more than the bytes."""
    by_symbol = (layout.embedding, f"{layout.head}.weight", f"{layout.head}.bias")
    padded = [name for name in by_symbol if state[name].shape[:1] == (N_SYMBOLS + 1,)]
    return state | {name: state[name][1:] for name in padded}


def _swap_last_gates(weights: Weights, n_layers: int) -> None:
    for k in range(n_layers):
        for name in (f"layers.{k}.wx", f"layers.{k}.wh", f"layers.{k}.bias"):
            first, second, third, fourth = np.split(weights[name], 4)
            weights[name] = np.concatenate([first, second, fourth, third])
