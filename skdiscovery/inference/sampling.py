"""Writing bytes with a trained model, neurons held where one wants them."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from skdiscovery.inference.encoding import StateName
from skdiscovery.inference.ragged import length_sorted_batches, read
from skdiscovery.nn import ByteLanguageModel, State
from skdiscovery.nn.cells import RecurrentLayer
from skdiscovery.ops import own_arithmetic
from skdiscovery.text.corpus import document_offsets

_BYTES_PER_LOOK = 16
"""How often to look if all texts have ended: it waits for the GPU."""


class Trace(NamedTuple):
    """A text, and what neurons of one layer hold after each of its bytes.

    ``text_bytes`` is the prompt as the model reads it and what it wrote; ``hidden`` and ``cell``
    are float32 arrays of shape (n_bytes, n_neurons).
    """

    text_bytes: bytes
    hidden: np.ndarray
    cell: np.ndarray


@torch.no_grad()
def sample(
    model: ByteLanguageModel,
    prompts: Sequence[bytes],
    dtype: torch.dtype,
    *,
    n_bytes: int,
    n_samples: int,
    temperature: float,
    top_k: int | None,
    overwrite: Mapping[int, float],
    overwrite_state: StateName,
    layer: int,
    traced: np.ndarray,
    end: int | None,
    generator: torch.Generator,
) -> list[Trace]:
    """Continue each prompt (one byte or more) ``n_samples`` times by ``n_bytes`` bytes.

    ``overwrite`` holds neurons of ``layer`` from the prompt's last byte on: the first byte written
    feels it already. A cell state is replaced before the output gate reads it. The traces are of
    the neurons ``traced`` of the same layer. If a byte ``end`` is written, the text ends before it.
    """
    device = model.embedding.device
    columns = torch.as_tensor(traced, device=device)
    held = _HeldNeurons(model, layer, overwrite, overwrite_state)
    prompt_of = [i for i in range(len(prompts)) for _ in range(n_samples)]
    states, before = _read([prompt[:-1] for prompt in prompts], model, dtype, layer, columns)
    states = [(h[prompt_of], c[prompt_of]) for h, c in states]
    last = torch.tensor([[prompts[i][-1] for i in prompt_of]], dtype=torch.int64, device=device)
    # On the CPU, so that a seed gives the same text on every device; all at once, so that a GPU
    # need not be waited for at every byte.
    shape = n_bytes, len(prompt_of)
    uniforms = torch.rand(shape, generator=generator, dtype=torch.float64, device="cpu")
    uniforms = uniforms.to(device)
    written = torch.zeros(shape, dtype=torch.uint8, device=device)
    values_after = torch.zeros(
        (2, n_bytes + 1, len(prompt_of), len(columns)), dtype=torch.float32, device=device
    )
    going_on = torch.ones(len(prompt_of), dtype=torch.bool, device=device)
    with own_arithmetic(device):
        for position in range(n_bytes + 1):  # one more than is written: the last byte is read, too
            top, states = held.step(last, states)
            if len(columns):
                values_after[:, position] = _values(states[layer], columns)
            if position == n_bytes:
                break
            if end is not None and position % _BYTES_PER_LOOK == 0 and not going_on.any():
                break
            last = _draw(model.logits(top[0]), temperature, top_k, uniforms[position])[None]
            written[position] = last[0]
            if end is not None:
                going_on &= last[0] != end
    after = values_after.cpu().numpy()
    traces: list[Trace] = []
    for i, column in zip(prompt_of, written.T.cpu().numpy(), strict=True):
        text = bytes(column) if end is None else bytes(column).partition(bytes([end]))[0]
        values = np.concatenate([before[i], after[:, : len(text) + 1, len(traces)]], axis=1)
        traces.append(Trace(prompts[i] + text, *values))
    return traces


def _read(
    documents: Sequence[bytes],
    model: ByteLanguageModel,
    dtype: torch.dtype,
    layer: int,
    columns: Tensor,
) -> tuple[list[State], list[np.ndarray]]:
    """Read documents from the zero state.

    Returns the states of each layer at the end of each document, and for each document what the
    neurons ``columns`` of ``layer`` hold after each byte, of shape (2, n_bytes, n_neurons).
    """
    model.eval()
    states = model.zero_state(len(documents), dtype)
    sizes = [len(document) for document in documents]
    offsets = document_offsets(sizes)
    values = np.empty((2, int(offsets[-1]), len(columns)), dtype=np.float32)
    for batch in length_sorted_batches(sizes, model.embedding.device):
        for chunk in read(model, [documents[i] for i in batch], dtype):
            ranks, steps = chunk.places()
            document = batch[ranks]
            positions = offsets[document] + steps
            values[:, positions] = _values(chunk.traces[layer], columns).cpu().numpy()
            ended = np.flatnonzero(positions == offsets[document + 1] - 1)
            for state, trace in zip(states, chunk.traces, strict=True):
                for tensor, rows in zip(state, trace, strict=True):
                    tensor[document[ended]] = rows[ended]
    return states, np.split(values, offsets[1:-1], axis=1)


def _values(state: State, columns: Tensor) -> Tensor:
    """Return hidden and cell state of some neurons, float32, of shape (2, n, n_neurons)."""
    return torch.stack([tensor[:, columns].float() for tensor in state])


class _HeldNeurons:
    """Neurons of one layer that keep a value whatever the model computes."""

    def __init__(
        self, model: ByteLanguageModel, layer: int, values: Mapping[int, float], state: StateName
    ):
        self.model = model
        self.layer = layer
        self.state = state
        device = model.embedding.device
        self.neurons = torch.tensor(list(values.keys()), dtype=torch.int64, device=device)
        self.values = torch.tensor(list(values.values()), dtype=torch.float32, device=device)

    def step(self, symbols: Tensor, states: list[State]) -> tuple[Tensor, list[State]]:
        """Read one byte per sequence, ``symbols`` (1, B); return as the model's ``forward``."""

        def run(layer: RecurrentLayer, inputs: Tensor, k: int) -> State:
            h, c, gates = layer.forward_with_gates(inputs, None if k else symbols, states[k])
            if k == self.layer and len(self.neurons):
                if self.state == "cell":
                    c[..., self.neurons] = self.values.to(c.dtype)
                    output_gate = gates.chunk(4, dim=-1)[2]
                    held = output_gate[..., self.neurons] * torch.tanh(self.values)
                else:
                    held = self.values
                h[..., self.neurons] = held.to(h.dtype)
            return h, c

        top, traces = self.model.run_layers(run)
        return top, [(h[-1], c[-1]) for h, c in traces]


def _draw(logits: Tensor, temperature: float, top_k: int | None, uniforms: Tensor) -> Tensor:
    """Draw a byte per row of ``logits`` (n, 256); at temperature 0 the likeliest.

    ``uniforms`` (n,), float64, are where in [0, 1) the byte lies if all stand side by side, each as
    wide as it is likely.
    """
    if temperature == 0:
        return logits.argmax(dim=1)
    if top_k is not None:
        kth = logits.topk(top_k, dim=1).values[:, -1:]
        logits = logits.masked_fill(logits < kth, -torch.inf)
    below_best = logits - logits.max(dim=1, keepdim=True).values  # so that no quotient overflows
    edges = torch.softmax(below_best.double() / temperature, dim=1).cumsum(dim=1)
    return (edges <= uniforms[:, None] * edges[:, -1:]).sum(dim=1)
