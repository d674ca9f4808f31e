"""`weft rtl-train`: a network trained by the RTL of the whole accelerator, held to the model bit for bit."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from ..workloads.update_rule import SGD
from .console import announce, bar, get_console, make_table, name_of
from .inputs import machine, parse_pattern, require_hdl
from .options import DATA_HELP, Arch, Json, Pattern
from .outputs import print_json

if TYPE_CHECKING:
    from ..analysis.verify.rtl_train import RtlTraining

__all__ = ["rtl_train"]

_SHOWN = 10


def rtl_train(
    data: Annotated[str, typer.Argument(metavar="DATA", help=DATA_HELP)] = "digits",
    model: Annotated[str, typer.Option(metavar="MODEL", help="mlp, another image model, or file.py:function.")] = "mlp",
    arch: Arch = "tiny",
    scheme: Annotated[str, typer.Option(help="dense, or a scheme that keeps the largest of N:M groups.")] = "dense",
    nm: Pattern = None,
    steps: Annotated[int, typer.Option(min=1, help="Training steps.")] = 10,
    batch: Annotated[int, typer.Option(min=1, help="Images in a step.")] = 16,
    lr: Annotated[float, typer.Option(help="Learning rate, the same in all steps.")] = 0.05,
    seed: Annotated[int, typer.Option(help="Of weights and order.")] = 0,
    as_json: Json = False,
) -> None:
    """Train a network on the RTL: forward, backward and update; the loss is the host's.

    Every score, weight, momentum and cycle is compared with the model's; the first that differs ends it, named.
    """
    require_hdl("rtl-train")
    from ..analysis.verify.rtl_train import rtl_train as train
    from ..dataflow.program.spaces import Target
    from ..workloads.training.plan import plan
    from ..workloads.training.prepared import prepared

    pattern = None if nm is None else parse_pattern(nm)
    spec = plan(
        model, data=data, scheme=scheme, pattern=pattern, batch=batch, optimizer=SGD.name, weight_decay=0.0, seed=seed
    )
    target = Target(spec=machine(arch), rule=SGD, pattern=spec.pattern)
    announce("The first run of a machine compiles its RTL, which takes minutes; later ones use the cache.")
    with bar(f"training {name_of(model)} in RTL") as progress:
        found = train(prepared(spec), target, steps, rate=lr, progress=progress)
    if as_json:
        print_json({"machine": target.spec.name, "hash": target.hash, "model": model, **asdict(found)})
        return
    _show(found, model, target.spec.name, target.hash)


def _show(found: RtlTraining, model: str, name: str, digest: str) -> None:
    console = get_console()
    console.print(f"{name_of(model)} in the RTL of {name_of(name)} ({digest})", style="bold")
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
        f"Equal to the model in every bit of scores, weights and momentum, and in every command's cycles. "
        f"{found.accuracy:.1%} of the test images are classed right."
    )
    console.print(f"{found.instructions:,} instructions, {found.window:,} bytes of memory; busy: {busy}.")
