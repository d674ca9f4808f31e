"""What DRAM does for the transfers of a step beyond sequential streams: it opens rows again for pieces that lie apart,
and moves whole lines of which only a part is asked for.

By shape, as times are: what the memory does in the steady state for pieces of a size and pitch (`dram.steady`), a
useful byte. Vector work and updates are streams.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Literal, NamedTuple

from ..dataflow.schedule import Schedule
from .dram import steady
from .tasks import product_transfers
from .transfers import ONE_PIECE, ByShape, OneRate, Stored, Transfers

__all__ = ["Beyond", "row_misses"]

_ONE = 2**16
"""Of what is counted, so that parts of a transfer add up to whole ones."""


class Beyond(NamedTuple):
    """Of an op, beyond a stream of as many bytes."""

    activates: int
    read_bytes: int
    write_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Counted(ByShape):
    """A count of a transfer in the place of its time."""

    of: Literal["activates", "read", "write"]

    @property
    def turn(self) -> int:
        """Nothing is counted of a change of direction."""
        return 0

    def time(self, size: int, stored: Stored, *, write: bool) -> int:
        """So many, times `_ONE`."""
        if stored == ONE_PIECE or self.of == ("read" if write else "write"):
            return 0
        found, stream = (steady(self.memory, *shape, write, self.order) for shape in (stored, ONE_PIECE))
        beyond = found.activates - stream.activates if self.of == "activates" else found.moved - stream.moved
        return int(size * max(beyond, Fraction(0)) * _ONE)


def row_misses(schedule: Schedule, transfers: Transfers) -> tuple[Beyond, ...]:
    """By op, in the memory of ``transfers``; at one rate, which knows no shapes, nothing."""
    if isinstance(transfers, OneRate):
        return (Beyond(0, 0, 0),) * len(schedule.as_run.ops)

    def counted(of: Literal["activates", "read", "write"]) -> list[int]:
        counting = _Counted(
            memory=transfers.memory,
            port_bytes_per_second=transfers.port_bytes_per_second,
            unit=transfers.unit,
            order=transfers.order,
            of=of,
        )
        return [(n + _ONE // 2) // _ONE for n in product_transfers(schedule, counting)]

    return tuple(map(Beyond, counted("activates"), counted("read"), counted("write")))
