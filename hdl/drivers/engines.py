"""What drives SORE, WUVE and both in line: operands dealt to the lanes, a run in co-simulation, what left in place.

Who takes what leaves, and when, is ``ready``, bool [cycles, outputs]; whether the next beat is offered is ``offered``,
bool [cycles]; by default always. Cycles are those in which something is taken.
"""

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
from ..blocks.streams import SoreStream, WuveStream
from ..blocks.update import Wuve
from ..flow.cosim import Cosim
from .streams import Ran, Streams

__all__ = ["PregenerateDriver", "RtlPregenerate", "RtlSore", "RtlWuve", "SoreDriver", "WuveDriver"]

Array = npt.NDArray[Any]
Bools = npt.NDArray[np.bool_]
Index = npt.NDArray[np.int64]
_BUBBLE = 255


@dataclass(frozen=True, slots=True, eq=False)
class RtlSore:
    """Bits of ``values``, uint16, ``indices``, uint8, and their cycles ``left``, int64, all [slots, n]; ``nan_flags``,
    bool [groups, n]; the run by beats, and its length."""

    values: npt.NDArray[np.uint16]
    indices: npt.NDArray[np.uint8]
    nan_flags: npt.NDArray[np.bool_]
    left: Index
    ran: Ran
    cycles: int


@dataclass(frozen=True, slots=True, eq=False)
class RtlWuve:
    """Bits of what left, uint32 [n], 16-bit weights uint16 [n]; ``left`` their cycles, int64 [n]; when beats
    ``entered``, int64; the run length."""

    master: npt.NDArray[np.uint32]
    state: tuple[npt.NDArray[np.uint32], ...]
    weights16: npt.NDArray[np.uint16]
    left: Index
    ran: Ran
    cycles: int


@dataclass(frozen=True, slots=True, eq=False)
class RtlPregenerate:
    """Both engines of a run in line, whose cycles count from its start; the run by beats, and its length."""

    update: RtlWuve
    copies: dict[Copy, RtlSore]
    ran: Ran
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
    """Compresses operands in ``machine``, by default a co-simulation of `SoreStream`, built once for all of them."""

    def __init__(self, spec: AcceleratorSpec, pattern: NMPattern, machine: Cosim | None = None) -> None:
        self.spec, self.pattern = spec, pattern
        self.engine = SoreStream(spec, pattern, blackbox=True)
        if machine is None:
            machine = Cosim(self.engine, parts=self.engine.parts)
        self._stream = Streams(machine, self.engine)

    def run(
        self,
        values: npt.NDArray[np.uint16],
        run: int = 0,
        *,
        cycles: int,
        gradient: bool = False,
        offered: Bools | None = None,
        ready: Bools | None = None,
    ) -> RtlSore:
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
        fixed: dict[str, Any] = {}
        if self.spec.pe.operand.gradient is not None:
            fixed["gradient"] = np.uint32(gradient)
        beats = self._beats(values, groups, group, column)
        ran = self._stream.run(beats, fixed, cycles, offered, ready)
        return _collect(self.spec, self.pattern, ran, "out", [groups], np.zeros(len(group), int), group, column)[0]

    def _beats(self, values: Array, groups: _Groups, group: Index, column: Index) -> dict[str, Array]:
        """Fields of every beat from what each lane takes in in each round."""
        start, length, _ = groups.cut
        place = np.arange(self.pattern.group)
        there = (group[..., None] >= 0) & (place < length[group][..., None])
        words = np.where(there, values[np.where(there, start[group][..., None] + place, 0), column[..., None]], 0)
        serial = self.spec.sore.kind == "serial"
        fed: dict[str, Array] = {}
        for i in range(self.spec.sore.lanes):
            if serial:
                fed[f"value__{i}__0"] = words[:, i].ravel()
                fed[f"valid__{i}"] = there[:, i].ravel()
            else:
                fed |= {f"value__{i}__{j}": words[:, i, j] for j in place}
                fed[f"valid__{i}"] = (there[:, i].astype(np.uint32) << place.astype(np.uint32)).sum(axis=1)
        return fed


class WuveDriver:
    """Updates parameters by ``rule`` in ``machine``, by default a co-simulation of `WuveStream`."""

    def __init__(self, spec: AcceleratorSpec, rule: UpdateRule, machine: Cosim | None = None) -> None:
        self.spec = spec
        stream = WuveStream(spec, rule, blackbox=True)
        self.engine = stream.engine
        self._stream = Streams(machine or Cosim(stream, parts=stream.parts), stream)

    def run(
        self,
        constants: Sequence[float],
        master: npt.NDArray[np.uint32],
        gradient16: npt.NDArray[np.uint16],
        state: Sequence[npt.NDArray[np.uint32]],
        *,
        cycles: int,
        offered: Bools | None = None,
        ready: Bools | None = None,
    ) -> RtlWuve:
        """Bits of vectors [n], uint32 of FP32 and uint16 of the gradient, a parameter in every lane a cycle;
        ``constants`` as the lanes name them."""
        lanes, n = self.spec.wuve.lanes, len(master)
        beats = np.full((-(-n // lanes), lanes), -1)
        beats.ravel()[:n] = np.arange(n)
        dealt = _deal(_parameters(self.engine, master, gradient16, state), beats)
        ran = self._stream.run(dealt, _constants(self.engine, constants), cycles, offered, ready)
        return _collect_update(self.engine, ran, "out", beats, n)


class PregenerateDriver:
    """Updates and compresses weights in ``machine``, by default a co-simulation of `Pregenerate`."""

    def __init__(
        self, spec: AcceleratorSpec, pattern: NMPattern, rule: UpdateRule, machine: Cosim | None = None
    ) -> None:
        self.spec, self.pattern = spec, pattern
        self.engine = Pregenerate(spec, pattern, rule, blackbox=True)
        self._stream = Streams(machine or Cosim(self.engine, parts=self.engine.parts), self.engine)

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
        offered: Bools | None = None,
        ready: Bools | None = None,
    ) -> RtlPregenerate:
        """One weight, its vectors in bits as [taps, inputs, outputs], uint32 of FP32 and uint16 of the gradient."""
        plan, wuve = self.engine.plans[len(copies) - 1], self.engine.wuve
        order = walk(plan, self.pattern, shape, copies)
        tiles = np.full((len(order), plan.fill * wuve.lanes), -1)
        tiles[:, : order[0].size] = order.reshape(len(order), -1)
        beats = tiles.reshape(-1, wuve.lanes)
        fixed = _constants(wuve, constants) | {"both": np.uint8(len(copies) == 2)}
        dealt = _deal(_parameters(wuve, master, gradient16, state), beats)
        ran = self._stream.run(dealt, fixed, cycles, offered, ready)
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
        made = _collect(self.spec, self.pattern, ran, "pairs", operands, which, group, column)
        return RtlPregenerate(
            update=_collect_update(wuve, ran, "updated", beats, shape.elements),
            copies=dict(zip(copies, made, strict=True)),
            ran=ran,
            cycles=ran.cycles,
        )


def _constants(engine: Wuve, values: Sequence[float]) -> dict[str, Any]:
    return {name: np.float32(value).view(np.uint32) for name, value in zip(engine.rule.constants, values, strict=True)}


def _parameters(engine: Wuve, master: Array, gradient16: Array, state: Sequence[Array]) -> dict[str, Array]:
    held = dict(zip(engine.rule.enters, (gradient16, master, *state), strict=True))
    return {**held, "valid": np.ones(len(master), np.uint8)}


def _deal(parameters: dict[str, Array], beats: Index) -> dict[str, Array]:
    """Fields of every beat [lanes] of ``beats``, -1 for no parameter."""
    fed: dict[str, Array] = {}
    for name, array in parameters.items():
        dealt = np.where(beats < 0, 0, array[beats])
        fed |= {f"{name}__{i}": dealt[:, i] for i in range(beats.shape[1])}
    return fed


def _collect_update(engine: Wuve, ran: Ran, output: str, beats: Index, n: int) -> RtlWuve:
    """Put what left each lane in order where it belongs; a beat leaves as one."""
    seen, times = ran.fields[output], ran.taken[output]
    names = (*(f"next_{name}" for name in engine.rule.held), "weight16")
    found = {name: np.zeros(n, np.uint32) for name in names}
    left = np.zeros(n, np.int64)
    if len(times) != len(beats):
        raise RuntimeError(f"{len(times)} beats left WUVE instead of {len(beats)}")
    for i in range(engine.lanes):
        there = beats[:, i] >= 0
        wrong = np.flatnonzero(seen[f"leaving__{i}"] != there)
        if len(wrong):
            raise RuntimeError(f"lane {i} of WUVE tells of no parameter as one, or the other way, in beat {wrong[0]}")
        left[beats[there, i]] = times[there]
        for name in names:
            found[name][beats[there, i]] = seen[f"{name}__{i}"][there]
    master, *state = (found[name] for name in names[:-1])
    return RtlWuve(master, tuple(state), found["weight16"].astype(np.uint16), left, ran, int(left.max()) + 1)


def _collect(
    spec: AcceleratorSpec,
    pattern: NMPattern,
    ran: Ran,
    output: str,
    operands: Sequence[_Groups],
    which: Index,
    group: Index,
    column: Index,
) -> list[RtlSore]:
    """Put what left each lane in order where it belongs.

    Round ``q`` takes group ``group[q, lane]`` of ``column[q, lane]`` of the operand ``which[q]``, -1 for none.
    """
    serial = spec.sore.kind == "serial"
    seen, times, a_round = _rounds(ran, output, pattern.keep if serial else 1, len(group))
    cuts = [operand.cut for operand in operands]
    made = [
        RtlSore(
            np.zeros((int(kept.sum()), operand.n), np.uint16),
            np.full((int(kept.sum()), operand.n), _BUBBLE, np.uint8),
            np.zeros((len(kept), operand.n), np.bool_),
            np.zeros((int(kept.sum()), operand.n), np.int64),
            ran,
            int(times[-1]) + 1,
        )
        for operand, (_, _, kept) in zip(operands, cuts, strict=True)
    ]
    pairs = 1 if serial else pattern.keep
    for i in range(spec.sore.lanes):
        port = {
            f: np.stack([seen[f"pair__{i}__{p}__{f}"] for p in range(pairs)], 1).reshape(len(group), -1)
            for f in ("valid", "value", "index")
        }
        nan = seen[f"nan__{i}"].reshape(len(group), -1)
        there = group[:, i] >= 0
        counts = np.where(there, _per_round([kept for _, _, kept in cuts], which, group[:, i]), 0)
        wrong = np.flatnonzero((port["valid"] != (np.arange(pattern.keep) < counts[:, None])).any(axis=1))
        if len(wrong):
            raise RuntimeError(
                f"lane {i} of SORE lets {port['valid'][wrong[0]].sum()} pairs of round {wrong[0]} go instead of "
                f"{counts[wrong[0]]}, or not the first"
            )
        if (nan != nan[:, :1])[there].any():
            raise RuntimeError(f"lane {i} of SORE tells of a group both that it holds a NaN and that it does not")
        of_pair = np.repeat(np.arange(len(group)), counts)
        within = np.arange(len(of_pair)) - np.repeat(np.cumsum(counts) - counts, counts)
        first = _per_round([np.cumsum(kept) - kept for _, _, kept in cuts], which, group[:, i])
        for number, run in enumerate(made):
            mine = which[of_pair] == number
            slot = (first[of_pair] + within)[mine], column[of_pair, i][mine]
            at = of_pair[mine], within[mine]
            run.values[slot] = port["value"][at]
            run.indices[slot] = port["index"][at]
            run.left[slot] = times[at[0] * a_round + (at[1] if serial else 0)]
            rounds = there & (which == number)
            run.nan_flags[group[rounds, i], column[rounds, i]] = nan[rounds, 0]
    return made


def _rounds(ran: Ran, output: str, beats: int, rounds: int) -> tuple[dict[str, Array], Index, int]:
    """Fields and cycles of the ``beats`` of each of the ``rounds``, and their number."""
    seen, times = ran.fields[output], ran.taken[output]
    if len(times) != beats * rounds:
        raise RuntimeError(f"{len(times)} beats left SORE in the given cycles instead of {beats * rounds}")
    if "leaving" in seen and not np.array_equal(np.flatnonzero(seen["leaving"]), np.arange(rounds) * beats):
        raise RuntimeError("SORE calls beats the first of a round that are not")
    return seen, times, beats


def _per_round(tables: list[Index], which: Index, group: Index) -> Index:
    """What the table of its operand says about the group of each round."""
    result = np.zeros(len(group), np.int64)
    for number, table in enumerate(tables):
        mine = (which == number) & (group >= 0)
        result[mine] = table[group[mine]]
    return result
