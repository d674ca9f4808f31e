"""`weft verify`: random work on simulator and RTL side by side."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..workloads.errors import InputError
from ..workloads.update_rule import SGD
from .console import announce, bar, get_console, make_table, name_of
from .inputs import machine, parse_pattern, require_hdl
from .options import DEFAULT_NM, DEFAULT_SCHEME, Arch, Json, Optimizer, TrainedScheme
from .outputs import print_json

if TYPE_CHECKING:
    from ..analysis.verify.blocks import Verification
    from ..dataflow.accelerator import AcceleratorSpec
    from ..workloads.sparsity import NMPattern
    from ..workloads.update_rule import RuleName

__all__ = ["verify"]

_CASES = 20
_BUILT_AT_ONCE = 256
"""PEs up to which the RTL is built in seconds."""


def verify(
    arch: Arch = "tiny",
    cases: Annotated[
        int | None,
        typer.Option(help=f"Random products on the array; a quarter as many runs of each engine. {_CASES} if none."),
    ] = None,
    seed: Annotated[int, typer.Option(help="The same seed draws the same cases, or trains the same model.")] = 0,
    nm: Annotated[
        str | None,
        typer.Option(
            metavar="KEEP:GROUP",
            help=f"N:M pattern of the compressor (SORE), or of the scheme; {DEFAULT_NM} where it fits.",
        ),
    ] = None,
    optimizer: Optimizer = None,
    train_step: Annotated[
        bool, typer.Option("--train-step", help="Run the GEMMs of a real training step on digits instead.")
    ] = False,
    model: Annotated[
        str | None, typer.Option(metavar="MODEL", help="Of the step: as in `weft train`; resnet9 if none.")
    ] = None,
    scheme: TrainedScheme = None,
    rtl: Annotated[bool, typer.Option("--rtl", help="Run the step, or a part of each large GEMM, on the RTL too.")] = (
        False
    ),
    as_json: Json = False,
) -> None:
    """Run random work on the simulator and on the RTL, and compare every bit and cycle; exit code 1 if they differ.

    With --train-step, run a training step's GEMMs on the simulator and compare bits with the k-order FP32 reference,
    cycles with the closed form, and results with PyTorch's.
    """
    if train_step:
        from .verify_step import verify_train_step

        if cases is not None or optimizer is not None:
            raise InputError("--train-step takes its work from the model: leave out --cases and --optimizer")
        verify_train_step(arch, model or "resnet9", scheme or DEFAULT_SCHEME, nm, seed, rtl, as_json)
        return
    if model is not None or scheme is not None or rtl:
        raise InputError("--model, --scheme and --rtl are of a training step; add --train-step")
    require_hdl("verify")
    from ..dataflow.config_io import spec_hash

    spec, pattern = machine(arch), None if nm is None else parse_pattern(nm)
    found = _side_by_side(spec, _CASES if cases is None else cases, seed, pattern, optimizer or SGD.name)
    if as_json:
        print_json(_document(found, spec_hash(spec)))
    else:
        _show(found, spec_hash(spec))
    if not found.equal:
        raise typer.Exit(1)


def _side_by_side(
    spec: AcceleratorSpec, cases: int, seed: int, pattern: NMPattern | None, rule: RuleName
) -> Verification:
    from ..analysis.verify.blocks import build_seconds
    from ..analysis.verify.blocks import verify as side_by_side

    if spec.array.pes > _BUILT_AT_ONCE:
        announce(
            f"The first run builds {spec.array.rows} x {spec.array.cols} PEs: about {build_seconds(spec)} s; "
            "later ones use the cache."
        )
    with bar(f"verifying {spec.name}") as progress:
        return side_by_side(spec, cases, seed, pattern=pattern, rule=rule, progress=progress)


def _document(found: Verification, digest: str) -> dict[str, Any]:
    return {
        "machine": found.spec.name,
        "hash": digest,
        "pattern": str(found.pattern),
        "optimizer": found.rule,
        "seed": found.seed,
        "equal": found.equal,
        "words": found.words,
        "cases": [{**asdict(case), "equal": case.equal} for case in found.cases],
    }


def _show(found: Verification, digest: str) -> None:
    """Every case, and of the first that differs where and how."""
    console = get_console()
    console.print(f"Simulator and RTL of {name_of(found.spec.name)} ({digest}), seed {found.seed}", style="bold")
    rows = [
        (
            str(i),
            c.block,
            c.sizes,
            c.mapping,
            f"{c.words:,}",
            f"{c.simulator_cycles:,}",
            "-" if c.rtl_cycles is None else f"{c.rtl_cycles:,}",
            "yes" if c.equal else "NO",
        )
        for i, c in enumerate(found.cases)
    ]
    names = ("case", "block", "sizes", "mapping", "words", "cycles", "RTL", "equal")
    console.print(make_table("", names, rows, left=4))
    wrong = next(((i, c.difference) for i, c in enumerate(found.cases) if c.difference is not None), None)
    if wrong is None:
        console.print(
            f"Equal: {found.words:,} words in {len(found.cases)} cases, every bit and the cycle each leaves in."
        )
        return
    number, difference = wrong
    console.print(f"Case {number} differs, seed {found.seed}: {difference.where}", style="bold")
    if difference.cycle is not None:
        console.print(f"  cycle {difference.cycle}: simulator {difference.expected}, RTL {difference.found}")
