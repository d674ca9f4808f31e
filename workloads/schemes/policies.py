"""Patterns by layer in a word: ``2:8, fc=dense`` as ever, or a policy and a budget such as ``erk@0.25``.

``POLICY@SHARE[:SCORES.json]`` keeps at most that share of the weights of all layers that can be sparse:

- ``uniform``: of each layer the densest pattern that keeps no more;
- ``erk``: patterns as close as possible to Erdos-Renyi-kernel densities (arXiv 1911.11134), in weights kept;
- a method of `scores.METHODS`, such as ``fisher``: the least sum of the scores of a file of `weft sensitivity`. With
  ``macs`` behind the number it is the share of the multiply-accumulates of FF and BP, which early layers of a
  convolutional network have more of. ``loss@0.1rise:SCORES.json`` is the other way round: the fewest
  multiply-accumulates for scores that add up to no more than that.

``POLICY@BITSbits[:SCORES.json]``, ``uniform`` or by scores, gives the weights integers of at most so many bits in the
mean. Importing this must not import torch.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isqrt
from pathlib import Path
from typing import Final, Literal, assert_never

from ..errors import InputError, nearest
from ..gemm import Pass
from ..levels import INTEGERS, Levels
from ..operand import Role
from ..sparsity import Asked, LayerPattern, LayerPatterns, NMPattern
from ..step import MatrixOp, Workload
from .allocation import allocate, cheapest, erk_densities
from .annotate import annotate, layer_names
from .scores import METHODS, Scores, candidate

__all__ = ["DENSE", "MENU", "POLICIES", "LayerChoice", "Policy", "layer_choices", "patterns_of", "rules_of"]

MENU: Final = ("1:8", "2:8", "4:8", "1:4", "2:4")
"""Patterns that policies without scores choose from, besides dense; of equally dense ones the first is taken."""

DENSE: Final = "dense"
"""The candidate that leaves a layer as it is."""

POLICIES: Final = ("uniform", "erk", *METHODS)
Unit = Literal["weights", "macs", "bits", "rise"]
_UNITS: Final[dict[str | None, Unit]] = {None: "weights", "macs": "macs", "bits": "bits", "rise": "rise"}
_POLICY = re.compile(r"([a-z-]+)@([0-9.]+)(macs|bits|rise)?(?::(.+))?", re.ASCII | re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerChoice:
    """A layer with a choice: a name that no other goes by, all its names, and the shape of its weight, as far as
    products tell it. By candidate that it can have, and ``dense``: the weights ``kept``, of integers their bits, and
    the ``macs`` of FF and BP."""

    layer: str
    names: tuple[str, ...]
    shape: tuple[int, ...]
    kept: dict[str, int]
    macs: dict[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """``name`` and its budget: the share kept of ``weights`` or ``macs``, the mean of ``bits``, or the ``rise`` that
    scores add up to; by the ``scores`` of a file, if any."""

    name: str
    budget: float
    unit: Unit
    scores: Path | None

    @classmethod
    def read(cls, text: str) -> Policy | None:
        """The policy that ``text`` names; None if it is no policy."""
        found = _POLICY.fullmatch(text.strip())
        if found is None:
            return None
        name, number, given, file = found.groups()
        if name not in POLICIES:
            raise InputError(f"policy {name!r} of {text!r} is unknown: {nearest(name, POLICIES)}")
        unit = _UNITS[given]
        budget = float(number) if number.count(".") < 2 and number != "." else 0.0
        if unit == "bits" and not 2.0 <= budget <= 8.0:
            raise InputError(f"budget {number}bits of {text!r} must be from 2 to 8 bits, as 4bits")
        if unit == "rise" and not budget > 0.0:
            raise InputError(f"budget {number}rise of {text!r} must be above 0, as 0.1rise")
        if unit in ("weights", "macs") and not 0.0 < budget < 1.0:
            raise InputError(f"budget {number} of {text!r} must be a share above 0 and below 1, as 0.25, or 4bits")
        if (name in METHODS) != (file is not None):
            how = f"needs scores, as {name}@{number}:scores.json" if name in METHODS else "takes no file of scores"
            raise InputError(f"policy {text!r} {how}")
        if (unit in ("macs", "rise") and file is None) or (unit == "bits" and name == "erk"):
            raise InputError(f"policy {text!r} has a budget of {unit}, but that of {name} is a share of the weights")
        return cls(name=name, budget=budget, unit=unit, scores=None if file is None else Path(file))

    def __str__(self) -> str:
        file = "" if self.scores is None else f":{self.scores}"
        return f"{self.name}@{self.budget:g}{'' if self.unit == 'weights' else self.unit}{file}"

    @property
    def bits(self) -> bool:
        """Whether it chooses integers, for the scheme of that name, and not patterns."""
        return self.unit == "bits"

    def patterns(self, workload: Workload) -> LayerPatterns:
        """The candidate of each layer of ``workload`` that has a choice; the others are dense."""
        scores = None if self.scores is None else Scores.read(self.scores).by(self.name)
        every = (*MENU, *INTEGERS) if scores is None else dict.fromkeys(c for layer in scores.values() for c in layer)
        candidates = [text for text in every if (text in INTEGERS) == self.bits]
        layers = layer_choices(workload, candidates)
        if not layers:
            raise InputError(
                f"{self}: no layer of {workload.model!r} can have any of {', '.join(candidates) or 'none'}"
            )
        if self.unit == "rise" and scores is not None:
            macs = {layer.layer: layer.macs for layer in layers}
            return rules_of(layers, cheapest(self._of_layers(scores, layers), macs, self.budget))
        if scores is not None:
            return rules_of(layers, self._allocated(self._of_layers(scores, layers), layers))
        if self.bits:
            return rules_of(layers, {layer.layer: f"int{int(self.budget)}" for layer in layers})
        if self.name == "uniform":
            return rules_of(layers, {layer.layer: self._densest(layer) for layer in layers})
        targets = erk_densities([layer.shape for layer in layers], self.budget)
        apart = {
            layer.layer: {c: abs(count - target * layer.kept[DENSE]) for c, count in layer.kept.items()}
            for layer, target in zip(layers, targets, strict=True)
        }
        return rules_of(layers, self._allocated(apart, layers))

    def _densest(self, layer: LayerChoice) -> str:
        able = [(-NMPattern.parse(c).density, i, c) for i, c in enumerate(layer.kept) if c != DENSE]
        within = [choice for choice in able if -choice[0] <= self.budget]
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
            # Integers stand in the place of full precision: what of a layer is not rounded is no part of the budget.
            whole = {} if self.bits else {DENSE: 0.0}
            table[layer.layer] = {**whole, **{c: held[c] for c in layer.kept if c in held}}
        return table

    def _allocated(self, scores: Mapping[str, Mapping[str, float]], layers: Sequence[LayerChoice]) -> dict[str, str]:
        by_macs = self.unit == "macs"
        costs = {layer.layer: layer.macs if by_macs else layer.kept for layer in layers}
        whole = sum(cost[DENSE] for cost in costs.values())
        least = sum(min(costs[layer][c] for c in found) for layer, found in scores.items())
        if least > self.budget * whole:
            what = "bits a weight at least" if self.bits else f"of the {self.unit} at least"
            raise InputError(f"{self}: the cheapest candidates of all layers leave {least / whole:.4f} {what}")
        return allocate(scores, costs, int(self.budget * whole)).choice


def patterns_of(asked: Asked, workload: Workload) -> LayerPatterns:
    """The patterns by layer that ``asked`` is for ``workload``: a policy, or whatever ``--nm`` takes, rules of one text
    apart by commas."""
    if not isinstance(asked, str):
        return LayerPatterns.read(asked)
    policy = Policy.read(asked)
    return LayerPatterns.read(asked.split(",")) if policy is None else policy.patterns(workload)


def layer_choices(workload: Workload, candidates: Sequence[str]) -> list[LayerChoice]:
    """The layers of ``workload`` that can have one of ``candidates`` in both products that read their weight, FF and
    BP, in the order of the step; what BDWP leaves dense has no pattern, what the integers leave whole no integers."""
    made = {text: _products(_under(workload, text)) for text in candidates}
    dense, names = _products(annotate(workload, "dense", None)), layer_names(workload)
    able = {
        p: {text: of[p] for text, of in made.items() if all(op.sparse or op.packed(Role.WEIGHT) for op in of[p])}
        for p in dense
    }
    return [_choice(p, dense[p], able[p], names) for p in names if able.get(p)]


def _under(workload: Workload, text: str) -> Workload:
    match candidate(text):
        case NMPattern() as pattern:
            return annotate(workload, "bdwp", pattern)
        case Levels() as levels:
            return annotate(workload, "integer", LayerPatterns.read({"*": levels}))
        case never:
            assert_never(never)


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
            rules.append(LayerPattern(layers=exact, pattern=candidate(chosen[layer.layer])))
    return LayerPatterns(rules=tuple(rules))


def _choice(
    parameter: str, dense: Sequence[MatrixOp], able: Mapping[str, Sequence[MatrixOp]], names: dict[str, tuple[str, ...]]
) -> LayerChoice:
    op = next(op for op in dense if op.pass_ is Pass.FF)
    gemm = op.gemm
    outputs = gemm.groups * (gemm.n if op.b.role is Role.WEIGHT else gemm.m)
    taps = gemm.k // gemm.run
    # A workload keeps sizes, not kernels: squares are taken for two dimensions, as in `dataflow/streaming`.
    kernel = () if taps == 1 else (isqrt(taps),) * 2 if isqrt(taps) ** 2 == taps else (taps,)
    others = {name for other, known in names.items() if other != parameter for name in known}

    def kept(form: NMPattern | Levels) -> int:
        return outputs * (form.kept(gemm.k, gemm.run) if isinstance(form, NMPattern) else gemm.k * form.bits)

    return LayerChoice(
        layer=next(name for name in (*names[parameter], parameter) if name not in others),
        names=names[parameter],
        shape=(outputs, gemm.run, *kernel),
        kept={DENSE: outputs * gemm.k, **{text: kept(candidate(text)) for text in able}},
        macs={text: sum(op.macs for op in ops) for text, ops in {DENSE: dense, **able}.items()},
    )
