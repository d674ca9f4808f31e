"""Bytes and reductions of an op, counted element by element, against the closed form and the phases of the step."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from weft.dataflow.accelerator import AcceleratorSpec, BufferSpec
from weft.dataflow.config_io import load_spec
from weft.dataflow.engine_time import compares_per_group
from weft.dataflow.engines import evaluate, tiled
from weft.dataflow.mapping import Mapping
from weft.dataflow.problem import memory_machine
from weft.dataflow.stce.mapping import DENSE, ArrayMapping, Dataflow
from weft.simulator.phases import expanded, streaks_of
from weft.simulator.reference import Traffic, traffic_reference
from weft.simulator.step import macro_tiles
from weft.workloads.errors import InputError
from weft.workloads.gemm import Pass
from weft.workloads.im2col import Window

from ..dataflow.problems import (
    addresses_of,
    convolution_op,
    convolutions,
    in_8_bits,
    machines,
    mappings,
    matrix_ops,
    with_levels,
)
from ..examples_drawn import examples
from ..strategies import LEVELS


def _listed(spec, op, mapping):
    """Bytes and cycles of the phases that the step and the system run."""
    tiles, _, _ = macro_tiles(tiled(op, spec, mapping), spec)
    streaks, ends = streaks_of(tiles)
    phases = expanded(streaks)
    read, written, sore = phases.read, phases.written, phases.sore
    rate, last = memory_machine(spec).rate, ends.store // (1 + tiles.added)
    loaded = [ends.west + ends.north, *read, ends.store - last]
    return loaded, [0, *written, last], [ends.sore // rate, *(sore // rate), 0]


def _short(spec, counted: Traffic) -> tuple[AcceleratorSpec, list[AcceleratorSpec]]:
    """``spec`` with buffers as large as the reference saw them filled, and those of which one is a byte short."""
    names = ("w2e_bytes", "n2s_bytes", "output_bytes")
    enough = {name: 2 * held for name, held in zip(names, counted.held, strict=True)}
    short = [enough | {name: enough[name] - 1} for name in names if enough[name] > 64]
    return _with(spec, enough), [_with(spec, sizes) for sizes in short]


def _with(spec, sizes: dict[str, int]) -> AcceleratorSpec:
    return replace(spec, buffers=BufferSpec(**{name: max(64, size) for name, size in sizes.items()}))


def _streamable(spec, mapping) -> bool:
    """A streamed contraction serves one array tile in OS, whose partial sums stay in the PEs."""
    wide = spec.array.cols * mapping.array.interleave
    one = mapping.tile_rows <= spec.array.rows and mapping.tile_cols <= wide
    return mapping.resident or one or mapping.array.dataflow == Dataflow.WS


@pytest.mark.parametrize("word", ["shipped", "eight bits", "levels"])
@settings(max_examples=examples(300))
@given(st.data())
def test_what_a_walk_over_the_elements_counts_is_what_op_and_step_are_charged(word, data):
    spec = data.draw(machines())
    if word != "eight bits":
        _compare(data, spec, levels=word == "levels")
        return
    _compare(data, in_8_bits(spec))


def _compare(data, spec, levels=False):
    if data.draw(st.booleans()):
        op, addresses = data.draw(convolutions(spec))
    else:
        op = data.draw(matrix_ops(spec, size=16))
        addresses = addresses_of(op)
    if levels:
        op = with_levels(
            op, *(data.draw(st.none() | LEVELS) for _ in range(2)), ("float16", data.draw(st.none() | LEVELS))
        )
    mapping = data.draw(mappings(spec, op))
    assume(op.gemm.macs < 2**15)

    counted = traffic_reference(spec, op, mapping, addresses)
    spec, short = _short(spec, counted)

    if not _streamable(spec, mapping):
        short.append(spec)
    for less in short:
        with pytest.raises(InputError, match="does not fit the buffers"):
            evaluate(op, less, mapping)
    assume(_streamable(spec, mapping))
    placement = evaluate(op, spec, mapping)
    counts = placement.counts
    assert (counts.dram_read_bytes, counts.dram_write_bytes) == (counted.read, counted.write)
    held = getattr(counts, "resident_read_bytes", 0), getattr(counts, "resident_write_bytes", 0)
    assert held == counted.on_chip
    assert counts.buffer_bytes == counted.read + counted.write + sum(held)
    online = op.sparse is not None and (op.sparse.online or not spec.wuve.pregenerate)
    assert counts.sore_compares == (counted.groups * compares_per_group(op.sparse.pattern, spec) if online else 0)
    read, written, sore = _listed(spec, op, mapping)
    assert [phase.read for phase in counted.phases] == read
    assert [phase.write for phase in counted.phases] == written
    assert [phase.sore for phase in counted.phases] == sore


def test_halos_by_hand():
    """Of 4 images of 16 x 16 x 8 a macro-tile makes 2 lines and touches 4: 7 times it shares 2 with the one before."""
    window = Window(image=(16, 16), kernel=(3, 3), stride=(1, 1), padding=(1, 1), dilation=(1, 1))
    op, addresses = convolution_op(Pass.FF, 4, (8, 16), window)
    mapping = Mapping(
        array=ArrayMapping(dataflow=Dataflow.OS, pattern=DENSE, interleave=1),
        gemm=op.gemm,
        n2s="b",
        tile_rows=32,
        tile_cols=16,
        resident=True,
        order="mn",
    )

    counted = traffic_reference(load_spec("tiny"), op, mapping, addresses)

    assert counted.halo == 4 * 7 * 2 * 16 * 8 * 2
    assert counted.read == 2 * (4 * 16 * 16 * 8 + 72 * 16), "and is not charged for them"
