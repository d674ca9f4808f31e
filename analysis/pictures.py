"""Figures as picture files, for light pages and for dark ones."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["LIGHT", "PAPER", "picture_names", "pictures"]

LIGHT = ("light",)
PAPER = ("png", "pdf")
"""Formats of figures that papers take."""


def picture_names(stem: str, themes: Iterable[str], format: str = "png") -> dict[str, str]:
    """File names of a figure and their themes: ``stem.png``, ``stem-dark.png``."""
    return {f"{stem}{'' if theme == 'light' else '-' + theme}.{format}": theme for theme in themes}


def pictures(
    stem: str, draw: Callable[[str], Figure], themes: Iterable[str], formats: Sequence[str] = ("png",)
) -> dict[str, bytes]:
    """What :func:`picture_names` names of each format, drawn by ``draw`` of a theme; equal figures give equal bytes."""
    import matplotlib as mpl

    made = {}
    drawn = {theme: draw(theme) for theme in themes}
    for form in formats:
        for name, theme in picture_names(stem, drawn, form).items():
            file = io.BytesIO()
            # Type 42 keeps words of a PDF text; the date of its making would differ from run to run.
            with mpl.rc_context({"pdf.fonttype": 42}):
                drawn[theme].savefig(file, format=form, metadata={"CreationDate": None} if form == "pdf" else None)
            made[name] = file.getvalue()
    return made
