"""What the XNOR engine counts beside what every engine does."""

from __future__ import annotations

from dataclasses import dataclass

from ..account import Counts
from ..actions import Action, Each, Fabric, Sites, Where, counted
from .mapping import require_xnor

__all__ = ["FABRIC_POPCOUNT", "POPCOUNT_BIT", "SUM_ADD", "XnorCounts"]

POPCOUNT_BIT = Action("bit compared and counted", "XNOR array", "operation", "popcount_bit")
SUM_ADD = Action("32-bit add of a count", "XNOR array", "operation", "int32_add")
FABRIC_POPCOUNT = Action(
    "word counted in LUTs",
    "XNOR array",
    "operation",
    Fabric("LUTs of the XNOR engine an element", lambda spec, sites: _luts(sites) / require_xnor(spec).elements),
)


def _luts(sites: Sites) -> int:
    """Edges and controller as well, which work when the elements do."""
    return sum(each * count for each, count in sites["xnor_engine"].values())


def _bits_and_sum(where: Where) -> tuple[int, int]:
    """All bits of a word are compared, padding too; their count is added once."""
    return require_xnor(where.spec).word_bits, 1


@dataclass(frozen=True, slots=True, kw_only=True)
class XnorCounts(Counts):
    """Of an op on the XNOR engine; its ``macs`` are counted by the word and cost nothing by themselves."""

    popcounts: int = counted(
        "pairs of words compared, counted and added up",
        Each((POPCOUNT_BIT, SUM_ADD), _bits_and_sum),
        Each((FABRIC_POPCOUNT,)),
    )
