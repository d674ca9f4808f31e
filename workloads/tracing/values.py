"""What is known of the values of tensors that have no data: constants, what is made of them, and balanced choices.

A trace runs on meta tensors. What of them follows from constants alone is worked out on the CPU when somebody asks for
it, call by call as PyTorch would have; nothing is computed before. The unit is the storage, so that views see what is
written through each other. What data choose among alternatives (the experts of a token: topk, argmax, sort, multinomial
of scores) is spread evenly, and everything made of it is marked as such.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from math import prod
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch._ops import OpOverload
from torch.multiprocessing.reductions import StorageWeakRef

from .choices import CHOICES, Choice
from .provenance import tensors_in
from .replay import Blank, Choose, Content, Made, Read, Run, Scores, force, is_unforeseen
from .traffic import access_of

__all__ = ["Known", "Values", "is_plain", "unwatched"]

_MOST_COPIED = 2**20
"""Elements of a tensor on the CPU that are kept because a tensor without data was made of it."""
_LARGE = 2**16
"""Elements worked out that are worth looking for others that nobody needs any more."""
_FOLLOWED = ("aten", "prims")


class Known(NamedTuple):
    """Values on the CPU, and whether they stand for a balanced choice of data's."""

    values: Tensor
    routed: bool


@contextmanager
def unwatched() -> Iterator[None]:
    """Computing on the CPU inside is no part of the step."""
    with torch._C._DisableTorchDispatch(), torch._C.DisableTorchFunction():
        yield


class Values:
    """Follows the calls of a trace: :meth:`follow` after each, :meth:`of` to ask."""

    def __init__(self) -> None:
        self._held: dict[int, tuple[StorageWeakRef, Content]] = {}
        self._masked: dict[int, tuple[StorageWeakRef, Run]] = {}  # scores after a choice, by storage
        self.chose = False  # whether anything stands for a choice of data's
        self._purge_at = 1024

    def of(self, tensor: Tensor) -> Known | None:
        """The values of ``tensor``, None if they depend on data."""
        if not tensor.is_meta:
            return Known(tensor.detach(), False)
        content = self._content(tensor)
        if content is None:
            return None
        with unwatched():
            force(content)
            if content.flat is None:
                return None
            if content.flat.numel() > _LARGE:
                self._purge()
            values = content.flat.as_strided(tensor.size(), tensor.stride(), tensor.storage_offset())
        return Known(values, content.routed)

    def remember(self, tensor: Tensor, values: Tensor) -> None:
        """Let the whole of ``tensor``, which is on meta and not a view, be ``values``."""
        run = Run(lambda: values, (), {})
        self._make(run, 0, tensor, routed=False)

    def forget(self, tensor: Tensor) -> None:
        """Let what lies in the storage of ``tensor`` depend on data."""
        self._held.pop(tensor.untyped_storage()._cdata, None)

    def follow(
        self, func: OpOverload, args: Sequence[Any], kwargs: dict[str, Any], tensors: Sequence[Tensor], out: Any
    ) -> None:
        """Take note of a call, which has been made: of what it wrote and returned."""
        written = access_of(func).written
        masked = self._mask(func, args, kwargs, tensors, out) if self.chose else None
        if written:
            self._written(func, args, kwargs, written)
        elif func.namespace in _FOLLOWED and not self._returned(func, args, kwargs, tensors, out):
            choice = CHOICES.get(func)
            if choice is not None:
                self._chosen(func, choice, args, kwargs, out)
        if masked is not None:
            storage = out.untyped_storage()
            self._masked[storage._cdata] = (StorageWeakRef(storage), masked)  # type: ignore[no-untyped-call]

    def lets_go(self, storages: Sequence[int], written: Sequence[int], *, overwrites: bool) -> bool:
        """Whether nothing is known of what a plain call makes, told by the addresses of its storages, all on meta.

        What it writes, named by place, is forgotten then. A call of which this is False is to be followed.
        """
        if self.chose:
            return False
        held, targets = self._held, [storages[place] for place in written] if written else ()
        for storage in storages:
            if storage not in held and not (overwrites and storage in targets):
                break
        else:
            return False
        for storage in targets:
            held.pop(storage, None)
        return True

    def _mask(
        self, func: OpOverload, args: Sequence[Any], kwargs: dict[str, Any], tensors: Sequence[Tensor], out: Any
    ) -> Run | None:
        """The call if it changes scores by what was chosen of them, or goes on with such scores."""
        if func.namespace not in _FOLLOWED or not isinstance(out, Tensor) or not out.is_floating_point():
            return None
        known = [self._content(tensor) for tensor in tensors]
        scores = [tensor for tensor, content in zip(tensors, known, strict=True) if content is None]
        if len(scores) != 1 or scores[0].shape != out.shape or is_unforeseen(func):
            return None
        before = self._masked_before(scores[0])
        if before is None and not any(content is not None and content.routed for content in known):
            return None
        return self._run(func, args, kwargs, blank=False, scores=Scores(out.shape, scores[0].dtype, before))

    def _masked_before(self, scores: Tensor) -> Run | None:
        held = self._masked.get(scores.untyped_storage()._cdata)
        return held[1] if held is not None and not _expired(held[0]) else None

    def _returned(
        self, func: OpOverload, args: Sequence[Any], kwargs: dict[str, Any], tensors: Sequence[Tensor], out: Any
    ) -> bool:
        """Note what a call that writes nothing made of what is known; whether it is known."""
        shapes_only = _takes_shapes(func)
        if not shapes_only and any(self._content(tensor) is None for tensor in tensors):
            return False
        fresh = [(place, one) for place, one in enumerate(tensors_in(out)) if one.is_meta]
        if not fresh or is_unforeseen(func):
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
        run = None
        if func.namespace in _FOLLOWED and not is_unforeseen(func):
            for target in targets if access_of(func).overwrites else ():
                if self._content(target) is None and _whole(target):
                    self._blank(target)
            run = self._run(func, args, kwargs, blank=False)
        olds = [self._content(target) for target in targets]
        if run is None or any(old is None for old in olds):
            for target in targets:
                self.forget(target)
            return
        routed = any(content.routed for content in run.inputs())
        for target, old in zip(targets, olds, strict=True):
            if old is not None and all(old is not known for known, _ in run.changed):
                new = Content(old.dtype, run=run, routed=routed)
                run.changed.append((old, new))
                self._hold(target, new)

    def _chosen(self, func: OpOverload, choice: Choice, args: Sequence[Any], kwargs: dict[str, Any], out: Any) -> None:
        """Spread evenly what a call chose of scores that depend on data."""
        indices = tensors_in(out)[choice.result]
        # A single decision, of an early exit say, cannot be shared.
        if indices.is_meta and indices.dim():
            scores = Scores(args[0].shape, args[0].dtype, self._masked_before(args[0]))
            run = Choose(func, [scores, *args[1:]], dict(kwargs), choice=choice, chosen=indices.shape)
            self._make(run, 0, indices, routed=True)
            self.chose = True

    def _run(self, func: OpOverload, args: Any, kwargs: Any, *, blank: bool, scores: Any = None) -> Run | None:
        """The call with what its arguments hold now, ``scores`` for the one that depends on data; else None."""
        unknown = False

        def read(tensor: Tensor) -> Any:
            nonlocal unknown
            if blank:
                return Blank(tensor.shape, tensor.dtype)
            content = self._content(tensor)
            if content is None:
                unknown = unknown or scores is None
                return scores
            if not tensor.is_meta:
                return Read(content, tensor.shape, _dense(tensor.shape), 0)
            return Read(content, tensor.shape, tensor.stride(), int(tensor.storage_offset()))

        filled = _with_tensors(list(args), read), {name: _with_tensors(one, read) for name, one in kwargs.items()}
        return None if unknown else Run(func, *filled)

    def _content(self, tensor: Tensor) -> Content | None:
        if tensor.is_meta:
            held = self._held.get(tensor.untyped_storage()._cdata)
            return held[1] if held is not None and held[1].dtype is tensor.dtype else None
        if isinstance(tensor, nn.Parameter) or tensor.layout is not torch.strided or tensor.is_complex():
            return None
        if tensor.numel() > _MOST_COPIED:
            return None
        return Content(tensor.dtype, flat=tensor.detach().clone().reshape(-1))

    def _make(self, run: Run, place: int, tensor: Tensor, *, routed: bool) -> None:
        if tensor.is_complex() or tensor.layout is not torch.strided:
            return
        content = Content(tensor.dtype, run=run, routed=routed)
        elements = tensor.untyped_storage().nbytes() // tensor.element_size()
        run.made.append(Made(content, place, elements, tensor.shape, tensor.stride(), int(tensor.storage_offset())))
        self._hold(tensor, content)

    def _blank(self, tensor: Tensor) -> None:
        self._make(Run(torch.zeros, ((),), {}), 0, tensor, routed=False)

    def _hold(self, tensor: Tensor, content: Content) -> None:
        storage = tensor.untyped_storage()
        self._held[storage._cdata] = (StorageWeakRef(storage), content)  # type: ignore[no-untyped-call]
        if len(self._held) > self._purge_at:
            self._purge()
            self._purge_at = 2 * len(self._held) + 1024

    def _purge(self) -> None:
        """Let go of what lay in storages that are no more."""
        self._held = {key: held for key, held in self._held.items() if not _expired(held[0])}
        self._masked = {key: held for key, held in self._masked.items() if not _expired(held[0])}


def _expired(storage: StorageWeakRef) -> bool:
    return bool(storage.expired())  # type: ignore[no-untyped-call]


def _with_tensors(nest: Any, read: Callable[[Tensor], Any]) -> Any:
    """Arguments of a call with what ``read`` makes of their tensors; operators take no other nests than lists."""
    if isinstance(nest, Tensor):
        return read(nest)
    if type(nest) in (list, tuple):
        return type(nest)([_with_tensors(item, read) for item in nest])
    return nest


def _whole(tensor: Tensor) -> bool:
    return tensor.numel() * tensor.element_size() == tensor.untyped_storage().nbytes()


def _dense(shape: Sequence[int]) -> tuple[int, ...]:
    return tuple(prod(shape[axis + 1 :]) for axis in range(len(shape)))


def is_plain(func: OpOverload) -> bool:
    """Whether a call makes values of those of its tensors only, and knows none where one of them is not known."""
    return func not in CHOICES and not _takes_shapes(func) and torch.Tag.inplace_view not in func.tags


@cache
def _takes_shapes(func: OpOverload) -> bool:
    """Whether a call looks at the shapes of its tensors only, and makes numbers all the same."""
    name = func._schema.name.partition("::")[2]
    return name in ("zeros_like", "ones_like", "full_like", "new_zeros", "new_ones", "new_full")
