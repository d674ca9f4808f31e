"""`weft verify --train-step`: the GEMMs of a real training step."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import typer

from .console import bar, get_console, make_table, name_of
from .inputs import machine, parse_pattern, require_hdl
from .outputs import print_json
from .pipeline import users_code

if TYPE_CHECKING:
    from ..analysis.verify.difference import Distance
    from ..analysis.verify.step import StepVerification
    from ..workloads.sparsity import NMPattern

__all__ = ["verify_train_step"]


def verify_train_step(arch: str, model: str, scheme: str, nm: str | None, seed: int, rtl: bool, as_json: bool) -> None:
    if rtl:
        require_hdl("verify --rtl")
    from ..analysis.verify.step import require_machine, verify_step
    from ..dataflow.config_io import spec_hash
    from ..workloads.training import capture_step, plan

    spec, pattern = machine(arch), None if nm is None else parse_pattern(nm)
    training = plan(model, scheme=scheme, pattern=pattern, epochs=1, seed=seed)
    require_machine(spec, training.pattern)
    with users_code(model), bar("training") as progress:
        step = capture_step(training, progress)
    with bar(f"verifying on {spec.name}") as progress:
        found = verify_step(spec, step, rtl=rtl, progress=progress)
    if as_json:
        print_json(_document(found, spec_hash(spec)))
    else:
        _show(found, spec_hash(spec))
    if not found.equal:
        raise typer.Exit(1)


def _document(found: StepVerification, digest: str) -> dict[str, Any]:
    def pattern(of: NMPattern | None) -> str | None:
        return None if of is None else str(of)

    def distance(precision: str) -> dict[str, Any] | None:
        over_all = found.distance(precision)
        return None if over_all is None else asdict(over_all)

    named = ("model", "scheme", "seed", "batch", "step", "steps", "loss", "loss_scale", "left_out")
    gemms = [
        {
            **asdict(check),
            "pattern": pattern(check.pattern),
            "equal": check.equal,
            "mapping": {**asdict(check.mapping), "pattern": str(check.mapping.pattern)},
        }
        for check in found.checks
    ]
    for gemm in gemms:
        gemm["pass"] = gemm.pop("pass_")
    return {
        "machine": found.spec.name,
        "hash": digest,
        "pattern": pattern(found.pattern),
        **{name: getattr(found, name) for name in named},
        "equal": found.equal,
        "words": found.words,
        "all_words": found.all_words,
        "rtl_words": found.rtl_words,
        "cycles": found.cycles,
        "fp32": distance("fp32"),
        "fp16": distance("fp16"),
        "gemms": gemms,
    }


def _show(found: StepVerification, digest: str) -> None:
    """Every GEMM of the step, the distance of its results to PyTorch's, and the first difference."""
    from ..workloads.gemm import GEMM_PASSES

    console = get_console()
    scheme = " ".join(str(part) for part in (found.scheme, found.pattern) if part is not None)
    console.print(
        f"{name_of(found.model)}, {scheme}, on {name_of(found.spec.name)} ({digest}): "
        f"step {found.step} of {found.steps}, seed {found.seed}",
        style="bold",
    )
    console.print(f"batch {found.batch}, loss {found.loss:.4f}, loss scale {found.loss_scale:g}, FP16 operands")
    on_rtl = found.rtl_words > 0
    rows = [
        (
            c.layer,
            str(c.pass_),
            str(c.gemm),
            f"{c.pattern} {c.sparse}" if c.pattern else "dense",
            str(c.mapping.dataflow),
            f"{100 * c.kept:.1f} %",
            _of(c.words, c.all_words),
            f"{c.cycles:,}",
            *((f"{c.rtl_words:,}",) if on_rtl else ()),
            "yes" if c.equal else "NO",
        )
        for c in found.checks
    ]
    names = ("layer", "pass", "GEMM", "N:M", "flow", "kept", "words", "cycles", *(("RTL",) if on_rtl else ()), "equal")
    console.print(make_table("", names, rows, left=5))
    near = [
        (name, *_distance(found.distance("fp32", *passes)), *_distance(found.distance("fp16", *passes))[1:])
        for name, passes in (*((str(p), (p,)) for p in GEMM_PASSES), ("all", ()))
    ]
    title = "Distance to PyTorch's results in units in the last place"
    heads = ("", "words", "FP32 exact", "mean", "most", "FP16 exact", "mean", "most")
    console.print(make_table(title, heads, near))
    if found.words < found.all_words:
        console.print(
            f"Sampled: {found.words:,} of {found.all_words:,} words, each over its whole contraction; "
            "GEMMs of more than 2e9 PE-cycles run in part and are not compared with PyTorch."
        )
    for layer, why in found.left_out.items():
        console.print(f"Not run: {layer} ({why})")
    wrong = next((c for c in found.checks if c.difference is not None), None)
    if wrong is None or wrong.difference is None:
        rtl = f"; {found.rtl_words:,} words, each with its cycle, with the RTL" if on_rtl else ""
        console.print(
            f"Equal: {found.words:,} words in {len(found.checks)} GEMMs with the k-order FP32 reference, "
            f"{found.cycles:,} cycles with the closed form{rtl}."
        )
        return
    first = wrong.difference
    console.print(f"{wrong.layer} {wrong.pass_} differs: {first.where}", style="bold")
    console.print(f"  expected {first.expected}, found {first.found}")


def _of(part: int, whole: int) -> str:
    return f"{part:,}" if part == whole else f"{part:,} of {whole:,}"


def _distance(found: Distance | None) -> tuple[str, str, str, str]:
    if found is None:
        return ("-", "-", "-", "-")
    share = f"{100 * found.exact / found.words:.3f} %"
    return (f"{found.words:,}", share, f"{found.mean:.2g}", f"{found.most:,}")
