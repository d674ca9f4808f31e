"""Where the data of every storage comes from: constants, parameters, the batch, or the loss gradient."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef

__all__ = ["Ledger", "Origin", "Provenance", "stored_bytes", "stored_elements", "tensors_in"]


class Origin(IntEnum):
    """Lattice of sources; a result has the highest origin among its inputs."""

    CONSTANT = 0
    PARAMETER = 1
    DATA = 2
    GRADIENT = 3


@dataclass(slots=True)
class Provenance:
    """Origin of one storage, its serial number, and the parameters it was made from if from nothing else.

    ``direct`` storages are those of the parameters themselves. ``chosen`` names the parameters whose rows the storage
    holds where data chose them: the experts of a token.
    """

    serial: int
    origin: Origin = Origin.CONSTANT
    parameters: tuple[str, ...] = ()
    direct: bool = False
    chosen: tuple[str, ...] = ()

    @property
    def is_parameter(self) -> bool:
        return self.origin is Origin.PARAMETER

    def raise_to(self, origin: Origin, parameters: tuple[str, ...]) -> None:
        """Join in what is written; an in-place write must never leave the class behind (tracing.md, LSTM)."""
        self.origin = max(self.origin, origin)
        merged = dict.fromkeys(self.parameters + parameters)
        self.parameters = tuple(merged) if self.is_parameter else ()


class Ledger:
    """Provenance per storage.

    Keys are storage addresses, each pinned by a weak reference so that no later storage is given the same address.
    """

    def __init__(self, model: nn.Module) -> None:
        self._entries: dict[int, tuple[StorageWeakRef, Provenance]] = {}
        self.labels = parameter_labels(model)
        for parameter, label in self.labels.items():
            self.of(parameter).raise_to(Origin.PARAMETER, (label,))
            self.of(parameter).direct = True

    def of(self, tensor: Tensor) -> Provenance:
        """The provenance of the storage behind ``tensor``; a storage not seen before is a constant."""
        storage = tensor.untyped_storage()
        found = self._entries.get(storage._cdata)
        if found is None:
            found = (StorageWeakRef(storage), Provenance(len(self._entries)))  # type: ignore[no-untyped-call]
            self._entries[storage._cdata] = found
        return found[1]

    def declare(self, value: object, origin: Origin) -> None:
        """Give every tensor in a nest of arguments an origin."""
        for tensor in tensors_in(value):
            self.of(tensor).raise_to(origin, ())

    def flow(self, sources: Iterable[Provenance], written: Iterable[Provenance]) -> None:
        """Let what was read reach what was written."""
        inputs = list(sources)
        origin = max((source.origin for source in inputs), default=Origin.CONSTANT)
        names = tuple(name for source in inputs for name in source.parameters)
        for target in written:
            target.raise_to(origin, names)

    def gather(self, source: Provenance, written: Iterable[Provenance]) -> None:
        """Let rows of ``source`` that data chose, or a copy of such rows, be known as what they are."""
        for target in written:
            if target.origin is Origin.DATA:
                target.chosen = source.parameters or source.chosen


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
