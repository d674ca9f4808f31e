"""What is usual for a model and its data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from ..data import BUNDLED
from ..schemes.scheme import scheme as scheme_of
from ..sparsity import NMPattern
from .spec import TrainSpec

__all__ = ["plan"]


@dataclass(frozen=True, slots=True)
class _Recipe:
    optimizer: Literal["sgd", "adam"]
    epochs: int
    learning_rate: float


# Epochs so that one dense training takes seconds, or on mnist5k up to a minute, of one core; rates as docs/training.md
# says, "How rates were chosen".
_RECIPES = {
    "digits": {
        "mlp": _Recipe("sgd", 40, 0.2), "resnet9": _Recipe("sgd", 12, 0.1), "vit_s": _Recipe("adam", 40, 2e-3),
    },
    "mnist5k": {
        "mlp": _Recipe("sgd", 20, 0.05), "resnet9": _Recipe("sgd", 4, 0.1), "vit_s": _Recipe("adam", 20, 2e-3),
    },
}  # fmt: skip
_TRANSFORMERS = ("vit_s", "vit_b_16", "swin_t", "convnext_t")
_USUAL = {"sgd": _Recipe("sgd", 30, 0.1), "adam": _Recipe("adam", 30, 2e-3)}
_DECAYS = {"sgd": 5e-4, "adam": 0.05}
_USUAL_PATTERN = NMPattern(keep=2, group=8)


def plan(
    model: str,
    *,
    data: str = "digits",
    scheme: str = "bdwp",
    pattern: NMPattern | None = None,
    epochs: int | None = None,
    batch: int | None = None,
    optimizer: Literal["sgd", "adam"] | None = None,
    learning_rate: float | None = None,
    weight_decay: float | None = None,
    **others: Any,
) -> TrainSpec:
    """A training with what is usual for the model and the data in the place of every ``None``; 2:8 if sparse."""
    base = model.partition("@")[0]
    usual = _RECIPES.get(data, {}).get(base) or _USUAL["adam" if base in _TRANSFORMERS else "sgd"]
    rule = optimizer or usual.optimizer
    # An optimizer that does not exist is refused by the spec.
    rate = usual.learning_rate if rule == usual.optimizer else _USUAL.get(rule, usual).learning_rate
    return TrainSpec(
        model=model, data=data, scheme=scheme, pattern=_pattern_of(scheme, pattern),
        epochs=usual.epochs if epochs is None else epochs,
        batch=(64 if data in BUNDLED else 128) if batch is None else batch,
        optimizer=rule,
        learning_rate=rate if learning_rate is None else learning_rate,
        weight_decay=_DECAYS.get(rule, 0.0) if weight_decay is None else weight_decay,
        **others,
    )  # fmt: skip


def _pattern_of(name: str, pattern: NMPattern | None) -> NMPattern | None:
    chosen = scheme_of(name)
    return (pattern or _USUAL_PATTERN) if chosen.sparse or chosen.unstructured else None
