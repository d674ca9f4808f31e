"""The stages of a simulated step - traced, annotated, scheduled, run - each with its progress on stderr."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..workloads.errors import InputError
from ..workloads.user_code import is_user
from .console import announce, bar, phases
from .inputs import parse_dims, parse_pattern, parse_sizes, require_use
from .options import DEFAULT_SCHEME

if TYPE_CHECKING:
    from ..analysis.energy_table import Table
    from ..dataflow.accelerator import AcceleratorSpec
    from ..dataflow.constraint import MappingFile
    from ..dataflow.schedule import Schedule
    from ..simulator.result import SimResult
    from ..workloads.blocks import Blocks
    from ..workloads.joined import Fusion
    from ..workloads.phase import Use
    from ..workloads.row_forms import AskedRows
    from ..workloads.schemes.policies import Policy
    from ..workloads.sparsity import LayerPatterns
    from ..workloads.step import Workload
    from ..workloads.windows import Attention

__all__ = [
    "asked_attention",
    "check_prices",
    "check_step",
    "open_workload",
    "run_step",
    "schedule_step",
    "simulate_step",
    "under",
    "users_code",
    "with_recorded",
    "without_rows",
]


@contextmanager
def users_code(model: str | None) -> Iterator[None]:
    """Where code of the user's own runs: what it prints goes to stderr, and it does not end the program."""
    with redirect_stdout(sys.stderr):
        try:
            yield
        except SystemExit as error:
            raise InputError(f"{model}: its code ended the program with exit code {error.code}") from error


def open_workload(
    model: str,
    batch: int | None,
    seq: int | None,
    optimizer: str | None,
    input_shape: str | None,
    recompute: Sequence[str] | None = None,
    freeze: Sequence[str] | None = None,
    attention: str = "full",
    dims: Sequence[str] | None = None,
    fusion: Fusion = "none",
    use: Use = "train",
    context: int | None = None,
    *,
    stream: float | None = None,
) -> Workload:
    """The workload of MODEL, traced unless it is of a file, with a share ``stream`` of its residual stream, and
    fused."""
    from ..dataflow.fusion.fuse import fuse
    from ..workloads.attended import attended
    from ..workloads.catalog import open_model

    traced_as, blocks = asked_attention(attention)
    shape = None if input_shape is None else parse_sizes("--input", input_shape, "3x64x64")
    sizes = parse_dims(dims)
    with users_code(model), phases(f"tracing {model}") as progress:
        traced = open_model(
            model,
            batch=batch,
            seq=seq,
            optimizer=optimizer,
            input_shape=shape,
            recompute=tuple(recompute or ()),
            freeze=tuple(freeze or ()),
            attention=traced_as,
            dims=sizes,
            use=use,
            context=context,
            progress=progress,
        )
    if stream is not None:
        from ..workloads.sliced import sliced

        traced = sliced(traced, stream)
    if blocks is not None:
        traced = attended(traced, blocks)
    return traced if fusion == "none" else fuse(traced, fusion)


def asked_attention(attention: str) -> tuple[Attention, Blocks | None]:
    """How attention is traced, and the pattern that it then gets."""
    from ..workloads.blocks import Blocks

    match attention:
        case "full" | "window":
            return attention, None
        case _:
            return "full", Blocks.read(attention)


_ASKED = ("batch", "seq", "optimizer", "input", "recompute", "freeze", "attention", "dim", "fusion", "for", "context")
"""What `open_workload` is asked beside the model, in its order, as options."""


def with_recorded(masks: Path, decided: object, model: str, *asked: Any) -> Workload:
    """The workload of MODEL with the masks of a file; MODEL as the record names it is the very network that was
    trained. ``decided``: what the user says of schemes, ``asked`` as of `open_workload`."""
    from ..dataflow.fusion.fuse import fuse
    from ..workloads.recorded import Recorded, with_masks

    if decided:
        raise InputError(f"--scheme and --nm are those of the training that --masks {masks} is of; leave them out")
    recorded = Recorded.read(masks)
    if model != recorded.about.model:
        return with_masks(open_workload(model, *asked), recorded)
    from ..workloads.training.recording import recorded_step

    given = dict(zip(_ASKED, asked, strict=True))
    if given["for"] != "infer":
        raise InputError(f"--masks {masks} is of weights in use: add --for infer, not {given['for']}")
    other = next((name for name in _ASKED if name not in ("batch", "attention", "fusion", "for") and given[name]), None)
    if other is not None:
        raise InputError(f"--{other} is decided by the network that --masks {masks} is of; leave it out")
    with users_code(model), phases(f"tracing {model}"):
        traced = recorded_step(recorded, given["batch"])
    return with_masks(fuse(traced, given["fusion"]), recorded)


def under(
    workload: Workload, scheme: str | None, asked: LayerPatterns | Policy | None, spec: AcceleratorSpec
) -> Workload:
    """``workload`` under the scheme asked for, else under its own, else under the default of the machine; the pattern
    of layers that no rule names is asked for, or else its own, or the default. A scheme that has no use for a pattern
    gets none."""
    from ..workloads.schemes.annotate import annotate
    from ..workloads.schemes.policies import Policy
    from ..workloads.schemes.scheme import scheme as scheme_of
    from ..workloads.sparsity import LayerPatterns, NMPattern

    own = workload.scheme if workload.scheme != "dense" else None
    if scheme is None and asked is None and own is not None:
        return workload
    if scheme is None and own is not None and is_user(own):
        raise InputError(f"the workload names code to run, {own!r}; only what you name yourself is run: --scheme {own}")
    # A machine whose PEs hold no group has nothing to select from.
    usual = DEFAULT_SCHEME if spec.pe.max_group > 1 or asked is not None else "dense"
    chosen = scheme or own or usual
    if scheme is None and asked is not None:
        require_use(chosen, asked)
    takes = scheme_of(chosen)
    if isinstance(asked, Policy):
        useful = takes.takes_pattern or (asked.bits and takes.takes_integers)
        return annotate(workload, chosen, asked.patterns(workload) if useful else None)
    found = asked or LayerPatterns()
    if not takes.takes_pattern:
        # Of several schemes that are asked for at once, some take patterns, and this one integers.
        named = any(isinstance(rule.pattern, NMPattern) for rule in found.rules)
        return annotate(workload, chosen, None if named or not takes.takes_integers else replace(found, usual=None))
    if found.usual is None:
        found = replace(found, usual=workload.pattern or parse_pattern(None))
    return annotate(workload, chosen, found)


def without_rows(workload: Workload, asked: AskedRows | None) -> Workload:
    """``workload`` without the rows that ``asked`` leaves out; as it is where nothing is asked for."""
    if asked is None:
        return workload
    from ..workloads.skip_rows import skip_rows

    return skip_rows(workload, asked)


def check_prices(spec: AcceleratorSpec, table: Table | None = None) -> None:
    """Before anything is traced: refuse a machine that ``table``, its own if none, cannot charge."""
    from ..analysis.energy_table import load_table
    from ..analysis.tariff import tariff

    tariff(table or load_table(spec.technology), spec)


def check_step(workloads: Sequence[Workload], spec: AcceleratorSpec, level: str = "step") -> None:
    """Before anything is scheduled: refuse at the system level what DRAM cannot hold; the step level warns of that."""
    from ..simulator.memory import exceeds, memory_need

    found = next(filter(None, (exceeds(work, spec, memory_need(work, spec)) for work in workloads)), None)
    if found is None:
        return
    if level == "system":
        raise InputError(found)
    announce(f"warning: {found}; the step level counts its cycles all the same, --level system refuses it")


def schedule_step(
    workload: Workload,
    spec: AcceleratorSpec,
    objective: str,
    mapping: MappingFile | None = None,
    *,
    by_shape: bool = False,
) -> Schedule:
    from ..analysis.scheduling import scheduled

    with bar(f"scheduling {workload.scheme}") as progress:
        return scheduled(workload, spec, objective, progress, mapping, by_shape)


def simulate_step(
    workload: Workload, spec: AcceleratorSpec, objective: str, mapping: MappingFile | None = None
) -> SimResult:
    return run_step(schedule_step(workload, spec, objective, mapping))


def run_step(chosen: Schedule, *, witness: bool = False) -> SimResult:
    from ..simulator.step import simulate

    with bar(f"simulating {chosen.workload.scheme}") as progress:
        return simulate(chosen, progress, witness=witness)
