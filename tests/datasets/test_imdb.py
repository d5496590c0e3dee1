import dataclasses
import hashlib
import io
import json
import lzma
import os
import signal
import tarfile
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pytest

from skdiscovery.datasets import _download, _imdb, fetch_imdb

SUBSETS = ("train", "test", "unsupervised")
N_REVIEWS = 20
AWKWARD = ["1984", 'Naïve — “café” 😊<br /><br />a/b \\ "c"', "line\nbreak\x85", "null"]


def published_reviews():
    """Return path, text, label and rating of the reviews in a small archive."""
    reviews = []
    for split in ("train", "test"):
        for label, kind in enumerate(("neg", "pos")):
            for i in range(N_REVIEWS):
                text = AWKWARD[i] if i < len(AWKWARD) else f"{split} {kind} {i}"
                rating = 1 + 6 * label + i % 4
                reviews.append((f"{split}/{kind}/{i}_{rating}.txt", text, label, rating))
    for i in range(2 * N_REVIEWS):
        reviews.append((f"train/unsup/{i}_0.txt", f"unlabelled {i}", None, None))
    return reviews


def files_below(folder):
    return [path for path in folder.rglob("*") if path.is_file() and path.name != ".lock"]


def labelled(split):
    """Return text, label and rating of the labelled reviews of a part, sorted."""
    return sorted(
        (text, label, rating)
        for path, text, label, rating in published_reviews()
        if path.startswith(f"{split}/") and label is not None
    )


def as_archive(files):
    """Pack a mapping of names to contents as the published archive is packed."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
        folder = tarfile.TarInfo("aclImdb/train/pos/1_1.txt")
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
    return buffer.getvalue()


@pytest.fixture
def publish(server, no_own_folder, monkeypatch):
    """Return a function that serves an archive of files in the place of the published one."""

    def publish(files):
        server.content = as_archive({f"aclImdb/{name}": text for name, text in files.items()})
        digest = hashlib.md5(server.content).hexdigest()
        archive = dataclasses.replace(_imdb.ARCHIVE, url=server.url, digest=digest)
        monkeypatch.setattr(_imdb, "ARCHIVE", archive)
        return server

    return publish


@pytest.fixture
def published(publish):
    """Serve a small archive in the place of the published one."""
    reviews = {path: text.encode() for path, text, _, _ in published_reviews()}
    other = {"README": b"Read me.", "train/urls_pos.txt": b"https://..."}
    return publish(other | reviews)


@pytest.mark.parametrize("subset", ["train", "test"])
def test_labelled(published, tmp_path, subset):
    imdb = fetch_imdb(subset=subset, data_home=tmp_path)
    rows = list(zip(imdb.data, imdb.target.tolist(), imdb.ratings.tolist(), strict=True))
    assert sorted(rows) == labelled(subset)
    assert all(type(text) is str for text in imdb.data)
    assert imdb.target.dtype == imdb.ratings.dtype == np.int64
    assert imdb.target_names == ["negative", "positive"]
    assert imdb.frame is None
    assert "Maas" in imdb.DESCR


def test_unsupervised(published, tmp_path):
    imdb = fetch_imdb(subset="unsupervised", data_home=tmp_path, as_frame=True)
    assert sorted(imdb.data) == sorted(f"unlabelled {i}" for i in range(2 * N_REVIEWS))
    assert imdb.target is None
    assert imdb.ratings is None
    assert list(imdb.frame.columns) == ["text"]
    texts, labels = fetch_imdb(subset="unsupervised", data_home=tmp_path, return_X_y=True)
    assert texts == imdb.data.tolist()
    assert labels is None


def test_as_frame(published, tmp_path):
    imdb = fetch_imdb(data_home=tmp_path, as_frame=True)
    assert list(imdb.frame.columns) == ["text", "label", "rating"]
    pd.testing.assert_series_equal(imdb.data, imdb.frame["text"])
    pd.testing.assert_series_equal(imdb.target, imdb.frame["label"])
    pd.testing.assert_series_equal(imdb.ratings, imdb.frame["rating"])


def test_one_download_fills_the_cache_and_leaves_nothing_else(published, tmp_path):
    for subset in SUBSETS:
        fetch_imdb(subset=subset, data_home=tmp_path)
    assert published.n_requests == 1
    assert_whole_and_alone(tmp_path)


def assert_whole_and_alone(data_home):
    cache = data_home / "skdiscovery"
    assert sorted(str(path.relative_to(cache)) for path in cache.rglob("*")) == [
        "imdb",
        "imdb/.lock",
        *(f"imdb/{part}.jsonl.xz" for part in ("test", "train", "unsup")),
    ]


def test_those_who_meet_download_once(published, tmp_path):
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda subset: fetch_imdb(subset=subset, data_home=tmp_path), SUBSETS))
    assert published.n_requests == 1
    assert_whole_and_alone(tmp_path)


def test_what_a_killed_download_left_is_removed_by_the_next(published, tmp_path, fork):
    def download_and_die():
        time.sleep = lambda _: os.kill(os.getpid(), signal.SIGKILL)  # in the fork alone
        fetch_imdb(data_home=tmp_path)

    published.failures = ["interrupted"]
    assert fork(download_and_die) == -signal.SIGKILL
    assert len(files_below(tmp_path)) == 1
    fetch_imdb(data_home=tmp_path)
    assert_whole_and_alone(tmp_path)


def test_files_are_lines_of_json_in_xz(published, tmp_path):
    fetch_imdb(data_home=tmp_path)
    path = tmp_path / "skdiscovery" / "imdb" / "train.jsonl.xz"
    with lzma.open(path, mode="rt", encoding="utf-8", newline="\n") as lines:
        rows = [json.loads(line) for line in lines]
    assert sorted((row["text"], row["label"], row["rating"]) for row in rows) == labelled("train")


def test_rows_are_in_a_fixed_mixed_order(published, tmp_path):
    first = fetch_imdb(data_home=tmp_path / "first")
    second = fetch_imdb(data_home=tmp_path / "second")
    assert first.data == second.data
    assert 0 < first.target[:N_REVIEWS].sum() < N_REVIEWS


def test_retries_as_often_as_told(published, tmp_path):
    published.failures = ["interrupted", "corrupted"]
    imdb = fetch_imdb(data_home=tmp_path, n_retries=2, delay=0)
    assert len(imdb.data) == 2 * N_REVIEWS


def test_a_lasting_failure_leaves_no_files(published, tmp_path):
    published.failures = ["corrupted"] * 2
    with pytest.raises(OSError, match="expected a file of MD5"):
        fetch_imdb(data_home=tmp_path, n_retries=1, delay=0)
    assert not files_below(tmp_path)


def test_a_failed_conversion_leaves_no_files(published, tmp_path, monkeypatch):
    write = _imdb._write

    def fail_at_the_second(rows, path):
        if path.name == "test.jsonl.xz":
            raise OSError(28, "No space left on device")
        write(rows, path)

    monkeypatch.setattr(_imdb, "_write", fail_at_the_second)
    with pytest.raises(OSError, match="No space left"):
        fetch_imdb(data_home=tmp_path)
    assert not files_below(tmp_path)


def test_no_download_unless_allowed(published, tmp_path):
    with pytest.raises(OSError, match="`download_if_missing` is False"):
        fetch_imdb(data_home=tmp_path, download_if_missing=False)
    assert published.n_requests == 0


@pytest.mark.parametrize(
    ("parameter", "value"), [("subset", "unsup"), ("n_retries", 1.5), ("return_X_y", None)]
)
def test_refuses_bad_parameters(parameter, value):
    with pytest.raises(ValueError, match=f"'{parameter}' parameter of fetch_imdb"):
        fetch_imdb(**{parameter: value})


@pytest.mark.data
@pytest.mark.parametrize("subset", ["train", "test"])
def test_real_labelled_data(subset):
    imdb = fetch_imdb(subset=subset, download_if_missing=False)
    assert len(imdb.data) == 25_000
    assert imdb.target.sum() == 12_500
    np.testing.assert_array_equal(imdb.target, imdb.ratings > 5)
    assert set(imdb.ratings.tolist()) == {1, 2, 3, 4, 7, 8, 9, 10}
    assert all(type(text) is str and text for text in imdb.data)


@pytest.mark.data
def test_real_unlabelled_data():
    imdb = fetch_imdb(subset="unsupervised", download_if_missing=False)
    assert len(imdb.data) == 50_000
    assert imdb.target is None


def test_the_training_part_is_the_default(published, tmp_path):
    expected = sorted(text for text, _, _ in labelled("train"))
    assert sorted(fetch_imdb(data_home=tmp_path).data) == expected


def test_it_tries_three_times_again_with_a_second_between(published, tmp_path, monkeypatch):
    pauses = []
    monkeypatch.setattr(_download.time, "sleep", pauses.append)
    published.failures = ["interrupted"] * 3
    fetch_imdb(data_home=tmp_path / "a")
    published.failures = ["interrupted"]
    fetch_imdb(data_home=tmp_path / "b", delay=0.5)
    assert [pause for pause in pauses if pause >= 0.5] == [1, 1, 1, 0.5]


def test_texts_that_all_read_as_numbers_stay_texts(publish, tmp_path):
    publish({"train/pos/0_9.txt": b"1984", "train/neg/0_1.txt": b"300"})
    assert sorted(fetch_imdb(data_home=tmp_path).data) == ["1984", "300"]


def test_files_with_other_names_are_no_reviews(publish, tmp_path):
    reviews = {"train/pos/0_9.txt": b"Good.", "train/neg/0_1.txt": b"Bad."}
    publish(reviews | {"train/pos/1_9.txt.orig": b"Old."})
    assert sorted(fetch_imdb(data_home=tmp_path).data) == ["Bad.", "Good."]
