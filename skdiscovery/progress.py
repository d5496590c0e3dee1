"""The progress bar: a widget in a notebook that has ipywidgets, a line of text elsewhere."""

import warnings

from tqdm import TqdmWarning

with warnings.catch_warnings():
    # In a notebook without ipywidgets it would say so on import, to those who want no bar, too.
    warnings.simplefilter("ignore", TqdmWarning)
    from tqdm.auto import tqdm

__all__ = ["tqdm"]
