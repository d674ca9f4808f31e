"""`weft fold`: a public folding, the finder, one JSON document, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import weft
from weft.cli import main
from weft.workloads.io import save_workload

FINN = {
    f"MatrixVectorActivation_{i}": {"PE": pe, "SIMD": simd, "ram_style": "auto"}
    for i, (pe, simd) in enumerate(((16, 3), (32, 32), (16, 32), (16, 32), (4, 32), (1, 32), (1, 4), (1, 8), (5, 1)))
}
"""finn-examples, build/bnn-pynq/folding_config/cnv-w1a1_folding_config.json, its multiplying nodes."""


def document(capsys: pytest.CaptureFixture[str], *args: object) -> dict[str, Any]:
    assert main(["fold", *map(str, args), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert isinstance(found, dict)
    return found


def text(capsys: pytest.CaptureFixture[str], *args: object) -> str:
    assert main(["fold", *map(str, args)]) == 0
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 100
    return out


def refused(capsys: pytest.CaptureFixture[str], *args: object) -> str:
    assert main(["fold", *map(str, args)]) == 2
    out, said = capsys.readouterr()
    assert not out and "Traceback" not in said
    return said


def test_the_folding_of_finn_on_a_pynq(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "cnv-w1a1_folding_config.json"
    path.write_text(json.dumps({"Defaults": {}, "Thresholding_Batch_0": {"PE": 1}, **FINN}))
    given = ("cnv", "--folding", path, "--clock", "100e6", "--device", "xc7z020")
    found = document(capsys, *given)
    assert [layer["cycles"] for layer in found["layers"]] == [
        32_400, 28_224, 20_736, 28_800, 20_736, 18_432, 32_768, 32_768, 1_024
    ]  # fmt: skip
    assert (round(found["frames_per_s"]), found["interval_cycles"], found["limits"]) == (3_052, 32_768, ["21", "24"])
    assert found["fits"] is True
    assert found["device"] == {"name": "XC7Z020", "lut": 37_240, "ramb18": 224}
    assert (found["lut"], found["ramb18"]) == tuple(
        sum(layer[kind] for layer in found["layers"]) for kind in ("lut", "ramb18")
    )
    shown = text(capsys, *given)
    assert "3,051.8 frames/s, one in 32,768 cycles; slowest: 21, 24" in shown
    assert "32 x 32   28,224   14,238" in shown
    assert "does not fit" not in shown
    assert "does not fit" in text(capsys, *given, "--lut", "10000")


def test_a_target_is_met_by_the_clock_of_the_machine(capsys: pytest.CaptureFixture[str]) -> None:
    found = document(capsys, "tfc", "--target-fps", "1e6", "--arch", "tiny")
    assert found["frames_per_s"] == found["clock_hz"] / found["interval_cycles"] >= 1e6
    dearer = document(capsys, "tfc", "--target-fps", "3e6", "--arch", "tiny")
    assert dearer["lut"] > found["lut"]


def test_without_a_target_the_device_is_filled(capsys: pytest.CaptureFixture[str]) -> None:
    large, small = (document(capsys, "lfc", *more) for more in ((), ("--device", "XC7Z020")))
    assert large["frames_per_s"] > small["frames_per_s"]
    for found in (large, small):
        assert found["fits"] and found["lut"] <= found["device"]["lut"] and found["ramb18"] <= found["device"]["ramb18"]
    given = document(capsys, "lfc", "--lut", small["lut"], "--bram", max(small["ramb18"], 1))
    assert given["interval_cycles"] == small["interval_cycles"]


def test_bits_widen_what_is_stored(capsys: pytest.CaptureFixture[str]) -> None:
    one, two = (document(capsys, "cnv", "--target-fps", "3000", "--weight-bits", bits) for bits in (1, 2))
    assert [layer["weight_bits"] for layer in two["layers"]] == [2] * 9
    assert [layer["input_bits"] for layer in two["layers"]] == [8, *[1] * 8]
    assert two["lut"] + 500 * two["ramb18"] > one["lut"] + 500 * one["ramb18"]


def test_other_doors(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """A file of the user's own, and a workload of another batch."""
    path = tmp_path / "mine.py"
    path.write_text("from torch import nn\ndef net():\n    return nn.Sequential(nn.Flatten(), nn.Linear(12, 8))\n")
    net = nn.Sequential(nn.Flatten(), nn.Linear(12, 8))
    save_workload(weft.trace(net, torch.empty(5, 3, 2, 2)), tmp_path / "step.json")
    for door in ((f"{path}:net", "--input", "3x2x2"), (tmp_path / "step.json",)):
        (layer,) = document(capsys, *door)["layers"]
        assert (layer["name"], layer["mw"], layer["mh"], layer["vectors"]) == ("1", 12, 8, 1)


def test_windows_that_are_not_known_are_marked(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text("from torch import nn\ndef net():\n    return nn.Conv2d(4, 4, 3, groups=4)\n")
    door = (f"{path}:net", "--input", "4x8x8")
    assert document(capsys, *door)["layers"][0]["window_cycles"] is None
    assert "?: sliding windows of grouped convolutions" in text(capsys, *door)


@pytest.mark.parametrize(
    ("args", "rule"),
    [
        (("cvn",), "model 'cvn' is unknown: did you mean 'cnv'?"),
        (("tfc", "--target-fps", "0"), "--target-fps must be a positive number, not 0.0"),
        (("tfc", "--target-fps", "-5"), "--target-fps must be a positive number"),
        (("tfc", "--target-fps", "nan"), "--target-fps must be a positive number"),
        (("tfc", "--target-fps", "inf"), "--target-fps must be a positive number"),
        (("tfc", "--target-fps", "1e300"), "leave 0 cycles a frame; the highest rate is"),
        (("tfc", "--target-fps", "1e9", "--lut", "9000000"), "takes no fewer, unfolded"),
        (("lfc", "--target-fps", "1e8", "--device", "xc7z020"), "XC7Z020 has too few LUTs"),
        (("tfc", "--lut", "10"), "no folding fits 10 LUTs"),
        (("tfc", "--lut", "0"), "--lut must be an integer from 1"),
        (("tfc", "--bram", "-1"), "--bram must be an integer from 1"),
        (("tfc", "--device", "xc7z021"), "--device is 'xc7z021': did you mean 'xc7z020'?"),
        (("tfc", "--clock", "0"), "--clock must be a positive number"),
        (("tfc", "--clock", "1.5"), "--clock must be whole hertz from 1,000"),
        (("tfc", "--clock", "1e8", "--arch", "tiny"), "both give a clock; give one of them"),
        (("tfc", "--arch", "tinny"), "machine 'tinny'"),
        (("tfc", "--weight-bits", "17"), "weight bits of streaming layers must be an integer from 1 to 16"),
        (("lstm_lm",), "is multiplied more than once a frame"),
    ],
)
def test_bad_input_is_refused(capsys: pytest.CaptureFixture[str], args: tuple[str, ...], rule: str) -> None:
    assert rule in refused(capsys, *args)


@pytest.mark.parametrize(
    ("found", "more", "rule"),
    [
        ("PE = 16", (), "is not valid JSON"),
        ("[[16, 3]]", (), "gives 1 foldings, but there are 4 layers"),
        ('{"1": [16, 49]}', (), "gives no folding of layer '4' and 2 more"),
        ("[[24, 49], [8, 8], [8, 8], [10, 8]]", (), "PE 24 does not divide MH 64; the nearest legal PE is 16 or 32"),
        ("[[16, 49], [8, 8], [8, 8], [10, 8]]", ("--target-fps", "5"), "--folding gives the rate itself"),
    ],
)
def test_bad_foldings_are_refused(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, found: str, more: tuple[str, ...], rule: str
) -> None:
    path = tmp_path / "folding.json"
    path.write_text(found)
    assert rule in refused(capsys, "tfc", "--folding", path, *more)


def test_a_folding_that_is_not_there(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert "cannot be read" in refused(capsys, "tfc", "--folding", tmp_path / "none.json")
    assert "cannot be read" in refused(capsys, "tfc", "--folding", tmp_path)
