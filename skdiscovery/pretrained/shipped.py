"""Models by name: those that ship with the package, and those that users put beside their data."""

import os
from functools import lru_cache
from pathlib import Path

from skdiscovery.data_folder import places
from skdiscovery.files import sha256_of, size_and_hash, version_of

WEIGHTS = Path(__file__).parent / "weights"


def shipped_models() -> list[str]:
    """Return the names of the models that ship with the package."""
    return sorted(file.stem for file in WEIGHTS.glob("*.safetensors"))


def find_model(name_or_path: str | os.PathLike) -> Path:
    """Return the file of a model that has a name, or the path as it is.

    A model has a name if it ships, or if somebody put ``models/NAME.safetensors`` in the folder
    that the environment variable ``SKDISCOVERY_DATA`` names, or in the folder ``skdiscovery`` of
    :func:`sklearn.datasets.get_data_home`. If there is a ``NAME.safetensors.sha256`` beside it, as
    ``sha256sum`` writes it, the file must have that hash.

    Raises
    ------
    ValueError
        If it is neither a name nor a file or folder, or a file has another hash than it should.
    """
    path = Path(name_or_path)
    name = os.fspath(name_or_path)
    if name in shipped_models():
        return WEIGHTS / f"{name}.safetensors"
    if path.exists():
        return path
    placed_name = f"{name.removesuffix('.safetensors')}.safetensors"
    candidates = places(f"models/{placed_name}") if path.name == name else ()
    try:
        placed = next(filter(Path.is_file, candidates), None)
    except OSError:  # scikit-learn makes its folder where there is none, or cannot
        placed = None
    if placed is None:
        raise ValueError(
            f"No language model {name!r}: it is neither a file, nor a folder, nor one of the "
            f"models that ship with skdiscovery, {shipped_models()}, nor is there a "
            f"{Path(placed_name).name!r} in the folder 'models' of the data folder."
        )
    _check_hash(placed)
    return placed


def _check_hash(path: Path) -> None:
    """Raise a ValueError if the file has another hash than the one that lies beside it."""
    beside = path.with_name(f"{path.name}.sha256")
    if not beside.exists():
        return
    expected = beside.read_text(encoding="utf-8").partition(" ")[0].strip().lower()
    if _known_sha256(path, version_of(path)) != expected:
        raise ValueError(
            f"{os.fspath(path)!r} is not the file that {beside.name} tells of: expected SHA-256 "
            f"{expected!r}, got a file of {size_and_hash(path)}. Copy both again."
        )


@lru_cache(maxsize=1)  # each clone of a featurizer asks for the same
def _known_sha256(path: Path, version: tuple[int, ...]) -> str:
    return sha256_of(path)
