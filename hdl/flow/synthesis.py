"""Synthesis of a machine's blocks with Yosys.

Counts are Yosys' own after mapping to the cells of the device family; they are not Vivado's.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from amaranth.back import rtlil

from ...dataflow.accelerator import AcceleratorSpec
from ...workloads.errors import InputError, nearest, require_int
from ...workloads.update_rule import SGD
from ..block import Block, usual_pattern
from .devices import DEVICES, LEAST, Resources, Target, resources_of
from .tools import cached, require_tool, run_tool, tool_version

__all__ = [
    "STAGES",
    "TOP",
    "Part",
    "Progress",
    "Synthesis",
    "by_module",
    "design",
    "design_of",
    "modules_apart",
    "refuse_what_cannot_fit",
    "script_of",
    "synthesize",
]

Progress = Callable[[int, int], object]
TOP = "weft"
STAGES = ("synthesis", "Packing", "Running main analytical placer", "Running detailed", "Routing", "Program finished")
"""Of a synthesis and of nextpnr behind it, as nextpnr announces them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """``count`` equal modules of ``each``."""

    name: str
    count: int
    each: Resources


@dataclass(frozen=True, slots=True, kw_only=True)
class Synthesis:
    """A block on a target, by the modules that it is made of; ``cells`` of the whole as Yosys names them."""

    block: str
    target: Target
    tools: str
    parts: tuple[Part, ...]
    cells: Mapping[str, int]

    @property
    def total(self) -> Resources:
        return sum((b.each * b.count for b in self.parts), Resources())


def synthesize(
    spec: AcceleratorSpec, block: Block, target: Target, mhz: int = 100, progress: Progress | None = None
) -> Synthesis:
    """Count what ``block`` of ``spec`` takes on ``target``, from the cache where it was counted before.

    ``mhz`` tells Yosys which paths need not be any faster, so that it saves LUTs on them. SORE keeps the usual pattern,
    WUVE updates by SGD. Latches and loops of gates are errors.
    """
    _require_target(target)
    require_int("--mhz", mhz, 1, 1000)
    refuse_what_cannot_fit(spec, block, target)
    require_tool("yosys")
    text, kept = design(spec, block)
    found = _count(text, kept, TOP, target, mhz, progress)
    counted = [
        Part(name=_name(module, block, kept), count=count, each=resources_of(cells, lut))
        for module, (count, cells, lut) in found.items()
    ]
    made = Synthesis(
        block=block.name,
        target=target,
        tools=tool_version("yosys"),
        parts=tuple(b for b in counted if b.each != Resources()),
        cells=_all_cells(found),
    )
    _refuse_too_large(made)
    return made


def refuse_what_cannot_fit(spec: AcceleratorSpec, block: Block, target: Target) -> None:
    """Refuse, before anything is elaborated, an array of more PEs than the device can hold whatever they take."""
    device, least, count = DEVICES[target], LEAST[target], block.multipliers(spec)
    for name, unit in (("dsp", "multipliers"), ("lut", "LUTs")):
        has, needs = getattr(device.has, name), getattr(least, name)
        if count * needs > has:
            at_most = min(device.has.dsp // least.dsp, device.has.lut // least.lut)
            side = int(at_most**0.5)
            raise InputError(
                f"{spec.name} has {spec.array.rows} x {spec.array.cols} PEs of at least {needs} {unit} each, "
                f"{device.name} ({target}) has {has:,}; at most {at_most} PEs can fit, as {side} x {side}"
                + ("; --block pe takes one PE" if target == "ice40" else "")
            )


def _require_target(target: str) -> None:
    if target not in DEVICES:
        raise InputError(f"--target: there is no target {target!r}; {nearest(target, DEVICES)}")


def _refuse_too_large(made: Synthesis) -> None:
    device, total = DEVICES[made.target], made.total
    needs = {"lut": device.sites(total)} | {name: getattr(total, name) for name in ("ff", "dsp", "bram", "uram")}
    units = {
        "lut": "LUT sites",
        "ff": "registers",
        "dsp": "multipliers",
        "bram": "memory blocks",
        "uram": "URAM blocks",
    }
    for name, count in needs.items():
        has = getattr(device.has, name)
        if count > has:
            part = max(made.parts, key=lambda b: getattr(b.each, name) * b.count)
            raise InputError(
                f"--block {made.block} takes {count:,} {units[name]}, {device.name} ({made.target}) has {has:,}; "
                f"the most are those of {part.count} {part.name}, about {part.count * has // count} of which would fit"
            )


def design(spec: AcceleratorSpec, block: Block) -> tuple[str, list[str]]:
    """RTLIL of a block as module ``weft``, and the modules in it that are counted apart."""
    return design_of(block.make(spec, usual_pattern(spec), SGD), block)


def design_of(component: Any, block: Block) -> tuple[str, list[str]]:
    """As `design`, of ``component``, which ``block`` has made."""
    parts = getattr(component, "parts", {})
    texts = [rtlil.convert(part, name=name, emit_src=False) for name, part in parts.items()]
    text = "".join([*texts, rtlil.convert(component, name=TOP, emit_src=False)])
    return text, [*parts, *(f"{TOP}.{module}" for module in block.apart)]


def modules_apart(spec: AcceleratorSpec, block: Block, modules: Sequence[str], prefix: str) -> tuple[str, list[str]]:
    """RTLIL of ``modules``, named with ``prefix``, and what of it is there only to be instantiated."""
    component = block.make(spec, usual_pattern(spec), SGD)
    parts, control = dict(component.parts), getattr(component, "control", None)
    own, texts, black = list(parts), [], []
    if "edges" in modules:
        whole = rtlil.convert(component, name=f"{prefix}edges", emit_src=False)
        instance = re.compile(rf"^(\s*cell )\\({'|'.join(own)})(?= )", re.MULTILINE)
        texts.append(instance.sub(lambda found: f"{found[1]}\\{prefix}{found[2]}", whole))
        black = [prefix + name for name in own if name not in modules] + ([f"{prefix}edges.control"] if control else [])
    else:
        parts = {name: part for name, part in parts.items() if name in modules}
    if control and "control" in modules:
        parts["control"] = control(component.spec)
    texts += [rtlil.convert(part, name=prefix + name, emit_src=False) for name, part in parts.items()]
    return "".join(texts), black


def _name(module: str, block: Block, kept: Sequence[str]) -> str:
    """A module as reports call it; what is left of the top when its parts are taken out are its edges."""
    if module == TOP:
        return "edges" if kept else block.name
    return module.removeprefix(f"{TOP}.")


def script_of(*, text_file: str, kept: list[str], top: str, target: Target, mhz: int) -> list[str]:
    synthesis = {
        "ecp5": f"synth_ecp5 -top {top}",
        "ice40": f"synth_ice40 -device u -dsp -top {top}",
        "xcup": f"synth_xilinx -family xcup -flatten -noiopad -noclkbuf -top {top}",
    }[target]
    return [
        f"read_rtlil {text_file}",
        f"hierarchy -check -top {top}",
        *(f"setattr -mod -set keep_hierarchy 1 {module}" for module in kept),
        "proc",
        "check -assert",  # neither loops of gates nor wires with two drivers
        "select -assert-none t:$dlatch t:$adlatch t:$dlatchsr t:$sr",
        # without a period ABC buys speed with LUTs even where nothing is gained by it
        f"scratchpad -set abc9.D {1_000_000 // mhz}",
        synthesis,
        "check -assert",
    ]


Counted = dict[str, tuple[int, dict[str, int], int]]
"""By module: how often it is there, its own cells, and the LUTs that Yosys thinks they take on Xilinx."""


def _count(text: str, kept: list[str], top: str, target: Target, mhz: int, progress: Progress | None) -> Counted:
    script = script_of(text_file="design.il", kept=kept, top=top, target=target, mhz=mhz)
    script.append(f"tee -q -o stat.json stat {'-tech xilinx ' if target == 'xcup' else ''}-json")

    def make(folder: Path) -> None:
        (folder / "design.il").write_text(text)
        run_tool("yosys", ["-q", "-p", "; ".join(script)], folder)

    if progress is not None:
        progress(0, len(STAGES))
    stat = json.loads(cached("synth", [text, *script, tool_version("yosys")], "stat.json", make).read_text())
    return by_module(stat, top, target)


def by_module(stat: Mapping[str, Any], top: str, target: Target) -> Counted:
    modules = {name.removeprefix("\\"): module for name, module in stat["modules"].items()}
    instances = dict.fromkeys(modules, 0)

    def visit(name: str, times: int) -> None:
        instances[name] += times
        for cell, count in _cells(modules[name]).items():
            if cell in modules:
                visit(cell, times * count)

    def estimated(name: str) -> int:
        """LUTs of a module alone: the estimate of Yosys includes the modules in it."""
        inside = sum(count * whole(cell) for cell, count in _cells(modules[name]).items() if cell in modules)
        return whole(name) - inside

    def whole(name: str) -> int:
        return int(modules[name]["estimated_num_lc"]) if target == "xcup" else 0

    visit(top, 1)
    return {
        name: (
            instances[name],
            {cell: count for cell, count in _cells(module).items() if cell not in modules},
            estimated(name),
        )
        for name, module in modules.items()
        if instances[name]
    }


def _cells(module: Mapping[str, Any]) -> dict[str, int]:
    cells = {**module["num_cells_by_type"], **module.get("num_submodules_by_type", {})}
    return {name.removeprefix("\\"): int(count) for name, count in cells.items()}


def _all_cells(found: Counted) -> dict[str, int]:
    total: dict[str, int] = {}
    for count, cells, _ in found.values():
        for cell, number in cells.items():
            total[cell] = total.get(cell, 0) + count * number
    return dict(sorted(total.items()))
