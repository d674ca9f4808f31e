"""Layouts of what the array's controller holds and sends, sized for a machine."""

from __future__ import annotations

from amaranth.lib import data
from amaranth.utils import bits_for, ceil_log2

from ...dataflow.accelerator import AcceleratorSpec
from .pe import UspeFormat

__all__ = ["ADDRESS_BITS", "ASK", "COUNT_BITS", "LEAD", "ControlFormat"]

COUNT_BITS = 16
"""Width of a loop count of a run."""
LEAD = 3
"""Cycles from that of ``start`` to cycle 0 of the run."""
ADDRESS_BITS = 24
"""Width of an address in a bank of a buffer."""

ASK = data.StructLayout({"valid": 1, "address": ADDRESS_BITS})


class ControlFormat:
    """Layouts of run registers and of what the controller sends, sized for a machine."""

    def __init__(self, spec: AcceleratorSpec) -> None:
        pe, f = spec.pe, UspeFormat(spec)
        self.pe = f
        self.row_delay = max(1, (pe.weight_pairs - 1) * max(pe.accumulators, pe.add_latency) + pe.add_latency)
        """Longest delay from row to row."""
        self.delay_bits = max(1, ceil_log2(self.row_delay))
        self.drain = bits_for(spec.array.rows * pe.accumulators)
        part, pairs, shift = bits_for(pe.dense_words), bits_for(pe.max_group), pe.weight_pairs * spec.array.rows
        self.run = data.StructLayout(
            {
                "weight_stationary": 1,
                "interleave": bits_for(pe.accumulators),
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
                "tail_cycles": bits_for(self._longest_tail(spec)),
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
            }
        )
        self.step = data.StructLayout(
            {"ask": ASK, "load": data.StructLayout({"bank": 1, "chunk": f.chunk}), "token": self.token}
        )
        self.sums = data.StructLayout({"valid": 1, "restart": 1, "fresh": 1})

    def _longest_tail(self, spec: AcceleratorSpec) -> int:
        """More than the cycles from the end of the last pair to the last word, in either dataflow."""
        rows, contexts = spec.array.rows, spec.pe.accumulators
        return spec.mac_latency + rows * max(self.row_delay, contexts) + rows + spec.array.cols + contexts
