"""What the command line shows to people: tables on stdout, progress on stderr."""

from __future__ import annotations

import shlex
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

if TYPE_CHECKING:
    from ._verilog import EmittedBlock
    from .analysis.area import Area
    from .analysis.compare import Comparison, LossLedger
    from .analysis.energy import EnergyReport
    from .analysis.explain import EnergyExplanation
    from .analysis.product import Product
    from .analysis.study import Study, StudyRow
    from .analysis.throughput import Throughput
    from .dataflow.accelerator import AcceleratorSpec
    from .hdl.build import Routed, Synthesis
    from .simulator.dram import MemoryRun
    from .simulator.result import SimResult
    from .simulator.system import SystemResult
    from .verify import Verification
    from .verify_step import Distance, StepVerification
    from .workloads.models.zoo import ZooModel
    from .workloads.step import Workload
    from .workloads.training import TrainResult

__all__ = [
    "announce", "bar", "phases", "show_archs", "show_area", "show_comparison", "show_energy_explanation",
    "show_memory", "show_models",
    "show_product", "show_run", "show_scalesim", "show_step_verification", "show_synthesis", "show_study",
    "show_system",
    "show_training", "show_verilog", "show_workload",
]  # fmt: skip

_WIDTH = 100
_SLOWEST = 10
_EPOCHS_SHOWN = 12
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
    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(what, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


def show_training(result: TrainResult) -> None:
    """The log, thinned out to a screen, and what came of it."""
    spec, last = result.spec, result.log[-1]
    every = -(-len(result.log) // _EPOCHS_SHOWN)
    shown = [row for row in result.log if row.epoch % every == 0 or row is last]
    rows = [
        (
            str(row.epoch), f"{row.loss:.4f}", f"{100 * row.train_accuracy:.2f} %", f"{row.test_loss:.4f}",
            f"{100 * row.test_accuracy:.2f} %", f"{row.learning_rate:.2g}", f"{100 * row.flip_rate:.3f} %",
            f"{row.seconds:.2f}",
        )
        for row in shown
    ]  # fmt: skip
    under = spec.scheme if spec.pattern is None else f"{spec.scheme} {spec.pattern}"
    title = f"{spec.model} on {spec.data}, {under}, seed {spec.seed}"
    columns = ("epoch", "loss", "train", "test loss", "test", "rate", "flips", "s")
    console = _console()
    console.print(_table(title, columns, rows))
    console.print(
        f"{100 * result.accuracy:.2f} % of the test images right after {last.step:,} steps in {result.seconds:.1f} s "
        f"({result.device}); density FF {last.density_ff:.3g}, BP {last.density_bp:.3g}, WU {last.density_wu:.3g}."
    )
    if result.kept_dense:
        console.print("Kept dense: " + "; ".join(f"{name}: {why}" for name, why in result.kept_dense.items()) + ".")
    if result.folder is not None:
        console.print(f"Checkpoint and log: {result.folder}")


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


def show_memory(run: MemoryRun, source: str, order: str) -> None:
    """The bandwidth first, then what made it."""
    import numpy as np

    console, latency = _console(), run.latency_ns
    peak = run.memory.organization.bytes_per_second
    console.print(f"{run.memory.title}; {source}, {len(run.requests):,} requests, map {order}", style="bold")
    console.print(
        f"{run.bytes_per_second / 1e9:.2f} GB/s, {100 * float(run.share_of_peak):.1f} % of {peak / 1e9:g} GB/s; "
        f"{run.pj_per_bit:.2f} pJ/bit (devices only)"
    )
    waits = [("entry to end of data", latency)]
    if run.requests.time.any():
        waits.append(("before the entry", run.wait_ns))
    rows = [(name, *(f"{v:,.1f}" for v in (w.mean(), *np.percentile(w, (50, 95, 99)), w.max()))) for name, w in waits]
    console.print(_table("Latency, ns", ("from", "mean", "50 %", "95 %", "99 %", "longest"), rows))
    commands = (
        ("reads", run.reads), ("writes", run.writes), ("activates", run.activates), ("precharges", run.precharges),
        ("refreshes", run.refreshes), ("reads answered by queued writes", run.forwarded),
        ("writes merged with queued ones", run.merged),
    )  # fmt: skip
    console.print(_table("", ("commands", "number"), [(name, f"{n:,}") for name, n in commands]))
    console.print(f"{100 * run.row_hit_share:.1f} % of reads and writes found their row open.")


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
    _show_measured(console, result)
    _show_energy(console, report)


_WAITS = {
    "busy": "busy", "fill_drain": "fill, drain", "dram": "DRAM", "sore": "SORE", "dependency": "earlier op",
    "idle": "idle",
}  # fmt: skip


def show_system(result: SystemResult, digest: str, timeline: Path | None) -> None:
    """The verdict with ops overlapped, what that saves, and what every engine did or waited for."""
    from .analysis.energy import energy
    from .analysis.system import system_throughput, use_shares

    console, step, report = _console(), result.step, energy(result.step)
    _show_verdict(console, step, report, digest, system_throughput(result))
    saved = 1 - result.cycles / step.cycles.total
    console.print(
        f"{result.cycles:,} cycles with ops overlapped, {100 * saved:.1f} % fewer than the {step.cycles.total:,} that "
        "they take one after the other"
    )
    rows = [
        (name, *(f"{100 * share:.1f} %" if share else "" for share in use_shares(use).values()))
        for name, use in result.engines.items()
    ]
    console.print(_table("Engines: busy, or waiting for", ("engine", *_WAITS.values()), rows))
    need, capacity = result.memory, step.spec.dram.capacity_bytes
    parts = [(name.replace("_", " "), _scaled(size, "B")) for name, size in asdict(need).items() if size]
    console.print(
        _table("DRAM at the peak of the step, at most", ("kind", "bytes"), [*parts, ("all", _scaled(need.total, "B"))])
    )
    if capacity is not None:
        console.print(f"{_share(need.total, capacity)} of the {_scaled(capacity, 'B')} there are.")
    _show_dense_layers(console, step)
    _show_energy(console, report)
    if timeline is not None:
        console.print(f"Timeline: {timeline} (open it at https://ui.perfetto.dev)")


def _show_verdict(
    console: Console, result: SimResult, report: EnergyReport, digest: str, speed: Throughput | None = None
) -> None:
    from .analysis.throughput import throughput

    speed = speed or throughput(result)
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


def _show_measured(console: Console, result: SimResult) -> None:
    from .analysis.records import measured_means

    means = measured_means(result)
    if not means:
        return
    densities = ", ".join(f"{p} {means[p]:.3g}" for p in ("FF", "BP", "WU") if p in means)
    console.print("Measured in training", style="bold")
    changes = [(means.get("sad"), "since the first step"), (means.get("flip_rate"), "in the last one")]
    said = [f"{100 * share:.3g} % {when}" for share, when in changes if share is not None]
    console.print(f"  density {densities or '-'}; masks changed: {', '.join(said) or '-'}")
    console.print("  A kept element that is zero is issued all the same, so none of this changes the cycles.\n")


def _show_energy(console: Console, report: EnergyReport) -> None:
    parts = sorted(report.by_component.items(), key=lambda item: -item[1])
    shares = ", ".join(f"{part} {_share(joules, report.joules)}" for part, joules in parts if joules)
    console.print("Energy", style="bold")
    console.print(f"  {shares}")
    console.print(f"  table {report.table.name}: {report.table.title}")
    console.print(f"  scaling: {report.table.scaling}")
    for left_out in report.table.not_counted:
        console.print(f"  not counted: {left_out}")


def show_energy_explanation(found: EnergyExplanation) -> None:
    """Every kind of action by its share, the sources under the table, and what rests on which mark."""
    console, report = _console(), found.report
    of = f", {found.op}: {_share(report.joules, found.step_joules)} of the step" if found.op else ""
    console.print(f"{_scaled(report.joules, 'J')} a step{of}", style="bold")
    console.print(_heading(found.result.workload))
    console.print(f"on {found.result.spec.name}, table {report.table.name}: {report.table.title}\n")
    rows = [
        (
            str(i), str(row.component), str(row.action), f"{row.count:,}", f"{row.constant_pj:.4g}",
            "" if row.scaling == 1 else f"{row.scaling:.4g}", _scaled(row.joules, "J"),
            _share(row.joules, report.joules), str(row.mark),
        )
        for i, row in enumerate(found.rows, 1)
    ]  # fmt: skip
    names = ("", "part", "action", "count", "pJ", "x", "energy", "share", "mark")
    console.print(_table("Count x constant x scaling", names, rows, left=3))
    sources: dict[str, list[str]] = defaultdict(list)
    for i, row in enumerate(found.rows, 1):
        sources[row.source].append(str(i))
    console.print("Sources", style="bold")
    for source, numbers in sources.items():
        console.print(f"  {', '.join(numbers)}: {source}")
    marks = [(str(m), _scaled(j, "J"), _share(j, report.joules)) for m, j in report.by_mark.items() if j]
    console.print(_table("Rests on figures that are", ("mark", "energy", "share"), marks))
    console.print(f"Sum of the rows: {report.zeptojoules:,} zJ, to the last one the energy reported.")
    for note in found.notes:
        console.print(f"  {note}")


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


def show_study(study: Study, folder: Path) -> None:
    """A table a model: accuracy, what it costs on the machine, and the two together."""
    spec, console = study.spec, _console()
    console.print(
        f"{spec.data}, {spec.seeds} seeds a row, on {spec.machine.name}; "
        f"target: dense minus {100 * spec.below:g} points",
        style="bold",
    )
    for model in spec.models:
        rows = [row for row in study.rows if row.model == model]
        console.print(_table(model, _STUDY_COLUMNS, [_study_row(row) for row in rows], left=2))
        for row in rows:
            name = f"{row.scheme} {row.pattern or ''}".strip()
            for seed, why in row.failed.items():
                console.print(f"{name}, seed {seed}, not trained: {why}")
            if row.unplaced:
                console.print(f"{name}, not on this machine: {row.unplaced}")
    console.print(f"Tables, pictures and trainings: {folder}")


_STUDY_COLUMNS = (
    "scheme", "N:M", "accuracy %", "loss", "cycles", "energy", "speed-up", "reached", "to target", "speed-up",
)  # fmt: skip


def _study_row(row: StudyRow) -> tuple[str, ...]:
    def spread(mean: float | None, deviation: float | None) -> str:
        if mean is None:
            return "-"
        return f"{100 * mean:.2f}" + ("" if deviation is None else f" +-{100 * deviation:.2f}")

    def times(speedup: float | None) -> str:
        return "-" if speedup is None else f"{speedup:.2f}x"

    return (
        row.scheme, row.pattern or "", spread(row.accuracy, row.accuracy_sd), spread(row.loss, row.loss_sd),
        "-" if row.cycles is None else f"{row.cycles:,.0f}", "-" if row.joules is None else _scaled(row.joules, "J"),
        times(row.speedup), f"{row.reached}/{row.seeds}",
        "-" if row.seconds_to_target is None else _scaled(row.seconds_to_target, "s"), times(row.time_speedup),
    )  # fmt: skip


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


def show_verilog(spec: AcceleratorSpec, digest: str, blocks: Sequence[EmittedBlock], path: str) -> None:
    console = _console()
    console.print(f"{spec.name} ({digest}), {spec.array.rows} x {spec.array.cols}", style="bold")
    rows = [
        (f"{b.name}.v" if i == 0 else "", m.name, f"{m.lines:,}")
        for b in blocks
        for i, m in enumerate(b.design.modules)
    ]
    console.print(_table("", ("file", "module", "lines"), rows, left=2))
    vectors = sum(len(block.bench) - 1 for block in blocks)
    console.print(
        f"{', '.join(f'{b.name}_tb.v' for b in blocks)} with {vectors} files of vectors, and README.txt in {path}"
    )
    console.print("Run a bench with one of:")
    for command in list(blocks[0].commands.values())[:3]:
        console.out(f"  cd {shlex.quote(path)} && {command}", highlight=False)


def announce(text: str) -> None:
    """Say something before long work, on stderr."""
    Console(stderr=True, highlight=False, markup=False, emoji=False).print(text)


def show_verification(found: Verification, digest: str) -> None:
    """Every case, and of the first that differs where and how."""
    console = _console()
    console.print(f"Simulator and RTL of {found.spec.name} ({digest}), seed {found.seed}", style="bold")
    rows = [
        (
            str(i), c.block, c.sizes, c.mapping, f"{c.words:,}", f"{c.simulator_cycles:,}",
            "-" if c.rtl_cycles is None else f"{c.rtl_cycles:,}", "yes" if c.equal else "NO",
        )
        for i, c in enumerate(found.cases)
    ]  # fmt: skip
    names = ("case", "block", "sizes", "mapping", "words", "cycles", "RTL", "equal")
    console.print(_table("", names, rows, left=4))
    wrong = next(((i, c.difference) for i, c in enumerate(found.cases) if c.difference is not None), None)
    if wrong is None:
        console.print(
            f"Equal: {found.words:,} words in {len(found.cases)} cases, every bit and the cycle each leaves in."
        )
        return
    number, difference = wrong
    console.print(f"Case {number} differs, seed {found.seed}: {difference.signal}", style="bold")
    if difference.cycle is not None:
        console.print(f"  cycle {difference.cycle}: simulator {difference.simulator}, RTL {difference.rtl}")


def show_step_verification(found: StepVerification, digest: str) -> None:
    """Every GEMM of the step, the distance of its results to PyTorch's, and the first difference."""
    from .workloads.gemm import GEMM_PASSES

    console = _console()
    scheme = " ".join(str(part) for part in (found.scheme, found.pattern) if part is not None)
    console.print(
        f"{found.model}, {scheme}, on {found.spec.name} ({digest}): step {found.step} of {found.steps}, "
        f"seed {found.seed}",
        style="bold",
    )
    console.print(f"batch {found.batch}, loss {found.loss:.4f}, loss scale {found.loss_scale:g}, FP16 operands")
    on_rtl = found.rtl_words > 0
    rows = [
        (
            c.layer, str(c.pass_), str(c.gemm), f"{c.pattern} {c.sparse}" if c.pattern else "dense",
            str(c.mapping.dataflow), f"{100 * c.kept:.1f} %", _of(c.words, c.all_words), f"{c.cycles:,}",
            *((f"{c.rtl_words:,}",) if on_rtl else ()), "yes" if c.equal else "NO",
        )
        for c in found.checks
    ]  # fmt: skip
    names = ("layer", "pass", "GEMM", "N:M", "flow", "kept", "words", "cycles", *(("RTL",) if on_rtl else ()), "equal")
    console.print(_table("", names, rows, left=5))
    near = [
        (name, *_distance(found.distance("fp32", *passes)), *_distance(found.distance("fp16", *passes))[1:])
        for name, passes in (*((str(p), (p,)) for p in GEMM_PASSES), ("all", ()))
    ]
    title = "Distance to PyTorch's results in units in the last place"
    heads = ("", "words", "FP32 exact", "mean", "most", "FP16 exact", "mean", "most")
    console.print(_table(title, heads, near))
    if found.words < found.all_words:
        console.print(
            f"Sampled: {found.words:,} of {found.all_words:,} words, each over its whole contraction; "
            "GEMMs of more than 2e9 PE-cycles run in part and are not compared with PyTorch."
        )
    for layer, why in found.left_out.items():
        console.print(f"Not run: {layer} ({why})")
    wrong = next((c for c in found.checks if c.mismatch is not None), None)
    if wrong is None or wrong.mismatch is None:
        rtl = f"; {found.rtl_words:,} words, each with its cycle, with the RTL" if on_rtl else ""
        console.print(
            f"Equal: {found.words:,} words in {len(found.checks)} GEMMs with the k-order FP32 reference, "
            f"{found.cycles:,} cycles with the closed form{rtl}."
        )
        return
    found_first = wrong.mismatch
    where = f"[{', '.join(map(str, found_first.index))}]" if found_first.index else ""
    console.print(f"{wrong.layer} {wrong.pass_} differs: {found_first.what} {where}".rstrip(), style="bold")
    console.print(f"  expected {found_first.expected}, found {found_first.found}")


def _of(part: int, whole: int) -> str:
    return f"{part:,}" if part == whole else f"{part:,} of {whole:,}"


def _distance(found: Distance | None) -> tuple[str, str, str, str]:
    if found is None:
        return ("-", "-", "-", "-")
    share = f"{100 * found.exact / found.words:.3f} %"
    return (f"{found.words:,}", share, f"{found.mean:.2g}", f"{found.most:,}")


_COUNTED = ("lut", "memory_lut", "carry", "ff", "dsp", "bram", "uram")


def show_synthesis(spec: AcceleratorSpec, made: Synthesis, routed: Routed | None, path: Path | None) -> None:
    from .hdl.build import DEVICES

    device, total = DEVICES[made.target], made.total
    console = _console()
    console.print(f"{made.block} of {spec.name} on {device.name}, counted by {made.tools}", style="bold")
    rows = [(b.name, f"{b.count:,}", *(f"{getattr(b.each, name):,}" for name in _COUNTED)) for b in made.blocks]
    rows.append(("all", "", *(f"{getattr(total, name):,}" for name in _COUNTED)))
    console.print(_table("", ("each", "count", *(name.replace("_", " ") for name in _COUNTED)), rows))
    sites = device.sites(total)
    console.print(f"{sites:,} of {device.has.lut:,} LUT sites ({100 * sites / device.has.lut:.1f} %)")
    if routed is not None:
        critical = routed.critical
        console.print(f"{routed.mhz:.1f} MHz placed and routed (asked for {routed.asked_mhz})", style="bold")
        console.print(
            f"critical path {critical.ns:.1f} ns ({critical.logic_ns:.1f} logic, {critical.routing_ns:.1f} routing): "
            f"{critical.source} to {critical.sink}"
        )
        if critical.through:
            console.print(f"  by way of {', '.join(critical.through)}")
        harness = routed.harness
        console.print(
            f"The registers that stand for its surroundings take {harness.lut:,} LUT and {harness.ff:,} FF more."
        )
    if path is not None:
        console.print(f"Written to {path}")


def show_area(area: Area) -> None:
    console = _console()
    console.print(f"{area.machine} on {area.device}, counted by {area.tools}", style="bold")
    names = tuple(area.has)
    rows = [
        (item.block, item.name, f"{item.count:,}", *(f"{getattr(item, name):,}" for name in names))
        for item in area.items
    ]
    rows.append(("all", "", "", *(f"{area.total[name]:,}" for name in names)))
    rows.append((area.device, "", "", *(f"{area.has[name]:,}" for name in names)))
    rows.append(("share", "", "", *(_share(area.total[name], area.has[name]) for name in names)))
    console.print(_table("", ("block", "each", "count", *(name.replace("_", " ") for name in names)), rows, left=2))
    console.print(
        "Yosys' counts, not Vivado's; buffers by capacity; DMA, memory controller and vector unit are not there."
    )
