"""The report's figures are the results' own, nothing in it is taken for markup, and no bad folder makes a page."""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from dataclasses import asdict, replace
from fractions import Fraction
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from weft.analysis.bins import BINS, bin_amounts, bin_levels
from weft.analysis.report.data import RunData
from weft.analysis.report.folder import Contents, Run, read_folder
from weft.analysis.report.groups import group_runs
from weft.analysis.report.levers import levers
from weft.analysis.report.markup import Html, element, embedded_json
from weft.analysis.report.page import page_title, report_page
from weft.analysis.save import save_run
from weft.analysis.words import joules, percent, seconds
from weft.cli import main
from weft.dataflow.config_io import load_spec
from weft.dataflow.schedule import schedule
from weft.simulator.step import simulate
from weft.simulator.system_result import SystemResult
from weft.workloads.errors import InputError
from weft.workloads.gemm import Gemm, Pass
from weft.workloads.operand import NMOperand
from weft.workloads.sparsity import NMPattern
from weft.workloads.step import Workload

from ..dataflow.problems import make_op
from .results import HOSTILE, MODEL, study, workload, write_results

VOID = {"meta", "input", "br"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_results(tmp_path_factory.mktemp("results") / "all")


@pytest.fixture(scope="module")
def contents(folder: Path) -> Contents:
    return read_folder(folder)


@pytest.fixture(scope="module")
def page(contents: Contents) -> str:
    return report_page(contents, f"Title {HOSTILE}")


@pytest.fixture(scope="module")
def drawn(page: str) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert found is not None
    data: dict[str, Any] = json.loads(found[1])
    return data


def overlapped(contents: Contents) -> tuple[Run, SystemResult]:
    run = next(run for run in contents.runs if run.system is not None)
    assert run.system is not None
    return run, run.system


@st.composite
def intervals(draw: st.DrawFn) -> tuple[list[int], list[int], list[int], int]:
    start, end, amount, now = [], [], [], 0
    for _ in range(draw(st.integers(0, 12))):
        start.append(now + draw(st.integers(0, 20)))
        now = start[-1] + draw(st.integers(0, 2**40))
        end.append(now)
        amount.append(draw(st.integers(0, 2**40)))
    return start, end, amount, now + draw(st.integers(1, 50))


@given(intervals(), st.integers(1, 30))
@example(([0, 0], [0, 5], [7, 3], 9), 2)
def test_bins_add_up_and_are_off_by_less_than_one(made: tuple[list[int], list[int], list[int], int], bins: int) -> None:
    start, end, amount, length = made
    found = bin_amounts(start, end, amount, length, bins)

    assert sum(found) == sum(amount) and min(found) >= 0
    for i, n in enumerate(found):
        low, high = Fraction(i * length, bins), Fraction((i + 1) * length, bins)
        true = Fraction(0)
        for s, e, moved in zip(start, end, amount, strict=True):
            inside = min(high, Fraction(e)) - max(low, Fraction(s))
            if e > s and inside > 0:
                true += moved * inside / (e - s)
            elif e == s and low < s <= high:
                true += moved
        # At 0 nothing has happened yet, so what takes no time there is in the first bin.
        true += sum(a for s, e, a in zip(start, end, amount, strict=True) if i == 0 and s == e == 0)
        if not any(s == e and Fraction(s) in (low, high) for s, e in zip(start, end, strict=True)):
            assert abs(n - true) < 1


@given(
    st.lists(st.tuples(st.integers(0, 10**12), st.integers(0, 2)), max_size=20).map(sorted),
    st.integers(1, 40),
    st.integers(0, 10**6),
)
def test_levels_integrate_exactly(changes: list[tuple[int, int]], bins: int, rest: int) -> None:
    time, level = [t for t, _ in changes], [n for _, n in changes]
    length = max([*time, 1]) + rest
    found = bin_levels(time, level, length, bins)

    for i, n in enumerate(found):
        low, high = Fraction(i * length, bins), Fraction((i + 1) * length, bins)
        true = sum(
            (
                height * max(Fraction(0), min(high, Fraction(until)) - max(low, Fraction(since)))
                for since, until, height in zip(time, [*time[1:], length], level, strict=False)
            ),
            Fraction(0),
        )
        assert n == bins * true


def test_every_cut_adds_up_to_the_run(contents: Contents) -> None:
    for run in contents.runs:
        data, result = RunData(run), run.result
        every = {cause: getattr(result.cycles, cause) for cause in data.causes}
        of_bars: Counter[str] = Counter()
        for bar in data.bars:
            assert sum(bar.passes.values()) == sum(bar.cycles.values())
            of_parts: Counter[str] = Counter()
            for part in bar.parts:
                of_parts.update(part.cycles)
            assert dict(of_parts) == bar.cycles
            of_bars.update(bar.cycles)
        of_passes: Counter[str] = Counter()
        for causes in data.passes.values():
            of_passes.update(causes)
        assert data.causes == every == dict(of_bars) == dict(of_passes)
        assert sum(data.causes.values()) == result.cycles.total
        assert sum(n for parts in data.energy.values() for n in parts.values()) == run.energy.zeptojoules


def test_time_lines_hold_every_byte_and_half(contents: Contents) -> None:
    for run in contents.runs:
        dram, result = RunData(run).dram, run.result
        assert dram is not None
        for p in Pass:
            moved = sum(r.counts.dram_bytes for r in result.select(p))
            assert sum(dram.moved.get(p, ())) == moved == sum(by[p] for by in dram.asked.values())
        assert result.counts.dram_bytes > 0
    run, system = overlapped(contents)
    found = RunData(run).system
    assert found is not None
    length = int(system.end.max())
    for name, held in system.record().buffers.items():
        ends = np.append(held.time[1:], length)
        assert sum(found.occupancy[name]) == BINS * int(((ends - held.time) * held.halves).sum()) > 0


def test_op_after_op_bytes_are_spread_over_the_time_of_their_op(contents: Contents) -> None:
    run = next(run for run in contents.runs if run.system is None)
    dram, at, length = RunData(run).dram, 0, run.result.cycles.total
    assert dram is not None
    true = {p: [Fraction(0)] * BINS for p in Pass}
    for r in run.result.ops:
        cycles = r.cycles.total
        for i in range(at * BINS // length, min(BINS, (at + cycles) * BINS // length + 1)):
            inside = min(Fraction((i + 1) * length, BINS), at + cycles) - max(Fraction(i * length, BINS), at)
            true[Pass(r.op.pass_)][i] += r.counts.dram_bytes * max(inside, Fraction(0)) / cycles
        at += cycles
    for p, bins in dram.moved.items():
        assert all(abs(n - exact) < 1 for n, exact in zip(bins, true[p], strict=True))


def test_what_is_drawn_is_what_was_simulated(contents: Contents, drawn: dict[str, Any]) -> None:
    units = {"s": 1.0, "ms": 1e-3, "µs": 1e-6, "ns": 1e-9}
    assert len(drawn["runs"]) == len(contents.runs) == 3
    for run, made in zip(contents.runs, drawn["runs"], strict=True):
        clock, result = run.result.spec.clock_hz, run.result
        for rows in (made["passes"], made["layers"]):
            total = sum(sum(row["causes"]) for row in rows) * units[made["unit"]]
            assert total == pytest.approx(result.cycles.total / clock)
        each = {"J": 1.0, "mJ": 1e-3, "µJ": 1e-6}[made["energy"]["unit"]]
        spent = {row["label"]: each * sum(row["causes"]) for row in made["energy"]["rows"]}
        assert spent == pytest.approx({str(p): j for p, j in run.energy.by_pass.items() if j})
        for row in made["energy"]["rows"]:
            assert [each * end for end in row["band"]] == pytest.approx(run.energy.pass_bands[Pass(row["label"])])
        lines = made["dram"]
        seconds = lines["end"] * units[lines["unit"]] / lines["bins"]
        moved = sum(sum(one["gb"]) for one in lines["moved"]) * 1e9 * seconds
        assert moved == pytest.approx(result.counts.dram_bytes)
        assert seconds * lines["bins"] == pytest.approx(run.seconds, rel=1e-3)


class Outline(HTMLParser):
    """Elements as they open; refuses what is closed in the wrong order."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(page)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not {"script", "style"} & set(self.open):
            self.texts.append(data)

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.found if name == tag]


def test_no_name_is_taken_for_markup(page: str) -> None:
    outline = Outline(page)

    assert "<script>alert" not in page and len(outline.named("script")) == 3
    assert not any(name.startswith("on") for _, attributes in outline.found for name in attributes)
    assert sum(HOSTILE in text for text in outline.texts) > 10


def test_the_page_is_ordered_labelled_and_loads_nothing(page: str) -> None:
    outline = Outline(page)
    levels = [int(tag[1]) for tag, _ in outline.found if re.fullmatch(r"h[1-6]", tag)]

    assert levels[0] == 1 and levels.count(1) == 1 and all(b <= a + 1 for a, b in pairwise(levels))
    assert outline.named("html")[0]["lang"] == "en"
    for landmark in ("header", "nav", "main", "footer"):
        assert len(outline.named(landmark)) == 1
    ids = [attributes["id"] for _, attributes in outline.found if "id" in attributes]
    assert len(ids) == len(set(ids))
    for _, attributes in outline.found:
        for name in ("aria-labelledby", "aria-controls"):
            assert attributes.get(name) is None or attributes[name] in ids
    assert all(a["href"] in {f"#{i}" for i in ids} for a in outline.named("a"))
    charts = [attributes for _, attributes in outline.found if attributes.get("class") == "plot"]
    assert len(charts) == 4 + 3 * 5 + 2 and all(attributes["aria-label"] for attributes in charts)
    assert len(outline.named("table")) == len(outline.named("caption"))
    assert all(attributes.get("scope") in ("col", "row") for attributes in outline.named("th"))
    assert not any({"src", "srcset", "action", "data"} & set(attributes) for _, attributes in outline.found)
    assert not {"link", "img", "iframe", "object"} & {tag for tag, _ in outline.found}
    policy = next(a["content"] for a in outline.named("meta") if a.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None and policy.startswith("default-src 'none'")


def test_the_same_folder_gives_the_same_bytes(folder: Path, page: str) -> None:
    assert report_page(read_folder(folder), f"Title {HOSTILE}") == page


def test_the_verdict_says_the_numbers_of_the_comparison(contents: Contents, page: str) -> None:
    group, alone = group_runs(contents.runs)
    dense = next(run for run in contents.runs if run.result.workload.scheme == "dense")
    lapped, system = overlapped(contents)

    # A run with its ops overlapped has another time than one without, so it stands by itself.
    assert not group.overlapped and group.baseline is dense and len(group.runs) == 2
    assert alone.overlapped and alone.runs == (lapped,)
    assert f"takes {seconds(system.seconds)} and {joules(lapped.energy.joules)}" in page
    speedup = dense.result.cycles.total / group.fastest.result.cycles.total
    assert f"bdwp 2:8 is {speedup:.2f} times as fast as dense" in page
    assert group.speedup(dense) == 1.0
    assert len({run.label for run in contents.runs}) == 3
    assert "reaches the target 1.50 times as fast as dense" in page


def test_four_figures_are_at_the_top_of_every_group(contents: Contents, page: str) -> None:
    group, alone = group_runs(contents.runs)
    tiles = re.findall(r'<dd class="value">(.*?)</dd>', page)
    speedup = group.baseline.cycles / group.fastest.cycles
    lapped = alone.fastest
    used = [float(run.result.ideal_cycles(run.result.ops)) / run.cycles for run in (group.fastest, lapped)]

    assert tiles == [
        f"{speedup:.2f}×",
        seconds(group.fastest.seconds),
        joules(group.fastest.energy.joules),
        percent(used[0]),
        f"{lapped.result.workload.batch / lapped.seconds:,.4g}",
        seconds(lapped.seconds),
        joules(lapped.energy.joules),
        percent(used[1]),
    ]
    assert page.index("<dl") < page.index(f"bdwp 2:8 is {speedup:.2f} times")


def test_the_title_says_model_schemes_and_machine(contents: Contents) -> None:
    assert page_title(contents, "none") == f"{MODEL} (10 x 3): dense, bdwp 2:8 on tiny"
    assert page_title(replace(contents, runs=()), "none") == "none"


def test_machines_of_other_sizes_are_named_and_keep_no_promise(contents: Contents) -> None:
    dense, bdwp = (next(r for r in contents.runs if r.result.workload.scheme == s) for s in ("dense", "bdwp"))
    spec = replace(bdwp.result.spec, name="twice", array=replace(bdwp.result.spec.array, rows=8))
    wide = replace(bdwp, system=None, result=simulate(schedule(bdwp.result.workload, spec)))

    (group,) = group_runs([dense, wide])
    page = report_page(Contents(runs=(dense, wide), study=None), "two machines")

    speedup = dense.result.cycles.total / wide.result.cycles.total
    assert f"bdwp 2:8 is {speedup:.2f} times as fast as dense on tiny<" in page
    assert group.promised(wide) > 1 and group.promised_seconds(wide) is None and group.ledger(wide) is None
    assert "multiply-accumulates promise" not in page


def test_names_in_a_chart_leave_out_what_all_its_runs_share(tmp_path: Path) -> None:
    write_results(tmp_path)
    other = replace(workload(), batch=2)
    save_run(simulate(schedule(other, load_spec("tiny"))), tmp_path / "other", "weft run")

    found = {run.place: (run.label, run.name) for run in read_folder(tmp_path).runs}

    assert found["other"][1] == "dense" and found["other"][0].startswith(f"{MODEL}, batch 2, dense")
    assert found["bdwp"][1] == "bdwp 2:8, level step"


def test_a_lever_is_a_simulation_of_that_machine(contents: Contents) -> None:
    run = next(run for run in contents.runs if run.system is None)
    spec, work = run.result.spec, run.result.workload
    tried = levers(run)
    found = {lever.change: lever.cycles for lever in tried.changes}
    better = replace(spec, dram=replace(spec.dram, bytes_per_second=2 * spec.dram.bytes_per_second))

    assert tried.cycles == simulate(schedule(work, spec, "cycles")).cycles.total <= run.cycles
    assert found["twice the DRAM bandwidth"] == simulate(schedule(work, better, "cycles")).cycles.total
    assert list(found.values()) == sorted(found.values())
    widest = replace(spec, array=replace(spec.array, w2e_words=64))
    limited = levers(replace(run, result=replace(run.result, spec=widest))).changes
    forbidden = "twice the words at the western edge"
    assert {lever.change for lever in limited} == {change for change in found if forbidden not in change}


def test_changes_that_help_only_together_are_tried_together(contents: Contents) -> None:
    """64 filters fill two contexts of a four-cycle adder, in which a port of one word brings just one group."""
    sat, pattern = load_spec("sat-vcu1525"), NMPattern(keep=2, group=8)
    sparse = NMOperand(operand="b", pattern=pattern, online=False)
    op = make_op(Gemm(m=4096, k=576, n=64, run=64), sparse=sparse)
    work = Workload(model="one", batch=1, scheme="bdwp", pattern=pattern, ops=(op,))
    base = next(run for run in contents.runs if run.system is None)
    tried = levers(replace(base, result=simulate(schedule(work, sat))))
    gain = {lever.change: tried.gain(lever) for lever in tried.changes}
    adder, words = "an adder of half the latency", "twice the words at the western edge"

    assert gain[adder] < 1.001 and gain[words] < 1.001
    pairs = [change for change in gain if " and " in change]
    assert len(pairs) == 1 and {*pairs[0].split(" and ")} == {adder, words}
    assert gain[pairs[0]] > 1.5


def test_values_become_text_and_attributes() -> None:
    assert element("p", "a < b & c", Html("<br>"), None) == "<p>a &lt; b &amp; c<br></p>"
    assert element("input", type="search", aria_label='"x"', hidden=True, class_=None) == (
        '<input type="search" aria-label="&quot;x&quot;" hidden>'
    )
    hostile = {"name": HOSTILE + "\u2028&"}
    assert "<" not in embedded_json(hostile) and json.loads(embedded_json(hostile)) == hostile


def test_the_command_writes_the_page_beside_the_results(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = tmp_path / "mine"
    shutil.copytree(folder / "bdwp", mine)

    assert main(["report", str(mine), "--title", "Mine", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    written = mine / "report.html"
    assert said == {"path": str(written), "bytes": written.stat().st_size, "runs": 1, "study_rows": 0}
    assert "<title>Mine</title>" in written.read_text(encoding="utf-8")
    assert main(["report", str(mine), "-o", str(tmp_path / "other.html")]) == 0
    assert ": bdwp 2:8 on tiny</title>" in (tmp_path / "other.html").read_text(encoding="utf-8")
    assert {path.name for path in tmp_path.iterdir()} == {"mine", "other.html"}


def test_a_folder_of_an_older_version_is_read(folder: Path, tmp_path: Path) -> None:
    """Its workload is of schema 1, which named no form of a sparse operand, and it had no manifest."""
    old = tmp_path / "old"
    shutil.copytree(folder / "bdwp", old)
    (old / "manifest.json").unlink()
    step = json.loads((old / "workload.json").read_text())
    forms = [op["sparse"].pop("kind") for op in step["ops"] if op.get("sparse")]
    assert set(forms) == {"nm"}
    edit(old / "workload.json", schema=1, ops=step["ops"])

    (run,), (same,) = read_folder(old).runs, read_folder(folder / "bdwp").runs

    assert run.result == same.result


def edit(place: Path, **changes: Any) -> None:
    place.write_text(json.dumps({**json.loads(place.read_text()), **changes}))


SPOILT = {
    "another version": (lambda d: edit(d / "result.json", cycles=7, weft_version="9"), r"weft 9\) or changed; make it"),
    "another energy": (lambda d: edit(d / "result.json", energy_j=1.0), "holds .* cycles and 1 J, but this version"),
    "an unknown level": (lambda d: edit(d / "result.json", level="gates"), "level 'gates' is none"),
    "an unknown objective": (lambda d: edit(d / "result.json", objective="luck"), "objective 'luck' is unknown"),
    "broken JSON": (lambda d: (d / "result.json").write_text("{"), "is not a result of `weft run -o`"),
    "no machine": (lambda d: (d / "machine.toml").unlink(), "machine.toml: is missing.*make it again with: weft"),
    "another machine": (
        lambda d: (d / "machine.toml").write_text((d / "machine.toml").read_text().replace("rows = 4", "rows = 8")),
        "is not the machine of result.json",
    ),
    "a key too many": (
        lambda d: (d / "machine.toml").write_text("speed = 1\n" + (d / "machine.toml").read_text()),
        "unknown key 'speed'",
    ),
    "no workload": (lambda d: (d / "workload.json").unlink(), "workload.json: cannot be read"),
    "another schema": (lambda d: edit(d / "workload.json", schema=99), "workload.json"),
    "nothing": (lambda d: [path.unlink() for path in d.iterdir()], "holds no run and no study"),
    "a study of nothing": (
        lambda d: (
            [path.unlink() for path in d.iterdir()],
            (d / "study.json").write_text(json.dumps(asdict(replace(study(), rows=())))),
        ),
        "holds no run and no study",
    ),
    "a study with a key too many": (
        lambda d: (d / "study.json").write_text('{"rows": [], "colour": 1}'),
        "study.json: unknown key 'colour'",
    ),
}


@pytest.mark.parametrize("how", SPOILT)
def test_a_bad_folder_is_refused_and_writes_nothing(
    how: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil, said = SPOILT[how]
    bad = tmp_path / "bad"
    shutil.copytree(folder / "bdwp", bad)
    (bad / "manifest.json").unlink()  # as in folders of older versions
    spoil(bad)

    with pytest.raises(InputError, match=said):
        read_folder(bad)
    (tmp_path / "old.html").write_text("old")
    assert main(["report", str(bad), "-o", str(tmp_path / "old.html")]) == 2
    assert capsys.readouterr().err.startswith("Error: ")
    assert (tmp_path / "old.html").read_text() == "old" and len(list(tmp_path.iterdir())) == 2


def test_a_place_that_is_no_folder_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "missing", tmp_path / "file"):
        assert main(["report", str(place), "-o", str(tmp_path / "page.html")]) == 2
        assert "is no folder; give what `weft run`" in capsys.readouterr().err
    assert main(["report", str(tmp_path), "-o", str(tmp_path)]) == 2
    assert "is a folder" in capsys.readouterr().err
