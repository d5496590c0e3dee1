"""The language model: embedding, a stack of recurrent layers, and a head over the 256 bytes."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, Self, cast

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from skdiscovery.nn.cells import LSTMLayer, MLSTMLayer, RecurrentLayer, State, new_parameter

N_SYMBOLS = 256

Config = dict[str, Any]
"""What a model's file says beside its weights: architecture, preprocessor, how it was trained."""

WeightNorm = bool | Literal["all"]
"""Which matrices have weight norm: none, those of the recurrent layers, or the head's too."""


@dataclass(frozen=True)
class Architecture:
    """What the shapes of a model's weights follow from."""

    hidden_size: int
    embedding_size: int = 64
    n_layers: int = 1
    cell: Literal["mlstm", "lstm"] = "mlstm"

    @classmethod
    def from_config(cls, config: Config) -> Self:
        """Return the architecture of the model that a configuration is of."""
        return cls(**{field.name: config[field.name] for field in fields(cls)})


def make_config(
    architecture: Architecture,
    preprocessor: Any,
    *,
    n_steps: int = 0,
    n_bytes_seen: int = 0,
    pooling: list[str] | str | None = None,
    bits_per_byte: float | None = None,
) -> Config:
    """Return the configuration of a model; what is not known of it is left out."""
    optional = {"pooling": pooling, "bits_per_byte": bits_per_byte}
    return {
        **asdict(architecture),
        "preprocessor": preprocessor,
        "n_steps": n_steps,
        "n_bytes_seen": n_bytes_seen,
        **{name: value for name, value in optional.items() if value is not None},
    }


class Dropout(nn.Module):
    """Dropout that draws its masks from a generator of its own.

    From the process's own, which :class:`torch.nn.Dropout` uses, other threads draw, too.

    Parameters
    ----------
    p : float
        Share of the inputs that is zeroed in training, below 1; the others are scaled up.
    """

    def __init__(self, p: float):
        super().__init__()
        self.p = p
        self.generator: torch.Generator | None = None

    def seed(self, seed: int, device: torch.device) -> None:
        """Draw the next masks, for inputs on a device, from a new generator."""
        self.generator = torch.Generator(device).manual_seed(seed)

    def forward(self, x: Tensor) -> Tensor:
        """Zero some of the inputs, if the model is in training."""
        if not self.training or not self.p:
            return x
        kept = torch.empty_like(x, dtype=torch.bool).bernoulli_(
            1 - self.p, generator=self.generator
        )
        return x * kept * (1 / (1 - self.p))


class ByteLanguageModel(nn.Module):
    """A stack of recurrent layers that predicts the next byte.

    The first layer reads the embedding; a later one reads the sum of the outputs below it, and the
    head reads the sum of all. Dropout follows each layer, never the recurrence.

    Parameters
    ----------
    architecture : Architecture
        Sizes and cell.
    dropout : float, default=0.0
        Share of each layer's outputs that is zeroed in training.
    """

    def __init__(self, architecture: Architecture, dropout: float = 0.0):
        super().__init__()
        self.architecture = architecture
        layer = {"mlstm": MLSTMLayer, "lstm": LSTMLayer}[architecture.cell]
        hidden_size, embedding_size = architecture.hidden_size, architecture.embedding_size
        self.embedding = new_parameter(N_SYMBOLS, embedding_size)
        self.layers = nn.ModuleList(
            layer(hidden_size if k else embedding_size, hidden_size)
            for k in range(architecture.n_layers)
        )
        self.dropout = Dropout(dropout)
        self.head = nn.utils.skip_init(nn.Linear, hidden_size, N_SYMBOLS, dtype=torch.float32)

    @property
    def recurrent_layers(self) -> Sequence[RecurrentLayer]:
        """The layers, from the bottom up."""
        return cast(Sequence[RecurrentLayer], self.layers)

    def initialise(self, generator: torch.Generator) -> "ByteLanguageModel":
        """Draw all parameters from ``generator`` and return the model."""
        nn.init.normal_(self.embedding, generator=generator)
        for layer in self.recurrent_layers:
            layer.initialise(generator)
        bound = self.architecture.hidden_size**-0.5
        nn.init.uniform_(self.head.weight, -bound, bound, generator=generator)
        nn.init.zeros_(self.head.bias)
        return self

    def normalise_weights(self, which: WeightNorm = True) -> "ByteLanguageModel":
        """Put weight norm on the matrices of every recurrent layer, the head's too for "all"."""
        if which:
            for layer in self.recurrent_layers:
                layer.normalise_weights()
        if which == "all":
            weight_norm(self.head, "weight", dim=0)
        return self

    def use_backend(self, backend: str) -> "ByteLanguageModel":
        """Say what runs the recurrence (see :func:`skdiscovery.ops.mlstm`); return the model."""
        for layer in self.recurrent_layers:
            layer.backend = backend
        return self

    def zero_state(self, n_sequences: int, dtype: torch.dtype) -> list[State]:
        """Return a zero state of ``n_sequences`` rows per layer, on the model's device.

        The hidden state has the ``dtype`` of the recurrent products; the cell state adds up over
        thousands of steps and is never narrower than float32.
        """
        cell_dtype = torch.promote_types(dtype, torch.float32)
        shape = (n_sequences, self.architecture.hidden_size)
        return [
            (self.embedding.new_zeros(shape, dtype=dtype),
             self.embedding.new_zeros(shape, dtype=cell_dtype))
            for _ in self.layers
        ]  # fmt: skip

    def forward(
        self, symbols: Tensor, states: list[State], keep: Tensor | None = None
    ) -> tuple[Tensor, list[State]]:
        """Read bytes of shape (T, B), int64, from ``states``.

        Returns what :meth:`logits` reads after each byte, of shape (T, B, H), and the states after
        the last one. ``keep`` of shape (T, B) is 0 where the state is reset before a byte.
        """
        top, traces = self.run_layers(
            lambda layer, inputs, k: layer(inputs, None if k else symbols, states[k], keep)
        )
        return top, [(h[-1], c[-1]) for h, c in traces]

    def forward_packed(
        self, symbols: Tensor, batch_sizes: Sequence[int], states: list[State]
    ) -> tuple[Tensor, list[State]]:
        """Read a packed batch of bytes, of shape (N,), int64: see :func:`ops.mlstm_packed`.

        Returns what :meth:`logits` reads after each byte, of shape (N, H), and the states of each
        layer after each byte.
        """
        return self.run_layers(
            lambda layer, inputs, k: layer.forward_packed(
                inputs, None if k else symbols, batch_sizes, states[k]
            )
        )

    def run_layers(
        self, run: Callable[[RecurrentLayer, Tensor, int], State]
    ) -> tuple[Tensor, list[State]]:
        """Run the layers from the bottom up; return the sum of their outputs, and all states.

        ``run`` takes a layer, its input, and its number, and returns the layer's states. The input
        of the first layer is the embedding table.
        """
        total: Tensor | None = None
        traces = []
        for k, layer in enumerate(self.recurrent_layers):
            inputs = self.embedding if total is None else total.to(self.embedding.dtype)
            h, c = run(layer, inputs, k)
            traces.append((h, c))
            total = self.dropout(h if total is None else total + h)
        return cast(Tensor, total), traces

    def logits(self, top: Tensor) -> Tensor:
        """Return the logits of the next byte, (..., 256), from ``top`` of :meth:`forward`."""
        # Autocast would narrow again what was widened.
        is_ready = torch.is_autocast_enabled(top.device.type)
        return self.head(top if is_ready else top.to(self.embedding.dtype))
