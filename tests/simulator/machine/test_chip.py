"""Every command's values: transfers by their definition, products by the cycle level, vector work by whole tensors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weft.dataflow.program.commands import Command
from weft.dataflow.program.isa import REGISTERS, Unit
from weft.dataflow.program.spaces import COLUMN_BEATS, Form, Space, place
from weft.dataflow.program.vector_operations import Slot, VectorOpcode
from weft.dataflow.stce.mapping import ArrayMapping, Dataflow
from weft.hdl.blocks.banks import banks
from weft.simulator.array import run_array
from weft.simulator.compact import compress
from weft.simulator.machine import norm, pool, vector
from weft.simulator.machine.chip import Chip
from weft.simulator.operand import narrow
from weft.simulator.update_settings import Sgd
from weft.workloads.gemm import Gemm
from weft.workloads.im2col import Window
from weft.workloads.sparsity import NMPattern

from ...hdl.top.commands import BANK, TARGET, drawn, places, usual
from ...hdl.top.loads import loaded
from ...hdl.top.transfers import BEAT, DEPTH

SEEDS = st.integers(0, 2**32 - 1)
LANES = TARGET.spec.vector.lanes


def command(unit: Unit, **given: int) -> Command:
    registers = usual(unit, **given)
    return Command(0, unit, tuple(registers[r.name] for r in REGISTERS[unit]), 0, 0, 0, 0)


def chip(memory: bytes | None = None) -> Chip:
    given = bytes(DEPTH * BEAT) if memory is None else memory
    return Chip(TARGET, np.frombuffer(given, np.uint8).copy())


@settings(max_examples=100)
@given(SEEDS)
def test_a_load_places_each_word_as_it_is_defined(seed: int) -> None:
    rng = np.random.default_rng(seed)
    space = Space(rng.choice(TARGET.loaded))
    forms = {Space.W2E: (0, 3), Space.N2S: (0, 2, 3)}.get(space, (0, 1, 3))
    form = Form(rng.choice(forms))

    def own(rng: np.random.Generator) -> dict[str, int]:
        grouped = space == Space.N2S and form == Form.OPERAND
        each = {"group": int(rng.integers(1, 9)), "run": int(rng.integers(1, 30)), "across": int(rng.integers(2))}
        return each if grouped else {}

    registers = drawn(rng, Unit.LOAD, space, form, own)
    words = rng.integers(0, 2**16, DEPTH * BEAT // 2).astype(np.uint16)
    memory = np.where(words & 0x7C00 == 0x7C00, words ^ 0x0400, words).astype(np.uint16).tobytes()
    of = chip(memory)
    of.load(command(Unit.LOAD, **registers))
    last = {(half, bank, address): word for _, half, bank, address, *word in loaded(registers, memory, TARGET)}
    for at, (value, index, bubble) in last.items():
        assert of.values[space][at] == value
        if space == Space.N2S:
            assert of.indices[space][at] == (255 if bubble else index)
    assert bytes(of.memory) == memory


@settings(max_examples=60)
@given(SEEDS)
def test_a_store_writes_each_word_as_it_is_defined(seed: int) -> None:
    rng = np.random.default_rng(seed)
    space = Space(rng.choice([x for x in TARGET.stored if x != Space.PAIRS]))
    output = space == Space.OUTPUT

    def own(rng: np.random.Generator) -> dict[str, int]:
        return {name: int(rng.integers(2)) for name in ("bias", "relu", "bias_half") if output}

    r = drawn(rng, Unit.STORE, space, Form(rng.choice((Form.OPERAND, Form.FP32))), own)
    of = chip()
    of.values[space][...] = rng.standard_normal(of.values[space].shape).astype(np.float32).view(np.uint32)
    of.values[Space.BIAS][...] = rng.standard_normal(of.values[Space.BIAS].shape).astype(np.float32).view(np.uint32)
    expected, each = bytearray(DEPTH * BEAT), 4 if r["form"] == Form.FP32 else 2
    for offset, word, bank, address in places(r):
        value = of.values[space][r["half"], bank, address].view(np.float32)
        if r["bias"]:
            value = value + of.values[Space.BIAS][r["bias_half"], 0, word].view(np.float32)
        if r["relu"]:
            value = max(value, np.float32(0))
        raw = (np.float32(value) if each == 4 else np.float16(value)).tobytes()
        expected[offset + each * word : offset + each * (word + 1)] = raw
    of.store(command(Unit.STORE, **r))
    assert bytes(of.memory) == bytes(expected)
    assert not of.nonfinite


def test_pairs_and_reductions_are_those_of_sore() -> None:
    """Through SORE along lines and across them, stored as pairs and loaded again."""
    rng = np.random.default_rng(5)
    pattern = NMPattern(keep=2, group=8)
    operand = rng.standard_normal((3, 20)).astype(np.float16)
    of = chip(operand.tobytes() + bytes(4096 - operand.nbytes))
    compact = compress(np.ascontiguousarray(operand.T), pattern, 20)
    slots = len(compact.values)
    along = {"words": 20, "count3": 3, "step3": 40, "run": 20, "reduce": 1, "group": 8}
    on_chip = {"inner2": slots, "inner2_step": 1, "outer2": 3, "outer2_step": BANK}
    of.load(command(Unit.LOAD, space=Space.N2S, form=Form.OPERAND, **along, **on_chip))
    assert (of.values[Space.N2S][0, :3, :slots] == compact.values.T.view(np.uint16)).all()
    assert (of.indices[Space.N2S][0, :3, :slots] == compact.indices.T).all()

    # the transpose of it, line by line: 20 lines of 3
    of.memory[: operand.nbytes] = np.frombuffer(np.ascontiguousarray(operand.T).tobytes(), np.uint8)
    across = {"words": 3, "count3": 20, "step3": 6, "run": 20, "reduce": 1, "group": 8, "across": 1, "half": 1}
    turned = {"inner2": 3, "inner2_step": BANK, "outer2": slots, "outer2_step": 1}
    of.load(command(Unit.LOAD, space=Space.N2S, form=Form.OPERAND, **across, **turned))
    assert (of.values[Space.N2S][1, :3, :slots] == compact.values.T.view(np.uint16)).all()
    assert (of.indices[Space.N2S][1, :3, :slots] == compact.indices.T).all()

    for name in (of.values, of.indices):
        name[Space.PAIRS][0, :3, :slots] = name[Space.N2S][0, :3, :slots]
    pairs = {"form": Form.PAIR, "words": slots, "count3": 3, "step3": 64, "address": 2048}
    of.store(command(Unit.STORE, space=Space.PAIRS, **pairs, **on_chip))
    of.values[Space.N2S][0] = 0
    of.load(command(Unit.LOAD, space=Space.N2S, **pairs, **on_chip))
    assert (of.values[Space.N2S][0, :3, :slots] == compact.values.T.view(np.uint16)).all()
    assert (of.indices[Space.N2S][0, :3, :slots] == compact.indices.T).all()


MAPPINGS = [
    ArrayMapping(dataflow=Dataflow(flow), pattern=NMPattern(keep=keep, group=group), interleave=interleave)
    for flow, keep, group, interleave in (
        ("os", 1, 1, 4),
        ("os", 1, 1, 1),
        ("os", 2, 8, 3),
        ("os", 2, 4, 4),
        ("ws", 2, 8, 2),
        ("ws", 4, 4, 4),
        ("ws", 1, 1, 3),
        ("ws", 3, 5, 2),
    )
]


@settings(max_examples=60)
@given(st.sampled_from(MAPPINGS), SEEDS)
def test_a_product_is_that_of_the_cycle_level_in_the_order_in_which_it_leaves(mapping: Any, seed: int) -> None:
    """Word by word: the order is that of the cycles in which results leave each column."""
    rng = np.random.default_rng(seed)
    runs, run = int(rng.integers(1, 4)), int(rng.integers(1, 21))
    gemm = Gemm(m=int(rng.integers(1, 14)), k=runs * run, n=int(rng.integers(1, 14)), run=run)
    a = rng.standard_normal((gemm.m, gemm.k)).astype(np.float16)
    compact = compress(rng.standard_normal((gemm.k, gemm.n)).astype(np.float16), mapping.pattern, run)
    ran = run_array(TARGET.spec, mapping, a, compact)
    laid = banks(TARGET.spec, mapping, gemm, a.view(np.uint16), compact.values.view(np.uint16), compact.indices)

    of, array = chip(), TARGET.spec.array
    of.values[Space.W2E][1, :, : laid.west.shape[1]] = laid.west
    of.values[Space.N2S][0, :, : laid.values.shape[1]] = laid.values
    of.indices[Space.N2S][0, :, : laid.indices.shape[1]] = laid.indices
    keep, group = mapping.pattern.keep, mapping.pattern.group
    stationary = mapping.dataflow == Dataflow.WS
    groups = -(-run // group)
    shape = {
        "parts": -(-gemm.m // mapping.interleave) if stationary else groups,
        "runs": 1 if stationary else runs,
        "across": -(-gemm.n // (array.cols * (1 if stationary else mapping.interleave))),
        "down": -(-groups * runs // array.rows) if stationary else -(-gemm.m // array.rows),
        "rest": group if stationary else run - (groups - 1) * group,
        "rows": array.rows if stationary else min(array.rows, gemm.m),
    }
    of.product(
        command(
            Unit.PRODUCT,
            stationary=int(stationary),
            keep=keep,
            group=group,
            interleave=mapping.interleave,
            w2e_half=1,
            output_half=1,
            **shape,
        )
    )
    out = of.values[Space.OUTPUT][1]
    for column in range(min(array.cols, gemm.n)):
        mine = [
            (int(ran.left[row, n]), int(ran.result.view(np.uint32)[row, n]))
            for n in range(column, gemm.n, array.cols)
            for row in range(gemm.m)
        ]
        words = [word for _, word in sorted(mine)]
        # words of ragged edges lie between
        left = iter(out[column].tolist())
        assert all(word in left for word in words)


def blocks(rng: np.random.Generator, *shape: int) -> Any:
    return rng.standard_normal(shape).astype(np.float32)


def put(of: Chip, number: int, block: Any) -> None:
    """Rows (and terms) x columns, a multiple of the lanes, as an operand of half 0."""
    words = block.reshape(-1, LANES).view(np.uint32)
    of.values[Space.OPERANDS][0, number * LANES : (number + 1) * LANES, : len(words)] = words.T


def result(of: Chip, *shape: int) -> Any:
    words = np.ascontiguousarray(of.values[Space.RESULTS][0, :, : int(np.prod(shape)) // LANES].T)
    return words.view(np.float32).reshape(shape)


def slot(of: Chip, name: Slot, columns: int) -> Any:
    words = of.values[Space.COLUMNS][0, :, COLUMN_BEATS * name : COLUMN_BEATS * name + columns // LANES]
    return np.ascontiguousarray(words.T).reshape(-1).view(np.float32)


def set_slot(of: Chip, name: Slot, values: Any) -> None:
    words = values.view(np.uint32).reshape(-1, LANES).T
    of.values[Space.COLUMNS][0, :, COLUMN_BEATS * name : COLUMN_BEATS * name + words.shape[1]] = words


def bits(value: float) -> int:
    return int(np.float32(value).view(np.uint32))


def vector_command(of: Chip, operation: VectorOpcode, rows: int, columns: int, **given: int) -> None:
    of.vector(command(Unit.VECTOR, operation=operation, rows=rows, beats=columns // LANES, **given))


@given(SEEDS)
def test_a_batch_norm_block_by_block_is_that_of_whole_tensors(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows, columns, parts = 5, 3 * LANES, 3
    x, g = blocks(rng, parts * rows, columns), blocks(rng, parts * rows, columns)
    weight, bias, mean0, var0 = (blocks(rng, columns) for _ in range(4))
    n, eps, momentum = parts * rows, 1e-5, 0.1
    of = chip()
    whole = norm.batch_norm(x, weight, bias, eps)

    def trips(operation: VectorOpcode, *tensors: Any) -> list[Any]:
        made = []
        for part in range(parts):
            for i, tensor in enumerate(tensors):
                put(of, i, tensor[part * rows : (part + 1) * rows])
            vector_command(of, operation, rows, columns, first=int(part == 0))
            made.append(result(of, rows, columns))
        return made

    one = {"factor": bits(1 / n), "epsilon": bits(eps)}
    trips(VectorOpcode.SUM, x)
    vector_command(of, VectorOpcode.MEAN, 1, columns, **one)
    trips(VectorOpcode.SQUARES, x)
    vector_command(of, VectorOpcode.DEVIATION, 1, columns, **one)
    for name, value in ((Slot.WEIGHT, weight), (Slot.BIAS, bias), (Slot.RUNNING_MEAN, mean0)):
        set_slot(of, name, value)
    set_slot(of, Slot.RUNNING_VARIANCE, var0)
    y = np.concatenate(trips(VectorOpcode.NORMALISE, x))
    constants = {"momentum": bits(momentum), "rest": bits(1 - momentum)}
    vector_command(of, VectorOpcode.RUNNING_MEAN, 1, columns, **constants)
    vector_command(of, VectorOpcode.RUNNING_VARIANCE, 1, columns, factor=bits(n / (n - 1)), **constants)
    assert y.tobytes() == whole.y.tobytes()
    assert slot(of, Slot.MEAN, columns).tobytes() == whole.mean.tobytes()
    assert slot(of, Slot.RUNNING_MEAN, columns).tobytes() == norm.running(mean0, whole.mean, momentum).tobytes()
    held = norm.running_variance(var0, whole.variance, momentum, n)
    assert slot(of, Slot.RUNNING_VARIANCE, columns).tobytes() == held.tobytes()

    back = norm.batch_norm_backward(g, x, whole.mean, whole.s, weight)
    trips(VectorOpcode.PRODUCTS, g, x)
    assert slot(of, Slot.SUM, columns).tobytes() == back.bias.tobytes()
    assert slot(of, Slot.DOT, columns).tobytes() == back.weight.tobytes()
    vector_command(of, VectorOpcode.MEANS, 1, columns, factor=bits(1 / n))
    assert np.concatenate(trips(VectorOpcode.NORMALISE_BACKWARD, g, x)).tobytes() == back.x.tobytes()


@given(SEEDS)
def test_elementwise_work_and_pools_are_those_of_whole_tensors(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows, columns = 6, 2 * LANES
    x, y = blocks(rng, rows, columns), blocks(rng, rows, columns)
    of = chip()
    put(of, 0, x)
    put(of, 1, y)
    for operation, made in (
        (VectorOpcode.COPY, x),
        (VectorOpcode.RELU, vector.relu(x)),
        (VectorOpcode.MASK, vector.relu_backward(x, y)),
        (VectorOpcode.ADD, vector.add(x, y)),
        (VectorOpcode.SCALE, vector.scale(x, 0.3)),
    ):
        vector_command(of, operation, rows, columns, factor=bits(0.3))
        assert result(of, rows, columns).tobytes() == made.tobytes()

    image = blocks(rng, 1, 4, 4, columns)
    window = Window(image=(4, 4), kernel=(2, 2), stride=(2, 2), padding=(0, 0), dilation=(1, 1))
    largest, taps = pool.max_pool(image, window)
    taken = image.reshape(2, 2, 2, 2, columns).transpose(0, 2, 1, 3, 4)  # position, tap
    put(of, 0, np.ascontiguousarray(taken).reshape(4, 4, columns))
    vector_command(of, VectorOpcode.MAXIMUM, 4, columns, terms=4)
    assert result(of, 4, columns).tobytes() == largest.tobytes()
    vector_command(of, VectorOpcode.POSITION, 4, columns, terms=4)
    assert (result(of, 4, columns) == taps.reshape(4, columns)).all()
    vector_command(of, VectorOpcode.GATHER, 4, columns, terms=4)
    sums = result(of, 4, columns) * np.float32(0.25)
    assert sums.tobytes() == pool.average_pool(image, window).tobytes()


def test_an_update_is_wuves_and_a_step_with_an_inf_is_skipped() -> None:
    from weft.simulator.engines import run_wuve

    rng = np.random.default_rng(2)
    of, lanes = chip(), TARGET.spec.wuve.lanes
    n, settings_ = 5 * lanes, Sgd(rate=0.1, momentum=0.9, weight_decay=1e-3)
    gradient = narrow(blocks(rng, n), "fp16")
    master, velocity = blocks(rng, n), blocks(rng, n)
    ran = run_wuve(TARGET.spec, settings_, master, gradient, (velocity,))
    for i, stream in enumerate((gradient.astype(np.float32), master, velocity)):
        of.values[Space.WEIGHTS][0, i * lanes : (i + 1) * lanes, :5] = stream.view(np.uint32).reshape(5, lanes).T
    constants = np.array(settings_.constants, np.float32).view(np.uint32)
    of.values[Space.CONSTANTS][0, 0, : len(constants)] = constants
    for skipped in (False, True):
        of.nonfinite = skipped
        of.update(command(Unit.UPDATE, beats=5))
        made = [of.values[Space.UPDATED][0, i * lanes : (i + 1) * lanes, :5].T.reshape(-1) for i in (0, 1)]
        wanted = (master, velocity) if skipped else (ran.master, *ran.state)
        assert [x.tobytes() for x in made] == [x.tobytes() for x in wanted]


def test_a_watched_store_tells_of_an_inf() -> None:
    of = chip()
    of.values[Space.OUTPUT][0, 0, :2] = bits(1e6)
    r = {"space": Space.OUTPUT, "form": Form.OPERAND, "words": 1, "place": place(0, 0)}
    of.store(command(Unit.STORE, **r))
    assert not of.nonfinite
    of.store(command(Unit.STORE, watch=1, **r))
    assert of.nonfinite


def test_memory_is_a_whole_number_of_words() -> None:
    with pytest.raises(ValueError, match="multiple of 4 bytes"):
        Chip(TARGET, np.zeros(6, np.uint8))
