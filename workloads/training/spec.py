"""All that decides a training, and what comes of it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import Field
from torch import nn

from ..data import Images
from ..errors import InputError, nearest, require_int
from ..host import Host
from ..one_line import OneLine
from ..schemes.scheme import scheme
from ..schemes.technique import Technique
from ..sparsity import NMPattern
from ..update_rule import UPDATE_RULES, RuleName, UpdateRule, update_rule
from ..words import named, scheme_name, seconds

__all__ = ["AMP", "NUMERICS", "AmpName", "EpochLog", "NumericsName", "TrainResult", "TrainSpec", "to_dict"]

AmpName = Literal["fp16", "bf16", "fp8"]
AMP: tuple[AmpName, ...] = get_args(AmpName)
"""Types of mixed precision: float16 with loss scaling, bfloat16, and operands of E4M3 and E5M2 (schemes/float8.py)."""

NumericsName = Literal["torch", "machine", "machine-bf16", "machine-fp8"]
NUMERICS: tuple[NumericsName, ...] = get_args(NumericsName)
"""Who computes: PyTorch, or the machine's arithmetic (docs/design/accelerator.md) with FP16, BF16 or FP8 operands."""

Option = int | float | bool | str


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainSpec:
    """All that decides a training; :func:`plan` fills in what is usual.

    ``optimizer`` names one of `UPDATE_RULES`, whose `Trained` is what runs. The learning rate rises linearly over the
    share ``warmup`` of the steps and falls to zero along a cosine (arXiv 1608.03983). ``weight_decay`` is on tensors of
    two or more dimensions. ``options`` are those of the scheme's technique. ``paths``: sub-networks of a super-network
    that a step trains, one at random, or the largest, the smallest and others at random; 1 for other models.
    ``numerics`` other than PyTorch's are those of a machine whose operands are FP16 (``machine``), BF16
    (``machine-bf16``) or FP8 (``machine-fp8``).
    """

    __pydantic_config__ = {"extra": "forbid"}

    model: str
    data: str
    scheme: str
    pattern: NMPattern | None
    epochs: int
    batch: int
    optimizer: RuleName
    learning_rate: float
    weight_decay: float
    warmup: float = 0.1
    label_smoothing: float = 0.0
    amp: AmpName | None = None
    numerics: Annotated[NumericsName, Field(exclude_if=lambda numerics: numerics == "torch")] = "torch"
    seed: int = 0
    paths: int = 1
    options: dict[str, Option] = field(default_factory=dict)

    def __post_init__(self) -> None:
        require_int("epochs", self.epochs, 1, 10**6)
        require_int("batch", self.batch, 1, 2**20)
        require_int("seed", self.seed, 0, 2**32 - 1)
        require_int("paths", self.paths, 1, 2**10)
        _require_number("learning rate", self.learning_rate, 0.0, 1e6, above=True)
        _require_number("weight decay", self.weight_decay, 0.0, 1e6)
        _require_number("warm-up", self.warmup, 0.0, 1.0)
        _require_number("label smoothing", self.label_smoothing, 0.0, 1.0)
        rule = update_rule(self.optimizer)
        if self.weight_decay and not rule.decays:
            having = ", ".join(other.name for other in UPDATE_RULES.values() if other.decays)
            raise InputError(
                f"weight decay must be 0 under {rule.name!r}, not {self.weight_decay:g}: its update has none; those "
                f"that have are {having}"
            )
        if self.amp is not None and self.amp not in AMP:
            raise InputError(f"amp {self.amp!r} is unknown: {nearest(self.amp, AMP)}")
        if self.numerics not in NUMERICS:
            raise InputError(f"numerics {self.numerics!r} are unknown: {nearest(self.numerics, NUMERICS)}")
        if self.amp is not None and self.numerics != "torch":
            raise InputError(
                f"amp {self.amp!r} is PyTorch's; with numerics {self.numerics!r} leave it out, or choose numerics torch"
            )
        scheme(self.scheme)
        own = sorted(self.options.keys() & {"model", "name", "pattern", "seed", "steps"})
        if own:
            raise InputError(f"option {own[0]!r} is none of scheme {self.scheme!r}: the training sets it itself")

    @property
    def scales_loss(self) -> bool:
        """Whether gradients have so little range that the loss is scaled, and a step whose overflow is skipped."""
        return self.amp == "fp16" or self.numerics in ("machine", "machine-fp8")

    @property
    def rule(self) -> UpdateRule:
        """What ``optimizer`` names."""
        return update_rule(self.optimizer)

    def rate(self, step: int, steps: int) -> float:
        """Learning rate of ``step`` (from 0) of ``steps``."""
        rising = round(self.warmup * steps)
        if step < rising:
            return self.learning_rate * (step + 1) / rising
        return self.learning_rate * 0.5 * (1.0 + math.cos(math.pi * (step - rising) / (steps - rising)))


def _require_number(where: str, value: float, low: float, high: float, *, above: bool = False) -> None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not low <= value <= high or (above and value == low):
        bound = f"above {low:g}" if above else f"from {low:g}"
        raise InputError(f"{where} must be a number {bound} to {high:g}, not {value!r}")


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochLog:
    """One epoch: mean training loss and accuracy over its steps, the validation set after it, and the layers at work.

    ``seconds`` include the validation. ``learning_rate``, ``flip_rate`` and ``sad`` are of the last step. Densities, of
    the weights in FF and BP and of the gradient in WU, and the two rates are means over all weights of the layers that
    the technique makes sparse.
    """

    epoch: int
    step: int
    loss: float
    train_accuracy: float
    validation_loss: float
    validation_accuracy: float
    learning_rate: float
    seconds: float
    flip_rate: float
    sad: float
    density_ff: float
    density_bp: float
    density_wu: float


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class TrainResult(OneLine):
    """A finished training.

    ``accuracy`` and ``test_loss`` are of the test set, which is looked at once, after the last epoch; nothing is chosen
    by it. ``images``: in the training, validation and test set. ``hosts``: where it ran, one after the other.
    ``digest``: SHA-256 of the trained parameters and buffers. ``technique``: still at work on ``model``; its
    ``detach()`` leaves the model with its dense master weights. ``folder``: where checkpoint and log lie. ``measure``:
    mean cross-entropy and accuracy of the trained model on other images, called by a name that errors have.
    """

    spec: TrainSpec
    log: tuple[EpochLog, ...]
    test_loss: float
    accuracy: float
    images: tuple[int, int, int]
    digest: str
    device: str
    hosts: tuple[Host, ...]
    kept_dense: dict[str, str]
    folder: Path | None
    model: nn.Module = field(repr=False, compare=False)
    technique: Technique = field(repr=False, compare=False)
    measure: Callable[[str, Images], tuple[float, float]] = field(repr=False, compare=False)

    @property
    def validation(self) -> float:
        """Share of the validation images that are classified right after the last epoch."""
        return self.log[-1].validation_accuracy

    @property
    def seconds(self) -> float:
        """Time of all epochs."""
        return sum(row.seconds for row in self.log)

    def _said(self) -> str:
        spec = self.spec
        return (
            f"{named(spec.model)} on {named(spec.data)}, {scheme_name(spec.scheme, spec.pattern)}, seed {spec.seed}: "
            f"{100 * self.accuracy:.2f} % of {self.images[2]:,} test images after {len(self.log)} epochs, "
            f"{seconds(self.seconds)}"
        )


def to_dict(result: TrainResult) -> dict[str, Any]:
    """A finished training as one JSON document."""
    spec = {**asdict(result.spec), "pattern": None if result.spec.pattern is None else str(result.spec.pattern)}
    return {
        "spec": spec,
        "accuracy": result.accuracy,
        "test_loss": result.test_loss,
        "validation": result.validation,
        "images": dict(zip(("training", "validation", "test"), result.images, strict=True)),
        "seconds": result.seconds,
        "device": result.device,
        "hosts": [asdict(host) for host in result.hosts],
        "digest": result.digest,
        "sparse_layers": list(result.technique.layers),
        "kept_dense": result.kept_dense,
        "folder": None if result.folder is None else str(result.folder),
        "log": [asdict(row) for row in result.log],
    }
