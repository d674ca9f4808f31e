"""Results at a prompt and in a notebook: one line, a table, a figure, a page that stands in any page."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import fields, replace
from html.parser import HTMLParser
from typing import get_args

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from weft.analysis import notebook
from weft.analysis.area import machine_area
from weft.analysis.compare import compare, loss_ledger
from weft.analysis.declared import cycles_kind, figure_words
from weft.analysis.energy import energy
from weft.analysis.need import need
from weft.analysis.study import Study, StudySpec
from weft.analysis.theme import theme_of
from weft.analysis.verify.network import Agreement, Classification
from weft.dataflow.config_io import load_spec
from weft.dataflow.schedule import schedule
from weft.dataflow.streaming import Cost, Fabric, cheapest, streaming_layers
from weft.simulator.network import run_network
from weft.simulator.result import SimResult
from weft.simulator.shown import Shown
from weft.simulator.step import simulate
from weft.simulator.system import simulate_system
from weft.workloads.errors import InputError
from weft.workloads.io import save_workload
from weft.workloads.one_line import LONGEST
from weft.workloads.schemes.annotate import annotate
from weft.workloads.sparsity import NMPattern
from weft.workloads.training.spec import TrainResult, TrainSpec

from ..simulator.test_network import NETWORK, PIXELS
from ..simulator.test_network import SPEC as BNN
from . import results
from .conftest import step

TINY, NM = load_spec("tiny"), NMPattern(keep=2, group=8)
PLAN = schedule(annotate(step(), "bdwp", NM), TINY)
OVERLAPPED = simulate_system(PLAN)
NEED = need(annotate(step(), "bdwp", NM), TINY, "dram")
VOID = {"br", "img", "input", "meta", "link", "hr"}


class Page(HTMLParser):
    """Elements of a fragment; one that is closed out of turn, or not, ends the test."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    def bars(self) -> list[list[float]]:
        """Widths of the parts of every bar, percent."""
        found: list[list[float]] = []
        for tag, attributes in self.elements:
            width = re.search(r"width:([\d.]+)%", attributes.get("style") or "")
            if attributes.get("role") == "img":
                found.append([])
            elif tag == "span" and width:
                found[-1].append(float(width[1]))
        return found


def study() -> Study:
    plan = StudySpec(data="digits", models=("mlp",), schemes=("bdwp",), patterns=(NM,), seeds=2, machine=TINY)
    return Study(spec=plan, rows=results.study().rows, trainings=(), steps={})


def trained() -> TrainResult:
    plan = TrainSpec(
        model="mlp", data="digits", scheme="bdwp", pattern=NM, epochs=1, batch=8, optimizer="sgd",
        learning_rate=0.1, weight_decay=0.0,
    )  # fmt: skip
    return TrainResult(
        spec=plan, log=(), test_loss=0.1, accuracy=0.957, images=(30, 20, 360), digest="0" * 64, device="cpu", hosts=(),
        kept_dense={}, folder=None, model=None, technique=None, measure=None,  # type: ignore[arg-type]
    )  # fmt: skip


def classified() -> Classification:
    agreement = Agreement(what="PyTorch, FP32", exact=False, images=4, bits=9, unequal=(2,), odd=())
    labels = np.arange(4)
    return Classification(
        spec=BNN, trained=trained().spec, batch=4, classes=labels.clip(0, 2), labels=labels, layers=(),
        agreements=(agreement,),
    )  # fmt: skip


@pytest.fixture(scope="module")
def shown(dense: SimResult, bdwp: SimResult) -> dict[str, Shown]:
    return {"step": bdwp, "system": OVERLAPPED, "comparison": compare([dense, bdwp]), "study": study(), "need": NEED}


def test_what_a_user_holds_says_so_in_a_line(dense, bdwp, shown):
    cycles, overlapped = bdwp.cycles.total, OVERLAPPED.cycles
    clock, fabric = TINY.clock_hz, Fabric(name="large", has=Cost(lut=10**6, bram=4000))
    layers = streaming_layers(annotate(step(), "dense", None))
    ran = run_network(BNN, NETWORK, PIXELS)
    record, area = OVERLAPPED.record(), machine_area(load_spec("sat-ecp5"), "ecp5")
    assert record is not None
    said = [
        (PLAN, "<Schedule: toy, batch 10, bdwp 2:8 on tiny by thrift: 12 products of "),
        (bdwp, f"<SimResult: toy, batch 10, bdwp 2:8 on tiny: {cycles:,} cycles, {1e6 * cycles / clock:.0f} µs>"),
        (OVERLAPPED, f"<SystemResult: toy, batch 10, bdwp 2:8 on tiny: {overlapped:,} cycles, "),
        (shown["comparison"], "<Comparison: toy, batch 10, on tiny: dense "),
        (shown["study"], "<Study: digits, 1 model, 2 seeds on tiny: 3 rows of 0 trainings>"),
        (trained(), "<TrainResult: mlp on digits, bdwp 2:8, seed 0: 95.70 % of 360 test images after 0 epochs, "),
        (classified(), "<Classification: 4 images of digits by mlp under bdwp on bnn-ecp5: 75.00 % right, 0 cycles, "),
        (ran, f"<NetworkRun: 9 images through 3 layers: {ran.cycles:,} cycles>"),
        (cheapest(layers, 10**6, fabric), "<Pipeline: 4 layers, a frame every "),
        (bdwp.ops[0], f"<OpResult: FF net.0.conv, aten.mm 50 x 27 x 16: {bdwp.ops[0].cycles.total:,} cycles>"),
        (record.timeline["DRAM"], "<Intervals: op int64 ["),
        (record.buffers["W2E"], "<Occupancy: time int64 ["),
    ]

    assert [(name, repr(held)) for held, name in said if not repr(held).startswith(name)] == []
    others = [record, *ran.layers, ran.forward, NETWORK, energy(bdwp), loss_ledger(bdwp, dense), area]
    assert [repr(held) for held in (*(held for held, _ in said), *others) if not 20 < len(repr(held)) <= LONGEST] == []


def test_every_result_has_a_table_a_figure_and_a_page():
    """By name: a dataclass with slots is made of another class, which may still be around."""
    kinds = {kind.__qualname__ for kind in Shown.__subclasses__()}

    assert {kind.__qualname__ for kind in get_args(notebook.Presented)} == kinds


@pytest.mark.parametrize("kind", ["step", "system"])
def test_the_table_of_a_step_adds_up_to_it(shown, kind):
    frame, whole = shown[kind].frame(), shown["step"]
    counts = whole.counts

    assert len(frame) == len(whole.ops)
    assert frame["cycles"].sum() == whole.cycles.total
    assert {c: frame[c].sum() for c in figure_words(cycles_kind(whole.ops))} == {
        f.name: getattr(whole.cycles, f.name) for f in fields(whole.cycles)
    }
    moved = ("dram_read_bytes", "dram_write_bytes", "macs")
    assert {name: frame[name].sum() for name in moved} == {name: getattr(counts, name) for name in moved}
    assert frame["energy_j"].sum() == pytest.approx(energy(shown[kind]).joules, rel=1e-12)


def test_the_table_of_overlapped_ops_says_when_each_ran(shown):
    frame = shown["system"].frame()

    assert (frame["start"] < frame["end"]).all()
    assert frame["end"].max() == OVERLAPPED.cycles
    assert frame["start"].min() == 0


def test_tables_of_a_comparison_and_a_study_have_a_row_a_run(shown):
    compared, studied = shown["comparison"].frame(), shown["study"].frame()
    row = shown["comparison"].rows[1]

    assert compared["scheme"].tolist() == ["dense", "bdwp"]
    assert compared.loc[1, ["cycles", "energy_j", "saving"]].tolist() == [row.cycles, row.energy_j, row.saving.share]
    assert pd.isna(compared.loc[0, "saving"])
    assert studied["scheme"].tolist() == ["dense", "bdwp", "sdwp"]


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("kind", ["step", "system", "comparison", "study", "need"])
def test_a_figure_is_drawn_beside_pyplot(shown, kind, theme):
    before = dict(mpl.rcParams)
    drawn = shown[kind].plot(theme)

    assert isinstance(drawn, Figure)
    assert drawn.get_facecolor() == mpl.colors.to_rgba(theme_of(theme).background)
    assert drawn._repr_png_().startswith(b"\x89PNG\r\n")
    assert plt.get_fignums() == []
    assert dict(mpl.rcParams) == before


def test_a_theme_that_is_not_there_is_refused(shown):
    with pytest.raises(InputError, match="theme 'drak' is unknown: did you mean 'dark'"):
        shown["step"].plot("drak")


@pytest.mark.parametrize("kind", ["step", "system", "comparison", "study", "need"])
def test_a_page_is_well_formed_and_loads_nothing(shown, kind):
    page = Page(shown[kind]._repr_html_())

    assert {tag for tag, _ in page.elements} <= {"div", "p", "span", "strong", "code"}
    assert {name for _, attributes in page.elements for name in attributes} <= {
        "style", "class", "title", "role", "aria-label",
    }  # fmt: skip
    assert "url(" not in shown[kind]._repr_html_()
    assert repr(shown[kind]) in page.text


def test_bars_are_the_cycles_by_cause(shown):
    results = {"step": [shown["step"]], "comparison": shown["comparison"].results}
    for kind, steps in results.items():
        bars = Page(shown[kind]._repr_html_()).bars()
        for one, bar in zip(steps, bars, strict=True):
            spent = [getattr(one.cycles, c) for c in figure_words(cycles_kind(one.ops)) if getattr(one.cycles, c)]
            assert bar == pytest.approx([100 * n / one.cycles.total for n in spent], abs=1e-4)


def test_verdicts_say_what_is_faster_and_by_how_much(shown):
    dense, bdwp = shown["comparison"].results
    ratio = dense.cycles.total / bdwp.cycles.total

    assert f"bdwp 2:8 is {ratio:.2f} times as fast as dense" in Page(shown["comparison"]._repr_html_()).text
    assert "with ops overlapped" in Page(shown["system"]._repr_html_()).text
    assert "GB/s of DRAM to be within 1 % of what" in Page(shown["need"]._repr_html_()).text
    assert "bdwp 2:8 reaches the target 1.50 times as fast as dense" in Page(shown["study"]._repr_html_()).text


def test_names_that_are_markup_stay_names():
    found = simulate(schedule(annotate(results.workload(), "bdwp", NM), TINY))
    page = Page(found._repr_html_())

    assert results.HOSTILE in page.text
    assert "script" not in {tag for tag, _ in page.elements}


def test_without_work_or_prices_there_is_no_verdict_but_a_page(bdwp):
    odd = replace(TINY, technology="fpga-ultrascale-plus", pe=replace(TINY.pe, add_latency=7))
    for found, why in ((replace(bdwp, ops=()), "has no work"), (replace(bdwp, spec=odd), "weft area")):
        text = Page(found._repr_html_()).text
        assert "No verdict: " in text
        assert why in text


def test_looking_at_a_line_costs_no_tables_and_a_figure_no_pyplot(tmp_path):
    save_workload(step(), tmp_path / "step.json")
    code = f"""
import sys
import weft
from weft.workloads.io import load_workload
found = weft.simulate(weft.schedule(load_workload({str(tmp_path / "step.json")!r}), "tiny"))
def loaded(): return sorted({{"pandas", "matplotlib", "matplotlib.pyplot", "torch", "IPython"}} & set(sys.modules))
print(len(repr(found)) < 200, loaded())
print(found._repr_html_()[:4], len(found.frame()), type(found.plot()).__name__, loaded())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    first, second = done.stdout.splitlines()
    assert first == "True []"
    assert second == f"<div {len(step().ops)} Picture ['matplotlib', 'pandas']"
