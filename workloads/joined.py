"""What vector work is joined to (`dataflow/fusion/`), and what it then moves no more."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from .errors import require_int
from .gemm import Pass

__all__ = ["Fusion", "Joined"]

Fusion = Literal["none", "elementwise", "full"]
"""What vector work is joined to the op that makes its tensor (`dataflow/fusion/`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Joined:
    """The op that vector work is joined to, and the bytes that it reads and writes no more, as PyTorch has them.

    Work that stands alone, of which something is stored in fewer bits, is joined to itself. ``lanes``: its elements
    that the lanes of the vector unit take; none of what is done as results are stored. ``row``: bytes that the machine
    must hold of rows, where work goes row by row.
    """

    __pydantic_config__ = {"extra": "forbid", "alias_generator": lambda name: name.rstrip("_")}

    name: str
    op: str
    pass_: Pass
    read: int
    write: int
    lanes: int
    row: Annotated[int, Field(exclude_if=lambda row: not row)] = 0

    def __post_init__(self) -> None:
        for size in ("read", "write", "lanes", "row"):
            require_int(f"{size} of work joined to {self.name!r}", getattr(self, size), 0, 2**60)
