"""Models that nobody trains: read once, shared by all that ask for them, and never written to."""

import copy
import os
from functools import lru_cache
from pathlib import Path

from skdiscovery.files import version_of
from skdiscovery.nn.weights import lock
from skdiscovery.pretrained.imported import ImportedModel
from skdiscovery.pretrained.importers import import_model
from skdiscovery.pretrained.shipped import find_model


def read_frozen(name_or_path: str | os.PathLike) -> ImportedModel:
    """Return a model whose arrays cannot be written to.

    Asked for the model that it read last, it gives the same arrays: the clones that a search makes
    all ask for one.

    Parameters
    ----------
    name_or_path : str or path-like
        As :func:`find_model` and :func:`import_model` take it.

    Returns
    -------
    ImportedModel

    Raises
    ------
    ValueError
        If there is no such model, or it is not one, is not whole, or asks for code.
    """
    path = find_model(name_or_path)
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    system, weights, config = _read(path, tuple(map(version_of, files)))
    return ImportedModel(system, dict(weights), copy.deepcopy(config))


@lru_cache(maxsize=1)
def _read(path: Path, versions: tuple[tuple[int, ...], ...]) -> ImportedModel:
    model = import_model(path)
    lock(model.weights)
    return model
