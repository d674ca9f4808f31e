"""Ctrl-C: a command ends as Python ends it, or, where Python cannot hear, within a second all the same.

A signal handler in Python runs between two bytecodes: not inside a kernel, a convolution or a decoder, and what it
raises is lost in a callback that may raise nothing. The signal itself is written to a pipe by C at once. A thread reads
it, and ends the process if the command has not ended by then; kernels let go of Python's lock, so that the thread can
run (tests/simulator/test_interrupts.py). Files are written whole or not at all, whenever the end comes.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Thread, current_thread, main_thread
from types import FrameType

__all__ = ["INTERRUPTED", "CommandInterrupt", "interrupts"]

INTERRUPTED = 130
"""Exit code of a command that Ctrl-C ended: 128 + SIGINT, as shells have it."""


class CommandInterrupt(Exception):  # noqa: N818
    """KeyboardInterrupt of a command, which Typer would make an exit code without a word; says how to go on."""


_GRACE = 0.6
"""Seconds for Python's own way: its exceptions, which tidy up and say how to go on."""


@contextmanager
def interrupts(*, owns_process: bool) -> Iterator[list[int]]:
    """Ctrl-C does as always, and what it did is noted; if ``owns_process``, the process ends in any case."""
    noted: list[int] = []
    before = signal.getsignal(signal.SIGINT)

    def note(number: int, frame: FrameType | None) -> None:
        noted.append(number)
        signal.default_int_handler(number, frame)

    if before is not signal.default_int_handler or current_thread() is not main_thread():
        yield noted
        return
    signal.signal(signal.SIGINT, note)
    try:
        if owns_process:
            _watch()
        yield noted
    finally:
        # Of a process that is ours the end may be long too: libraries wait for their threads.
        if not owns_process:
            signal.signal(signal.SIGINT, before)


def _watch() -> None:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    Thread(target=_end_in_time, args=(reading, signal.getsignal(signal.SIGINT)), daemon=True).start()


def _end_in_time(pipe: int, ours: object) -> None:
    """End the process soon after a SIGINT; the first one that another handler took, it may use to save its work."""
    borne = False
    while True:
        if os.read(pipe, 1) != bytes([signal.SIGINT]):
            continue
        held = signal.getsignal(signal.SIGINT) is not ours and not borne
        time.sleep(_GRACE)
        if held:
            borne = True
            _say("Interrupted: ends after the step that is running; Ctrl-C again ends at once.")
            continue
        _say("Interrupted.")
        os._exit(INTERRUPTED)


def _say(text: str) -> None:
    """Past Python's streams, whose locks the main thread may hold; progress bars had hidden the cursor."""
    shown = "\r\x1b[2K\x1b[?25h" if sys.__stderr__ is not None and os.isatty(2) else ""
    with suppress(OSError):
        os.write(2, f"{shown}{text}\n".encode())
