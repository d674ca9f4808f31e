"""Masks of a training as a file, and steps that have them: counts by hand, and what is refused."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import weft
from weft.cli import main
from weft.workloads.errors import InputError
from weft.workloads.gemm import Gemm, Pass
from weft.workloads.operand import NMOperand
from weft.workloads.phase import TRAINING
from weft.workloads.recorded import Recorded, with_masks
from weft.workloads.schemes.annotate import annotate
from weft.workloads.sparsity import NMPattern
from weft.workloads.training import plan, train
from weft.workloads.training.recording import record, record_folder, recorded_step
from weft.workloads.unstructured import Counted, Unstructured

from ..examples_drawn import examples

ABOUT: dict[str, Any] = {
    "model": "mlp",
    "data": "digits",
    "scheme": "erk",
    "pattern": None,
    "weights": "w",
    "examples": "e",
    "shape": (1, 8, 8),
    "classes": 10,
    "widen": 1.0,
    "said": "zero",
    "score": 0.5,
}
SIZES = {"1": (256, 64), "3": (256, 256), "5": (10, 256)}
GATHERS = "examples/tiny-gather.toml"


def drawn(seed: int, density: float = 0.25, layers: tuple[str, ...] = ("1", "3")) -> Recorded:
    random = np.random.default_rng(seed)
    return Recorded.made([(name, "weight", random.random(SIZES[name]) < density) for name in layers], **ABOUT)


@given(st.integers(1, 40), st.integers(1, 40), st.floats(0, 1), st.integers(0, 9))
@settings(max_examples=examples(30))
def test_a_file_gives_back_every_bit(lines: int, length: int, density: float, seed: int) -> None:
    path = Path(__file__).parent / ".." / "none.npz"  # never written: the bytes are caught below
    masks = np.random.default_rng(seed).random((2, lines, length)) < density
    made = Recorded.made([("a.b", "weight", masks[0]), ("a.b", "input", masks[1])], **ABOUT)
    files: dict[Path, bytes] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("weft.workloads.recorded.write_atomically", lambda to, data: files.update({to: data}))
        patch.setattr("weft.workloads.recorded.read_file", files.__getitem__)
        made.save(path)
        found = Recorded.read(path)
        found.save(path.with_name("again.npz"))
    assert found.about == made.about
    assert np.array_equal(found.weights["a.b"], masks[0])
    assert np.array_equal(found.inputs["a.b"], masks[1])
    assert len(set(files.values())) == 1


def test_a_step_has_the_counts_of_its_masks() -> None:
    recorded = drawn(1)
    step = with_masks(recorded_step(recorded, 4), recorded)
    for op in step.matrix_ops:
        mask = recorded.weights.get(op.name)
        if mask is None:
            assert op.sparse is None
            continue
        # Line by line, by counting.
        counts = Counter(sum(1 for kept in line if kept) for line in mask)
        assert op.sparse == Unstructured(
            operand="b", kept=Counted(lines=tuple(sorted(counts.items()))), stored="bitmap"
        )
        assert op.macs == 4 * int(mask.sum())
    assert {layer.layer: layer.density[Pass.FF] for layer in step.measured} == {
        name: pytest.approx(mask.mean()) for name, mask in recorded.weights.items()
    }
    assert (step.scheme, step.pattern) == ("erk", None)
    assert weft.sparsify(recorded_step(recorded, 4), recorded) == step


def test_a_mask_is_stored_in_the_form_of_fewest_bytes() -> None:
    lone, long = np.zeros((256, 64), bool), np.zeros((256, 64), bool)
    lone[:, 7] = True  # a place a line, beside eight bytes of bits
    long[:, 20:60] = True  # one run a line
    both = [("1", "weight", lone), ("3", "weight", np.tile(lone, (1, 4))), ("5", "weight", np.tile(long[:10], (1, 4)))]
    recorded = Recorded.made(both, **ABOUT)
    stored = [op.sparse for op in with_masks(recorded_step(recorded), recorded).matrix_ops]

    assert [(form.stored, form.runs) for form in stored] == [("csr", 0), ("csr", 0), ("runs", 40)]
    # Four runs a line of 256 places, a pointer a line and one more; a bit an element takes 32 bytes a line.
    assert stored[2].bytes(Gemm(m=1, k=256, n=10), 0) == 40 * 2 + 11 * 4 < 10 * 32


def test_a_record_of_nm_runs_as_nm_and_is_held_to_its_pattern() -> None:
    mask = np.zeros((256, 64), bool)
    mask.reshape(256, 8, 8)[:, :, 3:5] = True
    about = ABOUT | {"scheme": "bdwp", "pattern": NMPattern(keep=2, group=8)}
    recorded = Recorded.made([("1", "weight", mask)], **about)
    step = with_masks(recorded_step(recorded), recorded)
    first, second, _ = step.matrix_ops
    assert isinstance(first.sparse, NMOperand)
    assert (second.sparse, second.kept_dense) == (None, "no mask of it was recorded")
    mask[200, 7] = True  # three of the first eight
    mask[200, :3] = False
    with pytest.raises(InputError, match="'1' keeps 3 of 8, but its scheme asks for 2:8"):
        with_masks(recorded_step(recorded), Recorded.made([("1", "weight", mask)], **about))


def test_a_mask_of_another_shape_or_layer_is_refused() -> None:
    recorded = drawn(1)
    step = recorded_step(recorded)
    short = Recorded.made([("3", "weight", recorded.weights["3"][:, :100])], **ABOUT)
    with pytest.raises(InputError, match=r"mask of '3' is 256 x 100 .* but its weight in '3' is 256 x 256"):
        with_masks(step, short)
    other = Recorded.made([("fc", "weight", recorded.weights["3"])], **ABOUT)
    with pytest.raises(InputError, match="layer 'fc', which 'mlp' has not: choose one of 1, 3, 5"):
        with_masks(step, other)
    with pytest.raises(InputError, match="two masks"):
        Recorded.made([("3", "weight", recorded.weights["3"])] * 2, **ABOUT)
    with pytest.raises(InputError, match="masks of inputs alone"):
        with_masks(step, Recorded.made([("3", "input", recorded.weights["3"])], **ABOUT))
    with pytest.raises(InputError, match="names code to run"):
        with_masks(step, Recorded.made([("3", "weight", recorded.weights["3"])], **ABOUT | {"scheme": "a.py:B"}))
    with pytest.raises(InputError, match="trace a step of use"):
        with_masks(replace(step, phase=TRAINING), recorded)


def test_a_file_that_is_none_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.npz"
    path.write_bytes(b"none")
    with pytest.raises(InputError, match="is not a file of `weft record`"):
        Recorded.read(path)
    recorded = drawn(1)
    Recorded(about=recorded.about, masks=tuple(~mask for mask in recorded.masks)).save(path)
    with pytest.raises(InputError, match="not those that it was written with"):
        Recorded.read(path)


def test_what_a_training_left_is_recorded(tmp_path: Path) -> None:
    spec = plan("mlp", scheme="erk", pattern=NMPattern(keep=2, group=8), epochs=1)
    found = train(spec, tmp_path / "run")
    recorded = record_folder(tmp_path / "run", tokens=32)
    for name, layer in found.technique.layers.items():
        assert np.array_equal(recorded.weights[name], (layer.state["mask"] & (layer.weight != 0)).numpy())
    assert recorded.about.score == found.accuracy
    assert recorded.about.weights == found.digest
    # What the second layer reads is what the first wrote, below zero cut away.
    assert recorded.inputs.keys() == {"3", "5"}
    assert recorded.inputs["3"].shape == (32, 256)
    with pytest.raises(InputError, match="few values"):
        record(replace(spec, scheme="xnor", pattern=None, options={}))


def test_lines_of_a_convolution_have_its_channels_side_by_side() -> None:
    from weft.workloads.schemes import attach
    from weft.workloads.training.recording import _mask

    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 16, 3), torch.nn.Conv2d(16, 8, 3, groups=2))
    layer = attach(model, "erk", NMPattern(keep=2, group=8), steps=1).layers["1"]
    weight = layer.operand(Pass.FF)
    found = _mask(layer.canonical(weight) != 0)
    assert found.shape == (8, 72)
    for out in range(8):
        for tap in range(9):
            for channel in range(8):
                assert found[out, tap * 8 + channel] == bool(weight[out, channel, tap // 3, tap % 3] != 0)


@pytest.mark.slow
def test_the_command_records_and_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "m.npz"
    asked = ["record", "mlp", "--scheme", "erk", "--nm", "2:8", "--epochs", "1", "--tokens", "16"]
    assert main([*asked, "-o", str(path), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [(mask["layer"], mask["of"]) for mask in document["masks"]][:3] == [
        ("1", "weight"),
        ("3", "weight"),
        ("5", "weight"),
    ]
    again = record(plan("mlp", scheme="erk", pattern=NMPattern(keep=2, group=8), epochs=1), tokens=16)
    again.save(tmp_path / "again.npz")
    assert (tmp_path / "again.npz").read_bytes() == path.read_bytes()
    run = ["run", "mlp", "--for", "infer", "--masks", str(path), "--arch", GATHERS]
    assert main([*run, "--batch", "16", "--json"]) == 0
    ops = json.loads(capsys.readouterr().out)["ops"]
    assert any("kept of 256 lines" in str(op.get("pattern")) for op in ops)
    assert main([*run, "--nm", "2:8"]) == 2
    assert "leave them out" in capsys.readouterr().err
    assert main(["run", "mlp", "--masks", str(path)]) == 2
    assert "add --for infer" in capsys.readouterr().err
    assert main(["run", "resnet18", "--for", "infer", "--masks", str(path), "--arch", GATHERS]) == 2
    assert "which 'resnet18' has not" in capsys.readouterr().err


def test_a_step_under_drawn_masks_becomes_one_of_its_own() -> None:
    recorded = drawn(2)
    traced = recorded_step(recorded)
    drawn_step = annotate(traced, "erk", NMPattern(keep=2, group=8))
    assert with_masks(drawn_step, recorded) == with_masks(traced, recorded)
