"""Files that are written whole or not at all, and how to tell whether one still is."""

import errno
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from stat import S_IMODE
from tempfile import TemporaryDirectory

from safetensors import SafetensorError

# How the names of hidden folders end that a killed process may leave.
UNFINISHED = ".part"


@contextmanager
def whole_file(path: str | os.PathLike) -> Iterator[Path]:
    """Give a temporary path to write to; rename it to ``path`` once all is written and on disk.

    If the block raises, ``path`` is as before and there is no temporary file. If the process is
    killed, a hidden folder beside it stays: see :func:`remove_unfinished`. That safetensors could
    not write, as to a full disk, is an OSError like any other's.
    """
    path = Path(path)
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, "Expected a file to write, got a folder", str(path))
    if not path.parent.is_dir():
        raise FileNotFoundError(
            errno.ENOENT, "No such file or directory, create it first", str(path.parent)
        )
    # In a folder of its own, for what writes the file may do so by way of another.
    with TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.", suffix=UNFINISHED) as folder:
        temporary = Path(folder, path.name)
        temporary.touch()
        # What a new file's permissions are; a process's umask can be asked for only by setting it,
        # under the eyes of other threads.
        mode = S_IMODE(temporary.stat().st_mode)
        try:
            yield temporary
            temporary.chmod(mode)
            with open(temporary, "rb+") as file:  # Windows flushes only what is open for writing
                os.fsync(file)
            os.replace(temporary, path)
        except SafetensorError as error:
            raise OSError(f"{os.fspath(path)!r} cannot be written: {error}") from error
        except OSError as error:
            if error.errno == errno.ENOSPC:
                error.filename = os.fspath(path)  # of what is written, the system names nothing
            raise
    _flush_folder(path.parent)


def version_of(path: str | os.PathLike) -> tuple[int, int, int]:
    """Return what is another when a file has been replaced or written to."""
    stat = os.stat(path)
    return stat.st_ino, stat.st_size, stat.st_mtime_ns


def sha256_of(path: str | os.PathLike) -> str:
    """Return the SHA-256 of a file, in hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def size_and_hash(path: str | os.PathLike) -> str:
    """Return in words what tells a file from a cut or altered copy of it."""
    return f"{os.path.getsize(path):,} bytes and SHA-256 {sha256_of(path)}"


def remove_unfinished(folder: str | os.PathLike) -> None:
    """Remove what killed processes were writing to a folder that no other process writes to."""
    for unfinished in Path(folder).glob(f".*{UNFINISHED}"):
        shutil.rmtree(unfinished, ignore_errors=True)


def _flush_folder(folder: Path) -> None:
    """Flush a folder to disk where that can be done: not on Windows, nor on every file system."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except PermissionError:
        return
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(handle)
