"""Area of any machine of a design space on an FPGA: measured where its modules were, else inferred from others.

Nothing is run. `areas` answers for a million machines in seconds, `area_of_shape` for one, module by module; how far
inferred counts are off is in docs/results/synthesis.md. A machine beyond what was measured is refused, with a reason.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..dataflow.accelerator import AcceleratorSpec
from ..dataflow.ranges import Range, field_rules
from ..hdl.block import Block
from ..hdl.flow.devices import DEVICES, Device
from ..hdl.registry import BLOCKS
from ..workloads.errors import InputError, nearest
from ..workloads.mark import Mark
from ..workloads.one_line import OneLine
from .area import Area, AreaItem, blocks_of, buffer_blocks, known_area, memory_of, require_target
from .area_model import COUNTS, ModuleCounts, counts_of
from .area_rules import RULES
from .synthesised import AreaTarget, known_block
from .variants import counted_by

__all__ = ["Areas", "area_of_shape", "areas", "items_within"]

_CHUNK = 1 << 16
"""Machines worked on at once: bounds the memory."""
_HAS = {"lut": "lut", "ff": "ff", "dsp": "dsp", "bram": "bram", "uram": "uram"}


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Areas(OneLine):
    """What many machines take of an FPGA: float64 [machines] ``lut`` sites, ``ff``, ``dsp``, ``bram`` and ``uram``, NaN
    where not known; bool ``inferred``: whether some counts are; texts ``reason``: why they are not known."""

    target: AreaTarget
    lut: NDArray[np.float64]
    ff: NDArray[np.float64]
    dsp: NDArray[np.float64]
    bram: NDArray[np.float64]
    uram: NDArray[np.float64]
    inferred: NDArray[np.bool_]
    reason: NDArray[np.object_]

    def shares(self, device: Device | None = None) -> dict[str, NDArray[np.float64]]:
        """Of what a device has, float64 [machines] each: 1.0 is all of it. A device is one of the target's family, by
        default the target itself."""
        has = (device or DEVICES[self.target]).has
        found = {}
        for name in _HAS:
            takes, there = getattr(self, name), getattr(has, name)
            found[name] = takes / there if there else np.where(takes > 0, np.inf, 0.0 * takes)
        return found

    def fits(self, device: Device | None = None) -> NDArray[np.bool_]:
        """Whether every share is at most 1, bool [machines]; not where the area is not known. Nothing of routing."""
        fits: NDArray[np.bool_] = np.all([share <= 1 for share in self.shares(device).values()], axis=0)
        return fits

    def over(self, device: Device | None = None) -> NDArray[np.object_]:
        """What a machine takes most too much of, texts [machines]; "" where it fits or its area is not known."""
        shares = self.shares(device)
        most = np.argmax(np.nan_to_num(np.stack(list(shares.values())), posinf=1e300), axis=0)
        known = ~np.isnan(self.lut)
        return np.where(known & ~self.fits(device), np.array([*shares], object)[most], "")


def areas(base: AcceleratorSpec, columns: Mapping[str, ArrayLike], target: AreaTarget) -> Areas:
    """Areas of machines that differ from ``base`` in some fields, by path (``array.rows``), a value a machine.

    Fields that no block depends on change nothing. Values are taken as they are: a machine that `AcceleratorSpec`
    would refuse is not refused here.
    """
    require_target(target)
    given = {path: _column(base, path, column) for path, column in columns.items()}
    sizes = {len(column) for column in given.values()} or {1}
    if len(sizes) > 1:
        lengths = ", ".join(f"{path} {len(column)}" for path, column in given.items())
        raise InputError(f"columns of machines must be of one length, not {lengths}")
    (machines,) = sizes
    parts = [
        _areas(base, {path: column[first : first + _CHUNK] for path, column in given.items()}, target, size)
        for first in range(0, machines, _CHUNK)
        for size in [min(_CHUNK, machines - first)]
    ]
    lut, ff, dsp, bram, uram = np.concatenate([part[0] for part in parts], axis=1)
    return Areas(
        target=target,
        lut=lut,
        ff=ff,
        dsp=dsp,
        bram=bram,
        uram=uram,
        inferred=np.concatenate([part[1] for part in parts]),
        reason=np.concatenate([part[2] for part in parts]),
    )


def area_of_shape(spec: AcceleratorSpec, target: AreaTarget) -> Area:
    """Area of ``spec``, as counted where all of it was, else module by module; an InputError says what is beyond."""
    known = known_area(spec, target)
    if known is not None:
        return known
    items: list[AreaItem] = []
    for block in blocks_of(spec):
        found, reason = _items(spec, block, target)
        if reason:
            raise InputError(f"{spec.name} on {target}: {reason}")
        items += found
    device = DEVICES[target]
    has = asdict(device.has)
    return Area(
        machine=spec.name,
        target=target,
        device=device.name,
        tools=counted_by(),
        items=(*items, *buffer_blocks(spec, target)),
        has={"lut_sites": has["lut"], **{name: has[name] for name in COUNTS[1:]}},
    )


def items_within(spec: AcceleratorSpec, target: AreaTarget) -> tuple[AreaItem, ...]:
    """Modules of the blocks of ``spec`` as `area_of_shape` has them; blocks beyond what is known are left out."""
    return tuple(item for block in blocks_of(spec) for item in _items(spec, block, target)[0])


def _items(spec: AcceleratorSpec, block: Block, target: AreaTarget) -> tuple[list[AreaItem], str]:
    """The modules of a block, or why they are not known."""
    whole = known_block(spec, block, target)
    if whole is not None:
        return [AreaItem(block=block.name, **asdict(module)) for module in whole.modules], ""
    if block.name not in RULES:
        return [], _uncounted(block.name, block.title)
    modules, reason = counts_of(block.name, target, _fields(spec, {}, block.name), 1)
    return ([], reason[0]) if reason[0] else ([_item(block.name, *module) for module in modules.items()], "")


def _item(block: str, name: str, counts: ModuleCounts) -> AreaItem:
    mark = Mark.MEASURED if counts.measured[0] else Mark.INFERRED
    each = dict(zip(COUNTS, counts.each[0].tolist(), strict=True))
    return AreaItem(block=block, name=name, count=int(counts.times[0]), mark=mark, **each)


def _uncounted(name: str, title: str) -> str:
    return f"{title} ({name}) is not inferred from others; `weft area` counts it"


def _column(base: AcceleratorSpec, path: str, column: ArrayLike) -> NDArray[Any]:
    """A column as it is given, of a field that the machine has."""
    rules = {rule.path: rule for rule in field_rules(AcceleratorSpec)}
    if path not in rules:
        raise InputError(f"machines have no field {path!r}; {nearest(path, rules)}")
    part = path.partition(".")[0]
    if getattr(base, part) is None:
        raise InputError(f"{base.name} has no table [{part}], so there is no {path} to vary")
    made, allowed = np.asarray(column), rules[path].allowed
    if made.ndim != 1:
        raise InputError(f"column {path} must have one dimension, not {made.ndim}")
    if isinstance(allowed, Range):
        if not np.issubdtype(made.dtype, np.integer):
            raise InputError(f"column {path} must hold integers, not {made.dtype}")
        return made.astype(np.int64)
    if isinstance(allowed, tuple) and not np.isin(made.astype(str), allowed).all():
        raise InputError(f"column {path} must hold {' or '.join(allowed)}, and has another")
    return made


def _fields(spec: AcceleratorSpec, columns: Mapping[str, NDArray[Any]], block: str) -> dict[str, NDArray[Any]]:
    """What a block depends on, by path: columns where there are some, else what ``spec`` has."""
    found = {path: columns.get(path, np.array([value])) for path, value in _depends(spec, block)}
    clock = columns.get("clock_hz", np.array([spec.clock_hz]))
    return found | {"mhz": np.maximum(1, clock // 1_000_000)}


def _depends(spec: AcceleratorSpec, block: str) -> Iterator[tuple[str, Any]]:
    for name in BLOCKS[block].depends:
        part, _, one = name.partition(".")
        inner = asdict(getattr(spec, part))
        for field in [one] if one else inner:
            yield f"{part}.{field}", inner[field]


def _areas(
    base: AcceleratorSpec, columns: Mapping[str, NDArray[Any]], target: AreaTarget, machines: int
) -> tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.object_]]:
    """Totals [5, machines], which are inferred, and reasons."""
    total = np.zeros((len(COUNTS), machines), np.int64)
    inferred, reason = np.zeros(machines, np.bool_), np.full(machines, "", object)
    for block in blocks_of(base):
        if block.name not in RULES:
            _add_known(base, columns, block.name, target, total, reason)
            continue
        modules, why = counts_of(block.name, target, _fields(base, columns, block.name), machines)
        for counts in modules.values():
            total += counts.times * counts.each.T
            inferred |= ~counts.measured
        reason = np.where(reason == "", why, reason)
    _add_buffers(base, columns, target, total)
    known = reason == ""
    return np.where(known, total, np.nan), inferred & known, reason


def _add_known(
    base: AcceleratorSpec,
    columns: Mapping[str, NDArray[Any]],
    name: str,
    target: AreaTarget,
    total: NDArray[np.int64],
    reason: NDArray[np.object_],
) -> None:
    """Adds a block that is not composed and has to be known as it is in ``base``."""
    block = BLOCKS[name]
    varies = [path for path, _ in _depends(base, name) if path in columns]
    found = None if varies else known_block(base, block, target)
    if found is None:
        reason[reason == ""] = _uncounted(name, block.title)
        return
    for module in found.modules:
        total += np.array([[module.count * getattr(module, count)] for count in COUNTS])


def _add_buffers(
    base: AcceleratorSpec, columns: Mapping[str, NDArray[Any]], target: AreaTarget, total: NDArray[np.int64]
) -> None:
    kind, bits = memory_of(target)
    for name in ("w2e_bytes", "n2s_bytes", "output_bytes"):
        size = columns.get(f"buffers.{name}", np.array([getattr(base.buffers, name)]))
        total[COUNTS.index(kind)] += len(base.engines) * -(-8 * size // bits)
    total[COUNTS.index(kind)] += -(-8 * base.buffers.resident_bytes // bits)
