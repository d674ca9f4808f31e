"""Energy and leakage of an SRAM bank by node, size and port: points of CACTI, and a fit with its error between them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib import resources
from math import exp, log, sqrt

from ..workloads.errors import InputError
from ..workloads.mark import Mark
from ..workloads.strict import read_toml
from .scaling import NODES, energy_factor

__all__ = [
    "BANK_KIB",
    "LAST_NODE",
    "PORT_BITS",
    "SIZES",
    "Bank",
    "FitLine",
    "SramFit",
    "SramPoints",
    "bank",
    "sram_points",
]

BANK_KIB, PORT_BITS = 64, 64
"""The bank that buffers are made of where nothing else is said."""
LAST_NODE = 22
"""The smallest that CACTI knows."""
SIZES, _PORTS = (8, 4096), (32, 128)
"""KiB of a bank, bits of its port: the least and the most that are known."""

# Below CACTI's last node: 64 KiB, 64 bits, as hwcomponents-cacti extrapolates from 22 nm.
_AT_16 = (4.84, 3.78)
_STRICT = {"extra": "forbid"}


@dataclass(frozen=True, slots=True, kw_only=True)
class FitLine:
    """Picojoules ``a + b w + (c + d w) s`` with ``w`` = bits / 64, ``s`` = sqrt(KiB / 64)."""

    __pydantic_config__ = _STRICT
    coefficients: tuple[float, float, float, float]
    rms_percent: float
    worst_percent: float

    def __call__(self, kib: int, bits: int) -> float:
        a, b, c, d = self.coefficients
        w, s = bits / 64, sqrt(kib / 64)
        return a + b * w + (c + d * w) * s


@dataclass(frozen=True, slots=True, kw_only=True)
class SramFit:
    """Both directions at one node."""

    __pydantic_config__ = _STRICT
    node: int
    read: FitLine
    write: FitLine


@dataclass(frozen=True, slots=True, kw_only=True)
class SramPoints:
    """``points``: (node, bits, KiB, read pJ, write pJ, leakage uW), as the tool printed them."""

    __pydantic_config__ = _STRICT
    tool: str
    points: tuple[tuple[int, int, int, float, float, float], ...]
    fits: tuple[SramFit, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bank:
    """One access in picojoules and the leakage in microwatts; ``source`` and marks say where they come from."""

    node: int
    kib: int
    bits: int
    read_pj: float
    write_pj: float
    leakage_uw: float
    mark: Mark
    leakage_mark: Mark
    source: str
    leakage_source: str


@cache
def sram_points() -> SramPoints:
    """The points and fits that ship."""
    text = (resources.files(__package__) / "tables" / "sram.toml").read_text(encoding="utf-8")
    return read_toml(SramPoints, text, "sram.toml")


def bank(node: int, kib: int = BANK_KIB, bits: int = PORT_BITS) -> Bank:
    """A bank as CACTI printed it, else by the fit of the next node, else scaled from CACTI's last node."""
    _require(node, kib, bits)
    stored, points = sram_points(), _of(node)
    leak, leakage_mark, leakage_source = _leakage(node, kib)
    if (bits, kib) in points:
        read, write, leak = points[bits, kib]
        mark, source, leakage_mark = Mark.MEASURED, f"{stored.tool}", Mark.MEASURED
    else:
        fit = _fit(node)
        shrink = _reference(node)
        own = _reference(fit.node)
        read, write = (
            line(kib, bits) * new / (old if fit.node != node else new)
            for line, new, old in zip((fit.read, fit.write), shrink, own, strict=True)
        )
        worst = max(fit.read.worst_percent, fit.write.worst_percent)
        mark, source = Mark.INFERRED, f"fit to {stored.tool}, {fit.node} nm, off by {worst:g} % at worst"
        if (kib, bits) == (BANK_KIB, PORT_BITS):
            (read, write), source = shrink, _reference_source(node)
        elif fit.node != node:
            source += f", x {shrink[0] / own[0]:.3f} ({_reference_source(node)})"
    return Bank(
        node=node,
        kib=kib,
        bits=bits,
        read_pj=read,
        write_pj=write,
        leakage_uw=leak,
        mark=mark,
        leakage_mark=leakage_mark,
        source=source,
        leakage_source=leakage_source,
    )


def _require(node: int, kib: int, bits: int) -> None:
    if node not in NODES:
        raise InputError(f"no SRAM of {node} nm is known; choose one of {', '.join(map(str, NODES))}")
    for name, value, (low, high), unit in (("bank", kib, SIZES, "KiB"), ("port", bits, _PORTS, "bits")):
        if not low <= value <= high:
            raise InputError(f"a {name} of {value} {unit} is outside the fit; choose {low} to {high} {unit}")


@cache
def _of(node: int) -> dict[tuple[int, int], tuple[float, float, float]]:
    return {(bits, kib): (r, w, leak) for n, bits, kib, r, w, leak in sram_points().points if n == node}


def _fit(node: int) -> SramFit:
    """Of the node, else of the next one above it that has one."""
    return min((f for f in sram_points().fits if f.node >= node), key=lambda f: f.node)


def _reference(node: int) -> tuple[float, float]:
    """Read and write of 64 KiB with 64 bits."""
    points = _of(node)
    if points:
        return points[PORT_BITS, BANK_KIB][:2]
    if node <= 16:
        shrink = energy_factor(node) / energy_factor(16)
        return _AT_16[0] * shrink, _AT_16[1] * shrink
    above = _of(22)[PORT_BITS, BANK_KIB]
    share = log(22 / node) / log(22 / 16)
    read, write = (exp(log(a) + share * (log(b) - log(a))) for a, b in zip(above, _AT_16, strict=False))
    return read, write


def _reference_source(node: int) -> str:
    if _of(node):
        return sram_points().tool
    if node > 16:
        return f"64 KiB, power law between {sram_points().tool}, 22 nm, and what is extrapolated to 16 nm"
    text = "CACTI, 64 KiB, extrapolated below its 22 nm (hwcomponents-cacti)"
    return text if node == 16 else f"{text}, from 16 nm on as arithmetic"


def _leakage(node: int, kib: int) -> tuple[float, Mark, str]:
    """Proportional to size, which holds within 30 % over the points."""
    known = max(node, 22)
    per_kib = _of(known)[PORT_BITS, BANK_KIB][2] / BANK_KIB
    tool = sram_points().tool
    if node >= 22:
        return per_kib * kib, Mark.INFERRED if kib != BANK_KIB else Mark.MEASURED, f"{tool}, a bank of {kib} KiB"
    return per_kib * kib, Mark.ASSUMED, f"as at 22 nm ({tool}), a bank of {kib} KiB"
