import signal
import threading

import pytest

from skdiscovery.training.interrupt import noted_interrupt


def test_the_first_is_noted_and_the_second_raises(ctrl_c):
    with noted_interrupt() as interrupt:
        assert not interrupt.is_set()
        ctrl_c()
        assert interrupt.is_set()
        with pytest.raises(KeyboardInterrupt):
            ctrl_c()


@pytest.mark.parametrize("presses", [0, 1])
def test_afterwards_the_handler_is_the_one_before(presses, ctrl_c):
    before = signal.getsignal(signal.SIGINT)
    with noted_interrupt():
        for _ in range(presses):
            ctrl_c()
    assert signal.getsignal(signal.SIGINT) is before


def test_where_it_is_ignored_it_stays_so(ctrl_c):
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with noted_interrupt() as interrupt:
        ctrl_c()
        assert not interrupt.is_set()


def test_other_threads_cannot_and_do_not_try():
    noted = []

    def work():
        with noted_interrupt() as interrupt:
            noted.append(interrupt.is_set())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert noted == [False]
