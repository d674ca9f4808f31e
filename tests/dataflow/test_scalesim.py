"""SCALE-Sim v3's cycles, row by row."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from weft.dataflow.scalesim import scalesim_cycles
from weft.workloads.errors import InputError
from weft.workloads.gemm import Gemm

GOLDEN = Path(__file__).parents[1] / "golden" / "scalesim_v3_gemm.csv"


def _rows():
    with GOLDEN.open() as file:
        return list(csv.DictReader(line for line in file if not line.startswith("#")))


@pytest.mark.parametrize("row", _rows(), ids=lambda r: f"{r['name']}-{r['rows']}-{r['dataflow']}")
def test_reproduces_scalesim_v3(row):
    gemm = Gemm(m=int(row["m"]), k=int(row["k"]), n=int(row["n"]))

    assert scalesim_cycles(gemm, int(row["rows"]), int(row["cols"]), row["dataflow"]) == int(row["cycles"])


def test_unknown_dataflow_is_refused():
    with pytest.raises(InputError, match="'rs' is unknown to the scalesim convention: choose one of os, ws, is"):
        scalesim_cycles(Gemm(m=1, k=1, n=1), 8, 8, "rs")
