"""Models by name: those that ship with the package, and those that users put beside their data."""

import os
from pathlib import Path

from skdiscovery.data_folder import locate
from skdiscovery.files import sha256_of, size_and_hash

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
    placed = _placed_model(placed_name) if path.name == name else None
    if placed is None:
        raise ValueError(
            f"No language model {name!r}: it is neither a file, nor a folder, nor one of the "
            f"models that ship with skdiscovery, {shipped_models()}, nor is there a "
            f"{Path(placed_name).name!r} in the folder 'models' of the data folder."
        )
    _check_hash(placed)
    return placed


def _placed_model(name: str) -> Path | None:
    """Return the file of that name among the models in the folder of the data, if it is there."""
    try:
        return locate(
            f"models/{name}",
            fill_cache=lambda _: None,
            data_home=None,
            download_if_missing=False,
        )
    except OSError:
        return None


def _check_hash(path: Path) -> None:
    """Raise a ValueError if the file has another hash than the one that lies beside it."""
    beside = path.with_name(f"{path.name}.sha256")
    if not beside.exists():
        return
    expected = beside.read_text(encoding="utf-8").partition(" ")[0].strip().lower()
    if sha256_of(path) != expected:
        raise ValueError(
            f"{os.fspath(path)!r} is not the file that {beside.name} tells of: expected SHA-256 "
            f"{expected!r}, got a file of {size_and_hash(path)}. Copy both again."
        )
