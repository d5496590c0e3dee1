"""Pretraining: lanes of bytes, the optimisation loop, its history, checkpoints and ranks."""

from skdiscovery.training.lanes import Lanes, PersistState
from skdiscovery.training.loop import Trainer
from skdiscovery.training.optimization import OptimizationOptions
from skdiscovery.training.plan import TrainingPlan

__all__ = ["Lanes", "OptimizationOptions", "PersistState", "Trainer", "TrainingPlan"]
