"""What a machine does that is counted, as data: who pays for it, in what unit, by which price, and how it is called.

An engine counts what it likes (`account.Counts`) and says of every count which actions one stands for. Energy sums
actions times prices, tables and pages show what is declared; neither has a list of names of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from fractions import Fraction
from typing import Any, Literal, NamedTuple

from ..workloads.sparsity import NMPattern
from ..workloads.step import Op
from ..workloads.update_rule import UpdateRule
from .accelerator import AcceleratorSpec, EngineKind
from .engine_time import compares_per_group

__all__ = [
    "DECLARED",
    "LEDGER",
    "NOTHING",
    "STANDING",
    "Action",
    "Actions",
    "BEYOND",
    "Cause",
    "Component",
    "Counted",
    "Each",
    "Either",
    "Fabric",
    "Sites",
    "Spends",
    "Where",
    "cause",
    "counted",
    "moved",
]

Unit = Literal["operation", "bit", "cycle"]
Sites = Mapping[str, Mapping[str, tuple[int, int]]]
"""What synthesis counted: by block and module, LUT sites or DSPs of one module, and how many there are."""


class Component(StrEnum):
    """Parts of the machine that ships; an engine may name another."""

    ARRAY = "array"
    BUFFERS = "buffers"
    DRAM = "DRAM"
    SORE = "SORE"
    WUVE = "WUVE"
    VECTOR = "vector"
    CLOCK = "clock"
    STATIC = "static"


@dataclass(frozen=True, slots=True)
class Fabric:
    """The LUTs or DSPs of an FPGA that an action keeps busy: how many of what synthesis counted, what in words."""

    what: str
    number: Callable[[AcceleratorSpec, Sites], float]
    element: Literal["lut", "dsp"] = "lut"


@dataclass(frozen=True, slots=True)
class Action:
    """What is charged. ``price``: where a table has it, or the LUTs that it takes.

    Of a chip's table: a name in ``operations`` or ``spare`` (``{format}`` is that of the PEs, ``{accumulator}`` of
    their sums). Of any: ``sram.read``, ``sram.write``, ``dram.read``, ``dram.write``, ``dram.activate``, ``clock``,
    ``static``, ``logic_leakage``.
    """

    name: str
    component: str
    unit: Unit
    price: str | Fabric

    def __hash__(self) -> int:
        return hash(self.name)

    def __str__(self) -> str:
        return self.name


class Where(NamedTuple):
    """What an action is done for, by which rule, and on what machine; of a product, on which engine, and which operand
    flows N2S."""

    op: Op
    rule: UpdateRule
    spec: AcceleratorSpec
    kind: EngineKind = "stce"
    n2s: str = "b"


Times = int | Callable[[Where], Sequence[int]]
"""How often each action of a count is done."""


def _each(actions: Sequence[Action], times: Times, where: Where) -> Iterator[tuple[Action, int]]:
    return zip(actions, (times,) * len(actions) if isinstance(times, int) else times(where), strict=True)


@dataclass(frozen=True, slots=True)
class Each:
    """One count is every one of ``actions``, so many ``times`` each."""

    actions: tuple[Action, ...]
    times: Times = 1

    def each(self, where: Where) -> Iterator[tuple[Action, int]]:
        """Its actions, and how often one count is each of them."""
        return _each(self.actions, self.times, where)

    def spent(self, count: int, counts: Any, where: Where) -> Iterable[tuple[Action, int]]:
        """Actions of ``count``, one of ``counts``."""
        return [(action, count * n) for action, n in self.each(where)]

    def price(self, pj: Callable[[Action], float], where: Where) -> float:
        """Picojoules of one count."""
        return sum(n * pj(action) for action, n in self.each(where))


@dataclass(frozen=True, slots=True)
class Either:
    """One count is one of two ``actions``, ``times``; ``first``: how many of ``counts`` are the first of them."""

    actions: tuple[Action, Action]
    times: Times
    first: Callable[[Any, Op], int]

    def each(self, where: Where) -> Iterator[tuple[Action, int]]:
        """Its actions, and how often a count that is the one or the other is that."""
        return _each(self.actions, self.times, where)

    def spent(self, count: int, counts: Any, where: Where) -> Iterable[tuple[Action, int]]:
        """Actions of ``count``, one of ``counts``."""
        first = self.first(counts, where.op)
        (one, n), (other, m) = self.each(where)
        return (one, first * n), (other, (count - first) * m)

    def price(self, pj: Callable[[Action], float], where: Where) -> float:
        """Picojoules of one count where nobody knows which it is: the mean."""
        (one, n), (other, m) = self.each(where)
        return (n * pj(one) + m * pj(other)) / 2


Spends = Each | Either
NOTHING = Each(())
"""Of a count whose energy is in that of another, or which every table says that it leaves out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Counted:
    """What one count is: ``chip`` actions that a chip's table charges, ``fabric`` those of an FPGA's, None if no price
    of it is known. ``column``: whether every op's record shows it.
    """

    words: str
    chip: Spends | None
    fabric: Spends | None
    column: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Cause:
    """What cycles go to. ``figure``: its words in pictures and tables, ``means``: in a line, ``loss``: as an item of
    what a step loses, None where the engine works. ``place``: from left to right in a bar. ``alone``: that of an array
    without a memory to wait for.
    """

    figure: str
    means: str
    loss: str | None
    place: int
    alone: bool
    chip: Spends | None
    fabric: Spends | None


DECLARED = "weft"
"""Where a field of an account keeps what it is declared to be."""


def counted(words: str, chip: Spends | None, fabric: Spends | None = None, *, column: bool = True) -> Any:
    """A count of an engine, as the default of a field; see `Counted`."""
    return field(default=0, metadata={DECLARED: Counted(words=words, chip=chip, fabric=fabric, column=column)})


def moved(words: str, spends: Spends, *, column: bool = True) -> Any:
    """A count of what is moved, which is charged by whatever memory a table has; see `Counted`."""
    return counted(words, spends, spends, column=column)


def cause(
    figure: str,
    means: str,
    *,
    loss: str | None,
    place: int = 100,
    alone: bool = False,
    chip: Spends = NOTHING,
    fabric: Spends = NOTHING,
) -> Any:
    """A cause of an engine, as the default of a field; see `Cause`. Clock and leakage are charged in all cycles."""
    declared = Cause(figure=figure, means=means, loss=loss, place=place, alone=alone, chip=chip, fabric=fabric)
    return field(default=0, metadata={DECLARED: declared})


def _all(sites: Sites, block: str) -> int:
    return sum(each * count for each, count in sites[block].values())


def _edges(spec: AcceleratorSpec, sites: Sites) -> float:
    return _all(sites, "stce") - sites["stce"]["pe"][0] * spec.array.pes


def _comparator(spec: AcceleratorSpec, sites: Sites) -> float:
    """Synthesized for 2:8; a serial lane takes a value a cycle, a network a group."""
    pattern = NMPattern(keep=2, group=8)
    at_once = Fraction(compares_per_group(pattern, spec), pattern.group if spec.sore.kind == "serial" else 1)
    return _all(sites, "sore") / float(at_once * spec.sore.lanes)


class Actions:
    """Those of the machine that ships, in the order of a ledger."""

    MULTIPLY = Action("operand multiply", Component.ARRAY, "operation", "{format}_multiply")
    ADD = Action("accumulator add", Component.ARRAY, "operation", "{accumulator}_add")
    REGISTERS = Action("PE registers", Component.ARRAY, "operation", "registers")
    CLOCK_TREE = Action("PE clock tree", Component.ARRAY, "operation", "clock_tree")
    CONTROL = Action("PE control", Component.ARRAY, "operation", "control")
    SELECT = Action("index select", Component.ARRAY, "operation", "index_select")
    W2E_READ = Action("W2E buffer read", Component.BUFFERS, "bit", "sram.read")
    N2S_READ = Action("N2S buffer read", Component.BUFFERS, "bit", "sram.read")
    OUTPUT_WRITE = Action("output buffer write", Component.BUFFERS, "bit", "sram.write")
    OUTPUT_READ = Action("output buffer read", Component.BUFFERS, "bit", "sram.read")
    DMA_FILL = Action("buffer write by DMA", Component.BUFFERS, "bit", "sram.write")
    DMA_EMPTY = Action("buffer read by DMA", Component.BUFFERS, "bit", "sram.read")
    STREAM_WRITE = Action("stream memory write", Component.BUFFERS, "bit", "sram.write")
    STREAM_READ = Action("stream memory read", Component.BUFFERS, "bit", "sram.read")
    DRAM_READ = Action("DRAM read", Component.DRAM, "bit", "dram.read")
    DRAM_WRITE = Action("DRAM write", Component.DRAM, "bit", "dram.write")
    LINE_READ = Action("DRAM read of whole lines", Component.DRAM, "bit", "dram.read")
    LINE_WRITE = Action("DRAM write of whole lines", Component.DRAM, "bit", "dram.write")
    ACTIVATE = Action("DRAM rows opened again", Component.DRAM, "operation", "dram.activate")
    COMPARE = Action("magnitude compare", Component.SORE, "operation", "compare")
    UPDATE_MULTIPLY = Action("FP32 multiply of the update", Component.WUVE, "operation", "fp32_multiply")
    UPDATE_ADD = Action("FP32 add of the update", Component.WUVE, "operation", "fp32_add")
    UPDATE_DIVIDE = Action("FP32 divide of the update", Component.WUVE, "operation", "fp32_divide")
    UPDATE_ROOT = Action("FP32 square root of the update", Component.WUVE, "operation", "fp32_square_root")
    UPDATE_PIPELINE = Action("WUVE pipeline", Component.WUVE, "operation", "update_pipeline")
    VECTOR_ELEMENT = Action("vector element", Component.VECTOR, "operation", "vector_element")
    FABRIC_MAC = Action(
        "multiply-add in LUTs",
        Component.ARRAY,
        "operation",
        Fabric("LUTs of a PE", lambda _, sites: sites["stce"]["pe"][0]),
    )
    FABRIC_MULTIPLY = Action(
        "multiply in DSPs",
        Component.ARRAY,
        "operation",
        Fabric("DSPs of a PE", lambda _, sites: sites["stce"]["pe"][0], "dsp"),
    )
    FABRIC_EDGES = Action(
        "array edges in LUTs", Component.ARRAY, "cycle", Fabric("LUTs of the array around its PEs", _edges)
    )
    FABRIC_COMPARE = Action(
        "comparator in LUTs", Component.SORE, "operation", Fabric("LUTs of SORE a comparator", _comparator)
    )
    FABRIC_UPDATE = Action(
        "update in LUTs",
        Component.WUVE,
        "operation",
        Fabric("LUTs of a WUVE lane", lambda spec, sites: _all(sites, "wuve") / spec.wuve.lanes),
    )
    FABRIC_UPDATE_MULTIPLY = Action(
        "multiplies of the update in DSPs",
        Component.WUVE,
        "operation",
        Fabric("DSPs of a WUVE lane", lambda spec, sites: _all(sites, "wuve") / spec.wuve.lanes, "dsp"),
    )
    CLOCK = Action("clock and registers", Component.CLOCK, "cycle", "clock")
    STATIC = Action("static power", Component.STATIC, "cycle", "static")
    LOGIC_LEAKAGE = Action("leakage of logic", Component.STATIC, "cycle", "logic_leakage")


LEDGER = tuple(found for found in vars(Actions).values() if isinstance(found, Action))
"""All of them; those of other engines come after."""
BEYOND = (Actions.LINE_READ, Actions.LINE_WRITE, Actions.ACTIVATE)
"""Of transfers that are no stream, where their shapes are known: with ops overlapped."""
STANDING = (Actions.CLOCK, Actions.STATIC, Actions.LOGIC_LEAKAGE)
"""Of every cycle that the step lasts, whatever is done in it; what a table does not have is not in it."""
