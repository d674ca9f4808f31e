"""What the STCE counts beside what every engine does, in ops of which an operand has levels."""

from __future__ import annotations

from dataclasses import dataclass

from ..account import Counts
from ..actions import NOTHING, Action, Component, Each, counted

__all__ = ["SIGN_FLIP", "StceCounts"]

SIGN_FLIP = Action("sign flip", Component.ARRAY, "operation", "sign_flip")


@dataclass(frozen=True, slots=True, kw_only=True)
class StceCounts(Counts):
    """Of an op with a binary, ternary or spike operand."""

    # On an FPGA these are among the LUTs of a PE, which `macs` pays for.
    sign_flips: int = counted(
        "multiplies by -1, 0 or +1, which flip a sign or leave a product out", Each((SIGN_FLIP,)), NOTHING
    )
