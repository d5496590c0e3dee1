import hashlib
import os
import signal
import socket
import time

import pytest

from skdiscovery.datasets import _download
from skdiscovery.datasets._download import RemoteFile, download

CONTENT = bytes(range(256)) * 1000


@pytest.fixture
def remote(server):
    server.content = CONTENT
    return RemoteFile(
        url=f"{server.url}/published.bin",
        filename="part/stored.bin",
        hash_name="sha256",
        digest=hashlib.sha256(CONTENT).hexdigest(),
    )


def files_below(folder):
    return [path for path in folder.rglob("*") if path.is_file()]


def test_stores_the_file_under_its_name(remote, tmp_path):
    path = download(remote, tmp_path, n_retries=0, delay=0)
    assert path == tmp_path / "part" / "stored.bin"
    assert path.read_bytes() == CONTENT
    assert list(path.parent.iterdir()) == [path]


def test_md5(remote, tmp_path):
    md5 = RemoteFile(remote.url, "stored.bin", "md5", hashlib.md5(CONTENT).hexdigest())
    assert download(md5, tmp_path, n_retries=0, delay=0).read_bytes() == CONTENT


@pytest.mark.parametrize("failure", ["unavailable", "interrupted", "corrupted"])
def test_fails_twice_then_succeeds(remote, server, tmp_path, failure):
    server.failures = [failure] * 2
    path = download(remote, tmp_path, n_retries=2, delay=0)
    assert path.read_bytes() == CONTENT
    assert server.n_requests == 3


@pytest.mark.parametrize(
    ("failure", "reason"),
    [
        ("unavailable", "503"),
        ("interrupted", f"the transfer ended after {len(CONTENT) // 2} of {len(CONTENT)} bytes"),
        (
            "corrupted",
            f"expected a file of SHA256 {hashlib.sha256(CONTENT).hexdigest()}, got one of "
            f"{hashlib.sha256(CONTENT[:-1] + bytes([CONTENT[-1] ^ 1])).hexdigest()}",
        ),
    ],
)
def test_a_lasting_failure_names_its_reason_and_leaves_nothing(
    remote, server, tmp_path, failure, reason
):
    server.failures = [failure] * 3
    with pytest.raises(OSError, match=r"Could not download .* \(3 attempts\)") as raised:
        download(remote, tmp_path, n_retries=2, delay=0)
    assert remote.url in str(raised.value)
    assert reason in str(raised.value)
    assert server.n_requests == 3
    assert files_below(tmp_path) == []


def test_a_failure_leaves_the_former_file(remote, server, tmp_path):
    path = download(remote, tmp_path, n_retries=0, delay=0)
    server.failures = ["corrupted"]
    with pytest.raises(OSError, match="Could not download"):
        download(remote, tmp_path, n_retries=0, delay=0)
    assert path.read_bytes() == CONTENT


def test_nobody_answers(tmp_path, monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/gone"
        remote = RemoteFile(url, "stored.bin", "sha256", "0" * 64)
        with pytest.raises(OSError, match=r"/gone \(2 attempts\)"):
            download(remote, tmp_path, n_retries=1, delay=0)
    assert files_below(tmp_path) == []


def test_a_server_that_says_nothing_is_not_waited_for_for_ever(tmp_path, monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(_download, "_TIMEOUT", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        remote = RemoteFile(
            f"http://127.0.0.1:{silent.getsockname()[1]}/slow", "stored.bin", "sha256", "0" * 64
        )
        with pytest.raises(OSError, match=r"/slow \(2 attempts\): timed out"):
            download(remote, tmp_path, n_retries=1, delay=0)


def test_waits_between_attempts(remote, server, tmp_path, monkeypatch):
    waits = []
    monkeypatch.setattr("skdiscovery.datasets._download.time.sleep", waits.append)
    server.failures = ["unavailable"] * 2
    download(remote, tmp_path, n_retries=3, delay=7.5)
    assert waits == [7.5, 7.5]


def test_an_interrupt_leaves_nothing(remote, server, tmp_path, monkeypatch):
    def interrupt(_):
        raise KeyboardInterrupt

    monkeypatch.setattr("skdiscovery.datasets._download.time.sleep", interrupt)
    server.failures = ["interrupted"]
    with pytest.raises(KeyboardInterrupt):
        download(remote, tmp_path, n_retries=3, delay=1)
    assert files_below(tmp_path) == []


def test_a_local_failure_is_not_retried(remote, server, tmp_path, monkeypatch):
    def full_disk(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("skdiscovery.datasets._download.shutil.copyfileobj", full_disk)
    with pytest.raises(OSError, match="No space left"):
        download(remote, tmp_path, n_retries=3, delay=0)
    assert server.n_requests == 1


@pytest.mark.skipif(os.name != "posix", reason="permissions are POSIX's")
def test_the_file_has_ordinary_permissions(remote, tmp_path):
    ordinary = tmp_path / "ordinary"
    ordinary.touch()
    stored = download(remote, tmp_path, n_retries=0, delay=0)
    assert stored.stat().st_mode == ordinary.stat().st_mode


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_kill_in_the_middle_leaves_no_file_that_passes_for_whole(
    remote, server, tmp_path, fork, number
):
    def download_and_die():
        time.sleep = lambda _: os.kill(os.getpid(), number)  # in the fork alone
        download(remote, tmp_path, n_retries=1, delay=0)

    server.failures = ["interrupted"]
    assert fork(download_and_die) == -number
    assert not (tmp_path / remote.filename).exists()
    assert download(remote, tmp_path, n_retries=0, delay=0).read_bytes() == CONTENT


def test_a_full_disk_leaves_the_former_file(remote, server, small_disk):
    folder = small_disk(4 * 2**20)
    path = download(remote, folder, n_retries=0, delay=0)
    server.content = bytes(8 * 2**20)
    with pytest.raises(OSError, match="No space left"):
        download(remote, folder, n_retries=3, delay=0)
    assert path.read_bytes() == CONTENT
    assert files_below(folder) == [path]
