"""`weft train`."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ..workloads.errors import InputError
from ..workloads.update_rule import RuleName
from .console import bar, get_console, make_table
from .inputs import machine, parse_pattern
from .options import DATA_HELP, Json, Pattern, TrainedScheme
from .outputs import print_json, require_writable_folder
from .pipeline import users_code

if TYPE_CHECKING:
    from ..workloads.training import TrainResult

__all__ = ["Option", "options_of", "train"]

_EPOCHS_SHOWN = 12

Amp = Annotated[
    Literal["fp16", "bf16", "fp8"] | None,
    typer.Option(
        "--amp",
        "--format",
        help="Operands of the products: FP16, BF16, or FP8 (E4M3, gradients E5M2); float32 if none.",
    ),
]
Numerics = Annotated[
    Literal["torch", "machine", "machine-bf16", "machine-fp8"] | None,
    typer.Option(
        help="Who computes: PyTorch, or the machine's arithmetic with FP16, BF16 or FP8 operands; torch if none."
    ),
]
Of = Annotated[
    str | None,
    typer.Option("--arch", metavar="ARCH", help="With --numerics machine: its operands are those of this machine."),
]
Option = Annotated[
    list[str] | None, typer.Option(metavar="NAME=VALUE", help="Setting of the scheme, as decay=1e-4; repeatable.")
]


def train(
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="MODEL",
            help="mlp, cnn, resnet9, vit_s, another of `weft models`, or file.py:function; none with --resume.",
        ),
    ] = None,
    scheme: TrainedScheme = None,
    nm: Pattern = None,
    data: Annotated[str | None, typer.Option(help=DATA_HELP)] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the training set.")] = None,
    batch: Annotated[int | None, typer.Option(help="Images in one step.")] = None,
    lr: Annotated[float | None, typer.Option(help="Highest learning rate.")] = None,
    optimizer: Annotated[RuleName | None, typer.Option(help="Update rule; each model has its own.")] = None,
    paths: Annotated[int | None, typer.Option(help="Sub-networks of a super-network in a step; 4 if none.")] = None,
    amp: Amp = None,
    numerics: Numerics = None,
    arch: Of = None,
    seed: Annotated[int | None, typer.Option(help="Of weights, order and augmentation; 0 if none.")] = None,
    option: Option = None,
    device: Annotated[str | None, typer.Option(help="cpu or cuda; a GPU where there is one.")] = None,
    output: Annotated[
        Path | None, typer.Option("-o", metavar="DIR", help="Keep checkpoint and log in this folder.")
    ] = None,
    resume: Annotated[Path | None, typer.Option(metavar="DIR", help="Go on with the training in this folder.")] = None,
    as_json: Json = False,
) -> None:
    """Train an image classifier under a scheme, to see its accuracy."""
    asked = {
        "model": model,
        "data": data,
        "scheme": scheme,
        "pattern": None if nm is None else parse_pattern(nm),
        "epochs": epochs,
        "batch": batch,
        "learning_rate": lr,
        "optimizer": optimizer,
        "paths": paths,
        "amp": amp,
        "numerics": numerics if arch is None else _numerics_of(arch, numerics),
        "seed": seed,
        "options": options_of(option) if option else None,
    }
    given: dict[str, Any] = {name: value for name, value in asked.items() if value is not None}
    if resume is None and model is None:
        raise InputError("name a MODEL to train, or --resume DIR")
    if resume is not None and output is not None:
        raise InputError(f"--resume {resume} goes on in its own folder; leave out -o {output}")
    if output is not None:
        require_writable_folder(output)
    from ..workloads.training import to_dict

    result = _trained(model, given, device, output, resume)
    if as_json:
        print_json(to_dict(result))
        return
    _show(result)


def _numerics_of(arch: str, numerics: str | None) -> str:
    """The numerics of a machine."""
    from ..simulator.machine.numerics import numerics_of

    if numerics != "machine":
        raise InputError(f"--arch {arch} says whose operands --numerics machine has; give both, or leave --arch out")
    return numerics_of(machine(arch))


def _trained(
    model: str | None, given: dict[str, Any], device: str | None, output: Path | None, resume: Path | None
) -> TrainResult:
    """The training asked for, begun or gone on with; Ctrl-C says how to go on."""
    from ..simulator.machine.numerics import machine_numerics
    from ..workloads import training
    from ..workloads.catalog import is_user

    with users_code(model or str(resume)), bar("training") as progress:
        try:
            if resume is None:
                asked = training.plan(**given)
                return training.train(asked, output, device=device, progress=progress, numerics=machine_numerics)
            return training.resume(resume, given, device=device, progress=progress, numerics=machine_numerics)
        except KeyboardInterrupt:
            folder = resume or output
            if folder is None:
                raise
            # A checkpoint runs no code that it alone names.
            again = [model] if model is not None and is_user(model) else []
            command = shlex.join(["weft", "train", *again, "--resume", str(folder)])
            raise KeyboardInterrupt(f"go on with: {command}") from None


def options_of(given: Sequence[str]) -> dict[str, int | float | bool | str]:
    """Settings of a scheme: numbers and true or false as JSON writes them, all else as text."""
    found: dict[str, int | float | bool | str] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise InputError(f"--option {text!r} is not of the form name=value")
        try:
            parsed = json.loads(value)
        except ValueError:
            parsed = value
        found[name] = parsed if isinstance(parsed, int | float | bool) else value
    return found


def _show(result: TrainResult) -> None:
    """The log, thinned out to a screen, and what came of it."""
    spec, last = result.spec, result.log[-1]
    every = -(-len(result.log) // _EPOCHS_SHOWN)
    shown = [row for row in result.log if row.epoch % every == 0 or row is last]
    rows = [
        (
            str(row.epoch),
            f"{row.loss:.4f}",
            f"{100 * row.train_accuracy:.2f} %",
            f"{row.validation_loss:.4f}",
            f"{100 * row.validation_accuracy:.2f} %",
            f"{row.learning_rate:.2g}",
            f"{100 * row.flip_rate:.3f} %",
            f"{row.seconds:.2f}",
        )
        for row in shown
    ]
    under = spec.scheme if spec.pattern is None else f"{spec.scheme} {spec.pattern}"
    by = "" if spec.numerics == "torch" else f", numerics {spec.numerics}"
    title = f"{spec.model} on {spec.data}, {under}, seed {spec.seed}{by}"
    columns = ("epoch", "loss", "train", "val. loss", "validation", "rate", "flips", "s")
    console = get_console()
    console.print(make_table(title, columns, rows))
    console.print(
        f"{100 * result.accuracy:.2f} % of the {result.images[2]:,} test images right after {last.step:,} steps in "
        f"{result.seconds:.1f} s; density FF {last.density_ff:.3g}, BP {last.density_bp:.3g}, WU {last.density_wu:.3g}."
    )
    if result.kept_dense:
        console.print(
            "Kept dense: " + "; ".join(f"{name or 'the model'}: {why}" for name, why in result.kept_dense.items()) + "."
        )
    on = "" if result.device == "cpu" else f"{result.device} beside "
    console.print(f"On {on}{'; then '.join(map(str, result.hosts))}.")
    if result.folder is not None:
        console.print(f"Checkpoint, log and result: {result.folder}")
