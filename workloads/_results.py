"""Results of operators on tensors without data, worked out once per operator and shapes of its arguments.

PyTorch finds the shape of a result on meta in Python, in some 90 us, and a step repeats few shapes: the loop of a
recurrence the same forty, a transformer those of one block.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

import torch
from torch import Tensor, nn
from torch._ops import OpOverload

from ._provenance import tensors_in
from ._traffic import Traffic

__all__ = ["Call", "Results", "key_of"]

_Spec = tuple[torch.Size, tuple[int, ...], torch.dtype]
_Maker = Callable[[Sequence[Any]], Any]
"""From the arguments of a call to its result."""

_NAMESPACES = ("aten", "prims")
"""Of operators whose results depend on their arguments alone."""

_PLAIN = (bool, int, float, complex, str, type(None), torch.dtype, torch.device, torch.layout, torch.memory_format)


class _OpaqueError(Exception):
    """An argument whose part in the result its shape does not tell."""


@dataclass(slots=True)
class Call:
    """What is known of all calls of an operator with arguments of some shapes: how to make the result, if not by it.

    ``traffic`` is what the recorder found such a call to move; it is ``None`` until then, and in a tuple after.
    """

    make: _Maker | None
    traffic: tuple[Traffic | None] | None = None


class Results:
    """What operators return, by operator and shapes: a new tensor each time, as the operator itself makes one."""

    def __init__(self) -> None:
        self._calls: dict[Any, Call] = {}

    def of(self, func: OpOverload, args: Sequence[Any], kwargs: dict[str, Any], key: Any) -> tuple[Any, Call]:
        """The result of ``func``, which is called where it was not yet, or where the result is a view.

        And what is known of such calls; ``key`` is their :func:`key_of`.
        """
        call = self._calls.get(key)
        if call is None:
            out = func(*args, **kwargs)
            call = self._calls[key] = Call(_maker(func, args, kwargs, out))
            return out, call
        return (func(*args, **kwargs) if call.make is None else call.make(args)), call


def key_of(func: OpOverload, args: Sequence[Any], kwargs: dict[str, Any]) -> tuple[Any, list[Tensor]]:
    """A key, equal for calls whose results are of the same shapes, and the tensors among the arguments.

    The key is None where values may matter or not all are on meta.
    """
    tensors: list[Tensor] = []
    try:
        key = (func, torch.get_default_dtype(), *_key(args, tensors), *_key(kwargs.items(), tensors))
    except _OpaqueError:
        return None, tensors_in((args, kwargs))
    return key, tensors


def _maker(func: OpOverload, args: Sequence[Any], kwargs: dict[str, Any], out: Any) -> _Maker | None:
    """What makes the like of ``out``, or None where only ``func`` can."""
    if func.namespace not in _NAMESPACES:
        return None
    if torch.Tag.inplace in func.tags:
        return itemgetter(0) if torch.Tag.inplace_view not in func.tags and out is args[0] else None
    if any(argument.alias_info is not None for argument in func._schema.arguments):
        return None
    results = [out] if isinstance(out, Tensor) else out
    if type(out) not in (Tensor, tuple, list) or any(type(x) not in (Tensor, type(None)) for x in results):
        return None
    # What shares a storage with an argument or another result is a view, whatever the schema says.
    made = tensors_in(results)
    own = {x.untyped_storage()._cdata for x in made}
    given = {x.untyped_storage()._cdata for x in tensors_in((args, kwargs))}
    if len(own) < len(made) or own & given or not all(x.is_meta for x in made):
        return None
    specs = [None if x is None else (x.shape, x.stride(), x.dtype) for x in results]
    if isinstance(out, Tensor):
        return lambda _: _make(specs[0])
    kind = type(out)
    return lambda _: kind(map(_make, specs))


def _make(spec: _Spec | None) -> Tensor | None:
    return None if spec is None else torch.empty_strided(spec[0], spec[1], dtype=spec[2], device="meta")


def _key(values: Iterable[Any], tensors: list[Tensor]) -> tuple[Any, ...]:
    key: list[Any] = []
    for value in values:
        kind = type(value)
        if kind is Tensor or kind is nn.Parameter:
            # Of a tensor on the CPU the values may matter, of a complex one whether it is a conjugate.
            if not value.is_meta or value.layout is not torch.strided or value.is_complex():
                raise _OpaqueError
            key.append((value.shape, value.stride(), value.dtype))
            tensors.append(value)
        elif kind in (list, tuple, torch.Size):
            key.append(_key(value, tensors))
        elif kind in _PLAIN:
            key.append((kind, value))  # 1, 1.0 and True are equal, but make results of different types
        else:
            raise _OpaqueError
    return tuple(key)
