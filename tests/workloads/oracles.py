"""Two oracles for a traced step that share no code with the tracer: a FLOP counter, and a copy with frozen weights.

The counter gives forward, and backward as one sum. What of it is BP, a second copy says that has no weight to update:
its weights are frozen, and what its layers return asks for a gradient all the same, as it does in training. What
remains of the sum is WU.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from weft.workloads.gemm import Pass
from weft.workloads.models.source import ModelSource, StepInputs

aten = torch.ops.aten


@dataclass(frozen=True, kw_only=True)
class Case:
    """A model, its inputs, and what only a person can say of it.

    ``live`` are the parameters of two and more dimensions that are activations, by name with wildcards: queries,
    positions, class tokens. ``between`` are methods whose arguments are activations made by the module itself.
    ``plain`` is the same model without checkpoints, which a FLOP counter counts twice. ``routed`` models choose experts
    by values: they run on the CPU, with scores that give every expert its share.
    """

    build: Callable[[], nn.Module]
    inputs: Callable[[], tuple[tuple[Any, ...], dict[str, Any]]]
    live: tuple[str, ...] = ()
    between: tuple[str, ...] = ()
    plain: Callable[[], nn.Module] | None = None
    routed: bool = False

    def source(self) -> ModelSource:
        def inputs(_batch: int | None, _seq: int | None) -> StepInputs:
            args, kwargs = self.inputs()
            return StepInputs(args=args, kwargs=kwargs, batch=2, shape="")

        loss = lambda output, _: total(output)  # noqa: E731
        return ModelSource(name="case", title="", build=self.build, inputs=inputs, loss=loss)


def total(output: Any) -> Tensor:
    """The sum of everything that a model returns and that can be trained."""
    return torch.stack([t.float().sum() for t in _floats(output) if t.requires_grad]).sum()


def counted(case: Case) -> dict[Pass, int]:
    """Multiply-accumulates of FF, BP and WU by both oracles."""
    ff, both = _count(case, frozen=False)
    _, bp = _count(case, frozen=True)
    return {Pass.FF: ff, Pass.BP: bp, Pass.WU: both - bp}


def _count(case: Case, *, frozen: bool) -> tuple[int, int]:
    with torch.device("cpu" if case.routed else "meta"), _Balanced() if case.routed else _Answers():
        model = (case.plain or case.build)().train()
        args, kwargs = case.inputs()
        if frozen:
            _freeze(model, case)
        with counter() as forward:
            loss = total(model(*args, **kwargs))
        with counter() as backward:
            loss.backward()
    return forward.get_total_flops() // 2, backward.get_total_flops() // 2


def _freeze(model: nn.Module, case: Case) -> None:
    """Freeze the weights of ``model`` that are trained, and let the modules they belong to return what is."""
    frozen = {
        parameter
        for name, parameter in model.named_parameters()
        if parameter.requires_grad and parameter.dim() > 1 and not any(fnmatchcase(name, live) for live in case.live)
    }
    anchor = torch.zeros((), requires_grad=True)

    def revive(value: Any) -> Any:
        # Not in place: a leaf that asks for a gradient may not be written, and activations are.
        if isinstance(value, Tensor):
            return value + anchor.to(value.dtype) if value.is_floating_point() and not value.requires_grad else value
        return type(value)(map(revive, value)) if type(value) in (tuple, list) else value

    for parameter in frozen:
        parameter.requires_grad_(False)
    for name, module in model.named_modules():
        # A parametrization makes a weight, not an activation.
        if "parametrizations" not in name and frozen.intersection(module.parameters(recurse=False)):
            module.register_forward_hook(lambda _module, _args, out: revive(out))
        for method in case.between:
            if hasattr(module, method):
                setattr(module, method, _revived(getattr(module, method), revive))


def _revived(method: Callable[..., Any], revive: Callable[[Any], Any]) -> Callable[..., Any]:
    return lambda *args, **kwargs: method(*map(revive, args), **{k: revive(v) for k, v in kwargs.items()})


def _floats(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        if value.is_floating_point():
            yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _floats(item)
    elif isinstance(value, Sequence) and not isinstance(value, str):
        for item in value:
            yield from _floats(item)


class _Answers(TorchDispatchMode):
    """Answers transformers, which asks whether sequences are whole, with yes."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is aten._local_scalar_dense.default:
            return True
        return func(*args, **(kwargs or {}))


class _Balanced(TorchDispatchMode):
    """Scores by which PyTorch itself chooses experts in turns: token t likes expert t k best, then the next ones.

    Those that were chosen before are passed over.
    """

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        chosen = (args[1] if func is aten.topk.default else 1) if func in _CHOOSE else 0
        if chosen and args[0].is_floating_point():
            experts, rows = args[0].shape[-1], args[0].numel() // args[0].shape[-1]
            turns = torch.arange(experts) - chosen * torch.arange(rows)[:, None]
            liked = -(turns % experts).to(args[0].dtype).view(args[0].shape)
            args = (torch.where(args[0] == -torch.inf, args[0], liked), *args[1:])
        return func(*args, **(kwargs or {}))


_CHOOSE = (aten.topk.default, aten.argmax.default, aten.max.dim)


def counter() -> FlopCounterMode:
    return FlopCounterMode(display=False, custom_mapping=_CORRECTED)


def _convolution_backward(
    dy: Any,
    x: Any,
    w: Any,
    _bias: Any,
    _stride: Any,
    _padding: Any,
    _dilation: Any,
    transposed: bool,
    _output: Any,
    _groups: int,
    mask: Sequence[bool],
    out_shape: Any = None,
) -> int:
    """PyTorch's own forgets the groups in the gradient of the weight."""
    positions = x[0] * math.prod(x[2:]) if transposed else dy[0] * math.prod(dy[2:])
    return 2 * positions * math.prod(w) * (mask[0] + mask[1])


def _grouped_mm(a: Any, b: Any, *_: Any, out_shape: Any = None, **__: Any) -> int:
    """However the experts share the rows, each row meets one of them: of ``a``, of both as k, or of ``b``'s columns."""
    return 2 * (math.prod(a[-2:]) if len(a) == 3 > len(b) else math.prod(a)) * b[-1]


_CORRECTED: dict[Any, Callable[..., int]] = {
    aten.convolution_backward: _convolution_backward,
    aten._grouped_mm: _grouped_mm,
    aten.mv: lambda a, _v, out_shape=None, **_: 2 * math.prod(a),
    aten.addmv: lambda _c, a, _v, out_shape=None, **_: 2 * math.prod(a),
    aten.dot: lambda a, _b, out_shape=None, **_: 2 * math.prod(a),
    aten.vdot: lambda a, _b, out_shape=None, **_: 2 * math.prod(a),
    aten.addbmm: lambda _c, a, b, out_shape=None, **_: 2 * math.prod(a) * b[-1],
}
