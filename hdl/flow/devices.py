"""FPGAs: what they hold, and what a cell of each takes of it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Literal

__all__ = ["DEVICES", "LEAST", "PARTS", "Device", "Resources", "Target", "resources_of"]

Target = Literal["ecp5", "ice40", "xcup"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """``lut``: LUT4, in xcup LUT6 with pairs of small functions in one; ``memory_lut``: LUTs used as memory or shift
    register; ``carry``: CCU2C (2 bits), SB_CARRY (1) or CARRY4; ``bram``: EBR or BRAM36."""

    lut: int = 0
    memory_lut: int = 0
    ff: int = 0
    carry: int = 0
    dsp: int = 0
    bram: int = 0
    uram: int = 0

    def __add__(self, other: Resources) -> Resources:
        return Resources(**{name: count + getattr(other, name) for name, count in asdict(self).items()})

    def __mul__(self, times: int) -> Resources:
        return Resources(**{name: count * times for name, count in asdict(self).items()})


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """What a device holds. ``lut`` counts all LUT sites, those that memories and ECP5's carries take too."""

    name: str
    has: Resources
    carry_luts: int
    """LUT sites that one carry cell takes for itself."""

    def sites(self, used: Resources) -> int:
        return used.lut + used.memory_lut + self.carry_luts * used.carry


DEVICES: dict[Target, Device] = {
    # nextpnr's device database, as it prints it: 83,640 TRELLIS_COMB, 156 MULT18X18D, 208 DP16KD of 18 kbit
    "ecp5": Device(name="LFE5U-85F", has=Resources(lut=83_640, ff=83_640, dsp=156, bram=208), carry_luts=2),
    # nextpnr's device database: 5,280 ICESTORM_LC, 8 ICESTORM_DSP, 30 ICESTORM_RAM of 4 kbit
    "ice40": Device(name="iCE40UP5K", has=Resources(lut=5_280, ff=5_280, dsp=8, bram=30), carry_luts=0),
    # build scripts of two public repositories for the VCU1525 (docs/results/synthesis.md)
    "xcup": Device(
        name="XCVU9P", has=Resources(lut=1_182_240, ff=2_364_480, dsp=6_840, bram=2_160, uram=960), carry_luts=0
    ),
}

PARTS: dict[str, Device] = {
    "xcvu9p": DEVICES["xcup"],
    # the FINN compiler's table of platforms (53,200 LUTs, 280 RAMB18, 220 DSPs), and Digilent's manual of the PYNQ-Z1
    # (13,300 slices of four LUTs, 630 KB)
    "xc7z020": Device(name="XC7Z020", has=Resources(lut=53_200, ff=106_400, dsp=220, bram=140), carry_luts=0),
}
"""FPGAs with LUTs of six inputs and BRAM36, by part."""

LEAST: dict[Target, Resources] = {
    "ecp5": Resources(lut=600, dsp=1),
    "ice40": Resources(lut=1_000, dsp=1),
    "xcup": Resources(lut=400, dsp=1),
}
"""Less than any PE measured took (docs/results/synthesis.md): enough to refuse an array before hours of work."""

_CELLS: dict[str, tuple[str, int]] = {
    "LUT4": ("lut", 1),
    "CCU2C": ("carry", 1),
    "TRELLIS_DPR16X4": ("memory_lut", 6),
    "TRELLIS_FF": ("ff", 1),
    "MULT18X18D": ("dsp", 1),
    "DP16KD": ("bram", 1),
    "PDPW16KD": ("bram", 1),
    "SB_LUT4": ("lut", 1),
    "SB_CARRY": ("carry", 1),
    "SB_MAC16": ("dsp", 1),
    "SB_RAM40_4K": ("bram", 1),
    "CARRY4": ("carry", 1),
    "CARRY8": ("carry", 1),
    "FDRE": ("ff", 1),
    "FDSE": ("ff", 1),
    "FDCE": ("ff", 1),
    "FDPE": ("ff", 1),
    "DSP48E2": ("dsp", 1),
    "RAMB36E2": ("bram", 1),
    "URAM288": ("uram", 1),
    "SRL16E": ("memory_lut", 1),
    "SRLC32E": ("memory_lut", 1),
    "RAM32M": ("memory_lut", 4),
    "RAM64M": ("memory_lut", 4),
    "RAM32M16": ("memory_lut", 8),
    "RAM64M8": ("memory_lut", 8),
    "RAM32X1D": ("memory_lut", 2),
    "RAM64X1D": ("memory_lut", 2),
    "RAM128X1D": ("memory_lut", 4),
}
"""What a cell takes. A DPR16X4 is four LUTs of memory and two that its write port occupies."""
_FREE = re.compile(r"\$scopeinfo|PFUMX|L6MUX21|MUXF[789]|INV|LUT[1-6]|SB_DFF\w*|VCC|GND|SB_RGBA_DRV|TRELLIS_IO|EHXPLLL")
"""Cells in no count of their own; LUT1..LUT6 are in Yosys' estimate for Xilinx, SB_DFF* are counted by their prefix."""


def resources_of(cells: Mapping[str, int], lut: int) -> Resources:
    """What ``cells`` take, by their names in Yosys; ``lut``: those that Yosys estimates on Xilinx, else 0."""
    counts = {"lut": lut}
    for cell, count in cells.items():
        kind, worth = _CELLS.get(cell, ("ff", 1) if cell.startswith("SB_DFF") else ("", 0))
        if cell == "LUT4" and lut:
            continue
        if kind:
            counts[kind] = counts.get(kind, 0) + count * worth
        elif not _FREE.fullmatch(cell):
            raise RuntimeError(f"hdl/flow/devices.py does not know what a cell {cell} takes")
    return Resources(**counts)
