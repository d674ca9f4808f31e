"""Layouts of what the array's controller holds and sends, sized for a machine."""

from __future__ import annotations

from typing import assert_never

from amaranth.lib import data
from amaranth.utils import bits_for, ceil_log2

from ...dataflow.accelerator import AcceleratorSpec
from ...dataflow.xnor.spec import XnorSpec
from .frame import Frame, Gridded, frame_of
from .grid_pe import PeFormat
from .pe import UspeFormat
from .xnor_pe import XnorFormat

__all__ = ["ADDRESS_BITS", "ASK", "COUNT_BITS", "ControlFormat"]

COUNT_BITS = 16
"""Width of a loop count of a run."""
ADDRESS_BITS = 24
"""Width of an address in a bank of a buffer."""

ASK = data.StructLayout({"valid": 1, "address": ADDRESS_BITS})


def _pe_format(spec: Gridded) -> PeFormat:
    match spec:
        case AcceleratorSpec():
            return UspeFormat(spec)
        case XnorSpec():
            return XnorFormat(spec)
        case _:
            assert_never(spec)


class ControlFormat:
    """Layouts of run registers and of what the controller sends, sized for a machine."""

    def __init__(self, spec: Gridded) -> None:
        frame, f = frame_of(spec), _pe_format(spec)
        self.frame = frame
        self.pe = f
        self.row_delay = max(1, (frame.held - 1) * max(frame.accumulators, frame.add_latency) + frame.add_latency)
        """Longest delay from row to row."""
        self.delay_bits = max(1, ceil_log2(self.row_delay))
        self.drain = bits_for(frame.rows * frame.accumulators)
        part, pairs, shift = bits_for(frame.dense_words), bits_for(frame.longest), frame.held * frame.rows
        self.run = data.StructLayout(
            {
                "weight_stationary": 1,
                "interleave": bits_for(frame.accumulators),
                "part_words": part,
                "rest_words": part,
                "part_pairs": pairs,
                "rest_pairs": pairs,
                "parts": COUNT_BITS,
                "runs": COUNT_BITS,
                "across": COUNT_BITS,
                "down": COUNT_BITS,
                "offset_step": part,
                "row_delay": bits_for(self.row_delay),
                "drain_words": self.drain,
                "shift_pairs": bits_for(shift),
                "tap": f.held,
                "tail_cycles": bits_for(self._longest_tail(frame)),
                **f.run,
            }
        )
        self.token = data.StructLayout(
            {
                "valid": 1,
                "first": 1,
                "last": 1,
                "context": f.context,
                "bank": 1,
                "offset": f.position,
                "pair": f.held,
                "takeover": 1,
                "returns": 1,
                **f.token,
            }
        )
        self.step = data.StructLayout(
            {"ask": ASK, "load": data.StructLayout({"bank": 1, "chunk": f.chunk}), "token": self.token}
        )
        self.sums = data.StructLayout({"valid": 1, "restart": 1, "fresh": 1})

    def _longest_tail(self, frame: Frame) -> int:
        """More than the cycles from the end of the last pair to the last word, in either dataflow."""
        rows, contexts = frame.rows, frame.accumulators
        ahead = frame.read_latency - 1
        return ahead + frame.latency + rows * max(self.row_delay, contexts) + rows + frame.cols + contexts
