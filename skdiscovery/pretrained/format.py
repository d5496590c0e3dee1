"""One ``.safetensors`` file per model: the weights, and the configuration as JSON in its header.

Neither can run code, whoever wrote the file. A checksum of both shows later damage.
"""

import json
import os
from hashlib import sha256
from typing import Any, Literal

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from skdiscovery.files import size_and_hash, whole_file
from skdiscovery.nn.model import Architecture
from skdiscovery.nn.weights import Weights, weight_shapes

FORMAT_VERSION = 1
_HEADER_KEY = "skdiscovery"
_CHECKSUM_KEY = "sha256"
_CONFIG_ENTRIES = {
    *Architecture.__dataclass_fields__, "preprocessor", "n_steps", "n_bytes_seen"
}  # fmt: skip

Config = dict[str, Any]


def write_model(
    path: str | os.PathLike,
    weights: Weights,
    config: Config,
    dtype: Literal["float32", "float16"] = "float32",
) -> None:
    """Write a model to ``path``; an interrupted write leaves what was there before.

    Raises
    ------
    ValueError
        If the configuration is not JSON: a preprocessor that is a function cannot be kept.
    """
    if dtype not in ("float32", "float16"):
        raise ValueError(f"Unknown dtype {dtype!r}: expected 'float32' or 'float16'.")
    try:
        header = json.dumps({"format_version": FORMAT_VERSION, **config})
    except TypeError as error:
        raise ValueError(
            f"The model's configuration cannot be written as JSON ({error}): a model with a "
            "function as its preprocessor is kept by joblib, not by save_pretrained."
        ) from error
    arrays = {name: np.ascontiguousarray(w, dtype=dtype) for name, w in weights.items()}
    with whole_file(path) as temporary:
        checksum = _checksum(header, arrays)
        save_file(arrays, temporary, metadata={_HEADER_KEY: header, _CHECKSUM_KEY: checksum})


def read_model(path: str | os.PathLike) -> tuple[Weights, Config]:
    """Return the weights, as float32 arrays, and the configuration of a model file.

    Raises
    ------
    ValueError
        If the file is not a model of ours, is cut short or altered, or does not have the arrays
        that its configuration asks for.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            header = metadata.get(_HEADER_KEY)
            # Others' arrays may be of types that numpy lacks, so not before it is known to be ours.
            names = file.keys() if header is not None else ()
            arrays = {name: file.get_tensor(name) for name in names}
    except SafetensorError as error:
        raise ValueError(
            f"{os.fspath(path)!r} is not a model of skdiscovery: expected a whole .safetensors "
            f"file written by save_pretrained, but reading it says: {error}. It has "
            f"{size_and_hash(path)}: compare them with those of the file that this is a copy of."
        ) from error
    if header is None:
        raise ValueError(
            f"{os.fspath(path)!r} is a .safetensors file of something else: it has no "
            f"{_HEADER_KEY!r} entry in its header. Expected a file written by save_pretrained."
        )
    checksum = metadata.get(_CHECKSUM_KEY)  # early files have none
    if checksum is not None and checksum != _checksum(header, arrays):
        raise ValueError(
            f"{os.fspath(path)!r} was altered or damaged after save_pretrained wrote it: its "
            f"contents do not match their checksum. It has {size_and_hash(path)}: compare them "
            "with those of the file that this is a copy of."
        )
    config = _parse_config(path, header)
    _check_shapes(path, arrays, config)
    return {name: array.astype(np.float32) for name, array in arrays.items()}, config


def architecture_of(config: Config) -> Architecture:
    """Return the part of a configuration that the weights' shapes follow from."""
    names = ("hidden_size", "embedding_size", "n_layers", "cell")
    return Architecture(**{name: config[name] for name in names})


def _checksum(header: str, arrays: Weights) -> str:
    """Return a hash of the configuration as written and of the arrays as stored."""
    digest = sha256(header.encode())
    for name, array in sorted(arrays.items()):
        digest.update(name.encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def _parse_config(path: str | os.PathLike, header: str) -> Config:
    try:
        config = json.loads(header)
        version = config["format_version"]
        missing = _CONFIG_ENTRIES - config.keys()
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(
            f"{os.fspath(path)!r} has no configuration in its header: {error!r}."
        ) from error
    if version != FORMAT_VERSION:
        raise ValueError(
            f"{os.fspath(path)!r} has format version {version}, this version of skdiscovery reads "
            f"{FORMAT_VERSION}: upgrade skdiscovery."
        )
    if missing or config["cell"] not in ("mlstm", "lstm"):
        raise ValueError(
            f"{os.fspath(path)!r} has an incomplete configuration in its header: expected "
            f"{sorted(_CONFIG_ENTRIES)} with cell 'mlstm' or 'lstm', got {config}."
        )
    if not isinstance(config.get("bits_per_byte", 0.0), int | float):
        raise ValueError(
            f"{os.fspath(path)!r} has bits_per_byte={config['bits_per_byte']!r} in its header: "
            "expected a number."
        )
    return config


def _check_shapes(path: str | os.PathLike, weights: Weights, config: Config) -> None:
    expected = weight_shapes(architecture_of(config))
    found = {name: array.shape for name, array in weights.items()}
    wrong = [
        f"{name}: expected {expected.get(name, 'nothing')}, got {found.get(name, 'nothing')}"
        for name in sorted(expected.keys() | found.keys())
        if expected.get(name) != found.get(name)
    ]
    if wrong:
        raise ValueError(
            f"{os.fspath(path)!r} has other arrays than its configuration asks for: "
            f"{'; '.join(wrong)}."
        )
