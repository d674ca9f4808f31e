"""Functions that hide their products in one operator on meta, written in the operators that they are on a CPU."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from ..recurrent import RECURRENCES, as_on_cpu

__all__ = ["WrittenOut"]


class WrittenOut(TorchFunctionMode):
    """Runs them so where tensors have no data."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None) -> Any:
        kwargs = kwargs or {}
        written = _WRITTEN.get(func)
        if written is not None and (args[0] if args else next(iter(kwargs.values()))).is_meta:
            return written(args, kwargs)
        return func(*args, **kwargs)


def _bilinear(args: Any, kwargs: dict[str, Any]) -> Tensor:
    """x1^T W[o] x2 as aten._trilinear takes it: a product of the rows of x1 with every W[o], then with those of x2."""
    given = {**dict(zip(("input1", "input2", "weight", "bias"), args, strict=False)), **kwargs}
    left, right, weight, bias = given["input1"], given["input2"], given["weight"], given.get("bias")
    rows = left.reshape(-1, left.shape[-1]) @ weight
    sums = rows.transpose(0, 1) @ right.reshape(-1, right.shape[-1], 1)
    out: Tensor = sums.reshape(*left.shape[:-1], weight.shape[0])
    return out if bias is None else out + bias


_WRITTEN: dict[Any, Callable[[Any, dict[str, Any]], Any]] = {
    **{func: partial(as_on_cpu, func) for func in RECURRENCES},
    torch.bilinear: _bilinear,
}
