"""Trained models on disk: the file format, and the models that ship."""

from skdiscovery.pretrained.format import read_model, write_model
from skdiscovery.pretrained.shipped import find_model, shipped_models

__all__ = ["find_model", "read_model", "shipped_models", "write_model"]
