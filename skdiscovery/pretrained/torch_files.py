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
        If the file is cut short or damaged, asks for more than tensors and plain values, or claims
        to hold more than it can.
    """
    n_bytes = os.path.getsize(path)
    try:
        # torch does not look at the checksums that its files have.
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                # torch compresses nothing: only a bomb unpacks to more than it is.
                if sum(member.file_size for member in archive.infolist()) > n_bytes:
                    raise ValueError("its archive claims to hold more than it can")
                if (member := archive.testzip()) is not None:
                    raise ValueError(f"the checksum of {member!r} does not match")
                if all(name.endswith(".npy") for name in archive.namelist()):
                    raise ValueError("it is an .npz archive: unpack it, and give the folder")
        # An open file, for torch may take a path's suffix for what the file is. A command line's
        # options are in sentiment-discovery's checkpoints: objects that only have attributes.
        with open(path, "rb") as file, safe_globals([argparse.Namespace]):
            content = torch.load(file, weights_only=True, map_location="cpu")
        checkpoint = isinstance(content, Mapping) and "state_dict" in content
        tensors = dict(_flatten(content["state_dict"] if checkpoint else content, set()))
        # A tensor may be a view that repeats a few numbers, and one tensor may have two names.
        if sum(tensor.numel() * tensor.element_size() for tensor in tensors.values()) > 2 * n_bytes:
            raise ValueError("its tensors claim to be larger than the file")
        return {name: tensor.detach().float().numpy() for name, tensor in tensors.items()}
    except Exception as error:  # a damaged pickle may raise anything
        # Not from the error: torch's text goes on to advise how to run the code.
        raise ValueError(f"{os.fspath(path)!r} {_explain(error, path)}") from None


def _flatten(content: Any, seen: set[int], name: str = "") -> Iterator[tuple[str, torch.Tensor]]:
    if isinstance(content, torch.Tensor):
        yield name, content
    elif isinstance(content, Mapping):
        if id(content) in seen:  # as in itself: there would be no end
            raise ValueError(f"the dict {name!r} is in it more than once")
        seen.add(id(content))
        for key, value in content.items():
            yield from _flatten(value, seen, f"{name}.{key}" if name else str(key))


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
