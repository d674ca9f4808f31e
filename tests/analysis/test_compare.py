"""Schemes side by side, and the loss ledger that accounts for every cycle."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weft.analysis.compare import IDEAL, SHORT_GROUPS, LossLedger, compare, loss_ledger
from weft.simulator.result import SimResult
from weft.workloads.errors import InputError
from weft.workloads.step import Workload

from ..examples_drawn import examples
from .conftest import layer, relu, run, step


def items(ledger: LossLedger) -> dict[str, float]:
    return {row.item: float(row.cycles) for row in ledger.rows}


@pytest.mark.parametrize("scheme", ["dense", "srste", "sdgp", "sdwp", "bdwp"])
def test_the_ledger_accounts_for_every_cycle(scheme: str, dense: SimResult) -> None:
    sparse = run(scheme)
    ledger = loss_ledger(sparse, dense)

    assert sum(row.cycles for row in ledger.rows) == sparse.cycles.total
    assert sum(row.dense_cycles for row in ledger.rows) == dense.cycles.total
    assert all(row.cycles >= 0 and row.dense_cycles >= 0 for row in ledger.rows)
    assert ledger.speedup == dense.cycles.total / sparse.cycles.total


@settings(max_examples=examples(25))
@given(
    rows=st.integers(1, 40),
    inputs=st.integers(1, 40),
    outputs=st.integers(1, 40),
    scheme=st.sampled_from(["srste", "sdgp", "bdwp"]),
    pattern=st.sampled_from(["1:4", "2:8", "3:5"]),
)
def test_the_ledger_accounts_for_any_layer(rows: int, inputs: int, outputs: int, scheme: str, pattern: str) -> None:
    work = Workload(model="any", batch=1, ops=(*layer("fc", rows, inputs, outputs), relu("r", rows)))
    sparse, dense = run(scheme, pattern, workload=work), run("dense", workload=work)
    ledger = loss_ledger(sparse, dense)

    assert sum(row.cycles for row in ledger.rows) == sparse.cycles.total
    assert sum(row.dense_cycles for row in ledger.rows) == dense.cycles.total


def test_the_rows_by_hand(bdwp: SimResult, dense: SimResult) -> None:
    found = items(loss_ledger(bdwp, dense))
    first, second, third, head = 50 * 27 * 16, 50 * 20 * 24, 30 * 4 * 4, 10 * 64 * 33

    # 16 PEs; a quarter of FF and BP, all of WU.
    assert found[IDEAL] == pytest.approx((first + second + third + head) * 1.5 / 16)
    assert found["kept dense: first convolution"] == pytest.approx(first * 1.5 / 16)
    assert found["kept dense: short contraction runs"] == pytest.approx(third * 1.5 / 16)
    # Runs of 20 keep 6 where a quarter is 5; the head's outputs, 33, keep 9 where a quarter is 8.25.
    assert found[SHORT_GROUPS] == pytest.approx((50 * 24 * 1 + 10 * 64 * 0.75) / 16)
    assert found["vector work"] == bdwp.cycles.vector
    assert found["fill and drain"] == bdwp.cycles.fill_drain


def test_a_dense_run_loses_nothing_to_density(dense: SimResult) -> None:
    ledger = loss_ledger(dense, dense)

    assert items(ledger)[IDEAL] == dense.dense_macs / 16
    assert not any(row.item.startswith("kept dense") or row.item == SHORT_GROUPS for row in ledger.rows)
    assert ledger.speedup == ledger.ideal_speedup == 1


def test_bdwp_2_8_promises_twice_the_speed(bdwp: SimResult, dense: SimResult) -> None:
    dense_row, row = compare([dense, bdwp]).rows

    assert row.ideal_speedup == pytest.approx(2.0)
    assert row.mac_speedup == dense.counts.macs / bdwp.counts.macs < row.ideal_speedup
    assert row.speedup == pytest.approx(dense.cycles.total / bdwp.cycles.total)
    assert (dense_row.speedup, dense_row.mac_speedup, dense_row.ideal_speedup) == (1, 1, 1)
    assert (row.scheme, row.pattern, row.machine) == ("bdwp", "2:8", "tiny")


def test_the_dense_run_is_the_baseline_wherever_it_stands(bdwp: SimResult, dense: SimResult) -> None:
    assert compare([bdwp, dense]).baseline is dense
    assert compare([bdwp]).baseline is bdwp


def test_machines_are_compared_in_time(dense: SimResult) -> None:
    slow = replace(dense, spec=replace(dense.spec, name="slow", clock_hz=50_000_000))

    assert compare([dense, slow]).rows[1].speedup == pytest.approx(0.5)
    with pytest.raises(InputError, match="one size and clock"):
        loss_ledger(slow, dense)


def test_only_one_model_at_one_batch_is_compared(dense: SimResult) -> None:
    other = run("dense", workload=replace(step(), batch=11))

    with pytest.raises(InputError, match=r"'toy' at batch 10 .* with 'toy' at batch 11"):
        compare([dense, other])
    with pytest.raises(InputError, match="at least one result"):
        compare([])
