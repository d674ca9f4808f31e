"""Partially binary weights (PB-LLM): the salient ones in 8 bits, all others two values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from ..errors import InputError, nearest, require_int
from ..gemm import Pass
from .estimated import Estimated, EstimatedOptions
from .estimator import Estimator, Few, sign
from .layer import SparseLayer
from .nm import require_share
from .oneshot import as_matrix, as_stored, inverse_factor, watch_inputs
from .technique import Options
from .ternary import Bytes
from .unstructured import kept, top

__all__ = ["PartialMean", "PartialOptions", "PartialSign", "PbLlm", "PbLlmBytes", "PbLlmMean", "Salient", "salient"]

_METRICS = ("magnitude", "hessian")
_HESSIAN, _MOST = "hessian", 127


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Salient:
    """The salient weights of a layer: ``codes`` times ``step`` where ``mask`` is True.

    ``mask``, bool, and ``codes``, int8, -127 to 127 and 0 elsewhere, are [groups, out, in, taps]; ``step`` is
    [groups, out, 1, 1] of a float dtype.
    """

    mask: Tensor
    codes: Tensor
    step: Tensor

    def plane(self, dtype: torch.dtype) -> Few:
        """Them alone, in ``dtype``."""
        return Few(values=self.codes.to(dtype), scale=self.step)

    @property
    def values(self) -> Tensor:
        """Of [groups, out, in, taps] and of the dtype of ``step``."""
        return self.codes.to(self.step.dtype) * self.step

    def mean_of_others(self, x: Tensor, dims: tuple[int, ...]) -> Tensor:
        """Of ``x`` [groups, out, in, taps] over ``dims`` where it is not salient, 0 of none; [.., 1] along them, of its
        float dtype, FP32 at least."""
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        return wide.masked_fill(self.mask, 0).sum(dims, keepdim=True) / (~self.mask).sum(dims, keepdim=True).clamp_min(
            1
        )


def salient(weight: Tensor, score: Tensor, share: float) -> Salient:
    """The ``share`` of the largest ``score`` of a layer, in 8 bits: steps of max |W| / 127 of the salient of a filter.

    Both are [groups, out, in, taps] of a float dtype; of equal scores the earlier one.
    """
    mask = top(score, kept(share, score.numel()), torch.ones_like(score, dtype=torch.bool))
    chosen = weight.masked_fill(~mask, 0)
    step = (chosen.abs().amax((2, 3), keepdim=True) / _MOST).clamp_min(torch.finfo(weight.dtype).tiny)
    return Salient(mask=mask, codes=(chosen / step).round().clamp(-_MOST, _MOST).to(torch.int8), step=step)


@dataclass(frozen=True, slots=True, eq=False)
class PartialSign(Estimator):
    """alpha sign(W), alpha the mean |W| of the layer, where W is not salient; dW = alpha g there, 0 where it is."""

    held: Salient

    def _mean(self, x: Tensor) -> Tensor:
        return self.held.mean_of_others(x.abs(), (0, 1, 2, 3))

    def few(self, x: Tensor) -> Few:
        values = sign(x).masked_fill(self.held.mask, 0)
        return Few(values=values, scale=self._mean(x), more=(self.held.plane(x.dtype),))

    def gradient(self, g: Tensor, x: Tensor) -> Tensor:
        return (g * self._mean(x)).masked_fill(self.held.mask, 0).to(x.dtype)


@dataclass(frozen=True, slots=True, eq=False)
class PartialMean(Estimator):
    """alpha sign(W - mu) + mu of every filter where W is not salient, as two planes of 0 and 1: (mu + alpha) where
    W >= mu, (mu - alpha) elsewhere; dW = alpha g, 0 where it is salient.

    mu is the mean of W, alpha that of |W - mu|, both over those that are not salient.
    """

    held: Salient

    def _means(self, x: Tensor) -> tuple[Tensor, Tensor]:
        mean = self.held.mean_of_others(x, (2, 3))
        return mean, self.held.mean_of_others((x - mean).abs(), (2, 3))

    def few(self, x: Tensor) -> Few:
        mean, alpha = self._means(x)
        up, down = (side.masked_fill(self.held.mask, 0).to(x.dtype) for side in (x >= mean, x < mean))
        return Few(values=up, scale=mean + alpha, more=(Few(values=down, scale=mean - alpha), self.held.plane(x.dtype)))

    def gradient(self, g: Tensor, x: Tensor) -> Tensor:
        return (g * self._means(x)[1]).masked_fill(self.held.mask, 0).to(x.dtype)


@dataclass(frozen=True, slots=True, kw_only=True)
class PartialOptions(EstimatedOptions):
    """``until``: share of the steps before weights are brought to few values; ``salient``: share of the weights of a
    layer that stays in 8 bits; ``metric``: ``magnitude``, the largest |W|, or ``hessian``, the largest
    W^2 / c^2, c the diagonal of the Cholesky factor of the inverse of X X^T of the inputs of the last ``calibration``
    dense steps.
    """

    norm: str = "none"
    until: float = 0.5
    salient: float = 0.1
    metric: str = "magnitude"
    calibration: int = 8

    def __post_init__(self) -> None:
        EstimatedOptions.__post_init__(self)
        require_share("until", self.until, 0.0, 1.0)
        require_share("salient", self.salient, 1e-6, 1.0)
        require_int("option 'calibration'", self.calibration, 1, 2**31)
        if self.metric not in _METRICS:
            raise InputError(f"option 'metric' is {self.metric!r}: {nearest(str(self.metric), _METRICS)}")

    def schedule(self) -> dict[str, Any]:
        return {"until": self.until}


class PbLlm(Estimated):
    """PB-LLM (Shang et al., arXiv 2310.00034; repository hahnyuan/PB-LLM), its training.

    The salient weights are chosen once, over a layer, when training has been dense for ``until`` of the steps, and
    frozen at their 8 bits; of the others FF and BP see alpha sign(W).
    """

    options_type: ClassVar[type[Options]] = PartialOptions
    options: PartialOptions
    partial: ClassVar[type[PartialSign] | type[PartialMean]] = PartialSign

    def __init__(self, model: nn.Module, *args: Any, **kwargs: Any) -> None:
        self._hooks_of_inputs: list[RemovableHandle] = []
        super().__init__(model, *args, **kwargs)

    def weight_estimator_of(self, layer: SparseLayer) -> Estimator:
        return self.partial(self.held(layer))

    def held(self, layer: SparseLayer) -> Salient:
        """The salient weights of ``layer``; they are chosen now if they were not before."""
        if "codes" not in layer.state:
            self._choose(layer)
        mask, codes, step = (layer.state[key].to(layer.weight.device) for key in ("mask", "codes", "step"))
        return Salient(mask=layer.canonical(mask), codes=layer.canonical(codes), step=step)

    def _choose(self, layer: SparseLayer) -> None:
        own = next(other for other in self.own_layers() if other.weight is layer.weight)
        found = salient(layer.canonical(layer.weight.detach()), self._score(own), self.options.salient)
        made = {"mask": layer.stored(found.mask), "codes": layer.stored(found.codes), "step": found.step}
        for tied in self.layers.values():
            if tied.weight is layer.weight:
                tied.state = dict(made)

    def _score(self, layer: SparseLayer) -> Tensor:
        weight = layer.weight.detach()
        if self.options.metric == "magnitude":
            return layer.canonical(weight).abs()
        if _HESSIAN not in layer.state:
            raise InputError(
                f"scheme {self.scheme.name!r} has seen no input of layer {layer.name!r}, which metric=hessian needs; "
                "train a dense step before (until > 0), or take metric=magnitude"
            )
        factors = torch.stack([inverse_factor(hessian) for hessian in layer.state[_HESSIAN]])
        matrix = as_matrix(layer, weight).double()
        return layer.canonical(as_stored(layer, (matrix / factors.diagonal(dim1=1, dim2=2)[:, None]).square()))

    def _gather(self, layer: SparseLayer, x: Tensor) -> None:
        hessian = x.float() @ x.float().transpose(1, 2)
        held = layer.state.get(_HESSIAN)
        layer.state[_HESSIAN] = hessian if held is None else held + hessian

    def refresh(self, layer: SparseLayer) -> None:
        if Pass.FF in layer.passes and "codes" not in layer.state:
            self._choose(layer)

    def before_step(self, step: int) -> None:
        self._unwatch()
        super().before_step(step)
        begins = round(self.options.until * self.steps)
        if self.options.metric == "hessian" and begins - self.options.calibration <= step < begins:
            self._hooks_of_inputs = watch_inputs(self.layers.values(), self._gather)

    def _unwatch(self) -> None:
        while self._hooks_of_inputs:
            self._hooks_of_inputs.pop().remove()

    def after_step(self, step: int, optimizer: torch.optim.Optimizer) -> None:
        self._unwatch()
        for layer in self.own_layers():
            if "codes" in layer.state:
                # Momentum and decay would move them on.
                held = self.held(layer)
                with torch.no_grad():
                    layer.weight.copy_(torch.where(layer.stored(held.mask), layer.stored(held.values), layer.weight))

    def detach(self) -> None:
        self._unwatch()
        super().detach()


class PbLlmBytes(PbLlm):
    """The same under activations of 8 bits a token."""

    def activation_estimator(self) -> Estimator:
        return Bytes()


class PbLlmMean(PbLlm):
    """The same with the values of its post-training form, alpha sign(W - mu) + mu of a filter.

    There mu and alpha are means over a filter whose salient weights are taken for 0, which its code marks as a problem;
    here over those that are not salient. Its error feedback (GPTQ) is left to the training.
    """

    partial = PartialMean
