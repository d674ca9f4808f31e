"""Results of operators on tensors without data, worked out once per operator and shapes of its arguments.

PyTorch finds the shape of a result on meta in Python, in some 90 us, and a step repeats few shapes: the loop of a
recurrence the same forty, a transformer those of one block. What else shapes alone tell of a call is kept with it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any

import torch
from torch import Tensor, nn
from torch._ops import OpOverload
from torch.utils._pytree import tree_map_only

from ..step import MatrixOp, VectorOp
from .products import bind, is_product, operator_name
from .provenance import tensors_in
from .traffic import Access, Traffic, access_of
from .values import is_plain

__all__ = ["Call", "Results", "call_of", "grouped_result", "key_of", "without_data"]

_Spec = tuple[torch.Size, tuple[int, ...], torch.dtype]
_Maker = Callable[[Sequence[Any]], Any]
"""From the arguments of a call to its result."""

_NAMESPACES = ("aten", "prims")
"""Of operators whose results depend on their arguments alone."""

_META = torch.device("meta")
_PLAIN = frozenset(
    (bool, int, float, complex, str, type(None), torch.dtype, torch.device, torch.layout, torch.memory_format)
)
_NESTS = frozenset((list, tuple, torch.Size))


class _OpaqueError(Exception):
    """An argument whose part in the result its shape does not tell."""


@dataclass(slots=True, eq=False)
class Call:
    """What is known of all calls of an operator with arguments of some shapes.

    ``make`` makes the result, None where only the operator does. ``changed`` are places of what is written among the
    tensors of the arguments, ``running`` those of it that the schema does not name; ``plain`` calls are those of
    :func:`is_plain`. ``traffic`` is what the recorder found such a call to move, None until then, and in a tuple after,
    ``looks`` that it looks at one tensor differently; ``vectors`` and ``matrices`` are the ops that it made of such
    calls, by all else that they depend on.
    """

    func: OpOverload
    name: str
    access: Access
    multiplies: bool
    plain: bool
    changed: tuple[int, ...]
    running: tuple[int, ...]
    make: _Maker | None = None
    traffic: tuple[Traffic | None] | None = None
    looks: bool = False
    vectors: dict[Any, VectorOp] = field(default_factory=dict)
    matrices: dict[Any, MatrixOp] = field(default_factory=dict)


def call_of(func: OpOverload, args: Sequence[Any], kwargs: dict[str, Any], *, plain: bool) -> Call:
    """What arguments of such shapes tell of a call before it is made."""
    access, places, start = access_of(func), {}, 0
    given = bind(func, args, kwargs)
    for name, value in given.items():
        end = start + len(tensors_in(value))
        places[name], start = range(start, end), end
    # The schema of aten.native_batch_norm does not say that it writes them.
    hidden = ("running_mean", "running_var") if given.get("training") else ()
    running = tuple(place for name in hidden for place in places.get(name, ()))
    # In the order of the arguments: that of a set of names is another in every process.
    changed = tuple(place for name, own in places.items() if name in access.written for place in own)
    return Call(func, operator_name(func), access, is_product(func), plain, changed + running, running)


class Results:
    """What operators return, by operator and shapes: a new tensor each time, as the operator itself makes one."""

    def __init__(self) -> None:
        self._calls: dict[Any, Call] = {}
        self.known = self._calls.get
        """The :class:`Call` of a key, if there was one."""

    def of(self, func: OpOverload, args: Sequence[Any], kwargs: dict[str, Any], key: Any) -> tuple[Any, Call]:
        """The result of ``func``, which is called where it was not yet, or where the result is a view.

        And what is known of such calls; ``key`` is their :func:`key_of`.
        """
        call = self._calls.get(key)
        if call is None:
            out = func(*args, **kwargs)
            call = self._calls[key] = call_of(func, args, kwargs, plain=is_plain(func))
            call.make = _maker(func, args, kwargs, out)
            return out, call
        return (func(*args, **kwargs) if call.make is None else call.make(args)), call


def key_of(func: OpOverload, args: Sequence[Any], kwargs: dict[str, Any]) -> tuple[Any, list[Tensor]]:
    """A key, equal for calls whose results are of the same shapes, and the tensors among the arguments.

    The key is None where values may matter or not all are on meta. It holds for as long as ``func`` lives.
    """
    tensors: list[Tensor] = []
    # An operator hashes itself in Python.
    key: list[Any] = [id(func), torch.get_default_dtype()]
    try:
        _describe(args, key, tensors)
        for name, value in kwargs.items():
            key.append(name)
            _describe((value,), key, tensors)
    except _OpaqueError:
        return None, tensors_in((args, kwargs))
    return tuple(key), tensors


def _describe(values: Iterable[Any], key: list[Any], tensors: list[Tensor]) -> None:
    """Write down ``values``: a tensor as three entries, a plain value as its type and itself, a nest as a tuple."""
    for value in values:
        kind = type(value)
        if kind is Tensor or kind is nn.Parameter:
            dtype = value.dtype
            # Of a tensor on the CPU the values may matter, of a complex one whether it is a conjugate.
            if not value.is_meta or value.layout is not torch.strided or dtype.is_complex:
                raise _OpaqueError
            key += (value.shape, value.stride(), dtype)
            tensors.append(value)
        elif kind in _PLAIN:
            key += (kind, value)  # 1, 1.0 and True are equal, but make results of different types
        elif kind in _NESTS:
            nest: list[Any] = []
            _describe(value, nest, tensors)
            key.append(tuple(nest))
        else:
            raise _OpaqueError


def _maker(func: OpOverload, args: Sequence[Any], kwargs: dict[str, Any], out: Any) -> _Maker | None:
    """What makes the like of ``out``, or None where only ``func`` can."""
    if func.namespace not in _NAMESPACES:
        return None
    if torch.Tag.inplace in func.tags:
        return itemgetter(0) if torch.Tag.inplace_view not in func.tags and out is args[0] else None
    aliases = [argument.alias_info for argument in func._schema.arguments if argument.alias_info is not None]
    if torch.Tag.inplace_view in func.tags or not all(alias.is_write for alias in aliases):
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
        shape, stride, dtype = out.shape, out.stride(), out.dtype
        return lambda _: torch.empty_strided(shape, stride, dtype=dtype, device=_META)
    kind = type(out)
    return lambda _: kind(map(_make, specs))


def _make(spec: _Spec | None) -> Tensor | None:
    return None if spec is None else torch.empty_strided(spec[0], spec[1], dtype=spec[2], device=_META)


def without_data(args: Sequence[Any], kwargs: dict[str, Any]) -> tuple[Sequence[Any], dict[str, Any]]:
    """The arguments of a call, all on meta: a model may name a device, or bring a constant that is on one.

    Lengths and indices stay where they are: some operators want them on the CPU.
    """

    def moved(tensor: Tensor) -> Tensor:
        return tensor.to("meta") if tensor.dim() and tensor.is_floating_point() else tensor

    on_meta = [tensor.is_meta for tensor in tensors_in((args, kwargs))]
    if any(on_meta):
        if kwargs.get("device") is not None:
            kwargs = {**kwargs, "device": _META}
        if not all(on_meta):
            args, kwargs = tree_map_only(Tensor, moved, (args, kwargs))
    return args, kwargs


def grouped_result(a: Tensor, b: Tensor, offs: Tensor | None = None, *_: Any, **__: Any) -> Tensor:
    """What a grouped product returns; PyTorch's own rule for meta refuses every format but bfloat16."""
    groups = []
    if a.dim() == b.dim() == 3:
        groups = [len(a)]
    elif a.dim() == b.dim() and offs is not None:
        groups = [len(offs)]
    return a.new_empty(*groups, a.shape[-2], b.shape[-1])
