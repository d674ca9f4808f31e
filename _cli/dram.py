"""`weft dram`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..workloads.errors import InputError
from .console import announce, get_console, make_table, name_of
from .inputs import machine
from .options import Json
from .outputs import print_json

if TYPE_CHECKING:
    from ..simulator.dram import MemoryRun
    from ..simulator.dram_requests import Requests
    from ..simulator.dram_spec import MemorySpec

__all__ = ["dram"]


def dram(
    spec: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|FILE.toml",
            help="Memory: ddr4-2400-x4, -x8, -x16, lpddr4-2400, hbm2 or a file; ddr4-2400-x4 if none.",
        ),
    ] = None,
    arch: Annotated[
        str | None, typer.Option(metavar="NAME|FILE.toml", help="The memory of this machine, with all its channels.")
    ] = None,
    order: Annotated[
        str,
        typer.Option(
            "--map",
            metavar="NAME|FIELDS",
            help="Address map: bg-interleaved, column-low, channel-hashed, or fields from the highest bits down, as "
            "row,rank,bank,column,bankgroup,channel.",
        ),
    ] = "bg-interleaved",
    pattern: Annotated[
        str | None,
        typer.Option(
            help="seq_read, rand_read_64B, copy_1r1w_block64, train_3r1w_block64, stride_8KB_read, ...; seq_read."
        ),
    ] = None,
    trace: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Requests to replay: address,R|W[,cycle] a line, or a trace of Ramulator, DRAMsim3 or DRAMSim2.",
        ),
    ] = None,
    requests: Annotated[int | None, typer.Option(help="Requests of a pattern; 100,000.")] = None,
    as_json: Json = False,
) -> None:
    """Run requests through a DRAM: bandwidth, row hits, latency, energy."""
    from ..simulator.dram import memory_of, run_memory
    from ..simulator.dram_requests import pattern as named
    from ..simulator.dram_spec import load_memory

    if trace is not None and (pattern is not None or requests is not None):
        raise InputError("--trace holds its own requests: leave out --pattern and --requests")
    if arch is not None and spec is not None:
        raise InputError("--arch brings its own memory: leave out --spec")
    memory = load_memory(spec or "ddr4-2400-x4") if arch is None else memory_of(machine(arch).dram)
    if trace is None:
        source = "seq_read" if pattern is None else pattern
        asked = named(source, memory, 100_000 if requests is None else requests)
    else:
        source, asked = str(trace), _traced(trace, memory)
    run = run_memory(memory, asked, order)
    if as_json:
        print_json(_document(run, source, order))
        return
    _show(run, source, order)


def _traced(path: Path, memory: MemorySpec) -> Requests:
    from ..simulator.dram_traces import read_trace

    asked, hexadecimal = read_trace(path, memory)
    if hexadecimal:
        announce(f"{name_of(str(path))}: addresses without 0x were read as hexadecimal, as DRAMsim3 reads them")
    return asked


def _document(run: MemoryRun, source: str, order: str) -> dict[str, Any]:
    import numpy as np

    latency = run.latency_ns
    half, most, nearly = np.percentile(latency, (50, 95, 99)).tolist()
    return {
        "memory": run.memory.name,
        "map": order,
        "requests": len(run.requests),
        "source": source,
        "cycles": run.cycles,
        "gb_per_s": run.bytes_per_second / 1e9,
        "percent_of_peak": 100 * float(run.share_of_peak),
        "peak_gb_per_s": run.memory.organization.bytes_per_second / 1e9,
        "row_hit_percent": 100 * run.row_hit_share,
        "latency_ns": {
            "mean": float(latency.mean()),
            "p50": half,
            "p95": most,
            "p99": nearly,
            "max": float(latency.max()),
        },
        "mean_wait_ns": float(run.wait_ns.mean()),
        "pj_per_bit": run.pj_per_bit,
        "reads": run.reads,
        "writes": run.writes,
        "activates": run.activates,
        "precharges": run.precharges,
        "refreshes": run.refreshes,
        "forwarded": run.forwarded,
        "merged": run.merged,
    }


def _show(run: MemoryRun, source: str, order: str) -> None:
    """The bandwidth first, then what made it."""
    import numpy as np

    console, latency = get_console(), run.latency_ns
    peak = run.memory.organization.bytes_per_second
    console.print(f"{run.memory.title}; {source}, {len(run.requests):,} requests, map {order}", style="bold")
    console.print(
        f"{run.bytes_per_second / 1e9:.2f} GB/s, {100 * float(run.share_of_peak):.1f} % of {peak / 1e9:g} GB/s; "
        f"{run.pj_per_bit:.2f} pJ/bit (devices only)"
    )
    waits = [("entry to end of data", latency)]
    if run.requests.time.any():
        waits.append(("before the entry", run.wait_ns))
    rows = [(name, *(f"{v:,.1f}" for v in (w.mean(), *np.percentile(w, (50, 95, 99)), w.max()))) for name, w in waits]
    console.print(make_table("Latency, ns", ("from", "mean", "50 %", "95 %", "99 %", "longest"), rows))
    commands = (
        ("reads", run.reads),
        ("writes", run.writes),
        ("activates", run.activates),
        ("precharges", run.precharges),
        ("refreshes", run.refreshes),
        ("reads answered by queued writes", run.forwarded),
        ("writes merged with queued ones", run.merged),
    )
    console.print(make_table("", ("commands", "number"), [(name, f"{n:,}") for name, n in commands]))
    console.print(f"{100 * run.row_hit_share:.1f} % of reads and writes found their row open.")
