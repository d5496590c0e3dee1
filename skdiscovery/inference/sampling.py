"""Writing bytes with a trained model, neurons held where one wants them."""

from collections.abc import Mapping

import torch
from torch import Tensor

from skdiscovery.inference.encoding import StateName
from skdiscovery.nn import ByteLanguageModel, State
from skdiscovery.nn.cells import RecurrentLayer


@torch.no_grad()
def sample(
    model: ByteLanguageModel,
    prompt: bytes,
    dtype: torch.dtype,
    *,
    n_bytes: int,
    n_samples: int,
    temperature: float,
    top_k: int | None,
    overwrite: Mapping[int, float],
    overwrite_state: StateName,
    generator: torch.Generator,
) -> list[bytes]:
    """Continue ``prompt`` (one byte or more) ``n_samples`` times by ``n_bytes`` bytes.

    ``overwrite`` holds neurons of the last layer from the prompt's last byte on: the first byte
    written feels it already. A cell state is replaced before the output gate reads it.
    """
    device = model.embedding.device
    held = _HeldNeurons(model, overwrite, overwrite_state)
    model.eval()
    states = model.zero_state(n_samples, dtype)
    read = torch.tensor(list(prompt), device=device)[:, None].expand(-1, n_samples)
    if len(read) > 1:
        _, states = model(read[:-1], states)
    written = torch.empty((n_bytes, n_samples), dtype=torch.uint8, device=device)
    last = read[-1:]
    for position in range(n_bytes):
        top, states = held.step(last, states)
        last = _draw(model.head(top[0]), temperature, top_k, generator)[None]
        written[position] = last[0]
    return [prompt + bytes(column) for column in written.T.cpu().numpy()]


class _HeldNeurons:
    """Neurons of the last layer that keep a value whatever the model computes."""

    def __init__(self, model: ByteLanguageModel, values: Mapping[int, float], state: StateName):
        self.model = model
        self.state = state
        device = model.embedding.device
        self.neurons = torch.tensor(list(values.keys()), dtype=torch.int64, device=device)
        self.values = torch.tensor(list(values.values()), device=device)

    def step(self, symbols: Tensor, states: list[State]) -> tuple[Tensor, list[State]]:
        """Read one byte per sequence, ``symbols`` (1, B); return as the model's ``forward``."""
        top_layer = len(self.model.layers) - 1

        def run(layer: RecurrentLayer, inputs: Tensor, k: int) -> State:
            h, c, gates = layer.forward_with_gates(inputs, None if k else symbols, states[k])
            if k == top_layer and len(self.neurons):
                if self.state == "cell":
                    c[..., self.neurons] = self.values.to(c.dtype)
                    output_gate = gates.chunk(4, dim=-1)[2]
                    held = output_gate[..., self.neurons] * torch.tanh(self.values)
                else:
                    held = self.values
                h[..., self.neurons] = held.to(h.dtype).expand_as(h[..., self.neurons])
            return h, c

        top, traces = self.model.climb(run)
        return top, [(h[-1], c[-1]) for h, c in traces]


def _draw(
    logits: Tensor, temperature: float, top_k: int | None, generator: torch.Generator
) -> Tensor:
    """Draw a byte per row of ``logits`` (n_samples, 256); at temperature 0 the likeliest."""
    if temperature == 0:
        return logits.argmax(dim=1)
    if top_k is not None:
        kth = logits.topk(top_k, dim=1).values[:, -1:]
        logits = logits.masked_fill(logits < kth, -torch.inf)
    below_best = logits - logits.max(dim=1, keepdim=True).values  # so that no quotient overflows
    probabilities = torch.softmax(below_best.double() / temperature, dim=1)
    # Drawn on the CPU, so that a seed gives the same text on every device.
    return torch.multinomial(probabilities.cpu(), 1, generator=generator)[:, 0].to(logits.device)
