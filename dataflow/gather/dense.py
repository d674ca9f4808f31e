"""How the dense operand lies in half of the W2E buffer: words of ``width`` elements in ports, a row's side by side.

A port is a bank, or without banks the copy of a lane; row k is in port k mod banks, or in every copy.
"""

from __future__ import annotations

from ..accelerator import AcceleratorSpec
from .mapping import require_gather
from .spec import GatherSpec

__all__ = ["dense_ports", "held_bytes", "most_columns", "most_lines", "port_words", "row_place"]


def dense_ports(own: GatherSpec) -> int:
    """Ports that are read at once."""
    return own.banks or own.lanes


def port_words(spec: AcceleratorSpec) -> int:
    """Words that a port holds for one macro-tile."""
    return max(1, spec.buffers.w2e_bytes // 2 // _line_bytes(spec))


def held_bytes(spec: AcceleratorSpec, k: int, columns: int) -> int:
    """What ``columns`` of ``k`` rows take there, whole words in whole lines of ports."""
    own = require_gather(spec)
    return -(-k // (own.banks or 1)) * -(-columns // own.width) * _line_bytes(spec)


def most_lines(spec: AcceleratorSpec) -> int:
    """Lines that a lane holds, of a single word of columns."""
    return min(require_gather(spec).interleave, spec.pe.accumulators)


def most_columns(spec: AcceleratorSpec, k: int, interleave: int = 1) -> int:
    """Columns of ``k`` rows of the dense operand that the buffer holds, and the sums of ``interleave`` lines a lane; 0
    if there are none."""
    own = require_gather(spec)
    return own.width * min(spec.pe.accumulators // interleave, port_words(spec) // -(-k // (own.banks or 1)))


def _line_bytes(spec: AcceleratorSpec) -> int:
    """A word in every port."""
    own = require_gather(spec)
    return dense_ports(own) * spec.pe.operand.size(own.width)


def row_place(own: GatherSpec, k: int, columns: int) -> tuple[int, int]:
    """The bank of row ``k``, 0 where there are copies, and the address of its first word."""
    row, bank = divmod(k, own.banks or 1)
    return bank, row * -(-columns // own.width)
