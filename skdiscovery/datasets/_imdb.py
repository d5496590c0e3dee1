"""IMDB: the Large Movie Review Dataset."""

import os
import re
import tarfile
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd
from sklearn.utils import Bunch
from sklearn.utils._param_validation import StrOptions, validate_params

from skdiscovery.data_folder import locate
from skdiscovery.datasets._bunch import FETCH_CONSTRAINTS, as_bunch
from skdiscovery.datasets._download import RemoteFile, download
from skdiscovery.files import UNFINISHED, whole_file

ARCHIVE = RemoteFile(
    url="https://ai.stanford.edu/~amaas/data/sentiment/aclImdb_v1.tar.gz",
    filename="aclImdb_v1.tar.gz",
    hash_name="md5",
    digest="7c2ac02c03563afcf9b574c7e56c153a",
)
_FOLDER = "imdb"
_FILENAMES = {
    "train": "train.jsonl.xz",
    "test": "test.jsonl.xz",
    "unsupervised": "unsup.jsonl.xz",
}
# aclImdb/train/pos/0_9.txt is a positive training review whose author gave 9 of 10 stars.
_MEMBER = re.compile(r"aclImdb/(train|test)/(neg|pos|unsup)/\d+_(\d+)\.txt")

_DESCRIPTION = """\
Large Movie Review Dataset (IMDB)

Film reviews in the standard split: 25,000 for training and 25,000 for testing, half of each
positive (7 to 10 stars) and half negative (1 to 4 stars), and 50,000 without labels. At most 30
reviews are of the same film; no film is in both the training and the test part.

A. Maas, R. Daly, P. Pham, D. Huang, A. Ng and C. Potts (2011). Learning Word Vectors for Sentiment
Analysis. ACL.
https://ai.stanford.edu/~amaas/data/sentiment/
"""


@validate_params(
    {**FETCH_CONSTRAINTS, "subset": [StrOptions(set(_FILENAMES))]},
    prefer_skip_nested_validation=True,
)
def fetch_imdb(
    *,
    subset: str = "train",
    data_home: str | os.PathLike[str] | None = None,
    download_if_missing: bool = True,
    return_X_y: bool = False,
    as_frame: bool = False,
    n_retries: int = 3,
    delay: float = 1.0,
) -> Bunch | tuple[Any, Any]:
    """Load the Large Movie Review Dataset of IMDB reviews; download it where necessary.

    The file is read from the folder that the environment variable ``SKDISCOVERY_DATA`` names, if
    it is there (as ``imdb/train.jsonl.xz``, ``imdb/test.jsonl.xz`` or ``imdb/unsup.jsonl.xz``);
    else from the cache; else the published archive (84 MB) is downloaded, checked by its MD5 and
    converted to those three files in the cache, rows in a fixed pseudo-random order.

    =================   =========================
    Classes                                     2
    Samples total       25,000 / 25,000 / 50,000
    =================   =========================

    Parameters
    ----------
    subset : {"train", "test", "unsupervised"}, default="train"
        The part of the standard split to load.
    data_home : str or path-like, default=None
        As in :func:`sklearn.datasets.get_data_home`; the cache is its folder ``skdiscovery``.
    download_if_missing : bool, default=True
        Whether to download what is not there yet; if False, that is an OSError.
    return_X_y : bool, default=False
        Whether to return ``(data, target)`` instead of a Bunch.
    as_frame : bool, default=False
        Whether the data are pandas objects.
    n_retries : int, default=3
        How often to try again after a download that fails.
    delay : float, default=1.0
        Seconds between two attempts.

    Returns
    -------
    dataset : :class:`~sklearn.utils.Bunch`
        Dictionary-like object, with the following attributes.

        data : list of str, of length n_samples
            The reviews, with the markup that they have (``<br />``). If ``as_frame`` is True, a
            Series.
        target : ndarray of shape (n_samples,), dtype int64
            0 for a negative review, 1 for a positive one. If ``as_frame`` is True, a Series. None
            for ``subset="unsupervised"``.
        ratings : ndarray of shape (n_samples,), dtype int64
            The stars that the author gave, 1 to 10. If ``as_frame`` is True, a Series. None for
            ``subset="unsupervised"``.
        target_names : list of str
            ``["negative", "positive"]``.
        frame : DataFrame of shape (n_samples, 3) or (n_samples, 1)
            The columns ``text``, ``label`` and ``rating``, or ``text`` alone for
            ``subset="unsupervised"``. None unless ``as_frame`` is True.
        DESCR : str
            What the data are, and whose.

    (data, target) : tuple if ``return_X_y`` is True
        The reviews and their labels.

    Raises
    ------
    ValueError
        If a parameter has a value that is not allowed.
    OSError
        If the data are missing and ``download_if_missing`` is False, or cannot be downloaded.

    Examples
    --------
    >>> from skdiscovery.datasets import fetch_imdb
    >>> imdb = fetch_imdb(subset="test")  # doctest: +SKIP
    >>> len(imdb.data), imdb.target.mean(), imdb.ratings.max()  # doctest: +SKIP
    (25000, np.float64(0.5), np.int64(10))
    """
    path = locate(
        f"{_FOLDER}/{_FILENAMES[subset]}",
        fill_cache=partial(_download_and_convert, n_retries=n_retries, delay=delay),
        data_home=data_home,
        download_if_missing=download_if_missing,
    )
    # The types are those of the JSON: a review that reads "1984" stays a text.
    frame = pd.read_json(path, lines=True, dtype=False)
    return as_bunch(
        frame,
        description=_DESCRIPTION,
        return_X_y=return_X_y,
        as_frame=as_frame,
        extras={"ratings": "rating"},
    )


def _download_and_convert(cache: Path, *, n_retries: int, delay: float) -> None:
    folder = cache / _FOLDER
    with TemporaryDirectory(prefix=".download-", suffix=UNFINISHED, dir=folder) as staging:
        archive = download(ARCHIVE, Path(staging), n_retries=n_retries, delay=delay)
        reviews = pd.DataFrame(
            _read_archive(archive), columns=["subset", "text", "label", "rating"]
        )
    with ExitStack() as files:  # all of them, or none
        for subset, filename in _FILENAMES.items():
            rows = reviews[reviews["subset"] == subset].drop(columns="subset")
            if subset == "unsupervised":
                rows = rows[["text"]]
            _write(rows, files.enter_context(whole_file(folder / filename)))


def _read_archive(archive: Path) -> Iterator[tuple[str, str, int, int]]:
    """Yield subset, text, label and rating of every review, without unpacking any to disk."""
    with tarfile.open(archive, mode="r|gz") as members:
        for member in members:
            name = _MEMBER.fullmatch(member.name)
            content = members.extractfile(member) if name and member.isfile() else None
            if name and content:
                split, kind, rating = name.groups()
                subset = "unsupervised" if kind == "unsup" else split
                yield subset, content.read().decode("utf-8"), int(kind == "pos"), int(rating)


def _write(rows: pd.DataFrame, path: Path) -> None:
    rows.sample(frac=1, random_state=0).to_json(
        path,
        orient="records",
        lines=True,
        force_ascii=False,
        # The default preset takes eight times as long, to save a quarter of the size.
        compression={"method": "xz", "preset": 1},
    )
