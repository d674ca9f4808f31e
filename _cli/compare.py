"""`weft compare`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from .compare_sweep import Places, sweep_all
from .console import get_console, make_table, name_of, rate, si
from .inputs import alternatives, machines, mapping_rules, parse_batches, require_schemes, split_names
from .options import (
    DEFAULT_ARCH,
    DEFAULT_NM,
    DEFAULT_OBJECTIVE,
    AttentionBy,
    Dims,
    DrawAll,
    Folder,
    Freeze,
    FuseBy,
    InputShape,
    Json,
    MappingRules,
    Model,
    Objective,
    Optimizer,
    Pregenerate,
    Recompute,
    Resident,
    Seq,
)
from .outputs import print_json, require_writable_folder
from .pipeline import check_prices, check_step, open_workload, simulate_step, under

if TYPE_CHECKING:
    from rich.table import Table

    from ..analysis.compare import Comparison, LossLedger
    from ..dataflow.accelerator import AcceleratorSpec
    from ..dataflow.constraint import MappingFile
    from ..workloads.schemes.policies import Policy
    from ..workloads.sparsity import LayerPatterns
    from ..workloads.step import Workload

__all__ = ["compare"]

_SHOWN_SHARE = 0.0005

_Patterns = Annotated[
    list[str] | None,
    typer.Option(
        metavar="[LAYERS=]KEEP:GROUP,..",
        help=f"N:M pattern, {DEFAULT_NM} if none, or several, with commas; of some layers, as layer4.*=1:8 or "
        "fc=dense: the last rule that matches holds, with every pattern; repeatable.",
    ),
]
_Batches = Annotated[
    str | None, typer.Option(metavar="INTEGER,..", help="Samples in one training step, or several sizes, with commas.")
]
_Archs = Annotated[
    str, typer.Option(metavar="NAME|FILE.toml,..", help="Machine, or several, with commas; `weft archs` lists them.")
]


def compare(
    context: typer.Context,
    model: Model,
    schemes: Annotated[str, typer.Option(help="To put side by side, with commas: SCHEMES.")] = "dense,srste,sdgp,bdwp",
    nm: _Patterns = None,
    batch: _Batches = None,
    seq: Seq = None,
    arch: _Archs = DEFAULT_ARCH,
    objective: Objective = DEFAULT_OBJECTIVE,
    mapping: MappingRules = None,
    optimizer: Optimizer = None,
    input_shape: InputShape = None,
    dims: Dims = None,
    recompute: Recompute = None,
    freeze: Freeze = None,
    attention: AttentionBy = "full",
    fusion: FuseBy = "none",
    pregenerate: Pregenerate = None,
    resident: Resident = None,
    output: Folder = None,
    draw_all: DrawAll = False,
    as_json: Json = False,
) -> None:
    """Simulate one training step under several schemes, side by side; or every combination with several patterns,
    machines and batches."""
    specs, batches, patterns = machines(arch, pregenerate, resident), parse_batches(batch), alternatives(nm)
    names, rules = split_names(schemes), mapping_rules(mapping)
    for spec in specs.values():
        check_prices(spec)
    opened = partial(
        open_workload,
        model,
        seq=seq,
        optimizer=optimizer,
        input_shape=input_shape,
        recompute=recompute,
        freeze=freeze,
        attention=attention,
        dims=dims,
        fusion=fusion,
    )
    places = Places(output, draw_all, as_json, context.obj)
    if max(len(specs), len(batches), len(patterns)) > 1:
        sweep_all(opened, batches, specs, names, patterns, objective, rules, places)
        return
    (spec,), (asked,), size = specs.values(), patterns, batches[0] if batches else None
    _side_by_side(partial(opened, size), spec, names, asked, objective, rules, places)


def _side_by_side(
    opened: Callable[[], Workload],
    spec: AcceleratorSpec,
    names: Sequence[str],
    asked: LayerPatterns | Policy,
    objective: str,
    mapping: MappingFile | None,
    places: Places,
) -> None:
    """The step that ``opened`` gives under several schemes, and where their cycles go."""
    from ..analysis.compare import compare as side_by_side
    from ..analysis.comparison_files import comparison_dict, ledgers, require_free_for_comparison, save_comparison
    from ..dataflow.config_io import spec_hash

    require_schemes(names, asked, spec)
    if places.output is not None:
        require_writable_folder(places.output)
        require_free_for_comparison(places.output, names, places.draw_all)
    workload = opened()
    steps = [under(workload, name, asked, spec) for name in names]
    check_step(steps, spec)
    comparison = side_by_side([simulate_step(step, spec, objective, mapping) for step in steps])
    if places.output is not None:
        save_comparison(comparison, places.output, places.command, draw_all=places.draw_all)
    if places.as_json:
        print_json(comparison_dict(comparison, places.command))
        return
    _show(comparison, ledgers(comparison), spec_hash(spec))


def _show(comparison: Comparison, ledgers: dict[str, LossLedger], digest: str) -> None:
    """Schemes side by side, and where the distance to their promise goes."""
    from ..analysis.bands import band_words
    from ..analysis.promise import promise_words, promises
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
            band_words(r.energy),
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
    for name, found in promises(comparison).items():
        console.print(f"{name_of(name)} {promise_words(found)}.\n")
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
