import dataclasses
import hashlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pytest

from skdiscovery.data_folder import locate
from skdiscovery.datasets import _sst2, fetch_sst2

CSV = 'label,sentence\n1,"A joy, really."\n0,NA\n0,Café closed.\n'.encode()
TEXTS = ["A joy, really.", "NA", "Café closed."]


@pytest.fixture
def published(server, no_own_folder, monkeypatch):
    """Serve a small file in the place of every part."""
    server.content = CSV
    for subset, remote in list(_sst2.REMOTE_FILES.items()):
        local = dataclasses.replace(remote, url=server.url, digest=hashlib.sha256(CSV).hexdigest())
        monkeypatch.setitem(_sst2.REMOTE_FILES, subset, local)
    return server


def test_downloads_once(published, tmp_path):
    sst2 = fetch_sst2(data_home=tmp_path)
    again = fetch_sst2(data_home=tmp_path, download_if_missing=False)
    assert sst2.data == again.data == TEXTS
    np.testing.assert_array_equal(sst2.target, [1, 0, 0])
    assert sst2.target.dtype == np.int64
    assert sst2.target_names == ["negative", "positive"]
    assert sst2.frame is None
    assert "Socher" in sst2.DESCR
    assert published.n_requests == 1


def test_as_frame(published, tmp_path):
    sst2 = fetch_sst2(data_home=tmp_path, as_frame=True)
    assert list(sst2.frame.columns) == ["text", "label"]
    pd.testing.assert_series_equal(sst2.data, sst2.frame["text"])
    pd.testing.assert_series_equal(sst2.target, sst2.frame["label"])


def test_texts_and_labels_alone(published, tmp_path):
    texts, labels = fetch_sst2(data_home=tmp_path, return_X_y=True)
    assert texts == TEXTS
    assert labels.tolist() == [1, 0, 0]


@pytest.mark.parametrize(
    ("subset", "filename"),
    [("train", "train.csv"), ("validation", "val.csv"), ("test", "test.csv")],
)
def test_names_in_the_cache(published, tmp_path, subset, filename):
    fetch_sst2(subset=subset, data_home=tmp_path)
    folder = tmp_path / "skdiscovery" / "sst2"
    assert sorted(path.name for path in folder.iterdir()) == [".lock", filename]


def test_those_who_meet_download_once(published, tmp_path):
    with ThreadPoolExecutor(4) as pool:
        fetched = list(pool.map(lambda _: fetch_sst2(data_home=tmp_path).data, range(4)))
    assert fetched == [TEXTS] * 4
    assert published.n_requests == 1


def test_what_a_killed_download_left_is_removed_by_the_next(published, tmp_path):
    folder = tmp_path / "skdiscovery" / "sst2"
    left = folder / ".train.csv.x.part" / "train.csv"
    left.parent.mkdir(parents=True)
    left.touch()
    fetch_sst2(data_home=tmp_path)
    assert sorted(path.name for path in folder.iterdir()) == [".lock", "train.csv"]


def test_retries_as_often_as_told(published, tmp_path):
    published.failures = ["corrupted", "interrupted"]
    assert fetch_sst2(data_home=tmp_path, n_retries=2, delay=0).data == TEXTS

    published.failures = ["corrupted"]
    with pytest.raises(OSError, match="1 attempts"):
        fetch_sst2(subset="test", data_home=tmp_path, n_retries=0)


def test_no_download_unless_allowed(published, tmp_path):
    with pytest.raises(OSError, match="`download_if_missing` is False"):
        fetch_sst2(data_home=tmp_path, download_if_missing=False)
    assert published.n_requests == 0


@pytest.mark.parametrize(
    ("parameter", "value"),
    [("subset", "dev"), ("n_retries", -1), ("delay", -0.5), ("data_home", 3), ("as_frame", "yes")],
)
def test_refuses_bad_parameters(parameter, value):
    with pytest.raises(ValueError, match=f"'{parameter}' parameter of fetch_sst2"):
        fetch_sst2(**{parameter: value})


@pytest.mark.data
@pytest.mark.parametrize(
    ("subset", "n_samples", "n_positive"),
    [("train", 6920, 3610), ("validation", 872, 444), ("test", 1821, 909)],
)
def test_real_data(subset, n_samples, n_positive):
    sst2 = fetch_sst2(subset=subset, download_if_missing=False)
    assert len(sst2.data) == len(sst2.target) == n_samples
    assert sst2.target.sum() == n_positive
    assert all(type(text) is str and text for text in sst2.data)


@pytest.mark.data
@pytest.mark.parametrize("subset", ["train", "validation", "test"])
def test_real_files_are_the_published_ones(subset):
    remote = _sst2.REMOTE_FILES[subset]
    path = locate(
        remote.filename, fill_cache=pytest.fail, data_home=None, download_if_missing=False
    )
    assert hashlib.sha256(path.read_bytes()).hexdigest() == remote.digest
