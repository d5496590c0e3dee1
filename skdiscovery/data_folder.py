"""Where data sets and models lie: the user's own folder, else a cache, filled on first use."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from filelock import FileLock
from sklearn.datasets import get_data_home

from skdiscovery.files import remove_unfinished

DATA_VARIABLE = "SKDISCOVERY_DATA"


def cache_folder(data_home: str | os.PathLike[str] | None = None) -> Path:
    """Return the folder of this package in scikit-learn's folder for data."""
    return Path(get_data_home(data_home)) / "skdiscovery"


def places(filename: str, data_home: str | os.PathLike[str] | None = None) -> Iterator[Path]:
    """Yield where a data file may lie: in the user's own folder, if there is one, and in the cache.

    Parameters
    ----------
    filename : str
        The file, relative to the folder that ``SKDISCOVERY_DATA`` names and to the cache alike.
    data_home : str, path-like or None, default=None
        As in :func:`sklearn.datasets.get_data_home`; the cache is its folder ``skdiscovery``.

    Yields
    ------
    Path
    """
    if own_folder := os.environ.get(DATA_VARIABLE):
        yield Path(own_folder).expanduser() / filename
    yield cache_folder(data_home) / filename


def locate(
    filename: str,
    *,
    fill_cache: Callable[[Path], object],
    data_home: str | os.PathLike[str] | None,
    download_if_missing: bool,
) -> Path:
    """Return the path of a data file, after filling the cache with it where that is needed.

    Parameters
    ----------
    filename, data_home
        As in :func:`places`.
    fill_cache : callable
        Called with the cache's folder, by one process at a time; must create the file in it.
    download_if_missing : bool
        Whether ``fill_cache`` may be called.

    Returns
    -------
    Path

    Raises
    ------
    OSError
        If the file is missing and ``download_if_missing`` is False.
    """
    looked_at = []
    for path in places(filename, data_home):
        if path.is_file():
            return path
        looked_at.append(path)
    if not download_if_missing:
        raise OSError(
            f"Data not found and `download_if_missing` is False. Looked for "
            f"{' and '.join(map(str, looked_at))}. Allow the download, or name a folder that "
            f"has the file {filename} in the environment variable {DATA_VARIABLE}."
        )
    cached = looked_at[-1]
    cached.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(cached.parent / ".lock"):
        if not cached.is_file():  # else another process was first
            remove_unfinished(cached.parent)
            fill_cache(cache_folder(data_home))
    return cached
