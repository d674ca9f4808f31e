"""A clock for the machine out of a board's: the PLL of the ECP5 (Lattice FPGA-TN-02200)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from amaranth import Const, Instance, Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from ...workloads.errors import InputError

__all__ = ["PllSettings", "Ecp5Pll", "pll_settings"]

_MHZ = 1_000_000
_VCO = 400 * _MHZ, 800 * _MHZ
_DETECTOR = 10 * _MHZ, 400 * _MHZ
"""Ranges of the oscillator and of the phase detector, Hz: datasheet of the ECP5 (FPGA-DS-02012), sysCLOCK PLL timing;
`ecppll` of Project Trellis takes the same for the oscillator."""
_DIVIDERS = 128


@dataclass(frozen=True, slots=True)
class PllSettings:
    """The oscillator runs at ``vco`` = input / ``reference`` x ``feedback`` x ``loop`` Hz, the clock at ``vco`` /
    ``output`` = ``hz``: an output beside the one that is fed back makes clocks that the detector is too fast for."""

    reference: int
    feedback: int
    loop: int
    output: int
    hz: int
    vco: int


def pll_settings(given: int, wanted: int) -> PllSettings:
    """Dividers that make ``wanted`` Hz of ``given`` Hz exactly; those whose oscillator is nearest to its middle."""
    found = [
        PllSettings(reference, feedback, loop, vco // wanted, wanted, vco)
        for reference, feedback, loop, vco in _loops(given)
        if vco % wanted == 0 and vco // wanted <= _DIVIDERS
    ]
    if not found:
        clocks = sorted({mhz for *_, vco in _loops(given) for mhz in range(4, 401) if vco % (mhz * _MHZ) == 0})
        close = ", ".join(str(mhz) for mhz in sorted(sorted(clocks, key=lambda mhz: abs(mhz * _MHZ - wanted))[:3]))
        raise InputError(
            f"--mhz: the PLL of an ECP5 does not make {wanted / _MHZ:g} MHz of {given / _MHZ:g} MHz; take one of "
            f"{close}"
        )
    return min(found, key=lambda one: (abs(one.vco - sum(_VCO) // 2), one.reference, one.feedback))


def _loops(given: int) -> Iterator[tuple[int, int, int, int]]:
    """What divides input, feedback and the output that is fed back, and the oscillator that it makes, in whole Hz."""
    for reference in range(1, _DIVIDERS + 1):
        if given % reference or not _DETECTOR[0] * reference <= given <= _DETECTOR[1] * reference:
            continue
        for times in range(-(-_VCO[0] * reference // given), _VCO[1] * reference // given + 1):
            for feedback in range(1, times + 1):
                if times % feedback == 0 and times // feedback <= _DIVIDERS:
                    yield reference, feedback, times // feedback, given // reference * times


class Ecp5Pll(wiring.Component):
    """``out`` at the clock of ``settings``, from the clock ``given``; ``locked`` when it is steady."""

    def __init__(self, settings: PllSettings) -> None:
        self.settings = settings
        super().__init__({"given": In(1), "out": Out(1), "locked": Out(1)})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        settings = self.settings
        feedback = Signal()
        m.submodules.pll = Instance(
            "EHXPLLL",
            a_ICP_CURRENT="12",  # of the loop filter, as ecppll sets them
            a_LPF_RESISTOR="8",
            a_MFG_ENABLE_FILTEROPAMP="1",
            a_MFG_GMCREF_SEL="2",
            p_PLLRST_ENA="DISABLED",
            p_INTFB_WAKE="DISABLED",
            p_STDBY_ENABLE="DISABLED",
            p_DPHASE_SOURCE="DISABLED",
            p_OUTDIVIDER_MUXA="DIVA",
            p_CLKOP_ENABLE="ENABLED",
            p_CLKI_DIV=settings.reference,
            p_CLKFB_DIV=settings.feedback,
            p_CLKOP_DIV=settings.loop,
            p_CLKOP_CPHASE=settings.loop - 1,
            p_CLKOP_FPHASE=0,
            p_OUTDIVIDER_MUXB="DIVB",
            p_CLKOS_ENABLE="ENABLED",
            p_CLKOS_DIV=settings.output,
            p_CLKOS_CPHASE=settings.output - 1,
            p_CLKOS_FPHASE=0,
            p_FEEDBK_PATH="CLKOP",
            i_CLKI=self.given,
            i_CLKFB=feedback,
            i_RST=Const(0),
            i_STDBY=Const(0),
            i_PHASESEL0=Const(0),
            i_PHASESEL1=Const(0),
            i_PHASEDIR=Const(0),
            i_PHASESTEP=Const(0),
            i_PHASELOADREG=Const(0),
            i_PLLWAKESYNC=Const(0),
            i_ENCLKOP=Const(0),
            o_CLKOP=feedback,
            o_CLKOS=self.out,
            o_LOCK=self.locked,
        )
        return m
