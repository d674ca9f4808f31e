"""What drives SORE, WUVE and both in line: operands dealt to the lanes, a run in co-simulation, what left in place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ...dataflow.accelerator import AcceleratorSpec
from ...dataflow.pregenerate import COPIES, Copy, WeightShape, line_order, walk
from ...workloads.sparsity import NMPattern
from ...workloads.update_rule import UpdateRule
from ..blocks.banks import cut_groups
from ..blocks.pregenerate import Pregenerate
from ..blocks.sorter import Sore
from ..blocks.update import Wuve
from ..flow.cosim import Cosim

__all__ = ["PregenerateDriver", "RtlPregenerate", "RtlSore", "RtlWuve", "SoreDriver", "WuveDriver"]

Array = npt.NDArray[Any]
Index = npt.NDArray[np.int64]
_BUBBLE = 255


@dataclass(frozen=True, slots=True, eq=False)
class RtlSore:
    """Bits of ``values``, uint16, ``indices``, uint8, and their cycles ``left``, int64, all [slots, n]; ``nan_flags``,
    bool [groups, n]; the run length."""

    values: npt.NDArray[np.uint16]
    indices: npt.NDArray[np.uint8]
    nan_flags: npt.NDArray[np.bool_]
    left: Index
    cycles: int


@dataclass(frozen=True, slots=True, eq=False)
class RtlWuve:
    """Bits of what left, uint32 [n], 16-bit weights uint16 [n]; ``left`` their cycles, int64 [n]; the run length."""

    master: npt.NDArray[np.uint32]
    state: tuple[npt.NDArray[np.uint32], ...]
    weights16: npt.NDArray[np.uint16]
    left: Index
    cycles: int


@dataclass(frozen=True, slots=True, eq=False)
class RtlPregenerate:
    """Both engines of a run in line; their cycles count from its start."""

    update: RtlWuve
    copies: dict[Copy, RtlSore]
    cycles: int


@dataclass(frozen=True, slots=True, eq=False)
class _Groups:
    """The groups of one operand [k, n]: where they start, their lengths and pairs."""

    pattern: NMPattern
    k: int
    n: int
    run: int

    @property
    def cut(self) -> tuple[Index, Index, Index]:
        return cut_groups(self.pattern, self.k, self.run)

    @property
    def count(self) -> int:
        return self.k // self.run * -(-self.run // self.pattern.group)


class SoreDriver:
    """Compresses operands in ``machine``, by default a co-simulation of `Sore`, built once for all of them."""

    def __init__(self, spec: AcceleratorSpec, pattern: NMPattern, machine: Cosim | None = None) -> None:
        self.spec, self.pattern = spec, pattern
        if machine is None:
            engine = Sore(spec, pattern, blackbox=True)
            machine = Cosim(engine, parts=engine.parts)
        self._machine = machine

    def run(self, values: npt.NDArray[np.uint16], run: int = 0, *, cycles: int, gradient: bool = False) -> RtlSore:
        """Bits of an operand, uint16 [k, n], in runs of ``run``; ``cycles`` bounds the length of the run. ``gradient``:
        they are encoded as gradients, where the format encodes these otherwise."""
        k, n = values.shape
        groups = _Groups(self.pattern, k, n, run or k)
        lanes, total = self.spec.sore.lanes, groups.count * n
        number = np.full(-(-total // lanes) * lanes, -1)
        number[:total] = np.arange(total)
        number = number.reshape(-1, lanes)
        column, group = (
            np.where(number < 0, -1, number // groups.count),
            np.where(number < 0, -1, number % groups.count),
        )
        self._machine.reset()
        fed = self._feed(values, groups, group, column, cycles)
        if self.spec.pe.operand.gradient is not None:
            fed["gradient"] = np.full(len(fed["step"]), gradient, np.uint32)
        seen = self._machine.run(fed)
        return _collect(self.spec, self.pattern, seen, "leaving", [groups], np.zeros(len(group), int), group, column)[0]

    def _feed(self, values: Array, groups: _Groups, group: Index, column: Index, cycles: int) -> dict[str, Array]:
        """Ports of every cycle from what each lane takes in in each round."""
        start, length, _ = groups.cut
        place = np.arange(self.pattern.group)
        there = (group[..., None] >= 0) & (place < length[group][..., None])
        words = np.where(there, values[np.where(there, start[group][..., None] + place, 0), column[..., None]], 0)
        serial = self.spec.sore.kind == "serial"
        fed: dict[str, Array] = {
            "step": _over(np.ones(group.size and len(group) * (len(place) if serial else 1)), cycles)
        }
        for i in range(self.spec.sore.lanes):
            if serial:
                fed[f"value__{i}__0"] = _over(words[:, i].ravel(), cycles)
                fed[f"valid__{i}"] = _over(there[:, i].ravel(), cycles)
            else:
                fed |= {f"value__{i}__{j}": _over(words[:, i, j], cycles) for j in place}
                fed[f"valid__{i}"] = _over(
                    (there[:, i].astype(np.uint32) << place.astype(np.uint32)).sum(axis=1), cycles
                )
        return fed


class WuveDriver:
    """Updates parameters by ``rule`` in ``machine``, by default a co-simulation of `Wuve`."""

    def __init__(self, spec: AcceleratorSpec, rule: UpdateRule, machine: Cosim | None = None) -> None:
        self.spec = spec
        self.engine = Wuve(spec, rule, blackbox=True)
        self._machine = machine or Cosim(self.engine, parts=self.engine.parts)

    def run(
        self,
        constants: Sequence[float],
        master: npt.NDArray[np.uint32],
        gradient16: npt.NDArray[np.uint16],
        state: Sequence[npt.NDArray[np.uint32]],
        *,
        cycles: int,
    ) -> RtlWuve:
        """Bits of vectors [n], uint32 of FP32 and uint16 of the gradient, a parameter in every lane a cycle;
        ``constants`` as the lanes name them."""
        lanes, n = self.spec.wuve.lanes, len(master)
        beats = np.full((-(-n // lanes), lanes), -1)
        beats.ravel()[:n] = np.arange(n)
        parameters = _parameters(self.engine, master, gradient16, state)
        self._machine.reset()
        fed = _constants(self.engine, constants) | _deal(parameters, beats, np.arange(len(beats)), cycles)
        return _collect_update(self.engine, self._machine.run(fed), beats, n)


class PregenerateDriver:
    """Updates and compresses weights in ``machine``, by default a co-simulation of `Pregenerate`."""

    def __init__(
        self, spec: AcceleratorSpec, pattern: NMPattern, rule: UpdateRule, machine: Cosim | None = None
    ) -> None:
        self.spec, self.pattern = spec, pattern
        self.engine = Pregenerate(spec, pattern, rule, blackbox=True)
        self._machine = machine or Cosim(self.engine, parts=self.engine.parts)

    def run(
        self,
        shape: WeightShape,
        constants: Sequence[float],
        master: npt.NDArray[np.uint32],
        gradient16: npt.NDArray[np.uint16],
        state: Sequence[npt.NDArray[np.uint32]],
        copies: Sequence[Copy] = COPIES,
        *,
        cycles: int,
        offered: npt.NDArray[np.bool_] | None = None,
    ) -> RtlPregenerate:
        """One weight, its vectors in bits as [taps, inputs, outputs], uint32 of FP32 and uint16 of the gradient.

        ``offered``, bool [cycles], says when memory has the next beat, by default always. When beats may enter does not
        depend on data, so a first run finds it and a second one is given the beats.
        """
        plan, wuve = self.engine.plans[len(copies) - 1], self.engine.wuve
        order = walk(plan, self.pattern, shape, copies)
        tiles = np.full((len(order), plan.fill * wuve.lanes), -1)
        tiles[:, : order[0].size] = order.reshape(len(order), -1)
        beats = tiles.reshape(-1, wuve.lanes)
        fixed = _constants(wuve, constants) | {"both": np.uint8(len(copies) == 2)}
        entering = np.ones(cycles, np.bool_) if offered is None else offered.copy()
        self._machine.reset()
        seen = self._machine.run({"enter": entering, "both": fixed["both"]}, cycles)
        asked = np.flatnonzero(seen["ready"] & entering)[: len(beats)]
        if len(asked) < len(beats):
            raise RuntimeError(f"{len(asked)} beats may enter in the given cycles instead of {len(beats)}")
        entering[asked[-1] + 1 :] = False
        parameters = _parameters(wuve, master, gradient16, state)
        self._machine.reset()
        seen = self._machine.run(fixed | {"enter": entering} | _deal(parameters, beats, asked, cycles))
        if not np.array_equal(np.flatnonzero(seen["ready"] & entering), asked):
            raise RuntimeError("beats may enter in other cycles when they hold parameters")
        lines = line_order(plan, self.pattern, shape, order, copies)
        group, column = (
            np.stack([getattr(line, name) for line in lines], axis=1).reshape(-1, self.spec.sore.lanes)
            for name in ("group", "column")
        )
        which = np.broadcast_to(np.arange(len(lines))[:, None], (len(order), len(lines), plan.rounds)).ravel()
        operands = []
        for copy in copies:
            run, columns = shape.contraction(copy)
            operands.append(_Groups(self.pattern, shape.taps * run, columns, run))
        made = _collect(self.spec, self.pattern, seen, "pairs_leaving", operands, which, group, column)
        return RtlPregenerate(
            update=_collect_update(wuve, seen, beats, shape.elements),
            copies=dict(zip(copies, made, strict=True)),
            cycles=_run_length(self.spec, self.pattern, seen["pairs_leaving"]),
        )


def _over(array: Array, cycles: int) -> Array:
    """``array`` as unsigned, and then zeros."""
    result = np.zeros(cycles, np.uint32)
    result[: len(array)] = array
    return result


def _constants(engine: Wuve, values: Sequence[float]) -> dict[str, Any]:
    return {name: np.float32(value).view(np.uint32) for name, value in zip(engine.rule.constants, values, strict=True)}


def _parameters(engine: Wuve, master: Array, gradient16: Array, state: Sequence[Array]) -> dict[str, Array]:
    held = dict(zip(engine.rule.enters, (gradient16, master, *state), strict=True))
    return {**held, "valid": np.ones(len(master), np.uint8)}


def _deal(parameters: dict[str, Array], beats: Index, at: Index, cycles: int) -> dict[str, Array]:
    """Ports of every cycle: beat ``b`` [lanes], -1 for no parameter, in cycle ``at[b]``."""
    fed: dict[str, Array] = {}
    for name, array in parameters.items():
        dealt = np.zeros((cycles, beats.shape[1]), array.dtype)
        dealt[at] = np.where(beats < 0, 0, array[beats])
        fed |= {f"{name}__{i}": dealt[:, i] for i in range(beats.shape[1])}
    return fed


def _collect_update(engine: Wuve, seen: dict[str, Array], beats: Index, n: int) -> RtlWuve:
    """Put what left each lane in order where it belongs."""
    names = (*(f"next_{name}" for name in engine.rule.held), "weight16")
    found = {name: np.zeros(n, np.uint32) for name in names}
    left = np.zeros(n, np.int64)
    for i in range(engine.lanes):
        order = beats[beats[:, i] >= 0, i]
        times = np.flatnonzero(seen[f"leaving__{i}"])
        if len(times) != len(order):
            raise RuntimeError(f"{len(times)} parameters left lane {i} of WUVE instead of {len(order)}")
        left[order] = times
        for name in names:
            found[name][order] = seen[f"{name}__{i}"][times]
    master, *state = (found[name] for name in names[:-1])
    return RtlWuve(master, tuple(state), found["weight16"].astype(np.uint16), left, int(left.max()) + 1)


def _run_length(spec: AcceleratorSpec, pattern: NMPattern, leaving: Array) -> int:
    """Rounds of a serial engine leave one pair a cycle, whether or not there is one."""
    return int(np.flatnonzero(leaving)[-1]) + (pattern.keep if spec.sore.kind == "serial" else 1)


def _collect(
    spec: AcceleratorSpec,
    pattern: NMPattern,
    seen: dict[str, Array],
    leaving: str,
    operands: Sequence[_Groups],
    which: Index,
    group: Index,
    column: Index,
) -> list[RtlSore]:
    """Put what left each lane in order where it belongs.

    Round ``q`` takes group ``group[q, lane]`` of ``column[q, lane]`` of the operand ``which[q]``, -1 for none.
    """
    times = np.flatnonzero(seen[leaving])
    if len(times) != len(group):
        raise RuntimeError(f"{len(times)} rounds left SORE in the given cycles instead of {len(group)}")
    cuts = [operand.cut for operand in operands]
    made = [
        RtlSore(
            np.zeros((int(kept.sum()), operand.n), np.uint16),
            np.full((int(kept.sum()), operand.n), _BUBBLE, np.uint8),
            np.zeros((len(kept), operand.n), np.bool_),
            np.zeros((int(kept.sum()), operand.n), np.int64),
            _run_length(spec, pattern, seen[leaving]),
        )
        for operand, (_, _, kept) in zip(operands, cuts, strict=True)
    ]
    pairs = 1 if spec.sore.kind == "serial" else pattern.keep
    for i in range(spec.sore.lanes):
        port = {
            f: np.stack([seen[f"pair__{i}__{p}__{f}"] for p in range(pairs)], 1) for f in ("valid", "value", "index")
        }
        cycle, place = np.nonzero(port["valid"])
        there = group[:, i] >= 0
        counts = np.where(there, _per_round([kept for _, _, kept in cuts], which, group[:, i]), 0)
        if len(cycle) != counts.sum():
            raise RuntimeError(f"{len(cycle)} pairs left lane {i} of SORE instead of {counts.sum()}")
        of_pair = np.repeat(np.arange(len(group)), counts)
        within = np.arange(len(of_pair)) - np.repeat(np.cumsum(counts) - counts, counts)
        stray = np.flatnonzero((within == 0) & (cycle != times[of_pair]))
        if len(stray):
            raise RuntimeError(
                f"lane {i} of SORE lets a group go in cycle {cycle[stray[0]]}, but `leaving` is not then"
            )
        first = _per_round([np.cumsum(kept) - kept for _, _, kept in cuts], which, group[:, i])
        for number, run in enumerate(made):
            mine = which[of_pair] == number
            slot = (first[of_pair] + within)[mine], column[of_pair, i][mine]
            run.values[slot] = port["value"][cycle, place][mine]
            run.indices[slot] = port["index"][cycle, place][mine]
            run.left[slot] = cycle[mine]
            rounds = there & (which == number)
            run.nan_flags[group[rounds, i], column[rounds, i]] = seen[f"nan__{i}"][times[rounds]]
    return made


def _per_round(tables: list[Index], which: Index, group: Index) -> Index:
    """What the table of its operand says about the group of each round."""
    result = np.zeros(len(group), np.int64)
    for number, table in enumerate(tables):
        mine = (which == number) & (group >= 0)
        result[mine] = table[group[mine]]
    return result
