"""`weft explore`: what its terminal shows of a front with more columns than there is room for."""

from __future__ import annotations

from pathlib import Path

import pytest

from weft.cli import main
from weft.workloads.io import save_workload

from .analysis.conftest import step

AXES = """
"array.rows" = [4, 8]
"array.cols" = [4, 8]
"sore.lanes" = [4, 8]
"wuve.lanes" = [4, 8]
"vector.lanes" = [4, 8]
"pe.accumulators" = [4, 8]
"buffers.w2e_bytes" = [65536, 131072]
"buffers.n2s_bytes" = "buffers.w2e_bytes"
"buffers.output_bytes" = "buffers.w2e_bytes"
"dram.bytes_per_second" = [1600000000, 3200000000]
"""


def test_columns_that_do_not_fit_are_named_and_no_digit_is_lost(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_workload(step(), tmp_path / "toy.json")
    space = tmp_path / "space.toml"
    lanes = ', "sore.lanes", "wuve.lanes", "vector.lanes", "pe.accumulators", "buffers.w2e_bytes"'
    objectives = f'objectives = ["seconds"{lanes}, "dram.bytes_per_second"]'
    space.write_text(f'model = "{tmp_path / "toy.json"}"\narch = "tiny"\n{objectives}\n[axes]{AXES}')

    assert main(["explore", str(space), "-o", str(tmp_path / "out")]) == 0
    out = capsys.readouterr().out

    assert "\N{HORIZONTAL ELLIPSIS}" not in out
    assert "seconds" in out
    hidden = next(line for line in out.splitlines() if line.startswith("No room for "))
    table = out[out.index("The front") : out.index("No room for ")]
    named = hidden.removeprefix("No room for ").partition(", which ")[0].split(", ")
    assert all(name not in table for name in named)
