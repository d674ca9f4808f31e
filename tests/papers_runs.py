"""What a row of docs/papers.md runs on its small network, and what has to come of it; by section of the page."""

from __future__ import annotations

import importlib.util
import math
import re
import subprocess
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from functools import cache
from io import StringIO
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import weft
from weft.analysis.layer_costs import LayerCosts, layer_costs
from weft.analysis.level import seconds_of
from weft.analysis.scheduling import scheduled
from weft.cli import main
from weft.simulator.system import simulate_system
from weft.workloads.attended import attended
from weft.workloads.blocks import Blocks
from weft.workloads.data import normalised, open_data
from weft.workloads.data.text import open_text
from weft.workloads.errors import InputError
from weft.workloads.gemm import GEMM_PASSES, Pass
from weft.workloads.levels import INTEGERS
from weft.workloads.models.classifier import scores
from weft.workloads.operand import Role
from weft.workloads.recorded import Recorded
from weft.workloads.row_forms import FORMS as ROW_FORMS
from weft.workloads.schemes.allocation import allocate
from weft.workloads.schemes.capture import StepGemm
from weft.workloads.schemes.layer import Observed
from weft.workloads.schemes.scheme import scheme
from weft.workloads.sparsity import NMPattern
from weft.workloads.step import Workload
from weft.workloads.training import TrainResult, plan, step_workload
from weft.workloads.training.attending import bits_attending
from weft.workloads.training.bits import search_bits
from weft.workloads.training.capture import capture_step
from weft.workloads.training.characters import record_characters, trained_characters
from weft.workloads.training.continual import continual
from weft.workloads.training.scored import score

from .papers_page import Row
from .test_docs import test_examples_run as runs_examples

__all__ = ["ATTENTION", "EXAMPLES", "SECTIONS", "run"]

ROOT = Path(__file__).parents[1]
PATTERN = NMPattern(keep=2, group=8)
RATIO = r"(\d+\.\d\d) times, (\d+\.\d\d)"


def example(name: str) -> ModuleType:
    """A file of ``examples/`` as a module."""
    spec = importlib.util.spec_from_file_location(Path(name).stem, ROOT / name)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


PAPERS = example("examples/papers.py")
ATTENTION: tuple[str, ...] = PAPERS.ATTENTION


def run(row: Row, folder: Path) -> None:
    """Everything that a row names."""
    for at, item in enumerate(row.runs):
        words = item.split()
        if words[0].startswith("examples/"):
            EXAMPLES.get(words[0], a_script)(row, words, folder)
        elif words[0] == "weft":
            a_command(row, words[1:])
        else:
            SECTIONS[row.section](row, words, at, folder)


def cycles_of(step: Workload, machine: str) -> int:
    return weft.simulate(weft.schedule(step, machine)).cycles.total


def a_scheme(row: Row, words: list[str], at: int, _: Path) -> None:
    """Its step takes the time and the joules that the row has; a training of one epoch leaves operands of its form."""
    name, asked = words[0], dict(zip(words[1::2], words[2::2], strict=True))
    model, chosen = asked.pop("--model", "mlp"), scheme(name)
    assert not asked, f"{asked} is not looked at"
    spec = plan(model, scheme=name, pattern=PATTERN if chosen.takes_pattern else None, epochs=1)
    times, joules, _machine = PAPERS.beside_dense(model, name)
    assert row.numbers("step", RATIO)[at] == (round(times, 2), round(joules, 2))
    if chosen.levels:
        holds_levels(weft.train(model, name, epochs=1))
        return
    if chosen.sparse:
        marked = [gemm for gemm in capture_step(spec).gemms if gemm.role is not None]
        assert {gemm.pass_ for gemm in marked} == set(chosen.sparse)
        for gemm in marked:
            holds_pattern(gemm)
    found = weft.record(model, name, PATTERN, epochs=1)
    assert 0.1 < found.about.score <= 1
    if chosen.unstructured:
        holds_share(found, chosen.groups, chosen.level)


def holds_pattern(gemm: StepGemm) -> None:
    """No group of eight of the operand holds more than two."""
    for product in gemm.products():
        assert product.kept is not None
        for begin in range(0, len(product.kept), product.run):
            part = product.kept[begin : begin + product.run]
            most = max(int(part[i : i + PATTERN.group].sum(0).max()) for i in range(0, len(part), PATTERN.group))
            assert 0 < most <= PATTERN.keep, f"{gemm.layer} {gemm.pass_}: {most} of {PATTERN.group}"


def holds_share(found: Recorded, groups: str, level: bool) -> None:
    """A quarter of the weights is left; where groups are kept, whole ones; at a level, as many in every line."""
    masks = [mask for of, mask in zip(found.about.of, found.masks, strict=True) if of.of == "weight"]
    assert sum(int(mask.sum()) for mask in masks) / sum(mask.size for mask in masks) == pytest.approx(0.25, abs=2e-3)
    for mask in masks if "x" in groups else []:
        rows, columns = map(int, groups.split("x"))
        whole = mask.reshape(len(mask) // rows, rows, -1, columns).sum((1, 3))
        assert set(np.unique(whole)) == {0, rows * columns}
        assert not level or len(set(whole.sum(1))) == 1


def holds_levels(found: TrainResult) -> None:
    """One more step of the trained model: operands, and parts of attention, hold the values that its scheme says."""
    technique, data, seen, parts = found.technique, open_data("digits"), list[Observed](), dict[Any, torch.Tensor]()
    chosen = scheme(technique.phase.scheme)
    for layer in technique.layers.values():
        layer.observer = seen.append
    if chosen.attention:
        technique.attended.observer = parts.__setitem__  # type: ignore[attr-defined]
    images, labels = data.train.fetch(torch.arange(32)), data.train.labels[:32]
    loss = nn.functional.cross_entropy(scores(found.model.train()(normalised(data, images))), labels)
    torch.autograd.backward(loss)
    assert math.isfinite(float(loss.detach()))
    assert {gemm.pass_ for gemm in seen} == set(GEMM_PASSES) and parts.keys() == chosen.attention.keys()
    for gemm in seen:
        levels = chosen.levels.get(gemm.pass_, {})
        if chosen.planes and gemm.pass_ is Pass.FF:
            levels = {**levels, Role.WEIGHT: chosen.planes[gemm.plane]}
        for role, operand in zip(_ROLES[gemm.pass_], (gemm.left, gemm.right), strict=True):
            assert role not in levels or set(operand.flatten().tolist()) <= set(levels[role].values)
    for part, values in parts.items():
        assert set(values.flatten().tolist()) <= set(chosen.attention[part].values)


_ROLES = {
    Pass.FF: (Role.ACTIVATION, Role.WEIGHT),
    Pass.BP: (Role.GRADIENT, Role.WEIGHT),
    Pass.WU: (Role.GRADIENT, Role.ACTIVATION),
}


def bits_by_layer(row: Row, words: list[str], _at: int, folder: Path) -> None:
    """A choice of bits for every layer, within its budget of cycles."""
    if words == ["search_bits"]:
        spec = plan("supernet9:w0.25-0.25-0.25:d1-1-1@8", scheme="integer", epochs=1)
        costs = layer_costs(
            step_workload(spec), "integer", ["int2", "int8"], weft.machine("bnn-ecp5"), passes=[Pass.FF]
        )
        target = costs.of(dict.fromkeys(costs.cycles, "int2"))
        found = search_bits(spec, costs.cycles, target, rest=costs.rest)
        assert found.cost == costs.of(found.choice) >= target
        assert found.reward == found.reward_of(found.choice) <= found.accuracy
        return
    if words[0] in INTEGERS:
        trained = weft.train("resnet9", "integer", epochs=1, options={"weights": words[0]})
        most = max(INTEGERS[words[0]].values)
        lines = [line for layer in trained.technique.layers.values() for line in layer.operand(Pass.FF).flatten(1)]
        assert all(1 < len(line.unique()) <= 2 * most + 1 for line in lines)
        return
    weft.train("resnet9", "dense", epochs=1, folder=folder / "run")
    (method,) = words
    found_scores = score(folder / "run", ["int2", "int4"], [method], images=32, probes=2)
    table = {layer: {"dense": 0.0, **by} for layer, by in found_scores.by(method).items()}
    # An estimate of a trace may be below zero.
    assert all(abs(by["int4"]) < abs(by["int2"]) for by in table.values())
    step = weft.trace("resnet9@8", batch=8)
    costs = costs_of(step, "int2", "int4")
    budget = costs.of(dict.fromkeys(costs.cycles, "int4"))
    assert costs.of(allocate(table, costs.cycles, budget - costs.rest).choice) <= budget


def costs_of(step: Workload, *bits: str) -> LayerCosts:
    """Cycles of FF in use."""
    return layer_costs(step, "integer", bits, weft.machine("bnn-ecp5"), passes=[Pass.FF])


def rows_left_out(row: Row, words: list[str], _at: int, folder: Path) -> None:
    """Tokens a second over dense are those of the row; the small model, hardly trained, keeps what was asked for, and
    a step by its record has less to multiply."""
    form = words[0].partition("@")[0]
    ((density,),) = row.numbers("a token", r"at (?:a density of )?(0?\.\d+)")
    ((correlation,),) = row.numbers("a token", r"r = (0?\.\d+)") or [(0.1,)]
    ((one, eight),) = row.numbers("a token", r"(\d\.\d\d) / (\d\.\d\d)")
    for batch, stated in ((1, one), (8, eight)):
        dense, seconds = of_7b(batch)
        found = seconds / seconds_at_the_system_level(weft.skip_rows(dense, f"{form}@{density}:{correlation}"))
        assert found == pytest.approx(stated, abs=5.1e-3)
    if ROW_FORMS[form].predictor == "gate":
        with pytest.raises(InputError, match=f"form '{form}' is not recorded of characters"):
            record_characters(f"{form}@{density}", steps=1)
        return
    recorded = record_characters(form if form in ("relu", "blockffn") else f"{form}@{density}", steps=3, tokens=64)
    recorded.save(folder / "rows.npz")
    kept = [float(mask.mean()) for name, mask in recorded.inputs.items() if not name.endswith("fc2")]
    if kept:
        assert np.mean(kept) == pytest.approx(density, abs=0.1)
    assert all(0 < mask.mean() < 1 for mask in recorded.inputs.values())
    whole = weft.trace("characters", use="decode", context=32, batch=1)
    small = weft.skip_rows(whole, f"{form}@{folder / 'rows.npz'}")
    kept_lines = [op for op in small.matrix_ops if op.rows is not None]
    assert kept_lines and all(op.rows.kept(op.gemm, "b") < op.rows.of for op in kept_lines if op.rows is not None)
    assert cycles_of(small, "tiny") > 0


@cache
def of_7b(batch: int) -> tuple[Workload, float]:
    """A token of Llama-2 7B behind 512, and its seconds if nothing is left out."""
    dense = weft.trace("llama2_7b", use="decode", context=512, batch=batch)
    return dense, seconds_at_the_system_level(dense)


def seconds_at_the_system_level(step: Workload) -> float:
    return seconds_of(simulate_system(scheduled(step, weft.machine("hbm-asic"), by_shape=True)))


@cache
def hardly_trained() -> nn.Module:
    return trained_characters(open_text("pydoc"), steps=3)


def attention(row: Row, words: list[str], _at: int, _: Path) -> None:
    """By the patterns of its kind that `examples/papers.py attention` has, the small model reads its text by fewer
    pairs of keys and queries, and a prompt of it multiplies fewer."""
    if words == ["all"]:
        choosing_by_query_is_of_decode()
        return
    patterns = [text for text in ATTENTION if text.partition("@")[0] == words[0].partition("@")[0]]
    assert patterns, f"examples/papers.py has no {words[0]}"
    text = open_text("pydoc")
    whole = weft.trace("characters", use="prefill", context=64, batch=1)
    for pattern in map(Blocks.read, patterns):
        bits, share = bits_attending(hardly_trained(), text, pattern)
        assert 2 < bits < 8 and 0 < share < 1
        step = attended(whole, pattern)
        assert cycles_of(step, "tiny") > 0
        # Random features stand for the other pairs in products of their own.
        assert (multiplied(step) < multiplied(whole)) is (pattern.features == 0)
        assert pattern.pairs(64, 64) < 64 * 64


def multiplied(step: Workload) -> int:
    """In products of two activations, those that choose keys aside."""
    return sum(op.gemm.macs for op in step.matrix_ops if op.parameter is None and op.op != "blocks.product")


def choosing_by_query_is_of_decode() -> None:
    """Keys that every query chooses for itself take several times as long as blocks in a prompt, and as long as blocks
    behind it, where both take less than all keys."""
    keys, blocks = Blocks.read("top-keys@64:16"), Blocks.read("best-blocks@2/32")
    prompt, token = (weft.trace("gpt2", use=use, context=512, batch=1) for use in ("prefill", "decode"))
    by_key, by_block = (cycles_of(attended(prompt, one), "hbm-asic") for one in (keys, blocks))
    assert by_key > 4 * by_block
    by_key, by_block = (cycles_of(attended(token, one), "hbm-asic") for one in (keys, blocks))
    assert by_key == pytest.approx(by_block, rel=0.05)
    assert max(by_key, by_block) < cycles_of(token, "hbm-asic")


_SHRUNK = {"channels": "resnet9", "scales": "resnet9", "tokens": "vit_s", "core": "vit_s"}
"""The model of a form in the column of what is measured; of the others the MLP."""


def shapes(row: Row, words: list[str], _at: int, _: Path) -> None:
    """Fewer parameters or tokens, multiplications and cycles; a long convolution is equal to its transforms."""
    if words == ["LongConvolution"]:
        long_convolution()
        return
    (by,) = words
    form = by.partition("@")[0]
    if form == "slice":
        sliced = weft.shrink("characters", by, steps=3)
        assert sliced.parameters[1] < sliced.parameters[0] and sliced.width[1] == 0.75 * sliced.width[0]
        assert sliced.cut == pytest.approx(sliced.trained, abs=1)
        whole, small = weft.trace("characters", use="decode", context=32, batch=1), sliced.step("decode", 1, 32)
    else:
        model = _SHRUNK.get(form, "mlp")
        data = {"data": "mnist5k", "epochs": 1} if model == "vit_s" else {"epochs": 2 if model == "resnet9" else 15}
        found = weft.shrink(model, by, tune=1, **data)
        assert 0.1 < found.tuned <= 1
        assert model == "vit_s" or found.parameters[1] < found.parameters[0]
        whole, small = step_workload(found.spec), found.step()
    assert sum(small.dense_macs.values()) < sum(whole.dense_macs.values())
    assert cycles_of(small, "sat-ecp5") < cycles_of(whole, "sat-ecp5")


def long_convolution() -> None:
    script = example("examples/long_convolution.py")
    layer = script.LongConvolution(4, 256)
    x = torch.randn(2, 4, 256)
    spectra = torch.fft.rfft(x.double(), n=512) * torch.fft.rfft(layer.filter.detach().double(), n=512)
    torch.testing.assert_close(layer(x).double(), torch.fft.irfft(spectra, n=512)[..., :256], rtol=0, atol=2e-5)
    assert cycles_of(script.step("products", 256), "hbm-asic") < cycles_of(script.step("direct", 256), "hbm-asic")


SECTIONS: dict[str, Callable[[Row, list[str], int, Path], None]] = {
    "N:M and masks without a pattern": a_scheme,
    "Few values": a_scheme,
    "Bits by layer": bits_by_layer,
    "Rows that tokens leave out": rows_left_out,
    "Attention": attention,
    "Shapes that shrink": shapes,
}


def a_command(row: Row, words: list[str]) -> None:
    """It says the frames a second that the row has."""
    said = StringIO()
    with redirect_stdout(said):
        assert main(words) == 0
    stated = re.findall(r"[\d,]+\.\d frames/s", row.cells["step, joules"])
    assert stated and all(one in said.getvalue() for one in stated)


def a_script(row: Row, words: list[str], folder: Path) -> None:
    """With the arguments by which `tests/test_docs.py` makes it short."""
    ((_, given),) = (mark.args for mark in runs_examples.pytestmark if mark.name == "parametrize")  # type: ignore[attr-defined]
    scripts = [one if isinstance(one[0], str) else one.values[0] for one in given]
    short = next((script for script in scripts if script[0] == Path(words[0]).name), None)
    assert short is not None, f"tests/test_docs.py does not run {words[0]}"
    asked = [sys.executable, str(ROOT / words[0]), *short[1:]]
    done = subprocess.run(asked, capture_output=True, text=True, timeout=300, check=False, cwd=folder)
    assert done.returncode == 0, done.stderr
    assert any(character.isdigit() for character in done.stdout)


def nothing_is_forgotten(row: Row, words: list[str], folder: Path) -> None:
    found = continual(tasks=2, density=0.2, epochs=4)
    assert found.forgotten == 0 and 0 < found.used < found.weights
    assert all(0.5 < task.learned == task.end for task in found.tasks)


def codes_of_attention(row: Row, words: list[str], folder: Path) -> None:
    """Signs in the place of softmax: it learns, and its step takes what the row says."""
    name = str(ROOT / "examples" / "ecoformer.py")
    learned = weft.train(f"{name}:hashed", "dense", epochs=1, optimizer="adamw")
    assert 0.1 < learned.accuracy <= 1
    script, found = example("examples/ecoformer.py"), []
    for side in (8, 28):
        steps = [weft.trace(*build(size=side)) for build in (script.hashed, script.whole)]
        assert any(op.a.levels or op.b.levels for op in steps[0].matrix_ops)
        (cycles, joules), (all_cycles, all_joules) = (PAPERS.costs(step, "bnn-ecp5") for step in steps)
        found.append((round(all_cycles / cycles, 2), round(joules / all_joules, 2)))
    assert row.numbers("step", RATIO) == found


def estimators_of_the_residue(row: Row, words: list[str], folder: Path) -> None:
    name = str(ROOT / "examples" / "bipft.py")
    trained = [weft.train(f"{name}:{form}", "bipft", epochs=1) for form in ("plain", "estimated")]
    assert all(0.05 < one.accuracy <= 1 for one in trained)
    plain, estimated = ({name for name, _ in one.model.named_parameters()} for one in trained)
    assert plain < estimated and len(estimated - plain) == 2 * 5 * 2


def noise_of_digits(row: Row, words: list[str], folder: Path) -> None:
    script = example("examples/binary_diffusion.py")
    assert 0 < script.trained("binarydm", 5) < 2
    step = weft.trace(*script.unet())
    marked = weft.sparsify(step, "binarydm")
    assert cycles_of(marked, "bnn-vu9p") < cycles_of(step, "bnn-vu9p")


EXAMPLES: dict[str, Callable[[Row, list[str], Path], None]] = {
    "examples/continual.py": nothing_is_forgotten,
    "examples/ecoformer.py": codes_of_attention,
    "examples/bipft.py": estimators_of_the_residue,
    "examples/binary_diffusion.py": noise_of_digits,
}
