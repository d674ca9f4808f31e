"""What fusion saves, group by group: every byte that joined vector work reads and writes no more."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..dataflow.beside import machine_bytes
from ..simulator.result import SimResult
from ..workloads.gemm import Pass
from ..workloads.step import VectorOp

__all__ = ["Saving", "savings"]


@dataclass(slots=True)
class Saving:
    """Work joined to the op ``into``: its operators, each once, and DRAM bytes that are not moved."""

    into: str
    pass_: Pass
    what: list[str] = field(default_factory=list)
    read: int = 0
    write: int = 0


def savings(result: SimResult) -> list[Saving]:
    """Of every op that work is joined to, in bytes of the machine's formats, the most first."""
    found: dict[tuple[str, str, Pass], Saving] = {}
    word = result.spec.pe.operand
    for one in result.ops:
        op = one.op
        if not isinstance(op, VectorOp) or op.joined is None:
            continue
        into = op.joined
        saving = found.setdefault((into.name, into.op, into.pass_), Saving(into.name, into.pass_))
        name = op.op.removeprefix("aten.")
        if name not in saving.what:
            saving.what.append(name)
        before = (op.read_bytes + op.wide_read + into.read, op.write_bytes + op.wide_write + into.write)
        saving.read += machine_bytes(op.dtype, before[0], word) - machine_bytes(op.dtype, op.read_bytes, word)
        saving.read -= op.wide_read
        saving.write += machine_bytes(op.dtype, before[1], word) - machine_bytes(op.dtype, op.write_bytes, word)
        saving.write -= op.wide_write
    return sorted((s for s in found.values() if s.read + s.write), key=lambda s: -(s.read + s.write))
