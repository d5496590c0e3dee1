"""One door to every model that skdiscovery reads: it looks at what it is given, then reads it."""

import os
from pathlib import Path

from skdiscovery.pretrained.checkpoints import import_checkpoint, is_checkpoint
from skdiscovery.pretrained.format import read_model
from skdiscovery.pretrained.imported import ImportedModel
from skdiscovery.pretrained.layouts import Gates
from skdiscovery.pretrained.npy_folders import import_npy_folder
from skdiscovery.pretrained.state_dicts import import_state_dict

# By their first bytes, what people give in place of a model.
_OTHER_KINDS = {
    b"\x1f\x8b": "a gzip archive: unpack it, and give what is in it",
    b"BZh": "a bzip2 archive: unpack it, and give what is in it",
    b"\xfd7zXZ": "an xz archive: unpack it, and give what is in it",
    b"\x89HDF": "an HDF5 file, as Keras writes: there is no importer for it",
    b"version ": "a pointer of Git LFS in place of the file: fetch it with git lfs pull",
    b"<": "a web page, or XML: the download brought something else than the file",
}


def import_model(path: str | os.PathLike, *, gates: Gates | None = None) -> ImportedModel:
    """Read a model of this package or of one that came before it.

    ================================== ============================== ============
    System                             What to give                   Preprocessor
    ================================== ============================== ============
    skdiscovery                        file of ``save_pretrained``,   its own
                                       or a checkpoint of ``fit``
    OpenAI [1]_                        folder of 0.npy to 14.npy      "openai"
    sentiment-discovery v0 [2]_        ``.pt`` file                   "nvidia"
    sentiment-discovery v0.2 and later ``.pt`` file, one layer        "nvidia"
    pytorch-sentiment-neuron [3]_      folder of embd.npy, wx.npy ... "openai"
                                       or ``.pt`` file of state dicts
    ================================== ============================== ============

    All but the first are of mLSTMs, and those of sentiment-discovery of LSTMs too, of any size;
    weight norm is folded in. No file can run code.

    Parameters
    ----------
    path : path-like
        The file or the folder.
    gates : {"ifou", "ifuo"}, default=None
        Order of the gates in a ``.pt`` file; None is that of its system. mLSTMs of
        sentiment-discovery v0.2 (before April 2018) have "ifou", and nothing that tells so.

    Returns
    -------
    ImportedModel
        Name of the system, weights, and configuration.

    Raises
    ------
    ValueError
        If it is not a model that can be read, not whole, or asks for code.
    FileNotFoundError
        If there is no such file or folder.

    References
    ----------
    .. [1] https://github.com/openai/generating-reviews-discovering-sentiment
    .. [2] https://github.com/NVIDIA/sentiment-discovery
    .. [3] https://github.com/guillitte/pytorch-sentiment-neuron
    """
    path = Path(path)
    start = b"" if path.is_dir() else _start(path)
    # A .safetensors file begins with the length of its header, which may look like a pickle's
    # first bytes, and the header with a brace.
    is_safetensors = start[8:] == b"{"
    is_of_torch = start.startswith((b"PK", b"\x80")) and not is_safetensors
    if gates is not None and not is_of_torch:
        raise ValueError(
            f"gates={gates!r} is for .pt files, and {os.fspath(path)!r} is none: leave it out."
        )
    if path.is_dir():
        return import_npy_folder(path)
    if is_of_torch:
        return import_state_dict(path, gates)
    if start.startswith(b"\x93NUMPY"):
        raise ValueError(
            f"{os.fspath(path)!r} is one array of a model: give the folder that has them all."
        )
    if not is_safetensors:
        raise ValueError(
            f"{os.fspath(path)!r} is not a model of skdiscovery, nor one that it can import: "
            "expected a whole .safetensors file written by save_pretrained, a .pt file of "
            "sentiment-discovery or pytorch-sentiment-neuron, or a folder with the .npy files of "
            f"OpenAI, got {_kind(start)}."
        )
    if is_checkpoint(path):
        return import_checkpoint(path)
    return ImportedModel("skdiscovery", *read_model(path))


def _kind(start: bytes) -> str:
    """Return in words what a file is that no importer is for."""
    for first_bytes, kind in _OTHER_KINDS.items():
        if start.startswith(first_bytes):
            return kind
    return f"a file that begins with {start!r}"


def _start(path: Path) -> bytes:
    with open(path, "rb") as file:
        return file.read(9)
