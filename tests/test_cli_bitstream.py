"""`weft bitstream`: what it refuses before the long work, what it writes and shows."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from weft.cli import main
from weft.dataflow.config_io import load_spec
from weft.dataflow.program.instruction import End, Go
from weft.dataflow.program.isa import Unit
from weft.dataflow.program.program import Program
from weft.dataflow.program.spaces import Target
from weft.hdl.flow import bitstream as flow
from weft.workloads.update_rule import SGD

from .analysis.test_board_report import built

TINY_XNOR = Path(__file__).parents[1] / "examples" / "tiny-xnor.toml"


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["bitstream", *arguments]) == 2
    return " ".join(capsys.readouterr().err.split())


def test_what_cannot_be_built_is_refused_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, program = str(tmp_path / "out"), tmp_path / "program"
    said = refused(capsys, "--board", "ulx3", "-o", out)
    assert "--board: there is no board 'ulx3'; take ulx3s, ecpix5, vcu1525" in said
    assert "memory.json: cannot be read" in refused(capsys, "--board", "ulx3s", "-o", out, "--program", str(program))
    program.mkdir()
    (program / "memory.json").write_text('{"window": 65540}')
    for name in ("forward", "backward"):
        made = Program((End(),), Target(spec=load_spec("tiny-ecp5"), rule=SGD).hash)
        (program / f"{name}.weft").write_bytes(made.to_bytes())
    said = refused(capsys, "--board", "ulx3s", "-o", out, "--program", str(program))
    assert "needs memory for 65,540 bytes, the board has 65,536; take a smaller batch" in said
    said = refused(capsys, "--board", "vcu1525", "--arch", "tiny", "-o", out, "--program", str(program))
    assert "backward.weft is for machine" in said and "compile it with --arch tiny --optimizer sgd" in said
    for path in program.glob("*.weft"):
        path.unlink()
    assert "holds no programs" in refused(capsys, "--board", "ulx3s", "-o", out, "--program", str(program))
    (program / "memory.json").write_text("[]")
    said = refused(capsys, "--board", "ulx3s", "-o", out, "--program", str(program))
    assert "memory.json: was not written by weft compile" in said
    assert not (tmp_path / "out").exists()


def test_a_binary_network_that_the_machine_does_not_run_is_refused_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "program"
    folder.mkdir()
    made = Program((Go(Unit.XNOR, 0, 0), End()), Target(spec=load_spec(str(TINY_XNOR)), rule=SGD).hash)
    (folder / "inference.weft").write_bytes(made.to_bytes())

    def said(arch: str, window: int, images: int) -> str:
        (folder / "memory.json").write_text(json.dumps({"window": window, "images": images}))
        asked = ("--board", "ulx3s", "--arch", arch, "-o", str(tmp_path / "out"), "--program", str(folder))
        return refused(capsys, *asked)

    without = said("tiny-ecp5", 64, 1)
    assert "holds a binary network, for which tiny-ecp5 has no XNOR engine; take the --arch that it" in without
    assert "compile it with --arch bnn-ecp5 --optimizer sgd" in said("bnn-ecp5", 64, 1)
    needs = "needs memory for 65,540 bytes, the board has 65,536; take"
    assert f"{needs} a smaller batch" in said(str(TINY_XNOR), 65_540, 2)
    assert f"{needs} a network of fewer or narrower layers" in said(str(TINY_XNOR), 65_540, 1)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("mhz", [30.0, 24.9])
def test_what_was_built_is_written_and_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, mhz: float
) -> None:
    monkeypatch.setattr(flow, "bitstream", lambda *_: built(mhz))
    assert main(["bitstream", "--board", "ulx3s", "-o", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "stce" in said and f"{mhz:.1f} MHz placed and routed, clocked at 25 MHz" in said
    assert ("It does not bear its clock: build it again with --mhz 24 or less." in said) == (mhz < 25)
    assert {"weft.bit", "weft.svf", "bitstream.json"} < {path.name for path in tmp_path.iterdir()}
    assert json.loads((tmp_path / "bitstream.json").read_text())["mhz"] == mhz


@pytest.mark.slow
def test_a_vivado_project_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bitstream", "--board", "vcu1525", "--arch", "tiny", "-o", str(tmp_path), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["files"] == ["weft_axi.v", "weft_vcu1525.tcl", "weft_vcu1525.xdc"]
    assert all((tmp_path / name).stat().st_size > 1_000 for name in said["files"])
