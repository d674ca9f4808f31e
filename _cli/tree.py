"""`weft tree`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .console import get_console, make_table, name_of, percent
from .options import Json
from .outputs import print_json

if TYPE_CHECKING:
    from ..analysis.trees import TreeAccount

__all__ = ["tree"]


def tree(
    runs: Annotated[
        list[Path], typer.Argument(metavar="DIR...", help="Folders of finished trainings of `weft train -o`.")
    ],
    lanes: Annotated[int, typer.Option(help="Channels, each at a position, that are compared at once.")] = 16,
    word_bits: Annotated[int, typer.Option(help="Indexed bits that a lane compares in a cycle.")] = 32,
    positions: Annotated[int, typer.Option(help="Inputs of a layer that are held at once.")] = 16,
    inverse: Annotated[
        bool, typer.Option("--inverse", help="A channel may be made of the inverse of its parent.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Order the channels of trained binary layers along a spanning tree: what that saves, and what it costs."""
    from ..analysis.trees import read_tree_account
    from ..dataflow.spanning_tree import TreeEngine

    engine = TreeEngine(lanes=lanes, word_bits=word_bits, positions=positions)
    found = [read_tree_account(folder, engine, inverse=inverse) for folder in runs]
    print_json([account.document() for account in found]) if as_json else _show(found)


def _show(found: Sequence[TreeAccount]) -> None:
    console = get_console()
    columns = ("layer", "channels", "k", "positions", "compared", "stored", "held", "levels", "cycles")
    for account in found:
        rows: list[tuple[str, ...]] = [
            (
                name_of(x.layer),
                f"{x.groups} x {x.channels}" if x.groups > 1 else f"{x.channels:,}",
                f"{x.k:,}",
                f"{x.positions:,}",
                percent(x.cost.compared, x.cost.compared_plain),
                percent(x.cost.stored, x.cost.stored_plain),
                percent(x.cost.held, x.cost.stored_plain),
                f"{x.cost.levels:,}",
                percent(x.cost.cycles, x.cost.cycles_plain),
            )
            for x in account.layers
        ]
        whole = account.weights
        bits = (percent(getattr(whole, name), whole.stored_plain) for name in ("stored", "held"))
        cycles = percent(account.cycles, account.cycles_plain)
        rows.append(
            ("all", "", "", "", percent(account.compared, account.compared_plain), *bits, f"{whole.levels:,}", cycles)
        )
        accuracy = percent(account.accuracy, 1)
        console.print(f"{name_of(account.name)}, {account.scheme}, test accuracy {accuracy}", style="bold")
        console.print(make_table("", columns, rows))
    engine = found[0].engine
    console.print(
        f"Of the same channels one by one, on {engine.lanes} lanes of {engine.word_bits} bits, positions at once: "
        f"{engine.positions}. stored: indices or masks; held: what a lane reads (docs/binary.md)"
    )
