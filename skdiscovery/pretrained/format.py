"""One ``.safetensors`` file per model: the weights, and the configuration as JSON in its header.

Neither can run code, whoever wrote the file. A checksum of both shows later damage. In a file of
"int8" the recurrent matrices are what :class:`skdiscovery.ops.Int8Matrix` makes of them, the scales
of ``layers.0.wh`` in ``layers.0.wh.scales``, and all else is float16.
"""

import json
import os
import reprlib
import sys
from collections.abc import Callable
from dataclasses import fields
from functools import partial
from hashlib import sha256
from typing import Any, Literal, get_args

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from skdiscovery.files import size_and_hash, whole_file
from skdiscovery.inference.pooling import POOLINGS
from skdiscovery.nn.model import Architecture, Config
from skdiscovery.nn.weights import Weights, shared_tensor, weight_shapes
from skdiscovery.ops import Int8Matrix
from skdiscovery.text.preprocessing import PREPROCESSORS

FORMAT_VERSION = 1
_HEADER_KEY = "skdiscovery"
_VERSION_KEY = "format_version"
_CHECKSUM_KEY = "sha256"
_CONFIG_ENTRIES = {
    *(field.name for field in fields(Architecture)), "preprocessor", "n_steps", "n_bytes_seen"
}  # fmt: skip
_DTYPES = {"F64", "F32", "F16"}
_RECURRENT = (".wh", ".wmh")
_SCALES = ".scales"

StoredDtype = Literal["float32", "float16", "int8"]
"""How a file keeps the weights."""


def write_model(
    path: str | os.PathLike,
    weights: Weights,
    config: Config,
    dtype: StoredDtype = "float32",
) -> None:
    """Write a model to ``path``; an interrupted write leaves what was there before.

    Raises
    ------
    ValueError
        If the configuration is not JSON (a preprocessor that is a function cannot be kept), or one
        that :func:`read_model` would refuse.
    """
    if dtype not in get_args(StoredDtype):
        raise ValueError(f"Unknown dtype {dtype!r}: expected one of {get_args(StoredDtype)}.")
    header = {_VERSION_KEY: FORMAT_VERSION, **config}
    try:
        json.dumps(header)
    except TypeError as error:
        raise ValueError(
            f"The model's config_ cannot be written as JSON ({error}). A model with a function as "
            "its preprocessor is kept by joblib, not by save_pretrained."
        ) from error
    check_config(path, config, len(weights))
    arrays = _narrowed(weights, dtype)
    header[_CHECKSUM_KEY] = _checksum(header, arrays)
    with whole_file(path) as temporary:
        # One entry: of several, safetensors draws the order, and equal models' files would differ.
        save_file(arrays, temporary, metadata={_HEADER_KEY: json.dumps(header)})


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
            if _HEADER_KEY not in metadata:
                raise ValueError(
                    f"{os.fspath(path)!r} is a .safetensors file of something else: it has no "
                    f"{_HEADER_KEY!r} entry in its header. Expected a file written by "
                    "save_pretrained."
                )
            # What the header claims is checked before any array is read.
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
            header = _parse_header(path, metadata[_HEADER_KEY])
            # The file of the model that ships has it beside the configuration. One who edits a
            # file by hand may leave it out.
            checksum = header.pop(_CHECKSUM_KEY, metadata.get(_CHECKSUM_KEY))
            config = {name: value for name, value in header.items() if name != _VERSION_KEY}
            check_config(path, config, len(slices))
            _check_arrays(path, slices, config)
            arrays = {name: file.get_tensor(name) for name in slices}
    except SafetensorError as error:
        raise ValueError(
            f"{os.fspath(path)!r} is not a model of skdiscovery: expected a whole .safetensors "
            f"file written by save_pretrained, but reading it says: {error}. It has "
            f"{size_and_hash(path)}: compare them with those of the file that this is a copy of."
        ) from error
    if checksum is not None and checksum != _checksum(header, arrays):
        raise ValueError(
            f"{os.fspath(path)!r} was altered or damaged after save_pretrained wrote it: its "
            f"contents do not match their checksum. It has {size_and_hash(path)}: compare them "
            "with those of the file that this is a copy of."
        )
    return _widened(arrays), config


def check_config(path: str | os.PathLike, config: Config, n_arrays: int) -> None:
    """Raise a ValueError if a configuration is not whole, or senseless with so many arrays."""
    if _CONFIG_ENTRIES - config.keys() or config["cell"] not in ("mlstm", "lstm"):
        raise ValueError(
            f"The configuration of {os.fspath(path)!r} is incomplete: expected "
            f"{sorted(_CONFIG_ENTRIES)} with cell 'mlstm' or 'lstm', got {config}."
        )
    wrong = [
        name
        for name, is_allowed in _IS_ALLOWED.items()
        if name in config and not is_allowed(config[name])
    ]
    # Each layer has arrays of its own: a number that is larger is a lie, and long to check.
    if wrong or config["n_layers"] > n_arrays:
        got = {name: config[name] for name in wrong or ["n_layers"]}
        raise ValueError(
            f"The configuration of {os.fspath(path)!r} makes no sense with its {n_arrays} arrays: "
            f"got {reprlib.repr(got)}."
        )


def _narrowed(weights: Weights, dtype: StoredDtype) -> Weights:
    """Return the arrays that keep the weights."""
    if dtype != "int8":
        return {name: np.ascontiguousarray(w, dtype=dtype) for name, w in weights.items()}
    arrays: Weights = {}
    for name, weight in weights.items():
        if name.endswith(_RECURRENT):
            matrix = Int8Matrix.of(shared_tensor(np.ascontiguousarray(weight)))
            arrays |= {name: matrix.values.numpy(), name + _SCALES: matrix.scales.numpy()}
        else:
            arrays[name] = np.ascontiguousarray(weight, dtype=np.float16)
    return arrays


def _widened(arrays: Weights) -> Weights:
    """Return the weights, as float32, that arrays keep."""
    weights = {name: w.astype(np.float32) for name, w in arrays.items()}
    scales = {name: weights.pop(name) for name in arrays if name.endswith(_SCALES)}
    for name, scale in scales.items():
        weights[name.removesuffix(_SCALES)] *= scale[:, None]
    return weights


def _checksum(header: dict[str, Any], arrays: Weights) -> str:
    """Return a hash of the version and configuration, and of the arrays as stored."""
    digest = sha256(json.dumps(header).encode())
    for name, array in sorted(arrays.items()):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def _parse_header(path: str | os.PathLike, text: str) -> dict[str, Any]:
    try:
        header = json.loads(text)
        version = header[_VERSION_KEY]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise ValueError(
            f"{os.fspath(path)!r} has no configuration in its header: {error!r}."
        ) from error
    if version != FORMAT_VERSION:
        raise ValueError(
            f"{os.fspath(path)!r} has format version {version}, this version of skdiscovery reads "
            f"{FORMAT_VERSION}: upgrade skdiscovery."
        )
    return header


def _is_count(value: Any, minimum: int) -> bool:
    return type(value) is int and value >= minimum


def _is_pooling(value: Any) -> bool:
    names = [value] if isinstance(value, str) else value
    return (
        isinstance(names, list)
        and len(names) > 0
        and all(name in POOLINGS for name in names)
        and len(set(names)) == len(names)
    )


_IS_ALLOWED: dict[str, Callable[[Any], bool]] = {
    **dict.fromkeys(("hidden_size", "embedding_size", "n_layers"), partial(_is_count, minimum=1)),
    **dict.fromkeys(("n_steps", "n_bytes_seen"), partial(_is_count, minimum=0)),
    "preprocessor": lambda value: value is None or value in list(PREPROCESSORS),
    "pooling": _is_pooling,
    "bits_per_byte": lambda value: type(value) in (int, float) and abs(value) <= sys.float_info.max,
}


def _check_arrays(path: str | os.PathLike, slices: dict[str, Any], config: Config) -> None:
    expected = weight_shapes(Architecture.from_config(config))
    in_int8 = {
        name
        for name, array in slices.items()
        if name in expected and name.endswith(_RECURRENT) and array.get_dtype() == "I8"
    }
    expected |= {name + _SCALES: expected[name][:1] for name in in_int8}
    found = {name: tuple(array.get_shape()) for name, array in slices.items()}
    wrong = [
        f"{name}: expected {expected.get(name, 'nothing')}, got {found.get(name, 'nothing')}"
        for name in sorted(expected.keys() | found.keys())
        if expected.get(name) != found.get(name)
    ]
    wrong += [
        f"{name}: expected a type of {sorted(_DTYPES)}, got {array.get_dtype()}"
        for name, array in sorted(slices.items())
        if array.get_dtype() not in _DTYPES and name not in in_int8
    ]
    if wrong:
        raise ValueError(
            f"{os.fspath(path)!r} has other arrays than its configuration asks for: "
            f"{'; '.join(wrong)}."
        )
