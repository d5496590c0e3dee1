"""Into which parts a corpus is split: proportions, and numbers of documents."""

import math
import re
from collections.abc import Sequence

import numpy as np

Proportions = str | float | Sequence[float]


def normalized_proportions(proportions: Proportions) -> np.ndarray:
    """Return shares that add up to 1.

    Parameters
    ----------
    proportions : str, float or sequence of float
        Numbers, or a string of them with "," or "/" between. If they add up to less than 1, the
        remainder is one more share.

    Returns
    -------
    ndarray of shape (n_parts,)

    Raises
    ------
    ValueError
        If they are not numbers, one is negative or infinite, or all are 0.

    Examples
    --------
    >>> from skdiscovery.text.splitting import normalized_proportions
    >>> normalized_proportions("8/1/1")
    array([0.8, 0.1, 0.1])
    >>> normalized_proportions((0.8,))
    array([0.8, 0.2])
    """
    try:
        numbers = re.split("[,/]", proportions) if isinstance(proportions, str) else proportions
        shares = np.atleast_1d(np.asarray(numbers, dtype=np.float64))
    except (TypeError, ValueError):
        shares = np.empty(0)
    total = shares.sum()
    if shares.ndim != 1 or not np.all(shares >= 0) or not 0 < total < np.inf:
        raise ValueError(
            f"proportions={proportions!r}: expected non-negative numbers that are not all 0, as "
            '(1000, 1, 1), "8/1/1" or ".8,.1".'
        )
    if total < 1 and not math.isclose(total, 1):  # .7 + .2 + .1 is a little below 1
        shares, total = np.append(shares, 1 - total), 1.0
    return shares / total


def part_sizes(n_documents: int, shares: np.ndarray) -> np.ndarray:
    """Return the number of documents of each part; none that has a share is empty.

    Raises
    ------
    ValueError
        If there are fewer documents than parts.

    Examples
    --------
    >>> from skdiscovery.text.splitting import part_sizes
    >>> part_sizes(10, np.array([0.98, 0.01, 0.01]))
    array([8, 1, 1])
    """
    n_parts = np.count_nonzero(shares)
    if n_documents < n_parts:
        raise ValueError(f"{n_documents} documents cannot be split into {n_parts} parts.")
    exact = shares * n_documents
    sizes = np.floor(exact).astype(np.int64)
    by_remainder = np.argsort(sizes - exact, kind="stable")
    sizes[by_remainder[: n_documents - sizes.sum()]] += 1
    for part in np.flatnonzero((sizes == 0) & (shares > 0)):
        sizes[np.argmax(sizes)] -= 1
        sizes[part] = 1
    return sizes
