"""One vector per document, pooled from its states while they pass by."""

from collections.abc import Sequence

import torch
from torch import Tensor

from skdiscovery.inference.ragged import Chunk

POOLINGS = ("last", "mean", "max")


class Pooler:
    """Pools the states of a batch of documents chunk by chunk, and keeps none of them.

    A document without bytes has the zero state, in every pooling.

    Parameters
    ----------
    poolings : sequence of {"last", "mean", "max"}
        What to compute; the results stand side by side.
    lengths : Tensor of shape (n_documents,)
        Length of each document in bytes, falling.
    width : int
        Number of neurons.
    dtype : torch.dtype
        Dtype of the states.
    """

    def __init__(self, poolings: Sequence[str], lengths: Tensor, width: int, dtype: torch.dtype):
        self.lengths = lengths[:, None]
        dtype = torch.promote_types(dtype, torch.float32)
        # A sum over millions of bytes needs float64.
        dtypes = {"last": dtype, "mean": torch.float64, "max": dtype}
        self.pooled = {
            pooling: lengths.new_zeros((len(lengths), width), dtype=dtypes[pooling])
            for pooling in poolings
        }
        if "max" in self.pooled:
            self.pooled["max"].masked_fill_(self.lengths > 0, -torch.inf)

    def update(self, chunk: Chunk, rows: Tensor) -> None:
        """Take in the states of a chunk, ``rows`` of shape (N, width)."""
        for block in chunk.blocks(rows):
            for pooling, pooled in self.pooled.items():
                running = pooled[: block.shape[1]]
                if pooling == "last":
                    running.copy_(block[-1])
                elif pooling == "mean":
                    running += block.sum(0, dtype=torch.promote_types(block.dtype, torch.float32))
                else:
                    torch.maximum(running, block.amax(0), out=running)

    def result(self) -> Tensor:
        """Return the pooled vectors, of shape (n_documents, n_poolings * width)."""
        pooled = dict(self.pooled)
        if "mean" in pooled:
            pooled["mean"] = pooled["mean"] / self.lengths.clamp(min=1)
        return torch.cat(list(pooled.values()), dim=1)
