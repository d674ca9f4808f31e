"""Joules of a simulated step: counts of actions times a sourced table, so that re-costing never re-simulates."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from math import fsum

from ..dataflow.accelerator import ACCUMULATOR_BYTES, OPERAND_BYTES, AcceleratorSpec
from ..dataflow.search import Prices
from ..simulator.result import OpResult, SimResult
from ..workloads.gemm import Pass
from ..workloads.step import MatrixOp
from .energy_table import BitEnergy, EnergyTable, Mark, OperationEnergy, load_table

__all__ = ["Action", "Component", "EnergyReport", "LedgerRow", "amounts", "energy", "ledger", "prices", "tariff"]

_J_PER_PJ = 1e-12
_WORD_BITS = 8 * OPERAND_BYTES
_SUM_BITS = 8 * ACCUMULATOR_BYTES


class Component(StrEnum):
    """Part of the machine that spends the energy."""

    ARRAY = "array"
    BUFFERS = "buffers"
    DRAM = "DRAM"
    SORE = "SORE"
    WUVE = "WUVE"
    VECTOR = "vector"


class Action(StrEnum):
    """What is counted: an operation, or a bit moved."""

    MULTIPLY = "FP16 multiply"
    ADD = "FP32 add"
    SELECT = "index select"
    W2E_READ = "W2E buffer read"
    N2S_READ = "N2S buffer read"
    OUTPUT_WRITE = "output buffer write"
    OUTPUT_READ = "output buffer read"
    DMA_FILL = "buffer write by DMA"
    DMA_EMPTY = "buffer read by DMA"
    DRAM_READ = "DRAM read"
    DRAM_WRITE = "DRAM write"
    COMPARE = "magnitude compare"
    UPDATE_MULTIPLY = "FP32 multiply of the update"
    UPDATE_ADD = "FP32 add of the update"
    UPDATE_DIVIDE = "FP32 divide of the update"
    UPDATE_ROOT = "FP32 square root of the update"
    VECTOR_ELEMENT = "vector element"


_COMPONENT = {
    Action.MULTIPLY: Component.ARRAY, Action.ADD: Component.ARRAY, Action.SELECT: Component.ARRAY,
    Action.W2E_READ: Component.BUFFERS, Action.N2S_READ: Component.BUFFERS, Action.OUTPUT_WRITE: Component.BUFFERS,
    Action.OUTPUT_READ: Component.BUFFERS, Action.DMA_FILL: Component.BUFFERS, Action.DMA_EMPTY: Component.BUFFERS,
    Action.DRAM_READ: Component.DRAM, Action.DRAM_WRITE: Component.DRAM, Action.COMPARE: Component.SORE,
    Action.UPDATE_MULTIPLY: Component.WUVE, Action.UPDATE_ADD: Component.WUVE, Action.UPDATE_DIVIDE: Component.WUVE,
    Action.UPDATE_ROOT: Component.WUVE, Action.VECTOR_ELEMENT: Component.VECTOR,
}  # fmt: skip

_UPDATE_OPERATIONS = {
    "sgd": {Action.UPDATE_MULTIPLY: 4, Action.UPDATE_ADD: 3},
    "adam": {Action.UPDATE_MULTIPLY: 7, Action.UPDATE_ADD: 4, Action.UPDATE_DIVIDE: 1, Action.UPDATE_ROOT: 1},
}
"""FP32 operations a parameter, read off the formulas of docs/design/machine.md with the unscaling of the gradient."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerRow:
    """One kind of action over the whole step: ``joules`` is ``count`` x ``pj_each`` x 1e-12."""

    component: Component
    action: Action
    count: int
    unit: str
    pj_each: float
    joules: float
    source: str
    mark: Mark


@dataclass(frozen=True, slots=True, kw_only=True)
class EnergyReport:
    """Joules of one training step, three ways cut; ``by_op`` follows the order of the ops."""

    table: EnergyTable
    joules: float
    by_component: dict[Component, float]
    by_pass: dict[Pass, float]
    by_op: tuple[float, ...]
    rows: tuple[LedgerRow, ...]


def tariff(table: EnergyTable, dram_kind: str) -> dict[Action, OperationEnergy | BitEnergy]:
    """Table entry that each action is charged."""
    op, sram, dram = table.operations, table.sram, table.dram_of(dram_kind)
    return {
        Action.MULTIPLY: op.fp16_multiply, Action.ADD: op.fp32_add, Action.SELECT: op.index_select,
        Action.W2E_READ: sram.read, Action.N2S_READ: sram.read,
        Action.OUTPUT_WRITE: sram.write, Action.OUTPUT_READ: sram.read,
        Action.DMA_FILL: sram.write, Action.DMA_EMPTY: sram.read,
        Action.DRAM_READ: dram.read, Action.DRAM_WRITE: dram.write, Action.COMPARE: op.compare,
        Action.UPDATE_MULTIPLY: op.fp32_multiply, Action.UPDATE_ADD: op.fp32_add,
        Action.UPDATE_DIVIDE: op.fp32_divide, Action.UPDATE_ROOT: op.fp32_square_root,
        Action.VECTOR_ELEMENT: op.vector_element,
    }  # fmt: skip


def amounts(result: OpResult, optimizer: str) -> dict[Action, int]:
    """Operations and bits of one op, without those that never happen."""
    c = result.counts
    found = {
        Action.MULTIPLY: c.macs,
        Action.ADD: c.macs,
        Action.SELECT: c.selects,
        Action.W2E_READ: c.w2e_words * _WORD_BITS,
        Action.N2S_READ: c.n2s_pairs * _pair_bits(result),
        Action.DRAM_READ: 8 * c.dram_read_bytes,
        Action.DRAM_WRITE: 8 * c.dram_write_bytes,
        Action.COMPARE: c.sore_compares,
        Action.VECTOR_ELEMENT: c.vector_elements,
        **_output_bits(result),
        **_dma_bits(result),
        **{action: each * c.updates for action, each in _UPDATE_OPERATIONS[optimizer].items()},
    }
    return {action: found[action] for action in Action if found.get(action)}


def _pair_bits(result: OpResult) -> int:
    return _bits_of_pair(result.op) if isinstance(result.op, MatrixOp) else _WORD_BITS


def _bits_of_pair(op: MatrixOp) -> int:
    """Bits of an N2S word: an FP16 value and, where sparse, its index."""
    return _WORD_BITS + (op.sparse.pattern.index_bits if op.sparse else 0)


def _output_bits(result: OpResult) -> dict[Action, int]:
    """Partial sums of one output are written s times and read back s - 1 times, which makes 2 s - 1 words."""
    if not isinstance(result.op, MatrixOp):
        return {}
    g, words = result.op.gemm, result.counts.output_words
    outputs = g.groups * g.m * g.n
    written = (words + outputs) // 2
    return {Action.OUTPUT_WRITE: written * _SUM_BITS, Action.OUTPUT_READ: (words - written) * _SUM_BITS}


def _dma_bits(result: OpResult) -> dict[Action, int]:
    """What comes from DRAM is written into a buffer, what goes there is read out of one."""
    c = result.counts
    fill = min(c.buffer_bytes, c.dram_read_bytes)
    return {Action.DMA_FILL: 8 * fill, Action.DMA_EMPTY: 8 * (c.buffer_bytes - fill)}


def energy(result: SimResult, table: EnergyTable | None = None) -> EnergyReport:
    """Joules of a step by ``table``, else by the table that the machine's ``technology`` names."""
    used = table or load_table(result.spec.technology)
    charged = tariff(used, result.spec.dram.kind)
    pj = {action: entry.value for action, entry in charged.items()}
    counts: Counter[Action] = Counter()
    by_op, by_pass = [], dict.fromkeys(Pass, 0.0)
    for r in result.ops:
        of_op = amounts(r, result.workload.optimizer)
        counts.update(of_op)
        joules = fsum(n * pj[action] for action, n in of_op.items()) * _J_PER_PJ
        by_op.append(joules)
        by_pass[Pass(r.op.pass_)] += joules
    rows = tuple(_row(action, counts[action], charged[action]) for action in Action if counts[action])
    by_component = {c: fsum(row.joules for row in rows if row.component == c) for c in Component}
    return EnergyReport(
        table=used, joules=fsum(row.joules for row in rows), by_component=by_component, by_pass=by_pass,
        by_op=tuple(by_op), rows=rows,
    )  # fmt: skip


def _row(action: Action, count: int, entry: OperationEnergy | BitEnergy) -> LedgerRow:
    return LedgerRow(
        component=_COMPONENT[action], action=action, count=count, unit="bit" if entry.unit == "pJ/bit" else "operation",
        pj_each=entry.value, joules=count * entry.value * _J_PER_PJ, source=entry.source, mark=entry.mark,
    )  # fmt: skip


def ledger(result: SimResult, table: EnergyTable | None = None) -> tuple[LedgerRow, ...]:
    """Every joule of a step as count x picojoules x source; the rows add up to the report's total."""
    return energy(result, table).rows


def prices(spec: AcceleratorSpec, table: EnergyTable | None = None) -> Callable[[MatrixOp], Prices]:
    """Picojoules for the scheduler's objectives energy and edp.

    The scheduler knows no direction, so a byte of DRAM or buffer costs the mean of a read and a write, an output word
    too. Compressing online operands is left out: the same values are compared under any mapping that loads them once.
    """
    used = table or load_table(spec.technology)
    op, sram, dram = used.operations, used.sram, used.dram_of(spec.dram.kind)
    sram_bit = (sram.read.value + sram.write.value) / 2
    dram_bit = (dram.read.value + dram.write.value) / 2

    def of(matrix: MatrixOp) -> Prices:
        mac = op.fp16_multiply.value + op.fp32_add.value
        select = op.index_select.value if matrix.sparse else 0.0
        return Prices(
            dram_byte=8 * dram_bit,
            buffer_byte=8 * sram_bit,
            w2e_word=_WORD_BITS * sram.read.value,
            n2s_pair=_bits_of_pair(matrix) * sram.read.value,
            output_word=_SUM_BITS * sram_bit,
            fixed=matrix.macs * (mac + select),
        )

    return of
