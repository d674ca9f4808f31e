"""Patterns by layer in a word: ``2:8, fc=dense`` as ever, or a policy and a budget such as ``erk@0.25``.

``POLICY@SHARE[:SCORES.json]`` keeps at most that share of the weights of all layers that can be sparse:

- ``uniform``: of each layer the densest pattern that keeps no more;
- ``erk``: patterns as close as possible to Erdos-Renyi-kernel densities (arXiv 1911.11134), in weights kept;
- a method of `scores.METHODS`, such as ``fisher``: the least sum of the scores of a file of `weft sensitivity`. With
  ``macs`` behind the number it is the share of the multiply-accumulates of FF and BP, which early layers of a
  convolutional network have more of.

Importing this must not import torch.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isqrt
from pathlib import Path
from typing import Final

from ..errors import InputError, nearest
from ..gemm import Pass
from ..operand import Role
from ..sparsity import Asked, LayerPattern, LayerPatterns, NMPattern
from ..step import MatrixOp, Workload
from .allocation import allocate, erk_densities
from .annotate import annotate, layer_names
from .scores import METHODS, Scores

__all__ = ["MENU", "POLICIES", "LayerChoice", "Policy", "layer_choices", "patterns_of", "rules_of"]

MENU: Final = ("1:8", "2:8", "4:8", "1:4", "2:4")
"""Patterns that policies without scores choose from, besides dense; of equally dense ones the first is taken."""

DENSE: Final = "dense"
POLICIES: Final = ("uniform", "erk", *METHODS)
_POLICY = re.compile(r"([a-z-]+)@([0-9.]+)(macs)?(?::(.+))?", re.ASCII | re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerChoice:
    """A layer that can be sparse: a name that no other goes by, all its names, and the shape of its weight, as far as
    products tell it; by candidate that it can have, ``dense`` among them, the weights ``kept`` and the ``macs`` of FF
    and BP."""

    layer: str
    names: tuple[str, ...]
    shape: tuple[int, ...]
    kept: dict[str, int]
    macs: dict[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """``name`` and the ``share`` that it keeps, of weights or of ``macs``; by the ``scores`` of a file, if any."""

    name: str
    share: float
    macs: bool
    scores: Path | None

    @classmethod
    def read(cls, text: str) -> Policy | None:
        """The policy that ``text`` names; None if it is no policy."""
        found = _POLICY.fullmatch(text.strip())
        if found is None:
            return None
        name, number, macs, file = found.groups()
        if name not in POLICIES:
            raise InputError(f"policy {name!r} of {text!r} is unknown: {nearest(name, POLICIES)}")
        share = float(number) if number.count(".") < 2 and number != "." else 0.0
        if not 0.0 < share < 1.0:
            raise InputError(f"budget {number} of {text!r} must be a share above 0 and below 1, as 0.25")
        if (name in METHODS) != (file is not None):
            how = f"needs scores, as {name}@{number}:scores.json" if name in METHODS else "takes no file of scores"
            raise InputError(f"policy {text!r} {how}")
        if file is None and macs:
            raise InputError(f"policy {text!r} has a budget of {macs}, but that of {name} is a share of the weights")
        return cls(name=name, share=share, macs=bool(macs), scores=None if file is None else Path(file))

    def __str__(self) -> str:
        file = "" if self.scores is None else f":{self.scores}"
        return f"{self.name}@{self.share:g}{'macs' if self.macs else ''}{file}"

    def patterns(self, workload: Workload) -> LayerPatterns:
        """The pattern of each layer of ``workload`` that can be sparse; the others are dense."""
        scores = None if self.scores is None else Scores.read(self.scores).by(self.name)
        patterns = MENU if scores is None else dict.fromkeys(c for layer in scores.values() for c in layer if ":" in c)
        layers = layer_choices(workload, [*patterns])
        if not layers:
            raise InputError(f"{self}: no layer of {workload.model!r} can have any of {', '.join(patterns) or 'none'}")
        kept = {layer.layer: layer.kept for layer in layers}
        if scores is not None:
            costs = {layer.layer: layer.macs for layer in layers} if self.macs else kept
            return rules_of(layers, self._allocated(self._of_layers(scores, layers), costs))
        if self.name == "uniform":
            return rules_of(layers, {layer.layer: self._densest(layer) for layer in layers})
        targets = erk_densities([layer.shape for layer in layers], self.share)
        apart = {
            layer.layer: {c: abs(count - target * layer.kept[DENSE]) for c, count in layer.kept.items()}
            for layer, target in zip(layers, targets, strict=True)
        }
        return rules_of(layers, self._allocated(apart, kept))

    def _densest(self, layer: LayerChoice) -> str:
        able = [(-NMPattern.parse(c).density, i, c) for i, c in enumerate(layer.kept) if c != DENSE]
        within = [choice for choice in able if -choice[0] <= self.share]
        if not within:
            least, _, sparsest = max(able)
            raise InputError(f"{self}: layer {layer.layer!r} keeps {-least:.4g} of its weights at least, by {sparsest}")
        return min(within)[2]

    def _of_layers(
        self, scores: Mapping[str, Mapping[str, float]], layers: Sequence[LayerChoice]
    ) -> dict[str, dict[str, float]]:
        """The scores of the layers of a step, whose names may be others than those of the modules that were scored."""
        table = {}
        for layer in layers:
            held = next((scores[name] for name in layer.names if name in scores), None)
            if held is None:
                raise InputError(
                    f"{self}: there are no scores of layer {layer.layer!r}, only of {', '.join([*scores][:3])}, ...: "
                    "they are of another model"
                )
            table[layer.layer] = {DENSE: 0.0, **{c: held[c] for c in layer.kept if c in held}}
        return table

    def _allocated(
        self, scores: Mapping[str, Mapping[str, float]], costs: Mapping[str, Mapping[str, int]]
    ) -> dict[str, str]:
        whole = sum(cost[DENSE] for cost in costs.values())
        least = sum(min(costs[layer][c] for c in found) for layer, found in scores.items())
        if least > self.share * whole:
            raise InputError(f"{self}: the sparsest patterns of all layers keep {least / whole:.4f} already")
        return allocate(scores, costs, int(self.share * whole)).choice


def patterns_of(asked: Asked, workload: Workload) -> LayerPatterns:
    """The patterns by layer that ``asked`` is for ``workload``: a policy, or whatever ``--nm`` takes, rules of one text
    apart by commas."""
    if not isinstance(asked, str):
        return LayerPatterns.read(asked)
    policy = Policy.read(asked)
    return LayerPatterns.read(asked.split(",")) if policy is None else policy.patterns(workload)


def layer_choices(workload: Workload, patterns: Sequence[str]) -> list[LayerChoice]:
    """The layers of ``workload`` that can have one of ``patterns`` in both products that read their weight, FF and BP,
    in the order of the step; what BDWP leaves dense has no choice."""
    made = {text: _products(annotate(workload, "bdwp", NMPattern.parse(text))) for text in patterns}
    made = {text: {p: ops for p, ops in of.items() if all(op.sparse for op in ops)} for text, of in made.items()}
    dense, names = _products(annotate(workload, "dense", None)), layer_names(workload)
    able = {p: {text: of[p] for text, of in made.items() if p in of} for p in names}
    return [_choice(p, dense[p], sparse, names) for p, sparse in able.items() if sparse]


def _products(workload: Workload) -> dict[str, list[MatrixOp]]:
    """The ops that read each parameter, of those that FF reads."""
    found: dict[str, list[MatrixOp]] = {}
    for op in workload.matrix_ops:
        if op.parameter is not None and op.pass_ is not Pass.WU:
            found.setdefault(op.parameter, []).append(op)
    return {parameter: ops for parameter, ops in found.items() if any(op.pass_ is Pass.FF for op in ops)}


def rules_of(layers: Sequence[LayerChoice], chosen: Mapping[str, str]) -> LayerPatterns:
    """A candidate for each layer as rules; all other layers are dense."""
    rules = [LayerPattern(layers="*", pattern=None)]
    for layer in layers:
        if chosen[layer.layer] != DENSE:
            # Brackets are wildcards, too.
            exact = re.sub(r"([*?\[])", r"[\1]", layer.layer)
            rules.append(LayerPattern(layers=exact, pattern=NMPattern.parse(chosen[layer.layer])))
    return LayerPatterns(rules=tuple(rules))


def _choice(
    parameter: str,
    dense: Sequence[MatrixOp],
    sparse: Mapping[str, Sequence[MatrixOp]],
    names: dict[str, tuple[str, ...]],
) -> LayerChoice:
    op = next(op for op in dense if op.pass_ is Pass.FF)
    gemm = op.gemm
    outputs = gemm.groups * (gemm.n if op.b.role is Role.WEIGHT else gemm.m)
    taps = gemm.k // gemm.run
    # A workload keeps sizes, not kernels: squares are taken for two dimensions, as in `dataflow/streaming`.
    kernel = () if taps == 1 else (isqrt(taps),) * 2 if isqrt(taps) ** 2 == taps else (taps,)
    others = {name for other, known in names.items() if other != parameter for name in known}
    kept = {text: outputs * NMPattern.parse(text).kept(gemm.k, gemm.run) for text in sparse}
    return LayerChoice(
        layer=next(name for name in (*names[parameter], parameter) if name not in others),
        names=names[parameter],
        shape=(outputs, gemm.run, *kernel),
        kept={DENSE: outputs * gemm.k, **kept},
        macs={text: sum(op.macs for op in ops) for text, ops in {DENSE: dense, **sparse}.items()},
    )
