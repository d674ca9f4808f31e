"""What data choose among alternatives, spread evenly: the operators that choose, and who gets what."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

__all__ = ["CHOICES", "Choice"]

aten = torch.ops.aten


@dataclass(frozen=True, slots=True)
class Choice:
    """An operator that chooses along one axis of its first argument.

    ``result`` is the place of the chosen indices among its results, ``axis`` that of the axis among its arguments and
    its name, with a default (None: one is chosen of the whole tensor); ``orders``: all are returned, in some order.
    """

    result: int
    axis: tuple[int, str, int | None]
    orders: bool = False

    def spread(self, args: Sequence[Any], kwargs: dict[str, Any], chosen: Sequence[int]) -> Tensor:
        """Indices of shape ``chosen``, in turns: every alternative is as often chosen as any, the first once more."""
        shape, (place, name, default) = args[0].shape, self.axis
        axis = args[place] if len(args) > place else kwargs.get(name, default)
        if axis is None or not shape:
            raise ValueError("one of the whole tensor is no choice that could be shared")
        axis %= len(shape)
        others = [size for place, size in enumerate(shape) if place != axis]
        rows = torch.Size(others).numel()
        each = torch.Size(chosen).numel() // max(rows, 1)
        turns = torch.arange(rows)[:, None] * (1 if self.orders else each) + torch.arange(each)
        taken: Tensor = (turns % max(shape[axis], 1)).view(*others, each).movedim(-1, axis)
        return taken.reshape(tuple(chosen))


_LAST = (2, "dim", -1)
CHOICES: dict[Any, Choice] = {
    aten.topk.default: Choice(1, _LAST),
    aten.sort.default: Choice(1, (1, "dim", -1), orders=True),
    aten.sort.stable: Choice(1, (2, "dim", -1), orders=True),
    aten.max.dim: Choice(1, (1, "dim", None)),
    aten.min.dim: Choice(1, (1, "dim", None)),
    aten.argmax.default: Choice(0, (1, "dim", None)),
    aten.argmin.default: Choice(0, (1, "dim", None)),
    aten.multinomial.default: Choice(0, (4, "dim", -1)),
}
