"""An engine that does not ship: what it declares beside its counts reaches energy, files, pictures and the page."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from fractions import Fraction
from importlib import resources
from pathlib import Path

import pytest

from weft._cli.show_step import show_run
from weft.analysis.compare import compare, loss_ledger, losses
from weft.analysis.comparison_files import comparison_dict
from weft.analysis.energy import energy
from weft.analysis.energy_table import load_table
from weft.analysis.figures.comparison import comparison_figure
from weft.analysis.figures.layers import layers_figure
from weft.analysis.frames import causes_frame, energy_frame, layers_frame, ops_frame
from weft.analysis.report.folder import Contents, Run
from weft.analysis.report.page import report_page
from weft.analysis.save import run_files
from weft.analysis.savings import saving
from weft.analysis.tariff import tariff
from weft.dataflow.account import Counts, Cycles, items, kind_of, total
from weft.dataflow.actions import Action, Component, Each, cause, counted
from weft.simulator.result import SimResult
from weft.workloads.errors import InputError
from weft.workloads.step import MatrixOp

POPCOUNT = Action("popcount of 64 bits", "XNOR array", "operation", "popcount_64")
WORDS = 7_000_003


@dataclass(frozen=True, slots=True, kw_only=True)
class XnorCounts(Counts):
    popcount_words: int = counted("words of 64 bits compared and counted", Each((POPCOUNT,)))


@dataclass(frozen=True, slots=True, kw_only=True)
class XnorCycles(Cycles):
    popcount_stall: int = cause("popcount waits", "the adder tree is waited for", loss="popcount waits (XNOR)")


def _table(folder: Path, pj: float) -> str:
    """The table of 45 nm with a price of the engine's action."""
    shipped = (resources.files("weft.analysis") / "tables" / "asic-45nm.toml").read_text(encoding="utf-8")
    price = f'{{ value = {pj}, unit = "pJ", node = "45 nm", mark = "assumed", band = "guess", source = "this test" }}'
    path = folder / "with-popcount.toml"
    path.write_text(shipped.replace("[spare]", f"[spare]\npopcount_64 = {price}\n#"), encoding="utf-8")
    return str(path)


def _on_xnor(result: SimResult, technology: str) -> SimResult:
    """The step with its first product on the other engine."""
    first = next(i for i, r in enumerate(result.ops) if isinstance(r.op, MatrixOp))
    old = result.ops[first]
    counts = XnorCounts(popcount_words=WORDS, dram_read_bytes=old.counts.dram_read_bytes)
    cycles = XnorCycles(compute=old.cycles.compute, popcount_stall=555_000)
    new = replace(old, mapping=None, cycles=cycles, counts=counts)
    return replace(
        result,
        spec=replace(result.spec, technology=technology),
        ops=(*result.ops[:first], new, *result.ops[first + 1 :]),
    )


@pytest.fixture
def xnor(bdwp: SimResult, tmp_path: Path) -> SimResult:
    return _on_xnor(bdwp, _table(tmp_path, 0.25))


def test_its_action_is_priced_and_the_ledger_adds_up(xnor: SimResult) -> None:
    report = energy(xnor)
    row = next(row for row in report.rows if row.action == POPCOUNT)

    assert (row.count, row.component, row.unit, row.source) == (WORDS, "XNOR array", "operation", "this test")
    assert row.zeptojoules == WORDS * 250_000_000
    assert report.by_component["XNOR array"] == pytest.approx(WORDS * 0.25e-12)
    assert sum(row.zeptojoules for row in report.rows) == report.zeptojoules == sum(report.op_zeptojoules)
    assert report.by_component[Component.ARRAY] > 0


def test_it_is_in_every_frame_and_file(xnor: SimResult) -> None:
    ops, layers = ops_frame(xnor), layers_frame(xnor)
    assert ops["popcount_words"].sum() == layers["popcount_words"].sum() == WORDS
    assert ops["popcount_stall"].sum() == causes_frame(xnor)["cycles"]["popcount_stall"] == 555_000
    assert energy_frame(xnor).loc["popcount of 64 bits", "count"] == WORDS

    files = run_files(xnor, "weft run", {"light"})
    document = json.loads(files["result.json"])
    assert document["popcount_words"] == WORDS and document["stalls"]["popcount_stall"] == 555_000
    assert sum(op["popcount_words"] for op in document["ops"]) == WORDS
    assert sum(document["stalls"].values()) + xnor.cycles.compute == document["cycles"]
    assert b"popcount of 64 bits,XNOR array,7000003,operation" in files["energy.csv"]
    assert {b"popcount_words", b"popcount_stall"} <= set(files["ops.csv"].splitlines()[0].split(b","))


def test_what_ships_has_no_column_of_it(bdwp: SimResult) -> None:
    assert not [name for name in (*ops_frame(bdwp), *layers_frame(bdwp)) if "popcount" in name]


def test_it_is_on_the_page(xnor: SimResult, dense: SimResult) -> None:
    runs = tuple(
        Run(place=name, label=name, name=name, result=r, system=None, command="", weft_version="0")
        for name, r in (("one", xnor), ("other", dense))
    )
    page = report_page(Contents(runs=runs, study=None), "two engines")

    # Words of the cause in tables and legend, its colour, the part that pays, the constant with its source, a column.
    for text in ("popcount waits", ".c-popcount_stall{", "--popcount-stall:#882255", "XNOR array", "this test"):
        assert text in page
    assert "popcount of 64 bits" in page and f"{WORDS:,}" in page and ">popcount_words<" in page
    assert "popcount waits (XNOR)" in page and ">None" not in page


def test_it_is_in_the_pictures(xnor: SimResult, dense: SimResult) -> None:
    for figure in (layers_figure(xnor), comparison_figure(compare([dense, xnor]))):
        assert any("popcount waits" in text.get_text() for text in figure.legends[0].get_texts())


def test_it_is_on_the_terminal(xnor: SimResult, capsys: pytest.CaptureFixture[str]) -> None:
    show_run(xnor, "abc")
    shown = capsys.readouterr().out

    assert "popcount stall" in shown and "the adder tree is waited for" in shown and "XNOR array" in shown


def test_every_cycle_of_it_is_in_the_loss_ledger(xnor: SimResult, dense: SimResult) -> None:
    ledger = loss_ledger(xnor, dense)
    found = {row.item: row for row in ledger.rows}

    assert found["popcount waits (XNOR)"].cycles == 555_000 and found["popcount waits (XNOR)"].dense_cycles == 0
    assert sum((row.cycles for row in ledger.rows), Fraction()) == xnor.cycles.total
    assert losses(xnor)["popcount waits (XNOR)"] == 555_000
    rows = comparison_dict(compare([dense, xnor]))["schemes"]
    assert rows[1]["stalls"]["popcount_stall"] == 555_000 and "popcount_stall" not in rows[0]["stalls"]


def test_a_saving_leaves_out_tables_without_its_price(xnor: SimResult, dense: SimResult) -> None:
    base = replace(dense, spec=xnor.spec)
    found = saving(xnor, base)

    assert tuple(found.tables) == (xnor.spec.technology,)
    assert found.share == pytest.approx(1 - energy(xnor).joules / energy(base).joules)


def test_an_action_without_a_price_is_refused_and_never_free(xnor: SimResult) -> None:
    with pytest.raises(InputError) as on_chip:
        energy(xnor, load_table("asic-16nm"))
    assert "table 'asic-16nm' has no price for action 'popcount of 64 bits' (XNOR array): add spare.popcount_64" in str(
        on_chip.value
    )
    assert "priced are bf16_multiply, clock_tree, compare, control, dram.activate, dram.read" in str(on_chip.value)
    with pytest.raises(InputError) as in_luts:
        energy(xnor, load_table("fpga-ultrascale-plus"))
    assert "table 'fpga-ultrascale-plus' has no price for action 'popcount_words': its engine declares none on" in str(
        in_luts.value
    )


def test_a_tariff_is_made_once_a_machine(bdwp: SimResult, xnor: SimResult) -> None:
    table = load_table("asic-16nm")

    assert tariff(table, bdwp.spec) is tariff(table, replace(bdwp.spec))
    assert POPCOUNT not in tariff(table, bdwp.spec)


def test_a_step_has_the_sum_of_what_any_engine_counts(xnor: SimResult, bdwp: SimResult) -> None:
    counts, cycles = xnor.counts, xnor.cycles

    assert items(counts)["popcount_words"] == WORDS
    assert counts.macs == sum(r.counts.macs for r in xnor.ops) < bdwp.counts.macs
    assert cycles.total == sum(r.cycles.total for r in xnor.ops) == sum(items(cycles).values())
    assert type(bdwp.counts) is Counts and type(bdwp.cycles) is Cycles


@dataclass(frozen=True, slots=True, kw_only=True)
class OtherCounts(Counts):
    lookups: int = counted("tables read", Each((POPCOUNT,)))


def test_two_engines_count_side_by_side() -> None:
    parts = [Counts(macs=1), XnorCounts(macs=2, popcount_words=3), OtherCounts(lookups=4)]
    found = items(total(Counts, parts))

    assert {name: n for name, n in found.items() if n} == {"macs": 3, "popcount_words": 3, "lookups": 4}


def test_a_name_means_one_thing_in_a_step() -> None:
    @dataclass(frozen=True, slots=True, kw_only=True)
    class Clash(Counts):
        popcount_words: int = counted("something else", Each((POPCOUNT,)))

    with pytest.raises(TypeError, match="'popcount_words' is declared twice and differently"):
        kind_of(Counts, (XnorCounts, Clash))


def test_an_action_of_a_taken_name_is_refused(bdwp: SimResult) -> None:
    @dataclass(frozen=True, slots=True, kw_only=True)
    class Clash(Counts):
        adds: int = counted("adds", Each((Action("accumulator add", "XNOR array", "operation", "fp32_add"),)))

    with pytest.raises(TypeError, match="'accumulator add' is declared twice, and differently"):
        tariff(load_table("asic-16nm"), bdwp.spec, Clash)


def test_a_count_that_nobody_declared_is_refused(bdwp: SimResult) -> None:
    @dataclass(frozen=True, slots=True, kw_only=True)
    class Bare(Counts):
        bits: int = 0

    with pytest.raises(TypeError, match=r"Bare\.bits is not declared: make the field by actions\.counted"):
        tariff(load_table("asic-16nm"), bdwp.spec, Bare)
