"""What is left out is neither read nor counted: against a walk over tiles and words, and the engine's own counts."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import weft
from weft.dataflow.engines import evaluate
from weft.dataflow.mapping import Mapping
from weft.dataflow.stce.mapping import Dataflow
from weft.dataflow.xnor.mapping import XnorMapping
from weft.dataflow.xnor.skipped import executed
from weft.dataflow.xnor.words import beats_of
from weft.simulator.xnor import occupied_words, pack
from weft.workloads.gemm import Gemm
from weft.workloads.levels import Levels

from ..examples_drawn import examples
from ..strategies import LEVELS, gemms, integers_of, xnor_mappings, xnor_specs
from .problems import make_op


def walked(own, mapping, a, b, gemm, beats, skip):
    """Popcounts, words from the west, words from the north, words at the southern edge, one by one."""
    os = mapping.dataflow is Dataflow.OS
    high, wide = (own.rows if os else gemm.m), own.cols * (mapping.interleave if os else 1)
    popcounts = west = north = out = 0
    for top in range(0, gemm.m, high):
        rows = range(top, min(top + high, gemm.m))
        for left in range(0, gemm.n, wide):
            cols = range(left, min(left + wide, gemm.n))
            slots = 0
            for run in range(0, gemm.k, gemm.run):
                for at in range(run, run + gemm.run, own.word_bits):
                    word = range(at, min(at + own.word_bits, run + gemm.run))
                    seen = any(a[r, x] for r in rows for x in word) and any(b[x, c] for c in cols for x in word)
                    slots += beats * (seen or not skip)
            slots = slots or 1
            for _ in range(slots):
                popcounts += len(rows) * len(cols)
                west += len(rows)
                north += len(cols)
            tiles = 1 if os else -(-slots // (own.rows * mapping.group))
            out += len(rows) * len(cols) * (2 * tiles - 1)
    return popcounts, west, north, out


@settings(max_examples=examples(80), deadline=None)
@given(st.data())
def test_every_word_that_is_issued_is_counted_and_no_other(data):
    spec, gemm, levels = data.draw(xnor_specs()), data.draw(gemms(9, 9)), data.draw(st.tuples(LEVELS, LEVELS))
    mapping, own = data.draw(xnor_mappings(spec)), spec.xnor
    a, b = data.draw(integers_of(levels[0], gemm.m, gemm.k)), data.draw(integers_of(levels[1], gemm.k, gemm.n))
    west, north = (pack(x, side, own.word_bits, gemm.run) for x, side in zip((a, b.T), levels, strict=True))
    words, beats = occupied_words(own, mapping, west, north), len(beats_of(*levels))
    whole = np.full_like(words, west.occupied.shape[1])

    for skip, kept in ((True, words), (False, whole)):
        found = executed(spec, mapping, gemm.m, gemm.n, beats, kept)
        assert tuple(found) == walked(own, mapping, a, b, gemm, beats, skip)


@pytest.mark.parametrize("array", [(Dataflow.OS, 2, 1), (Dataflow.WS, 2, 2)], ids=str)
def test_with_nothing_left_out_it_is_what_the_engine_counts(array):
    dataflow, interleave, group = array
    spec, gemm, levels = weft.machine("bnn-ecp5"), Gemm(m=20, k=512, n=30, run=128), (Levels.SPIKE, Levels.TERNARY)
    op = make_op(gemm)
    op = replace(op, a=replace(op.a, levels=levels[0]), b=replace(op.b, levels=levels[1]))
    mapping = XnorMapping(dataflow=dataflow, interleave=interleave, group=group)
    placed = Mapping(array=mapping, gemm=gemm, n2s="b", tile_rows=20, tile_cols=30, resident=True, order="mn")
    counts = evaluate(op, spec, placed).counts
    tiles = -(-20 // 6) * -(-30 // 10) if dataflow is Dataflow.OS else 6

    found = executed(spec, mapping, 20, 30, len(beats_of(*levels)), np.full(tiles, 8))

    assert found._asdict() == {name: getattr(counts, name) for name in found._fields}
