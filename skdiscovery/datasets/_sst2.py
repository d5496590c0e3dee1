"""SST-2: the binary Stanford Sentiment Treebank, sentence by sentence."""

import os
from functools import partial
from typing import Any

import pandas as pd
from sklearn.utils import Bunch
from sklearn.utils._param_validation import StrOptions, validate_params

from skdiscovery.data_folder import locate
from skdiscovery.datasets._bunch import FETCH_CONSTRAINTS, as_bunch
from skdiscovery.datasets._download import RemoteFile, download

_REPOSITORY = (
    "https://raw.githubusercontent.com/openai/generating-reviews-discovering-sentiment/master/data"
)
REMOTE_FILES = {
    "train": RemoteFile(
        url=f"{_REPOSITORY}/train_binary_sent.csv",
        filename="sst2/train.csv",
        hash_name="sha256",
        digest="6003623bcb35aad3a446a265b8931b7ccab61fcc10f2e9c1fec916ff67c7be35",
    ),
    "validation": RemoteFile(
        url=f"{_REPOSITORY}/dev_binary_sent.csv",
        filename="sst2/val.csv",
        hash_name="sha256",
        digest="f34c4987fea208fefc2d62a1b42c83a766cbfc7ce58c2a878ef953cf91f01729",
    ),
    "test": RemoteFile(
        url=f"{_REPOSITORY}/test_binary_sent.csv",
        filename="sst2/test.csv",
        hash_name="sha256",
        digest="519cea7ed4d22fe7ec4eccbb3d5ba6d88902a3b15ce129f476aa8364463a9fc7",
    ),
}

_DESCRIPTION = """\
Binary Stanford Sentiment Treebank (SST-2), sentence level

Sentences from film reviews, labelled positive or negative, neutral ones left out, in the standard
split: 6,920 for training, 872 for validation, 1,821 for testing. The files are those published
with "Learning to Generate Reviews and Discovering Sentiment".

R. Socher, A. Perelygin, J. Wu, J. Chuang, C. Manning, A. Ng and C. Potts (2013). Recursive Deep
Models for Semantic Compositionality Over a Sentiment Treebank. EMNLP.
https://nlp.stanford.edu/sentiment/
"""


@validate_params(
    {**FETCH_CONSTRAINTS, "subset": [StrOptions(set(REMOTE_FILES))]},
    prefer_skip_nested_validation=True,
)
def fetch_sst2(
    *,
    subset: str = "train",
    data_home: str | os.PathLike[str] | None = None,
    download_if_missing: bool = True,
    return_X_y: bool = False,
    as_frame: bool = False,
    n_retries: int = 3,
    delay: float = 1.0,
) -> Bunch | tuple[Any, Any]:
    """Load SST-2, sentences of film reviews; download it where necessary.

    The file is read from the folder that the environment variable ``SKDISCOVERY_DATA`` names, if
    it is there (as ``sst2/train.csv``, ``sst2/val.csv`` or ``sst2/test.csv``); else from the
    cache; else it is downloaded to the cache and checked by its SHA-256.

    =================   =====================
    Classes                                 2
    Samples total       6,920 / 872 / 1,821
    =================   =====================

    Parameters
    ----------
    subset : {"train", "validation", "test"}, default="train"
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
            The sentences. If ``as_frame`` is True, a Series.
        target : ndarray of shape (n_samples,), dtype int64
            0 for a negative sentence, 1 for a positive one. If ``as_frame`` is True, a Series.
        target_names : list of str
            ``["negative", "positive"]``.
        frame : DataFrame of shape (n_samples, 2)
            The columns ``text`` and ``label``. None unless ``as_frame`` is True.
        DESCR : str
            What the data are, and whose.

    (data, target) : tuple if ``return_X_y`` is True
        The sentences and their labels.

    Raises
    ------
    ValueError
        If a parameter has a value that is not allowed.
    OSError
        If the data are missing and ``download_if_missing`` is False, or cannot be downloaded.

    Examples
    --------
    >>> from skdiscovery.datasets import fetch_sst2
    >>> texts, labels = fetch_sst2(subset="validation", return_X_y=True)  # doctest: +SKIP
    >>> len(texts), labels.shape  # doctest: +SKIP
    (872, (872,))
    """
    remote = REMOTE_FILES[subset]
    path = locate(
        remote.filename,
        fill_cache=partial(download, remote, n_retries=n_retries, delay=delay),
        data_home=data_home,
        download_if_missing=download_if_missing,
    )
    # "NA" is a text like any other.
    published = pd.read_csv(path, encoding="utf-8", keep_default_na=False)
    frame = published.rename(columns={"sentence": "text"})[["text", "label"]]
    return as_bunch(frame, description=_DESCRIPTION, return_X_y=return_X_y, as_frame=as_frame)
