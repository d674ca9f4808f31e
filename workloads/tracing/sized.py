"""Operators whose result has a size, or is a number, that values decide: answered where the values are known."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.utils._pytree import tree_map_only

__all__ = ["Ask", "looks_at_values", "looked"]

Ask = Callable[[Tensor, str], Tensor]
"""The values of a tensor, and what they are asked for; raises where they depend on data."""

_DECIDES = {"aten::masked_select": 1, "aten::bincount": 0}
"""The place of the argument that alone decides the size; else all do."""
_MASKS = (torch.bool, torch.uint8)


def looks_at_values(func: OpOverload, args: Sequence[Any]) -> bool:
    """Whether values of the arguments decide the size of what a call returns, or are what it returns."""
    if torch.Tag.data_dependent_output in func.tags:
        return True
    if torch.Tag.dynamic_output_shape not in func.tags:
        return False
    return func._schema.name != "aten::index" or any(one is not None and one.dtype in _MASKS for one in args[1])


def looked(func: OpOverload, args: Sequence[Any], kwargs: dict[str, Any], ask: Ask) -> Any:
    """What such a call returns: a number, or tensors on meta of the right sizes."""
    what = f"{func._schema.name.partition('::')[2].strip('_')} (what it returns has a size that values decide)"
    if func._schema.name == "aten::index":
        return func(args[0], [index for one in args[1] for index in _positions(one, ask)])
    if torch.Tag.data_dependent_output in func.tags:
        what = "the value of a tensor (item, bool, if)"
    alone = _DECIDES.get(func._schema.name)

    def values(tensor: Tensor) -> Tensor:
        if alone is not None and tensor is not args[alone]:
            return torch.zeros((), dtype=tensor.dtype).expand(tensor.shape)
        return ask(tensor, what)

    given, named = tree_map_only(Tensor, values, (list(args), dict(kwargs)))
    return tree_map_only(Tensor, _bare, func(*given, **named))


def _positions(index: Tensor | None, ask: Ask) -> list[Tensor | None]:
    """A mask among indices as the indices of what it keeps, one an axis."""
    if index is None or index.dtype not in _MASKS:
        return [index]
    kept = ask(index, "which elements a mask keeps (boolean indexing)").nonzero()
    return [_bare(column) for column in kept.unbind(1)]


def _bare(tensor: Tensor) -> Tensor:
    return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="meta")
