"""What the command line shows to people: tables on stdout, progress on stderr."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

if TYPE_CHECKING:
    from .analysis.compare import Comparison, LossLedger
    from .analysis.energy import EnergyReport
    from .analysis.product import Product
    from .dataflow.accelerator import AcceleratorSpec
    from .simulator.result import SimResult
    from .workloads.models.zoo import ZooModel
    from .workloads.step import Workload

__all__ = [
    "bar", "phases", "show_archs", "show_comparison", "show_models", "show_product", "show_run", "show_scalesim",
    "show_workload",
]  # fmt: skip

_WIDTH = 100
_SLOWEST = 10
_NAMED = 3
_SHOWN_SHARE = 0.0005
_CAUSES = {
    "compute": "the array issues multiplies",
    "fill_drain": "skew, pipeline latency, first and last words",
    "interleave_stall": "an accumulator is waited for",
    "port_stall": "the array waits for its own ports",
    "dram_stall": "the array waits for DRAM",
    "sore": "N:M compression is waited for",
    "wuve": "weight update",
    "vector": "element-wise, normalisation, softmax",
}


def _console() -> Console:
    # Names of layers may hold brackets and colons, so neither markup nor emoji.
    console = Console(highlight=False, markup=False, emoji=False)
    console.width = min(console.width, _WIDTH) if console.is_terminal else _WIDTH
    return console


def _table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]], left: int = 1) -> Table:
    """A table whose first ``left`` columns are text and whose others are numbers."""
    table = Table(title=title or None, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    for i, column in enumerate(columns):
        if i < left:
            table.add_column(column, overflow="fold")
        else:
            table.add_column(column, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    return table


def _scaled(value: float, unit: str = "") -> str:
    """Four significant digits with an SI prefix."""
    for prefix, factor in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3), ("", 1.0), ("m", 1e-3), ("u", 1e-6)):
        if abs(value) >= factor or prefix == "u":
            return f"{value / factor:#.4g}".rstrip(".") + f" {prefix}{unit}".rstrip()
    raise AssertionError


def _rate(samples_per_s: float) -> str:
    return f"{samples_per_s:,.1f}" if samples_per_s >= 100 else f"{samples_per_s:.4g}"


def _share(part: float, whole: float) -> str:
    return f"{100 * part / whole:.1f} %" if whole else "-"


@contextmanager
def phases(what: str) -> Iterator[Callable[[str], None]]:
    """Say which phase is running; a line that goes away, on a terminal only."""
    console = Console(stderr=True, markup=False, emoji=False)
    if not console.is_terminal:
        yield lambda _: None
        return
    with console.status(what) as status:
        yield lambda phase: status.update(f"{what}: {phase}")


@contextmanager
def bar(what: str) -> Iterator[Callable[[int, int], None]]:
    """A bar to be told what is done and how much there is; on a terminal only."""
    console = Console(stderr=True, markup=False, emoji=False)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(what, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


def show_models(models: Iterable[ZooModel]) -> None:
    rows = [(m.name, m.title, m.input, str(m.batch)) for m in models]
    console = _console()
    console.print(_table("", ("name", "model", "input", "batch"), rows, left=3))
    console.print("An image model takes another side as name@64, a text model another length as --seq 512.")


def show_archs(specs: Iterable[tuple[AcceleratorSpec, str]]) -> None:
    rows = [
        (
            s.name, f"{s.array.rows} x {s.array.cols}", f"{s.clock_hz / 1e6:g} MHz",
            _scaled(s.macs_per_cycle * s.clock_hz, "MAC/s"), f"{s.dram.bytes_per_second / 1e9:g} GB/s", digest,
        )
        for s, digest in specs
    ]  # fmt: skip
    console = _console()
    console.print(_table("", ("name", "array", "clock", "peak", "DRAM", "hash"), rows))
    console.print("`weft archs NAME` prints one as TOML, ready to be changed and given back as --arch file.toml.")


def show_workload(workload: Workload, path: str | None) -> None:
    console = _console()
    console.print(_heading(workload), style="bold")
    macs = workload.dense_macs
    total = sum(macs.values())
    rows = [(str(p), f"{n:,}", _share(n, total)) for p, n in macs.items()]
    rows.append(("all", f"{total:,}", ""))
    if workload.recomputed_macs:
        rows.append(("recomputed FF", f"{workload.recomputed_macs:,}", ""))
    console.print(_table("", ("pass", "multiply-accumulates", "share"), rows))
    console.print(
        f"{len(workload.ops):,} ops, {len(workload.matrix_ops):,} of them GEMMs; {workload.parameters:,} parameters "
        f"trained with {workload.optimizer}"
    )
    if path is not None:
        console.print(f"Written to {path}")


def _heading(workload: Workload) -> str:
    scheme = workload.scheme if workload.pattern is None else f"{workload.scheme} {workload.pattern}"
    given = f", input {workload.input}" if workload.input else ""
    return f"{workload.model}, batch {workload.batch}{given}, {scheme}"


def show_run(result: SimResult, digest: str) -> None:
    """The verdict first, then where the time goes."""
    from .analysis.energy import energy

    console, report = _console(), energy(result)
    _show_verdict(console, result, report, digest)
    console.print(_passes(result, report))
    console.print(_causes(result))
    console.print(_slowest(result))
    _show_dense_layers(console, result)
    _show_energy(console, report)


def _show_verdict(console: Console, result: SimResult, report: EnergyReport, digest: str) -> None:
    from .analysis.throughput import throughput

    speed = throughput(result)
    console.print(
        f"{_rate(speed.samples_per_s)} samples/s   {_scaled(speed.seconds, 's')} a step   "
        f"utilisation {100 * speed.utilization:.1f} %   {_scaled(report.joules, 'J')} a step",
        style="bold",
    )
    console.print(_heading(result.workload))
    console.print(f"on {result.spec.name} ({digest}), scheduled for least {result.objective}")
    console.print(
        f"{_scaled(1e9 * speed.effective_gops, 'OP/s')} effective, "
        f"{_scaled(1e9 * speed.dense_equivalent_gops, 'OP/s')} dense-equivalent, of "
        f"{_scaled(1e9 * speed.peak_gops, 'OP/s')} peak; {_scaled(result.counts.dram_bytes, 'B')} of DRAM traffic\n"
    )


def _passes(result: SimResult, report: EnergyReport) -> Table:
    from .analysis.records import pass_records

    total, peak = result.cycles.total, result.spec.macs_per_cycle
    rows = [
        (
            str(p), f"{r['cycles']:,}", _share(r["cycles"], total), f"{r['macs']:,}",
            _share(r["macs"], r["cycles"] * peak), _scaled(r["energy_j"], "J"),
        )
        for p, r in pass_records(result, report).items()
    ]  # fmt: skip
    rows.append(
        (
            "step", f"{total:,}", "", f"{result.counts.macs:,}", _share(result.counts.macs, total * peak),
            _scaled(report.joules, "J"),
        )
    )  # fmt: skip
    return _table("By pass", ("pass", "cycles", "share", "MACs", "utilisation", "energy"), rows)


def _causes(result: SimResult) -> Table:
    cycles = result.cycles
    found = [(cause, getattr(cycles, cause)) for cause in _CAUSES]
    rows = [(cause.replace("_", " "), _CAUSES[cause], f"{n:,}", _share(n, cycles.total)) for cause, n in found if n]
    return _table("By cause", ("cause", "", "cycles", "share"), rows, left=2)


def _slowest(result: SimResult) -> Table:
    from .analysis.layer_groups import short_labels
    from .analysis.records import CAUSES, layer_of

    spent: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for op in result.ops:
        layer = spent[layer_of(op)]
        layer[str(op.op.pass_)] += op.cycles.total
        layer["all"] += op.cycles.total
        for cause in CAUSES:
            layer[cause] += getattr(op.cycles, cause)
    rows = []
    worst_first = sorted(spent.items(), key=lambda item: -item[1]["all"])[:_SLOWEST]
    labels = dict(zip(spent, short_labels(list(spent), longest=33), strict=True))
    for name, of in worst_first:
        worst = max(CAUSES, key=lambda cause: of[cause])
        passes = (_share(of[p], of["all"]) if of[p] else "" for p in ("FF", "BP", "WU", "OPT"))
        rows.append(
            (labels[name], worst.replace("_", " "), f"{of['all']:,}", _share(of["all"], result.cycles.total), *passes)
        )
    title = f"Slowest layers ({min(_SLOWEST, len(spent))} of {len(spent)})"
    return _table(title, ("layer", "mostly", "cycles", "share", "FF", "BP", "WU", "OPT"), rows, left=2)


def _show_dense_layers(console: Console, result: SimResult) -> None:
    from .analysis.records import dense_layers

    names: dict[str, list[str]] = defaultdict(list)
    for layer in dense_layers(result):
        names[layer["reason"]].append(layer["name"])
    if not names:
        return
    console.print("Kept dense", style="bold")
    for reason, layers in names.items():
        more = f" and {len(layers) - _NAMED} more" if len(layers) > _NAMED else ""
        console.print(f"  {reason}: {', '.join(layers[:_NAMED])}{more}")
    console.print()


def _show_energy(console: Console, report: EnergyReport) -> None:
    parts = sorted(report.by_component.items(), key=lambda item: -item[1])
    shares = ", ".join(f"{part} {_share(joules, report.joules)}" for part, joules in parts if joules)
    console.print("Energy", style="bold")
    console.print(f"  {shares}")
    console.print(f"  table {report.table.name}: {report.table.title}")
    for left_out in report.table.not_counted:
        console.print(f"  not counted: {left_out}")


def show_comparison(comparison: Comparison, ledgers: dict[str, LossLedger], digest: str) -> None:
    """Schemes side by side, and where the distance to their promise goes."""
    console, first = _console(), comparison.baseline
    work = first.workload
    console.print(
        f"{work.model}, batch {work.batch}, input {work.input or '-'}, on {first.spec.name} ({digest}), "
        f"least {first.objective}",
        style="bold",
    )
    rows = [
        (
            r.scheme, r.pattern or "", _scaled(r.seconds, "s"), _rate(r.samples_per_s), f"{r.speedup:.3f}x",
            f"{r.mac_speedup:.2f}x", f"{r.ideal_speedup:.2f}x", f"{100 * r.utilization:.1f} %",
            _scaled(r.energy_j, "J"),
        )
        for r in comparison.rows
    ]  # fmt: skip
    columns = ("scheme", "N:M", "step", "samples/s", "speed-up", "by MACs", "ideal", "utilis.", "energy")
    console.print(_table("", columns, rows, left=2))
    if ledgers:
        console.print(_ledger(ledgers, first.cycles.total))
        console.print(
            "Ideal: had every GEMM of a thinned-out pass the pattern's density, at peak, with nothing else to do."
        )


def _ledger(ledgers: dict[str, LossLedger], dense_cycles: int) -> Table:
    items: dict[str, dict[str, float]] = defaultdict(dict)
    # The longest first: the others only leave items out.
    for name, ledger in sorted(ledgers.items(), key=lambda pair: -len(pair[1].rows)):
        for row in ledger.rows:
            items[row.item][name] = float(row.cycles)
            items[row.item]["dense"] = float(row.dense_cycles)
    names = ["dense", *ledgers]
    rows = [
        (item, *(_share(of.get(name, 0.0), dense_cycles) for name in names))
        for item, of in items.items()
        if max(of.values()) >= _SHOWN_SHARE * dense_cycles
    ]
    sums = (sum(of.get(name, 0.0) for of in items.values()) for name in names)
    rows.append(("step", *(_share(total, dense_cycles) for total in sums)))
    return _table("Where the cycles go, in shares of the dense step", ("item", *names), rows)


def show_product(product: Product, level: str) -> None:
    g, spec, cycles, mapping = product.gemm, product.spec, product.cycles, product.mapping
    console = _console()
    what = f", {product.sparse} in {product.n2s.upper()}" if product.sparse else ""
    console.print(f"{g}{what} on {spec.name}, {spec.array.rows} x {spec.array.cols}, memory unlimited")
    console.print(
        f"{cycles.total:,} cycles   utilisation {100 * product.utilization:.1f} %   dataflow {product.dataflow}, "
        f"interleave {mapping.interleave}, executed {mapping.pattern}",
        style="bold",
    )
    names = ("compute", "interleave_stall", "port_stall", "fill_drain")
    rows = [(n.replace("_", " "), _CAUSES[n], f"{getattr(cycles, n):,}") for n in names]
    console.print(_table("", ("cause", "", "cycles"), rows, left=2))
    if level == "cycle":
        console.print(
            "Stepped on random operands: result equal to the k-order reference bit for bit, cycles to the closed form."
        )


def show_scalesim(document: dict[str, Any]) -> None:
    d = document
    console = _console()
    console.print(
        f"{d['m']} x {d['k']} x {d['n']} on {d['rows']} x {d['cols']}, {d['dataflow']}, as SCALE-Sim v3 counts it"
    )
    console.print(f"{d['cycles']:,} cycles", style="bold")
