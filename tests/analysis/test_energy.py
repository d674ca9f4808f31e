"""Joules by hand, and the ledger that adds up to them."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from math import fsum
from pathlib import Path

import pytest

from weft._cli import compare as compare_command
from weft._cli import explain as explain_command
from weft._cli import run as run_command
from weft.analysis.area import machine_area
from weft.analysis.energy import amounts, energy, ledger
from weft.analysis.energy_table import Mark, load_table, table_names
from weft.analysis.report.folder import Contents, Run
from weft.analysis.report.page import report_page
from weft.analysis.save import save_run
from weft.analysis.synthesised import remember
from weft.analysis.tariff import prices, tariff
from weft.cli import main
from weft.dataflow.account import Counts, Cycles
from weft.dataflow.actions import BEYOND, Actions, Component
from weft.dataflow.config_io import dumps_spec, load_spec
from weft.dataflow.objective import Objective
from weft.dataflow.operand import FormatName
from weft.dataflow.schedule import schedule
from weft.dataflow.xnor.counts import FABRIC_POPCOUNT
from weft.dataflow.xnor.mapping import require_xnor
from weft.hdl.blocks.xnor import Xnor
from weft.hdl.flow import synthesis
from weft.hdl.flow.devices import Resources
from weft.hdl.flow.synthesis import Part, Synthesis
from weft.hdl.registry import BLOCKS
from weft.simulator.result import OpResult, SimResult
from weft.simulator.step import simulate
from weft.simulator.system import simulate_system
from weft.workloads.errors import InputError
from weft.workloads.gemm import Gemm, Pass
from weft.workloads.levels import Levels
from weft.workloads.operand import NMOperand
from weft.workloads.schemes.annotate import annotate
from weft.workloads.sparsity import NMPattern
from weft.workloads.step import UpdateOp, Workload
from weft.workloads.update_rule import SGD

from .conftest import chip, layer, matrix, relu, run, step

TABLE = chip("asic-45nm")
LOGIC = replace(TABLE, sram=replace(TABLE.sram, leakage=None), logic_leakage=None)
CLOCKED = 2.92 + 2.11 + 0.092
"""Registers, clock tree and control of a multiply-add."""


def result_of(op: OpResult, optimizer: str = "sgd") -> SimResult:
    return SimResult(
        workload=Workload(model="one", batch=1, optimizer=optimizer, ops=(op.op,)),
        spec=load_spec("tiny"),
        objective=Objective.CYCLES,
        ops=(op,),
    )


def test_a_sparse_product_by_hand() -> None:
    sparse = NMOperand(operand="b", pattern=NMPattern(keep=2, group=8), online=False)
    op = replace(matrix("fc", Pass.FF, Gemm(m=2, k=8, n=3)), sparse=sparse)
    counts = Counts(
        macs=12,
        selects=12,
        w2e_words=16,
        n2s_pairs=6,
        output_words=18,
        buffer_bytes=100,
        dram_read_bytes=60,
        dram_write_bytes=40,
        sore_compares=5,
    )
    result = result_of(OpResult(op=op, mapping=None, cycles=Cycles(compute=1), counts=counts))
    read, write = 25.87 / 64, 19.65 / 64
    array = 12 * (1.1 + 0.9 + CLOCKED) + 12 * 0.144
    # Six outputs in 18 words: written twice and read once each.
    buffers = 16 * 16 * read + 6 * 19 * read + 12 * 32 * write + 6 * 32 * read + 480 * write + 320 * read
    dram = 480 * 9.188 + 320 * 8.441
    report = energy(result, TABLE)

    assert report.by_component[Component.ARRAY] == pytest.approx(array * 1e-12)
    assert report.by_component[Component.BUFFERS] == pytest.approx(buffers * 1e-12)
    assert report.by_component[Component.DRAM] == pytest.approx(dram * 1e-12)
    assert report.by_component[Component.SORE] == pytest.approx(5 * 0.05e-12)
    # A cycle of a bank in each of the three buffers, of 16 PEs, of 4 lanes each of WUVE and vector unit, at 100 MHz.
    static = (3 * 15.51e-6 + 24 * 75e-6) / 100e6
    assert report.by_component[Component.STATIC] == pytest.approx(static)
    assert report.joules == pytest.approx((array + buffers + dram + 0.25) * 1e-12 + static)


@pytest.mark.parametrize(("form", "pj"), [("fp16", 1.1 + 0.9), ("fp8", 0.5 + 0.9), ("int8", 0.2 + 0.1)])
def test_a_multiply_accumulate_of_every_width_by_hand(form: FormatName, pj: float) -> None:
    """FP8 sums are FP32, those of INT8 are INT32; a dense word is read as its eight bits."""
    op = matrix("fc", Pass.FF, Gemm(m=1, k=1, n=1))
    result = result_of(OpResult(op=op, mapping=None, cycles=Cycles(compute=1), counts=Counts(macs=7, w2e_words=5)))
    spec = replace(result.spec, pe=replace(result.spec.pe, format=form))
    report = energy(replace(result, spec=spec), LOGIC)

    assert report.by_component[Component.ARRAY] == pytest.approx(7 * (pj + CLOCKED) * 1e-12)
    assert report.by_component[Component.BUFFERS] == pytest.approx(5 * spec.pe.operand.bits * 25.87 / 64 * 1e-12)


@pytest.mark.parametrize(
    ("optimizer", "pj"),
    [
        ("sgd", 4 * 3.7 + 3 * 0.9 + 7 * 3.31),
        ("nesterov", 5 * 3.7 + 4 * 0.9 + 9 * 3.31),
        ("adam", 7 * 3.7 + 4 * 0.9 + 18.5 + 25.9 + 13 * 3.31),
        ("adamw", 8 * 3.7 + 4 * 0.9 + 18.5 + 25.9 + 14 * 3.31),
    ],
)
def test_a_weight_update_by_hand(optimizer: str, pj: float) -> None:
    op = OpResult(op=UpdateOp(name="w", elements=7), mapping=None, cycles=Cycles(wuve=1), counts=Counts(updates=7))

    assert energy(result_of(op, optimizer), LOGIC).joules == pytest.approx(7 * pj * 1e-12)


def test_vector_work_is_one_add_an_element() -> None:
    op = OpResult(op=relu("r", 9), mapping=None, cycles=Cycles(vector=1), counts=Counts(vector_elements=9))

    assert energy(result_of(op), LOGIC).joules == pytest.approx(9 * 0.9e-12)


def test_dense_words_carry_no_index() -> None:
    op = matrix("fc", Pass.FF, Gemm(m=1, k=1, n=1))
    result = OpResult(op=op, mapping=None, cycles=Cycles(compute=1), counts=Counts(n2s_pairs=10))

    assert amounts(result, SGD, load_spec("tiny"), TABLE)[Actions.N2S_READ] == 160


def test_output_words_split_into_writes_and_reads(bdwp: SimResult) -> None:
    for r in bdwp.ops:
        found = amounts(r, SGD, load_spec("tiny"), TABLE)
        words = found.get(Actions.OUTPUT_WRITE, 0) + found.get(Actions.OUTPUT_READ, 0)
        assert words == 32 * r.counts.output_words


@pytest.mark.parametrize("technology", table_names())
@pytest.mark.parametrize("scheme", ["dense", "bdwp"])
def test_the_ledger_adds_up_to_the_zeptojoule(scheme: str, technology: str, request: pytest.FixtureRequest) -> None:
    result: SimResult = request.getfixturevalue(scheme)
    report = energy(result, load_table(technology))

    assert sum(row.zeptojoules for row in report.rows) == report.zeptojoules == sum(report.op_zeptojoules) > 0
    assert report.joules == report.zeptojoules / 10**21
    for row in report.rows:
        assert row.source and row.joules == row.zeptojoules / 10**21
        assert row.zeptojoules == row.count * round(row.constant_pj * row.scaling * 1e9)
        assert row.pj_each == pytest.approx(row.constant_pj * row.scaling, rel=1e-6)
    cuts = (report.by_component, report.by_pass, report.by_mark)
    for cut in (*(c.values() for c in cuts), report.by_op):
        assert fsum(cut) == pytest.approx(report.joules, rel=1e-12)


def test_the_whole_is_its_parts(bdwp: SimResult) -> None:
    whole = energy(bdwp)

    assert whole.zeptojoules == sum(energy(replace(bdwp, ops=(op,))).zeptojoules for op in bdwp.ops)


def test_static_energy_is_power_times_time(bdwp: SimResult) -> None:
    static = energy(bdwp, TABLE).by_component[Component.STATIC]
    seconds = bdwp.cycles.total / bdwp.spec.clock_hz

    # Buffers of tiny: 16, 16 and 8 KiB, one bank of 64 KiB each; 16 PEs and 8 lanes.
    assert static == pytest.approx((3 * 15.51e-6 + 24 * 75e-6) * seconds, rel=1e-6)


def test_an_fpga_is_charged_by_its_luts(bdwp: SimResult) -> None:
    table, counted = load_table("fpga-ultrascale-plus"), machine_area(bdwp.spec, "xcup")
    rows = {row.action: row for row in energy(bdwp, table).rows}
    pe = next(item for item in counted.items if item.name == "pe")

    assert rows[Actions.FABRIC_MAC].count == bdwp.counts.macs
    assert rows[Actions.FABRIC_MAC].pj_each == pytest.approx((0.01444 + 0.03663) * pe.lut_sites)
    assert rows[Actions.CLOCK].count == rows[Actions.STATIC].count == bdwp.cycles.total
    assert rows[Actions.CLOCK].pj_each == pytest.approx((0.02056 + 0.001143) * counted.total["ff"])
    assert rows[Actions.STATIC].joules == pytest.approx(3.166 * bdwp.cycles.total / bdwp.spec.clock_hz)
    assert rows[Actions.FABRIC_MULTIPLY].joules == pytest.approx(bdwp.counts.macs * 1.7e-12 * pe.dsp) and pe.dsp == 1
    lanes = sum(item.dsp * item.count for item in counted.items if item.block == "wuve") / bdwp.spec.wuve.lanes
    assert rows[Actions.FABRIC_UPDATE_MULTIPLY].pj_each == pytest.approx(1.7 * lanes) and lanes == 7
    # Nothing of a chip's arithmetic.
    assert not {Actions.MULTIPLY, Actions.ADD, Actions.REGISTERS, Actions.VECTOR_ELEMENT} & rows.keys()
    assert {row.mark for row in rows.values()} <= {Mark.INFERRED, Mark.ASSUMED}


def test_array_luts_are_all_charged_when_every_pe_works() -> None:
    """At full use the rows of the array are the LUTs of the block, once a cycle."""
    spec = load_spec("sat-vcu1525")
    charged, counted = tariff(load_table("fpga-ultrascale-plus"), spec), machine_area(spec, "xcup")
    a_cycle = spec.macs_per_cycle * charged[Actions.FABRIC_MAC].pj + charged[Actions.FABRIC_EDGES].pj
    sites = sum(item.lut_sites * item.count for item in counted.items if item.block == "stce")

    assert a_cycle == pytest.approx(sites * (0.01444 + 0.03663))


def test_an_fpga_prices_the_scheduler() -> None:
    spec = load_spec("tiny")
    table = load_table("fpga-ultrascale-plus")
    op = matrix("fc", Pass.FF, Gemm(m=4, k=8, n=4))

    charged = tariff(table, spec)
    mac = charged[Actions.FABRIC_MAC].pj + charged[Actions.FABRIC_MULTIPLY].pj
    assert prices(spec, table)(op).fixed == pytest.approx(128 * mac)
    assert prices(spec, table)(op).w2e_word == pytest.approx(16 * 0.2866)


def test_every_count_is_charged(bdwp: SimResult) -> None:
    counts, rows = bdwp.counts, {row.action: row.count for row in ledger(bdwp)}

    assert rows[Actions.MULTIPLY] == rows[Actions.ADD] == rows[Actions.REGISTERS] == counts.macs
    assert rows[Actions.CLOCK_TREE] == rows[Actions.CONTROL] == counts.macs
    assert rows[Actions.SELECT] == counts.selects
    assert rows[Actions.DRAM_READ] + rows[Actions.DRAM_WRITE] == 8 * counts.dram_bytes
    assert rows[Actions.DMA_FILL] + rows[Actions.DMA_EMPTY] == 8 * counts.buffer_bytes
    assert rows[Actions.UPDATE_MULTIPLY] == 4 * counts.updates
    assert rows[Actions.VECTOR_ELEMENT] == counts.vector_elements
    streamed = sum(r.counts.dram_bytes for r in bdwp.ops if r.mapping is None)
    assert rows[Actions.STREAM_WRITE] == rows[Actions.STREAM_READ] == 8 * streamed > 0


def test_energy_is_linear_in_the_work(dense: SimResult) -> None:
    twice = replace(dense, ops=dense.ops + dense.ops)

    assert energy(twice).joules == pytest.approx(2 * energy(dense).joules)


def test_adam_costs_more_than_sgd() -> None:
    sgd, adam = (energy(run("dense", workload=step(rule))) for rule in ("sgd", "adam"))

    assert adam.by_component[Component.WUVE] > sgd.by_component[Component.WUVE]


def test_an_unknown_dram_is_refused(dense: SimResult) -> None:
    spec = replace(dense.spec, dram=replace(dense.spec.dram, kind="core memory"))

    with pytest.raises(InputError, match=r"dram\.kind 'core memory'"):
        energy(replace(dense, spec=spec))


def test_a_bf16_machine_is_charged_for_bf16(dense: SimResult) -> None:
    spec = replace(dense.spec, pe=replace(dense.spec.pe, format="bf16"))
    rows = {row.action: row for row in ledger(replace(dense, spec=spec), TABLE)}
    halves = {row.action: row for row in ledger(dense, TABLE)}
    op = matrix("fc", Pass.FF, Gemm(m=4, k=8, n=4))

    assert (halves[Actions.MULTIPLY].pj_each, rows[Actions.MULTIPLY].pj_each) == (1.1, 0.774)
    assert rows[Actions.MULTIPLY].mark == Mark.INFERRED
    assert [r for a, r in rows.items() if a != Actions.MULTIPLY] == [
        r for a, r in halves.items() if a != Actions.MULTIPLY
    ]
    assert prices(spec, TABLE)(op).fixed == pytest.approx(128 * (0.774 + 0.9 + CLOCKED))


def test_bf16_is_never_priced_by_a_table_without_it(dense: SimResult) -> None:
    spec = replace(dense.spec, pe=replace(dense.spec.pe, format="bf16"))
    table = replace(TABLE, operations=replace(TABLE.operations, bf16_multiply=None))

    for priced in (lambda: energy(replace(dense, spec=spec), table), lambda: prices(spec, table)):
        with pytest.raises(
            InputError,
            match=r"'asic-45nm' has no price for action 'operand multiply' \(array\): add operations\.bf16_multiply",
        ):
            priced()


def test_prices_are_those_of_the_table() -> None:
    spec = load_spec("tiny")
    op = matrix("fc", Pass.FF, Gemm(m=4, k=8, n=4))
    sparse = replace(op, sparse=NMOperand(operand="b", pattern=NMPattern(keep=2, group=8), online=False))
    of = prices(spec, TABLE)
    read, write = 25.87 / 64, 19.65 / 64

    assert of(op).dram_byte == pytest.approx(8 * (9.188 + 8.441) / 2)
    assert of(op).buffer_byte == pytest.approx(4 * (read + write))
    assert of(op).n2s_pair == pytest.approx(16 * read)
    assert of(sparse).n2s_pair == pytest.approx(19 * read)
    assert of(op).output_word == pytest.approx(16 * (read + write))
    assert of(op).fixed == pytest.approx(128 * (2.0 + CLOCKED))
    assert of(sparse).fixed == pytest.approx(32 * (2.144 + CLOCKED))


@pytest.fixture
def no_tool(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An empty cache, and nothing that is started or elaborated."""
    monkeypatch.setenv("WEFT_CACHE", str(tmp_path))
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: pytest.fail("a program was started"))
    for name in ("synthesize", "design"):
        monkeypatch.setattr(synthesis, name, lambda *_: pytest.fail("a block was elaborated"))


@pytest.mark.usefixtures("no_tool")
def test_no_tool_runs_while_the_energy_of_an_fpga_is_counted(bdwp: SimResult) -> None:
    """All of a page: the step, its parts, the scheduler's prices, and machines with one thing better."""
    spec = replace(bdwp.spec, technology="fpga-ultrascale-plus")
    result = replace(bdwp, spec=spec, objective=Objective.ENERGY)
    run = Run(place="", label="a", name="a", result=result, system=None, command="", weft_version="0")
    page = report_page(Contents(runs=(run,), study=None), "an FPGA")

    assert "registers of the machine" in page
    # Other arrays are inferred from those that were counted.
    assert "twice the DRAM bandwidth" in page and "twice the rows of PEs" in page


@pytest.mark.usefixtures("no_tool")
def test_an_fpga_that_nobody_counted_is_refused_before_the_work_and_says_how(
    bdwp: SimResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = replace(bdwp.spec, technology="fpga-ultrascale-plus", pe=replace(bdwp.spec.pe, add_latency=5))
    (tmp_path / "mine.toml").write_text(dumps_spec(spec))
    with pytest.raises(InputError, match=r"not counted yet, nor near what is .*: run `weft area --target xcup`"):
        energy(replace(bdwp, spec=spec))

    for command in (run_command, compare_command, explain_command):
        monkeypatch.setattr(command, "open_workload", lambda *_, **__: pytest.fail("a model was traced"))
    for command in (["run"], ["compare"], ["explain", "energy"]):
        assert main([*command, "resnet18", "--arch", str(tmp_path / "mine.toml")]) == 2
        said = " ".join(capsys.readouterr().err.split())
        assert (
            "those of the array (stce) and the weight update (wuve) of 'tiny' are not counted yet" in said
            and "pe.add_latency = 5" in said
        )
        assert "weft area --target xcup" in said


def test_a_page_of_a_machine_that_was_counted_once_runs_no_tool(
    bdwp: SimResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A preset with half the rows, costed as an FPGA: counted, simulated, reported; else it is inferred."""
    spec = replace(
        bdwp.spec, technology="fpga-ultrascale-plus", array=replace(bdwp.spec.array, rows=bdwp.spec.array.rows // 2)
    )
    monkeypatch.setenv("WEFT_CACHE", str(tmp_path / "counted"))
    halves = Synthesis(
        block="stce",
        target="xcup",
        tools="counted here",
        cells={},
        parts=(
            Part(name="pe", count=8, each=Resources(lut=500, ff=300)),
            Part(name="edges", count=1, each=Resources(lut=1000, ff=70)),
        ),
    )
    remember(spec, BLOCKS["stce"], halves, spec.clock_hz // 1_000_000)
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: pytest.fail("a program was started"))
    for name in ("synthesize", "design"):
        monkeypatch.setattr(synthesis, name, lambda *_: pytest.fail("a block was elaborated"))
    result = simulate(schedule(bdwp.workload, spec))
    rows = {row.action: row for row in ledger(result)}
    assert rows[Actions.FABRIC_MAC].scaling == 500 and rows[Actions.FABRIC_EDGES].scaling == 1000

    folder = tmp_path / "run"
    save_run(result, folder, "weft run")
    assert main(["report", str(folder)]) == 0


def test_where_ops_overlap_leakage_lasts_as_long_as_the_step(bdwp: SimResult) -> None:
    overlapped = simulate_system(schedule(bdwp.workload, bdwp.spec))
    alone, together = energy(bdwp, TABLE), energy(overlapped, TABLE)
    standing = (Actions.STATIC, Actions.LOGIC_LEAKAGE)
    leaks = [row for row in together.rows if row.action in standing]

    for leak, watts in zip(leaks, (3 * 15.51e-6, 24 * 75e-6), strict=True):
        assert leak.count == overlapped.cycles < bdwp.cycles.total
        assert leak.joules == pytest.approx(watts * overlapped.seconds, rel=1e-6)
    assert sum(together.op_zeptojoules) == together.zeptojoules
    rest = [row for row in alone.rows if row.action not in standing]
    assert rest == [row for row in together.rows if row.action not in (*standing, *BEYOND)]


def test_the_energy_objective_saves_energy() -> None:
    """Thrift shows where buffers are small: the fastest tiles stream operands again and again."""
    spec = load_spec("tiny")
    work = annotate(
        Workload(model="wide", batch=1, ops=(*layer("wide", 300, 512, 384), *layer("deep", 96, 2048, 64))),
        "bdwp",
        NMPattern.parse("2:8"),
    )
    fast = simulate(schedule(work, spec))
    frugal = simulate(schedule(work, spec, Objective.ENERGY, prices(spec)))

    # 15 % less, in three times the cycles.
    assert energy(frugal).joules < 0.9 * energy(fast).joules
    assert frugal.cycles.total > fast.cycles.total


def test_the_luts_of_an_xnor_element_are_looked_up_under_the_names_of_block_and_module() -> None:
    spec = load_spec("bnn-ecp5")
    counted = {"xnor_engine": {Xnor.pe: (7, 30), "control": (60, 1)}}

    assert counted.keys() <= BLOCKS.keys()
    assert FABRIC_POPCOUNT.price.number(spec, counted) == 7 + 60 / 30


@pytest.mark.parametrize("name", ["bnn-ecp5", "bnn-vu9p"])
def test_a_cycle_of_the_xnor_engine_at_full_use_is_charged_its_luts_and_none_of_the_other_array(name: str) -> None:
    """Columns for any interleave up to eight."""
    spec, levels = load_spec(name), Levels.BINARY
    table, counted, own = load_table("fpga-ultrascale-plus"), machine_area(spec, "xcup"), require_xnor(spec)
    op = matrix("binary", Pass.FF, Gemm(m=own.rows, k=own.word_bits * 32, n=own.cols * 840))
    op = replace(op, a=replace(op.a, levels=levels), b=replace(op.b, levels=levels))
    step = simulate(schedule(Workload(model="one", batch=1, ops=(op,)), spec))
    rows, (found,) = {row.action: row for row in energy(step, table).rows}, step.ops
    sites = sum(item.lut_sites * item.count for item in counted.items if item.block == "xnor_engine")

    assert rows[FABRIC_POPCOUNT].count == found.cycles.compute * own.elements
    assert rows[FABRIC_POPCOUNT].joules == pytest.approx(found.cycles.compute * sites * (0.01444 + 0.03663) * 1e-12)
    assert not {Actions.FABRIC_EDGES, Actions.FABRIC_MAC} & rows.keys()
