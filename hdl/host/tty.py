"""A serial line of the operating system: a board's USB adapter, or the pseudo-terminal of a simulated design."""

from __future__ import annotations

import os
import select
import termios
import time
import tty
from types import TracebackType
from typing import Self

from ...workloads.errors import InputError, nearest

__all__ = ["Tty"]

_LARGEST = 65536


class Tty:
    """The terminal ``path`` at ``baud``, eight bits, no parity, as a `Line`; to be closed, or used in a ``with``."""

    def __init__(self, path: str, baud: int = 1_000_000) -> None:
        speeds = {name[1:]: getattr(termios, name) for name in dir(termios) if name[0] == "B" and name[1:].isdigit()}
        if str(baud) not in speeds:
            raise InputError(f"a terminal has no {baud} baud; {nearest(str(baud), sorted(speeds, key=int))}")
        try:
            self._file = os.open(path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
        except OSError as error:
            raise InputError(f"{path}: cannot be opened: {error.strerror}") from None
        try:
            tty.setraw(self._file, termios.TCSANOW)
            mode = termios.tcgetattr(self._file)
            mode[2] |= termios.CLOCAL | termios.CREAD
            mode[4] = mode[5] = speeds[str(baud)]
            termios.tcsetattr(self._file, termios.TCSANOW, mode)
            termios.tcflush(self._file, termios.TCIOFLUSH)
        except termios.error as error:
            os.close(self._file)
            raise InputError(f"{path}: is no serial line: {error.args[-1]}") from None

    def send(self, octets: bytes) -> None:
        """All of them, waiting for room."""
        while octets:
            select.select([], [self._file], [])
            octets = octets[os.write(self._file, octets) :]

    def receive(self, seconds: float) -> bytes:
        """What came, or nothing within so many seconds."""
        ready, _, _ = select.select([self._file], [], [], max(0.0, seconds))
        return os.read(self._file, _LARGEST) if ready else b""

    def now(self) -> float:
        """Seconds of this computer's clock."""
        return time.monotonic()

    def close(self) -> None:
        """Give the terminal back."""
        os.close(self._file)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()
