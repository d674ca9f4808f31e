"""What every command shows to people is made of: tables and figures on stdout, progress on stderr.

Rich is imported where it is used, so that `weft --help` and `--json` do not wait for what they do not need.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ..workloads.errors import printable, shorten

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from ..workloads.step import Workload

__all__ = ["announce", "bar", "get_console", "heading", "make_table", "name_of", "percent", "phases", "rate", "si"]

_WIDTH = 100


def get_console(most: int = _WIDTH) -> Console:
    """The console, at most ``most`` characters wide, and as wide where it is no terminal."""
    console = _console(stderr=False)
    console.width = min(console.width, most) if console.is_terminal else most
    return console


def _console(*, stderr: bool) -> Console:
    """The one way text reaches the terminal: what others named speaks neither to Rich nor to the terminal."""
    from rich.console import Console

    class Plain(Console):
        def render_str(self, text: str, **how: Any) -> Text:
            return super().render_str(printable(text, lines=True), **how)

    # Names of layers may hold brackets and colons, so neither markup nor emoji.
    return Plain(stderr=stderr, highlight=False, markup=False, emoji=False)


def name_of(text: str) -> str:
    """A name that others gave, on one line and not longer than one."""
    return shorten(printable(text), _WIDTH)


def make_table(
    title: str, columns: Sequence[str], rows: Iterable[Sequence[str]], left: int = 1, width: int = _WIDTH
) -> Table:
    """A table whose first ``left`` columns are text and whose others are numbers; it takes up to ``width``."""
    from rich import box
    from rich.table import Table

    # Where not even numbers fit they go on below: a digit must not be lost.
    narrow = get_console(width).width < width
    table = Table(
        title=printable(title) or None, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False
    )
    for i, column in enumerate(map(printable, columns)):
        if i < left:
            table.add_column(column, overflow="fold")
        else:
            table.add_column(column, justify="right", no_wrap=not narrow, overflow="fold" if narrow else "ellipsis")
    for row in rows:
        table.add_row(*map(printable, row))
    return table


def si(value: float, unit: str = "") -> str:
    """Four significant digits with an SI prefix."""
    for prefix, factor in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3), ("", 1.0), ("m", 1e-3), ("u", 1e-6)):
        if abs(value) >= factor or prefix == "u":
            return f"{value / factor:#.4g}".rstrip(".") + f" {prefix}{unit}".rstrip()
    raise AssertionError


def rate(samples_per_s: float) -> str:
    return f"{samples_per_s:,.1f}" if samples_per_s >= 100 else f"{samples_per_s:.4g}"


def percent(part: float, whole: float) -> str:
    return f"{100 * part / whole:.1f} %" if whole else "-"


def heading(workload: Workload) -> str:
    from ..analysis.words import run_name

    given = f", input {workload.input}" if workload.input else ""
    return name_of(workload.model) + printable(f", batch {workload.batch}{given}, {run_name(workload)}")


@contextmanager
def phases(what: str) -> Iterator[Callable[[str], None]]:
    """Say which phase is running; a line that goes away, on a terminal only."""
    from rich.text import Text

    console = _console(stderr=True)
    if not console.is_terminal:
        yield lambda _: None
        return
    # A spinner takes a plain string for markup.
    with console.status(Text(name_of(what))) as status:
        yield lambda phase: status.update(Text(name_of(f"{what}: {phase}")))


@contextmanager
def bar(what: str) -> Iterator[Callable[[int, int], None]]:
    """A bar to be told what is done and how much there is; on a terminal only."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    console = _console(stderr=True)
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(name_of(what), total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


def announce(text: str) -> None:
    """Say something before long work, on stderr."""
    _console(stderr=True).print(text)
