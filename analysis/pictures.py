"""Figures as picture files, for light pages and for dark ones."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["LIGHT", "picture_names", "pictures"]

LIGHT = ("light",)


def picture_names(stem: str, themes: Iterable[str]) -> dict[str, str]:
    """File names of a figure and their themes: ``stem.png``, ``stem-dark.png``."""
    return {f"{stem}{'' if theme == 'light' else '-' + theme}.png": theme for theme in themes}


def pictures(stem: str, draw: Callable[[str], Figure], themes: Iterable[str]) -> dict[str, bytes]:
    """What :func:`picture_names` names, drawn by ``draw`` of a theme."""
    made = {}
    for name, theme in picture_names(stem, themes).items():
        file = io.BytesIO()
        draw(theme).savefig(file, format="png")
        made[name] = file.getvalue()
    return made
