"""Progressive techniques: training begins dense, or nearly so, and FF becomes N:M on the way.

The phases of a scheme say from which step on the machine meets an N:M operand; before it FF is dense work, however many
of the weights a technique has already made small.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import exp
from typing import Any, ClassVar

import torch
from torch import Tensor

from ..errors import InputError, require_int
from ..gemm import Pass
from ..sparsity import NMPattern
from .layer import SparseLayer, short_runs
from .masks import largest, mask_of_largest
from .nm import require_share
from .scheme import Phase
from .technique import Options, Technique, hold_zero, mask_of

__all__ = ["Cast", "DenseFirst", "MdGfExponential", "MdGfLinear", "SdGf", "SdGfGeometric", "Step", "UntilOptions"]


@dataclass(frozen=True, slots=True, kw_only=True)
class UntilOptions(Options):
    """``until``: share of the steps before FF is N:M."""

    until: float = 0.5

    def __post_init__(self) -> None:
        require_share("until", self.until, 0.0, 1.0)

    def schedule(self) -> dict[str, Any]:
        return {"until": self.until}


class DenseFirst(Technique):
    """What techniques share whose FF is dense up to a share of the steps; their layers are chosen from the start."""

    options_type: ClassVar[type[Options]] = UntilOptions

    @property
    def target(self) -> NMPattern:
        """The pattern that training ends with."""
        if self.asked is None:
            raise InputError(f"scheme {self.scheme.name!r} needs an N:M pattern, for example 2:8")
        return self.asked

    @property
    def arrived(self) -> bool:
        """Whether FF is N:M in the current step."""
        return self.phase.scheme == self.scheme.name

    @property
    def progress(self) -> float:
        """Share of the dense part that lies behind."""
        until: float = self.options.until
        return min(self.step / (until * self.steps), 1.0) if until else 1.0

    def passes_of(self, layer: SparseLayer, phase: Phase, reasons: dict[Pass, str]) -> frozenset[Pass]:
        reasons.update(short_runs(layer, frozenset((Pass.FF,)), self.target.group))
        return frozenset((Pass.FF,)) - reasons.keys()

    def forward_weight(self, layer: SparseLayer, weight: Tensor) -> Tensor:
        return largest(weight, layer.view(Pass.FF), self.target) if self.arrived else weight


class MdGf(DenseFirst):
    """Mask decay gradient flow (Bambhaniya et al., repository abhibambhaniya/progressive_gradient_flow_nm_sparsity).

    W_ff = W (m + (1 - m) d), where m marks the N largest |W| of every M along the inputs, at every step; d falls from 1
    and is 0 once ``until`` of the steps are done. BP reads W_ff; dW goes to all of W unchanged, without decay term. The
    repository counts d by steps; here it depends on the share of the steps that are done.
    """

    def remainder(self) -> float:
        """d of the current step, while FF is dense."""
        raise NotImplementedError

    def forward_weight(self, layer: SparseLayer, weight: Tensor) -> Tensor:
        kept = largest(weight, layer.view(Pass.FF), self.target)
        return kept if self.arrived else torch.where(kept != 0, weight, weight * self.remainder())


class MdGfLinear(MdGf):
    """MdGf with d = max(0, 1 - c t): c = 1 / (``until`` steps).

    The repository gives no c for it; that d is 0 after half of the steps is this project's choice.
    """

    def remainder(self) -> float:
        return 1.0 - self.progress


@dataclass(frozen=True, slots=True, kw_only=True)
class MdGfExponentialOptions(UntilOptions):
    """``rate``: c times the number of steps. The default is inferred from the repository's ViT-B example: c = 1e-4
    over 350 epochs of ImageNet at batch 4096 would be 11."""

    until: float = 0.9
    rate: float = 11.0

    def __post_init__(self) -> None:
        UntilOptions.__post_init__(self)
        require_share("rate", self.rate, 0.0, 1e6)


class MdGfExponential(MdGf):
    """MdGf with d = exp(-c t), which is never 0, so a fine-tuning with the bare mask follows (``until``)."""

    options_type: ClassVar[type[Options]] = MdGfExponentialOptions
    options: MdGfExponentialOptions

    def remainder(self) -> float:
        return exp(-self.options.rate * self.step / self.steps)


@dataclass(frozen=True, slots=True, kw_only=True)
class SdGfOptions(Options):
    """``dense_head``: first share of the steps, in which FF is dense."""

    dense_head: float = 0.0

    def __post_init__(self) -> None:
        require_share("dense_head", self.dense_head, 0.0, 1.0)

    def schedule(self) -> dict[str, Any]:
        return {"dense_head": self.dense_head}


class SdGf(Technique):
    """Structure decay gradient flow, stepwise (the repository of MdGf; its ``sparsify``).

    W_ff = the N_i largest |W| of every M_i along the inputs at every step, for patterns N_i:M_i that get sparser; BP
    reads W_ff, dW goes to all of W. Stepwise: (M-1):M, M/2:M, ... N:M for equal shares of the steps, as the comments of
    the repository have it (one version of its code leaves the last pattern to the fine-tuning).
    """

    options_type: ClassVar[type[Options]] = SdGfOptions

    def forward_weight(self, layer: SparseLayer, weight: Tensor) -> Tensor:
        return largest(weight, layer.view(Pass.FF), self.nm())


@dataclass(frozen=True, slots=True, kw_only=True)
class SdGfGeometricOptions(SdGfOptions):
    """``frames``: patterns in turn. The repository has four, from 8N:8M; the default here is three, since groups of
    8 M = 64 at 2:8 are longer than any machine of this project holds."""

    frames: int = 3

    def __post_init__(self) -> None:
        SdGfOptions.__post_init__(self)
        require_int("option 'frames'", self.frames, 1, 6)

    def schedule(self) -> dict[str, Any]:
        return {"dense_head": self.dense_head, "frames": self.frames}


class SdGfGeometric(SdGf):
    """SdGf at one density: ... 4N:4M, 2N:2M, N:M (the repository's ``fine``).

    A layer takes part in a phase where its runs hold one group of it, and a machine may refuse the longer groups.
    """

    options_type: ClassVar[type[Options]] = SdGfGeometricOptions


@dataclass(frozen=True, slots=True, kw_only=True)
class CastOptions(UntilOptions):
    """``decay``: L1 coefficient at the end of its ramp; ``period``: steps between masks (10 in the paper)."""

    until: float = 0.9
    decay: float = 1e-2
    period: int = 10

    def __post_init__(self) -> None:
        UntilOptions.__post_init__(self)
        require_share("decay", self.decay, 0.0, 1e6)
        require_int("option 'period'", self.period, 1, 2**31)


class Cast(DenseFirst):
    """CAST (Huang, Hu, Zhu, Chen, arXiv 2509.25996): the AdamS decay; FF is dense until the weights are N:M.

    Every ``period`` steps m marks the N largest |W| of every M. After each update, where m = 0,
    W <- sign(W) max(|W| - lr lambda_t / (sqrt(v) + eps), 0), with v the bias-corrected second moment of Adam (1 with
    another optimizer). From ``until`` on m stays and what it drops is zero. Recalled: the division by sqrt(v) and that
    lambda_t rises (linearly here). Lambda and ``until`` are this project's: with them what the mask drops has shrunk
    to less than a twentieth of what stays before it is cut, in an MLP on the digits. Weight scaling and
    self-distillation, the other parts of CAST, are left out.
    """

    options_type: ClassVar[type[Options]] = CastOptions
    options: CastOptions

    def refresh(self, layer: SparseLayer) -> None:
        if "mask" not in layer.state or not (self.arrived or self.step % self.options.period):
            layer.state["mask"] = mask_of_largest(layer.weight.detach(), layer.view(Pass.FF), self.target)

    def forward_weight(self, layer: SparseLayer, weight: Tensor) -> Tensor:
        if self.arrived and "mask" not in layer.state:
            self.refresh(layer)
        return weight.masked_fill(~mask_of(layer), 0) if self.arrived else weight

    def adjust_gradients(self, step: int) -> None:
        for layer in self.own_layers() if self.arrived else ():
            if layer.weight.grad is not None:
                layer.weight.grad.masked_fill_(~mask_of(layer), 0)

    def after_step(self, step: int, optimizer: torch.optim.Optimizer) -> None:
        for layer in self.own_layers():
            if Pass.FF in layer.passes:
                if self.arrived:
                    hold_zero(layer, mask_of(layer), optimizer)
                else:
                    self._decay(layer, optimizer)

    @torch.no_grad()
    def _decay(self, layer: SparseLayer, optimizer: torch.optim.Optimizer) -> None:
        weight, group, state = layer.weight, group_of(optimizer, layer), optimizer.state.get(layer.weight, {})
        amount = torch.full_like(weight, float(group["lr"]) * self.options.decay * self.progress)
        if "exp_avg_sq" in state:
            amount /= denominator(state["exp_avg_sq"], float(state["step"]), group)
        smaller = weight.sign() * (weight.abs() - amount).clamp_min(0)
        weight.copy_(torch.where(mask_of(layer), weight, smaller))


def group_of(optimizer: torch.optim.Optimizer, layer: SparseLayer) -> dict[str, Any]:
    """Settings under which ``optimizer`` updates the weight of ``layer``; a learning rate of 0 if it does not."""
    for group in optimizer.param_groups:
        if any(parameter is layer.weight for parameter in group["params"]):
            return group
    return {"lr": 0.0, "betas": (0.9, 0.999), "eps": 1e-8}


def denominator(second_moment: Tensor, age: float, group: dict[str, Any]) -> Tensor:
    """sqrt(v / (1 - beta2^t)) + eps of Adam (arXiv 1412.6980) after ``age`` updates."""
    corrected: Tensor = second_moment / (1.0 - group["betas"][1] ** age)
    return corrected.sqrt_().add_(group["eps"])


@dataclass(frozen=True, slots=True, kw_only=True)
class StepOptions(UntilOptions):
    """``earliest``, ``until``: shares of the steps between which the switch comes (T_min and T_max)."""

    earliest: float = 0.1

    def __post_init__(self) -> None:
        UntilOptions.__post_init__(self)
        require_share("earliest", self.earliest, 0.0, 1.0)
        if self.earliest > self.until:
            raise InputError(
                f"option 'earliest' of scheme 'step' must be at most 'until', {self.until:g}, not {self.earliest:g}"
            )


class Step(DenseFirst):
    """STEP (ICML 2023, arXiv 2302.01172; rule and clipping as in repository huyz2023/2by4-pretrain).

    First dense Adam. It ends when Z_t = mean |v_t - v_(t-1)|, averaged over a window of 1 / (1 - beta2) steps, is below
    Adam's eps, yet not before ``earliest`` and at the latest at ``until`` of the steps. Then W_ff = the N largest |W|
    of every M at every step, dW goes to all of W, and updates of these weights divide by sqrt(v + eps) with the v of
    the switch, which is only read from then on. It is bias-corrected here; the repository leaves that out.

    ``phases`` before training name the latest switch, an upper bound of the dense share; those of the technique follow
    the switch that came. Under an optimizer that is not Adam nothing can be frozen, and the switch is the latest.
    """

    options_type: ClassVar[type[Options]] = StepOptions
    options: StepOptions

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._changes: list[float] = []
        self._switched: int | None = None
        super().__init__(*args, **kwargs)

    def after_step(self, step: int, optimizer: torch.optim.Optimizer) -> None:
        if not isinstance(optimizer, torch.optim.Adam):
            return
        watched = [
            layer for layer in self.own_layers() if Pass.FF in layer.passes and optimizer.state.get(layer.weight)
        ]
        if self.arrived:
            for layer in watched:
                self._freeze(layer, optimizer)
            return
        changes = [change for layer in watched if (change := self._change(layer, optimizer)) is not None]
        if not changes:
            return
        group = group_of(optimizer, watched[0])
        self._changes.append(sum(total for total, _ in changes) / sum(count for _, count in changes))
        del self._changes[: -max(int(1 / (1 - group["betas"][1])), 1)]
        settled = sum(self._changes) / len(self._changes) < group["eps"]
        if settled and step + 1 > self.options.earliest * self.steps:
            self._switch(step + 1)

    @staticmethod
    def _change(layer: SparseLayer, optimizer: torch.optim.Optimizer) -> tuple[float, int] | None:
        """Sum of |v_t - v_(t-1)| and its terms; None if the optimizer skipped the step. Remembers v and its age."""
        held = optimizer.state[layer.weight]
        now, age, before = held["exp_avg_sq"], torch.as_tensor(float(held["step"])), layer.state.get("variance")
        if before is not None and float(layer.state["age"]) == float(age):
            return None
        change = float((now - before).abs().sum() if before is not None else now.abs().sum())
        layer.state.update(variance=now.clone(), age=age, last=age)
        return change, now.numel()

    def _switch(self, step: int) -> None:
        self._switched = step
        share = step / self.steps
        dense = Phase(share=share, scheme="dense", pattern=None)
        self.phases = (dense, Phase(share=1.0 - share, scheme=self.scheme.name, pattern=self.asked))

    @torch.no_grad()
    def _freeze(self, layer: SparseLayer, optimizer: torch.optim.Optimizer) -> None:
        """Turn the update that Adam made with v_t into that with v of the switch, and put that v back."""
        held, frozen = optimizer.state[layer.weight], layer.state.get("variance")
        age = float(held["step"])
        if frozen is None or float(layer.state["last"]) == age:
            return
        layer.state["last"] = torch.as_tensor(age)
        group = group_of(optimizer, layer)
        used = denominator(held.get("max_exp_avg_sq", held["exp_avg_sq"]), age, group)
        wanted = (frozen / (1.0 - group["betas"][1] ** float(layer.state["age"])) + group["eps"]).sqrt_()
        rate = float(group["lr"]) / (1.0 - group["betas"][0] ** age) * (-1.0 if group.get("maximize") else 1.0)
        layer.weight.add_(held["exp_avg"] * (1.0 / used - 1.0 / wanted), alpha=rate)
        held["exp_avg_sq"].copy_(frozen)

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "changes": list(self._changes), "switched": self._switched}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self._changes = list(state["changes"])
        if state["switched"] is not None:
            self._switch(state["switched"])
            self.enter_phase()
