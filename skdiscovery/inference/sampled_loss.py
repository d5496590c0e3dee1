"""How well a model predicts what it reads, from a sample of the bytes that pass by."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from skdiscovery.inference.ragged import Chunk
from skdiscovery.nn import ByteLanguageModel
from skdiscovery.ops import own_arithmetic

N_SAMPLED = 1024
"""Predictions in a sample, at most: enough to tell a mean to a tenth of a bit per byte."""


class SampledLoss:
    """Mean loss over bytes that are spread evenly over all documents.

    Parameters
    ----------
    n_bytes : int
        Number of bytes that are going to be read.

    Attributes
    ----------
    n_predicted : int
        Number of bytes in the sample.
    """

    def __init__(self, n_bytes: int):
        self.n_predicted = 0
        self._every = math.ceil(n_bytes / N_SAMPLED)
        self._n_read = 0
        self._nats: torch.Tensor | float = 0.0

    @torch.no_grad()
    def update(self, model: ByteLanguageModel, chunk: Chunk, documents: Sequence[bytes]) -> None:
        """Take in a chunk of the batch that ``documents`` are."""
        n_rows = len(chunk.symbols)
        rows = np.arange(-self._n_read % self._every, n_rows, self._every)
        self._n_read += n_rows
        ranks, steps = (places[rows] for places in chunk.places())
        # What a model reads after the last byte of a document, it need not predict.
        next_bytes = {
            row: documents[rank][step + 1]
            for row, rank, step in zip(rows, ranks, steps, strict=True)
            if step + 1 < len(documents[rank])
        }
        if next_bytes:
            states = chunk.top[list(next_bytes)]
            targets = torch.tensor(list(next_bytes.values()), device=states.device)
            with own_arithmetic(states.device):
                nats = cross_entropy(model.logits(states), targets, reduction="sum")
            self._nats = self._nats + nats
            self.n_predicted += len(next_bytes)

    def bits_per_byte(self) -> float:
        """Return the mean over the sample."""
        return float(self._nats) / self.n_predicted / math.log(2)
