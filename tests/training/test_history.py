"""The rows of a history; tests/training/test_loop.py has what a training writes into them."""

import math
from types import SimpleNamespace

import pytest
import torch

from skdiscovery.training import history
from skdiscovery.training.history import Log


@pytest.fixture
def clock(monkeypatch):
    """Stop the clock; return a way to let seconds pass."""
    now = [0.0]
    monkeypatch.setattr(history, "time", SimpleNamespace(perf_counter=lambda: now[0]))

    def let_pass(seconds):
        now[0] += seconds

    return let_pass


def test_a_row_sums_up_the_steps_since_the_last(clock):
    with Log(0, 1000, shows_progress=False) as log:
        for n_bytes in (300, 200):
            log.note(n_bytes, torch.tensor(1.0))
        assert (log.n_bytes, len(log.losses)) == (500, 2)
        clock(10)
        assert log.row(math.log(2)) == pytest.approx(
            {"loss": math.log(2), "bits_per_byte": 1, "bytes_per_second": 50}
        )
        assert (log.n_bytes, log.losses) == (0, [])
        log.note(500, torch.tensor(1.0))
        clock(5)
        assert log.row(1.0)["bytes_per_second"] == 100


def test_time_until_a_row_is_started_does_not_count(clock):
    with Log(0, 1000, shows_progress=False) as log:
        clock(10)
        log.row(1.0)
        clock(3600)  # to validate and to write
        log.start_row()
        log.note(500, torch.tensor(1.0))
        clock(10)
        assert log.row(1.0)["bytes_per_second"] == 50


def test_the_bar_goes_on_from_what_was_done(capsys):
    with Log(20, 100, shows_progress=True) as log:
        log.note(30, torch.tensor(1.0))
        log.row(1.0)
    assert "50.0/100" in capsys.readouterr().err
