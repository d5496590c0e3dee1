"""A model in training: what lasts from one run to the next."""

from typing import Any

import torch
from torch import Tensor

from skdiscovery.nn import ByteLanguageModel
from skdiscovery.training.checkpoint import Snapshot
from skdiscovery.training.history import Row, rows_after
from skdiscovery.training.optimization import make_optimizer
from skdiscovery.training.plan import TrainingPlan


class Trainer:
    """A model in training: its optimizer, and what it has seen.

    Parameters
    ----------
    plan : TrainingPlan
        What to do.
    model : ByteLanguageModel
        The model, on the device where it trains.

    Attributes
    ----------
    n_steps, n_bytes : int
        Updates made, and bytes predicted.
    history, validation_history : list of dict
        A row per logged step, and per validation.
    has_begun : bool
        Whether a run has started to train the model.
    n_steps_before : int
        Updates made before that run: one that is resumed counts from its own start.
    """

    def __init__(self, plan: TrainingPlan, model: ByteLanguageModel):
        self.plan = plan
        self.model = model
        self.n_steps = 0
        self.n_bytes = 0
        self.history: list[Row] = []
        self.validation_history: list[Row] = []
        self.has_begun = False
        self.n_steps_before = 0
        self.optimizer = make_optimizer(model, plan.optimization)
        self.device = model.embedding.device

    def can_follow(self, plan: TrainingPlan, device: torch.device) -> bool:
        """Return whether the model and the optimizer are such as a plan on a device asks for."""
        is_there = torch.empty(0, device=device).device == self.device  # "cuda" is one of them
        return is_there and plan.build == self.plan.build

    def validations_of_run(self) -> list[Row]:
        """Return the rows of the validation history that are not of a run before the last one."""
        return rows_after(self.n_steps_before, self.validation_history)

    def snapshot(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return weights, optimizer and histories, as tensors and JSON-able values."""
        tensors = {f"model.{name}": w for name, w in self.model.state_dict().items()}
        optimizer: dict[str, Any] = {}
        for index, entries in self.optimizer.state_dict()["state"].items():
            for name, entry in entries.items():
                key = f"optimizer.{index}.{name}"
                (tensors if isinstance(entry, Tensor) else optimizer)[key] = entry
        values = {
            "n_steps": self.n_steps,
            "n_bytes": self.n_bytes,
            "optimizer": optimizer,
            "history": self.history,
            "validation_history": self.validation_history,
        }
        return tensors, values

    def restore(self, snapshot: Snapshot) -> None:
        """Put weights, optimizer and histories back to what they were."""
        tensors, values = snapshot.tensors, snapshot.values
        self.model.load_state_dict(
            {name: tensors[f"model.{name}"] for name in self.model.state_dict()}
        )
        optimizer = self.optimizer.state_dict()
        entries = {n: t for n, t in tensors.items() if n.startswith("optimizer.")}
        for key, entry in (entries | values["optimizer"]).items():
            _, index, name = key.split(".", 2)
            optimizer["state"].setdefault(int(index), {})[name] = entry
        self.optimizer.load_state_dict(optimizer)
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        for index, saved in optimizer["state"].items():  # torch gives them the parameters' dtype
            state = self.optimizer.state[parameters[index]]
            state |= {n: state[n].to(t.dtype) for n, t in saved.items() if isinstance(t, Tensor)}
        self.n_steps, self.n_bytes = values["n_steps"], values["n_bytes"]
        self.history, self.validation_history = values["history"], values["validation_history"]
