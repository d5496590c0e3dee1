"""One recurrent layer: its parameters, and its run over a sequence."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from skdiscovery import ops

State = tuple[Tensor, Tensor]
"""Hidden and cell state of a layer, each of shape (B, H)."""


class RecurrentLayer(nn.Module):
    """What the mLSTM and the LSTM layer share; the gates are in the order i, f, o, u.

    Parameters
    ----------
    input_size, hidden_size : int
        Width of the input and of the state.
    """

    matrices: tuple[str, ...]
    backend = "auto"
    """What runs the recurrence: see :func:`skdiscovery.ops.mlstm`."""
    int8_matrices: tuple[ops.Int8Matrix, ops.Int8Matrix | None] | None = None
    """``wh`` and ``wmh`` as :meth:`forward_packed` is to use them instead of the full ones."""

    def __init__(self, input_size: int, hidden_size: int):
        super().__init__()
        self.wx = new_parameter(4 * hidden_size, input_size)
        self.wh = new_parameter(4 * hidden_size, hidden_size)
        self.bias = new_parameter(4 * hidden_size)

    def initialise(self, generator: torch.Generator) -> None:
        """Draw orthogonal recurrent matrices, uniform input matrices, and a forget bias of 1.

        Orthogonal recurrence is what Radford et al. used; a forget gate that starts open lets the
        state, and its gradient, last from the first step on (Jozefowicz et al. 2015).
        """
        hidden_size = self.wh.shape[1]
        for block in self.wh.data.split(hidden_size):
            nn.init.orthogonal_(block, generator=generator)
        _uniform(self.wx, generator)
        self.bias.data[hidden_size : 2 * hidden_size] = 1.0

    def normalise_weights(self) -> None:
        """Reparametrise each matrix as ``g * v / ||v||``, row by row (Salimans & Kingma 2016)."""
        for name in self.matrices:
            weight_norm(self, name, dim=0)

    @torch.no_grad()
    def round_products_to(self, dtype: torch.dtype) -> None:
        """Keep the recurrent matrices as products in this dtype read them, and not round each time.

        For a model that is not trained any more.
        """
        for name in {"wh", "wmh"}.intersection(self.matrices):
            matrix = self.get_parameter(name)
            matrix.data = matrix.data.to(dtype)

    @torch.no_grad()
    def round_to_int8(self) -> None:
        """Round the recurrent matrices as they are now, for :meth:`forward_packed`."""
        wmh = self.get_parameter("wmh") if "wmh" in self.matrices else None
        self.int8_matrices = (
            ops.Int8Matrix.of(self.wh),
            None if wmh is None else ops.Int8Matrix.of(wmh),
        )

    def gate_bias(self) -> Tensor:
        """Return the bias of the gates, of shape (4H,)."""
        return self.bias

    def multiplicative(self, inputs: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """Return ``Wmx x`` for inputs of shape (..., input_size), and ``Wmh``."""
        return None, None

    def forward(
        self, inputs: Tensor, symbols: Tensor | None, state: State, keep: Tensor | None = None
    ) -> State:
        """Return hidden and cell state after each of T steps, each of shape (T, B, H).

        ``inputs`` has a row of ``input_size`` numbers per step and sequence or, with ``symbols``
        of shape (T, B), per symbol. The recurrent products take the dtype of ``state[0]``.
        """
        h, c, _ = self.forward_with_gates(inputs, symbols, state, keep)
        return h, c

    def forward_with_gates(
        self, inputs: Tensor, symbols: Tensor | None, state: State, keep: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return what :meth:`forward` does, and the gates i, f, o, u of shape (T, B, 4H)."""
        operands = self._operands(inputs, symbols, state[0].dtype)
        return ops.mlstm(*operands, *state, keep, backend=self.backend)

    def forward_packed(
        self, inputs: Tensor, symbols: Tensor | None, batch_sizes: Sequence[int], state: State
    ) -> State:
        """Return hidden and cell state after each step of a packed batch, each (N, H)."""
        x, mx, symbols, wh, wmh = self._operands(inputs, symbols, state[0].dtype)
        if self.int8_matrices is not None:
            return ops.mlstm_packed_int8(
                x, mx, symbols, batch_sizes, *self.int8_matrices, *state, backend=self.backend
            )
        return ops.mlstm_packed(x, mx, symbols, batch_sizes, wh, wmh, *state, backend=self.backend)

    def _operands(
        self, inputs: Tensor, symbols: Tensor | None, dtype: torch.dtype
    ) -> tuple[Tensor, Tensor | None, Tensor | None, Tensor, Tensor | None]:
        if symbols is not None and symbols.numel() < len(inputs):
            # Fewer steps than the table has rows: look up first, then project.
            inputs, symbols = nn.functional.embedding(symbols, inputs), None
        x = nn.functional.linear(inputs, self.wx, self.gate_bias())
        mx, wmh = self.multiplicative(inputs)
        if mx is not None and wmh is not None:
            mx, wmh = mx.to(dtype), wmh.to(dtype)
        return x.to(dtype), mx, symbols, self.wh.to(dtype), wmh


class MLSTMLayer(RecurrentLayer):
    """Multiplicative LSTM (Krause et al. 2016, arXiv:1609.07959)."""

    matrices = ("wx", "wh", "wmx", "wmh")

    def __init__(self, input_size: int, hidden_size: int):
        super().__init__(input_size, hidden_size)
        self.wmx = new_parameter(hidden_size, input_size)
        self.wmh = new_parameter(hidden_size, hidden_size)

    def initialise(self, generator: torch.Generator) -> None:
        """Draw the parameters; the multiplicative matrices as the others of their kind."""
        super().initialise(generator)
        _uniform(self.wmx, generator)
        nn.init.orthogonal_(self.wmh, generator=generator)

    def multiplicative(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Return ``Wmx x`` for inputs of shape (..., input_size), and ``Wmh``."""
        return nn.functional.linear(inputs, self.wmx), self.wmh


class LSTMLayer(RecurrentLayer):
    """LSTM with two biases, as torch's and sentiment-discovery's."""

    matrices = ("wx", "wh")

    def __init__(self, input_size: int, hidden_size: int):
        super().__init__(input_size, hidden_size)
        self.recurrent_bias = new_parameter(4 * hidden_size)

    def gate_bias(self) -> Tensor:
        """Return the sum of both biases."""
        return self.bias + self.recurrent_bias


def new_parameter(*shape: int) -> nn.Parameter:
    """Return a parameter of zeros, in float32 whatever torch's default is."""
    return nn.Parameter(torch.zeros(shape, dtype=torch.float32))


def _uniform(matrix: nn.Parameter, generator: torch.Generator) -> None:
    bound = 1 / math.sqrt(matrix.shape[1])
    nn.init.uniform_(matrix, -bound, bound, generator=generator)
