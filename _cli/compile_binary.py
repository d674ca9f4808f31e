"""`weft compile RUN_DIR`: the inference of a trained binary network."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..workloads.errors import require_int
from .console import get_console, make_table, name_of
from .outputs import print_json
from .pipeline import users_code

if TYPE_CHECKING:
    from ..dataflow.program.binary_network import BinaryProgram
    from ..dataflow.program.bits import BitImage
    from ..dataflow.program.spaces import Target
    from ..dataflow.program.summary import Summary

__all__ = ["compile_trained"]

_MOST_IMAGES = 4096


def compile_trained(folder: Path, target: Target, images: int, output: Path | None, *, as_json: bool) -> None:
    """Compile the finished training in ``folder`` for so many ``images`` at a time; write it to ``output``."""
    from ..dataflow.program.checker import check
    from ..dataflow.program.summary import summary
    from ..simulator.machine.binary_host import compile_folded
    from ..workloads.training import deploy, trained

    require_int("--batch", images, 1, _MOST_IMAGES)
    with users_code(str(folder)):
        run = trained(folder)
        network = deploy(run).network
    compiled = compile_folded(network, target, images, run.data.shape)
    check(compiled.program, target, len(compiled.memory))
    found = summary(compiled.program, target)
    if output is not None:
        _write(output, compiled, [layer.name for layer in network.layers])
    if as_json:
        print_json(_document(compiled, found, output))
        return
    _show(run.spec.model, compiled, found, output)


def _write(folder: Path, compiled: BinaryProgram, names: list[str]) -> None:
    from ..analysis.publish import publish
    from ..dataflow.program.assembly import disassemble

    files = {
        "memory.json": json.dumps(_memory_map(compiled, names), indent=1).encode() + b"\n",
        "memory.bin": compiled.memory.tobytes(),
        "inference.weft": compiled.program.to_bytes(),
        "inference.asm": disassemble(compiled.program).encode(),
    }
    publish(folder, "program", files)


def _memory_map(compiled: BinaryProgram, names: list[str]) -> dict[str, Any]:
    """Where a host writes the first layer's integers and reads the last one's sums; between, what layers read."""
    return {
        "machine": compiled.target.hash,
        "window": len(compiled.memory),
        "images": compiled.images,
        "inputs": {name: _bits(one) for name, one in zip(names, compiled.inputs, strict=True)},
        "sums": {"address": compiled.sums, "shape": [compiled.images, compiled.classes], "dtype": "int32"},
    }


def _bits(one: BitImage) -> dict[str, Any]:
    return {
        "address": one.address,
        "levels": str(one.levels),
        "shape": list(one.shape),
        "halo": list(one.halo),
        "strides": list(one.strides),
        "words": one.words,
        "planes": one.planes,
        "word_bits": one.word_bits,
        "channel_of_bit": one.channel.tolist(),
        "turned": one.turned.nonzero()[0].tolist(),
    }


def _document(compiled: BinaryProgram, found: Summary, output: Path | None) -> dict[str, Any]:
    return {
        "machine": compiled.target.spec.name,
        "hash": compiled.target.hash,
        "batch": compiled.images,
        "window": len(compiled.memory),
        "programs": {
            "inference": {
                "instructions": found.instructions,
                "commands": {unit.name.lower(): count for unit, count in found.commands.items()},
                "size": found.size,
                "read": found.read,
                "written": found.written,
            }
        },
        "path": None if output is None else str(output),
    }


def _show(model: str, compiled: BinaryProgram, found: Summary, output: Path | None) -> None:
    console, target = get_console(), compiled.target
    machine = f"{name_of(target.spec.name)} ({target.hash})"
    console.print(f"{name_of(model)}, inference, {compiled.images} images at a time, on {machine}", style="bold")
    used = {unit: count for unit, count in found.commands.items() if count}
    head = ("program", "instructions", *(unit.name.lower() for unit in used), "read", "written")
    counts = (f"{n:,}" for n in (found.instructions, *used.values(), found.read, found.written))
    console.print(make_table("", head, [("inference", *counts)]))
    console.print(f"Program: {found.size:,} bytes. Read and written: bytes of DRAM")
    console.print(f"Memory: {len(compiled.memory):,} bytes")
    if output is not None:
        console.print(f"inference, .weft and .asm, memory.bin and memory.json in {output}")
