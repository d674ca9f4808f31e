"""Random numbers by themselves, of torch, Python and NumPy, as a trace draws them: the middle of their range."""

from __future__ import annotations

import math
import random
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

__all__ = ["DRAWN", "FILLED", "middles", "size_of"]

DRAWN: Mapping[Any, Callable[[Sequence[Any]], float]] = {
    torch.rand: lambda _: 0.5,
    torch.randn: lambda _: 0.0,
    torch.randint: lambda bounds: sum(bounds) // 2,
}
"""Functions that make tensors of numbers they draw, and the middle, of the bounds that stand before the size."""
FILLED: Mapping[Any, Callable[..., float]] = {
    Tensor.uniform_: lambda low=0.0, high=1.0, **named: (named.get("from", low) + named.get("to", high)) / 2,
    Tensor.normal_: lambda mean=0.0, std=1.0, **_: mean,
    Tensor.bernoulli_: lambda p=0.5, **_: float(p >= 0.5),
}
"""Methods that write numbers they draw into a tensor, likewise."""


def _mean(low: float = 0.0, high: float = 1.0) -> float:
    return (low + high) / 2


_PYTHON: Mapping[str, Callable[..., Any]] = {
    "random": lambda: 0.5,
    "uniform": lambda a, b: _mean(a, b),
    "gauss": lambda mu=0.0, sigma=1.0: mu,
    "normalvariate": lambda mu=0.0, sigma=1.0: mu,
    "randint": lambda a, b: (a + b) // 2,
    "choice": lambda seq: seq[len(seq) // 2],
}
_NUMPY: Mapping[str, Callable[..., Any]] = {
    "rand": lambda: 0.5,
    "random": lambda: 0.5,
    "random_sample": lambda: 0.5,
    "uniform": _mean,
    "randn": lambda: 0.0,
    "normal": lambda loc=0.0, scale=1.0: loc,
    "randint": lambda low, high=None: low // 2 if high is None else (low + high) // 2,
}
"""What a function returns that is called for one number; with other arguments, as a size, it draws."""


@contextmanager
def middles(note: Callable[[], None]) -> Iterator[None]:
    """Inside, numbers by themselves are middles, ``note`` is told, and what else is drawn is the same every time."""
    kinds: list[tuple[Any, Mapping[str, Callable[..., Any]]]] = [(random, _PYTHON)]
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        kinds.append((numpy.random, _NUMPY))
    before, of_numpy = random.getstate(), numpy.random.get_state() if numpy is not None else None
    with ExitStack() as stack:
        for module, functions in kinds:
            module.seed(0)
            for name, middle in functions.items():
                stack.enter_context(patch.object(module, name, _answered(getattr(module, name), middle, note)))
        try:
            yield
        finally:
            random.setstate(before)
            if numpy is not None:
                numpy.random.set_state(of_numpy)


def _answered(real: Callable[..., Any], middle: Callable[..., Any], note: Callable[[], None]) -> Callable[..., Any]:
    def draw(*args: Any, **kwargs: Any) -> Any:
        try:
            found = middle(*args, **kwargs)
        except (IndexError, TypeError):
            return real(*args, **kwargs)
        if not isinstance(found, int | float) and middle is not _PYTHON["choice"]:
            return real(*args, **kwargs)
        note()
        return found

    return draw


def size_of(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[int, ...] | None:
    """The size that one of ``DRAWN`` is asked for, None where it is not written down."""
    bounds = 0 if func is not torch.randint else sum(isinstance(one, int) for one in args)
    size = kwargs.get("size", args[bounds:] if args[bounds:] else None)
    if size is not None and len(size) == 1 and isinstance(size[0], list | tuple):
        size = size[0]
    if not isinstance(size, list | tuple) or not all(isinstance(one, int) for one in size):
        return None
    return tuple(size) if math.prod(size) == 1 else None
