"""What the benches of SORE, WUVE and both in line run; the expected words are the simulator's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ...dataflow.accelerator import AcceleratorSpec
from ...dataflow.pregenerate import COPIES, TilePlan, WeightShape, line_order, tile_plan, walk
from ...hdl.flow.bench import StreamVectors
from ...simulator.engines import SoreRun, WuveRun, run_sore, run_wuve
from ...simulator.operand import Half, bits_of, operand_types
from ...simulator.pregenerate import run_pregenerate
from ...simulator.update_settings import Adam, AdamW, Nesterov, Sgd, UpdateSettings
from ...workloads.sparsity import NMPattern
from ...workloads.update_rule import UpdateRule
from .operands import any_bits, normal, ties, zeros

__all__ = ["pregenerate_vectors", "sore_vectors", "wuve_vectors"]

_AFTERWARDS = 4
"""Cycles watched after a run of an engine: nothing may leave any more."""

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


def sore_vectors(spec: AcceleratorSpec, pattern: NMPattern, seed: int) -> list[StreamVectors]:
    """Whole and short groups, of numbers, of any bits, and of a few words, many equally large."""
    run = 2 * pattern.group + (pattern.group + 1) // 2
    return [
        _sore(spec, pattern, make(np.random.default_rng([seed, i]), spec, 2 * run, spec.sore.lanes + 1), run, name)
        for i, (name, make) in enumerate((("normal", normal), ("special", any_bits), ("ties", ties)))
    ]


def _sore(spec: AcceleratorSpec, pattern: NMPattern, values: Half, run: int, name: str) -> StreamVectors:
    ran = run_sore(spec, values, pattern, run)
    groups, serial, lanes = ran.compact.cut, spec.sore.kind == "serial", spec.sore.lanes
    cycles, count = ran.cycles + _AFTERWARDS, len(groups.start)
    bits = bits_of(values)

    step = np.zeros(cycles, np.uint64)
    value, valid = _Ports(cycles), _Ports(cycles)
    pairs = _Pairs(spec, pattern, cycles, "leaving")
    rounds = -(-count * values.shape[1] // lanes)
    step[: rounds * (pattern.group if serial else 1)] = 1
    for number in range(count * values.shape[1]):
        column, g = divmod(number, count)
        turn, lane = divmod(number, lanes)
        for j in range(groups.length[g]):
            t, word = (turn * pattern.group + j, 0) if serial else (turn, j)
            value(lane, word)[t] = bits[groups.start[g] + j, column]
            valid(lane)[t] |= np.uint64(1 << word)
        pairs.add(ran, g, column, lane)

    inputs: dict[str, npt.NDArray[Any]] = {"step": step}
    if spec.pe.operand.gradient is not None:
        inputs["gradient"] = np.zeros(cycles, np.uint64)
    for i in range(lanes):
        inputs |= {f"value__{i}__{j}": value(i, j) for j in range(1 if serial else pattern.group)}
        inputs[f"valid__{i}"] = valid(i)
    outputs, meant = pairs.ports()
    return StreamVectors(name=name, inputs=inputs, outputs=outputs, meant=meant)


class _Ports(dict[tuple[int, ...], npt.NDArray[np.uint64]]):
    """What ports of several indices carry in every cycle, 0 at first."""

    def __init__(self, cycles: int) -> None:
        self._cycles = cycles

    def __missing__(self, at: tuple[int, ...]) -> npt.NDArray[np.uint64]:
        return self.setdefault(at, np.zeros(self._cycles, np.uint64))

    def __call__(self, *at: int) -> npt.NDArray[np.uint64]:
        return self[at]


class _Pairs:
    """What leaves the lanes of a SORE; ``leaving`` is the name of the port that says when a group begins to."""

    def __init__(self, spec: AcceleratorSpec, pattern: NMPattern, cycles: int, leaving: str) -> None:
        self._lanes, self._serial = spec.sore.lanes, spec.sore.kind == "serial"
        self._ways = 1 if self._serial else pattern.keep
        self._leaving, self.leaving = leaving, np.zeros(cycles, np.uint64)
        self._values, self._places, self._held, self._nan = (_Ports(cycles) for _ in range(4))

    def add(self, ran: SoreRun, g: int, column: int, lane: int) -> None:
        """The pairs of group ``g`` of a column leave ``lane`` in the cycles of ``ran``."""
        first = ran.compact.cut.first_slot[g]
        for p in range(ran.compact.cut.kept[g]):
            t, port = ran.left[first + p, column], 0 if self._serial else p
            self._values(lane, port)[t] = bits_of(ran.compact.values)[first + p, column]
            self._places(lane, port)[t] = ran.compact.indices[first + p, column]
            self._held(lane, port)[t] = 1
        self.leaving[ran.left[first, column]] = 1
        self._nan(lane)[ran.left[first, column]] = ran.nan_flags[g, column]

    def ports(self) -> tuple[dict[str, npt.NDArray[Any]], dict[str, npt.NDArray[np.bool_]]]:
        """Every output, and where it means anything."""
        always, closing = np.ones(len(self.leaving), np.bool_), self.leaving == 1
        outputs: dict[str, npt.NDArray[Any]] = {self._leaving: self.leaving}
        meant: dict[str, npt.NDArray[np.bool_]] = {self._leaving: always}
        for i in range(self._lanes):
            outputs[f"nan__{i}"], meant[f"nan__{i}"] = self._nan(i), closing
            for p in range(self._ways):
                pair, held = f"pair__{i}__{p}__", self._held(i, p)
                outputs |= {pair + "value": self._values(i, p), pair + "index": self._places(i, p)}
                outputs[pair + "valid"] = held
                meant |= {pair + "value": held == 1, pair + "index": held == 1, pair + "valid": always}
        return outputs, meant


def wuve_vectors(spec: AcceleratorSpec, rule: UpdateRule, seed: int) -> list[StreamVectors]:
    """Updates under ``rule``, of numbers, of any bits, and below the normal range."""
    found = []
    for i, kind in enumerate(_KINDS):
        given = _Given.of(spec, rule, 40 * spec.wuve.lanes + 1, kind, np.random.default_rng([seed, i]))
        ran = run_wuve(spec, given.settings, given.master, given.gradient, given.state)
        entering, lane = np.divmod(np.arange(len(given.master)), spec.wuve.lanes)
        inputs, outputs, meant = given.ports(ran, spec.wuve.lanes, entering, lane, ran.cycles + _AFTERWARDS)
        found.append(StreamVectors(name=kind, inputs=inputs, outputs=outputs, meant=meant))
    return found


def pregenerate_vectors(spec: AcceleratorSpec, pattern: NMPattern, rule: UpdateRule, seed: int) -> list[StreamVectors]:
    """Weights updated and compressed in both directions, values as in `wuve_vectors`; beats are offered always."""
    shape = WeightShape(taps=2, inputs=pattern.group + 1, outputs=2 * pattern.group + (pattern.group + 1) // 2)
    plan = tile_plan(spec, rule, pattern, len(COPIES))
    order = walk(plan, pattern, shape, COPIES)
    tiles = len(order)
    places = np.empty(shape.elements + 1, np.int64)
    places[order.reshape(tiles, -1)] = np.arange(order[0].size)
    tile = np.empty_like(places)
    tile[order.reshape(tiles, -1)] = np.arange(tiles)[:, None]
    beat, lane = np.divmod(places[:-1], spec.wuve.lanes)
    entering = plan.distance * tile[:-1] + beat
    found = []
    for i, kind in enumerate(_KINDS):
        given = _Given.of(spec, rule, shape.elements, kind, np.random.default_rng([seed, i]))
        ran = run_pregenerate(spec, given.settings, pattern, shape, given.master, given.gradient, given.state)
        cycles = ran.cycles + _AFTERWARDS
        inputs, outputs, meant = given.ports(ran.update, spec.wuve.lanes, entering, lane, cycles)
        pairs = _Pairs(spec, pattern, cycles, "pairs_leaving")
        for copy, line in zip(COPIES, line_order(plan, pattern, shape, order, COPIES), strict=True):
            for t, turn, i in np.argwhere(line.group >= 0):
                pairs.add(ran.copies[copy], line.group[t, turn, i], line.column[t, turn, i], i)
        pairs.leaving[_rounds(plan, pairs.leaving, tiles)] = 1
        clock = np.arange(cycles)
        waits = (clock % plan.distance >= plan.fill) & (clock < tiles * plan.distance)
        # a beat that is offered while ``ready`` is low must not enter
        inputs |= {f"valid__{i}": np.where(waits, 1, inputs[f"valid__{i}"]) for i in range(spec.wuve.lanes)}
        inputs["enter"] = (clock < tiles * plan.distance).astype(np.uint64)
        inputs["both"] = np.ones(cycles, np.uint64)
        more, where = pairs.ports()
        outputs |= more | {"ready": (~waits).astype(np.uint64)}
        meant |= where | {"ready": np.ones(cycles, np.bool_)}
        found.append(StreamVectors(name=kind, inputs=inputs, outputs=outputs, meant=meant))
    return found


def _rounds(plan: TilePlan, leaving: npt.NDArray[np.uint64], tiles: int) -> npt.NDArray[np.int64]:
    """When the rounds of SORE begin to leave, those without a group included, counted from the first."""
    turns = plan.copies * plan.rounds
    first = np.flatnonzero(leaving)[0] + plan.distance * np.arange(tiles)[:, None]
    rounds: npt.NDArray[np.int64] = (first + plan.reduce // turns * np.arange(turns)).ravel()
    return rounds


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

    def ports(
        self, ran: WuveRun, lanes: int, entering: npt.NDArray[np.int64], lane: npt.NDArray[np.int64], cycles: int
    ) -> tuple[dict[str, npt.NDArray[Any]], dict[str, npt.NDArray[Any]], dict[str, npt.NDArray[np.bool_]]]:
        """Inputs, outputs and where those mean anything; parameters enter ``lane`` in the cycle ``entering``."""
        rule = self.settings.rule
        constants = np.array(self.settings.constants, np.float32).view(np.uint32)
        inputs = {name: np.full(cycles, word, np.uint64) for name, word in zip(rule.constants, constants, strict=True)}
        outputs: dict[str, npt.NDArray[Any]] = {}
        meant: dict[str, npt.NDArray[np.bool_]] = {}
        one = np.ones(len(lane))
        fed: dict[str, npt.NDArray[Any]] = {"gradient16": bits_of(self.gradient), "valid": one}
        fed |= _bits(rule.held, (self.master, *self.state))
        read: dict[str, npt.NDArray[Any]] = {"weight16": bits_of(ran.weights16)}
        read |= {f"next_{name}": bits for name, bits in _bits(rule.held, (ran.master, *ran.state)).items()}
        for i in range(lanes):
            mine = lane == i
            inputs |= {f"{name}__{i}": _over(cycles, entering[mine], bits[mine]) for name, bits in fed.items()}
            leaving = _over(cycles, ran.left[mine], one[mine])
            outputs[f"leaving__{i}"], meant[f"leaving__{i}"] = leaving, np.ones(cycles, np.bool_)
            for name, bits in read.items():
                outputs[f"{name}__{i}"], meant[f"{name}__{i}"] = _over(cycles, ran.left[mine], bits[mine]), leaving == 1
        return inputs, outputs, meant


def _bits(names: tuple[str, ...], arrays: tuple[npt.NDArray[np.float32], ...]) -> dict[str, npt.NDArray[np.uint32]]:
    return {name: array.view(np.uint32) for name, array in zip(names, arrays, strict=True)}


def _over(cycles: int, when: npt.NDArray[np.int64], values: npt.NDArray[Any]) -> npt.NDArray[np.uint64]:
    """``values`` in the cycles ``when``, 0 in all others."""
    spread = np.zeros(cycles, np.uint64)
    spread[when] = values
    return spread


def _singles(random: np.random.Generator, count: int, kind: _Kind) -> npt.NDArray[np.float32]:
    if kind == "normal":
        return random.standard_normal(count, np.float32)
    words = random.integers(0, 1 << 32, count, np.uint32)
    if kind == "small":
        words &= np.uint32(0x87FFFFFF)  # exponent fields 0 to 15: times a rate below the normal range
    return words.view(np.float32)
