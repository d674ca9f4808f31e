"""The user's own model: a function in a Python file that returns a model, what to feed it, and perhaps a loss."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import InputError, nearest, require_int
from ..gemm import MAX_DIM
from ..tracing.provenance import tensors_in
from ..user_code import importable, user_code, user_object
from .shells import model_on_meta
from .source import ModelSource, StepInputs

__all__ = ["UserModel", "user_module", "user_source"]

_KEYS = ("model", "inputs", "loss", "targets")
_DEFAULT_BATCH = 32
"""Samples where only the shape of one is known."""

_RULE = "return a model, (model, inputs), (model, inputs, loss), (model, inputs, loss, targets) or a dict of these"


def user_source(spec: str, input_shape: tuple[int, ...] | None = None) -> ModelSource:
    """The model that ``path/to/file.py:function`` makes.

    The function may take ``batch`` and ``seq``, and returns the model alone or with ``inputs`` (a tensor, a tuple of
    arguments, a dict of keyword arguments) and ``loss`` (a callable of the output, or of output and ``targets``; or
    the targets themselves). Inputs that are missing come from ``input_shape``, one sample's shape, or from the model's
    own attribute ``example_inputs`` or ``input_shape``. A class or a ready model works in place of the function.
    Nothing is ever computed with data: the function runs with meta as the default device, on the CPU if it cannot.
    """
    path, name, made_by = user_object(spec, "model")
    maker = UserModel(spec, path, made_by, input_shape)
    return ModelSource(
        name=f"{path.stem}.{name}", title=f"{name} of {path}", build=maker.build, inputs=maker.inputs, loss=maker.loss
    )


def user_module(spec: str, **offered: Any) -> nn.Module:
    """The model that ``path/to/file.py:function`` makes, with its weights, on the CPU.

    Of ``offered``, the function is given the arguments it names.
    """
    path, _, made_by = user_object(spec, "model")
    if isinstance(made_by, nn.Module):
        return made_by
    taken = {key: value for key, value in offered.items() if key in inspect.signature(made_by).parameters}
    with user_code(spec, path), importable(path.parent):
        returned = made_by(**taken)
    return _parts(spec, returned).model


@dataclass(frozen=True, slots=True)
class _Parts:
    """What the user's function returned, on meta."""

    model: nn.Module
    inputs: Any
    loss: Any
    targets: Any


class UserModel:
    """Calls the user's function; one call serves one ``inputs`` and the ``build`` after it, which may share sizes."""

    def __init__(self, spec: str, path: Path, made_by: Any, input_shape: tuple[int, ...] | None) -> None:
        self._spec = spec
        self._path = path
        self._made_by = made_by
        self._input_shape = input_shape
        self._model: nn.Module | None = None
        self._loss: Any = None
        self._targets: Any = None

    def build(self) -> nn.Module:
        """The model that belongs to the last inputs."""
        model, self._model = self._model, None
        return model if model is not None else self._call(None, None).model

    def inputs(self, batch: int | None, seq: int | None) -> StepInputs:
        """The inputs for a batch; where the function does not take one, leading dimensions are changed instead."""
        parts = self._call(batch, seq)
        given = self._sample(parts.model, batch) if parts.inputs is None or self._input_shape else parts.inputs
        tensors = [tensor for tensor in tensors_in(given) if tensor.dim()]
        if not tensors:
            raise InputError(f"{self._spec}: the inputs hold no tensor with a batch dimension")
        old, targets = len(tensors[0]), parts.targets
        new = batch or old
        if not self._takes("batch"):
            given, targets = _rebatch(given, old, new), _rebatch(targets, old, new)
        self._model, self._loss, self._targets = parts.model, parts.loss, targets
        args, kwargs = _arguments(given)
        shown = next(tensor for tensor in tensors_in(given) if tensor.dim())
        return StepInputs(args=args, kwargs=kwargs, batch=new, shape=" x ".join(map(str, shown.shape)))

    def loss(self, output: Any, _: StepInputs) -> Tensor:
        """The user's loss of ``output``, or what stands for it: a scalar of any float dtype."""
        loss, targets = self._loss, self._targets
        if loss is None:
            return _default_loss(self._spec, output) if targets is None else _target_loss(self._spec, output, targets)
        if not _wants_targets(loss):
            return loss(output)  # type: ignore[no-any-return]
        if targets is None:
            raise InputError(f"{self._spec}: the loss takes targets, so give them too: {_RULE}")
        return loss(output, targets)  # type: ignore[no-any-return]

    def _takes(self, parameter: str) -> bool:
        return parameter in self._signature()

    def _signature(self) -> Mapping[str, inspect.Parameter]:
        if isinstance(self._made_by, nn.Module):
            return {}
        return inspect.signature(self._made_by).parameters

    def _call(self, batch: int | None, seq: int | None) -> _Parts:
        asked = {"batch": batch, "seq": seq}
        if seq is not None and not self._takes("seq"):
            raise InputError(f"{self._spec}: takes no parameter seq, so a sequence length cannot be asked for")
        missing = [
            name
            for name, parameter in self._signature().items()
            if parameter.default is parameter.empty
            and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
            and asked.get(name) is None
        ]
        if missing:
            one = missing[0]
            fix = f"ask for a {one}, or give it" if one in asked else "only batch and seq are passed, so give it"
            raise InputError(f"{self._spec}: parameter {one} has no default value; {fix} one")
        arguments = {name: value for name, value in asked.items() if value is not None and self._takes(name)}
        return _on_meta(_parts(self._spec, self._run(arguments)))

    def _run(self, arguments: dict[str, int]) -> Any:
        if isinstance(self._made_by, nn.Module):
            return self._made_by
        try:
            # Free for a model of any size; what needs values (item, numpy, a checkpoint) gets a second chance.
            with importable(self._path.parent), torch.device("meta"):
                return self._made_by(**arguments)
        except Exception:
            with user_code(self._spec, self._path), importable(self._path.parent), torch.device("cpu"):
                return self._made_by(**arguments)

    def _sample(self, model: nn.Module, batch: int | None) -> Any:
        """Inputs where the function gave none."""
        shape = self._input_shape
        if shape is None:
            example = getattr(model, "example_inputs", None)
            if example is not None:
                return _move(example)
            shape = getattr(model, "input_shape", None)
        if shape is None:
            raise InputError(
                f"{self._spec}: it gives no inputs; return (model, inputs), set model.example_inputs or "
                "model.input_shape, or give the shape of one sample, as --input 3x224x224"
            )
        sizes = tuple(shape)
        if not all(type(size) is int and size > 0 for size in sizes):
            raise InputError(f"{self._spec}: input shape {shape!r} must be positive integers, without the batch")
        count = batch or _DEFAULT_BATCH
        require_int(f"{self._spec}: elements of the inputs", count * math.prod(sizes), 1, MAX_DIM)
        return torch.empty(count, *sizes, device="meta")


def _parts(spec: str, returned: Any) -> _Parts:
    """The parts of what the function returned, in whichever of the accepted forms."""
    if isinstance(returned, nn.Module):
        given: dict[str, Any] = {"model": returned}
    elif isinstance(returned, Mapping):
        given = dict(returned)
        unknown = [key for key in given if key not in _KEYS]
        if unknown:
            raise InputError(
                f"{spec}: key {unknown[0]!r} of the dict it returns is unknown: {nearest(str(unknown[0]), _KEYS)}"
            )
    elif isinstance(returned, list | tuple) and 1 <= len(returned) <= len(_KEYS):
        given = dict(zip(_KEYS, returned, strict=False))
    else:
        raise InputError(f"{spec}: returned {type(returned).__name__}; it must {_RULE}")
    model, loss, targets = given.get("model"), given.get("loss"), given.get("targets")
    if not isinstance(model, nn.Module):
        raise InputError(
            f"{spec}: the model it returns is {type(model).__name__}, not torch.nn.Module; it must {_RULE}"
        )
    if isinstance(loss, Tensor):
        loss, targets = None, loss
    if loss is not None and not callable(loss):
        raise InputError(
            f"{spec}: the loss it returns is {type(loss).__name__}, not a callable or the tensor of targets"
        )
    return _Parts(model, given.get("inputs"), loss, targets)


def _on_meta(parts: _Parts) -> _Parts:
    loss = model_on_meta(parts.loss) if isinstance(parts.loss, nn.Module) else parts.loss
    return _Parts(model_on_meta(parts.model), _move(parts.inputs), loss, _move(parts.targets))


def _map(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """The same nest of arguments with ``change`` applied to its tensors."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, list | tuple):
        return (
            [_map(item, change) for item in value] if isinstance(value, list) else tuple(_map(v, change) for v in value)
        )
    if isinstance(value, Mapping):
        return {key: _map(item, change) for key, item in value.items()}
    return value


def _move(value: Any) -> Any:
    return _map(value, lambda tensor: tensor.detach().to("meta"))


def _rebatch(value: Any, old: int, new: int) -> Any:
    def change(tensor: Tensor) -> Tensor:
        if not tensor.dim() or len(tensor) != old or old == new:
            return tensor
        return tensor.new_empty(new, *tensor.shape[1:])

    return _map(value, change)


def _arguments(given: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if isinstance(given, Mapping):
        return (), dict(given)
    return (tuple(given) if isinstance(given, list | tuple) else (given,)), {}


def _wants_targets(loss: Any) -> bool:
    """Whether a loss needs a second argument."""
    try:
        parameters = inspect.signature(loss.forward if isinstance(loss, nn.Module) else loss).parameters.values()
    except ValueError:
        # A builtin without a signature.
        return False
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return sum(p.kind in positional and p.default is p.empty for p in parameters) > 1


def _default_loss(spec: str, output: Any) -> Tensor:
    """A scalar output itself, its ``loss``, or else the sum of the means of all floating tensors in it."""
    own = output.get("loss") if isinstance(output, Mapping) else getattr(output, "loss", None)
    if isinstance(own, Tensor):
        return own
    nest = output if isinstance(output, Tensor | list | tuple | Mapping) else getattr(output, "__dict__", None)
    floating = [tensor for tensor in tensors_in(nest) if tensor.is_floating_point()]
    if not floating:
        raise InputError(f"{spec}: the model's output ({type(output).__name__}) holds no floating tensor; give a loss")
    if isinstance(output, Tensor) and output.dim() == 0:
        return output
    return (
        torch.stack([tensor.float().mean() for tensor in floating]).sum()
        if floating[1:]
        else floating[0].float().mean()
    )


def _target_loss(spec: str, output: Any, targets: Any) -> Tensor:
    """Cross-entropy for integer targets, classes in dimension 1 or last, mean squared error for floating ones."""
    scores = output if isinstance(output, Tensor) else getattr(output, "logits", None)
    if not isinstance(scores, Tensor) or not isinstance(targets, Tensor):
        raise InputError(
            f"{spec}: targets need an output that is a tensor or has logits; give a loss of the output instead"
        )
    if targets.is_floating_point():
        if scores.shape == targets.shape:
            return nn.functional.mse_loss(scores, targets)
    elif scores.shape[:1] + scores.shape[2:] == targets.shape:
        return nn.functional.cross_entropy(scores, targets)
    elif scores.shape[:-1] == targets.shape:
        return nn.functional.cross_entropy(scores.flatten(0, -2), targets.flatten())
    raise InputError(
        f"{spec}: targets of shape {tuple(targets.shape)} do not fit an output of shape {tuple(scores.shape)}"
    )
