"""`weft run`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ..workloads.errors import InputError
from .console import announce, bar, phases
from .inputs import asked_patterns, asked_rows, machine, mapping_rules
from .options import (
    DEFAULT_ARCH,
    DEFAULT_OBJECTIVE,
    Arch,
    AttentionBy,
    Batch,
    Context,
    Dims,
    DrawAll,
    Folder,
    For,
    Freeze,
    FuseBy,
    InputShape,
    Json,
    MappingRules,
    Masks,
    Model,
    Objective,
    Optimizer,
    Patterns,
    Pregenerate,
    Recompute,
    Resident,
    RowsBy,
    Scheme,
    Seq,
    SliceTo,
)
from .outputs import print_json, require_writable_file, require_writable_folder
from .pipeline import (
    check_prices,
    check_step,
    open_workload,
    run_step,
    schedule_step,
    under,
    with_recorded,
    without_rows,
)
from .requests import AskedTrace, DramForm, DramTrace, Limit, asked_trace, show_requests, write_requests
from .show_step import show_run, show_system

if TYPE_CHECKING:
    from ..dataflow.accelerator import AcceleratorSpec
    from ..dataflow.schedule import Schedule
    from ..workloads.step import Workload

__all__ = ["run"]

Timeline = Annotated[
    Path | None,
    typer.Option("--trace", metavar="FILE.perfetto-trace", help="Write when every engine did what; level system."),
]


def run(
    context: typer.Context,
    model: Model,
    batch: Batch = None,
    seq: Seq = None,
    arch: Arch = DEFAULT_ARCH,
    scheme: Scheme = None,
    nm: Patterns = None,
    masks: Masks = None,
    rows: RowsBy = None,
    stream: SliceTo = None,
    objective: Objective = DEFAULT_OBJECTIVE,
    mapping: MappingRules = None,
    optimizer: Optimizer = None,
    input_shape: InputShape = None,
    dims: Dims = None,
    recompute: Recompute = None,
    freeze: Freeze = None,
    attention: AttentionBy = "full",
    fusion: FuseBy = "none",
    use: For = "train",
    tokens: Context = None,
    pregenerate: Pregenerate = None,
    resident: Resident = None,
    level: Annotated[
        Literal["step", "system"] | None,
        typer.Option(help="Op after op, or with ops overlapped on shared engines and memory; step by default."),
    ] = None,
    timeline: Timeline = None,
    witness: Annotated[
        bool, typer.Option("--witness", help="Run it by the slow reference of its level too, and compare.")
    ] = False,
    dram_trace: DramTrace = None,
    dram_form: DramForm = None,
    limit: Limit = None,
    output: Folder = None,
    draw_all: DrawAll = False,
    as_json: Json = False,
) -> None:
    """Simulate one step, of training or of use, on a machine."""
    level = level if timeline is None else _require_timeline(timeline, level)
    if output is not None:
        _require_free(output, draw_all, mapping is not None)
    tracing = asked_trace(dram_trace, dram_form, limit, level)
    spec = machine(arch, pregenerate, resident)
    check_prices(spec)
    rules = mapping_rules(mapping)
    held = (seq, optimizer, input_shape, recompute, freeze, attention, dims, fusion, use, tokens)
    workload = _workload(spec, scheme, nm, masks, rows, stream, model, batch, *held)
    check_step([workload], spec, level or "step")
    chosen = schedule_step(workload, spec, objective, rules, by_shape=level == "system")
    if level == "system":
        _run_system(chosen, timeline, witness, output, context.obj, draw_all, as_json)
    else:
        _run_step(chosen, tracing, witness, output, context.obj, draw_all, as_json)


def _require_free(output: Path, draw_all: bool, mapped: bool) -> None:
    """Refuse a folder that a run cannot be written to, before the long work."""
    from ..analysis.save import require_free_for_run

    require_writable_folder(output)
    require_free_for_run(output, draw_all, mapped)


def _workload(
    spec: AcceleratorSpec,
    scheme: str | None,
    nm: list[str] | None,
    masks: Path | None,
    rows: str | None,
    stream: float | None,
    model: str,
    *held: Any,
) -> Workload:
    """MODEL under its scheme, or with masks of a training; without the rows that are left out. ``stream`` and ``held``:
    as of `open_workload`."""
    skipped, scheme = asked_rows(rows, masks or nm, scheme)
    asked = asked_patterns(scheme, nm, spec)
    if masks is not None:
        if stream is not None:
            raise InputError(f"--masks {masks} is of a whole network; leave out --slice {stream:g}")
        return with_recorded(masks, scheme or nm, model, *held)
    return without_rows(under(open_workload(model, *held, stream=stream), scheme, asked, spec), skipped)


def _require_timeline(path: Path, level: str | None) -> Literal["system"]:
    """The level of a timeline, whose file can be written."""
    if level == "step":
        raise InputError("--trace shows how ops overlap, which --level step leaves out: use --level system")
    if path.is_dir():
        raise InputError(f"{path}: is a folder; --trace takes the file to write")
    require_writable_file(path)
    return "system"


def _run_step(
    chosen: Schedule,
    tracing: AskedTrace | None,
    witness: bool,
    output: Path | None,
    command: str,
    draw_all: bool,
    as_json: bool,
) -> None:
    """`weft run` at the step level."""
    from ..dataflow.config_io import spec_hash

    result = run_step(chosen, witness=witness)
    if witness:
        announce("The phases of every product, stepped, come to the same.")
    traced = None if tracing is None else write_requests(tracing, chosen, result)
    if output is not None:
        from ..analysis.save import save_run

        save_run(result, output, command, draw_all=draw_all)
    if as_json:
        from ..analysis.records import to_dict

        print_json({**to_dict(result, command), **({} if traced is None else {"dram_trace": traced})})
        return
    show_run(result, spec_hash(chosen.spec))
    if traced is not None:
        show_requests(traced)


def _run_system(
    chosen: Schedule,
    timeline: Path | None,
    witness: bool,
    output: Path | None,
    command: str,
    draw_all: bool,
    as_json: bool,
) -> None:
    """`weft run` at the system level."""
    from ..analysis.system import system_dict
    from ..dataflow.config_io import spec_hash
    from ..simulator.system import require_same, simulate_system

    result = simulate_system(chosen)
    if witness:
        with bar("simulating by SimPy") as progress:
            require_same(result, simulate_system(chosen, progress=progress, witness=True))
        announce("SimPy's processes come to the same times, uses, services and buffers.")
    if timeline is not None:
        from ..analysis.timeline import save_timeline

        with phases(f"writing {timeline}"):
            save_timeline(result, timeline)
    if output is not None:
        from ..analysis.save import save_run

        save_run(result, output, command, draw_all=draw_all)
    if as_json:
        print_json(system_dict(result, command))
        return
    show_system(result, spec_hash(chosen.spec), timeline)
