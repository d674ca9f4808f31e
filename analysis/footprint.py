"""What of a machine steps use: the LUTs of the blocks that they need, as synthesis counted them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import assert_never

from ..dataflow.accelerator import AcceleratorSpec
from ..dataflow.engine import Engine
from ..hdl.flow.devices import DEVICES
from ..hdl.registry import BLOCKS
from ..simulator.result import SimResult
from .area import known_area
from .synthesised import AREA_TARGETS, AreaTarget, known_block

__all__ = ["Footprint", "area_target", "blocks_in_use", "footprint"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Footprint:
    """Blocks that steps use, with their LUT sites on a device; None where synthesis has not counted all of them.

    ``lut_sites``: those of the blocks in use; ``of``: those of the device. A block counts as it is built, whatever part
    of it a step needs.
    """

    blocks: tuple[str, ...]
    device: str | None
    lut_sites: int | None
    of: int | None


def area_target(spec: AcceleratorSpec) -> AreaTarget | None:
    """The first device on which synthesis has counted the whole of a machine."""
    return next((target for target in AREA_TARGETS if known_area(spec, target) is not None), None)


def footprint(steps: Sequence[SimResult]) -> Footprint:
    """What ``steps`` of one machine use together."""
    spec, blocks = steps[0].spec, blocks_in_use(steps)
    target = area_target(spec)
    if target is None:
        return Footprint(blocks=blocks, device=None, lut_sites=None, of=None)
    counted = [known_block(spec, BLOCKS[name], target) if name in BLOCKS else None for name in blocks]
    sites = [sum(module.lut_sites * module.count for module in found.modules) for found in counted if found]
    return Footprint(
        blocks=blocks,
        device=DEVICES[target].name,
        lut_sites=sum(sites) if len(sites) == len(blocks) else None,
        of=DEVICES[target].has.lut,
    )


def blocks_in_use(steps: Sequence[SimResult]) -> tuple[str, ...]:
    """Blocks of the machine that some op of ``steps`` needs, by the names of `BLOCKS` and in their order; engines of
    others come last, by their own names."""
    used = {_block_of(engine) for step in steps for engine in step.engines}
    if any(step.counts.sore_compares for step in steps):
        used.add("sore")
    if any(step.counts.updates for step in steps):
        used.add("wuve")
    return (*(name for name in BLOCKS if name in used), *sorted(used - BLOCKS.keys()))


def _block_of(engine: Engine) -> str:
    match engine.kind:
        case "stce":
            return "stce"
        case "xnor":
            return "xnor_engine"
        case "gather":
            return "gather_engine"
        case "outside":
            return engine.name
        case _:
            assert_never(engine.kind)
