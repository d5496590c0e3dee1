"""Optimizers and learning-rate schedules by name."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

OPTIMIZERS: dict[str, type[torch.optim.Optimizer]] = {
    cls.__name__.lower(): cls
    for cls in vars(torch.optim).values()
    if isinstance(cls, type)
    and issubclass(cls, torch.optim.Optimizer)
    # Those that need a closure, sparse gradients, or are abstract or for matrices only.
    and cls.__name__ not in ("LBFGS", "Muon", "Optimizer", "SparseAdam")
}
_WITH_FUSED_UPDATE = ("adam", "adamw", "sgd")  # Adagrad's: on a CPU only


@dataclass(frozen=True)
class OptimizationOptions:
    """How gradients become updates: see :class:`skdiscovery.ByteMLSTMLanguageModel`."""

    optimizer: str
    learning_rate: float
    schedule: str
    lr_decay: float
    grad_clip: float | None


def make_optimizer(model: nn.Module, options: OptimizationOptions) -> torch.optim.Optimizer:
    """Return the optimizer that ``options`` names, over the parameters of ``model``.

    Raises
    ------
    ValueError
        If there is no such optimizer.
    """
    name = options.optimizer.lower()
    if name not in OPTIMIZERS:
        raise ValueError(
            f"Unknown optimizer {options.optimizer!r}: expected one of {sorted(OPTIMIZERS)}."
        )
    settings: dict[str, Any] = {"lr": options.learning_rate}
    if name in _WITH_FUSED_UPDATE:
        settings["fused"] = True
    return OPTIMIZERS[name](model.parameters(), **settings)


def make_schedule(
    optimizer: torch.optim.Optimizer,
    options: OptimizationOptions,
    n_steps: int,
    steps_per_epoch: int,
    n_done: int = 0,
) -> LambdaLR:
    """Return a schedule that is stepped once per update, after ``n_done`` of ``n_steps``.

    "linear" falls to 0 over ``n_steps``, "exponential" multiplies the rate by ``lr_decay`` after
    each epoch, "constant" leaves it.
    """
    factors: dict[str, Callable[[int], float]] = {
        "linear": lambda step: max(0.0, 1 - step / n_steps),
        "exponential": lambda step: options.lr_decay ** (step // steps_per_epoch),
        "constant": lambda step: 1.0,
    }
    for group in optimizer.param_groups:
        group["lr"] = group["initial_lr"] = options.learning_rate
    return LambdaLR(optimizer, factors[options.schedule], last_epoch=n_done - 1)
