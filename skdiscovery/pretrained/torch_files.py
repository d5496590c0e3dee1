"""Reads the tensors of a ``.pt`` file, never the objects around them: no file can run code."""

import argparse
import os
import pickle
import re
import zipfile
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch.serialization import safe_globals

from skdiscovery.files import size_and_hash

HOW_TO_SAVE_TENSORS = (
    "torch.save(checkpoint['state_dict'], path) or, for pytorch-sentiment-neuron, "
    "torch.save({'embed': checkpoint['embed'].state_dict(), 'rnn': checkpoint['rnn']"
    ".state_dict()}, path)"
)


def read_tensors(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Return the tensors of a state dict as float32 arrays, by their dotted names.

    The state dict may be nested, and may be the ``state_dict`` of a checkpoint.

    Raises
    ------
    ValueError
        If the file is cut short or damaged, or asks for more than tensors and plain values.
    """
    try:
        # torch does not look at the checksums that its files have.
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                if (member := archive.testzip()) is not None:
                    raise ValueError(f"the checksum of {member!r} does not match")
                if all(name.endswith(".npy") for name in archive.namelist()):
                    raise ValueError("it is an .npz archive: unpack it, and give the folder")
        # An open file, for torch may take a path's suffix for what the file is. A command line's
        # options are in sentiment-discovery's checkpoints: objects that only have attributes.
        with open(path, "rb") as file, safe_globals([argparse.Namespace]):
            content = torch.load(file, weights_only=True, map_location="cpu")
        checkpoint = isinstance(content, Mapping) and "state_dict" in content
        return dict(_flatten(content["state_dict"] if checkpoint else content))
    except Exception as error:  # a damaged pickle may raise anything
        # Not from the error: torch's text goes on to advise how to run the code.
        raise ValueError(f"{os.fspath(path)!r} {_explain(error, path)}") from None


def _flatten(content: Any, name: str = "") -> Iterator[tuple[str, np.ndarray]]:
    if isinstance(content, torch.Tensor):
        yield name, content.detach().float().numpy()
    elif isinstance(content, Mapping):
        for key, value in content.items():
            yield from _flatten(value, f"{name}.{key}" if name else str(key))


def _explain(error: Exception, path: str | os.PathLike) -> str:
    asked = re.search(r"GLOBAL (\S+)", str(error))
    if isinstance(error, pickle.UnpicklingError) and asked:
        return (
            f"asks for {asked[1]}, which is code: skdiscovery reads tensors and runs nothing that "
            "a file asks for. If you trust the file, open it where it was made and save its "
            f"tensors alone, as in {HOW_TO_SAVE_TENSORS}."
        )
    if isinstance(error, pickle.UnpicklingError):
        reason = "it is a pickle of more than tensors, which could run code and is not read"
    else:
        reason = (str(error) or type(error).__name__).splitlines()[0].rstrip(".")
    return (
        f"is cut short, damaged, or not a file of torch.save: {reason}. It has "
        f"{size_and_hash(path)}."
    )
