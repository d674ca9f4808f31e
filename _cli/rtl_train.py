"""`weft rtl-train`: a network trained by the RTL of the whole accelerator, held to the model bit for bit."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..workloads.errors import InputError
from ..workloads.update_rule import SGD
from .console import announce, bar, get_console, make_table, name_of
from .inputs import machine, parse_pattern, require_hdl
from .options import DATA_HELP, Arch, Json, Pattern
from .outputs import print_json, require_writable_folder
from .pipeline import users_code

if TYPE_CHECKING:
    from ..analysis.verify.rtl_train import RtlTrainer, RtlTraining

__all__ = ["rtl_train"]

_SHOWN = 10


def rtl_train(
    data: Annotated[str, typer.Argument(metavar="DATA", help=DATA_HELP)] = "digits",
    model: Annotated[
        str, typer.Option(metavar="MODEL", help="mlp, cnn, another image model, or file.py:function.")
    ] = "mlp",
    arch: Arch = "tiny",
    scheme: Annotated[str, typer.Option(help="dense, or a scheme that keeps the largest of N:M groups.")] = "dense",
    nm: Pattern = None,
    steps: Annotated[int, typer.Option(min=1, help="Training steps.")] = 10,
    batch: Annotated[int, typer.Option(min=1, help="Images in a step.")] = 16,
    lr: Annotated[float, typer.Option(help="Learning rate, the same in all steps.")] = 0.05,
    seed: Annotated[int, typer.Option(help="Of weights and order.")] = 0,
    output: Annotated[
        Path | None, typer.Option("-o", metavar="DIR", help="Keep losses and cycles here; what was broken off goes on.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Train a network on the RTL: forward, backward and update; the loss is the host's.

    Every score, weight, momentum and cycle is compared with the model's; the first that differs ends it, named.
    """
    require_hdl("rtl-train")
    from ..analysis.verify.rtl_files import require_free_for_rtl_training
    from ..analysis.verify.rtl_train import RtlTrainer
    from ..dataflow.program.spaces import Target
    from ..workloads.schemes.scheme import scheme as scheme_of
    from ..workloads.training.plan import plan
    from ..workloads.training.prepared import prepared

    if output is not None:
        require_writable_folder(output)
        require_free_for_rtl_training(output)
    spec = machine(arch)
    if nm is not None and not scheme_of(scheme).takes_pattern:
        raise InputError(
            f"--nm {nm} is of no use: scheme {scheme!r} keeps no N:M groups; leave it out, or --scheme bdwp"
        )
    pattern = None if nm is None else parse_pattern(nm)
    with users_code(model):
        asked = plan(
            model,
            data=data,
            scheme=scheme,
            pattern=pattern,
            batch=batch,
            optimizer=SGD.name,
            learning_rate=lr,
            weight_decay=0.0,
            seed=seed,
        )
        target = Target(spec=spec, rule=SGD, pattern=asked.pattern)
        trainer = RtlTrainer(prepared(asked), target, steps, rate=lr)
    result = _trained(trainer, output)
    if as_json:
        document = {"machine": spec.name, "hash": target.hash, "model": model, **asdict(result)}
        print_json({**document, "path": None if output is None else str(output)})
        return
    _show(result, trainer, output)


def _trained(trainer: RtlTrainer, output: Path | None) -> RtlTraining:
    """The training, begun or gone on with; Ctrl-C says how to go on."""
    from ..analysis.verify.rtl_files import go_on, save_record, save_rtl_training

    before = 0 if output is None else go_on(trainer, output)
    if before:
        announce(f"{before} of {trainer.asked} steps are in {output}; going on from there.")
    announce("The first run of a machine compiles its RTL, which takes minutes; later ones use the cache.")
    try:
        with bar(f"cycles of {trainer.asked:,} steps in RTL") as progress:
            result = trainer.train(progress, lambda: None if output is None else save_record(trainer, output))
    except KeyboardInterrupt:
        if output is None or not trainer.made:
            raise
        kept = f"{len(trainer.made)} of {trainer.asked} steps are in {output}"
        raise KeyboardInterrupt(f"{kept}; the same command goes on from there") from None
    if output is not None:
        save_rtl_training(trainer, result, output)
    return result


def _show(found: RtlTraining, trainer: RtlTrainer, output: Path | None) -> None:
    console, target = get_console(), trainer.target
    model = name_of(trainer.work.spec.model)
    console.print(f"{model} in the RTL of {name_of(target.spec.name)} ({target.hash})", style="bold")
    every = max(1, len(found.steps) // _SHOWN)
    rows = [
        (str(i + 1), f"{step.loss:.6f}", f"{step.cycles:,}", f"{step.predicted:,}")
        for i, step in enumerate(found.steps)
        if i % every == 0 or i + 1 == len(found.steps)
    ]
    console.print(make_table("", ("step", "loss", "cycles", "predicted"), rows, left=1))
    busy = ", ".join(
        f"{unit} {found.counters[f'{unit}_busy'] / found.counters['cycles']:.0%}"
        for unit in ("load", "product", "vector", "update", "store")
    )
    console.print(
        f"Equal to the model in every bit of scores, weights, momentum and running statistics, and in first and last "
        f"cycle of each of {found.commands:,} commands a step. {found.accuracy:.1%} of the test images are classed "
        f"right."
    )
    skipped = sum(step.skipped for step in found.steps)
    if skipped:
        console.print(f"{skipped} of {len(found.steps)} steps changed no weight: a gradient was not finite.")
    console.print(f"{found.instructions:,} instructions, {found.window:,} bytes of memory; busy: {busy}.")
    if output is not None:
        console.print(f"Both losses and cycles of every step: rtl-train.json and rtl-train.png in {output}")
