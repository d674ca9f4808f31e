"""`weft compile`."""

from __future__ import annotations

import json
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
    data: Annotated[str, typer.Option(help=DATA_HELP)] = "digits",
    batch: Batch = None,
    optimizer: Optimizer = None,
    output: Annotated[
        Path | None, typer.Option("-o", metavar="DIR", help="Write programs and addresses to this folder.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Compile a model's training step, or a trained binary network's inference, into programs of the accelerator."""
    from ..dataflow.program.checker import check
    from ..dataflow.program.compiler import compile_step
    from ..dataflow.program.spaces import Target
    from ..dataflow.program.summary import summary
    from ..workloads.training import plan
    from ..workloads.training.model import training_graph
    from ..workloads.update_rule import UPDATE_RULES

    if output is not None:
        require_writable_folder(output)
    spec = machine(arch)
    if Path(model).is_dir():
        if scheme != "dense" or nm is not None or data != "digits":
            raise InputError(
                f"{model} was trained under its own scheme, on its own data; leave out --scheme, --nm, --data"
            )
        rule = UPDATE_RULES[require_choice("--optimizer", optimizer or "sgd", tuple(UPDATE_RULES))]
        compile_trained(Path(model), Target(spec=spec, rule=rule), batch or _IMAGES, output, as_json=as_json)
        return
    pattern = None if scheme == "dense" and nm is None else parse_pattern(nm)
    with users_code(model):
        training = plan(model, data=data, scheme=scheme, pattern=pattern, batch=batch, optimizer=optimizer)
        graph = training_graph(training)
    target = Target(spec=spec, rule=UPDATE_RULES[training.optimizer], pattern=pattern)
    step = compile_step(graph, target)
    programs = {"forward": step.forward, "backward": step.backward}
    for program in programs.values():
        check(program, target, step.window)
    found = {name: summary(program, target) for name, program in programs.items()}
    if output is not None:
        _write(output, step)
    if as_json:
        print_json(_document(step, found, training.batch, output))
        return
    _show(model, step, found, training.batch, output)


def _write(folder: Path, step: CompiledStep) -> None:
    from ..analysis.publish import publish
    from ..dataflow.program.assembly import disassemble
    from ..dataflow.program.summary import memory_map

    files = {"memory.json": json.dumps(memory_map(step), indent=1).encode() + b"\n"}
    for name, program in (("forward", step.forward), ("backward", step.backward)):
        files[f"{name}.weft"], files[f"{name}.asm"] = program.to_bytes(), disassemble(program).encode()
    publish(folder, "program", files)


def _document(step: CompiledStep, found: Mapping[str, Summary], batch: int, output: Path | None) -> dict[str, Any]:
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
            }
            for name, one in found.items()
        },
        "path": None if output is None else str(output),
    }


def _show(model: str, step: CompiledStep, found: Mapping[str, Summary], batch: int, output: Path | None) -> None:
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
    most, least = step.allocation.peak, step.allocation.bound
    sizes = ", ".join(f"{one.size:,}" for one in found.values())
    console.print(f"Programs: {sizes} bytes. Read and written: bytes of DRAM")
    console.print(f"Memory: {most:,} bytes; {least:,} are needed at once at least")
    if output is not None:
        console.print(f"forward and backward, .weft and .asm, and memory.json in {output}")
