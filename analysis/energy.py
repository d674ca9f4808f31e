"""Joules of a simulated step: counts of actions times a sourced table, so that re-costing never re-simulates.

Sums are of whole zeptojoules (1e-21 J): each price is rounded to them once, so every cut of a step adds up exactly.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction
from functools import cache
from typing import assert_never

from ..dataflow.accelerator import ACCUMULATOR_BYTES, OPERAND_BYTES, AcceleratorSpec
from ..dataflow.engine_time import compares_per_group
from ..dataflow.search import Prices
from ..simulator.result import OpResult
from ..workloads.errors import InputError
from ..workloads.gemm import Pass
from ..workloads.sparsity import NMPattern
from ..workloads.step import MatrixOp
from ..workloads.update_rule import Unit, UpdateRule
from .area import known_area
from .energy_table import EnergyTable, Figure, FpgaTable, Mark, Table, load_table
from .level import AnyResult, cycles_of, step_of
from .words import apportion

__all__ = [
    "Action", "Component", "EnergyReport", "LedgerRow", "Price", "amounts", "energy", "ledger", "prices",
    "step_amounts", "tariff",
]  # fmt: skip

_ZJ_PER_PJ, _ZJ_PER_J = 10**9, 10**21
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
    CLOCK = "clock"
    STATIC = "static"


class Action(StrEnum):
    """What is counted: an operation, or a bit moved."""

    MULTIPLY = "operand multiply"
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
    FABRIC_MAC = "multiply-add in LUTs"
    FABRIC_EDGES = "array edges in LUTs"
    FABRIC_COMPARE = "comparator in LUTs"
    FABRIC_UPDATE = "update in LUTs"
    CLOCK = "clock and registers"
    STATIC = "static power"


_COMPONENT = {
    Action.MULTIPLY: Component.ARRAY, Action.ADD: Component.ARRAY, Action.SELECT: Component.ARRAY,
    Action.W2E_READ: Component.BUFFERS, Action.N2S_READ: Component.BUFFERS, Action.OUTPUT_WRITE: Component.BUFFERS,
    Action.OUTPUT_READ: Component.BUFFERS, Action.DMA_FILL: Component.BUFFERS, Action.DMA_EMPTY: Component.BUFFERS,
    Action.DRAM_READ: Component.DRAM, Action.DRAM_WRITE: Component.DRAM, Action.COMPARE: Component.SORE,
    Action.UPDATE_MULTIPLY: Component.WUVE, Action.UPDATE_ADD: Component.WUVE, Action.UPDATE_DIVIDE: Component.WUVE,
    Action.UPDATE_ROOT: Component.WUVE, Action.VECTOR_ELEMENT: Component.VECTOR,
    Action.FABRIC_MAC: Component.ARRAY, Action.FABRIC_EDGES: Component.ARRAY, Action.FABRIC_COMPARE: Component.SORE,
    Action.FABRIC_UPDATE: Component.WUVE, Action.CLOCK: Component.CLOCK, Action.STATIC: Component.STATIC,
}  # fmt: skip

_CYCLES = (Action.FABRIC_EDGES, Action.CLOCK, Action.STATIC)
_BITS = (
    Action.W2E_READ, Action.N2S_READ, Action.OUTPUT_WRITE, Action.OUTPUT_READ, Action.DMA_FILL, Action.DMA_EMPTY,
    Action.DRAM_READ, Action.DRAM_WRITE,
)  # fmt: skip


def _action(unit: Unit) -> Action | None:
    """What an operation of an update is charged as; conversions are free."""
    match unit:
        case Unit.MULTIPLY:
            return Action.UPDATE_MULTIPLY
        case Unit.ADD | Unit.SUBTRACT:
            return Action.UPDATE_ADD
        case Unit.DIVIDE:
            return Action.UPDATE_DIVIDE
        case Unit.ROOT:
            return Action.UPDATE_ROOT
        case Unit.WIDEN | Unit.NARROW:
            return None
    assert_never(unit)


@cache
def _update_actions(rule: UpdateRule) -> Counter[Action | None]:
    """Operations of a parameter."""
    return Counter(_action(operation.unit) for operation in rule.operations)


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """Picojoules of one action: ``constant_pj`` as its source has it, times ``scaling``, of a model or parts."""

    constant_pj: float
    scaling: float
    source: str
    mark: Mark

    @property
    def pj(self) -> float:
        return self.constant_pj * self.scaling

    @property
    def zeptojoules(self) -> int:
        return round(self.pj * _ZJ_PER_PJ)


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerRow:
    """One kind of action over a step: ``count`` x ``constant_pj`` x ``scaling``, in whole zeptojoules each."""

    component: Component
    action: Action
    count: int
    unit: str
    constant_pj: float
    scaling: float
    pj_each: float
    zeptojoules: int
    joules: float
    source: str
    mark: Mark


@dataclass(frozen=True, slots=True, kw_only=True)
class EnergyReport:
    """Joules of one training step, cut several ways, each adding up; ``by_op`` follows the order of the ops.

    ``op_parts``: zeptojoules of every op by part of the machine. ``macs``: multiply-accumulates that were issued.
    """

    table: Table
    zeptojoules: int
    joules: float
    by_component: dict[Component, float]
    by_pass: dict[Pass, float]
    by_mark: dict[Mark, float]
    by_op: tuple[float, ...]
    op_zeptojoules: tuple[int, ...]
    op_parts: tuple[dict[Component, int], ...]
    rows: tuple[LedgerRow, ...]
    macs: int


def tariff(table: Table, spec: AcceleratorSpec) -> dict[Action, Price]:
    """What each action of a machine is charged; an action that is not there costs nothing, as ``not_counted`` says."""
    found = _fpga(table, spec) if isinstance(table, FpgaTable) else _chip(table, spec)
    dram = table.dram_of(spec.dram.kind)
    return found | {Action.DRAM_READ: _price(dram.read), Action.DRAM_WRITE: _price(dram.write)}


def _chip(table: EnergyTable, spec: AcceleratorSpec) -> dict[Action, Price]:
    op, sram = table.operations, table.sram
    figures: dict[Action, Figure] = {
        Action.MULTIPLY: table.multiply_of(spec.pe.format), Action.ADD: op.fp32_add, Action.SELECT: op.index_select,
        Action.W2E_READ: sram.read, Action.N2S_READ: sram.read,
        Action.OUTPUT_WRITE: sram.write, Action.OUTPUT_READ: sram.read,
        Action.DMA_FILL: sram.write, Action.DMA_EMPTY: sram.read, Action.COMPARE: op.compare,
        Action.UPDATE_MULTIPLY: op.fp32_multiply, Action.UPDATE_ADD: op.fp32_add,
        Action.UPDATE_DIVIDE: op.fp32_divide, Action.UPDATE_ROOT: op.fp32_square_root,
        Action.VECTOR_ELEMENT: op.vector_element,
    }  # fmt: skip
    found = {action: _price(figure) for action, figure in figures.items()}
    if sram.leakage is not None:
        sizes = (spec.buffers.w2e_bytes, spec.buffers.n2s_bytes, spec.buffers.output_bytes)
        banks = sum(-(-size // (1024 * sram.bank_kib)) for size in sizes)
        found[Action.STATIC] = _standing(sram.leakage, banks, spec, f"{banks} banks of the buffers")
    return found


def _fpga(table: FpgaTable, spec: AcceleratorSpec) -> dict[Action, Price]:
    """Parts of a machine that work together, by the LUTs and registers that synthesis counts."""
    area, e = known_area(spec, "xcup"), table.elements
    if area is None:
        raise InputError(
            f"table {table.name!r} charges LUTs and registers, and those of {spec.name!r} are not counted yet: run "
            "`weft area --target xcup` with the same --arch once (minutes; the result is kept), or choose a chip's "
            'table (technology = "asic-16nm")'
        )
    pe = next(i.lut_sites for i in area.items if i.block == "stce" and i.name == "pe")
    luts = {b: sum(i.lut_sites * i.count for i in area.items if i.block == b) for b in ("stce", "sore", "wuve")}
    edges = luts["stce"] - pe * spec.macs_per_cycle
    registers = sum(i.ff * i.count for i in area.items)
    # Synthesized for 2:8; a serial lane takes a value a cycle, a network a group.
    pattern = NMPattern(keep=2, group=8)
    at_once = Fraction(compares_per_group(pattern, spec), pattern.group if spec.sore.kind == "serial" else 1)
    comparator = luts["sore"] / float(at_once * spec.sore.lanes)
    bit, logic = _price(e.memory_bit), (e.lut, e.routing)
    return dict.fromkeys(_BITS, bit) | {
        Action.FABRIC_MAC: _parts(logic, pe, "LUTs of a PE", area.tools),
        Action.FABRIC_EDGES: _parts(logic, edges, "LUTs of the array around its PEs", area.tools),
        Action.FABRIC_COMPARE: _parts(logic, comparator, "LUTs of SORE a comparator", area.tools),
        Action.FABRIC_UPDATE: _parts(logic, luts["wuve"] / spec.wuve.lanes, "LUTs of a WUVE lane", area.tools),
        Action.CLOCK: _parts((e.clock, e.register), registers, "registers of the machine", area.tools),
        Action.STATIC: _standing(e.static, 1, spec, "the whole device"),
    }


def _price(figure: Figure) -> Price:
    return Price(constant_pj=figure.value, scaling=figure.scaling, source=figure.source, mark=figure.mark)


def _parts(figures: tuple[Figure, Figure], number: float, what: str, tools: str) -> Price:
    """Two figures that are always spent together, over a number of parts."""
    one, other = figures
    return Price(
        constant_pj=one.scaled + other.scaled, scaling=number, mark=max(one.mark, other.mark, key=list(Mark).index),
        source=f"{one.source}; {other.source}; x {number:g} {what} ({tools})",
    )  # fmt: skip


def _standing(power: Figure, number: int, spec: AcceleratorSpec, what: str) -> Price:
    """Picojoules of a cycle: microwatts over the clock."""
    return Price(
        constant_pj=power.scaled * 1e6 / spec.clock_hz, scaling=number, mark=power.mark,
        source=f"{power.scaled:g} uW / {spec.clock_hz / 1e6:g} MHz, x {number} ({what}): {power.source}",
    )  # fmt: skip


def amounts(result: OpResult, rule: UpdateRule, standing: int | None = None) -> dict[Action, int]:
    """Operations, bits and cycles of one op, without those that never happen; a table charges some of them.

    ``standing``: cycles of the step that the op answers for; those that it takes by itself if none.
    """
    c, stood = result.counts, result.cycles.total if standing is None else standing
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
        Action.FABRIC_MAC: c.macs,
        Action.FABRIC_EDGES: result.cycles.compute,
        Action.FABRIC_COMPARE: c.sore_compares,
        Action.FABRIC_UPDATE: c.updates,
        Action.CLOCK: stood,
        Action.STATIC: stood,
        **_output_bits(result),
        **_dma_bits(result),
        **{action: each * c.updates for action, each in _update_actions(rule).items() if action is not None},
    }
    return {action: found[action] for action in Action if found.get(action)}


def _pair_bits(result: OpResult) -> int:
    return _bits_of_pair(result.op) if isinstance(result.op, MatrixOp) else _WORD_BITS


def _bits_of_pair(op: MatrixOp) -> int:
    """Bits of an N2S word: an operand and, where sparse, its index."""
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


def energy(result: AnyResult, table: Table | None = None, of: Callable[[OpResult], bool] | None = None) -> EnergyReport:
    """Joules of a step by ``table``, else by the table that the machine's ``technology`` names; of all ops or of some.

    Clock and leakage last as long as the step does: where ops overlap, each answers for its share of that time.
    """
    step = step_of(result)
    used = table or load_table(step.spec.technology)
    charged = tariff(used, step.spec)
    each = {action: price.zeptojoules for action, price in charged.items()}
    counts: Counter[Action] = Counter()
    parts, by_pass, macs = [], dict.fromkeys(Pass, 0), 0
    for r, found in zip(step.ops, step_amounts(result), strict=True):
        if of is not None and not of(r):
            continue
        of_op = {action: n for action, n in found.items() if action in each}
        counts.update(of_op)
        macs += found.get(Action.MULTIPLY, 0)
        spent: Counter[Component] = Counter()
        for action, n in of_op.items():
            spent[_COMPONENT[action]] += n * each[action]
        parts.append(dict(spent))
        by_pass[Pass(r.op.pass_)] += spent.total()
    rows = tuple(_row(action, counts[action], charged[action]) for action in Action if counts[action])
    total, by_op = sum(row.zeptojoules for row in rows), tuple(sum(part.values()) for part in parts)
    return EnergyReport(
        table=used, zeptojoules=total, joules=total / _ZJ_PER_J,
        by_component={c: _joules(row.zeptojoules for row in rows if row.component == c) for c in Component},
        by_pass={p: spent / _ZJ_PER_J for p, spent in by_pass.items()},
        by_mark={m: _joules(row.zeptojoules for row in rows if row.mark == m) for m in Mark},
        by_op=tuple(spent / _ZJ_PER_J for spent in by_op), op_zeptojoules=by_op, op_parts=tuple(parts), rows=rows,
        macs=macs,
    )  # fmt: skip


def step_amounts(result: AnyResult) -> list[dict[Action, int]]:
    """:func:`amounts` of every op; the standing cycles add up to those of the step."""
    step = step_of(result)
    standing = apportion(cycles_of(result), [r.cycles.total for r in step.ops])
    return [amounts(r, step.workload.rule, n) for r, n in zip(step.ops, standing, strict=True)]


def _joules(parts: Iterable[int]) -> float:
    return sum(parts) / _ZJ_PER_J


def _row(action: Action, count: int, price: Price) -> LedgerRow:
    spent = count * price.zeptojoules
    unit = "bit" if action in _BITS else "cycle" if action in _CYCLES else "operation"
    return LedgerRow(
        component=_COMPONENT[action], action=action, count=count, unit=unit, constant_pj=price.constant_pj,
        scaling=price.scaling, pj_each=price.zeptojoules / _ZJ_PER_PJ, zeptojoules=spent, joules=spent / _ZJ_PER_J,
        source=price.source, mark=price.mark,
    )  # fmt: skip


def ledger(result: AnyResult, table: Table | None = None) -> tuple[LedgerRow, ...]:
    """Every joule of a step as count x constant x scaling; the rows add up to the report's total, to the zeptojoule."""
    return energy(result, table).rows


def prices(spec: AcceleratorSpec, table: Table | None = None) -> Callable[[MatrixOp], Prices]:
    """Picojoules for the scheduler's objectives energy and edp.

    The scheduler knows no direction, so a byte of DRAM or buffer costs the mean of a read and a write, an output word
    too. Clock and static power are left out: they follow the cycles.
    """
    charged = tariff(table or load_table(spec.technology), spec)

    def pj(*actions: Action) -> float:
        return sum(charged[action].pj for action in actions if action in charged)

    read = pj(Action.W2E_READ)
    sram_bit = pj(Action.DMA_FILL, Action.DMA_EMPTY) / 2
    mac = pj(Action.MULTIPLY, Action.ADD, Action.FABRIC_MAC)

    compare = pj(Action.COMPARE, Action.FABRIC_COMPARE)

    def of(matrix: MatrixOp) -> Prices:
        compares = compares_per_group(matrix.sparse.pattern, spec) if matrix.sparse else 0
        return Prices(
            dram_byte=4 * pj(Action.DRAM_READ, Action.DRAM_WRITE),
            buffer_byte=8 * sram_bit,
            w2e_word=_WORD_BITS * read,
            n2s_pair=_bits_of_pair(matrix) * read,
            output_word=_SUM_BITS * sram_bit,
            sore_group=compares * compare,
            fixed=matrix.macs * (mac + (pj(Action.SELECT) if matrix.sparse else 0.0)),
        )

    return of
