"""`weft models`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from typing import TYPE_CHECKING

from .console import get_console, make_table
from .options import Json
from .outputs import print_json

if TYPE_CHECKING:
    from ..workloads.models.zoo import ZooModel

__all__ = ["models"]


def models(as_json: Json = False) -> None:
    """List the built-in models."""
    from ..workloads.models.zoo import MODELS

    if as_json:
        print_json({"models": [{**asdict(m), "input": m.input} for m in MODELS.values()]})
        return
    _show(MODELS.values())


def _show(models: Iterable[ZooModel]) -> None:
    rows = [(m.name, m.title, m.input, str(m.batch)) for m in models]
    console = get_console()
    console.print(make_table("", ("name", "model", "input", "batch"), rows, left=3))
    console.print("An image model takes another side as name@64, a text model another length as --seq 512.")
