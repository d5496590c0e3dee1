import errno
import fcntl
import os
import signal
import stat
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from skdiscovery.files import remove_unfinished, whole_file


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def umask():
    before = os.umask(0o027)
    yield 0o027
    assert os.umask(before) == 0o027


def test_a_file_is_written_whole_with_ordinary_permissions(tmp_path, umask):
    with whole_file(tmp_path / "file") as temporary:
        assert temporary.parent != tmp_path
        temporary.unlink()
        temporary.touch(mode=0o600)  # as libraries do that replace what they are to write
        temporary.write_bytes(b"new")
    assert (tmp_path / "file").read_bytes() == b"new"
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o666 & ~umask
    assert names(tmp_path) == ["file"]


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt(), SystemExit(143)])
def test_an_error_leaves_what_was_there(tmp_path, error):
    (tmp_path / "file").write_bytes(b"old")

    def fail():
        with whole_file(tmp_path / "file") as temporary:
            temporary.write_bytes(b"half")
            raise error

    with pytest.raises(type(error)):
        fail()
    assert (tmp_path / "file").read_bytes() == b"old"
    assert names(tmp_path) == ["file"]


def test_threads_that_write_at_once_all_write_whole_files(tmp_path, umask):
    start = threading.Barrier(8)

    def write(number):
        start.wait()
        for _ in range(20):
            with whole_file(tmp_path / "file") as temporary:
                temporary.write_bytes(b"%d" % number * 10_000)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(8)))
    content = (tmp_path / "file").read_bytes()
    assert len(set(content)) == 1
    assert len(content) == 10_000
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o666 & ~umask
    assert names(tmp_path) == ["file"]


def is_folder(file):
    return stat.S_ISDIR(os.fstat(file if isinstance(file, int) else file.fileno()).st_mode)


def flush_what_is_open_for_writing(file):
    if is_folder(file):
        raise OSError(errno.EINVAL, "a folder")
    mode = fcntl.fcntl(file, fcntl.F_GETFL) & os.O_ACCMODE
    if mode == os.O_RDONLY:
        raise OSError(errno.EBADF, "opened for reading only")


def open_no_folders(path, *args, open=os.open, **kwargs):
    if Path(path).is_dir() and "dir_fd" not in kwargs:  # which is how folders are removed
        raise PermissionError(errno.EACCES, "a folder")
    return open(path, *args, **kwargs)


@pytest.mark.parametrize(
    ("function", "as_elsewhere"),
    [("fsync", flush_what_is_open_for_writing), ("open", open_no_folders)],
    ids=["files_open_for_writing_alone_are_flushed", "folders_cannot_be_opened"],
)
def test_a_file_is_written_where(tmp_path, monkeypatch, function, as_elsewhere):
    monkeypatch.setattr(os, function, as_elsewhere)
    with whole_file(tmp_path / "file") as temporary:
        temporary.write_bytes(b"new")
    assert (tmp_path / "file").read_bytes() == b"new"
    assert names(tmp_path) == ["file"]


def test_the_folder_is_flushed_once_the_file_has_its_name(tmp_path, monkeypatch):
    flushed = []
    monkeypatch.setattr(
        os, "fsync", lambda file: is_folder(file) and flushed.append(names(tmp_path))
    )
    with whole_file(tmp_path / "file"):
        pass
    assert flushed == [["file"]]


def test_a_disk_that_fails_on_the_folder_is_an_error(tmp_path, monkeypatch):
    def fail(file):
        if is_folder(file):
            raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="Input/output error"), whole_file(tmp_path / "file"):
        pass


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_kill_leaves_what_was_there_and_nothing_that_lasts(tmp_path, fork, number):
    def write_and_die():
        with whole_file(tmp_path / "file") as temporary:
            temporary.write_bytes(b"half")
            os.kill(os.getpid(), number)

    (tmp_path / "file").write_bytes(b"old")
    (tmp_path / ".hidden").touch()
    assert fork(write_and_die) == -number
    assert (tmp_path / "file").read_bytes() == b"old"
    remove_unfinished(tmp_path)
    assert names(tmp_path) == [".hidden", "file"]


def test_a_full_disk_leaves_what_was_there_and_is_said_of_the_file(small_disk):
    path = (folder := small_disk(40_960)) / "file"
    path.write_bytes(b"old")
    with pytest.raises(OSError, match=f"No space left .*: '{path}'"), whole_file(path) as temporary:
        temporary.write_bytes(bytes(100_000))
    assert (folder / "file").read_bytes() == b"old"
    assert names(folder) == ["file"]


def test_an_error_names_the_path_that_was_given(tmp_path):
    with pytest.raises(IsADirectoryError, match=rf"got a folder: '{tmp_path}'"):
        whole_file(tmp_path).__enter__()
    with pytest.raises(
        FileNotFoundError, match=rf"No such file or directory, create it first: '{tmp_path}/none'"
    ):
        whole_file(tmp_path / "none" / "file").__enter__()
