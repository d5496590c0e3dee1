"""Pretraining: lanes of bytes, the optimisation loop, and its history."""

from skdiscovery.training.lanes import Lanes, PersistState
from skdiscovery.training.loop import Trainer
from skdiscovery.training.optimization import OptimizationOptions

__all__ = ["Lanes", "OptimizationOptions", "PersistState", "Trainer"]
