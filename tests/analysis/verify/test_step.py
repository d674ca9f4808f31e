"""`weft verify --train-step`: real operands of every kind on the array, and that planted faults are found and told."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import weft.analysis.verify.step as module
from weft.analysis.verify.difference import ulps
from weft.analysis.verify.step import verify_step
from weft.cli import main
from weft.dataflow.config_io import load_spec
from weft.dataflow.stce.spec import ArraySpec
from weft.workloads.errors import InputError
from weft.workloads.gemm import Pass
from weft.workloads.schemes.annotate import annotate
from weft.workloads.schemes.scheme import SCHEMES, phase_at, phases
from weft.workloads.sparsity import NMPattern
from weft.workloads.training import capture_step, plan, step_workload

TINY = load_spec("tiny")
WIDE = replace(TINY, array=ArraySpec(rows=8, cols=8, w2e_words=2))
PATTERN = NMPattern(keep=2, group=8)
KINDS = """
from torch import nn


def model(classes, channels):
    return nn.Sequential(
        nn.Conv2d(channels, 16, 3, padding=1), nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=2, padding=1, groups=2), nn.ReLU(),
        nn.ConvTranspose2d(32, 16, 3, stride=2, padding=1, output_padding=1), nn.ReLU(),
        nn.Conv2d(16, 24, (3, 1), dilation=(2, 1), padding="same", padding_mode="circular"), nn.ReLU(),
        nn.Flatten(2), nn.Conv1d(24, 16, 4, stride=4), nn.ReLU(),
        nn.Flatten(), nn.Linear(256, classes),
    )
"""


@cache
def step(model, scheme, batch=128, **options):
    nm = None if SCHEMES[scheme].levels else PATTERN
    return capture_step(plan(model, scheme=scheme, pattern=nm, epochs=1, batch=batch, seed=3, options=options))


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_perceptron_under_every_scheme_is_equal_to_the_bit(scheme):
    found = verify_step(WIDE, step("mlp", scheme))

    assert found.equal
    assert found.words == found.all_words
    planes, ends = SCHEMES[scheme].planes, SCHEMES[scheme].full_precision
    several = len(planes[1:]) * (3 - len(ends))
    assert len(found.checks) == 8 + several, "three layers, the first without BP; planes are products of their own"
    of_phase = phase_at(phases(scheme, None if SCHEMES[scheme].levels else PATTERN), found.step - 1, found.steps)
    sparse = SCHEMES[of_phase.scheme].sparse if of_phase.pattern else {}
    assert bool(sparse) == bool(SCHEMES[scheme].sparse)
    for check in found.checks:
        assert check.sparse == str(sparse.get(check.pass_, ""))
        assert (check.pattern is None) == (check.sparse == "")
        most = check.pattern.kept(check.gemm.k, check.gemm.run) / check.gemm.k if check.pattern else 1.0
        assert 0.0 < check.kept <= most
        assert (check.sore_cycles > 0) == (check.sparse == "gradient")
        assert check.fp16.exact > 0.99 * check.fp16.words


@pytest.mark.parametrize("scheme", ["bdwp", "sdgp", "bdwp-x"])
def test_a_resnet_is_equal_to_the_bit(scheme):
    found = verify_step(WIDE, step("resnet9", scheme, batch=32))

    assert found.equal
    assert found.left_out == {}
    assert [c.pass_ for c in found.checks] == [Pass.FF, Pass.WU, *8 * [Pass.FF, Pass.BP, Pass.WU]]
    assert [c.sparse for c in found.checks[:2]] == ["", ""], "first convolution"
    assert found.cycles == sum(c.cycles for c in found.checks)
    assert found.distance("fp16").exact > 0.999 * found.distance("fp16").words


@pytest.mark.parametrize("scheme", ["bimask", "sdgp", "bdwp-x"])
def test_convolutions_of_every_kind_are_those_of_pytorch_and_of_the_annotated_workload(scheme, tmp_path):
    path = tmp_path / "kinds.py"
    path.write_text(KINDS)
    spec = plan(f"{path}:model", scheme=scheme, epochs=1, batch=128)
    found = verify_step(WIDE, capture_step(spec))

    assert found.equal
    assert {c.layer for c in found.checks if c.pattern} == {"2", "4", "6", "9", "12"}
    assert {c.gemm.groups for c in found.checks if c.layer == "2"} == {2}
    assert found.distance("fp32").words == sum(c.fp32.words for c in found.checks)
    counted = {
        (op.parameter.removesuffix(".weight"), op.pass_): op
        for op in annotate(step_workload(spec), scheme, PATTERN).matrix_ops
    }
    assert {(c.layer, c.pass_) for c in found.checks} == counted.keys()
    for check in found.checks:
        op = counted[check.layer, check.pass_]
        assert check.gemm in (op.gemm, op.gemm.transposed)
        assert check.pattern == (op.sparse.pattern if op.sparse else None)


def test_a_part_of_a_large_product_is_told_as_such():
    captured = step("mlp", "bdwp")
    found = verify_step(TINY, captured, budget=200_000)

    assert found.equal
    part = [c for c in found.checks if c.words < c.all_words]
    assert 0 < len(part) < len(found.checks)
    assert all(c.fp32 is None and c.fp16 is None for c in part)
    assert found.words == sum(c.words for c in found.checks) < found.all_words
    assert found.distance("fp32").words < sum(c.all_words for c in found.checks)


def test_the_rtl_says_the_same(monkeypatch):
    monkeypatch.setattr(module, "RTL_PE_CYCLES", 20_000)
    found = verify_step(TINY, step("mlp", "bdwp-x"), rtl=True)

    assert found.equal
    assert all(0 < c.rtl_words <= c.all_words for c in found.checks)


def flipped(*arguments, real=module.run_array, **more):
    ran = real(*arguments, **more)
    ran.result.view(np.uint32)[2, 1] ^= 1
    return ran


def test_a_wrong_bit_is_told_with_layer_pass_index_and_both_values(monkeypatch, capsys):
    monkeypatch.setattr(module, "run_array", flipped)
    found = verify_step(WIDE, step("mlp", "bdwp"))

    assert not any(c.equal for c in found.checks)
    difference = found.checks[0].difference
    assert difference.what == "array and k-order reference"
    assert difference.index == (2, 1)
    assert int(difference.expected.split()[0], 16) ^ int(difference.found.split()[0], 16) == 1

    assert main(["verify", "--train-step", "--model", "mlp"]) == 1
    printed = capsys.readouterr().out
    assert "1 FF differs: array and k-order reference[2, 1]" in printed
    assert "expected " in printed


def test_operands_laid_out_wrongly_are_not_what_pytorch_multiplied():
    captured = step("resnet9", "bdwp", batch=32)
    gemm = captured.gemms[1]
    turned = replace(gemm, right=np.ascontiguousarray(gemm.right[..., ::-1]), compact=None)
    found = verify_step(WIDE, replace(captured, gemms=(turned,)))

    assert found.checks[0].difference.what == "PyTorch and array, beyond the rounding of FP32 sums"


def test_another_word_from_sore_is_told(monkeypatch):
    def faulty(*arguments, real=module.run_sore, **more):
        ran = real(*arguments, **more)
        ran.compact.values.view(np.uint16)[0, 0] ^= 1
        return ran

    monkeypatch.setattr(module, "run_sore", faulty)
    wrong = [c for c in verify_step(WIDE, step("mlp", "sdgp")).checks if not c.equal]

    assert {c.pass_ for c in wrong} == {Pass.BP}
    assert wrong[0].difference.what == "SORE and the technique"


def test_a_technique_that_only_selects_may_not_change_what_it_keeps():
    captured = step("mlp", "sdgp")
    gemm = next(g for g in captured.gemms if g.role is not None)
    left = gemm.left.copy()
    left[tuple(np.argwhere(left)[0])] *= 2
    found = verify_step(WIDE, replace(captured, gemms=(replace(gemm, left=left),)))

    assert found.checks[0].difference.what == "SORE and the technique"


def test_another_cycle_count_is_told(monkeypatch):
    def faulty(spec, gemm, mapping, real=module.array_cycles):
        made = real(spec, gemm, mapping)
        return replace(made, fill_drain=made.fill_drain + 1)

    monkeypatch.setattr(module, "array_cycles", faulty)
    found = verify_step(WIDE, step("mlp", "bdwp"))

    assert {c.difference.what for c in found.checks} == {"cycles of closed form and array"}


def test_the_weights_are_those_that_the_technique_hands_out():
    captured = step("mlp", "bdwp")
    gemm = captured.gemms[0]
    values = gemm.compact.values.copy()
    values.view(np.uint16)[0, 5, 7] ^= 1
    found = verify_step(WIDE, replace(captured, gemms=(replace(gemm, compact=replace(gemm.compact, values=values)),)))

    assert found.checks[0].difference.what == "compact weights of simulator and technique"
    assert found.checks[0].difference.index == (5, 7)


@given(st.floats(width=32), st.floats(width=32, allow_nan=False))
def test_ulps_count_the_numbers_between(a, b):
    x, y = (np.array([value], np.float32) for value in (a, b))
    assert ulps(y, y) == 0
    assert ulps(x, y) == ulps(y, x)
    assert ulps(y, np.nextafter(y, np.float32(np.inf))) == (0 if b == np.inf else 1)
    assert ulps(np.array([-0.0], np.float16), np.array([0.0], np.float16)) == 0


def test_the_command_prints_the_step_and_its_json(capsys):
    assert main(["verify", "--train-step", "--model", "mlp", "--scheme", "srste", "--nm", "2:4", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)

    assert document["equal"] is True
    assert document["pattern"] == "2:4"
    # Some builds of PyTorch on some processors add up in the order of k, so all words may be equal.
    assert document["words"] == document["all_words"] >= document["fp32"]["exact"] > 0
    assert [g["pass"] for g in document["gemms"][:2]] == ["FF", "WU"]
    assert document["gemms"][0]["kept"] == 0.5


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--model", "mlp"], "add --train-step"),
        (["--train-step", "--cases", "3"], "leave out --cases"),
        (["--train-step", "--nm", "2:16"], "2:16"),
        (["--train-step", "--model", "mpl"], "mlp"),
        (["--train-step", "--scheme", "bdpw"], "bdwp"),
    ],
)
def test_what_makes_no_sense_is_refused(arguments, says, capsys):
    assert main(["verify", *arguments]) == 2
    assert says in capsys.readouterr().err


def test_a_machine_of_another_format_is_refused():
    with pytest.raises(InputError, match="fp16"):
        module.require_machine(replace(TINY, pe=replace(TINY.pe, format="bf16")), PATTERN)
