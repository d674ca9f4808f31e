"""How sensitive a trained network is to each candidate of each layer, as a file; importing this must not import torch.

A candidate is what a layer may be brought to: an N:M pattern such as ``2:8``, or the levels of its weights, ``int4``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from ..errors import InputError, nearest, require_int
from ..files import write_atomically
from ..levels import INTEGERS, Levels
from ..one_line import OneLine
from ..sparsity import NMPattern
from ..strict import dump_json, read_json, read_text
from ..words import named

__all__ = [
    "DISTILLED",
    "MEASURED_LOSS",
    "METHODS",
    "Candidate",
    "LayerScores",
    "Scores",
    "candidate",
    "rank_correlation",
]

Candidate = NMPattern | Levels

MEASURED_LOSS: Final = "loss"
"""The method that changes one layer at a time and measures the loss: what the others estimate."""

DISTILLED: Final = "zeroq-distilled"
"""The method that looks at images made of the batch norms, and so is of networks that have some."""

METHODS: Final = {
    "fisher": "half the diagonal empirical Fisher information times the squared change of each weight",
    "hessian-trace": "mean Hessian trace of the layer times its squared change (HAWQ-V2)",
    "zeroq": "KL divergence of the outputs from those before, one layer changed at a time (ZeroQ)",
    DISTILLED: "the same on images distilled from the batch norms, so without data (ZeroQ)",
    "magnitude": "share of the squared norm of the weights that changes",
    "wanda": "share of the squared norm of weight times input norm that changes (Wanda, DaSS)",
    MEASURED_LOSS: "loss minus that before, one layer changed at a time: the measured truth",
}
"""What a score is, by method; of each the change in a layer adds to those in others."""


def candidate(text: str) -> Candidate:
    """The candidate of that name."""
    if ":" in text:
        return NMPattern.parse(text)
    if text not in INTEGERS:
        raise InputError(f"candidate {text!r} is no N:M pattern, nor integers: {nearest(text, INTEGERS)}")
    return INTEGERS[text]


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerScores:
    """``scores`` of a layer of ``weights`` elements, by method and candidate; more is worse."""

    __pydantic_config__ = {"extra": "forbid"}

    layer: str
    weights: int
    scores: dict[str, dict[str, float]] = field(hash=False)

    def __post_init__(self) -> None:
        require_int(f"weights of layer {self.layer!r}", self.weights, 1, 2**53)
        for method, found in self.scores.items():
            if method not in METHODS:
                raise InputError(f"method {method!r} of layer {self.layer!r} is unknown: {nearest(method, METHODS)}")
            for text, score in found.items():
                candidate(text)
                if not abs(score) < float("inf"):
                    raise InputError(f"score of {text} in layer {self.layer!r} must be finite, not {score}")


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Scores(OneLine):
    """Sensitivities of a network trained on ``data``, whose weights have the SHA-256 ``digest``.

    ``images`` of the training set were looked at, as many distilled for `DISTILLED`, ``probes`` random vectors drawn
    for traces, all by ``seed``.
    ``kept_dense``: why other layers with a weight have no scores.
    """

    __pydantic_config__ = {"extra": "forbid"}

    schema: Literal[1] = 1
    model: str
    data: str
    digest: str
    images: int
    probes: int
    seed: int
    layers: tuple[LayerScores, ...]
    kept_dense: dict[str, str] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        names = [layer.layer for layer in self.layers]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise InputError(f"layer {twice!r} has scores twice: list it once")

    @property
    def methods(self) -> tuple[str, ...]:
        """Those that every layer has scores by."""
        return tuple(m for m in METHODS if self.layers and all(m in layer.scores for layer in self.layers))

    def by(self, method: str) -> dict[str, dict[str, float]]:
        """Scores by one method: of each layer, of each candidate."""
        if method not in self.methods:
            raise InputError(f"no scores by {method!r}: {nearest(method, self.methods)}")
        return {layer.layer: layer.scores[method] for layer in self.layers}

    def agreement(self, method: str, candidates: Sequence[str]) -> float:
        """Rank correlation (Spearman's rho) with the loss that was measured, over all layers and ``candidates``."""
        mine, truth = self.by(method), self.by(MEASURED_LOSS)
        pairs = [(mine[layer][c], truth[layer][c]) for layer in mine for c in candidates if c in mine[layer]]
        return rank_correlation([a for a, _ in pairs], [b for _, b in pairs])

    def document(self) -> dict[str, Any]:
        """As the file has it."""
        return asdict(self)

    def save(self, path: Path) -> None:
        """Write the file, whole or not at all; equal scores give equal bytes."""
        write_atomically(path, dump_json(Scores, self))

    @classmethod
    def read(cls, path: Path) -> Scores:
        """Scores of a file; one that breaks a rule is refused with the place and the rule."""
        return read_json(cls, read_text(path), str(path))

    def _said(self) -> str:
        return f"{named(self.model)} on {named(self.data)}: {len(self.layers)} layers by {', '.join(self.methods)}"


def rank_correlation(a: Iterable[float], b: Iterable[float]) -> float:
    """Spearman's rho: the correlation of the ranks, of equal values their mean; 0 where one side is all equal."""
    x, y = _ranks(list(a)), _ranks(list(b))
    mean = (len(x) + 1) / 2
    both = sum((i - mean) * (j - mean) for i, j in zip(x, y, strict=True))
    alone = sum((i - mean) ** 2 for i in x) * sum((j - mean) ** 2 for j in y)
    return float(both / alone**0.5) if alone else 0.0


def _ranks(values: list[float]) -> list[float]:
    order = sorted(range(len(values)), key=values.__getitem__)
    ranks = [0.0] * len(values)
    first = 0
    while first < len(order):
        last = first
        while last + 1 < len(order) and values[order[last + 1]] == values[order[first]]:
            last += 1
        for place in range(first, last + 1):
            ranks[order[place]] = (first + last) / 2 + 1
        first = last + 1
    return ranks
