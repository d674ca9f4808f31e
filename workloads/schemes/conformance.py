"""What every training technique must keep to, whoever wrote it; `weft.testing` adds what the machine makes of it."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from ..catalog import trace_module
from ..gemm import GEMM_PASSES, Pass
from ..operand import Role
from ..sparsity import NMPattern
from . import attach
from .annotate import annotate
from .attention import Part
from .estimated import Estimated
from .estimator import Estimator
from .layer import Observed
from .scheme import phase_at, scheme
from .technique import Technique
from .vector_work import ScaleOf, VectorWork

__all__ = ["check_technique", "observed"]

_STEPS = 8
_FF = (Role.ACTIVATION, Role.WEIGHT)
_BP = (Role.GRADIENT, Role.WEIGHT)
_WU = (Role.GRADIENT, Role.ACTIVATION)


def check_technique(name: str, pattern: NMPattern | None, options: dict[str, Any]) -> None:
    """Raise AssertionError unless training and annotation thin out the same operands of the same layers, or bring them
    to few values, which are those of their levels, with no more vector work than is declared; a state that is saved in
    the middle goes on in the same bits, and ``detach`` leaves the model as it was."""
    _check_operands(name, pattern, options)
    _check_levels(name, options)
    _check_vector_work(name, options)
    _check_attention(name, options)
    _check_resume(name, pattern, options)
    _check_detach(name, pattern, options)


class Net(nn.Module):
    """A stem, a grouped strided convolution of ragged channels, a linear layer over tokens and a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 24, 3, padding=1)
        self.conv = nn.Conv2d(24, 40, 3, stride=2, padding=1, groups=2)
        self.tokens = nn.Linear(40, 20)
        self.head = nn.Linear(20, 16, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(self.stem(x).relu()).relu()
        found: Tensor = self.head(self.tokens(x.flatten(2).transpose(1, 2)).relu().mean(1))
        return found


def _net() -> Net:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Net()


def _check_operands(name: str, pattern: NMPattern | None, options: dict[str, Any]) -> None:
    model = _net()
    made = annotate(trace_module(model, torch.zeros(32, 3, 8, 8), loss=lambda y: y.sum()), name, pattern)
    technique = attach(model, name, pattern, steps=100, **options)
    # Of the phases of a training, the one that the scheme itself is annotated as.
    own = [step for step in range(100) if phase_at(technique.phases, step, 100).scheme == name]
    at = min(own, key=lambda step: abs(step - 50))
    # Those that prune once choose by what layers have seen until then.
    _train(model, technique, range(at), torch.optim.SGD(model.parameters(), 0.1))
    technique.before_step(at)
    marked = {(op.parameter, str(op.pass_)) for op in made.matrix_ops if op.sparse or op.a.levels or op.b.levels}
    thinned = {(f"{key}.weight", str(p)) for key, layer in technique.layers.items() for p in layer.passes}
    unstructured = {str(p) for p in technique.scheme.unstructured}
    thinned = {(key, p) for key, p in thinned if p not in unstructured}
    assert marked == thinned, f"annotation marks {sorted(marked - thinned)}, training thins {sorted(thinned - marked)}"


def _check_levels(name: str, options: dict[str, Any]) -> None:
    if not scheme(name).levels:
        return
    model = _net()
    technique = attach(model, name, None, steps=_STEPS, **options)
    seen: list[Observed] = []
    for layer in technique.layers.values():
        layer.observer = seen.append
    _train(model, technique, range(_STEPS), torch.optim.SGD(model.parameters(), 0.1))
    planes = scheme(name).planes
    for gemm in seen[-(len(GEMM_PASSES) + len(planes[1:])) * len(technique.layers) :]:
        roles = {Pass.FF: _FF, Pass.BP: _BP, Pass.WU: _WU}[gemm.pass_]
        levels = scheme(technique.phase.scheme).levels.get(gemm.pass_, {})
        if planes and gemm.pass_ is Pass.FF:
            levels = {**levels, Role.WEIGHT: planes[gemm.plane]}
        for role, operand in zip(roles, (gemm.left, gemm.right), strict=True):
            if role in levels:
                wrong = set(operand.flatten().tolist()) - set(levels[role].values)
                where = f"{gemm.layer.name} {gemm.pass_}"
                assert not wrong, f"{where}: the {role} is {levels[role]}, but holds {min(wrong)}"


class Attending(nn.Module):
    """Layers in full precision at either end, and between them attention of two heads over tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.into, self.qkv = nn.Linear(16, 16), nn.Linear(16, 48)
        self.proj, self.head = nn.Linear(16, 16), nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(self.into(x)).unflatten(-1, (3, 2, -1)).permute(2, 0, 3, 1, 4)
        mixed = (q @ k.transpose(-2, -1) / 4).softmax(-1) @ v
        found: Tensor = self.head(self.proj(mixed.transpose(1, 2).flatten(2)).mean(1))
        return found


def _check_attention(name: str, options: dict[str, Any]) -> None:
    """The parts of attention that the scheme names hold its levels, and those alone are brought to anything."""
    levels = scheme(name).attention
    if not levels:
        return
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Attending()
    technique = attach(model, name, None, steps=_STEPS, **options)
    assert isinstance(technique, Estimated), "levels of attention need a technique that is an Estimated"
    technique.before_step(_STEPS - 1)
    named = technique.attention_estimators().keys()
    assert named == levels.keys(), f"levels are of {sorted(levels)}, estimators of {sorted(named)}"
    seen: dict[Part, Tensor] = {}
    assert technique.attended is not None, "who names levels of attention listens to it"
    technique.attended.observer = seen.__setitem__
    model(torch.randn(4, 6, 16, generator=torch.Generator().manual_seed(1)))
    for part, allowed in levels.items():
        wrong = set(seen[part].flatten().tolist()) - set(allowed.values)
        assert not wrong, f"the {part} of attention is {allowed}, but holds {min(wrong)}"


def _check_vector_work(name: str, options: dict[str, Any]) -> None:
    """That estimators do nothing which the scheme does not declare; it may declare more."""
    chosen = scheme(name)
    if not chosen.levels:
        return
    technique = attach(_net(), name, None, steps=100, **options)
    if not isinstance(technique, Estimated):
        return
    technique.before_step(next(step for step in range(100) if phase_at(technique.phases, step, 100).scheme == name))
    norm = technique.options.norm != "none"
    for role, estimator, shape, norms in (
        (Role.WEIGHT, technique.weight_estimator(), (2, 4, 3, 9), False),
        (Role.ACTIVATION, technique.activation_estimator(), (8, 27), norm),
    ):
        found = observed(estimator, shape)
        declared = chosen.work_of(role) or VectorWork(gradient=0)
        where = f"vector_work of {role}s in scheme {name!r}"
        if norms:
            assert declared.norm, f"{where} has norm=False, but rows are normalised first: set it, or options.norm"
        for what in ("looks", "gradient"):
            least, said = getattr(found, what), getattr(declared, what)
            assert said >= least, f"{where} has {what}={said}, but its estimator needs {least}"
        order = (None, *_SCALES)
        assert order.index(declared.scale) >= order.index(found.scale), (
            f"{where} has scale={declared.scale}, but its estimator gives one of each {found.scale}"
        )


_SCALES = (ScaleOf.CONSTANT, ScaleOf.LAYER, ScaleOf.FILTER, ScaleOf.ROW)
"""The more of them there are, or the more they are worth on the machine, the further behind."""


def observed(estimator: Estimator, shape: tuple[int, ...]) -> VectorWork:
    """The least vector work that an estimator can do with, told from what it makes of tensors of a ``shape``: [groups,
    out, in, taps] of a weight, [rows, in] of activations."""
    made = torch.Generator().manual_seed(5)
    x, g = torch.randn(shape, generator=made), torch.randn(shape, generator=made)
    few = estimator.few(x)
    other, changed = torch.ones(shape, dtype=torch.bool), x.clone()
    # One value of every line far from all others: who depends on it has looked at all of them first.
    changed[..., -1], other[..., -1] = 1e3, False
    scale = None
    if few.scale is not None:
        again = estimator.few(2 * x).scale
        per = ScaleOf.FILTER if len(shape) == 4 else ScaleOf.ROW
        scale = ScaleOf.LAYER if few.scale.numel() == 1 else per
        scale = ScaleOf.CONSTANT if again is not None and torch.equal(again, few.scale) else scale
    planes = zip(estimator.few(changed).planes, few.planes, strict=True)
    looks = any(not torch.equal(now.values[other], before.values[other]) for now, before in planes)
    through = estimator.gradient(g, x)
    apart = g.clone()
    apart[..., -1] += 1e3
    whole = not torch.equal(estimator.gradient(apart, x)[other], through[other])
    return VectorWork(looks=int(looks), scale=scale, gradient=0 if torch.equal(through, g) else 1 + int(whole))


def _train(model: nn.Module, technique: Technique, steps: range, optimizer: torch.optim.Optimizer) -> list[float]:
    made = torch.Generator().manual_seed(1)
    pixels, labels = torch.randn(6, 3, 8, 8, generator=made), torch.randint(0, 16, (6,), generator=made)
    losses = []
    for step in steps:
        technique.before_step(step)
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(pixels), labels)
        torch.autograd.backward(loss)
        technique.adjust_gradients(step)
        optimizer.step()
        technique.after_step(step, optimizer)
        losses.append(float(loss.detach()))
    return losses


def _check_resume(name: str, pattern: NMPattern | None, options: dict[str, Any]) -> None:
    def start() -> tuple[nn.Module, Technique, torch.optim.Optimizer]:
        model = _net()
        technique = attach(model, name, pattern, seed=3, steps=_STEPS, **options)
        return model, technique, torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)

    model, technique, optimizer = start()
    _train(model, technique, range(_STEPS // 2), optimizer)
    saved = copy.deepcopy((model.state_dict(), technique.state_dict(), optimizer.state_dict()))
    losses = _train(model, technique, range(_STEPS // 2, _STEPS), optimizer)
    again, resumed, second = start()
    for part, state in zip((again, resumed, second), saved, strict=True):
        part.load_state_dict(state)  # type: ignore[attr-defined]
    found = _train(again, resumed, range(_STEPS // 2, _STEPS), second)
    assert found == losses, f"resumed in the middle, the losses are {found} instead of {losses}"
    for (key, ours), theirs in zip(again.named_parameters(), model.parameters(), strict=True):
        assert torch.equal(ours, theirs), f"resumed in the middle, {key} ends in other bits"
    assert resumed.metrics() == technique.metrics(), "resumed in the middle, the metrics differ"


def _check_detach(name: str, pattern: NMPattern | None, options: dict[str, Any]) -> None:
    model = _net()
    before = {key: (type(module), set(vars(module))) for key, module in model.named_modules()}
    attach(model, name, pattern, steps=1, **options).detach()
    after = {key: (type(module), set(vars(module))) for key, module in model.named_modules()}
    assert after == before, f"detach leaves {[key for key in before if before[key] != after[key]]} changed"
