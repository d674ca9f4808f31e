"""The command line: which commands there are, and how each of them ends. The commands themselves are in `_cli/`."""

from __future__ import annotations

import io
import os
import shlex
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from ._cli.archs import archs
from ._cli.area import area
from ._cli.bitstream import bitstream
from ._cli.classify import classify
from ._cli.compare import compare
from ._cli.compile import compile
from ._cli.dram import dram
from ._cli.explain import energy
from ._cli.explore import explore_app
from ._cli.explore import report as explore_report
from ._cli.explore import run as explore_run
from ._cli.explore import show as explore_show
from ._cli.fold import fold
from ._cli.gemm import gemm
from ._cli.generate import generate
from ._cli.interrupts import INTERRUPTED, CommandInterrupt, interrupts
from ._cli.models import models
from ._cli.need import need
from ._cli.options import Command
from ._cli.record import record
from ._cli.report import report
from ._cli.rtl_train import rtl_train
from ._cli.run import run
from ._cli.sensitivity import sensitivity
from ._cli.shrink import shrink
from ._cli.study import study
from ._cli.synth import synth
from ._cli.trace import trace
from ._cli.train import train
from ._cli.tree import tree
from ._cli.verify import verify
from ._cli.verilog import verilog
from .workloads.errors import InputError, brief, printable

__all__ = ["app", "main"]

_INPUT, _BUG = 2, 1

app = typer.Typer(
    name="weft",
    help="From a PyTorch training step to cycles, bytes and joules on an N:M-sparse accelerator.",
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
_COMMANDS = (
    *(models, archs, trace, run, generate, compare, need, report, gemm, fold, tree),
    *(
        compile,
        verify,
        verilog,
        rtl_train,
        train,
        record,
        shrink,
        classify,
        sensitivity,
        study,
        synth,
        area,
        bitstream,
        dram,
    ),
)
for _command in _COMMANDS:
    app.command(cls=Command)(_command)

_explain_app = typer.Typer(help="Take a reported number apart.")
_explain_app.command(cls=Command)(energy)
app.add_typer(_explain_app, name="explain")
for _part in (explore_run, explore_show, explore_report):
    explore_app.command(cls=Command)(_part)
app.add_typer(explore_app, name="explore")


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return the exit code: 0 done, 1 a fault of Weft, 2 bad input, 130 interrupted."""
    args = list(sys.argv[1:] if argv is None else argv)
    _prepare_streams()
    with interrupts(owns_process=argv is None) as noted:
        code = _run(args, noted)
    if noted and argv is None:
        # Libraries take their time to tidy up, and PyTorch may end the process by the signal itself.
        sys.stdout.flush()
        os._exit(code)
    return code


def _run(args: list[str], noted: list[int]) -> int:
    try:
        _require_no_blank(args)
        code = app(args, prog_name="weft", standalone_mode=False, obj=shlex.join(["weft", *args]))
        sys.stdout.flush()
    except (CommandInterrupt, KeyboardInterrupt) as error:
        return _interrupted(str(error))
    except SystemExit as error:
        return error.code if isinstance(error.code, int) and error.code else _BUG
    except BrokenPipeError:
        _drop_stdout()
        return _BUG
    except Exception as error:
        # A module that Ctrl-C meets while it is imported, numpy for one, turns it into an error of its own.
        if noted:
            return _interrupted()
        if isinstance(error, OSError):
            _drop_stdout()
        return _explain(error)
    if noted and code == INTERRUPTED:
        return _interrupted()
    return code if isinstance(code, int) else 0


def _interrupted(how_to_go_on: str = "") -> int:
    """A word where the command was cut off, and how to go on with it."""
    sys.stderr.write(f"Interrupted; {printable(how_to_go_on)}\n" if how_to_go_on else "Interrupted.\n")
    sys.stderr.flush()
    return INTERRUPTED


def _require_no_blank(args: Sequence[str]) -> None:
    """Refuse "", which nothing takes: a shell's unset variable would stand for a default, or for this folder."""
    for before, arg in zip(("weft", *args), args, strict=False):
        if not arg.strip() or (arg.startswith("--") and arg.endswith("=")):
            raise InputError(f"{arg or repr(arg)} after {before!r} is empty; leave it out or give a value")


def _drop_stdout() -> None:
    """Nobody reads our output, or its disk is full: the rest must not fail again when Python flushes at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.__stdout__.fileno() if sys.__stdout__ else 1)


def _prepare_streams() -> None:
    """Let output go nowhere where it was closed, and names of layers be shown in whatever encoding there is."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _explain(error: Exception) -> int:
    """Say on stderr what went wrong, in one screen."""
    if isinstance(error, typer.Abort):
        return _interrupted()
    message, code = str(error), _INPUT
    # Typer's usage errors are known by this method alone: their class moved from click into Typer.
    usage = getattr(error, "format_message", None)
    if usage is not None:
        context = getattr(error, "ctx", None)
        path = context.command_path if context is not None else "weft"
        # Typer passes a parser's own words on behind pydantic's.
        message = f"{usage().replace('Value error, ', '')}\nTry '{path} --help'."
    elif isinstance(error, OSError):
        # Files are checked where they are opened; what is left is a full disk or terminal.
        message, code = _of_full_disk(error) or (message, _BUG)
    elif not isinstance(error, InputError):
        code = _BUG
        first = message.strip().partition("\n")[0][:500]
        message = f"{type(error).__name__}: {first}\nThis is a fault of Weft; WEFT_TRACEBACK=1 shows where."
    sys.stderr.write(brief("Error: " + printable(message, lines=True)) + "\n")
    if os.environ.get("WEFT_TRACEBACK"):
        sys.stderr.write(printable("".join(traceback.format_exception(error)), lines=True))
    return code


def _of_full_disk(error: OSError) -> tuple[str, int] | None:
    """What to say where kernels could not be kept; Numba is asked only if it is there."""
    if "numba" not in sys.modules:
        return None
    from .workloads.compiled import full_disk

    said = full_disk(error)
    return None if said is None else (str(said), _INPUT)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"weft {version('weft')}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """From a PyTorch training step to cycles, bytes and joules on an N:M-sparse accelerator."""
