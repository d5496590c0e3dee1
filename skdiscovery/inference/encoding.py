"""What a trained model says of documents: features, traces of neurons, likelihood."""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from skdiscovery.inference.pooling import Pooler
from skdiscovery.inference.ragged import Chunk, length_sorted_batches, read
from skdiscovery.inference.sampled_loss import SampledLoss
from skdiscovery.nn import ByteLanguageModel
from skdiscovery.ops import own_arithmetic
from skdiscovery.progress import tqdm
from skdiscovery.text.corpus import document_offsets

StateName = Literal["cell", "hidden"]

_SCORED_AT_ONCE = 2**14
"""Bytes whose logits are there at once: 256 each, many times what a small model's states are."""


def features(
    model: ByteLanguageModel,
    documents: Sequence[bytes],
    dtype: torch.dtype,
    *,
    poolings: Sequence[str],
    neurons: np.ndarray,
    state: StateName = "cell",
    layer: int = -1,
    batch_bytes: int | None = None,
    loss: SampledLoss | None = None,
    keep: Callable[[np.ndarray, np.ndarray], None] | None = None,
    verbose: int = 0,
) -> np.ndarray:
    """Return the pooled states of each document, of shape (n_documents, n_poolings * n_neurons).

    ``loss`` takes in how well the model predicts what it reads. ``keep`` is called after each batch
    with the indices of its documents and their rows.
    """
    lengths = [len(document) for document in documents]
    columns = torch.tensor(neurons.tolist(), device=model.embedding.device)
    all_in_order = np.array_equal(neurons, np.arange(model.architecture.hidden_size))
    width = len(poolings) * len(columns)
    result: np.ndarray = np.zeros((len(documents), width), dtype=_numpy_dtype(dtype))
    with tqdm(total=sum(lengths), unit="B", unit_scale=True, disable=not verbose) as bar:
        for batch in length_sorted_batches(lengths, columns.device, batch_bytes):
            chosen = [documents[i] for i in batch]
            sizes = torch.tensor([len(d) for d in chosen], device=columns.device)
            pooler = None
            for chunk in read(model, chosen, dtype):
                rows = _states(chunk, state, layer)
                if not all_in_order:
                    rows = rows[:, columns]
                pooler = pooler or Pooler(poolings, sizes, len(columns), rows.dtype)
                pooler.update(chunk, rows)
                if loss is not None:
                    loss.update(model, chunk, chosen)
            if pooler is not None:  # else: documents without bytes
                result[batch] = pooler.result().cpu().numpy()
            if keep is not None:
                keep(batch, result[batch])
            bar.update(int(sizes.sum()))
    return result


def activations(
    model: ByteLanguageModel,
    documents: Sequence[bytes],
    dtype: torch.dtype,
    *,
    neurons: np.ndarray,
    state: StateName = "cell",
    layer: int = -1,
) -> list[np.ndarray]:
    """Return the states after each byte: an array (n_bytes, n_neurons) per document."""
    columns = torch.tensor(neurons.tolist(), device=model.embedding.device)
    traces: dict[int, np.ndarray] = {}
    for batch in length_sorted_batches([len(d) for d in documents], model.embedding.device):
        chosen = [documents[i] for i in batch]
        offsets = document_offsets([len(document) for document in chosen])
        flat = np.empty((int(offsets[-1]), len(columns)), dtype=np.float32)
        for chunk in read(model, chosen, dtype):
            ranks, steps = chunk.places()
            rows = _states(chunk, state, layer)[:, columns]
            flat[offsets[ranks] + steps] = rows.float().cpu().numpy()
        for rank, document in enumerate(batch):
            traces[document] = flat[offsets[rank] : offsets[rank + 1]]
    return [traces[document] for document in range(len(documents))]


@torch.no_grad()
def log_likelihoods(
    model: ByteLanguageModel, documents: Sequence[bytes], dtype: torch.dtype
) -> np.ndarray:
    """Return the log-likelihood, in nats, of each document's bytes after the first."""
    result = np.zeros(len(documents))
    for batch in length_sorted_batches([len(d) for d in documents], model.embedding.device):
        chosen = [documents[i] for i in batch]
        offsets = document_offsets([len(document) for document in chosen])
        data = np.frombuffer(b"".join(chosen), dtype=np.uint8)
        for chunk in read(model, chosen, dtype):
            ranks, steps = chunk.places()
            positions = offsets[ranks] + steps + 1
            has_next = positions < offsets[ranks + 1]
            targets = torch.from_numpy(data[positions[has_next]]).to(chunk.top.device).long()
            rows = chunk.top[torch.from_numpy(has_next).to(chunk.top.device)]
            parts = zip(rows.split(_SCORED_AT_ONCE), targets.split(_SCORED_AT_ONCE), strict=True)
            with own_arithmetic(model.embedding.device):
                losses = [
                    cross_entropy(model.logits(top), next_, reduction="none")
                    for top, next_ in parts
                ]
            loss = torch.cat(losses)
            result[batch] -= np.bincount(
                ranks[has_next], weights=loss.cpu().numpy(), minlength=len(batch)
            )
    return result


def nats_per_byte(
    model: ByteLanguageModel, documents: Sequence[bytes], dtype: torch.dtype
) -> float:
    """Return the mean loss over all bytes after the first of each document."""
    check_scorable(documents)
    n_predicted = sum(max(0, len(document) - 1) for document in documents)
    return -float(log_likelihoods(model, documents, dtype).sum()) / n_predicted


def check_scorable(documents: Sequence[bytes]) -> None:
    """Raise a ValueError if the documents have no byte to predict."""
    if all(len(document) < 2 for document in documents):
        raise ValueError("There is nothing to score: no document has a byte after its first.")


def check_neurons(neurons: Any, hidden_size: int) -> np.ndarray:
    """Return the numbers of neurons as an array; None is all of them.

    Raises
    ------
    ValueError
        If one is out of range, or not a whole number, or there is none.
    """
    if neurons is None:
        return np.arange(hidden_size)
    checked = np.atleast_1d(np.asarray(neurons))
    if checked.ndim != 1 or checked.dtype.kind not in "iu" or not checked.size:
        raise ValueError(
            f"Expected neurons as a list of whole numbers, one at least, got {neurons!r}."
        )
    wrong = checked[(checked < 0) | (checked >= hidden_size)]
    if len(wrong):
        raise ValueError(
            f"Neuron {wrong[0]} is out of range: the model has neurons 0 to {hidden_size - 1}."
        )
    return checked.astype(np.int64)


def check_layer(layer: Any, n_layers: int) -> int:
    """Return the number of a layer; negative ones count from the last.

    Raises
    ------
    ValueError
        If it is out of range, or not a whole number.
    """
    if not isinstance(layer, int | np.integer):
        raise ValueError(f"Expected layer as a whole number, got {layer!r}.")
    if not -n_layers <= layer < n_layers:
        raise ValueError(
            f"Layer {layer} is out of range: the model has {n_layers} layer(s), 0 to "
            f"{n_layers - 1}, or -1 for the last."
        )
    return int(layer) % n_layers


def _states(chunk: Chunk, state: StateName, layer: int) -> Tensor:
    hidden, cell = chunk.traces[layer]
    return cell if state == "cell" else hidden


def _numpy_dtype(dtype: torch.dtype) -> type:
    return np.float64 if dtype == torch.float64 else np.float32
