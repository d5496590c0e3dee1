"""What decides about the weights that a training ends with, besides the corpus."""

from dataclasses import dataclass
from typing import Any

import torch

from skdiscovery.nn import Architecture, ByteLanguageModel
from skdiscovery.nn.model import WeightNorm
from skdiscovery.ops import resolve_backend
from skdiscovery.text import TextCorpus
from skdiscovery.training.lanes import Lanes, PersistState
from skdiscovery.training.optimization import OptimizationOptions


@dataclass(frozen=True)
class TrainingPlan:
    """A training, said in full: all ranks of a run follow the same.

    The fields are parameters of :class:`skdiscovery.ByteMLSTMLanguageModel`, but for ``dtype``,
    that of the recurrent products, and ``seed``, which the initial weights, the order of the
    documents and dropout follow from.
    """

    architecture: Architecture
    optimization: OptimizationOptions
    seed: int
    dropout: float = 0.0
    weight_norm: WeightNorm = True
    dtype: torch.dtype = torch.float32
    batch_size: int = 128
    seq_length: int = 256
    persist_state: PersistState = "shard"
    max_epochs: int = 1
    max_steps: int | None = None
    checkpoint_every: int = 5000
    backend: str = "auto"

    @property
    def weights_dtype(self) -> torch.dtype:
        """The dtype of the weights, never narrower than float32."""
        return torch.promote_types(self.dtype, torch.float32)

    @property
    def build(self) -> tuple[Any, ...]:
        """What a model and its optimizer are built by, and keep."""
        optimizer = self.optimization.optimizer
        return (
            self.architecture, self.dropout, self.weight_norm, self.weights_dtype, self.backend,
            optimizer,
        )  # fmt: skip

    def new_model(self) -> ByteLanguageModel:
        """Return a model with initial weights."""
        generator = torch.Generator().manual_seed(self.seed)
        with torch.device("cpu"):
            return ByteLanguageModel(self.architecture, self.dropout).initialise(generator)

    def prepare(self, model: ByteLanguageModel, device: torch.device) -> ByteLanguageModel:
        """Put weight norm on a model, and the model on a device, its weights in full precision.

        Raises
        ------
        ValueError
            If the backend is not available.
        """
        model.use_backend(resolve_backend(self.backend, device))
        model.normalise_weights(self.weight_norm)
        return model.to(device, self.weights_dtype)

    def lanes(self, corpus: TextCorpus) -> Lanes:
        """Deal a corpus to lanes.

        Raises
        ------
        ValueError
            If it is too short.
        """
        return Lanes(corpus, self.batch_size, self.seq_length, self.persist_state)
