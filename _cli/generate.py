"""`weft generate`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from .console import get_console, make_table, phases, si
from .inputs import asked_patterns, asked_rows, machine
from .options import (
    DEFAULT_ARCH,
    DEFAULT_OBJECTIVE,
    Arch,
    AttentionBy,
    FuseBy,
    Json,
    Model,
    Objective,
    Patterns,
    RowsBy,
    Scheme,
    SliceTo,
)
from .outputs import print_json
from .pipeline import asked_attention, check_prices, open_workload, under, without_rows

if TYPE_CHECKING:
    from ..analysis.bands import Joules
    from ..analysis.generation import Generated
    from ..workloads.step import Workload

__all__ = ["generate"]


def generate(
    model: Model,
    context: Annotated[int, typer.Option(help="Tokens of the prompt.")] = 512,
    new: Annotated[int, typer.Option(help="Steps of decoding behind it, a token a sample each.")] = 128,
    batch: Annotated[int, typer.Option(help="Samples that are written at once.")] = 1,
    arch: Arch = DEFAULT_ARCH,
    scheme: Scheme = "dense",
    nm: Patterns = None,
    rows: RowsBy = None,
    stream: SliceTo = None,
    attention: AttentionBy = "full",
    fusion: FuseBy = "none",
    objective: Objective = DEFAULT_OBJECTIVE,
    level: Annotated[
        Literal["step", "system"], typer.Option(help="Op after op, or with the ops of every step overlapped.")
    ] = "step",
    as_json: Json = False,
) -> None:
    """Let a model write text on a machine: tokens a second, time to the first, joules a token."""
    from ..analysis.generation import generate as generated
    from ..workloads.attended import attended
    from ..workloads.growth import growth, rewritten

    spec = machine(arch)
    check_prices(spec)
    skipped, _ = asked_rows(rows, nm, None if scheme == "dense" else scheme)
    asked = asked_patterns(scheme, nm, spec)

    _, blocks = asked_attention(attention)

    def traced(use: Any, tokens: int, attention: str = "full") -> Workload:
        return open_workload(
            model, batch, None, None, None, None, None, attention, fusion=fusion, use=use, context=tokens, stream=stream
        )

    def placed(step: Workload) -> Workload:
        # Of a prompt nearly every row is kept by some token, so it is read whole, as TEAL does with half of one.
        return without_rows(under(step, scheme, asked, spec), None if step.phase.use == "prefill" else skipped)

    prompt = placed(traced("prefill", context, attention))
    if blocks is None:
        steps = growth(context, new, lambda tokens: placed(traced("decode", tokens)))
    else:
        whole = growth(context, new, lambda tokens: traced("decode", tokens))
        steps = rewritten(whole, lambda step: placed(attended(step, blocks)))
    with phases(f"{model} on {spec.name}") as progress:
        found = generated(prompt, steps, spec, objective, progress, level=level)
    if as_json:
        print_json(_document(found))
        return
    _show(found)


def _document(found: Generated) -> dict[str, Any]:
    from ..analysis.level import level_of, step_of

    steps, work = found.decoded.growth, step_of(found.prefill).workload
    return {
        "model": work.model,
        "batch": work.batch,
        "scheme": work.scheme,
        "fusion": work.fusion,
        "input": work.input,
        "arch": found.decoded.spec.name,
        "level": level_of(found.prefill),
        "context": work.phase.tokens,
        "new": steps.steps,
        "tokens_per_s": found.tokens_per_s,
        "first_token_seconds": found.first_token_seconds,
        **_banded("joules_per_token", found.joules_per_token),
        **_banded("prefill_joules", found.prefill_joules),
        "binds": found.binds,
        "bandwidth_share": found.bandwidth_share,
        "roof_tokens_per_s": found.roof_tokens_per_s,
        "decode_cycles": found.decoded.cycles,
        "decode_dram_bytes": found.decoded.dram_bytes,
        "kv_cache_bytes": found.need.kv_cache,
        "weight_bytes": found.need.frozen_weights + found.need.weight_copies,
    }


def _banded(name: str, found: Joules) -> dict[str, float]:
    return {name: found.likely, f"{name}_low": found.low, f"{name}_high": found.high}


def _show(found: Generated) -> None:
    from ..analysis.bands import band_words
    from ..analysis.level import level_words, step_of

    console, work, spec = get_console(), step_of(found.prefill).workload, found.decoded.spec
    console.print(
        f"{found.tokens_per_s:,.3g} tokens/s, the first after {si(found.first_token_seconds, 's')}, "
        f"{band_words(found.joules_per_token)} a token: {found.binds}",
        style="bold",
    )
    steps = found.decoded.by_step
    tokens = found.decoded.tokens
    rows = [
        ("prompt", f"{work.phase.tokens:,} tokens x {work.batch}", si(found.first_token_seconds, "s")),
        ("energy of the prompt", band_words(found.prefill_joules), ""),
        ("first token decoded", "", si(steps[0] / spec.clock_hz, "s")),
        ("last token decoded", "", si(steps[-1] / spec.clock_hz, "s")),
        ("DRAM moved a token", si(found.decoded.dram_bytes / tokens, "B"), f"{found.bandwidth_share:.0%} of the time"),
        ("what DRAM allows", f"{found.roof_tokens_per_s:,.3g} tokens/s", ""),
        ("weights", si(found.need.frozen_weights + found.need.weight_copies, "B"), ""),
        ("KV cache at the end", si(found.need.kv_cache, "B"), ""),
    ]
    title = f"{work.model} on {spec.name}, {found.decoded.growth.first.scheme}, {level_words(found.prefill)}"
    console.print(make_table(title, ("", "amount", "time"), rows))
