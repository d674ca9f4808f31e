"""Ctrl-C as a wish: long work ends at a point of its own choosing, with nothing lost."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["asked_to_stop"]


@contextmanager
def asked_to_stop() -> Iterator[Callable[[], bool]]:
    """The first SIGINT is remembered, the second interrupts; outside of the main thread none can be seen."""
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    came = threading.Event()
    before = signal.getsignal(signal.SIGINT)

    def remember(number: int, frame: Any) -> None:
        if came.is_set() and callable(before):
            before(number, frame)
        came.set()

    signal.signal(signal.SIGINT, remember)
    try:
        yield came.is_set
    finally:
        signal.signal(signal.SIGINT, before)
