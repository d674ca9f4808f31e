"""Programs of training steps on the machine's values: every bit is that of the step node by node, which has none."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from weft.dataflow.accelerator import AcceleratorSpec
from weft.dataflow.config_io import load_spec
from weft.dataflow.program.commands import execution
from weft.dataflow.program.compiler import compile_step
from weft.dataflow.program.isa import Unit
from weft.dataflow.program.placement import HOSTED
from weft.dataflow.program.spaces import Form, Target
from weft.simulator.machine.chip import Chip
from weft.simulator.machine.host import Host
from weft.simulator.machine.step import Execution
from weft.simulator.update_settings import Adam, AdamW, Nesterov, Sgd
from weft.workloads.errors import InputError
from weft.workloads.models.vision import cnn, resnet9, vit_s
from weft.workloads.sparsity import NMPattern
from weft.workloads.update_rule import SGD

from ...examples_drawn import examples
from .program_run import Settings, graph_of, held_of, require_same, train


def tiny(**buffers: int) -> AcceleratorSpec:
    spec = load_spec("tiny")
    return replace(spec, buffers=replace(spec.buffers, **buffers))


def perceptron(*widths: int) -> nn.Module:
    torch.manual_seed(0)
    layers: list[nn.Module] = [nn.Flatten()]
    for i, (a, b) in enumerate(pairwise(widths)):
        layers += [nn.Linear(a, b, bias=i % 2 == 0), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


RULES: dict[str, Settings] = {
    "sgd": lambda n: Sgd(rate=0.1 / n, momentum=0.9, weight_decay=0.01, inverse_scale=0.5),
    "nesterov": lambda n: Nesterov(rate=0.1, momentum=0.9),
    "adam": lambda n: Adam(rate=0.01, step=n),
    "adamw": lambda n: AdamW(rate=0.01, step=n, weight_decay=0.1),
}


@pytest.mark.parametrize("rule", RULES)
def test_every_rule_trains_a_perceptron(rule: str) -> None:
    train(perceptron(9, 7, 6, 5), (5, 1, 3, 3), tiny(), settings=RULES[rule], steps=3)


@settings(max_examples=examples(12), deadline=None)
@given(st.integers(1, 11), st.tuples(st.just(12), *(st.integers(1, 13),) * 3), st.sampled_from((64, 128, 512)))
def test_ragged_products_are_cut_in_both_directions(batch: int, widths: tuple[int, ...], bytes_: int) -> None:
    """Buffers of 64 bytes a bank and more hold as little as 13 words; so few that tiles are cut down and across."""
    spec = tiny(w2e_bytes=4 * bytes_, n2s_bytes=4 * bytes_, output_bytes=2 * bytes_)
    train(perceptron(*widths), (batch, 3, 2, 2), spec)


def test_macro_tiles_are_cut_in_both_directions() -> None:
    spec = tiny(w2e_bytes=512, n2s_bytes=512, output_bytes=256)
    step = train(perceptron(12, 21, 3), (11, 3, 2, 2), spec)
    made = [s.command for s in execution(step.forward.instructions) if hasattr(s, "command")]
    products = [c for c in made if c.unit == Unit.PRODUCT]
    stores = {(c.address, c.words) for c in made if c.unit == Unit.STORE}
    assert len(products) > 4 and len({words for _, words in stores}) > 1


def test_a_step_that_is_not_finite_changes_nothing_but_buffers() -> None:
    torch.manual_seed(0)
    train(cnn(channels=1, width=2), (3, 1, 4, 4), tiny(), steps=3, broken=2)


@pytest.mark.parametrize("arch", ["tiny", "sat-ecp5"])
def test_networks_train_by_their_programs(arch: str) -> None:
    torch.manual_seed(0)
    train(cnn(channels=1, width=4), (5, 1, 8, 8), load_spec(arch), steps=2)
    train(resnet9(channels=1, width=2), (3, 1, 8, 8), load_spec(arch))


@pytest.mark.parametrize("format", ["fp16", "bf16"])
def test_what_runs_compact_goes_through_sore(format: Any) -> None:
    torch.manual_seed(0)
    spec = load_spec("tiny")
    spec = replace(spec, pe=replace(spec.pe, format=format))
    pattern = NMPattern(keep=2, group=8)
    for model, shape in ((perceptron(12, 21, 18, 10), (5, 3, 2, 2)), (cnn(channels=1, width=9), (3, 1, 8, 8))):
        step = train(model, shape, spec, pattern=pattern, steps=2)
        for program in (step.forward, step.backward):
            commands = [s.command for s in execution(program.instructions) if hasattr(s, "command")]
            across = {c.across for c in commands if c.unit == Unit.LOAD and c.reduce}
            assert across == ({0} if program is step.forward else {1})
            assert {(c.keep, c.group) for c in commands if c.unit == Unit.PRODUCT} >= {(2, 8)}


def eight_bits(**buffers: int) -> AcceleratorSpec:
    spec = tiny(**buffers)
    return replace(spec, pe=replace(spec.pe, format="fp8"))


def test_eight_bits_train_a_perceptron_through_sore() -> None:
    """Both encodings: E5M2 gradients meet E4M3 weights and activations, and show what is not finite."""
    step = train(
        perceptron(12, 21, 18, 10), (5, 3, 2, 2), eight_bits(), pattern=NMPattern(keep=2, group=8), steps=3, broken=2
    )
    commands = [
        s.command for p in (step.forward, step.backward) for s in execution(p.instructions) if hasattr(s, "command")
    ]
    assert {(c.w2e_gradient, c.n2s_gradient) for c in commands if c.unit == Unit.PRODUCT} == {(0, 0), (1, 0)}
    assert {c.gradient for c in commands if c.unit == Unit.STORE} == {0, 1}


@pytest.mark.slow
@pytest.mark.parametrize("pattern", [None, NMPattern(keep=2, group=8)])
@pytest.mark.parametrize("arch", ["tiny", "sat-ecp5"])
def test_eight_bits_train_networks(arch: str, pattern: NMPattern | None) -> None:
    torch.manual_seed(0)
    spec = load_spec(arch)
    spec = replace(spec, pe=replace(spec.pe, format="fp8"))
    for model, shape in ((cnn(channels=1, width=9), (3, 1, 8, 8)), (resnet9(channels=1, width=8), (2, 1, 8, 8))):
        train(model, shape, spec, pattern=pattern, steps=2)


@pytest.mark.slow
def test_eight_bits_train_what_is_cut_and_what_the_host_computes() -> None:
    torch.manual_seed(0)
    train(cnn(channels=1, width=4), (3, 1, 8, 8), eight_bits(w2e_bytes=256, n2s_bytes=256, output_bytes=512))
    train(Kinds(), (3, 2, 9, 9), eight_bits(), steps=2)
    train(Attention(39, soft=True), (3, 1, 4, 4), eight_bits(), steps=3, broken=2)


def test_eight_bits_tell_few_taps_apart() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 1), nn.MaxPool2d(5))
    with pytest.raises(InputError, match="has 25 taps, but 'fp8' tells no more than 17 apart"):
        train(model, (2, 1, 5, 5), eight_bits())
    with pytest.raises(InputError, match="'int8', but the vector unit and WUVE of a program make real operands"):
        spec = tiny()
        Target(spec=replace(spec, pe=replace(spec.pe, format="int8")), rule=SGD)


class Kinds(nn.Module):
    """What the zoo's small networks do not have: strides, dilation, groups, pools that overlap or leave a rest, images
    flattened, means, a side that is repeated."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(2, 6, 3, padding=1)
        self.strided = nn.Conv2d(6, 4, 3, stride=2, padding=2)
        self.grouped = nn.Conv2d(4, 6, (2, 3), dilation=2, padding=(1, 2), groups=2, bias=False)
        self.plain = nn.Conv2d(6, 6, 1)
        self.last = nn.Linear(6 * 2 * 2, 5)
        self.shift = nn.Parameter(torch.randn(6, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = self.strided(functional.relu(self.first(x)))
        x = functional.max_pool2d(functional.relu(self.grouped(x)), 2, stride=1)
        x = functional.relu(self.plain(x) + x) + self.shift
        mean = x.mean((2, 3), keepdim=True)
        x = functional.max_pool2d(x + mean, 2)
        return self.last(x.flatten(1)) * 0.5


def test_windows_of_every_kind_train() -> None:
    torch.manual_seed(1)
    train(Kinds(), (3, 2, 9, 9), tiny(), steps=2)


@settings(max_examples=examples(25), deadline=None)
@given(st.data())
def test_any_convolution_is_that_of_the_step(data: st.DataObject) -> None:
    draw = data.draw
    groups, kernel = draw(st.sampled_from((1, 1, 2))), draw(st.tuples(*(st.integers(1, 3),) * 2))
    stride, dilation = (draw(st.tuples(*(st.integers(1, 3),) * 2)) for _ in range(2))
    padding = draw(st.tuples(*(st.integers(0, 2),) * 2))
    reach = [d * (k - 1) + 1 - 2 * p for d, k, p in zip(dilation, kernel, padding, strict=True)]
    image = tuple(draw(st.integers(max(1, r), max(1, r) + 4)) for r in reach)
    inside, outside = groups * draw(st.integers(1, 3)), groups * draw(st.integers(1, 5))
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, inside, 1),
        nn.Conv2d(inside, outside, kernel, stride, padding, dilation, groups, bias=draw(st.booleans())),  # type: ignore[arg-type]
    )
    spec = tiny(w2e_bytes=draw(st.sampled_from((2048, 16384))), output_bytes=draw(st.sampled_from((256, 8192))))
    array = replace(spec.array, rows=draw(st.integers(1, 5)), cols=draw(st.integers(1, 5)))
    train(model, (draw(st.integers(1, 3)), 1, *image), replace(spec, array=array))


class Attention(nn.Module):
    """Patches, a class token, positions, heads, norms; with ``soft`` also what the host computes."""

    def __init__(self, width: int, *, soft: bool) -> None:
        super().__init__()
        self.patch, self.soft = nn.Conv2d(1, width, 2, stride=2), soft
        self.token, self.positions = nn.Parameter(torch.randn(1, 1, width)), nn.Parameter(torch.randn(1, 5, width))
        self.norm, self.packed = nn.LayerNorm(width), nn.Linear(width, 3 * width)
        self.head = nn.Linear(width, 4)
        with torch.no_grad():
            self.norm.weight.copy_(torch.randn(width))
            self.norm.bias.copy_(torch.randn(width))

    def forward(self, images: Tensor) -> Tensor:
        x = self.patch(images).flatten(2).transpose(1, 2)
        x = self.norm(torch.cat((self.token.expand(len(x), -1, -1), x), dim=1) + self.positions)
        q, k, v = self.packed(x).unflatten(-1, (3, 3, -1)).permute(2, 0, 3, 1, 4)
        weights = q @ k.transpose(-2, -1) * 0.5
        if self.soft:
            weights = functional.gelu(weights.softmax(-1), approximate="tanh")
        x = x + (weights @ v).transpose(1, 2).flatten(2)
        return self.head(x[:, 0])


@pytest.mark.parametrize(("width", "soft"), [(12, False), (39, True)])
def test_attention_trains_by_its_programs(width: int, soft: bool) -> None:
    """A step that is not finite is skipped, though a program before the last one may have raised the flag."""
    torch.manual_seed(0)
    train(Attention(width, soft=soft), (3, 1, 4, 4), tiny(), steps=3, broken=2)


@pytest.mark.slow
@pytest.mark.parametrize("arch", ["tiny", "sat-ecp5"])
def test_a_transformer_trains_by_its_programs(arch: str) -> None:
    torch.manual_seed(0)
    step = train(vit_s(8, 10, 1, 64, 2, 4), (4, 1, 8, 8), load_spec(arch), steps=2)
    assert {work.op for part in step.parts for work in part.then} == set(HOSTED)


@settings(max_examples=examples(3), deadline=None)
@given(st.data())
def test_a_pool_with_padding_is_that_of_the_step(data: st.DataObject) -> None:
    """Ties, and windows that overlap, or do not, where taps lie outside on any side."""
    draw = data.draw
    kernel = draw(st.tuples(*(st.integers(2, 4),) * 2))
    padding = tuple(draw(st.integers(0, side // 2)) for side in kernel)
    stride = draw(st.tuples(*(st.integers(1, 4),) * 2))
    image = tuple(draw(st.integers(k, 7)) for k in kernel)
    torch.manual_seed(0)
    pool = nn.MaxPool2d(kernel, stride, padding)  # type: ignore[arg-type]
    train(nn.Sequential(nn.Conv2d(1, 5, 1), nn.ReLU(), pool, nn.Conv2d(5, 2, 1)), (2, 1, *image), tiny())


def test_of_windows_at_an_edge_infinities_and_nans_are_the_first_largest() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 5, 1), nn.MaxPool2d(3, 2, 1))
    graph = graph_of(model, (2, 1, 7, 8))
    step = compile_step(graph, Target(spec=tiny(), rule=SGD))
    pixels = np.random.default_rng(0).choice(np.array([-np.inf, np.nan, np.inf, 1], np.float32), (2, 1, 7, 8))
    chip = Chip(step.target, np.zeros(step.window, np.uint8))
    host = Host(step, chip.memory)
    host.begin(held_of(model))
    host.put_input(pixels)
    chip.run(step.forward.instructions)
    require_same("scores", host.scores(), Execution(graph, held_of(model), pixels, "fp16").forward())


@settings(max_examples=examples(3), deadline=None)
@given(st.integers(1, 13), st.tuples(*(st.integers(1, 40),) * 3), st.sampled_from((16, 32, 64)), st.data())
def test_contractions_that_no_half_holds_are_several_commands(
    batch: int, widths: tuple[int, ...], bytes_: int, data: st.DataObject
) -> None:
    rows, cols = (data.draw(st.integers(1, 4)) for _ in range(2))
    spec = tiny(w2e_bytes=4 * bytes_ * rows, n2s_bytes=4 * bytes_ * cols, output_bytes=512 * cols)
    spec = replace(spec, array=replace(spec.array, rows=rows, cols=cols))
    train(perceptron(48, *widths), (batch, 3, 4, 4), spec)


def test_windows_whose_contractions_no_half_holds_go_on_from_their_sums() -> None:
    torch.manual_seed(0)
    step = train(cnn(channels=1, width=4), (3, 1, 8, 8), tiny(w2e_bytes=512, n2s_bytes=512, output_bytes=512))
    commands = [s.command for s in execution(step.backward.instructions) if hasattr(s, "command")]
    assert {c.resume for c in commands if c.unit == Unit.PRODUCT} == {0, 1}


def test_the_host_refuses_what_does_not_belong_there() -> None:
    step = train(perceptron(4, 3), (2, 1, 2, 2), tiny())
    with pytest.raises(InputError, match="memory must be uint8"):
        Host(step, np.zeros(4, np.uint8))
    host = Host(step, np.zeros(step.window, np.uint8))
    with pytest.raises(InputError, match=r"float32 \[2, 1, 2, 2\], not float32 \[3, 1, 2, 2\]"):
        host.put_input(np.zeros((3, 1, 2, 2), np.float32))
    with pytest.raises(InputError, match="settings are of adam, but WUVE of the machine is built for sgd"):
        host.put_settings(Adam(rate=0.1, step=1))
    assert step.output.element.form is Form.OPERAND
