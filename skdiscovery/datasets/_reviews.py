"""Short labelled reviews that ship with the package."""

from importlib import resources
from typing import Any

import pandas as pd
from sklearn.utils import Bunch
from sklearn.utils._param_validation import validate_params

from skdiscovery.datasets._bunch import LOAD_CONSTRAINTS, as_bunch

_DESCRIPTION = """\
Short labelled reviews of skdiscovery

400 reviews in English, written one by one for this package: half of them are positive, half are
of films and series, the others of products, books and restaurants. They are there to try things
out and to test them, on any machine and without a download; to measure how good a model is, take
a published data set.
"""


@validate_params(LOAD_CONSTRAINTS, prefer_skip_nested_validation=True)
def load_reviews(*, return_X_y: bool = False, as_frame: bool = False) -> Bunch | tuple[Any, Any]:
    """Load a small set of labelled reviews that ships with the package.

    The reviews were written for this package. They are 5 to 60 words long.

    =================   ==========================
    Classes                                      2
    Samples per class                          200
    Samples total                              400
    Topics              ``film``, ``product``
    =================   ==========================

    Parameters
    ----------
    return_X_y : bool, default=False
        Whether to return ``(data, target)`` instead of a Bunch.
    as_frame : bool, default=False
        Whether the data are pandas objects.

    Returns
    -------
    dataset : :class:`~sklearn.utils.Bunch`
        Dictionary-like object, with the following attributes.

        data : list of str, of length 400
            The reviews. If ``as_frame`` is True, a Series.
        target : ndarray of shape (400,), dtype int64
            0 for a negative review, 1 for a positive one. If ``as_frame`` is True, a Series.
        topic : ndarray of shape (400,), dtype str
            What is reviewed: ``"film"`` (films and series) or ``"product"``. If ``as_frame`` is
            True, a Series.
        target_names : list of str
            ``["negative", "positive"]``.
        frame : DataFrame of shape (400, 3)
            The columns ``text``, ``label`` and ``topic``. None unless ``as_frame`` is True.
        DESCR : str
            What the data are.

    (data, target) : tuple if ``return_X_y`` is True
        The reviews and their labels.

    Examples
    --------
    >>> from skdiscovery.datasets import load_reviews
    >>> texts, labels = load_reviews(return_X_y=True)
    >>> len(texts), labels.mean()
    (400, np.float64(0.5))
    """
    reviews = resources.files("skdiscovery.datasets") / "data" / "reviews.csv"
    with reviews.open(encoding="utf-8") as file:
        # "NA" is a text like any other.
        frame = pd.read_csv(file, keep_default_na=False)
    return as_bunch(
        frame,
        description=_DESCRIPTION,
        return_X_y=return_X_y,
        as_frame=as_frame,
        extras={"topic": "topic"},
    )
