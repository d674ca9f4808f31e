"""Random work for a machine: mappings and shapes that its registers hold, operands and receivers of every kind."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np
import numpy.typing as npt

from ...dataflow.accelerator import AcceleratorSpec
from ...dataflow.gather.dense import most_columns, most_lines, port_words
from ...dataflow.gather.mapping import require_gather
from ...dataflow.stce.dataflows import PACES, col_axis, row_axis
from ...dataflow.stce.mapping import DENSE, ArrayMapping, Dataflow
from ...dataflow.stce.pace import array_machine
from ...dataflow.stce.time import mapped_tiling
from ...dataflow.tree_spec import TreeSpec
from ...hdl.blocks.banks import IN_RTL
from ...hdl.blocks.tree_tables import tree_tables
from ...simulator.compact import Compact, compress, decompress, from_mask
from ...simulator.operand import Half, narrow
from ...simulator.update_settings import SETTINGS, UpdateSettings
from ...workloads.errors import InputError
from ...workloads.gemm import Gemm
from ...workloads.spanning_tree import SpanningTree, spanning_tree
from ...workloads.sparsity import NMPattern
from ...workloads.update_rule import UpdateRule
from .operands import edge_words, raw_bits

__all__ = [
    "draw_compact",
    "draw_hold",
    "draw_mask",
    "draw_operand",
    "draw_receivers",
    "draw_shape",
    "draw_training",
    "draw_tree",
]

_DRAWS = 300
"""Draws for a product that is bound so; on a machine that has one, some 1 to 20 % are."""
_MOST_PLACES = 24
"""Kept elements that a line of a mask has at most: the cycles of a run grow with them and with the lines."""
_MOST_CHANNELS = 24
"""Of a layer in the order of a tree; fewer where the tables of the unit are small."""
_PATTERNS = tuple(NMPattern.parse(text) for text in ("1:4", "2:4", "2:8", "4:8", "2:16"))


def _bound_by(spec: AcceleratorSpec, mapping: ArrayMapping, gemm: Gemm) -> str:
    """What sets the pace of a product beside its issue: the drain of tiles, or partial sums that return."""
    x = array_machine(spec)
    t = mapped_tiling(x, mapping, gemm.m, gemm.k, gemm.run)
    work = row_axis(x, t, gemm.m, gemm.m).work * col_axis(x, t, gemm.n, gemm.n).work
    if PACES[t.dataflow].stays:
        return "drain" if work > 1 and t.drain > t.L else ""
    return "return" if t.slots > 1 and x.R * t.bare + x.Lr > work else ""


def draw_shape(spec: AcceleratorSpec, bound: str, random: np.random.Generator) -> tuple[ArrayMapping, Gemm]:
    """A mapping and sizes; of a few draws one that is ``bound``, if the machine knows such."""
    array = spec.array
    for _ in range(_DRAWS):
        mapping = draw_mapping(spec, random)
        run, runs = int(random.integers(1, 2 * mapping.pattern.group + 8)), int(random.integers(1, 4))
        gemm = Gemm(
            m=int(random.integers(1, 2 * array.rows + 2)),
            k=run * runs,
            n=int(random.integers(1, array.cols * (mapping.interleave + 1) + 2)),
            run=run,
        )
        if not bound or _bound_by(spec, mapping, gemm) == bound:
            break
    return mapping, gemm


def draw_mapping(spec: AcceleratorSpec, random: np.random.Generator) -> ArrayMapping:
    """One that the registers of the machine hold: dense, a usual pattern, or any other."""
    pe, dataflow = spec.pe, IN_RTL[int(random.integers(len(IN_RTL)))]
    stationary = dataflow == Dataflow.WS
    most = min(pe.max_group, pe.weight_pairs) if stationary else pe.max_group
    held = int(random.integers(1, most + 1))
    dense = NMPattern(keep=held, group=held) if stationary else DENSE
    group = int(random.integers(1, pe.max_group + 1))
    other = NMPattern(keep=int(random.integers(1, min(group, most) + 1)), group=group)
    usual = [p for p in _PATTERNS if p.group <= pe.max_group and p.keep <= most] or [other]
    pattern = (dense, usual[int(random.integers(len(usual)))], other)[int(random.integers(3))]
    contexts = min(pe.accumulators, pe.dense_words // pattern.group) if stationary else pe.accumulators
    return ArrayMapping(dataflow=dataflow, pattern=pattern, interleave=int(random.integers(1, contexts + 1)))


def draw_receivers(random: np.random.Generator, cols: int) -> npt.NDArray[np.bool_] | None:
    """When the columns are taken from for a while, bool [cycles, cols]; always in half of the cases."""
    if random.random() < 0.5:
        return None
    return random.random((int(random.integers(1, 400)), cols)) < random.choice((0.3, 0.7, 0.95), (1, cols))


def draw_hold(random: np.random.Generator) -> npt.NDArray[np.bool_] | None:
    """When the array is held for a while, bool [cycles]; never in three of four cases."""
    if random.random() < 0.75:
        return None
    stands: npt.NDArray[np.bool_] = random.random(int(random.integers(1, 400))) < random.choice((0.1, 0.5, 0.9))
    return stands


def draw_operand(random: np.random.Generator, spec: AcceleratorSpec, *shape: int, gradient: bool | None = None) -> Half:
    """Values of every kind: normal, many equal ones, words at which something changes, raw bits; of any shape
    and an operand type of ``spec``, that of gradients or not where these differ."""
    if gradient is None:
        gradient = spec.pe.operand.gradient is not None and bool(random.integers(2))
    values = random.standard_normal(shape)
    kind, share = int(random.integers(4)), random.random(shape) < (0.02, 0.3)[int(random.integers(2))]
    if kind == 1:
        values = np.round(values)
    operand = narrow(values.astype(np.float32), spec.pe.format, gradient=gradient)
    if kind >= 2:
        edges = edge_words(spec.pe.operand, gradient=gradient)
        raw = random.choice(edges, shape) if kind == 2 else raw_bits(random, spec.pe, *shape).view(operand.dtype)
        operand[share] = raw[share]
    return operand


def draw_compact(random: np.random.Generator, spec: AcceleratorSpec, gemm: Gemm, pattern: NMPattern) -> Compact:
    """The largest of each group, or what a mask leaves of them, with bubbles."""
    b = draw_operand(random, spec, gemm.k, gemm.n)
    compact = compress(b, pattern, gemm.run)
    if random.random() < 0.5:
        return compact
    return from_mask(b, (decompress(compact) != 0) & (random.random(b.shape) < 0.6), pattern, gemm.run)


def draw_training(
    random: np.random.Generator, spec: AcceleratorSpec, rule: UpdateRule, n: int
) -> tuple[UpdateSettings, npt.NDArray[np.float32], Half, tuple[npt.NDArray[np.float32], ...]]:
    """A step of ``rule``, FP32 weights and state [n], some of them raw bits, and a gradient [n] of the operand type."""
    scale = 2.0 ** -int(random.integers(0, 17))
    rate, share = float(random.random()), float(random.random())
    settings = _draw_settings(random, rule, rate, share, scale)
    vectors = [random.standard_normal(n).astype(np.float32) for _ in rule.held]
    for vector in vectors:
        raw = random.random(n) < (0.0, 0.1)[int(random.integers(2))]
        vector.view(np.uint32)[raw] = random.integers(0, 2**32, n, np.uint32)[raw]
    return settings, vectors[0], draw_operand(random, spec, n, gradient=True), tuple(vectors[1:])


def _draw_settings(
    random: np.random.Generator, rule: UpdateRule, rate: float, share: float, scale: float
) -> UpdateSettings:
    """Numbers of a step: what of them the rule has."""
    has = {field.name for field in fields(SETTINGS[rule.name])}
    drawn: dict[str, Any] = {"rate": rate, "momentum": share, "weight_decay": 0.1 * share, "inverse_scale": scale}
    if "step" in has:
        drawn["step"] = int(random.integers(1, 1000))
    made: UpdateSettings = SETTINGS[rule.name](**{name: value for name, value in drawn.items() if name in has})
    return made


def draw_mask(random: np.random.Generator, spec: AcceleratorSpec) -> tuple[int, int, npt.NDArray[np.bool_]]:
    """Lines that a lane of the gather engine holds, columns of the dense operand, and a mask, bool [k, n]: of one
    density or one a line, some lines full or empty."""
    own = require_gather(spec)
    k = int(random.integers(1, min(_MOST_PLACES, port_words(spec) * (own.banks or 1)) + 1))
    n = int(random.integers(1, 3 * own.lanes + 2))
    density = random.choice((0.0, 0.1, 0.5, 0.9, 1.0), size=n if random.integers(2) else 1)
    lines = int(random.integers(1, most_lines(spec) + 1))
    return lines, int(random.integers(1, most_columns(spec, k, lines) + 1)), random.random((k, n)) < density


def draw_tree(
    random: np.random.Generator, own: TreeSpec
) -> tuple[SpanningTree, npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """A tree with its weights, bool [channels, k], far apart or near, some the same or inverted, that the tables of the
    unit hold; and inputs, bool [positions, k]."""
    most = _MOST_CHANNELS
    while True:
        channels = int(random.integers(1, most + 1))
        k = int(random.integers(1, min(own.inputs, own.words * own.word_bits) + 1))
        apart = random.random((channels, k)) < random.choice((0.5, 0.1, 0.02))
        weights = (random.random(k) < 0.5) ^ apart ^ (random.random((channels, 1)) < random.choice((0.0, 0.3)))
        tree = spanning_tree(weights, inverse=bool(random.integers(2)))
        try:
            tree_tables(own, tree, weights)
        except InputError:
            most = max(most // 2, 1)
            continue
        return tree, weights, random.random((own.positions, k)) < 0.5
