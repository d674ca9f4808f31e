"""Energy of each action as tables in TOML: every figure with its unit, node, source and how far to trust it.

One table is written down for ASICs, that of 45 nm; those of other nodes are made from it by the model that
`scaling.py` names, with the SRAM of `sram.py`. An FPGA has a table of its own kind.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, fields, replace
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Annotated, ClassVar, Literal, TypeVar

from pydantic import Field

from ..simulator.dram import activate_pj, run_memory
from ..simulator.dram_requests import pattern
from ..simulator.dram_spec import IddPower, MemorySpec, load_memory, memory_names
from ..workloads.errors import InputError, nearest, require_positive
from ..workloads.mark import Mark
from ..workloads.strict import read_text, read_toml
from . import scaling, sram
from .bands import Band, known_band
from .synthesised import AreaTarget

__all__ = [
    "AreaFigure",
    "BitEnergy",
    "Elements",
    "EnergyFigure",
    "EnergyTable",
    "FpgaTable",
    "Mark",
    "MemoryEnergy",
    "OperationEnergy",
    "Operations",
    "Power",
    "SramEnergy",
    "Table",
    "at_node",
    "load_table",
    "parse_table",
    "table_names",
    "with_bank",
]

_STRICT = {"extra": "forbid"}
# Checked when a figure is made, too; here so that an error in a file says which.
_Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
_Text = Annotated[str, Field(min_length=1)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A positive number with its origin: ``value`` as its source has it, ``scaling`` what a model makes of it."""

    __pydantic_config__ = _STRICT
    value: _Positive
    node: _Text
    source: _Text
    mark: Mark
    scaling: _Positive = 1.0

    def __post_init__(self) -> None:
        for number in (self.value, self.scaling):
            require_positive("a figure of an energy table", number)
        if not self.node.strip() or not self.source.strip():
            raise InputError("node and source of a figure must not be empty")

    @property
    def scaled(self) -> float:
        """The figure that counts, in its unit."""
        return self.value * self.scaling


@dataclass(frozen=True, slots=True, kw_only=True)
class EnergyFigure(Figure):
    """With how far it may be off: a band of its own or the name of a shipped one, and that of ``scaling``, if any."""

    band: Band | _Text
    scaling_band: Band | None = None

    def __post_init__(self) -> None:
        # By name: `super()` does not find its class in one that slots made anew.
        Figure.__post_init__(self)
        if isinstance(self.band, str):
            object.__setattr__(self, "band", known_band(self.band))

    @property
    def own_band(self) -> Band:
        assert isinstance(self.band, Band)  # a name was looked up when this was made
        return self.band


@dataclass(frozen=True, slots=True, kw_only=True)
class OperationEnergy(EnergyFigure):
    """Picojoules of one operation."""

    unit: Literal["pJ"]


@dataclass(frozen=True, slots=True, kw_only=True)
class BitEnergy(EnergyFigure):
    """Picojoules of one bit moved."""

    unit: Literal["pJ/bit"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Power(EnergyFigure):
    """Microwatts for as long as the step takes."""

    unit: Literal["uW"]


@dataclass(frozen=True, slots=True, kw_only=True)
class AreaFigure(Figure):
    """Square micrometres of a unit."""

    unit: Literal["um2"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Operations:
    """Arithmetic and the small logic around it; of the two operand formats a table may leave out BF16.

    ``registers``, ``clock_tree``, ``control``: of a multiply-add; ``update_pipeline``: of an operation of WUVE.
    """

    __pydantic_config__ = _STRICT
    fp16_multiply: OperationEnergy
    bf16_multiply: OperationEnergy | None = None
    fp32_add: OperationEnergy
    fp32_multiply: OperationEnergy
    fp32_divide: OperationEnergy
    fp32_square_root: OperationEnergy
    index_select: OperationEnergy
    compare: OperationEnergy
    vector_element: OperationEnergy
    registers: OperationEnergy
    clock_tree: OperationEnergy
    control: OperationEnergy
    update_pipeline: OperationEnergy


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryEnergy:
    """A DRAM in its two directions, as sequential streams, with the rows that those open; ``activate``: a row that is
    opened beyond them, not charged without one. Other patterns for comparison, charged to nothing."""

    __pydantic_config__ = _STRICT
    read: BitEnergy
    write: BitEnergy
    activate: OperationEnergy | None = None
    random_read: BitEnergy | None = None
    training_mix: BitEnergy | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SramEnergy:
    """Banks that buffers are made of; ``leakage`` is that of one bank of ``bank_kib``."""

    __pydantic_config__ = _STRICT
    read: BitEnergy
    write: BitEnergy
    leakage: Power | None = None
    bank_kib: int = sram.BANK_KIB


@dataclass(frozen=True, slots=True, kw_only=True)
class EnergyTable:
    """All figures of one chip. ``scaling`` names the model behind them, ``not_counted`` what they leave out.

    ``logic_leakage``: of a PE or a lane. ``spare``: energies of units that no machine that ships has, by name; the
    actions of an engine of one's own may be priced by them. ``area``: square micrometres of units, charged to nothing.
    """

    __pydantic_config__ = _STRICT
    name: str
    title: str
    scaling: str
    not_counted: tuple[str, ...]
    operations: Operations
    sram: SramEnergy
    dram: dict[str, MemoryEnergy]
    logic_leakage: Power | None = None
    spare: dict[str, OperationEnergy] = field(default_factory=dict)
    area: dict[str, AreaFigure] = field(default_factory=dict)

    fabric: ClassVar[bool] = False

    def __hash__(self) -> int:
        return hash(self.name)

    def dram_of(self, kind: str) -> MemoryEnergy:
        """Energy of a kind of DRAM: that of the table, else of the memory of that name or file by its own figures."""
        return _dram_of(self, kind)


@dataclass(frozen=True, slots=True, kw_only=True)
class Elements:
    """Picojoules of the elements of an FPGA in a cycle in which they work; ``static`` of the whole device."""

    __pydantic_config__ = _STRICT
    lut: OperationEnergy
    routing: OperationEnergy
    register: OperationEnergy
    clock: OperationEnergy
    dsp: OperationEnergy
    memory_bit: BitEnergy
    static: Power


@dataclass(frozen=True, slots=True, kw_only=True)
class FpgaTable:
    """All figures of one family of FPGAs, counted for ``target``; DRAM is that of the 45 nm table: it depends on no
    chip."""

    __pydantic_config__ = _STRICT
    name: str
    title: str
    scaling: str
    target: AreaTarget
    not_counted: tuple[str, ...]
    elements: Elements
    dram: dict[str, MemoryEnergy] = field(default_factory=dict)
    fabric: ClassVar[bool] = True

    def __hash__(self) -> int:
        return hash(self.name)

    def dram_of(self, kind: str) -> MemoryEnergy:
        """Energy of a kind of DRAM: that of the table, else of the memory of that name or file by its own figures."""
        return _dram_of(self, kind)


Table = EnergyTable | FpgaTable


def _dram_of(table: Table, kind: str) -> MemoryEnergy:
    if kind in table.dram:
        return table.dram[kind]
    if kind in memory_names() or kind.endswith(".toml"):
        return _of_memory(load_memory(kind))
    known = sorted({*table.dram, *memory_names()})
    raise InputError(f"dram.kind {kind!r} has no energy in table {table.name!r}: {nearest(kind, known)}")


_STREAM = 100_000
"""Requests: ten refresh intervals of a channel of DDR4."""


@cache
def _of_memory(memory: MemorySpec) -> MemoryEnergy:
    """What the memory's own figures give for sequential streams, as the tables have it."""
    behind = [p for p in memory.provenance if any(name.startswith("power.") for name in p.of)]
    sources = "; ".join(p.source for p in behind)
    if isinstance(memory.power, IddPower):
        channel = replace(memory, organization=replace(memory.organization, channels=1))
        pj = [run_memory(channel, pattern(f"seq_{way}", channel, _STREAM)).pj_per_bit for way in ("read", "write")]
        band: Band | str = _by_its_currents(channel, pj[0])
        marks, source = [Mark.INFERRED], f"sequential stream through its currents, devices only: {sources}"
    else:
        pj, marks, source = [memory.power.read_pj, memory.power.write_pj], [], sources
        band = "dram.by-the-bit"
    mark = max([*marks, *(p.mark for p in behind)], key=list(Mark).index)
    activate = None
    if isinstance(memory.power, IddPower):
        activate = OperationEnergy(
            value=activate_pj(memory, memory.power),
            unit="pJ",
            node=memory.name,
            source=f"IDD0 over a row's cycle less standby, devices only: {sources}",
            mark=mark,
            band="dram.activate",
        )
    read, write = (BitEnergy(value=v, unit="pJ/bit", node=memory.name, source=source, mark=mark, band=band) for v in pj)
    return MemoryEnergy(read=read, write=write, activate=activate)


def _by_its_currents(channel: MemorySpec, stream: float) -> Band:
    """As those of the tables' DDR4: no more than random reads cost, with ECC devices."""
    random = run_memory(channel, pattern("rand_read_64B", channel, _STREAM)).pj_per_bit / stream
    low = known_band("dram.ddr4-x8").low
    source = (
        f"low: as the tables' DDR4; high: random reads of 64 bytes over sequential ones, {random:.3g}, by its own "
        "currents, times ECC devices, 9 / 8"
    )
    return Band(low=low, high=max(1.0, random) * 9 / 8, mark=Mark.INFERRED, source=source)


_FPGAS = ("fpga-ultrascale-plus", "fpga-ecp5")


@cache
def table_names() -> tuple[str, ...]:
    """Tables there are, by technology."""
    return (*(f"asic-{node}nm" for node in scaling.NODES), *_FPGAS)


def load_table(name: str | Path) -> Table:
    """Table of a technology, or of a path that ends in ``.toml``."""
    path = Path(name)
    return parse_table(read_text(path), str(path)) if path.suffix == ".toml" else _known(str(name))


@cache
def _known(name: str) -> Table:
    if name not in table_names():
        raise InputError(
            f"technology {name!r} is neither an energy table nor a .toml file: {nearest(name, table_names())}"
        )
    base = parse_table(_shipped("asic-45nm"), "asic-45nm.toml")
    if name in _FPGAS:
        return replace(read_toml(FpgaTable, _shipped(name), f"{name}.toml"), dram=base.dram)
    found = re.fullmatch(r"asic-(\d+)nm", name)
    return at_node(base, int(found[1])) if found else base


def _shipped(name: str) -> str:
    return (resources.files(__package__) / "tables" / f"{name}.toml").read_text(encoding="utf-8")


def parse_table(text: str, source: str) -> EnergyTable:
    """Table of a chip from TOML text; ``source`` names it in errors."""
    return read_toml(EnergyTable, text, source)


F = TypeVar("F", bound=Figure)


def at_node(base: EnergyTable, node: int) -> EnergyTable:
    """The 45 nm table at another node: logic scaled by the model, SRAM of that node, DRAM as it is."""
    if node == scaling.BASE:
        return base
    energy, area = scaling.energy_factor(node), scaling.area_factor(node)
    where = f"{node} nm, {scaling.VOLTS[node]:g} V"

    def scaled(figure: F, factor: float) -> F:
        mark = figure.mark if figure.mark == Mark.ASSUMED else Mark.INFERRED
        return replace(figure, scaling=factor, node=where, mark=mark, source=f"{figure.node}: {figure.source}")

    def spent(figure: OperationEnergy) -> OperationEnergy:
        return replace(scaled(figure, energy), scaling_band=band)

    band = scaling_band(node)
    # Leakage goes with area, not with what a switch costs.
    leakage = base.logic_leakage and replace(scaled(base.logic_leakage, area), scaling_band=band)
    entries: dict[str, OperationEnergy | None] = {f.name: getattr(base.operations, f.name) for f in fields(Operations)}
    table = replace(
        base,
        name=f"asic-{node}nm",
        title=base.title.replace("45 nm at 0.9 V", where.replace(",", " at")),
        scaling=scaling.describe(node),
        operations=replace(base.operations, **{n: spent(e) for n, e in entries.items() if e is not None}),
        logic_leakage=leakage,
        spare={name: spent(figure) for name, figure in base.spare.items()},
        area={name: scaled(figure, area) for name, figure in base.area.items()},
    )
    return with_bank(table, node, sram.BANK_KIB)


def scaling_band(node: int) -> Band:
    """How far other models of scaling lie from the one in use."""
    low, high = scaling.disagreement(node)
    return Band(low=low, high=high, mark=Mark.INFERRED, source=f"{node} nm by other models: {scaling.describe(node)}")


def with_bank(table: EnergyTable, node: int, kib: int) -> EnergyTable:
    """``table`` with buffers made of banks of ``kib`` KiB with a port of 64 bits at ``node``."""
    found = sram.bank(node, kib)

    def of(pj: float, what: str) -> BitEnergy:
        return BitEnergy(
            value=pj / found.bits,
            unit="pJ/bit",
            node=f"{node} nm",
            mark=found.mark,
            source=f"{found.source}: {pj:.4g} pJ a {what} of {found.bits} bits in {kib} KiB",
            band="sram",
            scaling_band=None if node >= sram.LAST_NODE else scaling_band(node),
        )

    leakage = Power(
        value=found.leakage_uw,
        unit="uW",
        node=f"{node} nm",
        mark=found.leakage_mark,
        source=found.leakage_source,
        band="leakage",
    )
    banks = SramEnergy(read=of(found.read_pj, "read"), write=of(found.write_pj, "write"), leakage=leakage, bank_kib=kib)
    left_out = tuple(text.replace("64 KiB banks", f"{kib} KiB banks") for text in table.not_counted)
    return replace(table, sram=banks, not_counted=left_out)
