"""How much a loss rises when a layer of a trained network is thinned out or rounded: estimates, and the measured truth.

A candidate moves the weights W of a layer by D = Q(W) - W. The second-order term of the loss is D^T H D / 2 at a
minimum (LeCun, Denker and Solla, Optimal Brain Damage, 1989). ``fisher`` takes the mean of squared gradients of single
samples for the diagonal of H, the empirical Fisher information; ``hessian-trace`` the mean of that diagonal in a layer,
times |D|^2, without the half (HAWQ-V2, arXiv 1911.03852, repository Zhen-Dong/HAWQ), the trace by Hutchinson's random
signs. ``zeroq`` is the mean KL divergence of the outputs before from those after (ZeroQ, arXiv 2001.00281), on images
of the training set; ``zeroq-distilled`` the same on those of `distilled`, as in the paper. ``wanda`` is the share of
sum (W_ij |X_j|)^2 that is lost (Wanda, arXiv 2306.11695); DaSS (arXiv 2405.01943) takes the norm inside a gated unit
instead, which no model here has.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ..errors import InputError, nearest, require_int
from ..gemm import Pass
from ..models.classifier import scores as scores_of
from ..sparsity import NMPattern
from . import attach
from .integer import Rounded
from .layer import SparseLayer, short_runs
from .masks import largest
from .oneshot import as_matrix, watch_inputs
from .scores import DISTILLED, MEASURED_LOSS, METHODS, Candidate, candidate

__all__ = ["brought_to", "candidates_of", "changed", "fisher_diagonals", "hessian_traces", "sensitivities"]

Batches = Sequence[tuple[Tensor, Tensor]]
Found = dict[str, dict[str, dict[str, float]]]
_BY_OUTPUTS = ("zeroq", MEASURED_LOSS)
_WITHOUT_DATA = ("magnitude", DISTILLED)


def brought_to(layer: SparseLayer, chosen: Candidate) -> Tensor:
    """The weight of ``layer`` under a candidate: the largest of every group, or scaled integers; stored like the
    weight, of its dtype and any shape."""
    weight = layer.weight.detach()
    if isinstance(chosen, NMPattern):
        return largest(weight, layer.view(Pass.FF), chosen)
    return layer.stored(Rounded(chosen).few(layer.canonical(weight)).whole)


def candidates_of(layer: SparseLayer, chosen: Sequence[Candidate]) -> list[Candidate]:
    """Those that the layer can be brought to: a group must fit in its runs, along inputs and along outputs."""
    both = frozenset((Pass.FF, Pass.BP))
    return [c for c in chosen if not (isinstance(c, NMPattern) and short_runs(layer, both, c.group))]


@contextmanager
def changed(weights: Mapping[SparseLayer, Tensor]) -> Iterator[None]:
    """Inside, layers have these weights, stored like theirs, of any shape and a float dtype; behind it their own."""
    own = {layer: layer.weight.detach().clone() for layer in weights}
    try:
        _set(weights)
        yield
    finally:
        _set(own)


def _set(weights: Mapping[SparseLayer, Tensor]) -> None:
    with torch.no_grad():
        for layer, weight in weights.items():
            layer.weight.copy_(weight)


@dataclass(frozen=True, slots=True)
class _Ticker:
    """Tells how far it is."""

    progress: Callable[[int, int], None] | None
    all_: int
    done: list[int]

    def tick(self) -> None:
        self.done[0] += 1
        if self.progress is not None:
            self.progress(self.done[0], self.all_)


def sensitivities(
    model: nn.Module,
    batches: Batches,
    candidates: Sequence[str],
    methods: Sequence[str] | None = None,
    *,
    distilled: Sequence[Tensor] = (),
    probes: int = 32,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Found, dict[str, int], dict[str, str]]:
    """Scores by layer, method and candidate, the weights of each layer, and why others are left out.

    ``model`` is plain, no technique on it, and stays as it is. ``batches``: inputs [batch, ...] of any dtype the model
    takes, and classes int64 [batch]; the loss is their mean cross-entropy, in evaluation mode. ``distilled``: inputs
    that `DISTILLED` looks at, [batch, ...] each; of it and ``magnitude`` there may be no ``batches``. ``probes``:
    random vectors of a trace. Without ``methods`` all; the same seed gives the same scores.
    """
    require_int("probes", probes, 1, 2**20)
    methods = [m for m in METHODS if distilled or m != DISTILLED] if methods is None else methods
    _require_images(methods, batches, distilled)
    chosen = [candidate(text) for text in candidates]
    with _evaluating(model):
        layers, norms, dense = _layers(model, batches, wanted="wanda" in methods)
        able = {layer.name: candidates_of(layer, chosen) for layer in layers}
        dense |= {layer.name: "no candidate fits its channels" for layer in layers if not able[layer.name]}
        layers = [layer for layer in layers if able[layer.name]]
        if not layers:
            raise InputError(f"no layer can be brought to any of {', '.join(candidates)}")
        seen = [x for x, _ in batches] if any(method in _BY_OUTPUTS for method in methods) else []
        made_up = list(distilled) if DISTILLED in methods else []
        samples = sum(len(y) for _, y in batches)
        steps = ("fisher" in methods) * samples + ("hessian-trace" in methods) * probes * len(batches)
        ticker = _Ticker(progress, steps + sum(len(able[layer.name]) for layer in layers), [0])
        curved = _curvature(model, batches, layers, methods, probes, seed, ticker.tick)
        before, before_made_up = _outputs(model, seen), _outputs(model, made_up)
        found: Found = {}
        for layer in layers:
            mine: dict[str, dict[str, float]] = {method: {} for method in methods}
            for c in able[layer.name]:
                made = brought_to(layer, c)
                values = _estimates(layer, (made - layer.weight.detach()).double(), curved[layer.name], norms)
                with changed({layer: made}):
                    after, after_made_up = _outputs(model, seen), _outputs(model, made_up)
                if seen:
                    values["zeroq"] = _divergence(before, after)
                    values[MEASURED_LOSS] = _loss(after, batches) - _loss(before, batches)
                if made_up:
                    values[DISTILLED] = _divergence(before_made_up, after_made_up)
                for method in methods:
                    mine[method][str(c)] = values[method]
                ticker.tick()
            found[layer.name] = mine
    return found, {layer.name: layer.weight.numel() for layer in layers}, dense


def _require_images(methods: Sequence[str], batches: Batches, distilled: Sequence[Tensor]) -> None:
    """Refuse a method that is none, or has nothing to look at."""
    for method in methods:
        if method not in METHODS:
            raise InputError(f"method {method!r} is unknown: {nearest(method, METHODS)}")
        if method == DISTILLED and not distilled:
            raise InputError(f"method {method!r} needs distilled images: give them, or take zeroq")
        if method not in _WITHOUT_DATA and not batches:
            raise InputError(f"method {method!r} needs images: give batches, or take {DISTILLED}")


def fisher_diagonals(
    model: nn.Module, batches: Batches, weights: Sequence[Tensor], tick: Callable[[], None] = lambda: None
) -> list[Tensor]:
    """Mean over samples of the squared gradient of the loss of one, for each of ``weights`` of any shape; float64."""
    sums = [torch.zeros_like(w, dtype=torch.float64) for w in weights]
    samples = 0
    for x, y in batches:
        for one in range(len(y)):
            loss = functional.cross_entropy(scores_of(model(x[one : one + 1])), y[one : one + 1])
            for total, g in zip(sums, torch.autograd.grad(loss, weights), strict=True):
                total += g.double().square()
            samples += 1
            tick()
    return [total / samples for total in sums]


def hessian_traces(
    model: nn.Module,
    batches: Batches,
    weights: Sequence[Tensor],
    probes: int,
    seed: int = 0,
    tick: Callable[[], None] = lambda: None,
) -> list[float]:
    """Of each of ``weights``, of any shape and a float dtype, the trace of its block of the Hessian of the mean loss.

    Hutchinson: the mean of v^T H v over vectors v of random signs. All weights have theirs at once: what blocks share
    has the mean 0.
    """
    samples = sum(len(y) for _, y in batches)
    traces = [0.0] * len(weights)
    for number, (x, y) in enumerate(batches):
        loss = functional.cross_entropy(scores_of(model(x)), y, reduction="sum") / samples
        gradients = torch.autograd.grad(loss, weights, create_graph=True)
        for probe in range(probes):
            drawn = torch.Generator().manual_seed(_seed_of(seed, number, probe))
            signs = [(torch.randint(0, 2, w.shape, generator=drawn) * 2 - 1).to(w) for w in weights]
            products = torch.autograd.grad(gradients, weights, signs, retain_graph=probe + 1 < probes)
            for i, (v, hv) in enumerate(zip(signs, products, strict=True)):
                traces[i] += float((v.double() * hv.double()).sum()) / probes
            tick()
    return traces


def _seed_of(*entropy: int) -> int:
    return int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0] >> np.uint64(1))


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


def _layers(
    model: nn.Module, batches: Batches, *, wanted: bool
) -> tuple[list[SparseLayer], dict[str, Tensor], dict[str, str]]:
    """The layers that a technique could work on, squared norms of their inputs where ``wanted``, and why not others."""
    technique = attach(model, "dense", None, steps=1)
    squares: dict[str, Tensor] = {}

    def gather(layer: SparseLayer, x: Tensor) -> None:
        sums = x.double().square().sum(2)
        squares[layer.name] = sums + squares[layer.name] if layer.name in squares else sums

    try:
        layers = list(technique.own_layers())
        hooks = watch_inputs(technique.layers.values(), gather) if wanted else []
        with torch.no_grad():
            for x, _ in batches if wanted else ():
                model(x)
        for hook in hooks:
            hook.remove()
    finally:
        technique.detach()
    frozen = {layer.name: "its weight is not trained" for layer in layers if not layer.weight.requires_grad}
    return [layer for layer in layers if layer.name not in frozen], squares, {**technique.kept_dense, **frozen}


@dataclass(frozen=True, slots=True)
class _Curvature:
    """Of a layer: the diagonal of its Fisher information, float64 like the weight; the trace of its Hessian."""

    diagonal: Tensor | None
    trace: float | None


def _curvature(
    model: nn.Module,
    batches: Batches,
    layers: Sequence[SparseLayer],
    methods: Sequence[str],
    probes: int,
    seed: int,
    tick: Callable[[], None],
) -> dict[str, _Curvature]:
    weights = [layer.weight for layer in layers]
    diagonals: list[Tensor] | list[None] = [None] * len(layers)
    traces: list[float] | list[None] = [None] * len(layers)
    if "fisher" in methods:
        diagonals = fisher_diagonals(model, batches, weights, tick)
    if "hessian-trace" in methods:
        traces = hessian_traces(model, batches, weights, probes, seed, tick)
    known = map(_Curvature, diagonals, traces)
    return {layer.name: of for layer, of in zip(layers, known, strict=True)}


def _estimates(layer: SparseLayer, change: Tensor, curved: _Curvature, norms: dict[str, Tensor]) -> dict[str, float]:
    weight = layer.weight.detach().double()
    moved = float(change.square().sum())
    found = {"magnitude": moved / max(float(weight.square().sum()), 1e-300)}
    if curved.diagonal is not None:
        found["fisher"] = float((curved.diagonal * change.square()).sum()) / 2
    if curved.trace is not None:
        found["hessian-trace"] = curved.trace / weight.numel() * moved
    if layer.name in norms:
        squares = norms[layer.name][:, None]
        lost, all_ = ((as_matrix(layer, x).square() * squares).sum() for x in (change, weight))
        found["wanda"] = float(lost / all_.clamp_min(1e-300))
    return found


def _outputs(model: nn.Module, inputs: Sequence[Tensor]) -> list[Tensor]:
    """Logarithms of the probabilities, float64 [batch, classes] each."""
    with torch.no_grad():
        return [functional.log_softmax(scores_of(model(x)).double(), 1) for x in inputs]


def _divergence(before: Sequence[Tensor], after: Sequence[Tensor]) -> float:
    """Mean over samples of the KL divergence of the outputs ``after`` from those ``before``."""
    apart = sum(float((was.exp() * (was - now)).sum()) for was, now in zip(before, after, strict=True))
    return apart / sum(map(len, before))


def _loss(outputs: Sequence[Tensor], batches: Batches) -> float:
    """Mean cross-entropy."""
    sums = (float(functional.nll_loss(now, y, reduction="sum")) for now, (_, y) in zip(outputs, batches, strict=True))
    return sum(sums) / sum(map(len, outputs))
