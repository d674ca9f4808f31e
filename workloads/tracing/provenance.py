"""Where the data of every storage comes from: constants, parameters, the batch, or the loss gradient."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import torch
from torch import Tensor, nn

from ..levels import Levels

__all__ = ["Ledger", "Origin", "Provenance", "stored_bytes", "stored_elements", "tensors_in"]


class Origin(IntEnum):
    """Lattice of sources; a result has the highest origin among its inputs.

    ``LEARNED`` is data made of parameters and constants alone: what a layer makes of a learned query.
    """

    CONSTANT = 0
    PARAMETER = 1
    LEARNED = 2
    DATA = 3
    GRADIENT = 4


_PARAMETER = Origin.PARAMETER
_NOWHERE = frozenset[tuple[str, ...]]()


@dataclass(slots=True, eq=False)
class Provenance:
    """Origin of one storage, which it stands for, and the parameters it was made from if from nothing else.

    ``homes`` tell where its sources live, for each the paths of the modules that own it (several, if they share it) or
    of the one in whose call it was made. ``chosen`` names the parameters whose rows the storage holds where data chose
    them: the experts of a token. ``read`` and ``changed`` tell whether an op read it, or wrote it in place.
    ``levels``: the few values that the model says it takes. ``dtype``, ``shape``: of the storage as
    it was first seen.
    """

    homes: frozenset[tuple[str, ...]] = _NOWHERE
    origin: Origin = Origin.CONSTANT
    parameters: tuple[str, ...] = ()
    chosen: tuple[str, ...] = ()
    read: bool = False
    changed: bool = False
    levels: Levels | None = None
    dtype: torch.dtype | None = None
    shape: tuple[int, ...] = ()

    @property
    def is_parameter(self) -> bool:
        return self.origin is Origin.PARAMETER

    def within(self, path: str) -> bool:
        """Whether all of its sources live in the module of this path, or in one inside of it."""
        return not path or all(any(f"{home}.".startswith(f"{path}.") for home in owners) for owners in self.homes)

    def raise_to(self, origin: Origin, parameters: tuple[str, ...]) -> None:
        """Join in what is written; an in-place write must never leave the class behind."""
        self.origin = max(self.origin, origin)
        merged = dict.fromkeys(self.parameters + parameters)
        self.parameters = tuple(merged) if self.is_parameter else ()


class Ledger:
    """Provenance per storage.

    Keys are storage addresses, each pinned by a weak reference so that no later storage is given the same address;
    they are let go of with the ledger.
    ``calls`` are the paths of the modules that are being called, the innermost last; the model's own is empty.
    """

    def __init__(self, model: nn.Module) -> None:
        self._entries: dict[int, Provenance] = {}
        self._pins: list[int] = []
        weakref.finalize(self, _unpin, self._pins)
        self._at: dict[str, frozenset[tuple[str, ...]]] = {}  # homes of what is made in a call, by its path
        self.calls: list[str] = []
        self._paths = {id(module): path for path, module in model.named_modules()}
        self.labels = parameter_labels(model)
        owners: dict[Tensor, tuple[str, ...]] = {}
        for named in (model.named_buffers(remove_duplicate=False), model.named_parameters(remove_duplicate=False)):
            for name, tensor in named:
                owners[tensor] = (*owners.get(tensor, ()), name.rpartition(".")[0])
        for tensor, paths in owners.items():
            self.of(tensor).homes = frozenset({paths})
        for parameter, label in self.labels.items():
            self.of(parameter).raise_to(Origin.PARAMETER, (label,))

    def enter(self, module: nn.Module) -> None:
        """Note the call of a module; what a parametrization takes in is the weight of the layer that it belongs to."""
        path = self._paths.get(id(module), self.calls[-1] if self.calls else "")
        self.calls.append(f".{path}".partition(".parametrizations.")[0][1:])

    def of(self, tensor: Tensor) -> Provenance:
        """The provenance of the storage behind ``tensor``; a storage not seen before is a constant."""
        storage = tensor.untyped_storage()
        found = self._entries.get(storage._cdata)
        return self._first_seen(storage, tensor) if found is None else found

    def of_all(self, tensors: Sequence[Tensor], storages: Sequence[int]) -> list[Provenance]:
        """:meth:`of` each, from the addresses of their storages."""
        known = self._entries
        try:
            return [known[storage] for storage in storages]
        except KeyError:
            return [self.of(tensor) for tensor in tensors]

    def _first_seen(self, storage: torch.UntypedStorage, tensor: Tensor) -> Provenance:
        homes = _OUTSIDE
        if self.calls:
            path = self.calls[-1]
            homes = self._at.get(path) or self._at.setdefault(path, frozenset({(path,)}))
        pin: Any = storage._weak_ref()
        self._pins.append(pin)
        made = self._entries[storage._cdata] = Provenance(homes)
        made.dtype, made.shape = tensor.dtype, tuple(tensor.shape)
        if tensor.numel() * tensor.element_size() != storage.nbytes():
            made.shape = (storage.nbytes() // tensor.element_size(),)
        return made

    def only_read(self) -> set[Provenance]:
        """The storages that some op reads and none changes in place."""
        return {one for one in self._entries.values() if one.read and not one.changed}

    def declare(self, value: object, origin: Origin) -> None:
        """Give every tensor in a nest of arguments an origin."""
        for tensor in tensors_in(value):
            self.of(tensor).raise_to(origin, ())

    def flow(self, reads: Sequence[Provenance], written: Sequence[Provenance]) -> None:
        """Let what was read reach what was written."""
        if not reads:
            return
        origin = Origin.CONSTANT
        for source in reads:
            source.read = True
            if source.origin > origin:
                origin = source.origin
        if origin > _PARAMETER:
            for target in written:
                if target.origin < origin:
                    target.origin = origin
                target.parameters, target.homes = (), _NOWHERE
            return
        if len(reads) == 1 and all(target is reads[0] for target in written):
            return
        names = tuple(name for source in reads for name in source.parameters)
        homes = _NOWHERE.union(*(source.homes for source in reads))
        for target in written:
            target.raise_to(origin, names)
            target.homes = homes

    def layer_input(self, a: Tensor, b: Tensor) -> Tensor | None:
        """Which operand of a product without data is the input of a layer; none where two weights are multiplied.

        A layer is the innermost module being called that owns one of the two. If it owns a parameter and the other came
        from outside, that is its input; if it owns both, as an adapter does that is merged into its weight, what they
        make is a weight too, unless one is repeated as only a batch is.
        """
        one, two = self.of(a), self.of(b)
        if max(one.origin, two.origin) is not Origin.PARAMETER:
            return None
        for path in reversed(self.calls):
            if one.within(path) != two.within(path):
                own, given = (one, b) if one.within(path) else (two, a)
                return given if own.is_parameter else None
            if one.within(path):
                break
        repeated = [tensor for tensor in (a, b) if stored_elements(tensor) < tensor.numel()]
        both = one.is_parameter and two.is_parameter
        return repeated[0] if both and len(repeated) == 1 else None

    def gather(self, source: Provenance, written: Iterable[Provenance]) -> None:
        """Let rows of ``source`` that data chose, or a copy of such rows, be known as what they are."""
        for target in written:
            target.levels = source.levels
            if target.origin is Origin.DATA:
                target.chosen = source.parameters or source.chosen


_OUTSIDE: frozenset[tuple[str, ...]] = frozenset({()})
"""The home of what is made before the model is called."""


def _unpin(pins: Iterable[int]) -> None:
    for pin in pins:
        torch.UntypedStorage._free_weak_ref(pin)  # type: ignore[no-untyped-call]


def parameter_labels(model: nn.Module) -> dict[nn.Parameter, str]:
    """Every parameter once, with all its names: ``emb.weight``, or ``emb.weight=head.weight`` where tied."""
    names: dict[nn.Parameter, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(parameter, []).append(name)
    return {parameter: "=".join(all_names) for parameter, all_names in names.items()}


_SINGLE = (int, float, str, type(None))
"""Most arguments that are no tensor; to ask whether they are a mapping takes longer."""


def tensors_in(value: Any) -> list[Tensor]:
    """The tensors in a nest of lists, tuples and mappings, in order."""
    found: list[Tensor] = []
    _collect((value,), found)
    return found


def _collect(values: Iterable[Any], found: list[Tensor]) -> None:
    for value in values:
        if isinstance(value, Tensor):
            found.append(value)
        elif isinstance(value, list | tuple):
            _collect(value, found)
        elif not isinstance(value, _SINGLE) and isinstance(value, Mapping):
            _collect(value.values(), found)


def stored_elements(tensor: Tensor) -> int:
    """Elements that memory holds: a dimension expanded with stride 0 is stored once."""
    if tensor.is_contiguous():
        return tensor.numel()
    count = 1
    for size, stride in zip(tensor.shape, tensor.stride(), strict=True):
        count *= size if stride or size == 0 else 1
    return count


def stored_bytes(tensor: Tensor) -> int:
    """Bytes of the elements that memory holds."""
    return stored_elements(tensor) * tensor.element_size()
