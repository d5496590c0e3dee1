"""What other systems call the arrays of a model in their state dicts.

Names and gate orders are those that each system's modules give: sentiment-discovery v0 (commit
44a7c85) in StackedLSTM and mLSTMCell, its later versions in apex's RNN, guillitte's
pytorch-sentiment-neuron in models.py.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

Gates = Literal["ifou", "ifuo"]
"""Order of the gates' blocks of rows: input, forget, output gate, and u, the update."""


@dataclass(frozen=True)
class Cell:
    """What the arrays of a layer are called; its bias is the sum of ``biases``."""

    cell: Literal["mlstm", "lstm"]
    matrices: dict[str, str]
    biases: tuple[str, ...]
    gates: Gates


@dataclass(frozen=True)
class Layout:
    """What a system calls the arrays of a model, and what its models are like."""

    system: str
    embedding: str
    layer: str
    head: str
    cells: tuple[Cell, ...]
    preprocessor: str
    residual: bool = True
    """Whether a layer reads the sum of all layers below, as ours do, or the last of them."""
    may_pad: bool = False
    """Whether there may be a symbol 0 for padding, so that byte b is symbol b + 1."""

    def count_layers(self, names: Collection[str]) -> int:
        """Return how many layers have at least one array among ``names``."""
        n_layers = 0
        while any(name.startswith(self.layer.format(n_layers)) for name in names):
            n_layers += 1
        return n_layers

    def find_cell(self, names: Collection[str]) -> Cell:
        """Return the cell that most of ``names`` are of; the first of those that are equal."""
        return max(self.cells, key=lambda cell: len(_flat(self.names(cell, 1)) & set(names)))

    def names(self, cell: Cell, n_layers: int) -> dict[str, tuple[str, ...]]:
        """Return for each array of ours the arrays that it is the sum of."""
        names: dict[str, tuple[str, ...]] = {"embedding": (self.embedding,)}
        for k in range(n_layers):
            prefix = self.layer.format(k)
            for ours, theirs in cell.matrices.items():
                names[f"layers.{k}.{ours}"] = (prefix + theirs,)
            names[f"layers.{k}.bias"] = tuple(prefix + bias for bias in cell.biases)
        for part in ("weight", "bias"):
            names[f"head.{part}"] = (f"{self.head}.{part}",)
        return names


def _flat(names: dict[str, tuple[str, ...]]) -> set[str]:
    return {name for many in names.values() for name in many}


# Torch's LSTMCell, and the mLSTM that is the same in sentiment-discovery v0 and the port.
_LSTM = Cell("lstm", {"wx": "weight_ih", "wh": "weight_hh"}, ("bias_ih", "bias_hh"), "ifuo")
_MLSTM = Cell(
    "mlstm",
    {"wx": "wx.weight", "wh": "wh.weight", "wmx": "wmx.weight", "wmh": "wmh.weight"},
    ("wh.bias",),
    "ifou",
)
# apex's. Until April 2018 its mLSTMs had the order i, f, o, u under the same names:
# github.com/NVIDIA/sentiment-discovery/issues/18. All names of the LSTM are the mLSTM's too.
_APEX_LSTM = Cell("lstm", {"wx": "w_ih", "wh": "w_hh"}, ("b_ih", "b_hh"), "ifuo")
_APEX_MLSTM = Cell(
    "mlstm",
    {"wx": "w_ih", "wh": "w_hh", "wmx": "w_mih", "wmh": "w_mhh"},
    ("b_ih", "b_hh"),
    "ifuo",
)

LAYOUTS = (
    Layout(
        system="sentiment-discovery v0",
        embedding="embedder.weight",
        layer="rnn.layers.{}.",
        head="rnn.h2o",
        cells=(_LSTM, _MLSTM),
        preprocessor="nvidia",
    ),
    Layout(
        system="sentiment-discovery v0.2 or later",
        embedding="encoder.weight",
        layer="rnn.rnns.{}.",
        head="decoder",
        cells=(_APEX_LSTM, _APEX_MLSTM),
        preprocessor="nvidia",
        residual=False,
        may_pad=True,
    ),
    Layout(
        system="pytorch-sentiment-neuron",
        embedding="embed.weight",
        layer="rnn.layer_{}.",
        head="rnn.h2o",
        cells=(_LSTM, _MLSTM),
        preprocessor="openai",
    ),
)
