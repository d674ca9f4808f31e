"""`weft compile`."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..workloads.errors import InputError, require_choice
from .compile_binary import compile_trained
from .console import get_console, make_table, name_of
from .inputs import machine, parse_pattern
from .options import DATA_HELP, DEFAULT_ARCH, Arch, Batch, Json, Optimizer, Pattern
from .outputs import print_json, require_writable_folder
from .pipeline import users_code

if TYPE_CHECKING:
    from ..dataflow.program.compiler import CompiledStep
    from ..dataflow.program.summary import Summary
    from ..simulator.machine.sequencer import Timeline
    from ..workloads.graph import Graph
    from ..workloads.sparsity import NMPattern
    from ..workloads.update_rule import UpdateRule

__all__ = ["compile"]

_IMAGES = 16
"""Of a program where no batch is given: weights are loaded once for all of them."""


def compile(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL|RUN_DIR",
            help="mlp, cnn, another image model, file.py:function; or a finished `weft train`, binary throughout.",
        ),
    ],
    arch: Arch = DEFAULT_ARCH,
    scheme: Annotated[str, typer.Option(help="Training scheme: dense, srste, sdwp or bdwp.")] = "dense",
    nm: Pattern = None,
    data: Annotated[
        str | None,
        typer.Option(help=f"{DATA_HELP} Without it a built-in model has images of its own size, as for `weft run`."),
    ] = None,
    batch: Batch = None,
    optimizer: Optimizer = None,
    output: Annotated[
        Path | None, typer.Option("-o", metavar="DIR", help="Write programs and addresses to this folder.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Compile a model's training step, or a trained binary network's inference, into programs of the accelerator.

    They are proved to be well formed, and their cycles are told.
    """
    from ..dataflow.program.checker import check
    from ..dataflow.program.compiler import compile_step
    from ..dataflow.program.spaces import Target
    from ..dataflow.program.summary import summary
    from ..simulator.machine.program_time import program_time
    from ..workloads.update_rule import UPDATE_RULES

    if output is not None:
        require_writable_folder(output)
    spec = machine(arch)
    if Path(model).is_dir():
        if scheme != "dense" or nm is not None or data is not None:
            raise InputError(
                f"{model} was trained under its own scheme, on its own data; leave out --scheme, --nm, --data"
            )
        rule = UPDATE_RULES[require_choice("--optimizer", optimizer or "sgd", tuple(UPDATE_RULES))]
        compile_trained(Path(model), Target(spec=spec, rule=rule), batch or _IMAGES, output, as_json=as_json)
        return
    pattern = None if scheme == "dense" and nm is None else parse_pattern(nm)
    graph, rule, samples = _graph(model, data, scheme, pattern, batch, optimizer)
    target = Target(spec=spec, rule=rule, pattern=pattern)
    step = compile_step(graph, target)
    programs = step.programs
    for program in programs.values():
        check(program, target, step.window)
    found = {name: summary(program, target) for name, program in programs.items()}
    times = {name: program_time(program, target) for name, program in programs.items()}
    if output is not None:
        _write(output, step)
    if as_json:
        print_json(_document(step, found, times, samples, output))
        return
    _show(model, step, found, times, samples, output)


def _graph(
    model: str, data: str | None, scheme: str, pattern: NMPattern | None, batch: int | None, optimizer: Optimizer
) -> tuple[Graph, UpdateRule, int]:
    """A training step, its update rule, and the samples in it."""
    from ..workloads.models.zoo import MODELS, base
    from ..workloads.training import plan
    from ..workloads.training.model import built_in_graph, training_graph
    from ..workloads.update_rule import SGD, UPDATE_RULES, update_rule

    with users_code(model):
        if data is None and base(model) in MODELS:
            rule, samples = update_rule(optimizer or SGD.name), batch or 1
            graph = built_in_graph(model, batch=samples, scheme=scheme, pattern=pattern, optimizer=rule.name)
            return graph, rule, samples
        training = plan(model, data=data or "digits", scheme=scheme, pattern=pattern, batch=batch, optimizer=optimizer)
        return training_graph(training), UPDATE_RULES[training.optimizer], training.batch


def _write(folder: Path, step: CompiledStep) -> None:
    from ..analysis.publish import publish
    from ..dataflow.program.assembly import disassemble
    from ..dataflow.program.summary import memory_map

    files = {"memory.json": json.dumps(memory_map(step), indent=1).encode() + b"\n"}
    for name, program in step.programs.items():
        files[f"{name}.weft"], files[f"{name}.asm"] = program.to_bytes(), disassemble(program).encode()
    publish(folder, "program", files)


def _document(
    step: CompiledStep, found: Mapping[str, Summary], times: Mapping[str, Timeline], batch: int, output: Path | None
) -> dict[str, Any]:
    return {
        "machine": step.target.spec.name,
        "hash": step.target.hash,
        "batch": batch,
        "window": step.window,
        "peak": step.allocation.peak,
        "bound": step.allocation.bound,
        "programs": {
            name: {
                "instructions": one.instructions,
                "commands": {unit.name.lower(): count for unit, count in one.commands.items()},
                "size": one.size,
                "read": one.read,
                "written": one.written,
                "cycles": times[name].cycles,
                "busy": {unit.name.lower(): cycles for unit, cycles in times[name].busy.items()},
            }
            for name, one in found.items()
        },
        "path": None if output is None else str(output),
    }


def _show(
    model: str,
    step: CompiledStep,
    found: Mapping[str, Summary],
    times: Mapping[str, Timeline],
    batch: int,
    output: Path | None,
) -> None:
    from ..simulator.machine.program_time import LATENCY, bus_bytes

    console, target = get_console(), step.target
    console.print(
        f"{name_of(model)}, batch {batch}, on {name_of(target.spec.name)} with {target.rule.name} ({target.hash})",
        style="bold",
    )
    units = list(next(iter(found.values())).commands)
    head = ("program", "instructions", *(unit.name.lower() for unit in units), "read", "written")
    rows = [
        (
            name,
            f"{one.instructions:,}",
            *(f"{one.commands[unit]:,}" for unit in units),
            *(f"{n:,}" for n in (one.read, one.written)),
        )
        for name, one in found.items()
    ]
    console.print(make_table("", head, rows))
    width = bus_bytes(target)
    head = ("cycles", "in all", *(unit.name.lower() for unit in units))
    rows = [(name, *(f"{n:,}" for n in (one.cycles, *one.busy.values()))) for name, one in times.items()]
    console.print(make_table("", head, rows))
    console.print(
        f"Of a bus of {width} bytes and a memory that answers after {LATENCY} cycles; units work side by side"
    )
    if between := [work.op for part in step.parts for work in part.then]:
        names = ", ".join(f"{count} x {op}" for op, count in Counter(between).items())
        console.print(f"The host computes between programs: {names}")
    most, least = step.allocation.peak, step.allocation.bound
    sizes = ", ".join(f"{one.size:,}" for one in found.values())
    console.print(f"Programs: {sizes} bytes. Read and written: bytes of DRAM")
    console.print(f"Memory: {most:,} bytes; {least:,} are needed at once at least")
    if output is not None:
        console.print(f"Programs, .weft and .asm, and memory.json in {output}")
