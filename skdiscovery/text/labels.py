"""Labels as files hold them, gathered into one array."""

from array import array

import numpy as np

Label = str | int | float | None

_MISSING = {"", "na", "n/a", "nan", "+nan", "-nan", "null"}


def is_missing(label: Label) -> bool:
    """Return whether a label is absent: None, NaN, or a text that spreadsheets write for these."""
    if isinstance(label, str):
        return label.strip().lower() in _MISSING
    return label is None or label != label


class LabelColumn:
    """The labels of documents as they come in.

    Each is kept as the number of its value, as there are few values for many documents.

    Examples
    --------
    >>> from skdiscovery.text.labels import LabelColumn
    >>> column = LabelColumn()
    >>> for label in ["5", "", "1"]:
    ...     column.append(label)
    >>> column.to_array()
    array([ 5, -1,  1])
    """

    def __init__(self) -> None:
        self._codes = array("q")
        self._values: dict[Label, int] = {}

    def append(self, label: Label) -> None:
        """Add the label of the next document."""
        code = self._values.get(label)
        if code is None:
            code = -1 if is_missing(label) else self._values.setdefault(label, len(self._values))
        self._codes.append(code)

    def to_array(self, *, binarize: bool = False) -> np.ndarray:
        """Return all labels.

        Parameters
        ----------
        binarize : bool, default=False
            Whether to turn the upper half of the labels' range to 1 and the lower to 0.

        Returns
        -------
        ndarray of shape (n_documents,)
            int64 or float64 with -1 for missing ones if all labels read as numbers, else strings
            with "" for missing ones.

        Raises
        ------
        ValueError
            If strings are to be binarized, or -1 is a label while others are missing.
        """
        codes = np.frombuffer(self._codes, np.int64)
        numbers = as_numbers(list(self._values))
        # Code -1, a missing label, takes the last entry of the table of values.
        if numbers is None:
            if binarize:
                examples = ", ".join(repr(value) for value in list(self._values)[:5])
                raise ValueError(f"binarize_labels=True needs numbers as labels, got {examples}.")
            return np.array([*map(str, self._values), ""])[codes]
        if binarize:
            numbers = binarized(numbers)
        if -1 in codes and -1 in numbers:
            raise ValueError(
                "Some documents have the label -1 and some have none, which would be -1 too: use "
                "drop_unlabeled=True, or write another label than -1."
            )
        return np.append(numbers, np.array(-1, dtype=numbers.dtype))[codes]


def binarized(labels: np.ndarray) -> np.ndarray:
    """Return 1 for labels above the middle of their range, else 0; constant ones as they are.

    Examples
    --------
    >>> from skdiscovery.text.labels import binarized
    >>> binarized(np.array([1, 2, 3, 4, 5]))
    array([0, 0, 0, 1, 1])
    """
    if len(labels) == 0 or labels.min() == labels.max():
        return labels
    return (labels > (labels.min() + labels.max()) / 2).astype(np.int64)


def as_numbers(values: list[Label]) -> np.ndarray | None:
    """Return the values as int64 if all are whole, as float64 if all are numbers, else None.

    Examples
    --------
    >>> from skdiscovery.text.labels import as_numbers
    >>> as_numbers(["1", "0.0"])
    array([1, 0])
    >>> as_numbers(["good", "1"])
    """
    if any(isinstance(value, str) and "_" in value for value in values):
        return None  # "1_2" is a name, though Python reads it as 12
    try:
        numbers = np.array([float(value) for value in values if value is not None])
    except (ValueError, OverflowError):
        return None
    # Beyond 2**53 float64 skips whole numbers.
    if np.all((numbers == np.trunc(numbers)) & (np.abs(numbers) <= 2**53)):
        return numbers.astype(np.int64)
    return numbers
