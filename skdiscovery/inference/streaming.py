"""Features of more documents than memory holds, straight to a file."""

import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import IO, Any

import numpy as np

from skdiscovery.files import whole_file
from skdiscovery.text import TextCorpus
from skdiscovery.text.documents import iterate_documents


def transform_to_npy(
    transformer: Any, X: Any, path: str | os.PathLike, *, batch_size: int = 4096
) -> np.ndarray:
    """Transform documents a batch at a time, into a ``.npy`` file that need not fit into memory.

    ``X`` may be a generator: no more than a batch of it is held. A featurizer with ``memory`` goes
    on, when it is called again, from where it was killed.

    Parameters
    ----------
    transformer : estimator
        A fitted :class:`~skdiscovery.MLSTMFeaturizer`, or a pipeline of transformers that begins
        with one.
    X : iterable of str or bytes, Series, DataFrame of one column, or TextCorpus
        The documents.
    path : path-like
        The file. It is there once all is written and on disk; until then, what was there stays.
        If the process is killed, a hidden folder beside it stays, ``.{name}.*.part``, as large as
        what was written. No later call removes it, as it might be that of another that still
        writes: do so yourself.
    batch_size : int, default=4096
        Number of documents to transform at a time.

    Returns
    -------
    memmap of shape (n_documents, n_features)
        What was written, open for reading: ``np.load(path, mmap_mode="r")``.

    Raises
    ------
    ValueError, TypeError
        If ``batch_size`` is less than 1, ``X`` is not as the transformer expects, or what it
        returns is no dense matrix of numbers.
    OSError
        If the file cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from skdiscovery import MLSTMFeaturizer, transform_to_npy
    >>> featurizer = MLSTMFeaturizer(pooling="mean", neurons=[3, 5]).fit()
    >>> texts = (f"I saw it {n} times." for n in range(10))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "features.npy"
    ...     features = transform_to_npy(featurizer, texts, path, batch_size=4)
    ...     features.shape
    (10, 2)
    """
    if batch_size < 1:
        raise ValueError(f"batch_size={batch_size!r}: expected 1 or more.")
    path = Path(path)
    with whole_file(path) as temporary, open(temporary, "wb") as file:
        n_rows = 0
        for batch in _batches(X, batch_size):
            try:
                rows = np.ascontiguousarray(transformer.transform(batch))
            except (ValueError, TypeError) as error:
                error.add_note(f"Indices are those of a batch that begins at index {n_rows}.")
                raise
            if rows.ndim != 2 or rows.dtype.hasobject:
                raise TypeError(
                    "Expected rows of numbers from transform, as a dense array, got an array of "
                    f"shape {rows.shape} and dtype {rows.dtype}: leave out a step that makes "
                    "sparse matrices or objects."
                )
            if n_rows == 0:
                _write_header(file, rows)
            file.write(rows.data)
            n_rows += len(rows)
        _write_header(file, rows, n_rows)
        file.flush()
    return np.load(path, mmap_mode="r")


def _batches(X: Any, size: int) -> Iterator[Any]:
    """Yield the documents in order, ``size`` at a time; a batch without any if there is none."""
    if isinstance(X, TextCorpus):  # of bytes that are not to be preprocessed once more
        yield from (X[start : start + size] for start in range(0, max(1, len(X)), size))
        return
    documents = iterate_documents(X)
    yield (batch := list(islice(documents, size)))
    while batch := list(islice(documents, size)):
        yield batch


def _write_header(file: IO[bytes], rows: np.ndarray, n_rows: int = 0) -> None:
    """Write the header of a ``.npy`` file, which numpy pads to one length for any ``n_rows``."""
    file.seek(0)
    np.lib.format.write_array_header_1_0(
        file,
        {
            "descr": np.lib.format.dtype_to_descr(rows.dtype),
            "fortran_order": False,
            "shape": (n_rows, *rows.shape[1:]),
        },
    )
