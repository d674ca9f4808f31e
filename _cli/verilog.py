"""`weft verilog`."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..hdl.registry import BLOCKS
from ..workloads.errors import InputError
from ..workloads.update_rule import SGD, UPDATE_RULES
from .console import bar, get_console, make_table, name_of
from .inputs import machine, parse_pattern, require_hdl
from .options import DEFAULT_ARCH, DEFAULT_NM, Arch, Json, Optimizer
from .outputs import print_json, require_writable_folder, write_files

if TYPE_CHECKING:
    from ..analysis.verify.benches import EmittedBlock
    from ..dataflow.accelerator import AcceleratorSpec

__all__ = ["verilog"]

_BENCHED = {name: block for name, block in BLOCKS.items() if block.bench is not None}
_SAID = ", ".join(f"{name}: {block.title}" for name, block in _BENCHED.items()) + "."


def verilog(
    arch: Arch = DEFAULT_ARCH,
    output: Annotated[Path | None, typer.Option("-o", metavar="DIR", help="Write the files to this folder.")] = None,
    block: Annotated[str, typer.Option(metavar="|".join((*_BENCHED, "all")), help=_SAID)] = "all",
    nm: Annotated[
        str | None,
        typer.Option(
            metavar="KEEP:GROUP",
            help=f"N:M pattern of the compressor (SORE) and the vectors; {DEFAULT_NM} where it fits.",
        ),
    ] = None,
    optimizer: Optimizer = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the operands in the test benches.")] = 0,
    as_json: Json = False,
) -> None:
    """Write a machine as Verilog, with self-checking test benches."""
    if output is None:
        raise InputError("give -o DIR: the folder to write the Verilog to")
    require_writable_folder(output)
    require_hdl("verilog")
    from ..analysis.publish import require_free
    from ..analysis.verify.benches import blocks_of, emit, readme
    from ..dataflow.config_io import spec_hash
    from ..hdl.block import usual_pattern

    spec = machine(arch)
    pattern = usual_pattern(spec) if nm is None else parse_pattern(nm)
    spec.check_pattern(pattern)
    names = blocks_of(spec) if block == "all" else (block,)
    require_free(output, ("README.txt", *(f"{name}.v" for name in names)))
    blocks = []
    with bar("writing Verilog") as progress:
        for i, name in enumerate(names):
            progress(i, len(names))
            blocks.append(emit(spec, name, pattern, UPDATE_RULES[optimizer or SGD.name], seed))
    files = {name: text for made in blocks for name, text in made.files.items()} | {"README.txt": readme(spec, blocks)}
    write_files(output, "verilog", files)
    if as_json:
        print_json(_document(spec.name, spec_hash(spec), blocks, output, files))
        return
    _show(spec, spec_hash(spec), blocks, str(output))


def _document(
    machine: str, digest: str, blocks: Sequence[EmittedBlock], output: Path, files: dict[str, str]
) -> dict[str, Any]:
    return {
        "machine": machine,
        "hash": digest,
        "path": str(output),
        "files": list(files),
        "blocks": [
            {
                "name": block.name,
                "file": f"{block.name}.v",
                "test_bench": f"{block.name}_tb.v",
                "modules": [{"name": m.name, "lines": m.lines, "uses": list(m.uses)} for m in block.design.modules],
                "commands": block.commands,
            }
            for block in blocks
        ],
    }


def _show(spec: AcceleratorSpec, digest: str, blocks: Sequence[EmittedBlock], path: str) -> None:
    console = get_console()
    console.print(f"{name_of(spec.name)} ({digest}), {spec.array.rows} x {spec.array.cols}", style="bold")
    rows = [
        (f"{b.name}.v" if i == 0 else "", m.name, f"{m.lines:,}")
        for b in blocks
        for i, m in enumerate(b.design.modules)
    ]
    console.print(make_table("", ("file", "module", "lines"), rows, left=2))
    vectors = sum(name.endswith(".hex") for block in blocks for name in block.bench)
    console.print(
        f"{', '.join(f'{b.name}_tb.v' for b in blocks)} with {vectors} files of vectors, and README.txt in {path}"
    )
    console.print("Run a bench with one of:")
    for command in list(blocks[0].commands.values())[:3]:
        console.out(f"  cd {shlex.quote(path)} && {command}", highlight=False)
