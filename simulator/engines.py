"""SORE and WUVE on real values: bit-exact results and exact cycles (docs/design/machine.md)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import assert_never

import numpy as np
import numpy.typing as npt

from ..dataflow.accelerator import AcceleratorSpec
from ..dataflow.engine_time import sore_issue, update_plan
from ..dataflow.stce.spec import PESpec
from ..dataflow.streams import sore_streams, wuve_streams
from ..workloads.errors import InputError
from ..workloads.sparsity import NMPattern
from ..workloads.update_rule import Unit, UpdateRule
from .array import canonical
from .compact import BUBBLE, Compact, cut, either, require_matrix, require_run
from .kernels.sore import run_network, run_serial
from .kernels.wuve import ADD, DIVIDE, MULTIPLY, ROOT, SUBTRACT, run_update
from .operand import Half, encoding_of, narrow, operand_types, ranked, unranked
from .stalls import Bools
from .streams import clocked_beats
from .update_settings import UpdateSettings

__all__ = ["SoreRun", "WuveRun", "batcher_stages", "run_sore", "run_wuve"]

Single = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SoreRun:
    """One operand through SORE.

    ``nan_flags`` bool [groups, n] marks the groups that hold a NaN; ``left`` int64 [slots, n] is the cycle in which
    each pair leaves, or is taken where anything waits.
    """

    compact: Compact
    nan_flags: npt.NDArray[np.bool_]
    left: npt.NDArray[np.int64]
    cycles: int


def run_sore(
    spec: AcceleratorSpec,
    values: Half,
    pattern: NMPattern,
    run: int = 0,
    *,
    offered: Bools | None = None,
    ready: Bools | None = None,
) -> SoreRun:
    """Step ``values`` [k, n], cut into runs of ``run`` (0 for k) and groups along k, through the lanes.

    ``values`` are of an operand type of ``spec``. Groups are dealt column by column, those of a
    column in the order of k. ``offered`` and ``ready``, bool [cycles], as of `run_streams`; by default always.
    """
    spec.check_pattern(pattern)
    require_matrix("values", values, *operand_types(spec.pe.format))
    k, n = values.shape
    run = run or k
    require_run("run", k, run)
    groups = cut(pattern, k, run)
    count = len(groups.start)
    words, highest = ranked(np.ascontiguousarray(values)), encoding_of(values).highest
    kept_bits = np.zeros((n * count, pattern.keep), np.uint16)
    kept_index = np.full((n * count, pattern.keep), BUBBLE, np.uint8)
    flags = np.zeros(n * count, np.uint8)
    left = np.zeros(kept_bits.shape, np.int64)
    if spec.sore.kind == "serial":
        cycles = run_serial(
            words,
            highest,
            groups.start,
            groups.length,
            pattern.group,
            spec.sore.lanes,
            kept_bits,
            kept_index,
            flags,
            left,
        )
    else:
        networks = _comparators(pattern.group), _comparators(pattern.keep), pattern.group
        lanes = spec.sore.lanes, *networks
        cycles = run_network(words, highest, groups.start, groups.length, *lanes, kept_bits, kept_index, flags, left)
    if offered is not None or ready is not None:
        streams, beats = sore_streams(spec, pattern), sore_issue(n * count, pattern, spec)
        left, cycles = clocked_beats(streams, beats, left, 0, offered, ready)
    used = (np.arange(pattern.keep) < groups.kept[:, None]).ravel()
    compact = Compact(
        values=unranked(kept_bits.reshape(n, -1)[:, used].T, values.dtype.type),
        indices=np.ascontiguousarray(kept_index.reshape(n, -1)[:, used].T),
        pattern=pattern,
        k=k,
        run=run,
    )
    return SoreRun(
        compact=compact,
        nan_flags=flags.reshape(n, count).T.astype(np.bool_),
        left=np.ascontiguousarray(left.reshape(n, -1)[:, used].T),
        cycles=int(cycles),
    )


def batcher_stages(inputs: int) -> list[list[tuple[int, int]]]:
    """Odd-even merge sort of ``inputs`` wires, rounded up to a power of two: the comparators of each stage."""
    width = 1 << (inputs - 1).bit_length()
    stages = []
    sorted_run = 1
    while sorted_run < width:
        distance = sorted_run
        while distance:
            stages.append(
                [
                    (i, i + distance)
                    for block in range(distance % sorted_run, width - distance, 2 * distance)
                    for i in range(block, min(block + distance, width - distance))
                    if i // (2 * sorted_run) == (i + distance) // (2 * sorted_run)
                ]
            )
            distance //= 2
        sorted_run *= 2
    return stages


@cache
def _comparators(inputs: int) -> npt.NDArray[np.int64]:
    """`batcher_stages` as one array [stages, comparators, 2], padded with -1."""
    stages = batcher_stages(inputs)
    table = np.full((len(stages), max(map(len, stages), default=1), 2), -1, np.int64)
    for stage, pairs in enumerate(stages):
        table[stage, : len(pairs)] = pairs
    return table


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class WuveRun:
    """One update: FP32 master weights and state, the operands made from them, and the time it took.

    ``left`` int64 [n] is the cycle in which each parameter leaves, or is taken where anything waits.
    """

    master: Single
    state: tuple[Single, ...]
    weights16: Half
    left: npt.NDArray[np.int64]
    cycles: int


def run_wuve(
    spec: AcceleratorSpec,
    settings: UpdateSettings,
    master: Single,
    gradient16: Half,
    state: tuple[Single, ...],
    *,
    offered: Bools | None = None,
    ready: Bools | None = None,
) -> WuveRun:
    """Step one update of ``master`` float32 [n] by ``gradient16`` [n], operands of ``spec`` and no integers, of FP8 in
    E5M2; weights are made in E4M3 then, saturated.

    ``state`` float32 [n] each: those that the rule of ``settings`` holds. The inputs stay as they are. ``offered`` and
    ``ready``, bool [cycles], as of `run_streams`; by default always.
    """
    if spec.pe.operand.integer:
        raise InputError(
            f"WUVE makes no {spec.pe.format!r} weights of FP32 ones: choose pe.format 'fp8', 'fp16' or 'bf16'"
        )
    rule = settings.rule
    names = tuple(held.name for held in rule.state)
    if len(state) != len(names):
        raise InputError(f"state of {type(settings).__name__} must be ({', '.join(names)}), not {len(state)} arrays")
    _require_vector("master", master, (np.float32,), None)
    _require_vector("gradient16", gradient16, operand_types(spec.pe.format)[-1:], len(master))
    for name, array in zip(names, state, strict=True):
        _require_vector(name, array, (np.float32,), len(master))
    with np.errstate(invalid="ignore"):  # a signalling NaN is data here
        entering = np.stack([gradient16.astype(np.float32), master, *state])
    constants, left = np.array(settings.constants, np.float32), np.zeros(len(master), np.int64)
    program, ages, results, depth = _program(rule, spec.pe)
    leaving = np.empty((len(results), len(master)), np.float32)
    cycles = run_update(entering, constants, program, ages, results, depth, spec.wuve.lanes, leaving, left)
    if offered is not None or ready is not None:
        beats = -(-len(master) // spec.wuve.lanes)
        left, cycles = clocked_beats(wuve_streams(spec, rule), beats, left, 0, offered, ready)
    weights, *updated = (canonical(array) for array in leaving)
    weights16 = narrow(weights, spec.pe.format)
    return WuveRun(master=weights, state=tuple(updated), weights16=weights16, left=left, cycles=int(cycles))


@cache
def _program(rule: UpdateRule, pe: PESpec) -> tuple[Integers, Integers, Integers, int]:
    """Operations, their ages, what leaves and when, as `run_update` takes them.

    Conversions are made outside: the gradient stands in the slot of the widened one, and what leaves is narrowed.
    """
    plan = update_plan(rule, pe)
    slots = {name: slot for slot, name in enumerate((*rule.enters, *rule.constants))}
    lines: list[list[int]] = []
    ages: list[int] = []
    for operation in rule.operations:
        code = _code(operation.unit)
        operands = [slots[name] for name in operation.operands]
        if code is not None:
            slots[operation.name] = len(rule.enters) + len(rule.constants) + len(lines)
            lines.append([code, operands[0], operands[-1]])
            ages.append(plan.starts[operation.name])
        elif operation.unit is Unit.WIDEN:
            slots[operation.name] = operands[0]
    results = [slots[name] for name in rule.leaves]
    return np.array(lines, np.int64), np.array(ages, np.int64), np.array(results, np.int64), plan.depth


def _code(unit: Unit) -> int | None:
    match unit:
        case Unit.MULTIPLY:
            return MULTIPLY
        case Unit.ADD:
            return ADD
        case Unit.SUBTRACT:
            return SUBTRACT
        case Unit.ROOT:
            return ROOT
        case Unit.DIVIDE:
            return DIVIDE
        case Unit.WIDEN | Unit.NARROW:
            return None
    assert_never(unit)


def _require_vector(where: str, value: object, dtypes: tuple[type[np.generic], ...], length: int | None) -> None:
    if not isinstance(value, np.ndarray) or value.ndim != 1 or value.dtype.type not in dtypes or not value.size:
        shown = f"{value.dtype} {list(value.shape)}" if isinstance(value, np.ndarray) else repr(type(value).__name__)
        raise InputError(
            f"{where} must be a non-empty vector of {either([dtype.__name__ for dtype in dtypes])}, not {shown}"
        )
    if length is not None and len(value) != length:
        raise InputError(f"{where} has {len(value)} elements, but master has {length}; they must be equal")
