"""Sizes of what is fed to a graph: the batch, and other axes that the file leaves free."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import InputError, nearest, require_int
from .file import fed_inputs

__all__ = ["Sizes", "asked_sizes"]

_Place = tuple[str, int]
"""An axis of an input."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """What is written into the inputs of a graph."""

    batch: int | None
    """None where the file is to say it."""
    leading: Mapping[str, int]
    """Of each input that has one, the axis of its batch."""
    given: Mapping[_Place, int]
    """Sizes of other axes."""

    def write(self, graph: Any, batch: int | None) -> int:
        """Write ``batch`` and what else is given into the inputs of ``graph``, refuse what stays free; the batch."""
        free = _free(graph)
        symbols = {free[place] for place in self.leading.items() if place in free} - {""}
        missing: dict[str, _Place] = {}
        for value in fed_inputs(graph):
            for axis, dim in enumerate(value.type.tensor_type.shape.dim):
                place = value.name, axis
                if place not in free:
                    continue
                of_batch = self.leading.get(value.name) == axis or free[place] in symbols
                size = batch if of_batch else self.given.get(place)
                if size is not None:
                    dim.dim_value = size
                elif not of_batch or not symbols.isdisjoint(missing):
                    missing.setdefault(_key(place, free), place)
                else:
                    missing = {_key(place, free): place, **missing}
        if missing:
            _refuse_free(missing, self.leading, free, batch)
        found = [
            value.type.tensor_type.shape.dim[self.leading[value.name]].dim_value
            for value in fed_inputs(graph)
            if value.name in self.leading
        ]
        if batch is not None and batch not in found:
            fixed = f"the file fixes it at {found[0]}" if found else "no input has an axis for it"
            raise InputError(f"batch {batch} given, but {fixed}")
        return found[0] if batch is None and found else batch or 1


def asked_sizes(
    graph: Any, batch: int | None, dims: Mapping[str, int], sample: tuple[int, ...] | None, axes: Mapping[str, int]
) -> Sizes:
    """What ``batch``, ``dims`` and the shape of one ``sample`` say of the inputs of ``graph``.

    ``dims``: sizes of free axes by their name, or as ``INPUT:AXIS``. The batch of an input is the axis that ``axes``
    says, else the one with "batch" in its name, else the first; where ``dims`` takes that and ``batch`` is given too,
    it is the one free axis that is left. Inputs without any shape get one of ``sample``.
    """
    inputs = fed_inputs(graph)
    if not inputs:
        raise InputError("the graph has no input")
    if sample is not None and not inputs[0].type.tensor_type.HasField("shape"):
        for name in ("batch", *[""] * len(sample)):
            inputs[0].type.tensor_type.shape.dim.add(dim_param=name)
    for value in inputs:
        kind = value.type.tensor_type
        if value.type.HasField("tensor_type") and not kind.HasField("shape"):
            raise InputError(f"input {value.name!r} has no shape: give that of one sample, as in --input 3x224x224")
    free = _free(graph)
    given = _given(graph, dims, free)
    leading = _leading(inputs, axes, free)
    taken = {given[place] for place in leading.items() if place in given}
    left = {_key(place, free) for place in free if place not in given}
    if taken and batch not in (None, *taken) and len(left) == 1:
        leading = {name: axis for name, axis in free if _key((name, axis), free) in left}
    elif taken:
        sizes = sorted(taken | ({batch} if batch is not None else set()))
        if len(sizes) > 1:
            raise InputError(f"the batch is given as {sizes[0]} and as {sizes[1]}")
        batch = sizes[0]
    for place, size in ({} if sample is None else _sampled(inputs, sample, leading, free)).items():
        if given.setdefault(place, size) != size:
            raise InputError(f"axis {place[1]} of input {place[0]!r} is given as {given[place]} and as {size}")
    return Sizes(batch, leading, given)


def _free(graph: Any) -> dict[_Place, str]:
    """Axes whose size the file leaves open, with their names, which may be empty."""
    return {
        (value.name, axis): str(dim.dim_param)
        for value in fed_inputs(graph)
        for axis, dim in enumerate(value.type.tensor_type.shape.dim)
        # Some exporters write what is free as 0 or -1.
        if not (dim.HasField("dim_value") and dim.dim_value > 0)
    }


def _key(place: _Place, free: Mapping[_Place, str]) -> str:
    return free[place] or f"{place[0]}:{place[1]}"


def _given(graph: Any, dims: Mapping[str, int], free: Mapping[_Place, str]) -> dict[_Place, int]:
    """The sizes ``dims``, by place."""
    shapes = {value.name: value.type.tensor_type.shape.dim for value in fed_inputs(graph)}
    fixed = {
        f"{name}:{axis}": dim.dim_value
        for name, shape in shapes.items()
        for axis, dim in enumerate(shape)
        if (name, axis) not in free
    }
    given: dict[_Place, int] = {}
    for name, size in dims.items():
        require_int(f"dim {name}", size, 1, 2**31)
        if name in fixed and fixed[name] != size:
            raise InputError(f"dim {name} = {size} given, but the file fixes it at {fixed[name]}")
        places = [place for place in free if name in (free[place], f"{place[0]}:{place[1]}")]
        if not places and name not in fixed:
            known = dict.fromkeys(_key(place, free) for place in free)
            said = f"{nearest(name, known)}; free are {_listed(free)}" if known else "the file leaves no axis free"
            raise InputError(f"dim {name!r} is no free axis of an input: {said}")
        for place in places:
            if given.setdefault(place, size) != size:
                raise InputError(f"axis {place[1]} of input {place[0]!r} is given as {given[place]} and as {size}")
    return given


def _leading(inputs: list[Any], axes: Mapping[str, int], free: Mapping[_Place, str]) -> dict[str, int]:
    """The axis of the batch, of each input that has one."""
    called = {place: name for place, name in free.items() if "batch" in name.lower()}
    found: dict[str, int] = {}
    for value in inputs:
        rank = len(value.type.tensor_type.shape.dim)
        named = next((axis for name, axis in called if name == value.name), None)
        if value.name in axes:
            found[value.name] = axes[value.name]
        elif named is not None:
            found[value.name] = named
        elif rank and not (called and free.get((value.name, 0))):
            # Beside an axis that is called the batch, one of another name is another.
            found[value.name] = 0
    return found


def _sampled(
    inputs: list[Any], sample: tuple[int, ...], leading: Mapping[str, int], free: Mapping[_Place, str]
) -> dict[_Place, int]:
    """Sizes of the axes of the one input that one ``sample`` has."""
    shown = "x".join(map(str, sample))
    for size in sample:
        require_int("input", size, 1, 2**31)
    if len(inputs) > 1:
        names = ", ".join(repr(value.name) for value in inputs)
        raise InputError(f"input {shown} given, but there are {len(inputs)}: {names}; give sizes of axes, {_example}")
    name, shape = inputs[0].name, inputs[0].type.tensor_type.shape.dim
    rest = [axis for axis in range(len(shape)) if axis != leading.get(name)]
    now = " x ".join(
        free.get((name, axis), "") or (str(dim.dim_value) if (name, axis) not in free else "?")
        for axis, dim in enumerate(shape)
    )
    if len(rest) != len(sample):
        raise InputError(
            f"input {shown} has {len(sample)} axes, but a sample of {name!r} ({now}) has {len(rest)} behind the batch"
        )
    for axis, size in zip(rest, sample, strict=True):
        if (name, axis) not in free and shape[axis].dim_value != size:
            raise InputError(
                f"input {shown} given, but the file fixes axis {axis} of {name!r} at "
                f"{shape[axis].dim_value}: it is {now}"
            )
    return {(name, axis): size for axis, size in zip(rest, sample, strict=True)}


_example = "as in --dim height=224 --dim width=224"


def _listed(free: Mapping[_Place, str]) -> str:
    """Free axes, as messages name them."""
    by: dict[str, list[str]] = {}
    for name, axis in free:
        by.setdefault(_key((name, axis), free), []).append(f"axis {axis} of input {name!r}")
    return ", ".join(f"{key!r} ({', '.join(places)})" for key, places in by.items())


def _refuse_free(
    missing: Mapping[str, _Place], leading: Mapping[str, int], free: Mapping[_Place, str], batch: int | None
) -> None:
    of_batch = [key for key, (name, axis) in missing.items() if leading.get(name) == axis]
    others = [key for key in missing if key not in of_batch]
    example = " ".join(["--batch 8"] * (batch is not None or bool(of_batch)) + [f"--dim {key}=128" for key in others])
    if of_batch and not others:
        name, axis = missing[of_batch[0]]
        label = repr(free[name, axis]) if free[name, axis] else "without a name"
        raise InputError(
            f"the batch dimension {label} of input {name!r} is symbolic: give a batch size, as in {example}"
        )
    listed = _listed({place: name for place, name in free.items() if _key(place, free) in missing})
    raise InputError(f"sizes of the file are symbolic: {listed}; give them, as in {example}")
