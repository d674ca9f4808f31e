"""What each action of a machine is charged: the prices of a table, and on an FPGA what synthesis counted.

A machine's tariff is made once, for a table and what its engines count. Nothing is run for it, and an action without a
price is refused, never free.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass, fields, replace
from types import MappingProxyType
from typing import Literal, assert_never

from ..dataflow.accelerator import AcceleratorSpec, EngineKind
from ..dataflow.account import Counts, Cycles, by_kind, declared_causes, declared_counts
from ..dataflow.actions import BEYOND, LEDGER, STANDING, Action, Actions, Cause, Counted, Fabric, Sites, Spends, Where
from ..dataflow.engine_time import compares_per_group
from ..dataflow.prices import Prices, Pricing
from ..dataflow.stce.counts import StceCounts
from ..dataflow.xnor.counts import XnorCounts
from ..dataflow.xnor.mapping import require_xnor
from ..dataflow.xnor.words import words_of
from ..workloads.errors import InputError
from ..workloads.levels import needs_no_multiplier
from ..workloads.operand import NMOperand
from ..workloads.step import MatrixOp
from ..workloads.update_rule import SGD
from .area import Area, uncounted_blocks
from .area_by_shape import area_of_shape
from .bands import Band
from .energy_table import EnergyFigure, EnergyTable, FpgaTable, Mark, Table, load_table
from .sram import SIZES, bank

__all__ = ["Price", "Tariff", "prices", "shared_prices", "spends_of", "tariff", "tariff_key"]

_ZJ_PER_PJ = 10**9


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """Picojoules of one action: ``constant_pj`` as its source has it, times ``scaling``, of a model or parts.

    ``figure``: that of the table it rests on, which moves within ``band``; ``common``: the band of a factor it shares.
    """

    constant_pj: float
    scaling: float
    source: str
    mark: Mark
    figure: str
    band: Band
    common: Band | None = None

    @property
    def pj(self) -> float:
        return self.constant_pj * self.scaling

    @property
    def zeptojoules(self) -> int:
        return round(self.pj * _ZJ_PER_PJ)

    @property
    def ends(self) -> tuple[int, int]:
        """Least and most zeptojoules by its bands."""
        low, high = (1.0, 1.0) if self.common is None else (self.common.low, self.common.high)
        least, most = self.pj * self.band.low * low, self.pj * self.band.high * high
        return round(least * _ZJ_PER_PJ), round(most * _ZJ_PER_PJ)


Tariff = Mapping[Action, Price]


@by_kind
def tariff(table: Table, spec: AcceleratorSpec, counts: type[Counts] = Counts, cycles: type[Cycles] = Cycles) -> Tariff:
    """Prices of all that a machine does whose engines book ``counts`` and ``cycles``.

    Refuses an action that ``table`` has no price of, and an FPGA whose parts nobody has counted.
    """
    price_of = _in_luts(table, spec) if isinstance(table, FpgaTable) else _on_chip(table, spec)
    declared: dict[str, Counted | Cause] = {**declared_counts(counts), **declared_causes(cycles)}
    found = {
        action: price_of(action) for name, one in declared.items() for action in spends_of(name, one, table).actions
    }
    found |= {action: price_of(action) for action in STANDING if action.price in _standing(table)}
    opened = table.dram_of(spec.dram.kind).activate is not None
    found |= {action: price_of(action) for action in BEYOND if action is not Actions.ACTIVATE or opened}
    named: dict[str, Action] = {}
    for action in (*LEDGER, *found):
        if named.setdefault(action.name, action) != action:
            raise TypeError(f"action {action.name!r} is declared twice, and differently")
    return MappingProxyType(found)


def tariff_key(table: Table, spec: AcceleratorSpec) -> tuple[Hashable, ...]:
    """What of a machine its tariff depends on: machines of equal keys are charged the same, or refused for the same."""
    if isinstance(table, FpgaTable):
        # All that the RTL of a block may depend on (`Block.depends`); buffers have no registers there.
        return (table, spec.dram.kind, spec.clock_hz, spec.array, spec.pe, spec.sore, spec.wuve, spec.xnor, spec.tree)
    standing = (_banks(table, spec), _units(spec), spec.clock_hz) if _standing(table) else ()
    return (table, spec.dram.kind, spec.pe.format, spec.buffers.resident_bytes, *standing)


def spends_of(name: str, declared: Counted | Cause, table: Table) -> Spends:
    """The actions that a count or cause ``name`` stands for in ``table``."""
    spends = declared.fabric if table.fabric else declared.chip
    if spends is None:
        kind, has = ("an FPGA", "fabric") if table.fabric else ("a chip", "chip")
        raise InputError(
            f"table {table.name!r} has no price for action {name!r}: its engine declares none on {kind} "
            f"(`counted(..., {has}=...)` where the action is declared)"
        )
    return spends


def _standing(table: Table) -> tuple[str, ...]:
    """What of `STANDING` a table has; the rest is among what it says that it does not count."""
    if isinstance(table, FpgaTable):
        return ("clock", "static")
    leaks = {"static": table.sram.leakage, "logic_leakage": table.logic_leakage}
    return tuple(name for name, power in leaks.items() if power is not None)


def _unpriced(table: Table, action: Action, missing: str, known: Mapping[str, object]) -> InputError:
    return InputError(
        f"table {table.name!r} has no price for action {action.name!r} ({action.component}): {missing}; priced are "
        f"{', '.join(sorted(known))}"
    )


def _on_chip(table: EnergyTable, spec: AcceleratorSpec) -> Callable[[Action], Price]:
    dram, sram = table.dram_of(spec.dram.kind), table.sram
    found: dict[str, EnergyFigure | None] = {
        **table.spare,
        **{f.name: getattr(table.operations, f.name) for f in fields(table.operations)},
        "sram.read": sram.read,
        "sram.write": sram.write,
        "dram.read": dram.read,
        "dram.write": dram.write,
        "dram.activate": dram.activate,
    }
    # A memory's figures are its own, whatever table charges them.
    at = {f"dram.{what}": f"{spec.dram.kind} {what}" for what in ("read", "write", "activate")}
    known = {name: _price(figure, at.get(name, name)) for name, figure in found.items() if figure is not None}
    if spec.buffers.resident_bytes:
        known |= _resident(table, spec.buffers.resident_bytes)
    if sram.leakage is not None:
        banks = _banks(table, spec)
        held = " and of tensors on chip" if spec.buffers.resident_bytes else ""
        known["static"] = _power(sram.leakage, "sram.leakage", banks, spec, f"{banks} banks of the buffers{held}")

    if table.logic_leakage is not None:
        units = _units(spec)
        what = f"{units} units: PEs, lanes of WUVE and of the vector unit"
        known["logic_leakage"] = _power(table.logic_leakage, "logic_leakage", units, spec, what)

    def price(action: Action) -> Price:
        if isinstance(action.price, Fabric):
            raise _unpriced(table, action, "it takes LUTs or DSPs, which a chip has none of", known)
        name = action.price.format(format=spec.pe.format, accumulator=spec.pe.operand.accumulator.name)
        if name not in known:
            where = name if "." in name else f"operations.{name}" if name in found else f"spare.{name}"
            raise _unpriced(table, action, f"add {where}", known)
        return known[name]

    return price


def _units(spec: AcceleratorSpec) -> int:
    return spec.array.pes + spec.wuve.lanes + spec.vector.lanes


def _banks(table: EnergyTable, spec: AcceleratorSpec) -> int:
    sizes = (spec.buffers.w2e_bytes, spec.buffers.n2s_bytes, spec.buffers.output_bytes)
    bank = 1024 * table.sram.bank_kib
    return len(spec.engines) * sum(-(-size // bank) for size in sizes) + -(-spec.buffers.resident_bytes // bank)


def _resident(table: EnergyTable, size: int) -> dict[str, Price]:
    """A bit of the memory that holds whole tensors: as one bank of its size, of the largest that is known at most, by
    what that takes beside a bank of the buffers."""
    found = re.fullmatch(r"(\d+) nm", table.sram.read.node)
    if found is None:
        raise InputError(
            f"table {table.name!r} does not say its node as '45 nm' (sram.read.node {table.sram.read.node!r}), by "
            "which a memory of buffers.resident_bytes is charged"
        )
    kib = min(max(-(-size // 1024), SIZES[0]), SIZES[1])
    own, usual = (bank(int(found[1]), n) for n in (kib, table.sram.bank_kib))

    def price(of: Price, more: float) -> Price:
        source = f"{of.source}; x {more:.3g} for a bank of {kib} KiB ({own.source})"
        return replace(of, scaling=of.scaling * more, source=source, mark=_least((of.mark, own.mark)))

    return {
        "resident.read": price(_price(table.sram.read, "sram.read"), own.read_pj / usual.read_pj),
        "resident.write": price(_price(table.sram.write, "sram.write"), own.write_pj / usual.write_pj),
    }


def _in_luts(table: FpgaTable, spec: AcceleratorSpec) -> Callable[[Action], Price]:
    """Parts of a machine that work together, by the LUTs and registers that synthesis counts."""
    if spec.gather is not None:
        raise InputError(
            f"table {table.name!r} charges the LUTs that work, which nobody has told apart for the gather engine of "
            f'{spec.name!r}: choose a chip\'s table (technology = "asic-16nm")'
        )
    area, e, dram = _area(table, spec), table.elements, table.dram_of(spec.dram.kind)
    inferred = f", {len(area.inferred)} modules inferred from others" if area.inferred else ""
    tools, bit = area.tools + inferred, _price(e.memory_bit, "memory_bit")
    sites = {"lut": _sites(area, "lut_sites"), "dsp": _sites(area, "dsp")}
    registers = sum(i.ff * i.count for i in area.items)
    known = {
        "sram.read": bit,
        "sram.write": bit,
        "resident.read": bit,
        "resident.write": bit,
        "dram.read": _price(dram.read, f"{spec.dram.kind} read"),
        "dram.write": _price(dram.write, f"{spec.dram.kind} write"),
        "clock": _parts({"clock": e.clock, "register": e.register}, registers, "registers of the machine", tools),
        "static": _power(e.static, "static", 1, spec, "the whole device"),
    }

    if dram.activate is not None:
        known["dram.activate"] = _price(dram.activate, f"{spec.dram.kind} activate")

    def price(action: Action) -> Price:
        if isinstance(action.price, Fabric):
            try:
                number = action.price.number(spec, sites[action.price.element])
            except KeyError as part:
                counted = ", ".join(f"{block}.{name}" for block, names in sites["lut"].items() for name in names)
                raise InputError(
                    f"table {table.name!r} has no price for action {action.name!r} ({action.component}): synthesis "
                    f"counts no {part} of {spec.name!r}; counted are {counted}"
                ) from None
            figures = {"lut": {"lut": e.lut, "routing": e.routing}, "dsp": {"dsp": e.dsp}}[action.price.element]
            return _parts(figures, number, action.price.what, tools)
        if action.price not in known:
            raise _unpriced(table, action, f"it has no {action.price}", known)
        return known[action.price]

    return price


def _area(table: FpgaTable, spec: AcceleratorSpec) -> Area:
    """As synthesis counted it, else inferred from machines near it."""
    try:
        return area_of_shape(spec, table.target)
    except InputError as beyond:
        missing = " and ".join(f"{block.title} ({block.name})" for block in uncounted_blocks(spec, table.target))
        raise InputError(
            f"table {table.name!r} charges LUTs and registers, and those of {missing} of {spec.name!r} are not counted "
            f"yet, nor near what is ({beyond}): run `weft area --target {table.target}` with the same --arch once "
            '(minutes; the result is kept), or choose a chip\'s table (technology = "asic-16nm")'
        ) from None


def _sites(area: Area, of: Literal["lut_sites", "dsp"]) -> Sites:
    found: dict[str, dict[str, tuple[int, int]]] = {}
    for item in area.items:
        if item.block != "buffers":
            found.setdefault(item.block, {})[item.name] = (getattr(item, of), item.count)
    return found


def _price(figure: EnergyFigure, name: str) -> Price:
    return Price(
        constant_pj=figure.value,
        scaling=figure.scaling,
        source=figure.source,
        mark=figure.mark,
        figure=name,
        band=figure.own_band,
        common=figure.scaling_band,
    )


def _parts(figures: Mapping[str, EnergyFigure], number: float, what: str, tools: str) -> Price:
    """Figures that are always spent together, over a number of parts: of one band, that of their sum."""
    found, whole = figures.values(), sum(f.scaled for f in figures.values())
    bands = {f.own_band: None for f in found}
    return Price(
        constant_pj=whole,
        scaling=number,
        mark=_least(f.mark for f in found),
        source=f"{'; '.join(f.source for f in found)}; x {number:g} {what} ({tools})",
        figure=" and ".join(figures),
        band=Band(
            low=sum(f.scaled * f.own_band.low for f in found) / whole,
            high=sum(f.scaled * f.own_band.high for f in found) / whole,
            mark=_least(band.mark for band in bands),
            source="; ".join(band.source for band in bands),
        ),
    )


def _least(marks: Iterable[Mark]) -> Mark:
    return max(marks, key=list(Mark).index)


def _power(power: EnergyFigure, name: str, number: int, spec: AcceleratorSpec, what: str) -> Price:
    """Picojoules of a cycle: microwatts over the clock."""
    return Price(
        constant_pj=power.scaled * 1e6 / spec.clock_hz,
        scaling=number,
        mark=power.mark,
        source=f"{power.scaled:g} uW / {spec.clock_hz / 1e6:g} MHz, x {number} ({what}): {power.source}",
        figure=name,
        band=power.own_band,
        common=power.scaling_band,
    )


def prices(spec: AcceleratorSpec, table: Table | None = None) -> Pricing:
    """Picojoules for the scheduler's objectives energy and edp.

    The scheduler knows no direction, so a byte of DRAM or buffer costs the mean of a read and a write, an output word
    too. Clock and static power of an FPGA, most of its energy, are paid by the cycle; a chip's leakage, some per
    cent, is left out, so that machines which pay the same for actions share their searches
    (:func:`shared_prices`). No count of a product depends on the update rule.
    """
    used = table or load_table(spec.technology)
    charged, declared = tariff(used, spec), declared_counts(Counts)
    standing = sum(charged[action].pj for action in STANDING if action in charged) if used.fabric else 0.0

    @by_kind
    def own(kind: type[Counts]) -> tuple[Tariff, dict[str, Counted]]:
        # Only of an op that needs it: a table may have no price of what no op of the step does.
        return tariff(used, spec, kind), declared_counts(kind)

    def of(matrix: MatrixOp, kind: EngineKind = "stce", n2s: str = "b") -> Prices:
        where = Where(matrix, SGD, spec, kind, n2s)

        def one(name: str, counts: type[Counts] = Counts) -> float:
            known, names = (charged, declared) if counts is Counts else own(counts)
            return spends_of(name, names[name], used).price(lambda action: known[action].pj, where)

        match kind:
            case "stce":
                signs = needs_no_multiplier(matrix.a.levels) or needs_no_multiplier(matrix.b.levels)
                beside = matrix.macs * one("sign_flips", StceCounts) if signs else 0.0
            case "gather" | "outside":
                beside = 0.0
            case "xnor":
                beside = _words(matrix, spec) * one("popcounts", XnorCounts)
            case _:
                assert_never(kind)
        pattern = matrix.sparse.pattern if isinstance(matrix.sparse, NMOperand) else None
        compares = compares_per_group(pattern, spec) if pattern else 0
        return Prices(
            dram_byte=(one("dram_read_bytes") + one("dram_write_bytes")) / 2,
            buffer_byte=one("buffer_bytes"),
            w2e_word=one("w2e_words"),
            n2s_pair=one("n2s_pairs"),
            output_word=one("output_words"),
            sore_group=compares * one("sore_compares"),
            fixed=matrix.macs * (one("macs") + (one("selects") if pattern else 0.0)) + beside,
            cycle=standing,
        )

    return of


def shared_prices(table: Table | None = None) -> Callable[[AcceleratorSpec], Pricing]:
    """:func:`prices`, made once for all machines that pay the same."""
    known: dict[Hashable, Pricing] = {}

    def of(spec: AcceleratorSpec) -> Pricing:
        used = table or load_table(spec.technology)
        # A chip's power is in no price, and a group that SORE reduces takes as many compares as its kind
        # does; a pair of words as many bits as it has.
        words = None if spec.xnor is None else spec.xnor.word_bits
        chip = (used, spec.dram.kind, spec.pe.format, spec.sore.kind, words)
        key = tariff_key(used, spec) if used.fabric else chip
        found = known.get(key)
        if found is None:
            found = known[key] = prices(spec, used)
        return found

    return of


def _words(op: MatrixOp, spec: AcceleratorSpec) -> int:
    """Pairs of words that the XNOR engine counts for ``op``."""
    g, a, b = op.gemm, op.a.levels, op.b.levels
    assert a is not None and b is not None, "it takes no op without levels"
    return g.groups * g.m * g.n * words_of(g, a, b, require_xnor(spec).word_bits).slots
