"""`weft shrink`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..workloads.errors import InputError
from .console import bar, get_console, make_table, name_of
from .options import DATA_HELP, Context, For, Json
from .outputs import print_json, require_writable_file
from .pipeline import users_code

if TYPE_CHECKING:
    from ..workloads.shrinking import Shrunk, SlicedText
    from ..workloads.step import Workload

__all__ = ["shrink"]


def shrink(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="What to train, as for `weft train`, or characters.")],
    by: Annotated[
        str,
        typer.Option(
            metavar="FORM@SHARE",
            help="channels@0.5 or scales@0.5 keep half of the channels; rank@0.9, trp@0.98 or maestro@0.9 so much of "
            "the squares of every weight, in two factors; tokens@0.7 or core@0.7 so many tokens of vit_s; "
            "slice@0.75, of characters, so much of its stream.",
        ),
    ],
    data: Annotated[str | None, typer.Option(help=DATA_HELP)] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the training set before the cut.")] = None,
    tune: Annotated[int | None, typer.Option(help="Passes behind it; a quarter if none.")] = None,
    steps: Annotated[int | None, typer.Option(help="Of training `characters`; 600 if none.")] = None,
    lr: Annotated[
        float | None, typer.Option(help="Highest learning rate before the cut; a tenth of it behind.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Of weights, order and augmentation; 0 if none.")] = None,
    device: Annotated[str | None, typer.Option(help="cpu or cuda; a GPU where there is one.")] = None,
    use: For = "train",
    batch: Annotated[int | None, typer.Option(help="Samples in the written step.")] = None,
    context: Context = None,
    output: Annotated[
        Path | None, typer.Option("-o", metavar="FILE.json", help="Write a step of the small model here, for weft run.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Train a model, make its shapes smaller, train it on, and trace what is left."""
    if output is not None:
        require_writable_file(output)
    given = {
        "data": data,
        "epochs": epochs,
        "tune": tune,
        "steps": steps,
        "learning_rate": lr,
        "seed": seed,
        "device": device,
    }
    found, step = _shrunk(model, by, {k: v for k, v in given.items() if v is not None}, use, batch, context)
    if output is not None:
        from ..workloads.io import save_workload

        save_workload(step, output)
    path = None if output is None else str(output)
    if as_json:
        from ..workloads.shrinking import to_dict

        macs = sum(step.dense_macs.values())
        print_json({**to_dict(found), "for": use, "batch": step.batch, "macs": macs, "path": path})
        return
    _show(found, path)


def _shrunk(
    model: str, by: str, given: dict[str, Any], use: Any, batch: int | None, context: int | None
) -> tuple[Shrunk | SlicedText, Workload]:
    """The small model, and its step; of text one of use, decoding if none is named."""
    from ..workloads.shrinking import shrink as shrunk
    from ..workloads.shrinking import slice_characters
    from ..workloads.training.text_spec import MODEL

    of_text = model == MODEL
    other = next((name for name in given if name in (_OF_IMAGES if of_text else ("steps",))), None)
    if other is not None:
        option = {"learning_rate": "lr"}.get(other, other)
        raise InputError(f"--{option} is {'not ' if of_text else ''}for {MODEL}, a model of text; leave it out")
    if not of_text and context is not None:
        raise InputError(f"--context {context} is for {MODEL}, a model of text; leave it out")
    with users_code(model), bar("training") as progress:
        if of_text:
            sliced = slice_characters(by, progress=progress, **given)
            return sliced, sliced.step("decode" if use == "train" else use, batch, context)
        small = shrunk(model, by, progress=progress, **given)
    return small, small.step(use, batch)


_OF_IMAGES = ("epochs", "tune", "learning_rate", "device")
"""Options of classifiers alone."""


def _show(found: Shrunk | SlicedText, path: str | None) -> None:
    from ..workloads.shrinking import SlicedText

    console = get_console()
    before, after = found.parameters
    if isinstance(found, SlicedText):
        console.print(
            f"characters on {found.data}, {found.asked}, seed {found.seed}: a stream of {found.width[1]} of "
            f"{found.width[0]}, {before:,} to {after:,} parameters; {found.trained:.3f} bits a character as trained, "
            f"{found.cut:.3f} cut."
        )
    else:
        rows = [
            (name_of(layer.name), _size(layer.before), ", ".join(map(_size, layer.after)) or "gone")
            for layer in found.layers
        ]
        title = f"{name_of(found.spec.model)} on {name_of(found.spec.data)}, {found.asked}, seed {found.spec.seed}"
        console.print(make_table(title, ("weight", "before", "after"), rows, left=3))
        console.print(
            f"{before:,} to {after:,} parameters; of the test images right: {100 * found.trained:.2f} % as trained, "
            f"{100 * found.cut:.2f} % cut, {100 * found.tuned:.2f} % tuned for {found.tuning.epochs} epochs."
        )
    if path is not None:
        console.print(f"Written to {path}")


def _size(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
