"""Figures draw in both themes, and their words neither overlap nor leave the page."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from itertools import combinations

import pytest
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

from weft.analysis.compare import compare, losses
from weft.analysis.figures import (
    comparison_figure,
    dram_figure,
    energy_figure,
    layers_figure,
    need_figure,
    promise_figure,
    roofline_figure,
)
from weft.analysis.figures.drawing import head
from weft.analysis.layer_groups import OTHER, group_layers, short_labels
from weft.analysis.need import need
from weft.analysis.theme import theme_of
from weft.dataflow.schedule import schedule
from weft.simulator.result import SimResult
from weft.simulator.system import simulate_system
from weft.simulator.system_result import SystemResult
from weft.workloads.errors import InputError
from weft.workloads.gemm import Gemm, Pass
from weft.workloads.step import Op, Workload

from ..conftest import matrix, relu, run


def overlapped(result: SimResult) -> SystemResult:
    return simulate_system(schedule(result.workload, result.spec))


Draw = Callable[[SimResult, SimResult, str], Figure]
FIGURES: dict[str, Draw] = {
    "layers": lambda dense, bdwp, theme: layers_figure(bdwp, theme),
    "roofline": lambda dense, bdwp, theme: roofline_figure(bdwp, theme),
    "layers, ops overlapped": lambda dense, bdwp, theme: layers_figure(overlapped(bdwp), theme),
    "roofline, ops overlapped": lambda dense, bdwp, theme: roofline_figure(overlapped(bdwp), theme),
    "need, bandwidth": lambda dense, bdwp, theme: need_figure(need(bdwp.workload, bdwp.spec, "dram"), theme),
    "need, buffers": lambda dense, bdwp, theme: need_figure(need(bdwp.workload, bdwp.spec, "buffers"), theme),
    "need, array": lambda dense, bdwp, theme: need_figure(need(bdwp.workload, bdwp.spec, "array"), theme),
    "energy": lambda dense, bdwp, theme: energy_figure(bdwp, theme),
    "energy, ops overlapped": lambda dense, bdwp, theme: energy_figure(overlapped(bdwp), theme),
    "dram": lambda dense, bdwp, theme: dram_figure(bdwp, theme),
    "dram, ops overlapped": lambda dense, bdwp, theme: dram_figure(overlapped(bdwp), theme),
    "promise": lambda dense, bdwp, theme: promise_figure(compare([dense, run("sdgp"), bdwp]), theme),
    "comparison": lambda dense, bdwp, theme: comparison_figure(compare([dense, bdwp]), theme),
}


def words(figure: Figure) -> list[Text]:
    FigureCanvasAgg(figure).draw()
    unseen = {id(label) for ax in figure.axes for axis in (ax.xaxis, ax.yaxis) for label in out_of_range(axis)}
    texts = [t for t in figure.findobj(Text) if isinstance(t, Text) and id(t) not in unseen]
    return [t for t in texts if t.get_visible() and t.get_text().strip()]


def out_of_range(axis: Axis) -> list[Text]:
    """Labels of ticks that exist but are not drawn."""
    low, high = sorted(axis.get_view_interval())
    ticks = [*axis.get_major_ticks(), *axis.get_minor_ticks()]
    return [label for t in ticks if not low <= t.get_loc() <= high for label in (t.label1, t.label2)]


def assert_readable(figure: Figure) -> None:
    boxes = [(t.get_text(), t.get_window_extent()) for t in words(figure)]
    for text, box in boxes:
        assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1, text
    for (one, a), (other, b) in combinations(boxes, 2):
        overlap = min(a.x1, b.x1) - max(a.x0, b.x0) > 1 and min(a.y1, b.y1) - max(a.y0, b.y0) > 2
        assert not overlap, f"{one!r} and {other!r} overlap"


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("name", FIGURES)
def test_figures_draw_and_are_readable(name: str, theme: str, dense: SimResult, bdwp: SimResult) -> None:
    figure = FIGURES[name](dense, bdwp, theme)
    image = BytesIO()
    figure.savefig(image)

    assert image.getvalue().startswith(b"\x89PNG")
    assert_readable(figure)
    assert min(float(t.get_fontsize()) for t in words(figure)) >= 9


@pytest.mark.parametrize("machine", ["tiny", "dense-32"])
@pytest.mark.parametrize("blocks", [1, 30])
def test_layers_stay_readable_from_one_to_many(machine: str, blocks: int) -> None:
    ops: list[Op] = []
    for i in range(blocks):
        name = f"model.layers.{i}.self_attention.query_projection.linear"
        ops += [matrix(name, Pass.FF, Gemm(m=8 + i, k=64, n=16)), relu(f"model.layers.{i}.activation", 100 * i)]
    result = run("dense", workload=Workload(model="deep", batch=1, ops=tuple(ops)), machine=machine)

    assert_readable(layers_figure(result))
    assert_readable(roofline_figure(result))


def test_the_title_states_the_finding(dense: SimResult, bdwp: SimResult) -> None:
    def title(figure: Figure) -> str:
        return figure.texts[0].get_text() + "".join(t.get_text() for t in figure.texts)

    speedup = dense.cycles.total / bdwp.cycles.total
    assert f"bdwp 2:8 trains toy {speedup:.2f}× as fast as dense" in title(comparison_figure(compare([dense, bdwp])))
    lost = losses(bdwp)
    assert "The array computes in " in title(layers_figure(bdwp))
    assert f"the largest loss is {max(lost, key=lambda item: lost[item])}" in title(layers_figure(bdwp))
    assert " of the GEMM time is spent within 10 % of the roof" in title(roofline_figure(bdwp))


def test_a_long_title_is_written_smaller_and_a_short_one_is_not() -> None:
    sizes = []
    for words in (3, 12):
        figure = Figure(figsize=(10.5, 4))
        head(figure, "accumulators " * words, "ports " * 3 * words, theme_of("light"))
        for text in figure.texts:
            box = text.get_window_extent(FigureCanvasAgg(figure).get_renderer())
            assert box.x1 <= figure.bbox.x1
            sizes.append(text.get_fontsize())
    assert sizes[:2] == [12.5, 9.5] and sizes[2] < 11 and sizes[3] < 9


def test_an_unknown_theme_names_the_nearest(bdwp: SimResult) -> None:
    with pytest.raises(InputError, match="theme 'drak' is unknown: did you mean 'dark'"):
        layers_figure(bdwp, "drak")


def test_nothing_to_draw_is_an_input_error(bdwp: SimResult) -> None:
    with pytest.raises(InputError, match="no work"):
        layers_figure(replace(bdwp, ops=()))
    with pytest.raises(InputError, match="no matrix op"):
        roofline_figure(replace(bdwp, ops=()))


def test_small_layers_become_other() -> None:
    bars = group_layers({f"fc{i}": 100 if i < 3 else 1 for i in range(30)}, limit=5)

    assert [layer for layer, bar in bars.items() if bar != OTHER] == ["fc0", "fc1", "fc2", "fc3", "fc4"]


def test_repeated_blocks_are_folded_from_the_inside() -> None:
    cycles = {f"net.stages.{s}.layers.{i}.conv.weight": 1 for s in range(3) for i in range(4)}

    assert set(group_layers(cycles, limit=3).values()) == {f"net.stages.{s}.layers.*.conv.weight" for s in range(3)}
    assert set(group_layers(cycles, limit=2).values()) == {"net.stages.*.layers.*.conv.weight"}


def test_a_plain_list_of_layers_is_not_folded() -> None:
    bars = group_layers({f"features.{i}": 1 for i in range(10)}, limit=4)

    assert list(bars.values()).count(OTHER) == 6


def test_labels_lose_their_common_head_and_keep_their_tail() -> None:
    assert short_labels(["a.b.0.x", "a.b.1.x", "c"]) == ["b.0.x", "b.1.x", "c"]
    assert short_labels(["x" * 50], longest=10) == ["…" + "x" * 9]
