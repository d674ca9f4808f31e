"""Sparseloop's sparse tensor core: dense and 2:4 exactly; where 2:8 and 2:6 stop, and why ours stops elsewhere.

That machine has 1,024 MACs and operand bandwidth sized for 2:4. Our spec of it is a 32 x 32 array whose rows receive
two dense words a cycle: the rate at which 2:4 consumes them. Steady-state time is compared, for its model has no skew.
"""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import pytest

from weft.dataflow.stce.mapping import DENSE, ArrayMapping, Dataflow
from weft.dataflow.stce.time import array_cycles
from weft.workloads.gemm import Gemm
from weft.workloads.sparsity import NMPattern

GOLDEN = Path(__file__).parents[1] / "golden" / "sparse_tensor_core.csv"
PATTERNS = {"1.0": DENSE, "0.5": NMPattern(keep=2, group=4), "0.25": NMPattern(keep=2, group=8)}


def _rows(engine: str):
    with GOLDEN.open() as file:
        rows = csv.DictReader(line for line in file if not line.startswith("#"))
        return [r for r in rows if r["engine"] == engine and not r["metadata"] and r["weight_density"] in PATTERNS]


def _steady(spec, row) -> int:
    gemm = Gemm(m=int(row["m"]), k=int(row["k"]), n=int(row["n"]))
    mapping = ArrayMapping(dataflow=Dataflow.OS, pattern=PATTERNS[row["weight_density"]], interleave=1)
    cycles = array_cycles(spec, gemm, mapping)
    assert cycles.fill_drain < 2 * (spec.array.rows + spec.array.cols) + 16
    return cycles.compute + cycles.port_stall


@pytest.fixture(scope="module")
def tensor_core(sat):
    array = replace(sat.array, w2e_words=2)
    return replace(sat, name="stc", array=array, pe=replace(sat.pe, add_latency=1, accumulators=1))


@pytest.mark.parametrize("row", [r for r in _rows("STC_flexible") if r["weight_density"] in ("1.0", "0.5")], ids=str)
def test_dense_and_2_of_4_are_exact(tensor_core, row):
    assert _steady(tensor_core, row) == int(row["cycles"])


@pytest.mark.parametrize("row", [r for r in _rows("STC_flexible") if r["weight_density"] == "0.25"], ids=str)
def test_2_of_8_is_bound_by_operand_bandwidth(tensor_core, row):
    """Ours stays at the 2:4 time, 21/19 of theirs.

    Their weights, activations and results share one bandwidth, so that halving the weights leaves room for activations:
    both published rows are ceil(2:4 time x 19/21) (inferred from the figures). Our dense operand has its own port.
    """
    ours, theirs = _steady(tensor_core, row), int(row["cycles"])
    two_of_four = int(row["m"]) * int(row["k"]) * int(row["n"]) // 1024 // 2

    # The very last group has no successor to wait for: two of its four cycles are not spent.
    assert ours == two_of_four - 2
    assert theirs == -(-two_of_four * 19 // 21)


def test_a_wider_port_frees_2_of_8(tensor_core):
    wide = replace(tensor_core, array=replace(tensor_core.array, w2e_words=4))
    gemm = Gemm(m=128, k=1152, n=1024)
    cycles = array_cycles(
        wide, gemm, ArrayMapping(dataflow=Dataflow.OS, pattern=NMPattern(keep=2, group=8), interleave=1)
    )

    assert cycles.compute == gemm.macs // 4 // 1024
    assert cycles.port_stall == 0
