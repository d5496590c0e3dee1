"""What every loader returns: a table of texts and labels in scikit-learn's clothes."""

from numbers import Integral, Real
from os import PathLike
from typing import Any

import numpy as np
import pandas as pd
from sklearn.utils import Bunch
from sklearn.utils._param_validation import Interval

TARGET_NAMES = ["negative", "positive"]

LOAD_CONSTRAINTS: dict[str, list[Any]] = {"return_X_y": ["boolean"], "as_frame": ["boolean"]}
FETCH_CONSTRAINTS: dict[str, list[Any]] = {
    **LOAD_CONSTRAINTS,
    "data_home": [str, PathLike, None],
    "download_if_missing": ["boolean"],
    "n_retries": [Interval(Integral, 0, None, closed="left")],
    "delay": [Interval(Real, 0.0, None, closed="left")],
}


def as_bunch(
    frame: pd.DataFrame,
    *,
    description: str,
    return_X_y: bool,
    as_frame: bool,
    extras: dict[str, str] | None = None,
) -> Bunch | tuple[Any, Any]:
    """Dress a table as scikit-learn's loaders do.

    Parameters
    ----------
    frame : DataFrame of shape (n_samples, n_columns)
        A column ``text``, a column ``label`` where there are labels, and further ones.
    description : str
        What becomes ``DESCR``.
    return_X_y : bool
        Whether to return the texts and the labels alone.
    as_frame : bool
        Whether columns are Series rather than a list of texts and arrays.
    extras : dict of str to str, default=None
        Names of further entries, and the columns that they hold; an entry is None where the
        table has no such column.

    Returns
    -------
    Bunch or (data, target)
    """
    data = frame["text"] if as_frame else frame["text"].tolist()
    target = _column(frame, "label", as_frame)
    if return_X_y:
        return data, target
    further = {name: _column(frame, column, as_frame) for name, column in (extras or {}).items()}
    return Bunch(
        data=data,
        target=target,
        target_names=list(TARGET_NAMES),
        frame=frame if as_frame else None,
        DESCR=description,
        **further,
    )


def _column(frame: pd.DataFrame, name: str, as_frame: bool) -> pd.Series | np.ndarray | None:
    if name not in frame:
        return None
    return frame[name] if as_frame else np.array(frame[name].tolist())
