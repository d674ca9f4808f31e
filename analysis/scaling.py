"""From 45 nm to other nodes: energy and area factors of logic by published models, and how far the models disagree."""

from __future__ import annotations

from math import exp, log

__all__ = [
    "NODES",
    "ONE_VOLTAGE",
    "VOLTS",
    "area_factor",
    "deepscale_factor",
    "describe",
    "disagreement",
    "energy_factor",
]

BASE = 45

# E(V) = a V^2 + b V + c, Stillmaker & Baas, Integration 58 (2017), as in accelergy-library-plug-in, scaling.py.
# The authors' erratum has another row for 32 nm (0.8367, -0.4341, 0.1701): 32, 28 and 22 nm are the least certain.
_ENERGY = {
    45: (1.103, -0.362, 0.2767),
    32: (0.9559, -0.7823, 0.471),
    20: (0.373, -0.1582, 0.04104),
    16: (0.2958, -0.1241, 0.03024),
    14: (0.2363, -0.09675, 0.02239),
    10: (0.2068, -0.09311, 0.02375),
    7: (0.1776, -0.09097, 0.02447),
}
VOLTS = {45: 0.9, 32: 0.9, 28: 0.9, 22: 0.9, 20: 0.9, 16: 0.85, 14: 0.8, 10: 0.75, 7: 0.7}
"""Supply of each node: 45 nm as in Horowitz' figures, the others assumed."""
ONE_VOLTAGE = 0.8

# Area over that of 45 nm: the same paper and file.
_AREA = {45: 1.0, 32: 0.46, 20: 0.21, 16: 0.19, 14: 0.17, 10: 0.1, 7: 0.059}

NODES = tuple(VOLTS)
"""Nanometres, largest first; 28 and 22 lie on the line between 32 and 20."""

# Energy of 28 over 7 nm by DeepScaleTool (Sarangi & Baas, ISCAS 2021): second-hand, from SCARF's public hardware scope.
_DEEPSCALE_28_TO_7 = 0.37 / 0.11


def energy_factor(node: int, volts: float | None = None) -> float:
    """Energy of an operation at ``node`` over that at 45 nm and 0.9 V; with ``volts``, both at that supply."""
    high, low = (VOLTS[node], VOLTS[BASE]) if volts is None else (volts, volts)
    base = _polynomial(BASE, low)
    return _between(node, {n: _polynomial(n, high) / base for n in _ENERGY})


def area_factor(node: int) -> float:
    """Area of logic at ``node`` over that at 45 nm."""
    return _between(node, _AREA)


def deepscale_factor(node: int) -> float | None:
    """The factor, had DeepScaleTool led on from 28 nm; its two known nodes joined by a power law. None above 28 nm."""
    if node > 28:
        return None
    share = log(28 / node) / log(28 / 7)
    return energy_factor(28) * exp(-share * log(_DEEPSCALE_28_TO_7))


def disagreement(node: int) -> tuple[float, float]:
    """Least and largest factor of the others over the one in use: at one voltage, and DeepScaleTool below 28 nm."""
    if node == BASE:
        return 1.0, 1.0
    other = deepscale_factor(node)
    found = [1.0, energy_factor(node, ONE_VOLTAGE) / energy_factor(node)]
    found += [] if other is None else [other / energy_factor(node)]
    return min(found), max(found)


def describe(node: int) -> str:
    """The model behind a factor, and what others would give."""
    if node == BASE:
        return "none: every on-chip figure is of 45 nm; DRAM is of its own device"
    own = energy_factor(node)
    text = (
        f"Stillmaker & Baas 2017, 45 nm 0.9 V to {node} nm {VOLTS[node]:g} V (assumed voltage): x {own:.3f}; "
        f"at {ONE_VOLTAGE:g} V in both: x {energy_factor(node, ONE_VOLTAGE):.3f}"
    )
    other = deepscale_factor(node)
    if other is not None and node < 28:
        text += f"; DeepScaleTool from 28 nm on: x {other:.3f}, {other / own:.1f} times as much"
    return text + "; DRAM not scaled"


def _between(node: int, known: dict[int, float]) -> float:
    """Of a known node, or on the line between its neighbours."""
    if node in known:
        return known[node]
    above, below = min(n for n in known if n > node), max(n for n in known if n < node)
    return known[below] + (known[above] - known[below]) * (node - below) / (above - below)


def _polynomial(node: int, volts: float) -> float:
    a, b, c = _ENERGY[node]
    return a * volts**2 + b * volts + c
