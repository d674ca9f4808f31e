"""A folded binary network as a program for the accelerator: a product a layer, thresholds behind it, bits in memory.

The host writes the first layer's integers and reads the last layer's sums; all between stays bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod

import numpy as np
import numpy.typing as npt

from ...workloads.errors import InputError
from ...workloads.integer_network import IntegerLayer, IntegerNetwork
from ...workloads.levels import Levels
from ..integers import ceil_div
from ..xnor.mapping import require_xnor
from ..xnor.words import largest_sum, signed
from .binary_layer import LayerCommands
from .binary_plan import Group, Plan, Thresholds
from .bits import BitImage, level_words, weight_words
from .emitter import Emitter
from .moves import Moves
from .program import Program
from .spaces import BIT_WORD, Target

__all__ = ["BinaryProgram", "compile_network"]

Bytes = npt.NDArray[np.uint8]
_MOST_SUM = (1 << 30) - 2
"""Either way: what a level of 31 bits tells from all others."""
_LINE = 64
"""Bytes; what lies in memory begins at whole lines."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class BinaryProgram:
    """``program`` for ``images`` images at a time, and ``memory``, uint8 [bytes], as it is to be before the first run:
    weights, levels, and what stands around images.

    ``inputs``: what each layer reads, of the first of which the host writes; ``sums``: byte of the last layer's sums,
    int32 [images, ``classes``].
    """

    target: Target
    images: int
    program: Program
    memory: Bytes
    inputs: tuple[BitImage, ...]
    sums: int
    classes: int


def compile_network(
    network: IntegerNetwork, thresholds: Sequence[Thresholds], target: Target, images: int, image: tuple[int, ...]
) -> BinaryProgram:
    """The program of a network for ``images`` of the shape ``image``, [channels, height, width], at a time.

    ``thresholds``: of all layers but the last. What the machine cannot hold, or does not run, is an `InputError` that
    names the layer.
    """
    require_xnor(target.spec)
    layers = network.layers
    for layer in layers:
        _require(layer, last=layer is layers[-1])
    plan, memory = Plan(target, images, layers, image, thresholds), _Memory()
    inputs = [replace(one, address=memory.room(images * one.strides[0])) for one in plan.inputs]
    classes = layers[-1].weights.shape[1]
    sums = memory.room(images * classes * BIT_WORD // 8)
    groups = [_fill(memory, plan, i, thresholds) for i in range(len(layers))]
    moves = Moves(Emitter(target, memory.size))
    for i, group in enumerate(groups):
        LayerCommands(plan, i, inputs, group, sums, moves).emit()
    filled = memory.bytes()
    for one in inputs[1:]:
        around = one.encode(np.full((images, *one.shape), one.edge, np.int8))
        filled[one.address : one.address + len(around)] = around
    return BinaryProgram(
        target=target,
        images=images,
        program=moves.emitter.program(),
        memory=filled,
        inputs=tuple(inputs),
        sums=sums,
        classes=classes,
    )


def _require(layer: IntegerLayer, *, last: bool) -> None:
    """Refuse what no command does."""
    where, (x, w), k = f"layer {layer.name!r}", layer.levels, len(layer.weights)
    for levels, of in ((x, "inputs"), (w, "weights")):
        if levels is Levels.TERNARY:
            raise InputError(f"{where} has ternary {of}, which read two planes a beat; binary ones or integers are run")
    if layer.window.kernel and len(layer.window.kernel) != 2:
        raise InputError(f"{where} is a convolution of {len(layer.window.kernel)} dimensions; those of 2 are compiled")
    if any(layer.window.padding) and layer.edge != int(signed(x)):
        raise InputError(f"{where} has {layer.edge} around its image; of {x} inputs it must be {int(signed(x))}")
    if largest_sum(k, x, w) > _MOST_SUM:
        raise InputError(
            f"{where} contracts over {k} products of {x} by {w}, whose sums reach 2^30, beyond any level; the "
            f"longest contraction is {_MOST_SUM // largest_sum(1, x, w)}"
        )
    if last and (layer.pool is not None or prod(layer.window.positions) != 1):
        raise InputError(f"{where} is the last and must make one score a class, not an image of them")


class _Memory:
    """Memory in the making: what is asked for, one behind the other."""

    def __init__(self) -> None:
        self.size = 0
        self._held: list[tuple[int, Bytes]] = []

    def room(self, count: int) -> int:
        """Where so many bytes lie."""
        at = self.size
        self.size += ceil_div(count, _LINE) * _LINE
        return at

    def put(self, data: Bytes) -> int:
        """Where ``data`` lies."""
        at = self.room(len(data))
        self._held.append((at, data))
        return at

    def bytes(self) -> Bytes:
        """All of it, 0 where nothing was put."""
        made = np.zeros(self.size, np.uint8)
        for at, data in self._held:
            made[at : at + len(data)] = data
        return made


def _fill(memory: _Memory, plan: Plan, i: int, thresholds: Sequence[Thresholds]) -> list[Group]:
    """Weights and levels of a layer into memory, group by group."""
    layer, read, tiling = plan.layers[i], plan.inputs[i], plan.tilings[i]
    at, channel = read.contraction(layer.window)
    real = at >= 0
    turned = np.zeros(len(layer.weights), np.bool_)
    turned[at[real]] = read.turned[channel[real]]
    weights = np.where(turned[:, None], -layer.weights.astype(np.int64), layer.weights)
    if weights.max() > max(layer.levels[1].values):
        raise InputError(
            f"layer {layer.name!r} has a weight of {-weights.max()} for a channel that is turned over behind its pool, "
            f"and {layer.levels[1]} holds no {weights.max()}; put the pool behind the norm"
        )
    cols, n = plan.own.cols, weights.shape[1]
    wide, groups = tiling.contexts * cols, list[Group]()
    for first in range(0, n, tiling.across * wide):
        across = min(tiling.across, ceil_div(n - first, wide))
        c, tile, context = np.ix_(np.arange(cols), np.arange(across), np.arange(tiling.contexts))
        columns = first + (tile * tiling.contexts + context) * cols + c
        words = memory.put(weight_words(weights, layer.levels, at, plan.own.word_bits, columns))
        levels = 0
        if i + 1 < len(plan.layers):
            turn, (least, flip) = plan.inputs[i + 1].turned, thresholds[i]
            # a turned channel is +1 where its sum is above what it had to be at most
            length = len(weights) if all(map(signed, layer.levels)) else None
            made = level_words(least.astype(np.int64) + turn, flip & ~turn, length, columns.reshape(cols, -1))
            levels = memory.put(made.reshape(-1).view(np.uint8))
        groups.append(Group(first, across, words, levels))
    return groups
