"""What data choose among alternatives, spread evenly: the operators that choose, and who gets what.

A second choice often passes over the first, whose scores were masked. Where evenly spread scores, masked likewise, give
an even choice, that is it; where they do not (groups of experts were masked), the mask is left out of account.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
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

    def spread(
        self,
        shape: Sequence[int],
        args: Sequence[Any],
        kwargs: dict[str, Any],
        chosen: Sequence[int],
        choose: Callable[[Tensor], Any] | None = None,
    ) -> Tensor:
        """Indices of shape ``chosen`` of scores of ``shape``, in turns: all equally often, the first once more.

        ``choose`` is what the operator returns for scores that were masked as those of the model were.
        """
        place, name, default = self.axis
        axis = args[place] if len(args) > place else kwargs.get(name, default)
        if axis is None or not shape:
            raise ValueError("one of the whole tensor is no choice that could be shared")
        axis %= len(shape)
        size = max(shape[axis], 1)
        others = [extent for place, extent in enumerate(shape) if place != axis]
        rows = torch.Size(others).numel()
        each = torch.Size(chosen).numel() // max(rows, 1)
        start = torch.arange(rows)[:, None] * (1 if self.orders else each)
        if choose is not None:
            liked = 1 - (torch.arange(size) - start) % size / size
            found = choose(liked.view(*others, size).movedim(-1, axis))
            indices: Tensor = found if isinstance(found, Tensor) else found[self.result]
            counts = torch.bincount(indices.flatten(), minlength=size)
            if counts.max() - counts.min() <= 1:
                return indices
        turns: Tensor = ((start + torch.arange(each)) % size).view(*others, each).movedim(-1, axis)
        return turns.reshape(tuple(chosen))


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
