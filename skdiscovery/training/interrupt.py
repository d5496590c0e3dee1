"""Ctrl-C that waits for the step under way."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def noted_interrupt() -> Iterator[threading.Event]:
    """Note the first Ctrl-C instead of raising it; a second one raises.

    Only the main thread can do so; in others, and where Ctrl-C is ignored, nothing changes.

    Yields
    ------
    threading.Event
        Set by Ctrl-C.
    """
    noted = threading.Event()
    handler = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(handler):
        yield noted
        return

    def note(*_: object) -> None:
        noted.set()
        signal.signal(signal.SIGINT, handler)

    signal.signal(signal.SIGINT, note)
    try:
        yield noted
    finally:
        signal.signal(signal.SIGINT, handler)
