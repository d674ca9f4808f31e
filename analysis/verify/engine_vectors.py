"""What the benches of SORE, WUVE and both in line run; the expected words are the simulator's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ...dataflow.accelerator import AcceleratorSpec
from ...dataflow.pregenerate import COPIES, WeightShape, line_order, tile_plan, walk
from ...dataflow.streams import StreamPlan, pregenerate_streams, sore_streams, wuve_streams
from ...hdl.blocks.payload import places_of
from ...hdl.flow.bench import StreamVectors
from ...hdl.flow.packing import integers, pack
from ...simulator.engines import SoreRun, WuveRun, run_sore, run_wuve
from ...simulator.operand import Half, bits_of, operand_types
from ...simulator.pregenerate import run_pregenerate
from ...simulator.streams import run_streams
from ...simulator.update_settings import Adam, AdamW, Nesterov, Sgd, UpdateSettings
from ...workloads.sparsity import NMPattern
from ...workloads.update_rule import UpdateRule
from .operands import any_bits, normal, ties, zeros

__all__ = ["pregenerate_vectors", "sore_vectors", "wuve_vectors"]

_AFTERWARDS = 4
"""Cycles watched after a run of an engine: nothing may leave any more."""

_OFFERED, _READY = 0.8, 0.6
"""Shares of the cycles in which the next beat is there, and in which one that leaves is taken; assumptions, so that
runs wait for either and last some times as long."""

_WATCHED = 10
"""Cycles for each beat that enters in which anything waits; afterwards nothing does."""

Payloads = Mapping[str, Any]
"""Layouts of the streams of a block, by name."""

_Kind = Literal["normal", "special", "small"]
_KINDS: tuple[_Kind, ...] = ("normal", "special", "small")
"""Values of an update: numbers, any bits, and numbers about the smallest normal one."""

_SETTINGS: dict[str, UpdateSettings] = {
    settings.rule.name: settings
    for settings in (
        Sgd(rate=0.1, momentum=0.9, weight_decay=1e-4, inverse_scale=1 / 1024),
        Nesterov(rate=0.1, momentum=0.9, weight_decay=1e-4, inverse_scale=1 / 1024),
        Adam(rate=1e-3, inverse_scale=1 / 1024, step=3),
        AdamW(rate=1e-3, weight_decay=0.05, inverse_scale=1 / 1024, step=3),
    )
}
"""A usual step of every rule."""

_ZERO = 0.8
"""Share of zeros among the masters of small updates."""


def sore_vectors(spec: AcceleratorSpec, pattern: NMPattern, seed: int, streams: Payloads) -> list[StreamVectors]:
    """Whole and short groups, of numbers, of any bits, and of a few words, many equally large."""
    run = 2 * pattern.group + (pattern.group + 1) // 2
    fixed = {} if spec.pe.operand.gradient is None else {"gradient": 0}
    found = []
    for i, (name, make) in enumerate((("normal", normal), ("special", any_bits), ("ties", ties))):
        values = make(np.random.default_rng([seed, i]), spec, 2 * run, spec.sore.lanes + 1)
        beats, out = _compressed(spec, pattern, values, run)
        plan = sore_streams(spec, pattern)
        found += _vectors(name, streams, plan, fixed, beats, {"out": out}, np.random.default_rng([seed, i, 1]))
    return found


def _compressed(spec: AcceleratorSpec, pattern: NMPattern, values: Half, run: int) -> tuple[_Beats, _Beats]:
    """What enters, and what leaves."""
    ran = run_sore(spec, values, pattern, run)
    groups, serial, lanes = ran.compact.cut, spec.sore.kind == "serial", spec.sore.lanes
    bits, count = bits_of(values), len(groups.start)
    total = count * values.shape[1]
    rounds = -(-total // lanes)
    beats, pairs = _Beats(rounds * (pattern.group if serial else 1)), _Pairs(spec, pattern, rounds)
    for number in range(total):
        column, g = divmod(number, count)
        turn, lane = divmod(number, lanes)
        for j in range(groups.length[g]):
            at, word = (turn * pattern.group + j, 0) if serial else (turn, j)
            beats[f"value__{lane}__{word}"][at] = bits[groups.start[g] + j, column]
            beats[f"valid__{lane}"][at] |= np.uint64(1 << word)
        pairs.add(ran, g, column, lane, turn)
    return beats, pairs.beats


class _Beats(dict[str, npt.NDArray[np.uint64]]):
    """Fields of some number of beats, uint64 [beats], 0 at first; ``meant``, bool [beats], where one means anything
    and another does not."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.meant: dict[str, npt.NDArray[np.bool_]] = {}

    def __missing__(self, name: str) -> npt.NDArray[np.uint64]:
        return self.setdefault(name, np.zeros(self.count, np.uint64))


class _Pairs:
    """What leaves the lanes of a SORE in so many rounds."""

    def __init__(self, spec: AcceleratorSpec, pattern: NMPattern, rounds: int) -> None:
        self._serial, self._keep = spec.sore.kind == "serial", pattern.keep
        self.beats = _Beats(rounds * (pattern.keep if self._serial else 1))
        if self._serial:
            self.beats["leaving"][:: pattern.keep] = 1
        for i in range(spec.sore.lanes):
            for p in range(1 if self._serial else pattern.keep):
                name = f"pair__{i}__{p}__"
                held = self.beats.meant.setdefault(f"{name}value", np.zeros(self.beats.count, np.bool_))
                self.beats.meant[f"{name}index"] = held

    def add(self, ran: SoreRun, g: int, column: int, lane: int, turn: int) -> None:
        """The pairs of group ``g`` of a column leave ``lane`` in a round."""
        first, compact = ran.compact.cut.first_slot[g], ran.compact
        for p in range(compact.cut.kept[g]):
            at, port = (turn * self._keep + p, 0) if self._serial else (turn, p)
            name = f"pair__{lane}__{port}__"
            self.beats[f"{name}value"][at] = bits_of(compact.values)[first + p, column]
            self.beats[f"{name}index"][at] = compact.indices[first + p, column]
            self.beats[f"{name}valid"][at] = 1
            self.beats.meant[f"{name}value"][at] = True
        beats = slice(turn * self._keep, (turn + 1) * self._keep) if self._serial else turn
        self.beats[f"nan__{lane}"][beats] = ran.nan_flags[g, column]


def wuve_vectors(spec: AcceleratorSpec, rule: UpdateRule, seed: int, streams: Payloads) -> list[StreamVectors]:
    """Updates under ``rule``, of numbers, of any bits, and below the normal range."""
    found = []
    for i, kind in enumerate(_KINDS):
        given = _Given.of(spec, rule, 40 * spec.wuve.lanes + 1, kind, np.random.default_rng([seed, i]))
        ran = run_wuve(spec, given.settings, given.master, given.gradient, given.state)
        beat, lane = np.divmod(np.arange(len(given.master)), spec.wuve.lanes)
        beats, out = given.beats(ran, spec.wuve.lanes, beat, lane)
        plan, random = wuve_streams(spec, rule), np.random.default_rng([seed, i, 1])
        found += _vectors(kind, streams, plan, given.constants, beats, {"out": out}, random)
    return found


def pregenerate_vectors(
    spec: AcceleratorSpec, pattern: NMPattern, rule: UpdateRule, seed: int, streams: Payloads
) -> list[StreamVectors]:
    """Weights updated and compressed in both directions, values as in `wuve_vectors`."""
    shape = WeightShape(taps=2, inputs=pattern.group + 1, outputs=2 * pattern.group + (pattern.group + 1) // 2)
    plan = tile_plan(spec, rule, pattern, len(COPIES))
    order = walk(plan, pattern, shape, COPIES)
    there = order.reshape(len(order), -1) >= 0
    tile, within = np.nonzero(there)
    number = order.reshape(len(order), -1)[there]
    beat, lane = np.empty((2, shape.elements), np.int64)
    beat[number], lane[number] = plan.fill * tile + within // spec.wuve.lanes, within % spec.wuve.lanes
    rounds = plan.copies * plan.rounds
    found = []
    for i, kind in enumerate(_KINDS):
        given = _Given.of(spec, rule, shape.elements, kind, np.random.default_rng([seed, i]))
        ran = run_pregenerate(spec, given.settings, pattern, shape, given.master, given.gradient, given.state)
        beats, updated = given.beats(ran.update, spec.wuve.lanes, beat, lane, plan.fill * len(order))
        pairs = _Pairs(spec, pattern, rounds * len(order))
        for place, (copy, line) in enumerate(zip(COPIES, line_order(plan, pattern, shape, order, COPIES), strict=True)):
            for t, turn, of in np.argwhere(line.group >= 0):
                at = rounds * t + place * plan.rounds + turn
                pairs.add(ran.copies[copy], line.group[t, turn, of], line.column[t, turn, of], of, at)
        outs, fixed = {"updated": updated, "pairs": pairs.beats}, given.constants | {"both": 1}
        paced, random = pregenerate_streams(spec, pattern, plan), np.random.default_rng([seed, i, 1])
        found += _vectors(kind, streams, paced, fixed, beats, outs, random)
    return found


def _vectors(
    name: str,
    layouts: Payloads,
    plan: StreamPlan,
    fixed: Mapping[str, int],
    beats: _Beats,
    outs: Mapping[str, _Beats],
    random: np.random.Generator,
) -> list[StreamVectors]:
    """The beats at once, and with gaps between them and receivers that are not always ready."""
    found = []
    for waits in (False, True):
        watched = 0 if not waits else _WATCHED * beats.count
        offered = random.random(watched) < _OFFERED
        ready = random.random((watched, len(outs))) < _READY
        run = run_streams(plan, beats.count, offered, ready)
        cycles = run.cycles + _AFTERWARDS
        clock = np.arange(cycles)
        valid = np.append(offered, np.ones(cycles, np.bool_))[:cycles] & (clock <= run.entered[-1])
        # what is not offered must not be looked at
        nothing = {field: np.uint64(2**32 - 1) for field in places_of(layouts["into"])}
        following = np.searchsorted(run.entered, clock)
        fed = {
            field: np.where(valid, np.append(beats[field], np.uint64(0))[following], ones)
            for field, ones in nothing.items()
        }
        takes = np.append(np.isin(clock[: run.cycles], run.open), np.ones(_AFTERWARDS, np.bool_))
        inputs: dict[str, npt.NDArray[Any]] = {port: np.full(cycles, word, np.uint64) for port, word in fixed.items()}
        inputs |= {"into__valid": valid, "into__payload": _integers(layouts["into"], fed, cycles)}
        outputs: dict[str, npt.NDArray[Any]] = {"into__ready": takes}
        meant: dict[str, npt.NDArray[Any]] = {}
        for i, (out, made) in enumerate(outs.items()):
            inputs[f"{out}__ready"] = np.append(ready[:, i], np.ones(cycles, np.bool_))[:cycles]
            at, always = np.searchsorted(run.taken[i], clock), np.ones(made.count, np.bool_)
            there = clock >= np.append(run.shown[i], cycles)[at]
            outputs[f"{out}__valid"] = there
            shown = {field: np.append(words, np.uint64(0))[at] for field, words in made.items()}
            whole = {
                field: np.where(there & np.append(made.meant.get(field, always), False)[at], 2**32 - 1, 0)
                for field in places_of(layouts[out])
            }
            outputs[f"{out}__payload"] = _integers(layouts[out], shown, cycles)
            meant[f"{out}__payload"] = _integers(layouts[out], whole, cycles)
        meant |= {port: np.ones(cycles, np.bool_) for port in outputs.keys() - meant.keys()}
        found.append(
            StreamVectors(name=f"{name}_waiting" if waits else name, inputs=inputs, outputs=outputs, meant=meant)
        )
    return found


def _integers(layout: Any, fields: Mapping[str, npt.NDArray[Any]], cycles: int) -> npt.NDArray[Any]:
    return np.array(integers(pack(layout, fields, cycles)), object)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Given:
    """What an update starts from."""

    settings: UpdateSettings
    master: npt.NDArray[np.float32]
    gradient: Half
    state: tuple[npt.NDArray[np.float32], ...]

    @classmethod
    def of(
        cls, spec: AcceleratorSpec, rule: UpdateRule, count: int, kind: _Kind, random: np.random.Generator
    ) -> _Given:
        gradient = {"normal": normal, "special": any_bits, "small": zeros}[kind](random, spec, 1, count)[0]
        # of FP8 the same words mean gradients
        gradient = gradient.view(operand_types(spec.pe.format)[-1])
        master, *state = (_singles(random, count, kind) for _ in rule.held)
        if kind == "small":
            # what an update adds to them is seen to the last bit
            master[random.random(count) < _ZERO] *= 0
        if rule.divides and kind != "special":
            # what the root is taken of; that of a small number would make any step a large one
            state[1] = np.abs(random.standard_normal(count, np.float32))
        return cls(settings=_SETTINGS[rule.name], master=master, gradient=gradient, state=tuple(state))

    @property
    def constants(self) -> dict[str, int]:
        """Bits of those of the step, by name."""
        words = np.array(self.settings.constants, np.float32).view(np.uint32)
        return dict(zip(self.settings.rule.constants, words.tolist(), strict=True))

    def beats(
        self,
        ran: WuveRun,
        lanes: int,
        beat: npt.NDArray[np.int64],
        lane: npt.NDArray[np.int64],
        count: int | None = None,
    ) -> tuple[_Beats, _Beats]:
        """What enters and what leaves: each parameter in a ``lane`` of a ``beat`` of ``count``."""
        rule, count = self.settings.rule, int(beat.max()) + 1 if count is None else count
        into, out = _Beats(count), _Beats(count)
        fed = {"gradient16": bits_of(self.gradient)} | _bits(rule.held, (self.master, *self.state))
        read = {"weight16": bits_of(ran.weights16)}
        read |= {f"next_{name}": bits for name, bits in _bits(rule.held, (ran.master, *ran.state)).items()}
        for i in range(lanes):
            mine = lane == i
            into[f"valid__{i}"][beat[mine]] = out[f"leaving__{i}"][beat[mine]] = 1
            for name, bits in fed.items():
                into[f"{name}__{i}"][beat[mine]] = bits[mine]
            for name, bits in read.items():
                out[f"{name}__{i}"][beat[mine]] = bits[mine]
                out.meant[f"{name}__{i}"] = out[f"leaving__{i}"] == 1
        return into, out


def _bits(names: tuple[str, ...], arrays: tuple[npt.NDArray[np.float32], ...]) -> dict[str, npt.NDArray[np.uint32]]:
    return {name: array.view(np.uint32) for name, array in zip(names, arrays, strict=True)}


def _singles(random: np.random.Generator, count: int, kind: _Kind) -> npt.NDArray[np.float32]:
    if kind == "normal":
        return random.standard_normal(count, np.float32)
    words = random.integers(0, 1 << 32, count, np.uint32)
    if kind == "small":
        words &= np.uint32(0x87FFFFFF)  # exponent fields 0 to 15: times a rate below the normal range
    return words.view(np.float32)
