"""Corpora on disk: built in one pass over their sources, kept in a cache.

A corpus is a folder of ``documents.bin`` (the bytes of all documents, end to end), ``offsets.npy``
(int64, where each starts, and the end), ``labels.npy`` where there are labels, and ``recipe.json``,
which says for people what it was made of.
"""

import json
import os
import shutil
import tempfile
import weakref
from array import array
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, is_dataclass
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import IO, Any

import numpy as np
from filelock import FileLock

from skdiscovery.data_folder import cache_folder
from skdiscovery.text.labels import LabelColumn, is_missing
from skdiscovery.text.preprocessing import Preprocessor, get_preprocessor
from skdiscovery.text.readers import Reader

# Part of a corpus's name in the cache: raise it when other bytes come out of the same sources.
FORMAT_VERSION = 1

PathLike = str | os.PathLike[str]


@dataclass(frozen=True)
class Source:
    """A file, and what tells that it is still the same."""

    path: Path
    size: int
    modified: int

    @classmethod
    def of(cls, path: PathLike) -> "Source":
        """Look at a file; its name stays what it is, as it tells the format."""
        path = Path(path).expanduser().absolute()
        status = path.stat()
        return cls(path, status.st_size, status.st_mtime_ns)


@dataclass(frozen=True)
class Recipe:
    """All that decides about the bytes and the labels of a corpus."""

    sources: tuple[Source, ...]
    reader: Reader
    preprocessor: str | Preprocessor | None = "review"
    drop_unlabeled: bool = False
    binarize_labels: bool = False

    @classmethod
    def of(cls, path_or_paths: PathLike | Iterable[PathLike], *others: Any) -> "Recipe":
        """Look at the file or the files, and return the recipe for them."""
        if isinstance(path_or_paths, str | os.PathLike):
            path_or_paths = [path_or_paths]
        return cls(tuple(Source.of(path) for path in path_or_paths), *others)

    def __post_init__(self) -> None:
        if not self.sources:
            raise ValueError("Expected the path of a file or several, got an empty list.")
        if self.reader.label_key is None:
            for name in ("drop_unlabeled", "binarize_labels"):
                if getattr(self, name):
                    raise ValueError(f"{name}=True needs labels: say where with label_key=.")
        get_preprocessor(self.preprocessor)

    @property
    def can_be_kept(self) -> bool:
        """Whether a name in a cache can stand for it: a function has none that is safe."""
        return not callable(self.preprocessor)

    def to_json(self) -> str:
        """Return a text that is the same for the same corpus only."""
        return json.dumps(
            {
                **vars(self),
                "format_version": FORMAT_VERSION,
                "unidecode": version("unidecode"),  # its tables change now and then
            },
            default=lambda value: vars(value) if is_dataclass(value) else str(value),
            indent=2,
        )

    def name(self) -> str:
        """Return a name for the folder: the first source's, for people, and a hash."""
        stem = self.sources[0].path.name.split(".")[0][:50]
        return f"{stem}-{sha256(self.to_json().encode()).hexdigest()[:32]}"


def build(recipe: Recipe, cache_dir: PathLike | None = None) -> Path:
    """Return the folder of a corpus, after building it unless it is there.

    Of several processes at once one builds, and the others wait for it.

    Parameters
    ----------
    recipe : Recipe
        What to build. If it cannot be kept, the folder is new and the caller's to remove.
    cache_dir : str or path-like, default=None
        The folder that keeps corpora, by default ``skdiscovery/corpora`` in scikit-learn's data
        home; for a corpus that cannot be kept, the system's folder for temporary files.

    Returns
    -------
    Path

    Raises
    ------
    ValueError
        If a source is not as the recipe says.
    OSError
        If the cache cannot be written to, or a source cannot be read or changes meanwhile.
    """
    with _advice_if_not_writable():
        cache = _cache_folder(recipe, cache_dir)
        cache.mkdir(parents=True, exist_ok=True)
    if not recipe.can_be_kept:
        with _advice_if_not_writable():
            folder = Path(tempfile.mkdtemp(prefix="skdiscovery-corpus-", dir=cache))
        with _removed_on_error(folder):
            _write(recipe, folder)
        return folder

    name = recipe.name()
    folder, part = cache / name, cache / f".{name}.part"
    if not folder.is_dir():
        _remove_leftovers(cache)
        with _lock(part):
            if not folder.is_dir():  # else another process was first
                _build_and_rename(recipe, part, folder)
    return folder


def remove_with(owner: object, folder: Path) -> None:
    """Remove a folder when ``owner`` is no more, in this process: a fork of it leaves it alone."""
    process = os.getpid()

    def remove() -> None:
        if os.getpid() == process:
            shutil.rmtree(folder, ignore_errors=True)

    weakref.finalize(owner, remove)


def load(folder: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Return the bytes, the offsets and the labels of a corpus, memory-mapped.

    Raises
    ------
    OSError
        If the folder is not there.
    ValueError
        If its files do not belong together.
    """
    if not folder.is_dir():
        raise FileNotFoundError(
            f"The folder of the corpus, {folder}, is gone: make it again with TextCorpus.from_file."
        )
    documents = folder / "documents.bin"
    try:
        offsets, labels = _map(folder / "offsets.npy"), None
        if (folder / "labels.npy").exists():
            labels = _map(folder / "labels.npy")
        n_bytes, n_documents = int(offsets[-1]), len(offsets) - 1
        belong_together = (
            documents.stat().st_size == n_bytes
            and offsets[0] == 0
            and (labels is None or len(labels) == n_documents)
        )
    except (ValueError, EOFError, OSError, IndexError, TypeError) as error:
        raise ValueError(
            f"The corpus in {folder} is damaged ({error}): remove the folder and try again."
        ) from error
    if not belong_together:
        raise ValueError(f"The corpus in {folder} is damaged: remove the folder and try again.")
    # A map of no bytes is not possible.
    data = np.memmap(documents, np.uint8, mode="r") if n_bytes else np.empty(0, np.uint8)
    # Plain views: memmap's own indexing is slow.
    return np.asarray(data), np.asarray(offsets), None if labels is None else np.asarray(labels)


def _map(path: Path) -> np.ndarray:
    return np.load(path, mmap_mode="r", allow_pickle=False)


def _cache_folder(recipe: Recipe, cache_dir: PathLike | None) -> Path:
    if cache_dir is not None:
        return Path(cache_dir).expanduser().absolute()
    if not recipe.can_be_kept:
        return Path(tempfile.gettempdir())
    return cache_folder() / "corpora"


def _build_and_rename(recipe: Recipe, part: Path, folder: Path) -> None:
    shutil.rmtree(part, ignore_errors=True)  # a build may have died just now
    with _advice_if_not_writable():
        part.mkdir()
    with _removed_on_error(part):
        _write(recipe, part)
        part.rename(folder)


def _write(recipe: Recipe, folder: Path) -> None:
    """Write the files of a corpus in one pass over its sources."""
    preprocess = get_preprocessor(recipe.preprocessor)
    offsets = array("q", [0])
    labels = None if recipe.reader.label_key is None else LabelColumn()
    with _synced(folder / "documents.bin") as file:
        for text, label in recipe.reader.read([source.path for source in recipe.sources]):
            if recipe.drop_unlabeled and is_missing(label):
                continue
            offsets.append(offsets[-1] + file.write(preprocess(text)))
            if labels is not None:
                labels.append(label)
    for source in recipe.sources:
        if Source.of(source.path) != source:
            raise OSError(f"{source.path} changed while it was read: try again when it is whole.")
    if len(offsets) == 1:
        raise ValueError(
            f"drop_unlabeled=True leaves nothing: no document has a {recipe.reader.label_key!r}."
        )
    with _synced(folder / "offsets.npy") as file:
        np.save(file, np.frombuffer(offsets, np.int64), allow_pickle=False)
    if labels is not None:
        with _synced(folder / "labels.npy") as file:
            np.save(file, labels.to_array(binarize=recipe.binarize_labels), allow_pickle=False)
    with _synced(folder / "recipe.json") as file:
        file.write(recipe.to_json().encode())


@contextmanager
def _synced(path: Path) -> Iterator[IO[bytes]]:
    """Open a new file; on disk when closed, so that no crash leaves a finished name without it."""
    with open(path, "wb", buffering=2**20) as file:
        yield file
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def _removed_on_error(folder: Path) -> Iterator[None]:
    try:
        yield
    except BaseException as error:
        shutil.rmtree(folder, ignore_errors=True)
        error.add_note(
            f"This ended the building of a corpus in {folder.parent} (cache_dir=); it is undone."
        )
        raise


@contextmanager
def _advice_if_not_writable() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OSError(
            f"The corpus cannot be written: {error}. Name a folder that you can write to with "
            "cache_dir=."
        ) from error


@contextmanager
def _lock(part: Path, timeout: float = -1) -> Iterator[None]:
    """Hold the lock under which a folder that is not finished is written."""
    with _advice_if_not_writable():
        lock = FileLock(_lock_of(part), timeout=timeout).acquire()
    with lock:
        yield


def _remove_leftovers(cache: Path) -> None:
    """Remove the folders of builds that died, which is to say: whose locks are free."""
    for part in cache.glob(".*.part"):
        if not _lock_of(part).exists():  # of something else that is written here
            continue
        with suppress(OSError), _lock(part, timeout=0):
            shutil.rmtree(part, ignore_errors=True)


def _lock_of(part: Path) -> Path:
    return part.with_suffix(".lock")
