"""`weft need`: the answer first, a table, one JSON document, a folder, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import weft
from weft.cli import main
from weft.workloads.io import save_workload

from .analysis.conftest import step


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "toy.json"
    save_workload(step(), path)
    return path


def test_the_answer_comes_first_and_a_table_after_it(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["need", str(model), "--arch", "tiny", "--dram", "--within", "5 %"]) == 0
    out = capsys.readouterr().out
    found = weft.need(weft.sparsify(step(), "bdwp", "2:8"), "tiny", "dram", 0.05)
    amount = found.resource.amount(found.least.size)

    assert max(map(len, out.splitlines())) <= 100
    assert " ".join(out.split()).startswith(f"toy, batch 10, bdwp 2:8 on tiny needs {amount} of DRAM to be within 5 %")
    for said in ("Knee at ", "least within 5 %", "the machine", "bandwidth"):
        assert said in out


def test_one_document_and_a_folder(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    asked = ["need", str(model), "--arch", "tiny", "--dram", "--buffers", "--nm", "1:4", "--json", "-o", str(out)]
    assert main(asked) == 0
    document: dict[str, Any] = json.loads(capsys.readouterr().out)

    assert (document["scheme"], document["pattern"], document["within"]) == ("bdwp", "1:4", 0.01)
    assert list(document["needs"]) == ["dram", "buffers"]
    assert document == json.loads((out / "need.json").read_text())
    rows = (out / "need-buffers.csv").read_text().splitlines()
    assert rows[0].startswith("line,buffers.w2e_bytes,buffers.n2s_bytes,buffers.output_bytes,size,cycles,seconds")
    assert len(rows) == 2 + sum(len(line["points"]) for line in document["needs"]["buffers"]["lines"])
    assert (out / "need-dram.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (("resnet9",), "give --dram, --buffers or --array"),
        (("resnet9", "--dram", "--within", "0%"), "--within must be above 0% and at most 100%, not 0%"),
        (("resnet9", "--dram", "--within", "-1%"), "--within must be above 0% and at most 100%, not -1%"),
        (("resnet9", "--dram", "--within", "200%"), "--within must be above 0% and at most 100%, not 200%"),
        (("resnet9", "--dram", "--within", "0.01"), "--within '0.01' is not a percentage such as 1%"),
        (("resnet9", "--dram", "--within", "nan%"), "--within 'nan%' is not a percentage"),
        (("resnet99", "--dram"), "model 'resnet99' is unknown: did you mean"),
        (("resnet9", "--dram", "--arch", "tinny"), "tiny"),
        (("resnet9", "--dram", "--objective", "edp"), "'edp' is not one of 'cycles', 'thrift'"),
    ],
)
def test_what_is_refused(asked: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["need", *asked]) == 2
    out, err = capsys.readouterr()

    assert not out
    assert said in err
    assert "Traceback" not in err


def test_a_file_of_the_users_is_kept(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    theirs = tmp_path / "need-dram.csv"
    theirs.write_text("mine\n")
    assert main(["need", str(model), "--arch", "tiny", "--dram", "-o", str(tmp_path)]) == 2

    assert "was not written by weft and would be replaced" in capsys.readouterr().err
    assert theirs.read_text() == "mine\n"
