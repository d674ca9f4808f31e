"""The boards that a bitstream is made for, and their tops: clock, reset, serial line, lights around the core.

Pins come from amaranth-boards. Memory is block memory; a board's own SDRAM is not driven (docs/board.md).
"""

from __future__ import annotations

import importlib
import importlib.util
from dataclasses import dataclass
from typing import Any

from amaranth import ClockDomain, ClockSignal, Elaboratable, Instance, Module, ResetSignal, Signal
from amaranth.lib.cdc import ResetSynchronizer

from ...workloads.errors import InputError, nearest
from .core import CoreShape
from .pll import Ecp5Pll, pll_settings

__all__ = ["BOARDS", "CORE", "Board", "BoardTop", "find_board"]

CORE = "weft"
"""The module of the core in a board's top."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Board:
    """A board with an LFE5U-85F or its like.

    ``clock`` is the resource of its oscillator and ``hz`` what that gives; ``mhz`` is what the core gets of it: what
    `tiny-ecp5` was placed for (docs/results/synthesis.md), a choice on the ECPIX-5. ``lights``: the resources of busy,
    error and traffic, each with the colour it is of, if it has colours.
    """

    name: str
    title: str
    platform: tuple[str, str]
    device: str
    clock: str
    hz: int
    mhz: int
    reset: str | None
    lights: tuple[tuple[str, int, str | None], ...]
    memory: int = 1 << 16
    instructions: int = 1 << 12

    def shape(self, mhz: int | None = None, baud: int = 1_000_000) -> CoreShape:
        """The core's, at a clock of ``mhz``, the board's by default; one that is not to be had is an InputError."""
        hz = (mhz or self.mhz) * 1_000_000
        if hz != self.hz:
            pll_settings(self.hz, hz)
        return CoreShape(memory=self.memory, instructions=self.instructions, hz=hz, baud=baud)

    def make(self) -> Any:
        """Its platform, which knows the pins."""
        module, name = self.platform
        if importlib.util.find_spec("amaranth_boards") is None:
            raise InputError("a bitstream needs the pins of boards: pip install 'weft[hdl]', or amaranth-boards alone")
        return getattr(importlib.import_module(f"amaranth_boards.{module}"), name)()


BOARDS = {
    board.name: board
    for board in (
        Board(
            name="ulx3s",
            title="Radiona ULX3S with an LFE5U-85F",
            platform=("ulx3s", "ULX3S_85F_Platform"),
            device="LFE5U-85F",
            clock="clk25",
            hz=25_000_000,
            mhz=20,
            reset="button_fire",
            lights=(("led", 0, None), ("led", 1, None), ("led", 2, None)),
        ),
        Board(
            name="ecpix5",
            title="LambdaConcept ECPIX-5 with an LFE5UM5G-85F",
            platform=("ecpix5", "ECPIX585Platform"),
            device="LFE5UM5G-85F",
            clock="clk100",
            hz=100_000_000,
            mhz=20,
            reset="rst",
            lights=(("rgb_led", 0, "g"), ("rgb_led", 1, "r"), ("rgb_led", 2, "b")),
        ),
    )
}


def find_board(name: str) -> Board:
    """The board of that name."""
    if name not in BOARDS:
        raise InputError(f"--board: there is no board {name!r}; {nearest(name, BOARDS)}")
    return BOARDS[name]


class BoardTop(Elaboratable):
    """``board``'s pins around an instance of the core, clocked at ``hz``."""

    def __init__(self, board: Board, hz: int) -> None:
        self.board, self.hz = board, hz

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        board = self.board
        m.domains.sync = ClockDomain()
        given = platform.request(board.clock, dir="i").i
        unsteady = Signal()
        if self.hz == board.hz:
            m.d.comb += ClockSignal().eq(given)
        else:
            m.submodules.pll = pll = Ecp5Pll(pll_settings(board.hz, self.hz))
            m.d.comb += [pll.given.eq(given), ClockSignal().eq(pll.out), unsteady.eq(~pll.locked)]
            platform.add_clock_constraint(pll.out, self.hz)
        pressed = platform.request(board.reset).i if board.reset is not None else 0
        m.submodules.reset = ResetSynchronizer(unsteady | pressed, domain="sync")
        uart = platform.request("uart")
        busy, error, talks = (Signal(name=name) for name in ("busy", "error", "talks"))
        m.submodules.core = Instance(
            CORE,
            i_clk=ClockSignal(),
            i_rst=ResetSignal(),
            i_rx=uart.rx.i,
            o_tx=uart.tx.o,
            o_busy=busy,
            o_error=error,
            o_talks=talks,
        )
        for (resource, number, colour), shown in zip(board.lights, (busy, error, talks), strict=True):
            light = platform.request(resource, number)
            m.d.comb += (light if colour is None else getattr(light, colour)).o.eq(shown)
        return m
