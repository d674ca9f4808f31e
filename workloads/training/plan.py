"""What is usual for a model and its data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..data import BUNDLED
from ..models import zoo
from ..schemes import option_names
from ..schemes.scheme import scheme as scheme_of
from ..sparsity import NMPattern
from ..update_rule import ADAMW, NESTEROV, RuleName, UpdateRule, update_rule
from .spec import TrainSpec

__all__ = ["plan"]


@dataclass(frozen=True, slots=True)
class _Recipe:
    rule: UpdateRule
    epochs: int
    learning_rate: float


# Epochs so that one dense training takes seconds, or on mnist5k up to a minute, of one core; rates as docs/training.md
# says, "How rates were chosen".
_RECIPES = {
    "digits": {
        "mlp": _Recipe(NESTEROV, 40, 0.2),
        "cnn": _Recipe(NESTEROV, 20, 0.1),
        "resnet9": _Recipe(NESTEROV, 12, 0.1),
        "vit_s": _Recipe(ADAMW, 40, 2e-3),
        "birealnet": _Recipe(ADAMW, 20, 2e-3),
        "supernet9": _Recipe(NESTEROV, 30, 0.05),
        "snn": _Recipe(ADAMW, 20, 5e-3),
        "snn_t4": _Recipe(ADAMW, 20, 5e-3),
    },
    "mnist5k": {
        "mlp": _Recipe(NESTEROV, 20, 0.05),
        "resnet9": _Recipe(NESTEROV, 4, 0.1),
        "vit_s": _Recipe(ADAMW, 20, 2e-3),
        "supernet9": _Recipe(NESTEROV, 10, 0.05),
    },
}
_NORMED = ("birealnet",)
"""Models with a batch norm in front of every product but the first: what a scheme normalises once more by itself,
elsewhere for want of one, it leaves as it is."""
_BY_ADAMW = ("vit_s", "vit_b_16", "swin_t", "convnext_t", "birealnet")
_EPOCHS = 30
_USUAL_PATTERN = NMPattern(keep=2, group=8)


def plan(
    model: str,
    *,
    data: str = "digits",
    scheme: str = "bdwp",
    pattern: NMPattern | None = None,
    epochs: int | None = None,
    batch: int | None = None,
    optimizer: RuleName | None = None,
    learning_rate: float | None = None,
    weight_decay: float | None = None,
    **others: Any,
) -> TrainSpec:
    """A training with what is usual for the model and the data in the place of every ``None``; 2:8 if sparse."""
    base = zoo.base(model)
    usual = _RECIPES.get(data, {}).get(base) or _recipe(ADAMW if base in _BY_ADAMW else NESTEROV)
    rule = usual.rule if optimizer is None else update_rule(optimizer)
    rate = (usual if rule is usual.rule else _recipe(rule)).learning_rate
    options = others.pop("options", None) or {}
    if base in _NORMED and "norm" in option_names(scheme):
        options = {"norm": "none", **options}
    return TrainSpec(
        model=model,
        data=data,
        scheme=scheme,
        pattern=_pattern_of(scheme, pattern),
        epochs=usual.epochs if epochs is None else epochs,
        batch=(64 if data in BUNDLED else 128) if batch is None else batch,
        optimizer=rule.name,
        learning_rate=rate if learning_rate is None else learning_rate,
        weight_decay=rule.trained.weight_decay if weight_decay is None else weight_decay,
        options=options,
        **others,
    )


def _recipe(rule: UpdateRule) -> _Recipe:
    """What is usual under a rule where nothing was tried."""
    return _Recipe(rule, _EPOCHS, rule.trained.learning_rate)


def _pattern_of(name: str, pattern: NMPattern | None) -> NMPattern | None:
    chosen = scheme_of(name)
    chosen.require_no_pattern(pattern)
    return (pattern or _USUAL_PATTERN) if chosen.takes_pattern else None
