"""What is known of the values of tensors that have no data: constants, what is made of them, and balanced choices.

A trace runs on meta tensors. What of them follows from constants alone is worked out on the CPU when somebody asks for
it, call by call as PyTorch would have; nothing is computed before. The unit is the storage, so that views see what is
written through each other. What data choose among alternatives (the experts of a token: topk, argmax, sort, multinomial
of scores) is spread evenly, and everything made of it is marked as such.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from math import prod
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch._ops import OpOverload
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._pytree import tree_map_only

from ._choices import CHOICES, Choice
from ._provenance import tensors_in
from ._traffic import access_of

__all__ = ["Known", "Values", "unwatched"]

_MOST = 2**27
"""Elements of a tensor whose values are worked out: a gigabyte of int64."""
_MOST_COPIED = 2**20
"""Elements of a tensor on the CPU that are kept because a tensor without data was made of it."""
_FOLLOWED = ("aten", "prims")


class Known(NamedTuple):
    """Values on the CPU, and whether they stand for a balanced choice of data's."""

    values: Tensor
    routed: bool


@dataclass(slots=True, eq=False)
class _Content:
    """All elements of one storage: ``flat`` once they are worked out (None: they cannot be), until then by ``run``."""

    dtype: torch.dtype
    flat: Tensor | None = None
    run: _Run | None = None
    routed: bool = False


class _Read(NamedTuple):
    """A tensor among the arguments of a call: what its storage held then, and how it looks at it."""

    content: _Content
    size: torch.Size
    stride: tuple[int, ...]
    offset: int


class _Blank(NamedTuple):
    """A tensor of which a call uses the shape only."""

    size: torch.Size
    dtype: torch.dtype


class _Made(NamedTuple):
    """A new storage that a call made: its elements, and the result of the call that lies in it."""

    content: _Content
    place: int
    elements: int
    size: torch.Size
    stride: tuple[int, ...]
    offset: int


@dataclass(slots=True, eq=False)
class _Run:
    """A call to be made on the CPU if somebody asks for what it makes or changes."""

    work: Callable[..., Any]
    args: Any
    kwargs: Any
    changed: list[tuple[_Content, _Content]] = field(default_factory=list)
    made: list[_Made] = field(default_factory=list)

    def inputs(self) -> Iterator[_Content]:
        yield from (read.content for read in _reads((self.args, self.kwargs)))

    def outputs(self) -> Iterator[_Content]:
        yield from (new for _, new in self.changed)
        yield from (made.content for made in self.made)

    def execute(self) -> None:
        """Fill in what the call makes; where it cannot be made here, that stays unknown."""
        flats = {content: content.flat for content in self.inputs()}
        try:
            if all(flat is not None for flat in flats.values()) and all(m.elements <= _MOST for m in self.made):
                self._work(flats)
        except (RuntimeError, NotImplementedError, IndexError, TypeError, ValueError):
            for content in self.outputs():
                content.flat = None
        for content in self.outputs():
            content.run = None

    def _work(self, flats: dict[_Content, Any]) -> None:
        for old, _ in self.changed:
            flats[old] = flats[old].clone()
        args, kwargs = _filled((self.args, self.kwargs), flats)
        results = tensors_in(self.work(*args, **kwargs))
        for old, new in self.changed:
            new.flat = flats[old]
        for made in self.made:
            flat = torch.zeros(made.elements, dtype=made.content.dtype)
            flat.as_strided(made.size, made.stride, made.offset).copy_(results[made.place])
            made.content.flat = flat


def _reads(nest: Any) -> Iterator[_Read]:
    if isinstance(nest, _Read):
        yield nest
    elif isinstance(nest, list | tuple) and not isinstance(nest, _Blank):
        for item in nest:
            yield from _reads(item)
    elif isinstance(nest, dict):
        yield from _reads(list(nest.values()))


def _filled(nest: Any, flats: dict[_Content, Tensor]) -> Any:
    """The arguments of a call as tensors on the CPU."""
    if isinstance(nest, _Read):
        return flats[nest.content].as_strided(nest.size, nest.stride, nest.offset)
    if isinstance(nest, _Blank):
        return torch.zeros((), dtype=nest.dtype).expand(nest.size)
    if isinstance(nest, dict):
        return {key: _filled(value, flats) for key, value in nest.items()}
    if type(nest) in (list, tuple):
        return type(nest)(_filled(item, flats) for item in nest)
    return torch.device("cpu") if isinstance(nest, torch.device) else nest


@contextmanager
def unwatched() -> Iterator[None]:
    """Computing on the CPU inside is no part of the step."""
    with torch._C._DisableTorchDispatch(), torch._C.DisableTorchFunction():
        yield


class Values:
    """Follows the calls of a trace: :meth:`follow` after each, :meth:`of` to ask."""

    def __init__(self) -> None:
        self._held: dict[int, tuple[StorageWeakRef, _Content]] = {}
        self._purge_at = 1024

    def of(self, tensor: Tensor) -> Known | None:
        """The values of ``tensor``, None if they depend on data."""
        if not tensor.is_meta:
            return Known(tensor.detach(), False)
        content = self._content(tensor)
        if content is None:
            return None
        with unwatched():
            _force(content)
            if content.flat is None:
                return None
            values = content.flat.as_strided(tensor.size(), tensor.stride(), tensor.storage_offset())
        return Known(values, content.routed)

    def remember(self, tensor: Tensor, values: Tensor) -> None:
        """Let the whole of ``tensor``, which is on meta and not a view, be ``values``."""
        run = _Run(lambda: values, (), {})
        self._make(run, 0, tensor, routed=False)

    def forget(self, tensor: Tensor) -> None:
        """Let what lies in the storage of ``tensor`` depend on data."""
        self._held.pop(tensor.untyped_storage()._cdata, None)

    def follow(
        self, func: OpOverload, args: Sequence[Any], kwargs: dict[str, Any], tensors: Sequence[Tensor], out: Any
    ) -> None:
        """Take note of a call, which has been made: of what it wrote and returned."""
        written = access_of(func).written
        if written:
            self._written(func, args, kwargs, written)
        elif func.namespace in _FOLLOWED and not self._returned(func, args, kwargs, tensors, out):
            choice = CHOICES.get(func)
            if choice is not None:
                self._chosen(choice, args, kwargs, out)

    def _returned(
        self, func: OpOverload, args: Sequence[Any], kwargs: dict[str, Any], tensors: Sequence[Tensor], out: Any
    ) -> bool:
        """Note what a call that writes nothing made of what is known; whether it is known."""
        shapes_only = _takes_shapes(func)
        if not shapes_only and any(self._content(tensor) is None for tensor in tensors):
            return False
        fresh = [(place, one) for place, one in enumerate(tensors_in(out)) if one.is_meta]
        if not fresh or _is_unforeseen(func):
            return not fresh
        given = {tensor.untyped_storage()._cdata for tensor in tensors}
        run = self._run(func, args, kwargs, blank=shapes_only)
        if run is None:
            return False
        routed = any(content.routed for content in run.inputs())
        for place, one in fresh:
            if one.untyped_storage()._cdata not in given:
                self._make(run, place, one, routed=routed)
        return True

    def _written(self, func: OpOverload, args: Sequence[Any], kwargs: dict[str, Any], names: frozenset[str]) -> None:
        if torch.Tag.inplace_view in func.tags:
            if func._schema.name.startswith("aten::resize"):
                self.forget(args[0])
            return
        schema = func._schema.arguments
        bound = {**{a.name: value for a, value in zip(schema, args, strict=False)}, **kwargs}
        targets = [tensor for tensor in tensors_in([bound[name] for name in names if name in bound]) if tensor.is_meta]
        overwrites = access_of(func).overwrites
        for target in targets:
            if overwrites and self._content(target) is None and _whole(target):
                self._blank(target)
        run = None
        if func.namespace in _FOLLOWED and not _is_unforeseen(func):
            run = self._run(func, args, kwargs, blank=False)
        olds = [self._content(target) for target in targets]
        if run is None or any(old is None for old in olds):
            for target in targets:
                self.forget(target)
            return
        routed = any(content.routed for content in run.inputs())
        for target, old in zip(targets, olds, strict=True):
            if old is not None and all(old is not known for known, _ in run.changed):
                new = _Content(old.dtype, run=run, routed=routed)
                run.changed.append((old, new))
                self._hold(target, new)

    def _chosen(self, choice: Choice, args: Sequence[Any], kwargs: dict[str, Any], out: Any) -> None:
        """Spread evenly what a call chose of scores that depend on data."""
        indices = tensors_in(out)[choice.result]
        # A single decision, of an early exit say, cannot be shared.
        if indices.is_meta and indices.dim():
            blank = _Blank(args[0].shape, args[0].dtype)
            run = _Run(choice.spread, ([blank, *args[1:]], dict(kwargs), tuple(indices.shape)), {})
            self._make(run, 0, indices, routed=True)

    def _run(self, func: OpOverload, args: Any, kwargs: Any, *, blank: bool) -> _Run | None:
        """The call with what its arguments hold now; None where that is not known."""
        unknown = False

        def read(tensor: Tensor) -> Any:
            nonlocal unknown
            if blank:
                return _Blank(tensor.shape, tensor.dtype)
            content = self._content(tensor)
            if content is None:
                unknown = True
                return None
            if not tensor.is_meta:
                return _Read(content, tensor.shape, _dense(tensor.shape), 0)
            return _Read(content, tensor.shape, tensor.stride(), int(tensor.storage_offset()))

        args, kwargs = tree_map_only(Tensor, read, (list(args), dict(kwargs)))
        return None if unknown else _Run(func, args, kwargs)

    def _content(self, tensor: Tensor) -> _Content | None:
        if tensor.is_meta:
            held = self._held.get(tensor.untyped_storage()._cdata)
            return held[1] if held is not None and held[1].dtype is tensor.dtype else None
        if isinstance(tensor, nn.Parameter) or tensor.numel() > _MOST_COPIED or tensor.is_complex():
            return None
        return _Content(tensor.dtype, flat=tensor.detach().clone().reshape(-1))

    def _make(self, run: _Run, place: int, tensor: Tensor, *, routed: bool) -> None:
        if tensor.is_complex() or tensor.layout is not torch.strided:
            return
        content = _Content(tensor.dtype, run=run, routed=routed)
        elements = tensor.untyped_storage().nbytes() // tensor.element_size()
        run.made.append(_Made(content, place, elements, tensor.shape, tensor.stride(), int(tensor.storage_offset())))
        self._hold(tensor, content)

    def _blank(self, tensor: Tensor) -> None:
        self._make(_Run(torch.zeros, ((),), {}), 0, tensor, routed=False)

    def _hold(self, tensor: Tensor, content: _Content) -> None:
        storage = tensor.untyped_storage()
        self._held[storage._cdata] = (StorageWeakRef(storage), content)  # type: ignore[no-untyped-call]
        if len(self._held) > self._purge_at:
            self._held = {
                key: held
                for key, held in self._held.items()
                if not held[0].expired()  # type: ignore[no-untyped-call]
            }
            self._purge_at = 2 * len(self._held) + 1024


def _force(content: _Content) -> None:
    """Work ``content`` out, what it is made of first."""
    waiting = [content]
    while waiting:
        run = waiting[-1].run
        if run is None:
            waiting.pop()
            continue
        before = [other for other in run.inputs() if other.run is not None]
        if before:
            waiting.extend(before)
        else:
            run.execute()


def _whole(tensor: Tensor) -> bool:
    return tensor.numel() * tensor.element_size() == tensor.untyped_storage().nbytes()


def _dense(shape: Sequence[int]) -> tuple[int, ...]:
    return tuple(prod(shape[axis + 1 :]) for axis in range(len(shape)))


@cache
def _is_unforeseen(func: OpOverload) -> bool:
    """Whether a call draws numbers, or leaves memory as it finds it."""
    return torch.Tag.nondeterministic_seeded in func.tags or access_of(func).moves_nothing


@cache
def _takes_shapes(func: OpOverload) -> bool:
    """Whether a call looks at the shapes of its tensors only, and makes numbers all the same."""
    name = func._schema.name.partition("::")[2]
    return name in ("zeros_like", "ones_like", "full_like", "new_zeros", "new_ones", "new_full")
