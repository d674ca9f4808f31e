"""Colours and type of every figure, light and dark; the palette is Okabe and Ito's, safe for colour-blind readers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from ..dataflow.actions import Component
from ..workloads.errors import InputError, nearest
from ..workloads.gemm import Pass
from .dram_tensors import TensorKind

__all__ = ["OTHER", "THEMES", "Theme", "part_key", "theme_of"]

_ORANGE, _RED, _PINK, _GREEN = "#E69F00", "#D55E00", "#CC79A7", "#009E73"


OTHER = ("#882255", "#44AA99", "#999933", "#AA4499")
"""For causes and parts of engines that do not ship, of Tol's muted scheme."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Theme:
    """Colours of one theme, of pictures and of pages: causes of cycles, passes, and parts of the energy, which are
    kinds of tensors in DRAM and components of the machine."""

    name: str
    background: str
    text: str
    muted: str
    grid: str
    causes: dict[str, str]
    passes: dict[Pass, str]
    parts: dict[str, str]

    def part(self, name: str) -> str:
        """Colour of a part of the energy; parts of engines that do not ship have one together."""
        return self.parts.get(name, OTHER[0])

    def colours(self, causes: Iterable[str]) -> dict[str, str]:
        """A colour of each cause: its own, or the next of `OTHER`."""
        given = list(causes)
        others = [cause for cause in given if cause not in self.causes]
        return {c: self.causes.get(c) or OTHER[others.index(c) % len(OTHER)] for c in given}

    @property
    def rc(self) -> dict[Any, Any]:
        """Matplotlib settings that a figure is made under."""
        return {
            "figure.facecolor": self.background,
            "axes.facecolor": self.background,
            "savefig.facecolor": self.background,
            "text.color": self.text,
            "axes.labelcolor": self.text,
            "axes.titlecolor": self.text,
            "axes.edgecolor": self.muted,
            "xtick.color": self.muted,
            "ytick.color": self.text,
            "xtick.labelcolor": self.text,
            "ytick.labelcolor": self.text,
            "grid.color": self.grid,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.axisbelow": True,
            # A name may hold dollars, which are not mathematics.
            "text.parse_math": False,
            "font.size": 10,
            "axes.titlesize": 10,
            "xtick.labelsize": 9,
            "ytick.labelsize": 9,
            "figure.dpi": 150,
        }


def _theme(
    name: str,
    background: str,
    text: str,
    muted: str,
    grid: str,
    fills: tuple[str, str, str, str],
    tones: tuple[str, str, str, str],
) -> Theme:
    """``fills`` and ``tones``: colours that must differ between the themes to stay apart from the ground and each
    other."""
    blue, sky, yellow, grey = fills
    causes = {
        "compute": blue,
        "interleave_stall": _ORANGE,
        "port_stall": yellow,
        "fill_drain": sky,
        "dram_stall": _RED,
        "sore": _PINK,
        "wuve": _GREEN,
        "vector": grey,
    }
    passes = {Pass.FF: blue, Pass.BP: _ORANGE, Pass.WU: _GREEN, Pass.OPT: grey}
    # A tensor is as its pass: an activation as the forward one, gradients as the two that make them, masters as the
    # update; of the machine a part is as the time that it takes, and what takes none is grey.
    parts: dict[str, str] = {
        TensorKind.WEIGHT: _PINK,
        TensorKind.MASTER: tones[0],
        TensorKind.COPY: tones[1],
        TensorKind.CACHE: tones[3],
        TensorKind.ACTIVATION: sky,
        TensorKind.GRADIENT: _ORANGE,
        TensorKind.WEIGHT_GRADIENT: _GREEN,
        TensorKind.UNTOLD: tones[2],
        Component.ARRAY: blue,
        Component.BUFFERS: yellow,
        Component.DRAM: _RED,
        Component.SORE: "#AA4499",
        Component.WUVE: "#44AA99",
        Component.VECTOR: grey,
        Component.CLOCK: text,
        Component.STATIC: muted,
    }
    return Theme(
        name=name, background=background, text=text, muted=muted, grid=grid, causes=causes, passes=passes, parts=parts
    )


THEMES = {
    "light": _theme(
        "light",
        "#FFFFFF",
        "#1B1F24",
        "#6E7681",
        "#E3E6EA",
        ("#0072B2", "#56B4E9", "#D9C91A", "#A3A9B1"),
        ("#7A2E1D", "#999933", "#CBBBA0", "#6A4FA3"),
    ),
    "dark": _theme(
        "dark",
        "#0F1419",
        "#E6EAEE",
        "#8B949E",
        "#2A3139",
        ("#2B7FC4", "#9AD1F5", "#F0E442", "#7D8590"),
        ("#B5476F", "#B3B34D", "#8A7F6C", "#A58BE0"),
    ),
}


def part_key(part: str) -> str:
    """Name of the colour of a part of the energy on a page."""
    return f"part-{part.lower().replace(' ', '-')}" if part in THEMES["light"].parts else "other"


def theme_of(name: str) -> Theme:
    """Theme of that name."""
    if name not in THEMES:
        raise InputError(f"theme {name!r} is unknown: {nearest(name, THEMES)}")
    return THEMES[name]
