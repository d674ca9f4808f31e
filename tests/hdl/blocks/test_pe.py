"""One PE in Amaranth's own simulator: what it does in which cycle."""

from __future__ import annotations

import re
from types import SimpleNamespace

import numpy as np
import pytest
from amaranth.sim import Simulator

from weft.dataflow.stce.spec import ArraySpec, PESpec
from weft.hdl.blocks.fp.units import MINUS_ZERO_32
from weft.hdl.blocks.pe import Uspe
from weft.hdl.flow.emit import verilog

from ...strategies import make_spec

SPEC = make_spec(
    array=ArraySpec(rows=2, cols=2, w2e_words=2),
    pe=PESpec(max_group=4, accumulators=3, dense_words=8, weight_pairs=2, multiply_latency=2, add_latency=3),
)
LM, LA = SPEC.pe.multiply_latency, SPEC.pe.add_latency
LAT = SPEC.mac_latency
NAN = 56 << 10
"""Recoded, as all that a PE multiplies."""


def half(value):
    """An FP16 number as it comes from the edge of the array: recoded, by way of frexp."""
    value = np.float16(value)
    sign = int(np.signbit(value)) << 16
    if value == 0 or not np.isfinite(value):
        return sign | (0 if value == 0 else 56 if np.isnan(value) else 48) << 10
    fraction, exponent = np.frexp(abs(float(value)))
    return sign | (int(exponent) - 1 + 15 + 17) << 10 | int(fraction * 2048) - 1024


def single(value):
    return int(np.float32(value).view(np.uint32))


class Script:
    """Inputs by cycle: words, pairs and control words, each where its phase has it."""

    def __init__(self):
        self.inputs = {}

    def at(self, t, **ports):
        self.inputs.setdefault(t, {"control": {}}).update(ports)

    def control(self, t, phase, **fields):
        self.at(t)
        self.inputs[t]["control"][phase] = fields

    def load(self, t, bank, chunk, words):
        self.control(t, "load", valid=1, bank=bank, chunk=chunk)
        self.at(t, words=[half(word) for word in words])

    def issue(self, t, value, index, *, context=0, first=False, last=False, bank=0, offset=0, held=None, takeover=0):
        """One product: of a pair that arrives, or of the pair held at place ``held``."""
        self.control(t, "issue", bank=bank, offset=offset, pair=held or 0, takeover=takeover)
        if held is None:
            self.at(t, pair={"value": half(value), "index": index or 0, "valid": index is not None})
        self.control(t + LM, "add", first=first, context=context)
        self.control(t + LAT, "finish", valid=1, last=last, context=context)

    def shift(self, t, value, index):
        self.at(t, pair={"value": half(value), "index": index, "valid": 1}, shift=1)

    def run(self, cycles, **constant):
        """Outputs of every cycle."""
        pe, seen = Uspe(SPEC), []

        async def bench(ctx):
            for name, value in (constant | {"en": 1}).items():
                ctx.set(getattr(pe, name), value)
            for t in range(cycles):
                given = self.inputs.get(t, {"control": {}})
                ctx.set(pe.control, given["control"])
                ctx.set(pe.words, given.get("words", [NAN] * SPEC.array.w2e_words))
                ctx.set(pe.pair, given.get("pair", {"value": NAN, "index": 3, "valid": 1}))
                ctx.set(pe.chain_valid, "chain" in given)
                ctx.set(pe.chain, given.get("chain", 0))
                ctx.set(pe.sum_north, given.get("sum_north", single(999)))
                if "shift" not in constant:
                    ctx.set(pe.shift, given.get("shift", 0))
                seen.append(
                    SimpleNamespace(
                        total=ctx.get(pe.sum_south),
                        chain=ctx.get(pe.chain_south) if ctx.get(pe.chain_valid_south) else None,
                        pair=ctx.get(pe.pair_south.value),
                        words=[ctx.get(word) for word in pe.words_east],
                        load=ctx.get(pe.control_east.load.valid),
                    )
                )
                await ctx.tick()

        simulator = Simulator(pe)
        simulator.add_clock(1e-6)
        simulator.add_testbench(bench)
        simulator.run()
        return seen


def test_os_sum_starts_from_minus_zero_and_is_used_again_in_the_cycle_in_which_it_leaves():
    script = Script()
    script.load(0, 0, 0, [1.5, 2.0])
    script.load(1, 0, 1, [3.0, -4.0])
    script.issue(2, 10.0, 3, first=True)
    script.issue(2 + LA, 1.0, 0, last=True)

    seen = script.run(2 + LA + LAT + 1, shift=1)

    assert seen[2 + LAT].total == single(-40.0)
    assert seen[2 + LA + LAT].total == single(-38.5)


def test_os_contexts_wait_in_the_accumulators_when_a_pair_is_late():
    script = Script()
    script.load(0, 1, 0, [1.0, 2.0])
    for context in range(3):
        script.issue(1 + context, context + 1.0, 0, context=context, first=True, bank=1)
        script.issue(20 - 2 * context, 10.0, 1, context=context, bank=1)

    seen = script.run(30, shift=1)

    assert [seen[20 - 2 * c + LAT].total for c in range(3)] == [single(c + 21.0) for c in range(3)]


def test_the_next_part_is_loaded_while_the_last_is_in_use():
    script = Script()
    script.load(0, 0, 0, [1.0, 2.0])
    script.load(1, 1, 0, [5.0, 7.0])
    script.issue(1, 1.0, 1, first=True, context=0, bank=0)
    script.issue(2, 1.0, 1, first=True, context=1, bank=1)

    seen = script.run(2 + LAT + 1, shift=1)

    assert [seen[t + LAT].total for t in (1, 2)] == [single(2.0), single(7.0)]


@pytest.mark.parametrize("dense", [np.inf, np.nan, -1.0])
def test_a_bubble_adds_minus_zero_whatever_the_dense_operand_is(dense):
    script = Script()
    script.load(0, 0, 0, [dense, dense])
    script.issue(1, -0.0, None, first=True)

    assert script.run(1 + LAT + 1, shift=1)[1 + LAT].total == MINUS_ZERO_32


def test_nothing_is_kept_of_a_cycle_without_an_issue():
    """The pipeline runs on whatever is on its wires (here NaN); accumulators and chain hear of issues only."""
    script = Script()
    script.load(0, 0, 0, [1.0, 2.0])
    script.issue(1, 3.0, 1, first=True)
    script.issue(12, 1.0, 0)

    seen = script.run(12 + LAT + 1, shift=1)

    assert seen[12 + LAT].total == single(7.0)
    assert all(cycle.chain is None for cycle in seen)


def test_results_drain_in_their_turn_and_let_others_pass():
    script = Script()
    script.load(0, 0, 0, [1.0, 2.0])
    for context in range(2):
        script.issue(1 + context, context + 1.0, 0, context=context, first=True, last=True)
    done = 1 + LAT
    script.at(done - 1, chain=single(100.0))
    script.control(done + 1, "drain", valid=1, context=0)
    script.control(done + 2, "drain", valid=1, context=1)
    script.at(done + 2, chain=single(200.0))

    seen = script.run(done + 5, shift=1)

    left = {t: cycle.chain for t, cycle in enumerate(seen) if cycle.chain is not None}
    assert left == {done: single(100.0), done + 1: single(1.0), done + 2: single(2.0), done + 3: single(200.0)}


def test_a_result_can_drain_in_the_cycle_in_which_it_is_complete():
    script = Script()
    script.load(0, 0, 0, [1.0, 2.0])
    script.issue(1, 4.0, 0, first=True, last=True)
    script.control(1 + LAT, "drain", valid=1, context=0)

    assert script.run(1 + LAT + 1, shift=1)[1 + LAT].chain == single(4.0)


def test_words_control_and_pairs_hop_in_one_cycle():
    script = Script()
    script.load(3, 0, 0, [1.0, 2.0])
    script.at(3, pair={"value": half(6.0), "index": 1, "valid": 1})

    seen = script.run(5, shift=1)

    assert [cycle.load for cycle in seen] == [0, 0, 0, 0, 1]
    assert seen[4].words == [half(1.0), half(2.0)]
    assert seen[4].pair == half(6.0)


def test_ws_holds_its_pairs_while_the_next_are_shifted_in():
    """Two pairs held; the sum of the first product starts from the north, in the cycle of that product."""
    script = Script()
    script.load(1, 0, 0, [1.0, 2.0])
    script.load(2, 0, 1, [3.0, 4.0])
    script.shift(1, 20.0, 1)
    script.shift(2, 10.0, 0)
    script.issue(3, 0, 0, first=True, held=0, takeover=1, offset=2)
    script.at(3 + LM, sum_north=single(0.5))
    script.shift(3, 77.0, 0)
    script.shift(4, 88.0, 0)
    script.issue(3 + LA, 0, 0, held=1, last=True, offset=2)

    seen = script.run(3 + LA + LAT + 1, weight_stationary=1, tap=1)

    assert seen[3].pair == half(20.0)
    assert seen[3 + LAT].total == single(30.5)
    assert seen[3 + LA + LAT].total == single(110.5)


def test_every_emitted_module_of_the_pe_can_hold_still():
    """Those of its units too, which are modules of their own."""
    modules = verilog(SPEC, Uspe(SPEC), "pe").modules

    assert len(modules) == 3
    for module in modules:
        assert re.search(r"^ *input +wire +en\b", module.text, re.MULTILINE)
        held = re.findall(r"<= en \?|\ben \?|if \(+en\b", module.text)
        assert held, f"nothing of {module.name} holds"
