"""One-shot techniques: dense training, one choice of N:M weights, and training on with that choice.

The patterns of the papers' repositories count what is removed; here, as everywhere, they count what is kept.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from ..errors import InputError, require_int
from ..gemm import Pass
from ..sparsity import NMPattern
from .layer import SparseLayer
from .layers import ATTRIBUTE
from .masks import mask_of_largest
from .progressive import DenseFirst, UntilOptions
from .technique import Options, hold_zero, mask_of

__all__ = [
    "Magnitude",
    "OneShotOptions",
    "SparseGpt",
    "Wanda",
    "as_matrix",
    "as_stored",
    "columns",
    "inverse_factor",
    "prune_columns",
    "watch_inputs",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class OneShotOptions(UntilOptions):
    """``until``: share of the steps after which the weights are pruned; 1 prunes after the last one, as the papers do.

    ``calibration``: how many of the last dense steps give their inputs to the choice, where it depends on them.
    """

    until: float = 0.8
    calibration: int = 8

    def __post_init__(self) -> None:
        UntilOptions.__post_init__(self)
        require_int("option 'calibration'", self.calibration, 1, 2**31)


class Magnitude(DenseFirst):
    """The N largest |W| of every M along the inputs stay, once; the rest is zero, and so are its gradient and momentum.

    The baseline of SparseGPT (Frantar and Alistarh, arXiv 2301.00774). That training goes on with the fixed mask, for
    a fifth of the steps by default, is this project's choice.
    """

    options_type: ClassVar[type[Options]] = OneShotOptions
    options: OneShotOptions
    statistics = ""
    """What is gathered of the inputs of a layer, under this name in its state; nothing if empty."""

    def __init__(self, model: nn.Module, *args: Any, **kwargs: Any) -> None:
        self._model = model
        self._hooks: list[RemovableHandle] = []
        super().__init__(model, *args, **kwargs)
        self._prune_at = round(self.options.until * self.steps)

    def choose(self, layer: SparseLayer) -> tuple[Tensor, Tensor]:
        """Mask of what stays, N:M along the inputs, and the weight with its values there; stored like the weight,
        of any shape, the mask bool, the values of a float dtype."""
        weight = layer.weight.detach()
        return mask_of_largest(weight, layer.view(Pass.FF), self.target), weight

    def gather(self, layer: SparseLayer, x: Tensor) -> None:
        """Add ``x``, :func:`columns` of an input, [groups, columns, samples] of any float dtype, to the statistics of
        ``layer``."""

    def calibrate(self, batches: Iterable[Tensor | tuple[Any, ...]]) -> None:
        """Gather the statistics from these inputs of the model, in evaluation mode, in the place of those of steps.

        A batch has any shape and dtype, those that the model takes.
        """
        for layer in self.layers.values():
            layer.state.pop(self.statistics, None)
        was_training = [module for module in self._model.modules() if module.training]
        self._model.eval()
        self._watch()
        try:
            with torch.no_grad():
                for batch in batches:
                    self._model(*(batch if isinstance(batch, tuple) else (batch,)))
        finally:
            self._unwatch()
            for module in was_training:
                module.training = True

    def prune(self, optimizer: torch.optim.Optimizer | None = None) -> None:
        """Choose now, in every layer; the training loop does so when its dense part ends."""
        self._unwatch()
        for layer in self.own_layers():
            mask, values = self.choose(layer)
            with torch.no_grad():
                layer.weight.copy_(values)
            for tied in self.layers.values():
                if tied.weight is layer.weight:
                    tied.state = {"mask": mask}
            hold_zero(layer, mask, optimizer)

    def _watch(self) -> None:
        if self.statistics:
            self._hooks += watch_inputs(self.layers.values(), self.gather)

    def _unwatch(self) -> None:
        while self._hooks:
            self._hooks.pop().remove()

    def forward_weight(self, layer: SparseLayer, weight: Tensor) -> Tensor:
        if "mask" in layer.state:
            return weight.masked_fill(~mask_of(layer), 0)
        if not self.arrived:
            return weight
        mask, values = self.choose(layer)
        return values.to(weight.dtype).masked_fill(~mask, 0)

    def before_step(self, step: int) -> None:
        self._unwatch()
        if self.arrived_at(step) and any("mask" not in layer.state for layer in self.layers.values()):
            self.prune()
        super().before_step(step)
        if self._prune_at - self.options.calibration <= step < self._prune_at:
            self._watch()

    def arrived_at(self, step: int) -> bool:
        """Whether the weights of ``step`` are pruned."""
        return step >= self._prune_at

    def adjust_gradients(self, step: int) -> None:
        self._unwatch()
        for layer in self.own_layers():
            if "mask" in layer.state and layer.weight.grad is not None:
                layer.weight.grad.masked_fill_(~mask_of(layer), 0)

    def after_step(self, step: int, optimizer: torch.optim.Optimizer) -> None:
        self._unwatch()
        if step == self._prune_at - 1:
            self.prune(optimizer)
        elif self.arrived_at(step):
            for layer in self.own_layers():
                hold_zero(layer, mask_of(layer), optimizer)

    def detach(self) -> None:
        self._unwatch()
        super().detach()

    def _gathered(self, layer: SparseLayer) -> Tensor:
        if self.statistics not in layer.state:
            raise InputError(
                f"scheme {self.scheme.name!r} has seen no input of layer {layer.name!r}; train a dense step before the "
                "weights are pruned, or calibrate with some batches"
            )
        return layer.state[self.statistics]


class Wanda(Magnitude):
    """Wanda (Sun et al., arXiv 2306.11695; repository locuslab/wanda).

    Of every M inputs of one output the N with the largest |W_ij| ||X_j||_2 stay, where X_j holds all values of input j
    in the calibration data: for a convolution, one channel under one tap.
    """

    statistics = "squares"

    def gather(self, layer: SparseLayer, x: Tensor) -> None:
        squares = x.float().square().sum(2)
        held = layer.state.get(self.statistics)
        layer.state[self.statistics] = squares if held is None else held + squares

    def choose(self, layer: SparseLayer) -> tuple[Tensor, Tensor]:
        weight = layer.weight.detach()
        norms = self._gathered(layer).sqrt()
        score = as_stored(layer, as_matrix(layer, weight.float().abs()) * norms[:, None])
        return mask_of_largest(score, layer.view(Pass.FF), self.target), weight


class SparseGpt(Magnitude):
    """SparseGPT (Frantar and Alistarh, arXiv 2301.00774; repository IST-DASLab/sparsegpt).

    With H = X X^T of the calibration data plus 1 % of its mean diagonal, columns are visited in order. At the first
    column of every M the M - N with the smallest w^2 / [H_F^-1]_jj are chosen, where F are the columns from j on; each
    removed weight w_j changes those after it by -w_j / [H_F^-1]_jj [H_F^-1]_j. Both come from one Cholesky factor of
    H^-1, here in float64. Columns go tap by tap and along the inputs within; the repository covers whole groups only.
    """

    statistics = "hessian"

    def gather(self, layer: SparseLayer, x: Tensor) -> None:
        x = x.float()
        hessian = x @ x.transpose(1, 2)
        held = layer.state.get(self.statistics)
        layer.state[self.statistics] = hessian if held is None else held + hessian

    def choose(self, layer: SparseLayer) -> tuple[Tensor, Tensor]:
        hessians, weights = self._gathered(layer), as_matrix(layer, layer.weight.detach())
        made = [
            prune_columns(weight, hessian, layer.run(Pass.FF), self.target)
            for weight, hessian in zip(weights, hessians, strict=True)
        ]
        masks, values = (torch.stack(part) for part in zip(*made, strict=True))
        return as_stored(layer, masks), as_stored(layer, values)


def prune_columns(
    weight: Tensor, hessian: Tensor, run: int, pattern: NMPattern, *, damping: float = 0.01, block: int = 128
) -> tuple[Tensor, Tensor]:
    """SparseGPT on ``weight`` [outputs, columns] with ``hessian`` [columns, columns]: mask of what stays, new values.

    Both in and new values out are of any float dtype and computed in float64, the mask is bool. Groups of ``pattern``
    lie along runs of ``run`` columns. Updates of columns beyond a block of about ``block`` are made at its end, which
    is faster and the same.
    """
    w, factor = weight.double().clone(), inverse_factor(hessian, damping)
    w[:, hessian.diagonal() == 0] = 0.0
    mask = torch.ones_like(w, dtype=torch.bool)
    for groups in _blocks(w.shape[1], run, pattern.group, block):
        first, last = groups[0][0], groups[-1][1]
        errors = torch.zeros_like(w[:, first:last])
        for begin, end in groups:
            score = w[:, begin:end].square() / factor.diagonal()[begin:end].square()
            order = score.argsort(dim=1, descending=True, stable=True)
            mask[:, begin:end].scatter_(1, order[:, pattern.keep :], False)
            for j in range(begin, end):
                error = w[:, j].masked_fill(mask[:, j], 0) / factor[j, j]
                w[:, j:last] -= error[:, None] * factor[j, j:last]
                errors[:, j - first] = error
        w[:, last:] -= errors @ factor[first:last, last:]
    return mask, w.masked_fill(~mask, 0).to(weight.dtype)


def inverse_factor(hessian: Tensor, damping: float = 0.01) -> Tensor:
    """Upper Cholesky factor, float64, of the inverse of ``hessian`` [columns, columns] of any float dtype, to whose
    diagonal ``damping`` times its mean is added; a column that was always 0 has 1 there before."""
    h = hessian.double().clone()
    h.diagonal()[h.diagonal() == 0] = 1.0
    h.diagonal().add_(damping * h.diagonal().mean())
    factor: Tensor = torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(h)), upper=True)
    return factor


def _blocks(length: int, run: int, group: int, block: int) -> Iterator[list[tuple[int, int]]]:
    """Groups as (begin, end), in blocks of at least ``block`` columns but for the last."""
    held: list[tuple[int, int]] = []
    for base in range(0, length, run):
        for begin in range(base, base + run, group):
            held.append((begin, min(begin + group, base + run)))
            if held[-1][1] - held[0][0] >= block:
                yield held
                held = []
    if held:
        yield held


def watch_inputs(layers: Iterable[SparseLayer], gather: Callable[[SparseLayer, Tensor], None]) -> list[RemovableHandle]:
    """Have ``gather`` called with every input of ``layers``, as :func:`columns`, [groups, columns, samples] of the
    dtype of the weight; of layers that share a weight the first is told. Until the handles are removed."""
    owners: dict[int, SparseLayer] = {}
    handles = []
    for layer in layers:
        owner = owners.setdefault(id(layer.weight), layer)

        def see(
            module: nn.Module,
            args: Any,
            kwargs: Any,
            output: Any,
            layer: SparseLayer = layer,
            owner: SparseLayer = owner,
        ) -> None:
            x = args[0] if args else next(iter(kwargs.values()))
            with torch.no_grad(), torch.autocast(x.device.type, enabled=False):
                gather(owner, columns(layer, x.detach().to(layer.weight.dtype)))

        handles.append(layer.module.register_forward_hook(see, with_kwargs=True))
    return handles


def columns(layer: SparseLayer, x: Tensor) -> Tensor:
    """Inputs of the layer as [convolution groups, taps x in, samples]: what each column of its weight is multiplied by.

    Of the dtype of ``x``, which is an input of the layer. For a convolution the layer itself is run with a one-hot
    weight, so that padding, strides and dilation of every kind are its own.
    """
    groups, _, inputs, taps = layer.shape
    if not layer.kind.convolution:
        return x.reshape(-1, inputs).t()[None]
    width = taps * inputs
    # One output for each column: [groups, column, in, taps].
    hot = torch.eye(width, dtype=x.dtype, device=x.device).reshape(width, taps, inputs).transpose(1, 2)
    weight = hot.expand(groups, -1, -1, -1)
    weight = weight.transpose(1, 2) if layer.kind.inputs_first else weight
    plain: Any = copy.copy(layer.module)
    plain.__class__ = layer.module.__dict__["weft_plain_class"]
    plain.__dict__ = {key: value for key, value in layer.module.__dict__.items() if key != ATTRIBUTE}
    plain._parameters = {
        "weight": nn.Parameter(weight.reshape(-1, weight.shape[2], *layer.weight.shape[2:]), requires_grad=False),
        "bias": None,
    }
    batched = x if x.dim() == layer.weight.dim() else x[None]
    y: Tensor = type(plain).forward(plain, batched)
    return y.reshape(len(batched), groups, width, -1).permute(1, 2, 0, 3).reshape(groups, width, -1)


def as_matrix(layer: SparseLayer, weight: Tensor) -> Tensor:
    """A tensor of any dtype stored like the weight as [convolution groups, out, taps x in]."""
    return layer.canonical(weight).transpose(2, 3).flatten(2)


def as_stored(layer: SparseLayer, matrix: Tensor) -> Tensor:
    """Inverse of :func:`as_matrix`: of [convolution groups, out, taps x in] of any dtype."""
    groups, outputs, inputs, taps = layer.shape
    return layer.stored(matrix.reshape(groups, outputs, taps, inputs).transpose(2, 3))
