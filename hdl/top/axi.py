"""AXI4 as the accelerator speaks it: one identifier, incrementing bursts of whole beats (Arm IHI 0022H)."""

from __future__ import annotations

from typing import Any

from amaranth import Const
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from ...workloads.errors import InputError

__all__ = ["ADDRESS_BITS", "Axi4", "BOUNDARY", "LONGEST_BURST", "Response", "require_beat"]

ADDRESS_BITS = 48
"""Of a byte address: 32 bits of a register and a segment of 16."""
BOUNDARY = 4096
"""No burst crosses a multiple of so many bytes (A3.4.1)."""
LONGEST_BURST = 256
"""Beats of the longest incrementing burst (A3.4.1)."""
_INCREMENTING = 1


class Response:
    """Codes of an answer (A3.4.4)."""

    OKAY = 0
    SLAVE_ERROR = 2
    DECODE_ERROR = 3


def require_beat(beat_bytes: int) -> None:
    """Refuse beats that AXI4 does not have (A3.4.1), or of a single word of two bytes."""
    if beat_bytes not in (4, 8, 16, 32, 64, 128):
        raise InputError(f"a beat of AXI4 has 4, 8, 16, 32, 64 or 128 bytes here, not {beat_bytes}")


class Axi4(wiring.Signature):
    """A manager's bus of ``beat_bytes``: five streams, each payload with the fields of its channel.

    What is constant besides stands in `ports.py`.
    """

    def __init__(self, beat_bytes: int) -> None:
        require_beat(beat_bytes)
        self.beat_bytes = beat_bytes
        address = data.StructLayout({"addr": ADDRESS_BITS, "len": 8, "size": 3, "burst": 2})
        read = data.StructLayout({"data": 8 * beat_bytes, "resp": 2, "last": 1})
        write = data.StructLayout({"data": 8 * beat_bytes, "strb": beat_bytes, "last": 1})
        answer = data.StructLayout({"resp": 2})
        super().__init__(
            {
                "ar": Out(stream.Signature(address)),
                "r": In(stream.Signature(read)),
                "aw": Out(stream.Signature(address)),
                "w": Out(stream.Signature(write)),
                "b": In(stream.Signature(answer)),
            }
        )

    @staticmethod
    def burst(payload: Any, beat_bytes: int, address: Any, length: Any) -> list[Any]:
        """Assignments that make ``payload`` of an address channel a burst of ``length`` + 1 whole beats."""
        return [
            payload.addr.eq(address),
            payload.len.eq(length),
            payload.size.eq(Const(exact_log2(beat_bytes), 3)),
            payload.burst.eq(_INCREMENTING),
        ]
