"""Area of a whole machine on an FPGA: measured synthesis of its blocks, and memory blocks for its buffers by capacity.

`known_area` looks blocks up (`synthesised.py`) and never runs a tool; `machine_area` synthesizes those that are not
known (minutes), and then they are. What is not there: DMA, memory controller, vector unit, clocking and the shell of a
board.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

from ..dataflow.accelerator import AcceleratorSpec
from ..hdl.block import Block
from ..hdl.flow.devices import DEVICES
from ..hdl.registry import BLOCKS
from ..workloads.errors import InputError, nearest
from ..workloads.mark import Mark
from ..workloads.one_line import OneLine
from .synthesised import AREA_TARGETS, AreaTarget, Module, Synthesised, counted_block, known_block

__all__ = [
    "Area",
    "AreaItem",
    "blocks_of",
    "buffer_blocks",
    "known_area",
    "machine_area",
    "memory_of",
    "require_target",
    "uncounted_blocks",
]

Progress = Callable[[int, int], object]

_MEMORY_BITS = {"ecp5": ("bram", 18 * 1024), "xcup": ("uram", 288 * 1024)}
"""EBR of ECP5, URAM288 of UltraScale+: the block that holds the buffers, and its bits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AreaItem(Module):
    """The modules of a block, and whether their counts are measured or inferred; buffers are, by capacity."""

    block: str
    mark: Mark = Mark.MEASURED


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Area(OneLine):
    """Modules of a machine on a device: Yosys' counts, not Vivado's; buffers: by capacity."""

    machine: str
    target: AreaTarget
    device: str
    tools: str
    items: tuple[AreaItem, ...]
    has: dict[str, int]

    @property
    def total(self) -> dict[str, int]:
        return {name: sum(getattr(item, name) * item.count for item in self.items) for name in self.has}

    @property
    def inferred(self) -> tuple[AreaItem, ...]:
        """Modules that nobody counted, besides the buffers."""
        return tuple(item for item in self.items if item.mark is not Mark.MEASURED and item.block != "buffers")

    def document(self) -> dict[str, Any]:
        """As the command line prints it."""
        mark = "inferred from measured modules" if self.inferred else "measured"
        return {**asdict(self), "mark": f"{mark} (yosys count, not Vivado's)", "total": self.total}


def machine_area(spec: AcceleratorSpec, target: AreaTarget, progress: Progress | None = None) -> Area:
    """Area of ``spec``; blocks that are not known are synthesized. ``progress``: blocks done, and all."""
    require_target(target)
    found: dict[str, Synthesised] = {}
    blocks = blocks_of(spec)
    for i, block in enumerate(blocks):
        if progress is not None:
            progress(i, len(blocks))
        found[block.name] = known_block(spec, block, target) or counted_block(spec, block, target)
    return _area(spec, target, found)


def known_area(spec: AcceleratorSpec, target: AreaTarget) -> Area | None:
    """Area of ``spec``, or None if synthesis has not counted all of its blocks; nothing is run."""
    require_target(target)
    found = {block.name: known_block(spec, block, target) for block in blocks_of(spec)}
    known = {name: counts for name, counts in found.items() if counts is not None}
    return _area(spec, target, known) if len(known) == len(found) else None


def uncounted_blocks(spec: AcceleratorSpec, target: AreaTarget) -> tuple[Block, ...]:
    """Blocks of ``spec`` that synthesis has not counted."""
    return tuple(block for block in blocks_of(spec) if known_block(spec, block, target) is None)


def blocks_of(spec: AcceleratorSpec) -> tuple[Block, ...]:
    """Blocks that a whole machine is made of."""
    if spec.gather is not None and spec.gather.balance == "stealing":
        raise InputError(
            f"gather.balance of {spec.name!r} is stealing, of which there is no RTL to count; use sorted or static"
        )
    return tuple(block for block in BLOCKS.values() if block.in_machine and block.present(spec))


def require_target(target: str) -> None:
    """Refuse a device of which no machines are counted."""
    if target not in AREA_TARGETS:
        raise InputError(f"--target: there is no area for {target!r}; {nearest(target, AREA_TARGETS)}")


def _area(spec: AcceleratorSpec, target: AreaTarget, blocks: dict[str, Synthesised]) -> Area:
    device = DEVICES[target]
    has = asdict(device.has)
    items = [AreaItem(block=name, **asdict(module)) for name, counts in blocks.items() for module in counts.modules]
    return Area(
        machine=spec.name,
        target=target,
        device=device.name,
        tools=", ".join(dict.fromkeys(counts.tools for counts in blocks.values())),
        has={"lut_sites": has["lut"], **{name: has[name] for name in ("ff", "dsp", "bram", "uram")}},
        items=(*items, *buffer_blocks(spec, target)),
    )


def memory_of(target: AreaTarget) -> tuple[str, int]:
    """The kind of memory block that the buffers are in, as `Module` has it, and its bits."""
    return _MEMORY_BITS[target]


def buffer_blocks(spec: AcceleratorSpec, target: AreaTarget) -> tuple[AreaItem, ...]:
    """Memory blocks that hold the bytes of the buffers, of every engine its own, and of tensors that stay on chip, all
    their bits used: as few as there can be."""
    kind, bits = memory_of(target)
    sizes = {name: getattr(spec.buffers, f"{name}_bytes") for name in ("w2e", "n2s", "output", "resident")}
    blank = AreaItem(
        block="buffers", name="", count=len(spec.engines), lut_sites=0, ff=0, dsp=0, bram=0, uram=0, mark=Mark.INFERRED
    )
    found = [replace(blank, name=name, **{kind: -(-8 * size // bits)}) for name, size in sizes.items()]
    held = found.pop()
    return (*found, replace(held, count=1)) if sizes["resident"] else tuple(found)
