"""A model that already lives in memory, copied to meta so that the caller's own stays as it is."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import InputError
from .shells import shell
from .source import ModelSource
from .user import UserModel

__all__ = ["module_source"]


def module_source(module: nn.Module, inputs: Any, loss: Any = None) -> ModelSource:
    """``module`` with the example ``inputs`` of one step: a tensor, a tuple of arguments or a dict of keywords.

    ``loss`` is a callable of the output, or the tensor of targets; without one the output's own loss or mean is used.
    """
    name = type(module).__name__
    if not isinstance(module, nn.Module):
        raise InputError(f"a model to trace must be a torch.nn.Module or text, not {name}")
    if inputs is None:
        raise InputError(
            f"model {name}: a module needs example inputs, as trace(module, inputs=torch.empty(8, 3, 64, 64))"
        )
    maker = UserModel(name, Path(name), lambda: {"model": _on_meta(module), "inputs": inputs, "loss": loss}, None)
    return ModelSource(name=name, title=name, build=maker.build, inputs=maker.inputs, loss=maker.loss)


def _on_meta(module: nn.Module) -> nn.Module:
    """A copy without data; tensors that several modules share stay shared."""
    tensors = [
        value
        for part in module.modules()
        for held in (part._parameters, part._buffers, vars(part))
        for value in held.values()
        if isinstance(value, Tensor)
    ]
    copied = copy.deepcopy(module, {id(tensor): shell(tensor) for tensor in {id(t): t for t in tensors}.values()})
    for part in copied.modules():
        if isinstance(part, torch.jit.ScriptModule):
            # Its copy holds tensors where there were parameters.
            for name, value in list(part._parameters.items()):
                if value is not None:
                    setattr(part, name, shell(nn.Parameter(value.detach(), value.requires_grad)))
    return copied
