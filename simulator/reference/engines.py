"""SORE and WUVE in plain Python: lane by lane, stage by stage; shares nothing with the kernels."""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np
import numpy.typing as npt

from ...dataflow.accelerator import AcceleratorSpec
from ...workloads.sparsity import NMPattern
from ..engines import Adam, Sgd
from ..operand import Half, Word

__all__ = ["sore_reference", "wuve_reference"]

Single = npt.NDArray[np.float32]
Pair = tuple[Word, int]


def sore_reference(
    spec: AcceleratorSpec, values: Half, pattern: NMPattern, run: int = 0
) -> tuple[list[list[Pair]], list[bool], int]:
    """The pairs of every group, whether it holds a NaN, column by column, and the cycles.

    ``values`` [k, n] are float16 or bfloat16, cut into runs of ``run``, 0 for k.
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
    return int(value.view(np.uint16)) & 0x7FFF


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


def wuve_reference(
    spec: AcceleratorSpec, rule: Sgd | Adam, master: Single, gradient16: Half, state: tuple[Single, ...]
) -> tuple[list[tuple[np.float32, ...]], int]:
    """(weight, state...) of every parameter in order, and the cycles.

    ``master`` and each of ``state``: float32 [n]; ``gradient16``: float16 or bfloat16 [n].
    """
    multiply, add, divide = spec.pe.multiply_latency, spec.pe.add_latency, 16
    depth = 4 * multiply + 3 * add if isinstance(rule, Sgd) else 3 * multiply + 3 * add + 2 * divide
    pipeline: deque[list[tuple[np.float32, ...]]] = deque([[]] * depth)
    waiting = deque(zip(master, gradient16, *state, strict=True))
    results: list[tuple[np.float32, ...]] = []
    t = 0
    with np.errstate(all="ignore"):
        while len(results) < len(master):
            beat = [waiting.popleft() for _ in range(min(spec.wuve.lanes, len(waiting)))]
            pipeline.append([_update(rule, *parameter) for parameter in beat])
            results += pipeline.popleft()
            t += 1
    return results, t


def _update(rule: Sgd | Adam, w: np.float32, g16: Word, *state: np.float32) -> tuple[np.float32, ...]:
    f = np.float32
    g = f(g16) * f(rule.inverse_scale)
    if isinstance(rule, Sgd):
        g = g + f(rule.weight_decay) * w
        v = f(rule.momentum) * state[0] + g
        return w - f(rule.rate) * v, v
    m = f(rule.beta1) * state[0] + f(1 - rule.beta1) * g
    v = f(rule.beta2) * state[1] + f(1 - rule.beta2) * (g * g)
    correction = float(np.sqrt(1 - rule.beta2**rule.step))
    rate = f(rule.rate * correction / (1 - rule.beta1**rule.step))
    return w - rate * m / (np.sqrt(v) + f(rule.epsilon * correction)), m, v
