"""A design behind a serial line in co-simulation: a `Line` in this process, or at a pseudo-terminal as a board is."""

from __future__ import annotations

import os
import select
import threading
import tty
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from ..flow.cosim import Cosim

__all__ = ["PseudoTerminal", "SimulatedLine"]

_BITS = 10
_STEP = 64
"""Bits that are simulated at a time while nothing is sent: a few octets."""
Samples = npt.NDArray[np.uint32]


class SimulatedLine:
    """The compiled ``component``, with ``rx``, ``tx`` and ``talks``, at ``divisor`` cycles a bit.

    ``hz`` says how many cycles are a second of waiting, so that nothing depends on how fast the simulation is.
    """

    def __init__(self, component: Any, divisor: int, hz: int) -> None:
        self.divisor, self.hz, self.cycles = divisor, hz, 0
        self._design = Cosim(component, getattr(component, "parts", {}))
        self._activity = [name for name in ("talks", "busy") if name in self._design.outputs]
        self._tail = np.ones(0, np.uint32)
        self._came = bytearray()

    def reset(self) -> None:
        """As after configuration, nothing on the line."""
        self._design.reset()
        self._tail = np.ones(0, np.uint32)
        self._came.clear()

    def send(self, octets: bytes) -> None:
        """Run the design until they are sent."""
        if octets:
            bits = np.zeros((len(octets), _BITS), np.uint32)
            bits[:, 1:9] = np.unpackbits(np.frombuffer(octets, np.uint8)[:, None], axis=1, bitorder="little")
            bits[:, 9] = 1
            self._run(np.repeat(bits.ravel(), self.divisor))

    def receive(self, seconds: float) -> bytes:
        """What came; the design runs until something does, for so many seconds of its clock at most."""
        left = int(seconds * self.hz)
        while not self._came and left > 0:
            left -= self._run(np.ones(_STEP * self.divisor, np.uint32))[0]
        came, self._came = bytes(self._came), bytearray()
        return came

    def now(self) -> float:
        """Seconds of the design's clock."""
        return self.cycles / self.hz

    def step(self) -> bool:
        """Run for a few octets' time; whether the design did anything."""
        return self._run(np.ones(_STEP * self.divisor, np.uint32))[1]

    def _run(self, rx: Samples) -> tuple[int, bool]:
        seen = self._design.run({"rx": rx})
        self.cycles += len(rx)
        self._hear(seen["tx"])
        return len(rx), bool((seen["tx"] == 0).any()) or any(seen[name].any() for name in self._activity)

    def _hear(self, tx: Samples) -> None:
        """Octets out of the samples of a line."""
        line, at = np.concatenate([self._tail, tx]), 0
        low = np.flatnonzero(line == 0)
        while (following := np.searchsorted(low, at)) < len(low):
            begins = int(low[following])
            at = begins + _BITS * self.divisor - self.divisor // 2
            if at > len(line):
                self._tail = line[begins:]
                return
            middles = begins + self.divisor // 2 + self.divisor * np.arange(1, 9)
            self._came += np.packbits(line[middles].astype(np.uint8), bitorder="little").tobytes()
        self._tail = line[max(at, len(line)) :]


class PseudoTerminal:
    """A thread that runs ``line``'s design at a terminal of its own, ``path``, as a board's adapter would show it."""

    def __init__(self, line: SimulatedLine) -> None:
        self._line = line
        self._own, self._other = os.openpty()
        tty.setraw(self._other)
        self.path = os.ttyname(self._other)
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        works = False
        while not self._ends.is_set():
            ready, _, _ = select.select([self._own], [], [], 0.0 if works else 0.01)
            if ready:
                self._line.send(os.read(self._own, 4096))
            works = self._line.step() or bool(ready)
            if octets := self._line.receive(0.0):
                os.write(self._own, octets)

    def close(self) -> None:
        """End the simulation."""
        self._ends.set()
        self._thread.join()
        os.close(self._own)
        os.close(self._other)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()
