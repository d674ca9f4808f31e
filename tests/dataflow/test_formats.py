"""A number format is a row of a table: widths and exactness, those of eight bits by hand."""

from __future__ import annotations

from dataclasses import replace
from itertools import product as pairs_of

import ml_dtypes
import numpy as np
import pytest

from weft.analysis.area import blocks_of
from weft.analysis.energy import amounts
from weft.analysis.energy_table import load_table
from weft.dataflow.actions import Actions
from weft.dataflow.beside import update_work, vector_work
from weft.dataflow.config_io import load_spec
from weft.dataflow.engines import evaluate, tiled
from weft.dataflow.mapping import Mapping
from weft.dataflow.operand import BF16, E5M2, FP8, FP16, FP32, INT8, OPERAND_FORMATS, NumberFormat, OperandFormat
from weft.dataflow.problem import memory_machine
from weft.dataflow.program.spaces import Target
from weft.dataflow.schedule import schedule
from weft.dataflow.stce.mapping import DENSE, ArrayMapping, Dataflow
from weft.simulator.engines import run_wuve
from weft.simulator.memory import memory_need
from weft.simulator.regions import lay_out
from weft.simulator.result import OpResult
from weft.simulator.step import macro_tiles
from weft.simulator.transfers import Layout, Stored, shapes_of
from weft.simulator.update_settings import Sgd
from weft.workloads.copies import CompactCopy
from weft.workloads.errors import InputError
from weft.workloads.gemm import Gemm, Pass
from weft.workloads.operand import NMOperand
from weft.workloads.sparsity import NMPattern
from weft.workloads.step import Frozen, MatrixOp, UpdateOp, VectorOp, Workload
from weft.workloads.update_rule import ADAM, SGD

from .problems import in_8_bits, make_op

TWO_OF_EIGHT = NMPattern(keep=2, group=8)
COPY = CompactCopy(pattern=TWO_OF_EIGHT, groups=8_000, kept=16_000)


@pytest.fixture
def spec():
    return in_8_bits(load_spec("tiny"))


def _mapped(op: MatrixOp, rows: int, cols: int, *, dataflow: Dataflow = Dataflow.OS, resident: bool = True) -> Mapping:
    pattern = op.sparse.pattern if op.sparse else DENSE
    return Mapping(
        array=ArrayMapping(dataflow=dataflow, pattern=pattern, interleave=1),
        gemm=op.gemm,
        n2s="b",
        tile_rows=rows,
        tile_cols=cols,
        resident=resident,
        order="mn",
    )


def _buffers(spec, **bytes_):
    return replace(spec, buffers=replace(spec.buffers, **bytes_))


def test_widths():
    assert [f.bits for f in (FP16, BF16, FP32, FP8, E5M2, INT8)] == [16, 16, 32, 8, 8, 8]
    assert [f.bytes for f in (FP16, BF16, FP32, FP8, E5M2, INT8)] == [2, 2, 4, 1, 1, 1]
    assert OPERAND_FORMATS == {"fp16": FP16, "bf16": BF16, "fp8": FP8, "int8": INT8}
    four = NumberFormat(name="e2m1", exponent=2, fraction=1)
    assert (four.bits, four.bytes, four.size(2), four.size(5)) == (4, 1, 1, 3)


def test_a_dense_product(spec):
    """Of 64 x 96 x 128 each operand is read once and each result written once, a byte each."""
    op = make_op(Gemm(m=64, k=96, n=128))

    counts = evaluate(op, spec, _mapped(op, 64, 64)).counts

    assert (counts.dram_read_bytes, counts.dram_write_bytes) == (64 * 96 + 96 * 128, 64 * 128)


def test_a_compact_operand(spec):
    """A column of 96 keeps 24 values of 8 bits with 3 bits of index: 33 bytes instead of the 57 of FP16's 19 bits."""
    pattern = NMOperand(operand="b", pattern=TWO_OF_EIGHT, online=False)
    op = make_op(Gemm(m=64, k=96, n=128), sparse=pattern)

    ours = evaluate(op, spec, _mapped(op, 64, 64)).counts
    fp16 = evaluate(op, load_spec("tiny"), _mapped(op, 32, 64)).counts

    assert (ours.dram_read_bytes, ours.dram_write_bytes) == (64 * 96 + 128 * 33, 64 * 128)
    assert (fp16.dram_read_bytes, fp16.dram_write_bytes) == (2 * 64 * 96 + 2 * 128 * 57, 2 * 64 * 128)


def test_an_update(spec):
    """Master weight and state stay FP32; gradient and dense copy are a byte, copies 11 bits a pair."""
    dense = update_work(UpdateOp(name="w", elements=64_000), spec, SGD)
    both = update_work(UpdateOp(name="w", elements=64_000, dense_copy=False, copies=(COPY, COPY)), spec, ADAM)

    assert (dense.read, dense.write) == (64_000 * (4 + 4 + 1), 64_000 * (4 + 4 + 1))
    assert (both.read, both.write) == (64_000 * (4 + 8 + 1), 64_000 * (4 + 8) + 2 * 16_000 * 11 // 8)


def test_vector_work_is_of_the_machines_format(spec):
    op = VectorOp(name="v", op="relu", pass_=Pass.FF, dtype="float32", elements=100, read_bytes=400, write_bytes=400)
    index = replace(op, dtype="int64", read_bytes=800)

    assert vector_work(op, spec)[2:] == (100, 100)
    assert vector_work(index, spec)[2:] == (800, 400)


@pytest.mark.parametrize(
    ("dataflow", "resident", "needs"),
    [
        # A row of 64 words; a column of 64 words; a result of the PEs, or a partial sum, which is FP32 in either.
        (Dataflow.OS, True, (8 * 64, 16 * 64, 8 * 16)),
        (Dataflow.WS, True, (8 * 64, 16 * 64, 4 * 8 * 16)),
        # Streamed word by word, 4 PEs of a column at a time in WS; the index of a pair has a byte.
        (Dataflow.WS, False, (8 * 4, 16 * 4 * 2, 4 * 8 * 16)),
    ],
)
def test_what_fits_the_buffers(spec, dataflow, resident, needs):
    op = make_op(Gemm(m=16, k=64, n=32))
    mapping = _mapped(op, 8, 16, dataflow=dataflow, resident=resident)
    names = ("w2e_bytes", "n2s_bytes", "output_bytes")
    enough = {name: 2 * size for name, size in zip(names, needs, strict=True)}

    evaluate(op, _buffers(spec, **enough), mapping)

    for name in (name for name in names if enough[name] > 64):
        with pytest.raises(InputError, match="does not fit the buffers"):
            evaluate(op, _buffers(spec, **enough | {name: enough[name] - 2}), mapping)


def test_where_transfers_lie(spec):
    """8 of 16 rows of 64: pieces of a row are as long as before in elements, so half in bytes."""
    op = make_op(Gemm(m=16, k=64, n=32))
    mapping = _mapped(op, 8, 16)
    across = Layout(west_along_k=False, north_along_k=False, out_down=False)

    def shapes(machine):
        product = tiled(op, machine, mapping)
        tiles, *_ = macro_tiles(product, machine)
        return shapes_of(tiles, product.problem, mapping, across, memory_machine(machine).west_half)

    ours, fp16 = shapes(spec), shapes(load_spec("tiny"))

    assert (ours.west[0], ours.north[0][0], ours.store[0][0]) == (Stored(8, 16), Stored(16, 32), Stored(16, 32))
    assert (fp16.west[0], fp16.north[0][0], fp16.store[0][0]) == (Stored(16, 32), Stored(32, 64), Stored(32, 64))


def test_what_a_step_keeps_in_memory(spec):
    op = make_op(Gemm(m=16, k=64, n=32))
    update = UpdateOp(name="layer.weight", elements=64 * 32)
    frozen = (Frozen(name="mask", dtype="bool", elements=10), Frozen(name="old", dtype="float32", elements=10))
    step = Workload(model="m", batch=1, ops=(op, update), frozen=frozen)
    need = memory_need(step, spec)

    assert (need.master_weights, need.optimizer_state) == (4 * 64 * 32, 4 * 64 * 32)
    assert (need.weight_copies, need.weight_gradients, need.frozen_weights) == (64 * 32, 64 * 32, 10 + 10)
    assert need.activations == 16 * 64 + 16 * 32
    _, regions = lay_out(schedule(step, spec))
    assert {region.name: region.size for region in regions} == {
        "layer activation": 16 * 64,
        "layer.weight in 8 bits": 64 * 32,
        "layer FF result": 16 * 32,
        "layer.weight in 32 bits": 4 * 64 * 32,
        "layer.weight optimizer state": 4 * 64 * 32,
        "layer.weight gradient": 64 * 32,
    }


def test_bits_that_buffers_are_charged_for(spec):
    """A word is 8 bits, 11 with its index; a partial sum stays 32."""
    sparse = make_op(Gemm(m=64, k=96, n=128), sparse=NMOperand(operand="b", pattern=TWO_OF_EIGHT, online=False))
    placed = evaluate(sparse, spec, _mapped(sparse, 64, 64))
    result = OpResult(op=sparse, mapping=placed.mapping, cycles=placed.cycles, counts=placed.counts)

    found = amounts(result, SGD, spec, load_table("asic-16nm"))

    assert found[Actions.W2E_READ] == 8 * placed.counts.w2e_words
    assert found[Actions.N2S_READ] == 11 * placed.counts.n2s_pairs
    assert found[Actions.OUTPUT_WRITE] == 32 * placed.counts.output_words


def test_exact_products_are_those_that_fp32_holds():
    """Of FP8 and INT8 all pairs; of FP16 and BF16 the ends, of which BF16 has some that FP32 rounds, loses and
    overflows."""
    words = np.arange(256, dtype=np.uint8)
    every = [words.view(kind).astype(np.float64) for kind in (ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2)]
    finite = [values[np.isfinite(values)] for values in every]
    assert [len(values) for values in finite] == [256 - 2, 2 * 31 * 4]
    for x, y in pairs_of(finite, finite):
        made = np.outer(x, y)
        assert np.array_equal(made.astype(np.float32).astype(np.float64), made)
    whole = words.view(np.int8).astype(np.int64)
    assert np.abs(np.outer(whole, whole)).max() == 2**14
    assert FP8.exact_products and INT8.exact_products
    for form, values in zip((FP8, E5M2), finite, strict=True):
        assert values.max() == form.most * 2.0**form.least and values[values > 0].min() == 2.0**form.least
    for word, kind, exact in ((FP16, np.float16, True), (BF16, ml_dtypes.bfloat16, False)):
        ends = np.array([1, (1 << word.fraction) - 1, (1 << word.fraction) + 1, word.infinity - 1], np.uint16)
        values = ends.view(kind).astype(np.float64)
        made = np.outer(values, values)
        assert values[0] == 2.0**word.least and values[-1] == word.most * 2.0**word.least
        with np.errstate(over="ignore"):
            assert np.array_equal(made.astype(np.float32).astype(np.float64), made) == word.exact_products == exact


def test_exact_sums_of_a_format_small_enough_to_try():
    """E2M1, with infinities: 0, 0.5, 1, 1.5, 2, 3; the largest product, 9, is 36 of the least, 0.25."""
    small = NumberFormat(name="e8m7", exponent=8, fraction=7)
    word = OperandFormat(name="e2m1", exponent=2, fraction=1, accumulator=small)
    values = [0.5 * n for n in (0, 1, 2, 3, 4, 6)]

    assert word.exact_sums == 2**8 // 36 == 7
    products = {a * b for a, b in pairs_of(values, values)}
    sums = {0.0}
    for terms in range(1, 9):
        sums = {s + p for s in sums for p in products}
        exact = all(float(np.float32(s).astype(ml_dtypes.bfloat16)) == s for s in sums)
        assert exact or terms > word.exact_sums
    assert not exact, "one more than it says"
    assert [f.exact_sums for f in (FP16, BF16, FP8, INT8)] == [0, 0, 0, (2**31 - 1) // 128**2]


def test_a_program_of_integers_is_refused_with_a_way_out():
    machine = replace(load_spec("tiny"), pe=replace(load_spec("tiny").pe, format="int8"))

    with pytest.raises(InputError, match=r"is 'int8', but the vector unit and WUVE .* 'fp8', 'fp16' or 'bf16'"):
        Target(spec=machine, rule=SGD)
    assert [block.name for block in blocks_of(machine)] == ["stce", "sore"]


def test_no_integers_are_made_of_master_weights():
    machine = replace(load_spec("tiny"), pe=replace(load_spec("tiny").pe, format="int8"))
    weights = np.ones(3, np.float32)

    with pytest.raises(InputError, match="WUVE makes no 'int8' weights of FP32 ones"):
        run_wuve(machine, Sgd(rate=0.1), weights, np.ones(3, np.int8), (weights,))
