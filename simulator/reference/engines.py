"""SORE and WUVE in plain Python: lane by lane, stage by stage; shares nothing with the kernels."""

from __future__ import annotations

from collections import deque
from typing import Any, NamedTuple, assert_never

import numpy as np
import numpy.typing as npt

from ...dataflow.accelerator import AcceleratorSpec
from ...workloads.sparsity import NMPattern
from ..operand import Half, Word
from ..update_settings import Adam, AdamW, Nesterov, Sgd, UpdateSettings

__all__ = ["sore_reference", "wuve_reference"]

Single = npt.NDArray[np.float32]
Pair = tuple[Word, int]


def sore_reference(
    spec: AcceleratorSpec, values: Half, pattern: NMPattern, run: int = 0
) -> tuple[list[list[Pair]], list[bool], int]:
    """The pairs of every group, whether it holds a NaN, column by column, and the cycles.

    ``values`` [k, n] are of any operand type, cut into runs of ``run``, 0 for k.
    """
    k, n = values.shape
    run = run or k
    cuts = [(s, min(s + pattern.group, r + run)) for r in range(0, k, run) for s in range(r, r + run, pattern.group)]
    groups = [[values[j, c] for j in range(lo, hi)] for c in range(n) for lo, hi in cuts]
    with np.errstate(invalid="ignore"):  # a signalling NaN is data here
        flags = [any(np.isnan(v) for v in group) for group in groups]
    step = _sore_serial if spec.sore.kind == "serial" else _sore_network
    pairs, cycles = step(groups, spec.sore.lanes, pattern)
    return pairs, flags, cycles


def _magnitude(value: Word) -> int:
    if isinstance(value, np.int8):
        return abs(int(value))
    word: bytes = value.tobytes()
    return int.from_bytes(word, "little") % (1 << (8 * len(word) - 1))


def _sore_serial(groups: list[list[Word]], lanes: int, pattern: NMPattern) -> tuple[list[list[Pair]], int]:
    results: list[list[Pair]] = [[] for _ in groups]
    cycles = 0
    for lane in range(min(lanes, len(groups))):
        held: list[Pair] = []
        leaving: deque[tuple[int, Pair | None]] = deque()
        work = deque((g, j) for g in range(lane, len(groups), lanes) for j in range(pattern.group))
        t = 0
        while work or leaving:
            if leaving:
                g, pair = leaving.popleft()
                results[g] += [pair] if pair is not None else []
            if work:
                g, j = work.popleft()
                if j < len(groups[g]):
                    _offer(held, (groups[g][j], j), pattern.keep)
                if j == pattern.group - 1:
                    leaving.extend((g, held[p] if p < len(held) else None) for p in range(pattern.keep))
                    held = []
            t += 1
        cycles = max(cycles, t)
    return results, cycles


def _offer(held: list[Pair], pair: Pair, keep: int) -> None:
    if len(held) == keep:
        smallest = min(range(keep), key=lambda p: (_magnitude(held[p][0]), -p))
        if _magnitude(pair[0]) <= _magnitude(held[smallest][0]):
            return
        del held[smallest]
    held.append(pair)


def _sore_network(groups: list[list[Word]], lanes: int, pattern: NMPattern) -> tuple[list[list[Pair]], int]:
    by_magnitude, by_index = _odd_even_merge_sort(pattern.group), _odd_even_merge_sort(pattern.keep)
    depth = max(by_magnitude, default=0) + max(by_index, default=0)
    results: list[list[Pair]] = [[] for _ in groups]
    pipeline: deque[list[int]] = deque([[]] * depth)
    waiting = deque(range(len(groups)))
    left = t = 0
    while left < len(groups):
        pipeline.append([waiting.popleft() for _ in range(min(lanes, len(waiting)))])
        for g in pipeline.popleft():
            wires: list[Any] = [((-_magnitude(v), j), (v, j)) for j, v in enumerate(groups[g])]
            ranked = _through(by_magnitude, wires, pattern.group)[: pattern.keep]
            ordered = _through(by_index, [w and (w[1][1], w[1]) for w in ranked], pattern.keep)
            results[g] = [w[1] for w in ordered if w is not None]
            left += 1
        t += 1
    return results, t


def _odd_even_merge_sort(inputs: int) -> dict[int, list[tuple[int, int]]]:
    """Batcher's network by his recursion, every comparator as early as its wires allow; stages count from 1."""
    width = 1
    while width < inputs:
        width *= 2
    order: list[tuple[int, int]] = []

    def merge(wires: list[int]) -> None:
        if len(wires) == 2:
            order.append((wires[0], wires[1]))
        elif len(wires) > 2:
            merge(wires[::2])
            merge(wires[1::2])
            order.extend(zip(wires[1:-1:2], wires[2::2], strict=True))

    def sort(wires: list[int]) -> None:
        if len(wires) > 1:
            sort(wires[: len(wires) // 2])
            sort(wires[len(wires) // 2 :])
            merge(wires)

    sort(list(range(width)))
    ready = [0] * width
    stages: dict[int, list[tuple[int, int]]] = {}
    for i, j in order:
        ready[i] = ready[j] = max(ready[i], ready[j]) + 1
        stages.setdefault(ready[i], []).append((i, j))
    return stages


def _through(stages: dict[int, list[tuple[int, int]]], wires: list[Any], inputs: int) -> list[Any]:
    """Send (key, word) through a network, smallest key first; missing wires rank last."""
    width = 1 << (inputs - 1).bit_length()
    wires = wires + [None] * (width - len(wires))
    for stage in sorted(stages):
        for i, j in stages[stage]:
            if wires[i] is None or (wires[j] is not None and wires[j][0] < wires[i][0]):
                wires[i], wires[j] = wires[j], wires[i]
    return wires


class _Timed:
    """An FP32 number of a parameter, and how many cycles after that entered it is there.

    Its operations say which units the machine has; how they overlap follows from nothing but the formula.
    """

    def __init__(self, value: np.float32, at: int, latencies: _Latencies) -> None:
        self.value, self.at, self._latencies = value, at, latencies

    def _with(self, other: _Timed | float, value: np.float32, latency: int) -> _Timed:
        return _Timed(value, max(self.at, other.at if isinstance(other, _Timed) else 0) + latency, self._latencies)

    def __mul__(self, other: _Timed | float) -> _Timed:
        return self._with(other, self.value * _value(other), self._latencies.multiply)

    def __add__(self, other: _Timed | float) -> _Timed:
        return self._with(other, self.value + _value(other), self._latencies.add)

    def __sub__(self, other: _Timed) -> _Timed:
        return self._with(other, self.value - other.value, self._latencies.add)

    def __truediv__(self, other: _Timed) -> _Timed:
        return self._with(other, self.value / other.value, self._latencies.divide)

    def root(self) -> _Timed:
        return self._with(self, np.sqrt(self.value), self._latencies.divide)

    def converted(self) -> _Timed:
        return self._with(self, self.value, self._latencies.convert)


class _Latencies(NamedTuple):
    multiply: int
    add: int
    divide: int
    convert: int


def _value(number: _Timed | float) -> np.float32:
    return number.value if isinstance(number, _Timed) else np.float32(number)


def wuve_reference(
    spec: AcceleratorSpec, settings: UpdateSettings, master: Single, gradient16: Half, state: tuple[Single, ...]
) -> tuple[list[tuple[np.float32, ...]], int]:
    """(weight, state...) of every parameter in order, and the cycles.

    ``master`` and each of ``state``: float32 [n]; ``gradient16``: float16 or bfloat16 [n].
    """
    multiply, add = spec.pe.multiply_latency, spec.pe.add_latency
    rooted = isinstance(settings, Adam | AdamW)
    # Of the 16 cycles of a root and of a quotient, each gives one to a conversion.
    latencies = _Latencies(multiply, add, 15, 1 if rooted else multiply)
    pipeline: deque[list[tuple[np.float32, ...]]] | None = None
    waiting = deque(zip(master, gradient16, *state, strict=True))
    results: list[tuple[np.float32, ...]] = []
    t = 0
    with np.errstate(all="ignore"):
        while len(results) < len(master):
            beat = [waiting.popleft() for _ in range(min(spec.wuve.lanes, len(waiting)))]
            entering = [[_Timed(np.float32(x), 0, latencies) for x in parameter] for parameter in beat]
            left = [_update(settings, w, g.converted(), *held) for w, g, *held in entering]
            if pipeline is None:
                pipeline = deque([[]] * left[0][0].converted().at)
            pipeline.append([tuple(x.value for x in parameter) for parameter in left])
            results += pipeline.popleft()
            t += 1
    return results, t


def _update(settings: UpdateSettings, w: _Timed, g: _Timed, *state: _Timed) -> tuple[_Timed, ...]:
    """The formulas of docs/design/machine.md."""
    g = g * settings.inverse_scale
    match settings:
        case Sgd():
            g = g + w * settings.weight_decay
            v = state[0] * settings.momentum + g
            return w - v * settings.rate, v
        case Nesterov():
            g = g + w * settings.weight_decay
            v = state[0] * settings.momentum + g
            return w - (v * settings.momentum + g) * settings.rate, v
        case Adam():
            by, m, v = _adapted(settings, g, *state)
            return w - by, m, v
        case AdamW():
            by, m, v = _adapted(settings, g, *state)
            return w * (1 - settings.rate * settings.weight_decay) - by, m, v
    assert_never(settings)


def _adapted(settings: Adam | AdamW, g: _Timed, m: _Timed, v: _Timed) -> tuple[_Timed, _Timed, _Timed]:
    """What the weight is stepped by, mean and mean square."""
    m = m * settings.beta1 + g * (1 - settings.beta1)
    v = v * settings.beta2 + (g * g) * (1 - settings.beta2)
    correction = float(np.sqrt(1 - settings.beta2**settings.step))
    rate = settings.rate * correction / (1 - settings.beta1**settings.step)
    return (m * rate) / (v.root() + settings.epsilon * correction), m, v
