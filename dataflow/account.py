"""Where the cycles and the actions of an op are booked: integers only, so that re-costing never re-simulates.

An engine that counts what is not here declares a class of its own below `Counts` or `Cycles`, its fields made by
`actions.counted` and `actions.cause`. An op's account is of its engine's class, a step's has what any of its ops has.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import Field, dataclass, field, fields, make_dataclass
from functools import cache, lru_cache
from operator import attrgetter
from typing import Any, ParamSpec, TypeVar, assert_never, cast

from ..workloads.groups import Groups
from ..workloads.levels import needs_no_multiplier
from ..workloads.operand import NMOperand
from ..workloads.step import MatrixOp, Op, UpdateOp
from ..workloads.unstructured import Unstructured
from ..workloads.update_rule import Unit, UpdateRule
from .actions import DECLARED, NOTHING, Actions, Cause, Counted, Each, Either, Where, cause, counted, moved
from .operand import BYTE
from .problem import element_bits
from .xnor.mapping import require_xnor
from .xnor.words import planes_read

__all__ = ["Counts", "Cycles", "by_kind", "declared_causes", "declared_counts", "items", "kind_of", "total", "values"]


def _side_bits(where: Where, side: str) -> int:
    """Bits that the buffer of operand ``side`` gives an engine at a time: an element, or the planes of a word that a
    beat reads."""
    operand = getattr(where.op, side) if isinstance(where.op, MatrixOp) else None
    if operand is None or operand.levels is None:
        return where.spec.pe.operand.bits
    match where.kind:
        case "stce" | "gather" | "outside":
            return element_bits(operand, where.spec.pe.operand)
        case "xnor":
            return require_xnor(where.spec).word_bits * planes_read(operand.levels)
        case _:
            assert_never(where.kind)


def _word_bits(where: Where) -> tuple[int]:
    """Bits of a W2E word, an operand."""
    return (_side_bits(where, "b" if where.n2s == "a" else "a"),)


def _pair_bits(where: Where) -> tuple[int]:
    """Bits of an N2S word: an operand and, where sparse, its index."""
    sparse, bits = where.op.sparse if isinstance(where.op, MatrixOp) else None, _side_bits(where, where.n2s)
    match sparse:
        case None | Groups(expanded=True):
            return (bits,)
        case NMOperand(pattern=pattern):
            return (bits + pattern.index_bits,)
        case Unstructured() | Groups():
            assert isinstance(where.op, MatrixOp)
            return (bits + sparse.index_bits(where.op.gemm),)
        case _:
            assert_never(sparse)


def _sum_bits(where: Where) -> tuple[int, int]:
    """Bits of a partial sum, written or read."""
    return (where.spec.pe.operand.accumulator.bits,) * 2


def _multiplies(where: Where) -> tuple[int, int, int, int, int]:
    """Multiplies and FP32 adds of a multiply-accumulate, and what its PE clocks; signs are flipped instead, bits are
    counted by the word."""
    match where.kind:
        case "stce" | "gather" | "outside":
            signs = isinstance(where.op, MatrixOp) and any(
                needs_no_multiplier(x.levels) for x in (where.op.a, where.op.b)
            )
            return (0 if signs else 1), 1, 1, 1, 1
        case "xnor":
            return 0, 0, 0, 0, 0
        case _:
            assert_never(where.kind)


def _in_pe(where: Where) -> tuple[int, int]:
    """Uses of the STCE's PE, for which the multiplier of an engine of others is taken unless it counts its own."""
    match where.kind:
        case "stce" | "gather" | "outside":
            return 1, 1
        case "xnor":
            return 0, 0
        case _:
            assert_never(where.kind)


def _written(counts: Counts, op: Op) -> int:
    """Partial sums of one output are written s times and read back s - 1 times, which makes 2 s - 1 words."""
    g = op.gemm if isinstance(op, MatrixOp) else None
    return (counts.output_words + (g.groups * g.m * g.n if g else 0)) // 2


def _filled(counts: Counts, _: Op) -> int:
    """What comes from DRAM, or from a tensor on chip, is written into a buffer, what goes there is read out of one."""
    return min(counts.buffer_bytes, counts.dram_read_bytes + getattr(counts, "resident_read_bytes", 0))


def _edges_at_work(where: Where) -> tuple[int]:
    """Whether the array's edges work in a cycle that computes; those of the XNOR engine are in its count of words."""
    match where.kind:
        case "stce" | "gather" | "outside":
            return (1,)
        case "xnor":
            return (0,)
        case _:
            assert_never(where.kind)


@cache
def _rule_operations(rule: UpdateRule) -> tuple[int, int, int, int]:
    """FP32 multiplies, adds, divides and roots a parameter; conversions are free."""
    done = Counter(operation.unit for operation in rule.operations)
    return done[Unit.MULTIPLY], done[Unit.ADD] + done[Unit.SUBTRACT], done[Unit.DIVIDE], done[Unit.ROOT]


def _update_operations(where: Where) -> tuple[int, int, int, int, int]:
    """Those of the rule, and all of them together; an add for scales that are made of the weights, and another trip is
    a multiply by one."""
    multiplies, adds, divides, roots = _rule_operations(where.rule)
    if isinstance(where.op, UpdateOp):
        multiplies, adds = multiplies + where.op.looks, adds + bool(where.op.scales)
    return multiplies, adds, divides, roots, multiplies + adds + divides + roots


def _streamed(where: Where) -> tuple[int, int, int]:
    """Bits of a byte of DRAM, and of it in the memory that vector unit and WUVE stream through, written and read once;
    products have buffers, whose traffic is counted by itself."""
    own = 0 if isinstance(where.op, MatrixOp) else BYTE
    return BYTE, own, own


@dataclass(frozen=True, slots=True, kw_only=True)
class Cycles:
    """Clock cycles by what they were spent on or waited for; the causes add up to ``total``.

    ``fill_drain``: skew, pipeline latency, first operands, last results, partial-sum turn-around. ``interleave_stall``:
    the interleave is shorter than the adder. ``port_stall``: W2E words, drain chain, weights shifting in. ``wuve`` and
    ``vector``: as long as their lanes or their memory traffic take.
    """

    compute: int = cause(
        "array computes",
        "the array issues multiplies",
        loss=None,
        place=0,
        alone=True,
        fabric=Each((Actions.FABRIC_EDGES,), _edges_at_work),
    )
    fill_drain: int = cause(
        "fill and drain", "skew, pipeline latency, first and last words", loss="fill and drain", place=3, alone=True
    )
    interleave_stall: int = cause(
        "accumulator waits", "an accumulator is waited for", loss="accumulator waits (interleave)", place=1, alone=True
    )
    port_stall: int = cause("port waits", "the array waits for its own ports", loss="array ports", place=2, alone=True)
    dram_stall: int = cause("DRAM waits", "the array waits for DRAM", loss="DRAM waits", place=4)
    sore: int = cause("compression", "N:M compression is waited for", loss="compression (SORE)", place=5)
    wuve: int = cause("weight update", "weight update", loss="weight update (WUVE)", place=6)
    vector: int = cause("vector work", "element-wise, normalisation, softmax", loss="vector work", place=7)

    @property
    def total(self) -> int:
        """All cycles."""
        return sum(_values(type(self))(self))


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """How often each action happened."""

    macs: int = counted(
        "multiplies of operands with their FP32 adds that change a result",
        Each((Actions.MULTIPLY, Actions.ADD, Actions.REGISTERS, Actions.CLOCK_TREE, Actions.CONTROL), _multiplies),
        Each((Actions.FABRIC_MAC, Actions.FABRIC_MULTIPLY), _in_pe),
    )
    # On an FPGA these are among the LUTs of a PE.
    selects: int = counted(
        "partners picked by index from a dense group", Each((Actions.SELECT,)), NOTHING, column=False
    )
    w2e_words: int = moved("operands read from the W2E buffer", Each((Actions.W2E_READ,), _word_bits), column=False)
    n2s_pairs: int = moved(
        "operands, with their index where sparse, read from the N2S buffer",
        Each((Actions.N2S_READ,), _pair_bits),
        column=False,
    )
    output_words: int = moved(
        "FP32 partial sums and results read from or written to the output buffer by the array",
        Either((Actions.OUTPUT_WRITE, Actions.OUTPUT_READ), _sum_bits, _written),
        column=False,
    )
    buffer_bytes: int = moved(
        "bytes written into or read out of the buffers by the DMA",
        Either((Actions.DMA_FILL, Actions.DMA_EMPTY), BYTE, _filled),
        column=False,
    )
    dram_read_bytes: int = moved(
        "bytes read from DRAM", Each((Actions.DRAM_READ, Actions.STREAM_WRITE, Actions.STREAM_READ), _streamed)
    )
    dram_write_bytes: int = moved(
        "bytes written to DRAM", Each((Actions.DRAM_WRITE, Actions.STREAM_WRITE, Actions.STREAM_READ), _streamed)
    )
    sore_compares: int = counted(
        "magnitude comparisons of the reduction engine",
        Each((Actions.COMPARE,)),
        Each((Actions.FABRIC_COMPARE,)),
        column=False,
    )
    updates: int = counted(
        "parameters updated",
        Each(
            (
                Actions.UPDATE_MULTIPLY,
                Actions.UPDATE_ADD,
                Actions.UPDATE_DIVIDE,
                Actions.UPDATE_ROOT,
                Actions.UPDATE_PIPELINE,
            ),
            _update_operations,
        ),
        Each((Actions.FABRIC_UPDATE, Actions.FABRIC_UPDATE_MULTIPLY)),
        column=False,
    )
    # The vector unit has no RTL, so no LUTs: the table of an FPGA says so.
    vector_elements: int = counted(
        "elements through the vector unit", Each((Actions.VECTOR_ELEMENT,)), NOTHING, column=False
    )

    @property
    def dram_bytes(self) -> int:
        """Off-chip traffic in both directions."""
        return self.dram_read_bytes + self.dram_write_bytes


Account = TypeVar("Account", Cycles, Counts)
P = ParamSpec("P")
R = TypeVar("R")


def by_kind(make: Callable[P, R]) -> Callable[P, R]:
    """Remembers what was made of a kind; the type checker takes no class of a dataclass for hashable."""
    return cast("Callable[P, R]", lru_cache(maxsize=256)(make))


@by_kind
def declared_causes(kind: type[Cycles]) -> dict[str, Cause]:
    """What cycles of a kind go to, by name."""
    return {f.name: _declared(kind, f, Cause) for f in fields(kind)}


@by_kind
def declared_counts(kind: type[Counts]) -> dict[str, Counted]:
    """What a kind of counts counts, by name."""
    return {f.name: _declared(kind, f, Counted) for f in fields(kind)}


Declared = TypeVar("Declared", Cause, Counted)


def _declared(kind: type, f: Field[Any], what: type[Declared]) -> Declared:
    found = f.metadata.get(DECLARED)
    if not isinstance(found, what):
        made = "cause" if what is Cause else "counted"
        raise TypeError(f"{kind.__name__}.{f.name} is not declared: make the field by actions.{made}(...)")
    return found


def items(account: Cycles | Counts) -> dict[str, int]:
    """Numbers by name, in the order of their declaration."""
    return dict(zip(_names(type(account)), values(account), strict=True))


def values(account: Cycles | Counts) -> tuple[int, ...]:
    """Numbers in the order of their declaration."""
    return _values(type(account))(account)


@by_kind
def _names(kind: type) -> tuple[str, ...]:
    return tuple(f.name for f in fields(kind))


@by_kind
def _values(kind: type) -> Callable[[Any], tuple[int, ...]]:
    return attrgetter(*_names(kind))


def total(kind: type[Account], parts: Iterable[Account]) -> Account:
    """Sum of accounts, field by field; of several kinds, with the fields of all."""
    columns: dict[type[Account], list[tuple[int, ...]]] = {}
    for part in parts:
        of = type(part)
        columns.setdefault(of, []).append(_values(of)(part))
    sums: dict[str, int] = {}
    for of, rows in columns.items():
        for name, n in zip(_names(of), map(sum, zip(*rows, strict=True)), strict=True):
            sums[name] = sums.get(name, 0) + n
    return kind_of(kind, columns)(**sums)


def kind_of(kind: type[Account], kinds: Iterable[type[Account]]) -> type[Account]:
    """A kind with the fields of ``kind`` and of all ``kinds``."""
    more = tuple(dict.fromkeys(k for k in kinds if k is not kind))
    return _joined(kind, more) if more else kind


@by_kind
def _joined(kind: type[Account], more: tuple[type[Account], ...]) -> type[Account]:
    if len(more) == 1 and issubclass(more[0], kind):
        return more[0]
    found: dict[str, Field[Any]] = {f.name: f for f in fields(kind)}
    for f in (f for other in more for f in fields(other)):
        known = found.setdefault(f.name, f)
        if known.metadata.get(DECLARED) != f.metadata.get(DECLARED):
            raise TypeError(f"{f.name!r} is declared twice and differently, by engines of one step")
    own = {f.name for f in fields(kind)}
    added = [(name, int, field(default=0, metadata=f.metadata)) for name, f in found.items() if name not in own]
    made = make_dataclass(kind.__name__, added, bases=(kind,), frozen=True, slots=True, kw_only=True)
    return cast("type[Account]", made)
