"""Pretraining: lanes of bytes, the optimisation loop, its history, checkpoints and ranks."""

from skdiscovery.training.lanes import Lanes, PersistState
from skdiscovery.training.loop import train
from skdiscovery.training.optimization import OptimizationOptions
from skdiscovery.training.plan import TrainingPlan
from skdiscovery.training.trainer import Trainer

__all__ = ["Lanes", "OptimizationOptions", "PersistState", "Trainer", "TrainingPlan", "train"]
