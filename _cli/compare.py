"""`weft compare`."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Annotated

import typer

from .console import get_console, make_table, name_of, rate, si
from .inputs import machine, mapping_rules, parse_patterns, require_schemes, split_names
from .options import (
    DEFAULT_ARCH,
    DEFAULT_OBJECTIVE,
    Arch,
    AttentionBy,
    Batch,
    Dims,
    DrawAll,
    Folder,
    Freeze,
    InputShape,
    Json,
    MappingRules,
    Model,
    Objective,
    Optimizer,
    Patterns,
    Pregenerate,
    Recompute,
    Seq,
)
from .outputs import print_json, require_writable_folder
from .pipeline import check_prices, check_step, open_workload, simulate_step, under

if TYPE_CHECKING:
    from rich.table import Table

    from ..analysis.compare import Comparison, LossLedger

__all__ = ["compare"]

_SHOWN_SHARE = 0.0005


def compare(
    context: typer.Context,
    model: Model,
    schemes: Annotated[str, typer.Option(help="To put side by side, with commas: SCHEMES.")] = "dense,srste,sdgp,bdwp",
    nm: Patterns = None,
    batch: Batch = None,
    seq: Seq = None,
    arch: Arch = DEFAULT_ARCH,
    objective: Objective = DEFAULT_OBJECTIVE,
    mapping: MappingRules = None,
    optimizer: Optimizer = None,
    input_shape: InputShape = None,
    dims: Dims = None,
    recompute: Recompute = None,
    freeze: Freeze = None,
    attention: AttentionBy = "full",
    pregenerate: Pregenerate = None,
    output: Folder = None,
    draw_all: DrawAll = False,
    as_json: Json = False,
) -> None:
    """Simulate one training step under several schemes, side by side."""
    from ..analysis.compare import compare as side_by_side
    from ..analysis.comparison_files import comparison_dict, ledgers, require_free_for_comparison, save_comparison
    from ..dataflow.config_io import spec_hash

    spec = machine(arch, pregenerate)
    check_prices(spec)
    asked, names, rules = parse_patterns(nm), split_names(schemes), mapping_rules(mapping)
    require_schemes(names, asked, spec)
    if output is not None:
        require_writable_folder(output)
        require_free_for_comparison(output, names, draw_all)
    workload = open_workload(model, batch, seq, optimizer, input_shape, recompute, freeze, attention, dims)
    steps = [under(workload, name, asked, spec) for name in names]
    check_step(steps, spec)
    comparison = side_by_side([simulate_step(step, spec, objective, rules) for step in steps])
    if output is not None:
        save_comparison(comparison, output, context.obj, draw_all=draw_all)
    if as_json:
        print_json(comparison_dict(comparison, context.obj))
        return
    _show(comparison, ledgers(comparison), spec_hash(spec))


def _show(comparison: Comparison, ledgers: dict[str, LossLedger], digest: str) -> None:
    """Schemes side by side, and where the distance to their promise goes."""
    from ..analysis.savings import saving_words

    console, first = get_console(), comparison.baseline
    work = first.workload
    console.print(
        f"{name_of(work.model)}, batch {work.batch}, input {name_of(work.input or '-')}, "
        f"on {name_of(first.spec.name)} ({digest}), scheduled for {first.objective.aim}",
        style="bold",
    )
    rules = dict.fromkeys(rule for result in comparison.results for rule in result.workload.layer_patterns)
    if rules:
        console.print(f"N:M by layer: {', '.join(name_of(str(rule)) for rule in rules)}; the last to match holds")
    rows = [
        (
            r.scheme,
            r.pattern or "",
            si(r.seconds, "s"),
            rate(r.samples_per_s),
            f"{r.speedup:.3f}x",
            f"{r.mac_speedup:.2f}x",
            f"{r.ideal_speedup:.2f}x",
            f"{100 * r.utilization:.1f} %",
            si(r.energy_j, "J"),
        )
        for r in comparison.rows
    ]
    columns = ("scheme", "N:M", "step", "samples/s", "speed-up", "by MACs", "ideal", "utilis.", "energy")
    console.print(make_table("", columns, rows, left=2))
    savings = {r.scheme: r.saving for r in comparison.rows if r.saving is not None}
    if savings:
        said = "; ".join(f"{name} {saving_words(saved)}" for name, saved in savings.items())
        tables = dict.fromkeys(table for saved in savings.values() for table in saved.tables)
        console.print(f"Over {work.scheme}: {said}.\nTables: {', '.join(tables)}.\n")
    if ledgers:
        console.print(_ledger(ledgers, first.cycles.total))
        console.print(
            "Ideal: had every GEMM of a thinned-out pass the pattern's density, at peak, with nothing else to do."
        )


def _ledger(ledgers: dict[str, LossLedger], dense_cycles: int) -> Table:
    from ..analysis.words import percents

    items: dict[str, dict[str, float]] = defaultdict(dict)
    # The longest first: the others only leave items out.
    for name, ledger in sorted(ledgers.items(), key=lambda pair: -len(pair[1].rows)):
        for row in ledger.rows:
            items[row.item][name] = float(row.cycles)
            items[row.item]["dense"] = float(row.dense_cycles)
    names, seen, rest = ["dense", *ledgers], {}, dict.fromkeys(["dense", *ledgers], 0.0)
    for item, of in items.items():
        if max(of.values()) >= _SHOWN_SHARE * dense_cycles:
            seen[item] = of
        else:
            rest = {name: cycles + of.get(name, 0.0) for name, cycles in rest.items()}
    if any(rest.values()):
        seen["smaller items"] = rest
    columns = [percents([of.get(name, 0.0) for of in seen.values()], dense_cycles) for name in names]
    rows = [(item, *(f"{share} %" for share in shares)) for item, *shares in zip(seen, *columns, strict=True)]
    rows.append(("step", *(f"{sum(map(float, shares)):.1f} %" for shares in columns)))
    return make_table("Where the cycles go, in shares of the dense step", ("item", *names), rows)
