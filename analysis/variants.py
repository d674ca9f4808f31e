"""What the parameters of a machine take of an FPGA: modules of small machines that differ in few of them, synthesised.

``python -m weft.analysis.variants`` measures ``tables/variants.json`` anew: some thirty runs of Yosys, of seconds each
and kept in the cache as they come, so that it goes on where it was stopped. A number after it is how many run at once.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from ..dataflow.accelerator import AcceleratorSpec
from ..dataflow.xnor.spec import XnorSpec
from ..hdl.flow.devices import DEVICES, Resources
from ..hdl.registry import BLOCKS
from .synthesised import AREA_TARGETS, AreaTarget, block_fields

__all__ = ["Fields", "Variant", "changed", "plan", "variants"]

_FILE = "variants.json"

Fields = Mapping[str, Any]
"""Fields of a machine by their path, as ``array.rows``; ``mhz`` is its clock."""
Counts = tuple[int, ...]
"""LUT sites, FF, DSP, BRAM and URAM of one module."""
Planned = tuple[tuple[str, ...], Fields]
"""Modules of a block, and fields in which the machine that they are of differs from `base`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """Modules of a block that were synthesised, by name, of a machine whose fields are ``of``."""

    of: Fields
    modules: Mapping[str, Counts]


def changed(spec: AcceleratorSpec, fields: Fields) -> AcceleratorSpec:
    """``spec`` with some fields changed."""
    for path, value in fields.items():
        part, _, name = path.partition(".")
        if path == "mhz":
            spec = replace(spec, clock_hz=value * 1_000_000)
        else:
            spec = replace(spec, **{part: replace(getattr(spec, part), **{name: value}) if name else value})
    return spec


_CLOCKS: dict[AreaTarget, tuple[int, ...]] = {"ecp5": (60, 100), "xcup": (200, 400)}
"""Clocks in MHz that Yosys is told; at the first all else is measured."""
_FORMATS = ("fp16", "bf16")


def base(target: AreaTarget) -> AcceleratorSpec:
    """The machine that all others are variants of: 2 x 2 PEs of `sat-vcu1525` and of the default XNOR engine."""
    from ..dataflow.config_io import load_spec

    return changed(
        load_spec("sat-vcu1525"),
        {
            "mhz": _CLOCKS[target][0],
            "array.rows": 2,
            "array.cols": 2,
            "sore.lanes": 2,
            "wuve.lanes": 2,
            "xnor": XnorSpec(rows=2, cols=2),
        },
    )


def plan(block: str, target: AreaTarget) -> Iterator[Planned]:
    """What is measured of ``block``, the reference first."""
    return {"stce": _stce, "xnor_engine": _xnor, "sore": _sore, "wuve": _wuve}[block](target)


_RIM = ("control", "stce_row", "edges")
_RINGS = ((2, 4), (64, 4), (8, 2), (8, 16), (64, 16))
"""Accumulators, and pairs or words held, that a row's ring of steps is measured with."""


def _stce(target: AreaTarget) -> Iterator[Planned]:
    yield ("pe", *_RIM), {}
    for mhz in _CLOCKS[target][1:]:
        yield ("pe",), {"mhz": mhz}
    yield ("pe", "edges"), {"pe.format": "bf16"}
    for words, lanes in ((16, 1), (128, 1), (32, 2), (32, 4), (32, 8), (128, 4)):
        yield ("pe",), {"pe.dense_words": words, "array.w2e_words": lanes}
    yield ("pe",), {"pe.format": "bf16", "pe.dense_words": 128}
    for sums in (2, 64):
        yield ("pe",), {"pe.accumulators": sums}
    for pairs in (2, 16):
        yield ("pe",), {"pe.weight_pairs": pairs}
    for group in (1, 8, 32):
        yield ("pe",), {"pe.max_group": group}
    for rows, cols in ((1, 1), (8, 8)):
        yield _RIM, {"array.rows": rows, "array.cols": cols}
    for rows, cols in ((1, 4), (4, 1)):
        yield ("edges",), {"array.rows": rows, "array.cols": cols}
        yield ("edges",), {"array.rows": rows, "array.cols": cols, "pe.format": "bf16"}
    yield ("edges",), {"array.rows": 4, "array.cols": 1, "array.w2e_words": 4}
    yield ("edges",), {"pe.accumulators": 64, "pe.weight_pairs": 16}
    yield ("control", "stce_row"), {"pe.dense_words": 256}
    for sums, pairs in _RINGS:
        yield ("control", "stce_row"), {"pe.accumulators": sums, "pe.weight_pairs": pairs}
    for sums in (4, 16):
        yield ("pe",), {"pe.accumulators": sums}
    yield ("pe",), {"pe.weight_pairs": 8}
    for words in (64, 256):
        yield ("pe",), {"pe.dense_words": words}


_XNOR_RIM = ("control", "xnor_row", "edges")


def _xnor(target: AreaTarget) -> Iterator[Planned]:
    yield ("xnor_pe", *_XNOR_RIM), {}
    for bits in (32, 128, 256):
        yield ("xnor_pe",), {"xnor.word_bits": bits}
    # Yosys 0.70 ends without a word on a count in one cycle for ECP5.
    for cycles in (4 if target == "ecp5" else 1, 3):
        yield ("xnor_pe",), {"xnor.popcount_latency": cycles}
    yield ("xnor_pe",), {"xnor.popcount_latency": 3, "xnor.word_bits": 128}
    for words in (2, 32):
        yield ("xnor_pe",), {"xnor.dense_words": words}
    for words in (2, 16):
        yield ("xnor_pe",), {"xnor.weight_words": words}
    for sums in (2, 64):
        yield ("xnor_pe",), {"xnor.accumulators": sums}
    for mhz in _CLOCKS[target][1:]:
        yield ("xnor_pe",), {"mhz": mhz}
    for rows, cols in ((1, 1), (8, 8)):
        yield _XNOR_RIM, {"xnor.rows": rows, "xnor.cols": cols}
    yield ("edges",), {"xnor.word_bits": 128, "xnor.cols": 4}
    yield ("edges",), {"xnor.accumulators": 64, "xnor.weight_words": 16}
    yield ("xnor_row", "control"), {"xnor.dense_words": 32}
    for sums, words in _RINGS:
        yield ("xnor_row", "control"), {"xnor.accumulators": sums, "xnor.weight_words": words}


def _sore(_target: AreaTarget) -> Iterator[Planned]:
    for kind in ("serial", "network"):
        own = {"sore.kind": kind}
        for group in (8, 4, 2):
            yield ("sore_lane", "edges"), own | {"pe.max_group": group}
        yield ("edges",), own | {"sore.lanes": 4}
        yield ("sore_lane",), own | {"pe.format": "bf16"}
    yield ("sore_lane", "edges"), {"pe.max_group": 1}


def _wuve(_target: AreaTarget) -> Iterator[Planned]:
    yield ("wuve_lane", "edges"), {}
    yield ("wuve_lane",), {"pe.format": "bf16"}
    yield ("edges",), {"wuve.lanes": 4}


@cache
def variants(block: str, target: AreaTarget) -> tuple[Variant, ...]:
    """What was measured of ``block``, the reference first."""
    return tuple(
        Variant(of=row["of"], modules={name: tuple(counts) for name, counts in row["modules"].items()})
        for row in _document()["variants"]
        if (row["block"], row["target"]) == (block, target)
    )


@cache
def _document() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((resources.files(__package__) / "tables" / _FILE).read_text(encoding="utf-8"))
    return found


def counted_by() -> str:
    """The tools that counted the variants."""
    said: str = _document()["tools"]
    return said


BLOCKS_MEASURED = ("stce", "sore", "wuve", "xnor_engine")
_BATCH = 6
"""Machines in one run of Yosys, whose start takes as long as some modules."""


def measured(block: str, target: AreaTarget, batch: Sequence[Planned]) -> list[dict[str, Counts]]:
    """Modules of several machines of one clock, in one run of Yosys.

    Modules are kept apart, so that each is counted as if it were alone (tests/analysis/test_variants.py).
    """
    from ..hdl.flow.devices import resources_of
    from ..hdl.flow.synthesis import by_module, modules_apart, script_of
    from ..hdl.flow.tools import cached, run_tool, tool_version

    texts, black, kept = list[str](), list[str](), list[str]()
    for number, (modules, fields) in enumerate(batch):
        text, instances = modules_apart(changed(base(target), fields), BLOCKS[block].within, modules, f"v{number}_")
        texts.append(text)
        black += instances
        kept += [f"v{number}_{module}" for module in modules]
    cells = "".join(f"  attribute \\keep 1\n  cell \\{name} \\u{i}\n  end\n" for i, name in enumerate(kept))
    texts.append(f"attribute \\top 1\nmodule \\all\n{cells}end\n")
    (mhz,) = {changed(base(target), fields).clock_hz // 1_000_000 for _, fields in batch}
    script = script_of(text_file="design.il", kept=kept, top="all", target=target, mhz=mhz)
    script[1:1] = [f"blackbox {name}" for name in black]
    script.append(f"tee -q -o stat.json stat {'-tech xilinx ' if target == 'xcup' else ''}-json")

    def make(folder: Path) -> None:
        (folder / "design.il").write_text("".join(texts))
        run_tool("yosys", ["-q", "-p", "; ".join(script)], folder)

    material = [*texts, *script, tool_version("yosys")]
    stat = json.loads(cached("synth", material, "stat.json", make).read_text())
    found = by_module(stat, "all", target)

    def counts(name: str) -> Counts:
        _, cells, lut = found[name]
        r: Resources = resources_of({cell: n for cell, n in cells.items() if cell not in black}, lut)
        return DEVICES[target].sites(r), r.ff, r.dsp, r.bram, r.uram

    return [{module: counts(f"v{number}_{module}") for module in modules} for number, (modules, _) in enumerate(batch)]


def _one(job: tuple[str, AreaTarget, list[Planned]]) -> list[dict[str, Counts]]:
    return measured(*job)


def _batches(block: str, target: AreaTarget) -> Iterator[tuple[str, AreaTarget, list[Planned]]]:
    """What is planned of ``block``, by the clock and in order."""
    by_clock: dict[int, list[Planned]] = {}
    for modules, fields in plan(block, target):
        by_clock.setdefault(fields.get("mhz", _CLOCKS[target][0]), []).append((modules, fields))
    for planned in by_clock.values():
        for first in range(0, len(planned), _BATCH):
            yield block, target, planned[first : first + _BATCH]


def measure(workers: int = 1) -> None:
    """Measure all of `plan` and write the table that ships."""
    from ..hdl.flow.tools import tool_version
    from ..workloads.files import write_atomically

    jobs = [job for block in BLOCKS_MEASURED for target in AREA_TARGETS for job in _batches(block, target)]
    rows = []
    with ProcessPoolExecutor(workers) as pool:
        for done, (job, made) in enumerate(zip(jobs, pool.map(_one, jobs), strict=True), 1):
            block, target, batch = job
            for (_, fields), modules in zip(batch, made, strict=True):
                of = block_fields(changed(base(target), fields), BLOCKS[block])
                rows.append({"block": block, "target": target, "of": of, "modules": modules})
            sys.stderr.write(f"\r{done} of {len(jobs)} ")
    note = "measured: yosys counts after mapping, not Vivado's; written by python -m weft.analysis.variants"
    head = f'{{"source": {json.dumps(note)},\n "tools": {json.dumps(tool_version("yosys"))},\n "variants": [\n'
    text = head + ",\n".join(f"  {json.dumps(row, sort_keys=True)}" for row in rows) + "\n ]}\n"
    write_atomically(Path(__file__).parent / "tables" / _FILE, text.encode())


if __name__ == "__main__":
    measure(*map(int, sys.argv[1:2]))
