"""`weft shrink`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from .console import bar, get_console, make_table, name_of
from .options import DATA_HELP, Json
from .outputs import print_json, require_writable_file
from .pipeline import users_code

if TYPE_CHECKING:
    from ..workloads.shrinking import Shrunk

__all__ = ["shrink"]


def shrink(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="What to train, as for `weft train`.")],
    by: Annotated[
        str,
        typer.Option(
            metavar="FORM@SHARE",
            help="channels@0.5 or scales@0.5 keep half of the channels; rank@0.9, trp@0.98 or maestro@0.9 so much of "
            "the squares of every weight, in two factors.",
        ),
    ],
    data: Annotated[str | None, typer.Option(help=DATA_HELP)] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the training set before the cut.")] = None,
    tune: Annotated[int | None, typer.Option(help="Passes behind it; a quarter if none.")] = None,
    lr: Annotated[
        float | None, typer.Option(help="Highest learning rate before the cut; a tenth of it behind.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Of weights, order and augmentation; 0 if none.")] = None,
    device: Annotated[str | None, typer.Option(help="cpu or cuda; a GPU where there is one.")] = None,
    use: Annotated[
        Literal["train", "infer"], typer.Option("--for", help="What the written step does: train, or one call.")
    ] = "train",
    batch: Annotated[int | None, typer.Option(help="Images in the written step.")] = None,
    output: Annotated[
        Path | None, typer.Option("-o", metavar="FILE.json", help="Write a step of the small model here, for weft run.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Train an image classifier, make it smaller, train it on, and trace what is left."""
    if output is not None:
        require_writable_file(output)
    given = {"data": data, "epochs": epochs, "learning_rate": lr, "seed": seed}
    from ..workloads.shrinking import shrink as shrunk
    from ..workloads.shrinking import to_dict

    with users_code(model), bar("training") as progress:
        found = shrunk(
            model,
            by,
            tune=tune,
            device=device,
            progress=progress,
            **{name: value for name, value in given.items() if value is not None},
        )
    step = found.step(use, batch)
    if output is not None:
        from ..workloads.io import save_workload

        save_workload(step, output)
    path = None if output is None else str(output)
    if as_json:
        macs = sum(step.dense_macs.values())
        print_json({**to_dict(found), "for": use, "batch": step.batch, "macs": macs, "path": path})
        return
    _show(found, path)


def _show(found: Shrunk, path: str | None) -> None:
    def size(shape: tuple[int, ...]) -> str:
        return " x ".join(map(str, shape))

    rows: list[tuple[Any, ...]] = [
        (name_of(layer.name), size(layer.before), ", ".join(map(size, layer.after)) or "gone") for layer in found.layers
    ]
    title = f"{name_of(found.spec.model)} on {name_of(found.spec.data)}, {found.asked}, seed {found.spec.seed}"
    console = get_console()
    console.print(make_table(title, ("weight", "before", "after"), rows, left=3))
    before, after = found.parameters
    console.print(
        f"{before:,} to {after:,} parameters; of the test images right: {100 * found.trained:.2f} % as trained, "
        f"{100 * found.cut:.2f} % cut, {100 * found.tuned:.2f} % tuned for {found.tuning.epochs} epochs."
    )
    if path is not None:
        console.print(f"Written to {path}")
