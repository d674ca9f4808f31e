"""The waterfall from a promise to a step: exact, whatever the step, and its words add up."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weft.analysis.compare import compare
from weft.analysis.comparison_files import comparison_dict
from weft.analysis.figures import promise_figure
from weft.analysis.level import AnyResult, cycles_of
from weft.analysis.promise import Promise, promise, promise_words, promises, stages
from weft.dataflow.config_io import load_spec
from weft.dataflow.schedule import schedule
from weft.simulator.result import SimResult
from weft.simulator.system import simulate_system
from weft.workloads.errors import InputError
from weft.workloads.gemm import Pass
from weft.workloads.schemes.annotate import annotate
from weft.workloads.sparsity import NMPattern
from weft.workloads.step import Workload

from ..examples_drawn import examples
from .conftest import layer, relu, run, step


def kept(sparse: AnyResult, dense: AnyResult) -> Promise:
    found = promise(sparse, dense)
    assert found is not None
    return found


def require_whole(found: Promise, sparse: AnyResult, dense: AnyResult) -> None:
    """Every sum of the waterfall, in cycles and in times of the speed-up."""
    assert (found.dense, found.measured) == (cycles_of(dense), cycles_of(sparse))
    assert found.promised + sum(loss.cycles for loss in found.losses) == cycles_of(sparse)
    times = sum((loss.times for loss in found.losses), Fraction(0))
    assert times == Fraction(found.dense) / found.promised - Fraction(found.dense, found.measured)
    assert all(loss.cycles and (loss.cycles > 0) == (loss.times > 0) for loss in found.losses)
    for least in (0.0, 0.01, 1.0):
        bars = stages(found, least)
        at = Fraction(0)
        for bar in bars:
            assert (bar.whole and bar.start == 0) or bar.start == at
            assert not bar.whole or at in (0, bar.end)  # a whole is as long as what came before it
            at = bar.end
        assert at == cycles_of(sparse) and sum(bar.times for bar in bars) == times
        assert [bar.label for bar in bars if bar.whole] == ["dense", "promised", "measured"]


@settings(max_examples=examples(25))
@given(
    rows=st.integers(1, 40),
    inputs=st.integers(1, 40),
    outputs=st.integers(1, 40),
    scheme=st.sampled_from(["srste", "sdgp", "sdwp", "bdwp"]),
    pattern=st.sampled_from(["1:4", "2:8", "3:5"]),
)
def test_from_promise_to_step_nothing_is_missing(
    rows: int, inputs: int, outputs: int, scheme: str, pattern: str
) -> None:
    work = Workload(model="any", batch=1, ops=(*layer("fc", rows, inputs, outputs), relu("r", rows)))
    sparse, dense = run(scheme, pattern, workload=work), run("dense", workload=work)
    found, share = kept(sparse, dense), NMPattern.parse(pattern)

    require_whole(found, sparse, dense)
    # One layer: each pass is a third of the products, thinned out or not; the promise counts nothing else.
    thinned = {"srste": 1, "sdgp": 1, "sdwp": 1, "bdwp": 2}[scheme]
    density = Fraction(share.keep, share.group)
    assert found.promised == dense.cycles.total * (thinned * density + 3 - thinned) / 3
    assert found.thinned == dense.cycles.total * density


def test_a_step_by_hand(bdwp: SimResult, dense: SimResult) -> None:
    found = kept(bdwp, dense)
    lost = {loss.item: loss.cycles for loss in found.losses}

    require_whole(found, bdwp, dense)
    assert (found.left_dense, found.pattern, found.ideal_speedup) == ((Pass.WU,), "2:8", 2)
    # Dense vector work is as long as sparse: half of it is more than the promise allows.
    assert lost["vector work"] == Fraction(bdwp.cycles.vector, 2)
    assert lost["kept dense: first convolution"] == Fraction(50 * 27 * 16 * 3, 2 * 16)
    assert "ideal" not in lost


def test_overlapped_steps_count_in_their_own_time() -> None:
    spec, pattern = load_spec("tiny"), NMPattern.parse("2:8")
    dense, sparse = (simulate_system(schedule(annotate(step(), scheme, pattern), spec)) for scheme in ("dense", "bdwp"))
    found = kept(sparse, dense)

    require_whole(found, sparse, dense)
    assert found.measured < sparse.step.cycles.total
    (gain,) = (loss.cycles for loss in found.losses if loss.item == "ops overlapped")
    assert gain == (sparse.cycles - sparse.step.cycles.total) - Fraction(dense.cycles - dense.step.cycles.total, 2)


def test_words_add_up_as_printed(bdwp: SimResult, dense: SimResult) -> None:
    for scheme in ("srste", "sdgp", "bdwp"):
        sparse = run(scheme)
        for most in (0, 1, 3, 99):
            words = promise_words(kept(sparse, dense), most)
            head, _, said = words.partition(": ")
            promised, got = (round(100 * float(n)) for n in re.findall(r"([\d.]+)×", head))
            lost, _, won = said.partition("won ")
            change = [sum(round(100 * float(n)) for n in re.findall(r"([\d.]+)×", part)) for part in (lost, won)]
            assert promised - got == change[0] - change[1]
    assert promise_words(kept(bdwp, dense)).startswith("promised 2.00×, got ")


def test_nothing_is_promised_without_a_pattern_or_a_dense_run(bdwp: SimResult, dense: SimResult) -> None:
    slow = replace(bdwp, spec=replace(bdwp.spec, name="slow", clock_hz=50_000_000))

    assert promise(dense, dense) is None
    assert promises(compare([bdwp])) == {} == promises(compare([dense, slow]))
    with pytest.raises(InputError, match="promises"):
        promise_figure(compare([dense]))


def test_the_figure_and_the_document_have_every_scheme(bdwp: SimResult, dense: SimResult) -> None:
    comparison = compare([dense, run("srste"), bdwp])
    found = promises(comparison)
    figure = promise_figure(comparison)
    document = json.loads(json.dumps(comparison_dict(comparison)["promises"]))

    assert list(found) == ["srste 2:8", "bdwp 2:8"] == list(document)
    assert len(figure.axes) == 2
    for ax, (name, one) in zip(figure.axes, found.items(), strict=True):
        bars = stages(one)
        assert [text.get_text() for text in ax.get_yticklabels()] == [bar.label for bar in bars]
        widths = [patch.get_width() for patch in ax.patches]
        whole = widths[0] / one.dense
        assert widths == pytest.approx([abs(float(bar.end - bar.start)) * whole for bar in bars])
        cycles = document[name]["promised_cycles"] + sum(loss["cycles"] for loss in document[name]["losses"])
        assert cycles == pytest.approx(document[name]["cycles"])
