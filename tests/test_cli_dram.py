"""`weft dram`: a document, a table, and refusals."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from weft.cli import main


def document(capsys: pytest.CaptureFixture[str], *options: str) -> dict[str, object]:
    assert main(["dram", *options, "--json"]) == 0
    found: dict[str, object] = json.loads(capsys.readouterr().out)
    return found


def test_a_pattern(capsys: pytest.CaptureFixture[str]) -> None:
    found = document(
        capsys, "--spec", "ddr4-2400-x8", "--map", "column-low", "--pattern", "seq_read", "--requests", "5000"
    )
    assert found["memory"] == "ddr4-2400-x8" and found["requests"] == found["reads"] == 5000
    assert 70 < float(str(found["percent_of_peak"])) < 80
    assert float(str(found["gb_per_s"])) == pytest.approx(0.192 * float(str(found["percent_of_peak"])))


def test_a_trace(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "requests.csv"
    path.write_text("address,op,time\n0x0,R,0\n64,W,50\n")
    found = document(capsys, "--spec", "ddr4-2400-x8", "--trace", str(path))
    assert (found["reads"], found["writes"], found["activates"]) == (1, 1, 2)
    assert main(["dram", "--trace", str(path)]) == 0
    assert "GB/s" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("--spec ddr5", "choose one of ddr4-2400-x16"),
        ("--map sideways", "choose one of bg-interleaved, channel-hashed, column-low"),
        ("--pattern seq", "seq_read|write"),
        ("--requests 0", "nearest valid value is 1"),
        ("--trace {bad}", "bad.csv:2: operation must be R or W, not 'Q'"),
        ("--trace {bad} --requests 4", "leave out --pattern and --requests"),
        ("--trace missing.csv", "cannot be read"),
        ("--arch tiny --spec ddr4-2400-x4", "leave out --spec"),
    ],
)
def test_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path, options: str, said: str) -> None:
    bad = tmp_path / "bad.csv"
    bad.write_text("0,R\n64,Q\n")
    assert main(["dram", *(part.format(bad=bad) for part in options.split())]) == 2
    shown = capsys.readouterr()
    assert shown.out == "" and said in shown.err and "Traceback" not in shown.err
