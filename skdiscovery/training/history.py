"""The history of a training: a row per few steps, and a progress bar."""

import math
import time

from torch import Tensor

from skdiscovery.progress import tqdm

LOG_EVERY = 10
"""Steps between two rows of the history. Between them, nothing waits for the device."""

VALIDATION_HISTORY_COLUMNS = ["step", "epoch", "bytes", "loss", "bits_per_byte"]
HISTORY_COLUMNS = [*VALIDATION_HISTORY_COLUMNS, "learning_rate", "grad_norm", "bytes_per_second"]

Row = dict[str, float]


def rows_after(step: int, history: list[Row]) -> list[Row]:
    """Return the rows of a history that are of later steps."""
    return [row for row in history if row["step"] > step]


def in_both_units(loss: float) -> Row:
    """Return a loss in nats per byte, and in bits per byte."""
    return {"loss": loss, "bits_per_byte": loss / math.log(2)}


class Log:
    """The steps since the last row of the history, and a progress bar.

    Parameters
    ----------
    n_done, n_total : int
        Bytes that the run has predicted before, and that it will have in the end.
    shows_progress : bool
        Whether to draw the bar.

    Attributes
    ----------
    n_bytes : int
        Bytes predicted since the last row.
    losses : list of Tensor
        The losses of the steps since then, which may still be on their way.
    """

    def __init__(self, n_done: int, n_total: int, shows_progress: bool):
        self.bar = tqdm(
            initial=n_done, total=n_total, unit="B", unit_scale=True, disable=not shows_progress
        )
        self.start_row()

    def __enter__(self) -> "Log":
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.close()

    def note(self, n_bytes: int, loss: Tensor) -> None:
        """Note one step, without waiting for its loss."""
        self.n_bytes += n_bytes
        self.losses.append(loss)

    def row(self, mean_loss: float) -> Row:
        """Sum the steps up, show them in the bar, and forget them."""
        row = {
            **in_both_units(mean_loss),
            "bytes_per_second": self.n_bytes / (time.perf_counter() - self._started),
        }
        self.bar.set_postfix_str(f"{row['bits_per_byte']:.3f} bits per byte", refresh=False)
        self.bar.update(self.n_bytes)
        self.start_row()
        return row

    def start_row(self) -> None:
        """Start a row now: the time since the last one was for something else than training."""
        self._started = time.perf_counter()
        self.n_bytes = 0
        self.losses: list[Tensor] = []
