"""Few values that a model makes by itself, told to whoever traces it: no trace could see it in shapes and operators."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from .errors import InputError
from .levels import Levels

__all__ = ["of_levels", "told_levels"]

_LISTENERS: list[Callable[[Tensor, Levels], None]] = []
_SHOWN = 3


def of_levels(x: Tensor, levels: Levels) -> Tensor:
    """``x`` itself, of any shape and a float dtype, of which the model says that it takes the values of ``levels``.

    Products that read ``x``, a view or a copy of it as an activation have an operand of these levels in a traced step,
    and one op packs it before the first of them; what is written in place afterwards has none. Where there is data, it
    is looked at: another value is an :class:`InputError`. Nothing else happens, in training and at inference.
    """
    if not x.is_floating_point():
        raise InputError(f"of_levels: a tensor of few values must be of a float dtype, as products are, not {x.dtype}")
    if not x.is_meta:
        _require_values(x.detach(), levels)
    for told in _LISTENERS:
        told(x, levels)
    return x


@contextmanager
def told_levels(listener: Callable[[Tensor, Levels], None]) -> Iterator[None]:
    """Inside, ``listener`` is told of every tensor of few values, of any shape and a float dtype."""
    _LISTENERS.append(listener)
    try:
        yield
    finally:
        _LISTENERS.remove(listener)


def _require_values(x: Tensor, levels: Levels) -> None:
    values = levels.values
    allowed = (x == x.round()) & (x >= values[0]) & (x <= values[-1])
    if levels is Levels.BINARY:
        allowed = x.abs() == 1
    if bool(allowed.all()):
        return
    found = ", ".join(f"{value:g}" for value in torch.unique(x[~allowed])[:_SHOWN].tolist())
    raise InputError(
        f"of_levels: the tensor of shape {list(x.shape)} holds {found}, but {levels} values are "
        f"{', '.join(map(str, values)) if len(values) <= _SHOWN else f'{values[0]} to {values[-1]}'}; round it to them"
    )
