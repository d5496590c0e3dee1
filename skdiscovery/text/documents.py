"""Documents as users hand them over, checked and turned into bytes."""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pandas as pd

from skdiscovery.text.preprocessing import Preprocessor, get_preprocessor


def encode_documents(X: Any, preprocessor: str | Preprocessor | None = "review") -> list[bytes]:
    r"""Preprocess documents to the bytes that a language model reads.

    Parameters
    ----------
    X : iterable of str or bytes, Series, ndarray, or DataFrame of one column
        The documents; a Series or DataFrame is pandas' or polars'. ``bytes`` are decoded as UTF-8
        first, unless ``preprocessor`` is None, which takes them as they are.
    preprocessor : {"review", "openai", "nvidia"}, callable or None, default="review"
        How a text becomes bytes.

    Returns
    -------
    list of bytes
        One entry per document, in order.

    Raises
    ------
    ValueError
        If ``X`` is a single string, has several columns, has a missing text, or has bytes that
        are not UTF-8.
    TypeError
        If ``X`` is not iterable, or one of its documents is neither ``str`` nor ``bytes``.

    Examples
    --------
    >>> from skdiscovery.text import encode_documents
    >>> encode_documents(["Great!", b"Awful."])
    [b'\n Great! ', b'\n Awful. ']
    """
    preprocess = get_preprocessor(preprocessor)
    return [
        document
        if isinstance(document, bytes) and preprocessor is None
        else preprocess(_decode(document, index))
        for index, document in enumerate(iterate_documents(X))
    ]


def iterate_documents(X: Any) -> Iterator[Any]:
    """Return an iterator over what a user gave as documents; raise if it is no collection."""
    if isinstance(X, str | bytes):
        # The words of scikit-learn's CountVectorizer.
        raise ValueError("Iterable over raw text documents expected, string object received.")
    if not isinstance(X, Iterable) or isinstance(X, dict):
        raise TypeError(
            f"Expected an iterable of str or bytes (list, Series, array, generator, ...), "
            f"got {type(X).__name__}."
        )
    if hasattr(X, "__array__"):  # of NumPy, pandas, polars, pyarrow
        # A list has None for what is masked.
        X = np.asarray(X.tolist() if isinstance(X, np.ma.MaskedArray) else X, dtype=object)
        if X.ndim == 0:
            return iterate_documents(X.item())
        if X.ndim > 2 or X.shape[1:] not in ((), (1,)):
            raise ValueError(f"Expected one column of texts, got an array of shape {X.shape}.")
        X = X.ravel()
    return iter(X)


def _decode(document: Any, index: int) -> str:
    if isinstance(document, str):
        return document
    if isinstance(document, bytes):
        try:
            return document.decode("utf-8")
        except UnicodeDecodeError as error:
            raise ValueError(
                f"The document at index {index} is not UTF-8: {error}. Decode it first, or use "
                "preprocessor=None to read bytes as they are."
            ) from error
    if document is np.ma.masked or (pd.api.types.is_scalar(document) and pd.isna(document)):
        raise ValueError(
            f"The document at index {index} is missing ({document!r}): drop it or replace it, for "
            "example by an empty string."
        )
    raise TypeError(
        f"The document at index {index} is of type {type(document).__name__}: expected str or "
        "bytes."
    )
