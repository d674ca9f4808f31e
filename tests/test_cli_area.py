"""`weft area --estimate`: no tool is run, what is inferred is said, and what lies beyond is refused."""

from __future__ import annotations

import json

import pytest

from weft.analysis.area import known_area
from weft.cli import main
from weft.dataflow.config_io import load_spec, preset_text
from weft.hdl.flow import synthesis


@pytest.fixture(autouse=True)
def without_tools(monkeypatch, tmp_path):
    monkeypatch.setenv("WEFT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(synthesis, "synthesize", lambda *_: pytest.fail("something was synthesized"))


@pytest.fixture
def machine(tmp_path):
    """A file of `sat-vcu1525` with some lines changed."""

    def make(**changes):
        text = preset_text("sat-vcu1525")
        for name, value in changes.items():
            lines = [f"{name} = {value}" if line.split("=")[0].strip() == name else line for line in text.splitlines()]
            text = "\n".join(lines)
        path = tmp_path / "mine.toml"
        path.write_text(text)
        return str(path)

    return make


def test_what_was_counted_is_not_estimated(capsys):
    assert main(["area", "--arch", "tiny", "--target", "ecp5", "--estimate", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["mark"].startswith("measured")
    assert found["total"] == known_area(load_spec("tiny"), "ecp5").total


def test_what_is_inferred_is_said(capsys, machine):
    arch = machine(rows=12, accumulators=30)
    assert main(["area", "--arch", arch, "--estimate"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "Inferred from modules of other machines, not counted: stce pe, stce" in said
    assert main(["area", "--arch", arch, "--estimate", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["mark"].startswith("inferred")
    marks = {(item["block"], item["name"]): item["mark"] for item in found["items"]}
    assert marks["stce", "pe"] == marks["stce", "edges"] == "inferred"
    assert marks["wuve", "wuve_lane"] == "measured"


def test_what_lies_beyond_is_refused(capsys, machine):
    assert main(["area", "--arch", machine(dense_words=4096), "--estimate"]) == 2
    out, said = capsys.readouterr()
    assert out == ""
    assert "pe.dense_words = 4096" in said
    assert "weft area" in said
