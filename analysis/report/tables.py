"""The tables of the page: of runs, of causes, of every op, of constants and their sources."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from ...dataflow.account import Counts
from ...dataflow.outside import OutsideMapping
from ...simulator.dram_spec import load_memory, memory_names
from ...simulator.result import OpResult
from ...workloads.gemm import Pass
from ..compare import LossLedger
from ..declared import columns as columns_of
from ..declared import counts_kind
from ..dram_time import DramData
from ..op_groups import op_word
from ..published import published_machines
from ..records import op_records
from ..roofline import group_point
from ..savings import Saving, range_words
from ..study_rows import StudyRow, row_name
from ..system import WAITS, use_shares
from ..tensor_energy import part_words, sums_of_parts
from ..words import percents, percents_of, time_unit
from .data import RunData
from .folder import Run
from .levers import Levers
from .markup import Html
from .parts import data_table

__all__ = [
    "OPS_WORDS",
    "causes_table",
    "constants_table",
    "cycles_table",
    "energy_table",
    "engines_table",
    "ledger_table",
    "levers_table",
    "machine_table",
    "mapping_words",
    "memory_need_table",
    "moved_table",
    "memory_table",
    "ops_table",
    "passes_table",
    "published_table",
    "runs_table",
    "study_table",
    "wait_name",
]

WAIT_NAMES = {
    "busy": "works",
    "fill_drain": "fill and drain",
    "dram": "waits for DRAM",
    "sore": "waits for compression",
    "dependency": "waits for another op",
    "idle": "nothing to do",
}
"""What engines do, in words; others go by their own name."""


def _share(part: float, whole: float) -> str:
    return f"{100 * part / whole:.1f}" if whole else ""


def _times(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def runs_table(rows: Sequence[tuple[Run, float | None, float | None, Saving | None]], caption: str) -> Html:
    """``rows``: a run, its speed-up over the baseline, the one it promises, and the energy it saves."""
    length, unit = time_unit(max(run.seconds for run, *_ in rows))
    columns = (
        "run",
        "machine",
        "level",
        f"step, {unit}",
        "cycles",
        "samples/s",
        "speed-up",
        "promised",
        "kept MAC, %",
        "of peak, %",
        "energy, J",
        "energy saved, % (band)",
        "DRAM, GB",
    )
    return data_table(caption, columns, [_run_row(*row, length) for row in rows], text=3)


def _run_row(
    run: Run, speedup: float | None, ideal: float | None, saved: Saving | None, length: float
) -> tuple[str, ...]:
    result = run.result
    counts = result.counts
    return (
        run.name,
        result.spec.name,
        "step" if run.system is None else "system",
        f"{run.seconds / length:,.4g}",
        f"{run.cycles:,}",
        f"{result.workload.batch / run.seconds:,.1f}",
        _times(speedup),
        _times(ideal),
        _share(counts.macs, result.dense_macs),
        _share(float(result.ideal_cycles(result.ops)), run.cycles),
        f"{run.energy.joules:.4g}",
        "" if saved is None else f"{100 * saved.share:.1f} ({range_words(saved)})",
        f"{counts.dram_bytes / 1e9:,.3f}",
    )


def causes_table(datas: Sequence[RunData]) -> Html:
    """Cycles by cause, a column a run."""
    shares = [percents_of(d.causes) for d in datas]
    rows = [
        (name, *(cell for d, share in zip(datas, shares, strict=True) for cell in (f"{d.causes[c]:,}", share[c])))
        for c, name in datas[0].names.items()
    ]
    rows.append(("all", *(cell for d in datas for cell in (f"{sum(d.causes.values()):,}", "100.0"))))
    columns = ["cause", *(name for d in datas for name in (f"{d.run.name}: cycles", "%"))]
    return data_table("Cycles by cause, ops one after the other", columns, rows)


def ledger_table(name: str, ledger: LossLedger) -> Html:
    """Where the distance between promise and step goes."""
    every, base = (sum(float(getattr(r, f)) for r in ledger.rows) for f in ("cycles", "dense_cycles"))
    shares = percents(r.cycles for r in ledger.rows)
    rows = [
        (
            r.item,
            f"{float(r.cycles):,.0f}",
            share,
            f"{float(r.dense_cycles):,.0f}",
            f"{float(r.cycles - r.dense_cycles):+,.0f}",
        )
        for r, share in zip(ledger.rows, shares, strict=True)
    ]
    rows.append(("all", f"{every:,.0f}", "100.0", f"{base:,.0f}", f"{every - base:+,.0f}"))
    caption = (
        f"{name}: {ledger.speedup:.2f} times as fast as dense op after op, {ledger.ideal_speedup:.2f} promised; "
        "where the cycles go"
    )
    return data_table(caption, ("item", "cycles", "%", "dense cycles", "difference"), rows)


def cycles_table(caption: str, names: dict[str, str], rows: Sequence[tuple[str, dict[str, int]]]) -> Html:
    """Cycles by cause of passes or layers; ``names``: the words of causes."""
    shares = percents(sum(causes.values()) for _, causes in rows)
    cells = [
        (name, f"{sum(causes.values()):,}", share, *(f"{causes[c]:,}" for c in names))
        for (name, causes), share in zip(rows, shares, strict=True)
    ]
    return data_table(caption, ("", "cycles", "%", *names.values()), cells)


def passes_table(data: RunData) -> Html:
    return cycles_table("Cycles by pass and cause", data.names, [(str(p), causes) for p, causes in data.passes.items()])


def energy_table(data: RunData) -> Html:
    """Joules by tensor and part of the machine, and by pass."""
    report, sums = data.run.energy, sums_of_parts(data.energy.values())
    shares = percents_of(sums)
    rows = [
        (
            part_words(part),
            *(f"{data.energy[p].get(part, 0) / 1e18:,.3f}" for p in Pass),
            f"{spent / 1e18:,.3f}",
            shares[part],
        )
        for part, spent in sums.items()
    ]
    rows.append(("all", *(f"{report.by_pass[p] * 1e3:,.3f}" for p in Pass), f"{report.joules * 1e3:,.3f}", "100.0"))
    return data_table("Energy by tensor, part and pass, mJ", ("part", *map(str, Pass), "all", "%"), rows)


def moved_table(dram: DramData) -> Html:
    """DRAM bytes by who asks for them and pass."""
    rows = [
        (name, *(f"{by[p] / 1e6:,.3f}" for p in Pass), f"{sum(by.values()) / 1e6:,.3f}")
        for name, by in dram.asked.items()
        if any(by.values())
    ]
    every = {p: sum(by[p] for by in dram.asked.values()) for p in Pass}
    rows.append(("all", *(f"{n / 1e6:,.3f}" for n in every.values()), f"{sum(every.values()) / 1e6:,.3f}"))
    return data_table("DRAM traffic by who asks for it and pass, MB", ("", *map(str, Pass), "all"), rows)


def engines_table(run: Run) -> Html:
    """Shares of the step by what every engine did."""
    assert run.system is not None
    rows = [(name, *percents(use_shares(use).values())) for name, use in run.system.engines.items()]
    return data_table("What every engine did or waited for, % of the step", ("engine", *map(wait_name, WAITS)), rows)


def wait_name(wait: str) -> str:
    return WAIT_NAMES.get(wait, wait.replace("_", " "))


def memory_need_table(run: Run) -> Html:
    """DRAM at the peak of the step."""
    assert run.system is not None
    need = run.system.memory
    rows = [(kind, f"{size / 1e6:,.1f}") for kind, size in need.parts.items()]
    rows.append(("all", f"{need.total / 1e6:,.1f}"))
    return data_table(need.words, ("kind", "MB"), rows)


def levers_table(run: Run, levers: Levers) -> Html:
    """What a better machine would bring, simulated."""
    rows = [(lever.change, f"{lever.cycles:,}", f"{levers.gain(lever):.3f}") for lever in levers.changes]
    caption = f"{run.label} on better machines, scheduled and simulated anew; as it is, {levers.cycles:,} cycles"
    return data_table(caption, ("change", "cycles", "times as fast"), rows)


_PLACED = ("layers", "op", "pass", "GEMM m x k x n", "N:M", "dataflow", "tile", "order")
_REACHED = ("of peak, %", "bound, %", "DRAM, MB", "MAC/byte", "GMAC/s")
OPS_WORDS = len(_PLACED)
"""Columns from the left of `ops_table` that are words."""


def ops_table(data: RunData) -> Html:
    """Ops that are alike as one, products and what loses most first: mapping, cycles by cause, bytes, joules."""
    run, result = data.run, data.run.result
    # Multiply-accumulates and bytes are there in other words; what other engines count is shown as it is called.
    own = [name for name in columns_of(counts_kind(result.ops)) if name not in columns_of(Counts)]
    records, spent = op_records(result, run.energy), run.energy.op_zeptojoules
    rows = []
    for group in data.groups:
        record, cycles, point = records[group.numbers[0]], group.cycles.total, group_point(result, group)
        bound = sum(r.bound_cycles for r in group.ops)
        rows.append(
            (
                group.label,
                op_word(group.first),
                str(group.pass_),
                *_mapping(record)[:-1],
                str(len(group.ops)),
                _mapping(record)[-1],
                f"{cycles:,}",
                f"{float(group.lost):,.0f}",
                *(f"{getattr(group.cycles, c, 0):,}" for c in data.names),
                _share(float(cycles - group.lost), cycles) if group.is_matrix else "",
                _share(bound, cycles) if group.is_matrix else "",
                f"{group.counts.dram_bytes / 1e6:,.3f}",
                "" if point is None or point.intensity == float("inf") else f"{point.intensity:,.1f}",
                "" if point is None else f"{point.gmacs:,.1f}",
                *(f"{getattr(group.counts, name, 0):,}" for name in own),
                f"{sum(spent[number] for number in group.numbers) / 1e18:,.3f}",
            )
        )
    columns = (*_PLACED, "ops", "interleave", "cycles", "lost", *data.names.values(), *_REACHED, *own, "energy, mJ")
    caption = f"Schedule of {run.label}: ops that are alike as one; every op by itself is in ops.csv"
    return data_table(caption, columns, rows, text=OPS_WORDS, class_="long named")


def mapping_words(r: OpResult) -> str:
    """How one op is placed, in a line."""
    if r.mapping is None:
        return ""
    m = r.mapping
    held = "resident" if m.resident else "streamed"
    array = m.array
    way = (
        array.engine
        if isinstance(array, OutsideMapping)
        else f"{array.dataflow} {array.pattern}, interleave {array.interleave}"
    )
    return f"{way}, tile {m.tile_rows} x {m.tile_cols} {held}{_kept(m.compact)}"


def _kept(compact: object) -> str:
    """Where an operand that SORE reduced waits to be read again."""
    return "" if compact in (None, "remade") else f", compact copy in {compact}"


def _mapping(record: dict[str, object]) -> tuple[str, ...]:
    """Product, pattern, dataflow, tile, order and interleave; nothing of work that is no product, nor of a
    place on another engine than the array."""
    if record["m"] is None:
        return ("",) * 6
    groups = f" x {record['groups']} groups" if record["groups"] != 1 else ""
    product = f"{record['m']} x {record['k']} x {record['n']}{groups}", str(record["pattern"] or "dense")
    if record["dataflow"] is None:
        return (*product, "", "", "", "")
    held = (" resident" if record["resident"] else " streamed") + _kept(record["compact"])
    return (
        *product,
        f"{record['dataflow']}, {record['n2s']} north" + (", as asked" if record.get("constraint") else ""),
        f"{record['tile_rows']} x {record['tile_cols']}{held}",
        str(record["order"]),
        str(record["interleave"]),
    )


def constants_table(run: Run) -> Html:
    """Every constant that energy rests on, with what it weighs."""
    report = run.energy
    largest = sorted(report.rows, key=lambda row: -row.zeptojoules)
    rows = [
        (
            str(row.action),
            str(row.component),
            str(row.mark),
            row.source,
            f"{row.pj_each:.4g} / {row.unit}",
            f"{row.count:,}",
            f"{row.joules * 1e3:,.3f}",
            share,
        )
        for row, share in zip(largest, percents(row.zeptojoules for row in largest), strict=True)
    ]
    columns = ("action", "part", "mark", "source", "pJ each", "count", "mJ", "%")
    return data_table(f"Energy of {run.label}: constants of table {report.table.name}", columns, rows, text=5)


def published_table() -> Html:
    """Machines that others built, beside whose energy ours is printed."""
    rows = [
        (m.name, m.node, m.format, m.counts, str(m.mark), m.source, f"{m.gflops_per_watt:,.4g}", f"{m.pj_per_mac:.3g}")
        for m in published_machines()
    ]
    columns = ("machine", "node", "format", "what is in it", "mark", "source", "GFLOP/s/W", "pJ a multiply-accumulate")
    return data_table("Published machines; two operations are one multiply-accumulate", columns, rows, text=6)


def memory_table(kind: str) -> Html | None:
    """Where the figures of a memory come from; None of one that is a rate and a name only."""
    if kind not in memory_names() and not kind.endswith(".toml"):
        return None
    memory = load_memory(kind)
    rows = [(str(p.mark), p.source, ", ".join(p.of)) for p in memory.provenance]
    return data_table(f"Memory {kind}: {memory.title}", ("mark", "source", "figures"), rows, text=3)


def machine_table(run: Run) -> Html:
    """Every choice of the machine."""
    spec = run.result.spec
    rows = [
        (f"{name}.{key}" if isinstance(value, dict) else name, str(inner))
        for name, value in asdict(spec).items()
        if name not in ("name", "description")
        for key, inner in (value.items() if isinstance(value, dict) else [("", value)])
        if inner is not None
    ]
    return data_table(f"Machine {spec.name}", ("choice", "value"), rows)


def study_table(model: str, rows: Sequence[StudyRow]) -> Html:
    """Accuracy beside cost, a row a scheme."""
    target = next((row.target for row in rows if row.target is not None), None)
    named = "" if target is None else f"; target {100 * target:.2f} %"
    columns = (
        "scheme",
        "validation, %",
        "test, %",
        "+-",
        "loss, points",
        "cycles a step",
        "µJ a step",
        "speed-up",
        "reached",
        "steps to target",
        "s to target",
        "speed-up to target",
    )
    return data_table(f"{model}: accuracy beside cost{named}", columns, [_study_row(row) for row in rows])


def _study_row(row: StudyRow) -> tuple[str, ...]:
    return (
        row_name(row),
        _number(row.validation, ".2f", 100),
        _number(row.accuracy, ".2f", 100),
        _number(row.accuracy_sd, ".2f", 100),
        "" if row.reference else _number(row.loss, ".2f", 100),
        _number(row.cycles, ",.0f"),
        _number(row.joules, ",.1f", 1e6),
        _number(row.speedup, ".2f"),
        f"{row.reached} of {row.seeds}",
        _number(row.steps_to_target, ",.0f"),
        _number(row.seconds_to_target, ".3g"),
        _number(row.time_speedup, ".2f"),
    )


def _number(value: float | None, form: str, scale: float = 1.0) -> str:
    return "" if value is None else f"{scale * value:{form}}"
