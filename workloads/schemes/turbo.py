"""Turbo-VBI: weights pruned by variational inference under a prior that keeps them in bursts along the inputs.

The mathematics is in `hierarchy.py` and `support.py`; this is when it runs, beside an ordinary training. Zeros follow
no pattern, as in `unstructured.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ..errors import require_int
from ..sparsity import NMPattern
from .description import Scheme
from .hierarchy import Gamma, Precisions, precision_of, shrunk, support_evidence, weight_variance
from .layer import SparseLayer
from .nm import require_share
from .progressive import group_of
from .support import Chain, field_of
from .technique import Options
from .tickets import TrainedFirstOptions
from .unstructured import Unstructured, kept, top

__all__ = ["TurboVbi"]

_PRIOR = Precisions()
_FORGET = 0.95
"""Share of the mean curvature that a step keeps; a choice of this project."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TurboOptions(TrainedFirstOptions):
    """``burst``: mean length of what the prior keeps side by side along the inputs of an output.

    ``begin``, ``until``: shares of the steps between which supports are inferred, every ``period`` steps; the mask of
    the last time stays. ``examples``: as how many the data count against the prior.
    """

    begin: float = 0.25
    burst: float = 4.0
    period: int = 10
    examples: float = 10000.0

    def __post_init__(self) -> None:
        TrainedFirstOptions.__post_init__(self)
        require_share("begin", self.begin, 0.0, self.until)
        require_int("option 'period'", self.period, 1, 2**31)
        require_share("examples", self.examples, 1.0, 1e12)


class TurboVbi(Unstructured):
    """Turbo-VBI (Xia, Tsang and Lau, IEEE TSP 2023, arXiv 2302.10483; repository cxiaab/D-turbo-vbi-FL).

    q(w) = N(mu, sigma^2), and the weights that are trained are mu. From ``begin`` on mu goes down its prior, E[rho]
    mu^2 / 2, behind every step, and every ``period`` steps sigma^2, q(rho) and q(s) follow in turn, s by messages along
    each chain: the inputs of an output at one tap. At ``until`` what has q(s = 1) < 1/2 is pruned, and the rest is
    trained on under that mask. The likelihood's gradient is taken at mu, not at a draw of w; the repository, of the
    federated algorithm, holds sigma at 1e-13. Its curvature is the batch times the mean square of dW. Weights are
    measured in the root mean square of the largest that the density keeps at ``begin``. Curvature and unit are this
    project's.
    """

    options_type: ClassVar[type[Options]] = TurboOptions

    def __init__(
        self, model: nn.Module, chosen: Scheme, pattern: NMPattern | None, *, seed: int, steps: int, options: Options
    ) -> None:
        super().__init__(model, chosen, pattern, seed=seed, steps=steps, options=options)
        self._batch = 1
        self.stretch = tuple(max(round(share * steps), 1) for share in (self.options.begin, self.options.until))
        self.chains: dict[str, Chain | None] = {}
        for layer, share in self.shares(self.density):
            self.chains[layer.name] = Chain(density=share, burst=self.options.burst) if share < 1.0 else None
            each = torch.zeros_like(layer.weight, dtype=torch.float32)
            layer.state.update(kept=each + share, curvature=each, shape=each.clone(), rate=each.clone())
            layer.state.update({name: torch.zeros((), dtype=torch.float64) for name in ("seen", "unit", "field")})

    @property
    def initial_density(self) -> float:
        return 1.0

    def prepared(self, layer: SparseLayer, x: Tensor, conv: Any) -> tuple[Tensor, Any]:
        """``x`` [batch, ...] as it is, of the dtype of the GEMM: only its batch is noted."""
        self._batch = len(x) if layer.module.training else self._batch
        return x, conv

    def adjust_gradients(self, step: int) -> None:
        super().adjust_gradients(step)
        for layer in self.own_layers() if step < self.stretch[1] else ():
            gradient = layer.weight.grad
            if gradient is not None and bool(gradient.isfinite().all()):
                added = gradient.float().square().mul_((1.0 - _FORGET) * self._batch)
                layer.state["curvature"] = self._held(layer, "curvature") * _FORGET + added
                layer.state["seen"] = layer.state["seen"] + 1

    def after_step(self, step: int, optimizer: torch.optim.Optimizer) -> None:
        done, (begin, end) = step + 1, self.stretch
        for layer in self.own_layers() if begin <= done <= end else ():
            if done == begin:
                self._start(layer)
            self._descend(layer, optimizer)
            if done == end or (done - begin) % self.options.period == 0:
                log_odds = self.infer(layer)
                if done == end:
                    self.set_mask(layer, self.chosen(layer, log_odds))
        super().after_step(step, optimizer)

    @torch.no_grad()
    def infer(self, layer: SparseLayer) -> Tensor:
        """Bring q up to the weights of now: log-odds of q(s = 1), float64 [lines, inputs]."""
        chain, unit = self.chains[layer.name], self._unit(layer)
        mean = layer.weight.double() / unit
        seen = max(1.0 - _FORGET ** float(layer.state["seen"]), 1.0 - _FORGET)
        curvature = self._held(layer, "curvature").double() * (self.options.examples * unit**2 / seen)
        moment = mean.square() + weight_variance(curvature, self._precision(layer))
        precision = precision_of(moment, self._held(layer, "kept").double(), _PRIOR)
        evidence = self.lines(layer, support_evidence(precision, _PRIOR))
        field, log_odds = float(layer.state["field"]), torch.full_like(evidence, torch.inf)
        if chain is not None:
            field, log_odds = field_of(evidence, chain, kept(chain.density, evidence.numel()), field)
        layer.state.update(shape=precision.shape.float(), rate=precision.rate.float())
        layer.state["field"] = torch.full_like(layer.state["field"], field)
        layer.state["kept"] = self.spread(layer, log_odds.sigmoid().float())
        return log_odds

    def chosen(self, layer: SparseLayer, log_odds: Tensor) -> Tensor:
        """The mask that log-odds of q(s = 1) leave, float64 [lines, inputs]: bool of any shape, the weight's."""
        chain = self.chains[layer.name]
        count = kept(chain.density if chain else 1.0, log_odds.numel())
        return self.spread(layer, top(log_odds, count, torch.ones_like(log_odds, dtype=torch.bool)))

    def lines(self, layer: SparseLayer, weight: Tensor) -> Tensor:
        """A tensor of any dtype stored like the weight, of any shape, as [lines, inputs]: one an output and tap."""
        return layer.canonical(weight).transpose(2, 3).flatten(0, 2)

    def spread(self, layer: SparseLayer, lines: Tensor) -> Tensor:
        """Inverse of :meth:`lines`: [lines, inputs] of any dtype, stored like the weight, of any shape."""
        groups, outputs, inputs, taps = layer.shape
        return layer.stored(lines.reshape(groups, outputs, taps, inputs).transpose(2, 3)).contiguous()

    def _held(self, layer: SparseLayer, name: str) -> Tensor:
        layer.state[name] = layer.state[name].to(layer.weight.device)
        return layer.state[name]

    def _unit(self, layer: SparseLayer) -> float:
        return float(layer.state["unit"])

    def _precision(self, layer: SparseLayer) -> Gamma:
        return Gamma(self._held(layer, "shape").double(), self._held(layer, "rate").double())

    def _start(self, layer: SparseLayer) -> None:
        """Measure the weights, and take the prior's word for their precisions."""
        chain, weight = self.chains[layer.name], layer.weight.detach().double().flatten()
        largest = weight.abs().topk(kept(chain.density if chain else 1.0, len(weight))).values
        # Weights that are all 0 have no unit, and any will do.
        layer.state["unit"] = largest.square().mean().sqrt().clamp_min(1e-30).cpu()
        supports = self._held(layer, "kept").double()
        precision = precision_of(torch.zeros_like(supports), supports, _PRIOR)
        layer.state.update(shape=precision.shape.float(), rate=precision.rate.float())

    @torch.no_grad()
    def _descend(self, layer: SparseLayer, optimizer: torch.optim.Optimizer) -> None:
        group = group_of(optimizer, layer)
        # With momentum, a gradient that stays moves a weight by so many rates.
        rate = float(group["lr"]) / (1.0 - float(group.get("momentum", 0.0)))
        scale = self.options.examples * self._unit(layer) ** 2
        layer.weight.copy_(shrunk(layer.weight.double(), self._precision(layer), rate / scale))
