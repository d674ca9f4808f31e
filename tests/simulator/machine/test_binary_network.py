"""A compiled binary network on the chip's model: every bit that a layer reads, and every sum, those of integers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weft.dataflow.config_io import load_spec
from weft.dataflow.program.assembly import assemble, disassemble
from weft.dataflow.program.binary_network import BinaryProgram, compile_network
from weft.dataflow.program.checker import check
from weft.dataflow.program.commands import ProgramError
from weft.dataflow.program.control import MachineError
from weft.dataflow.program.spaces import Target
from weft.dataflow.xnor.spec import XnorSpec
from weft.simulator.machine.binary_host import BinaryHost
from weft.simulator.machine.chip import Chip
from weft.workloads.errors import InputError
from weft.workloads.im2col import Window
from weft.workloads.integer_network import IntegerLayer, IntegerNetwork
from weft.workloads.levels import Levels
from weft.workloads.update_rule import SGD

from ...examples_drawn import examples
from .binary_networks import SIDE, by_integers, drawn_network

TINY = load_spec("tiny")
ENGINES = (
    XnorSpec(rows=3, cols=5, word_bits=64, accumulators=7, dense_words=4),
    XnorSpec(rows=4, cols=8, word_bits=32, accumulators=8, dense_words=8),
    XnorSpec(rows=2, cols=3, word_bits=128, accumulators=2, dense_words=2),
)


def target(own: XnorSpec, buffers: int) -> Target:
    """A machine with the engine whose operand buffers have so many bytes."""
    small = replace(TINY.buffers, w2e_bytes=buffers, n2s_bytes=buffers)
    return Target(spec=replace(TINY, xnor=own, buffers=small), rule=SGD)


def ran(compiled: BinaryProgram, network: IntegerNetwork, pixels: np.ndarray) -> BinaryHost:
    chip = Chip(compiled.target, np.zeros(len(compiled.memory), np.uint8))
    host = BinaryHost(compiled, network, chip.memory)
    host.begin()
    host.put(pixels)
    chip.run(compiled.program.instructions)
    return host


@settings(max_examples=examples(12))
@given(seed=st.integers(0, 2**32 - 1))
def test_a_network_is_that_of_integers(seed: int) -> None:
    rng = np.random.default_rng(seed)
    network, thresholds = drawn_network(rng)
    own, images = ENGINES[rng.integers(len(ENGINES))], int(rng.integers(1, 4))
    channels = len(network.table)
    machine = target(own, int(rng.choice((32_768, 262_144))))
    try:
        compiled = compile_network(network, thresholds, machine, images, (channels, SIDE, SIDE))
    except InputError as error:
        assert "no half of buffers" in str(error)
        return
    check(compiled.program, machine, len(compiled.memory))
    assert assemble(disassemble(compiled.program)) == compiled.program
    pixels = rng.integers(0, 256, (images, channels, SIDE, SIDE)).astype(np.uint8)
    got, want = ran(compiled, network, pixels).forward(images), by_integers(network, thresholds, pixels)
    assert len(got.inputs) == len(network.layers)
    for mine, its in zip(got.inputs, want.inputs, strict=True):
        assert (mine.reshape(its.shape) == its).all()
    assert (got.sums == want.sums).all()
    assert (got.classes == want.classes).all()


def linear(name: str, k: int, n: int, levels: tuple[Levels, Levels] = (Levels.BINARY, Levels.BINARY)) -> IntegerLayer:
    return IntegerLayer(
        name=name,
        weights=np.ones((k, n), np.int8),
        levels=levels,
        window=Window(),
        channels=k,
        edge=1,
        scale=np.ones(n, np.float32),
        bias=np.zeros(n, np.float32),
        norm=None,
    )


@pytest.mark.parametrize(
    ("layer", "why"),
    [
        (linear("x", SIDE * SIDE, 3, (Levels.TERNARY, Levels.BINARY)), "'x' has ternary inputs"),
        (linear("x", SIDE * SIDE, 3, (Levels.BINARY, Levels.TERNARY)), "'x' has ternary weights"),
        (linear("x", 70_000, 3, (Levels.INT8, Levels.INT8)), "the longest contraction is 65535"),
    ],
)
def test_what_is_not_run_is_refused_by_name(layer: IntegerLayer, why: str) -> None:
    network = IntegerNetwork(table=np.ones((1, 256), np.int8), layers=(layer,))
    with pytest.raises(InputError, match=why):
        compile_network(network, [], target(ENGINES[0], 32_768), 1, (1, SIDE, SIDE))


def test_words_that_no_half_holds_are_refused_with_the_bytes_that_do() -> None:
    """A word of 128 bits for each pair of eight planes, for two rows and for three columns."""
    layer = linear("x", SIDE * SIDE, 3, (Levels.INT8, Levels.INT8))
    network = IntegerNetwork(table=np.ones((1, 256), np.int8), layers=(layer,))

    def compiled(w2e: int, n2s: int) -> BinaryProgram:
        small = replace(TINY.buffers, w2e_bytes=w2e, n2s_bytes=n2s)
        machine = Target(spec=replace(TINY, xnor=ENGINES[2], buffers=small), rule=SGD)
        return compile_network(network, [], machine, 1, (1, SIDE, SIDE))

    said = r"layer 'x' takes 64 words .* no half of buffers.{}_bytes of 'tiny' holds; it takes {} bytes"
    for w2e, n2s, wrong in ((2048, 65_536, ("w2e", "4,096")), (65_536, 4096, ("n2s", "6,144"))):
        with pytest.raises(InputError, match=said.format(*wrong)):
            compiled(w2e, n2s)
    assert compiled(4096, 6144).classes == 3


def test_a_machine_without_the_engine_says_so() -> None:
    network = IntegerNetwork(table=np.ones((1, 256), np.int8), layers=(linear("x", SIDE * SIDE, 3),))
    plain = Target(spec=TINY, rule=SGD)
    with pytest.raises(InputError, match="no XNOR engine"):
        compile_network(network, [], plain, 1, (1, SIDE, SIDE))
    compiled = compile_network(network, [], target(ENGINES[0], 32_768), 1, (1, SIDE, SIDE))
    program = replace(compiled.program, machine=plain.hash)
    for runs in (lambda: check(program, plain, 4096), lambda: Chip(plain, compiled.memory).run(program.instructions)):
        with pytest.raises(ProgramError, match="no XNOR engine") as found:
            runs()
        assert found.value.error == MachineError.UNIT
