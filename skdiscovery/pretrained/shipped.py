"""The models that ship with the package, by name."""

import os
from pathlib import Path

WEIGHTS = Path(__file__).parent / "weights"


def shipped_models() -> list[str]:
    """Return the names of the models that ship with the package."""
    return sorted(file.stem for file in WEIGHTS.glob("*.safetensors"))


def find_model(name_or_path: str | os.PathLike) -> Path:
    """Return the file of a shipped model, or the path as it is.

    Raises
    ------
    ValueError
        If it is neither a shipped name nor a file or folder.
    """
    path = Path(name_or_path)
    if os.fspath(name_or_path) in shipped_models():
        return WEIGHTS / f"{path}.safetensors"
    if not path.exists():
        raise ValueError(
            f"No language model {os.fspath(name_or_path)!r}: it is neither a file, nor a folder, "
            f"nor one of the models that ship with skdiscovery, {shipped_models()}."
        )
    return path
