"""A binary product as a command: what it is to the array, which words it takes, what it breaks, how long it takes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from ...workloads.gemm import Gemm
from ..stce.mapping import Dataflow
from ..stce.time import cycles_alone
from ..xnor.mapping import XnorMapping, require_xnor
from ..xnor.spec import ADD_LATENCY
from ..xnor.time import xnor_machine
from .control import MachineError
from .spaces import Space, Target

if TYPE_CHECKING:
    from .commands import Command

__all__ = ["beats_of_registers", "binary_cycles", "broken_binary", "words_of_binary"]

PACKED = 2
"""Cycles from that in which the array is seen to be quiet to that in which its last strip is written and told."""


def beats_of_registers(r: Mapping[str, int]) -> int:
    """Beats of a word: every plane of one side with every one of the other, twice where one side alone has signs."""
    return r["planes_a"] * r["planes_b"] << (r["signs_a"] ^ r["signs_b"])


def words_of_binary(c: Command, target: Target) -> dict[Space, int]:
    """Words of a bank that a binary product reads or writes, from address 0 on; of 32 bits each."""
    slots = c.words * beats_of_registers(_named(c)) * target.bit_words
    read = {Space.XNOR_W2E: c.down * slots, Space.XNOR_N2S: c.across * c.interleave * slots}
    if c.threshold:
        return read | {Space.LEVELS: c.across * c.interleave, Space.SIGNS: c.down * c.across * c.rows}
    return read | {Space.SUMS: c.down * c.across * c.rows * c.interleave}


def broken_binary(c: Command, target: Target) -> Iterator[tuple[MachineError, str]]:
    """Each rule that a binary product of a machine with the engine breaks."""
    own = require_xnor(target.spec)
    for name, limit in (("interleave", own.accumulators), ("rows", own.rows)):
        if getattr(c, name) > limit:
            yield MachineError.COMMAND, f"{name} is {getattr(c, name)}; here it is at most {limit}"
    if c.down > 1 and c.rows != own.rows:
        yield MachineError.COMMAND, f"rows is {c.rows}; of more than one tile along m all {own.rows} are used"
    for x in "ab":
        if getattr(c, f"signs_{x}") and (getattr(c, f"planes_{x}") != 1 or getattr(c, f"negative_{x}")):
            yield MachineError.COMMAND, f"signs_{x} is 1, so planes_{x} must be 1 and negative_{x} 0"
    if c.combine and not c.threshold:
        yield MachineError.COMMAND, "combine is 1; only bits of thresholds are combined"
    for space, words in words_of_binary(c, target).items():
        if words > target.size(space).depth:
            yield MachineError.PLACE, f"{words} words of a bank of {space.name}, which has {target.size(space).depth}"


def binary_cycles(registers: Mapping[str, int], target: Target) -> int:
    """Cycles from that in which a binary product is taken to that in which it is done."""
    r, own = registers, require_xnor(target.spec)
    gemm = Gemm(
        m=r["rows"] + (r["down"] - 1) * own.rows,
        k=r["words"] * beats_of_registers(r),
        n=r["across"] * own.cols * r["interleave"],
    )
    machine = xnor_machine(own)
    mapping = XnorMapping(dataflow=Dataflow.OS, interleave=r["interleave"])
    # run registers, a bit of a factor a cycle (hdl/blocks/run_setup.py)
    setup = own.rows.bit_length() + max(own.accumulators, ADD_LATENCY).bit_length() + 4
    # taken, set up, from start to cycle 0, until the array is seen to be quiet, and the last strip is there
    return 1 + setup + 2 + machine.Lr + cycles_alone(machine, gemm, mapping).total + PACKED


def _named(c: Command) -> dict[str, int]:
    return {name: getattr(c, name) for name in ("planes_a", "planes_b", "signs_a", "signs_b")}
