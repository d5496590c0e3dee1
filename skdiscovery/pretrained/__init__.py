"""Trained models on disk: the file format, the models that ship, and importers of others'."""

from skdiscovery.pretrained.format import read_model, write_model
from skdiscovery.pretrained.importers import import_model
from skdiscovery.pretrained.npy_folders import export_openai
from skdiscovery.pretrained.shipped import find_model, shipped_models

__all__ = [
    "export_openai", "find_model", "import_model", "read_model", "shipped_models", "write_model"
]  # fmt: skip
