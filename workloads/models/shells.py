"""Models without their data."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter

__all__ = ["model_on_meta", "shell"]


def shell(tensor: Tensor) -> Tensor:
    """A parameter or buffer of any shape and dtype without its data; one of a lazy module has no shape either."""
    if isinstance(tensor, UninitializedParameter | UninitializedBuffer):
        lazy: Any = type(tensor)
        return lazy(tensor.requires_grad, device="meta", dtype=tensor.dtype)  # type: ignore[no-any-return]
    if isinstance(tensor, nn.Parameter):
        return nn.Parameter(torch.empty_like(tensor, device="meta"), tensor.requires_grad)
    return tensor.detach().to("meta")


def model_on_meta(model: nn.Module) -> nn.Module:
    """``model`` with every tensor on meta, also those in plain attributes, but for buffers and constants of one number,
    which keep their value. ``Module.to`` would untie shared ones."""
    moved: dict[int, tuple[Tensor, Tensor]] = {}

    def meta(tensor: Tensor) -> Tensor:
        lazy = isinstance(tensor, UninitializedParameter | UninitializedBuffer)
        if tensor.is_meta or not (lazy or isinstance(tensor, nn.Parameter) or tensor.dim()):
            return tensor
        if id(tensor) not in moved:
            # The old tensor is kept too: its id must not be given to another one.
            moved[id(tensor)] = (tensor, shell(tensor))
        return moved[id(tensor)][1]

    for module in model.modules():
        for held in (module._parameters, module._buffers, vars(module)):
            for name, value in list(held.items()):
                if isinstance(value, Tensor) and not value.is_meta:
                    # nn.LSTM and its like keep a second list of their parameters that only setattr maintains.
                    setattr(module, name, meta(value))
    return model
