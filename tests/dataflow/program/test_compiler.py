"""What the compiler makes of a step: programs that are proved, addresses that do not meet, refusals by name."""

from __future__ import annotations

from dataclasses import replace
from math import prod

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from weft.dataflow.config_io import load_spec
from weft.dataflow.program.boxes import blocks_of, boxes
from weft.dataflow.program.checker import check
from weft.dataflow.program.compiler import compile_step
from weft.dataflow.program.layout import Atom, View, merged, refined
from weft.dataflow.program.spaces import Target
from weft.dataflow.program.windows import met
from weft.workloads.errors import InputError
from weft.workloads.graph import Graph
from weft.workloads.im2col import Window
from weft.workloads.models.vision import cnn
from weft.workloads.sparsity import NMPattern
from weft.workloads.tracing.graph import forward_graph, step_graph
from weft.workloads.update_rule import ADAM, SGD

from ...examples_drawn import examples
from ...simulator.machine.program_run import graph_of

TINY = load_spec("tiny")


def step_of(model: nn.Module, *shape: int) -> Graph:
    return step_graph(model, torch.zeros(*shape), name="model")


def test_what_stays_lies_apart_in_the_window_and_images_with_their_halo() -> None:
    step = compile_step(step_of(cnn(channels=1, width=4), 2, 1, 8, 8), Target(spec=TINY, rule=ADAM))
    regions = [step.input, step.output, step.gradient, step.constants, *step.buffers.values()]
    for parameter in step.parameters:
        regions += [r for r in (parameter.master, *parameter.state, parameter.weight) if r is not None]
        assert len(parameter.state) == 2 and parameter.master is not None
    taken = np.zeros(step.window, int)
    for region in regions:
        each = region.element.bytes
        at = region.address + each * region.elements()
        assert at.size == prod(region.shape)
        for byte in range(each):
            taken[at + byte] += 1
    assert taken.max() == 1
    # one position of zeros on every side
    assert [axis[0].stride for axis in step.input.axes] == [100, 1, 10, 1]
    assert step.allocation.bound <= step.allocation.peak <= step.window
    assert check(step.forward, step.target, step.window) > 10
    assert {name: region.shape for name, region in step.buffers.items()} == {
        f"{layer}.running_{what}": (width,) for layer, width in ((1, 4), (5, 8)) for what in ("mean", "var")
    }


class Soft(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return functional.softmax(self.layer(x), dim=-1) + self.layer.bias


def test_what_the_host_computes_parts_a_pass() -> None:
    step = compile_step(step_of(Soft(), 2, 4), Target(spec=TINY, rule=SGD))
    assert list(step.programs) == ["forward-1", "forward-2", "backward-1", "backward-2"]
    hosted = [[work.op for work in part.then] for part in step.parts]
    assert hosted == [["aten._softmax"], [], ["aten._softmax_backward_data"], []]
    with pytest.raises(
        InputError, match=r"forward pass is 2 programs: the host computes aten._softmax of 'model' betw"
    ):
        _ = step.forward
    assert step.carried is not None and step.carried.shape == (1,)


def test_what_is_not_compiled_is_refused_by_name() -> None:
    target = Target(spec=TINY, rule=SGD)
    twice = nn.Sequential(nn.Conv2d(1, 2, 1), nn.LayerNorm([6, 6]))
    with pytest.raises(
        InputError, match="native_layer_norm of '1' norms more than the last side, which is not compiled"
    ):
        compile_step(step_of(twice, 2, 1, 6, 6), target)
    padded = nn.Sequential(nn.Conv2d(1, 2, 1), nn.MaxPool2d(2, padding=1, dilation=3))
    with pytest.raises(
        InputError, match="max_pool2d_with_indices of '1' has windows outside of its image, which is not"
    ):
        compile_step(step_of(padded, 2, 1, 2, 2), target)
    deep = nn.Linear(1025, 2)
    short = replace(TINY, array=replace(TINY.array, rows=8), buffers=replace(TINY.buffers, n2s_bytes=64))
    with pytest.raises(InputError, match=r"contracts over 1025 words, which no half of buffers.n2s_bytes .* 128 bytes"):
        compile_step(step_of(deep, 2, 1025), Target(spec=short, rule=SGD))
    small = replace(TINY, buffers=replace(TINY.buffers, output_bytes=64))
    with pytest.raises(
        InputError, match=r"makes 4 words a column at once, which no half of buffers.output_bytes .* 128"
    ):
        compile_step(step_of(nn.Linear(3, 2), 5, 3), Target(spec=small, rule=SGD))
    with pytest.raises(InputError, match="has 529 taps, above the 512 words of a bank, which is not compiled yet"):
        wide = nn.Sequential(nn.Conv2d(1, 1, 1), nn.Conv2d(1, 1, 23))
        compile_step(step_of(wide, 1, 1, 23, 23), target)
    with pytest.raises(InputError, match="the graph of 'model' has no backward pass"):
        compile_step(forward_graph(deep, torch.zeros(2, 1025), name="model"), target)


def test_pairs_must_be_those_of_the_machine() -> None:
    pattern = NMPattern(keep=2, group=8)
    model = nn.Sequential(nn.Linear(16, 16), nn.Linear(16, 16))
    graph = graph_of(model, (4, 16), pattern)
    with pytest.raises(InputError, match="keeps 2:8, but SORE of the machine is built for None"):
        compile_step(graph, Target(spec=TINY, rule=SGD))
    assert compile_step(graph, Target(spec=TINY, rule=SGD, pattern=pattern)).forward.instructions
    deep = graph_of(nn.Linear(2048, 16), (4, 2048), pattern)
    with pytest.raises(InputError, match=r"contracts over 2048 words, which no half of buffers.w2e_bytes of 'tiny'"):
        compile_step(deep, Target(spec=TINY, rule=SGD, pattern=pattern))
    nodes = tuple(
        node if node.kept is None else replace(node, kept=replace(node.kept, compact=False)) for node in graph.nodes
    )
    with pytest.raises(InputError, match="multiplies the zeros of a pattern, which is not compiled yet"):
        compile_step(replace(graph, nodes=nodes), Target(spec=TINY, rule=SGD, pattern=pattern))
    nodes = tuple(
        node if node.kept is None else replace(node, kept=replace(node.kept, operand="a")) for node in graph.nodes
    )
    with pytest.raises(InputError, match="runs on pairs of its gradient, which is not compiled yet"):
        compile_step(replace(graph, nodes=nodes), Target(spec=TINY, rule=SGD, pattern=pattern))


@settings(max_examples=examples(100), deadline=None)
@given(st.lists(st.integers(1, 5), min_size=1, max_size=3), st.integers(1, 6), st.data())
def test_boxes_are_all_places_in_order(lengths: list[int], bank: int, data: st.DataObject) -> None:
    first = data.draw(st.integers(0, prod(lengths) - 1))
    end = data.draw(st.integers(first + 1, prod(lengths)))
    found: list[int] = []
    for begin, counts in boxes(lengths, first, end, lambda o: bank - o % bank if o % bank else 99):
        assert begin == first + len(found)
        offset = (begin - first) % bank
        assert not offset or offset + prod(counts) <= bank
        # of the last lengths all but the first in full, from where that begins
        assert list(counts[1:]) == lengths[len(lengths) - len(counts) + 1 :]
        assert begin % prod(counts[1:]) == 0
        found += range(begin, begin + prod(counts))
    assert found == list(range(first, end))


@settings(max_examples=examples(100), deadline=None)
@given(st.lists(st.integers(1, 5), max_size=5), st.integers(1, 30))
def test_blocks_are_all_places_in_order(lengths: list[int], room: int) -> None:
    strides = [prod(lengths[i + 1 :]) for i in range(len(lengths))]
    found: list[int] = []
    for block in blocks_of((0,), 1, [(n, (s,)) for n, s in zip(lengths, strides, strict=True)], room):
        assert block.rows <= max(room, 1) and len(block.counts) <= 4
        at = np.array([block.at[0]])
        for count, (stride,) in zip(block.counts, block.strides, strict=True):
            at = (at[:, None] + np.arange(count) * stride).ravel()
        found += at.tolist()
    assert found == list(range(prod(lengths)))


@given(st.integers(1, 9), st.integers(1, 3), st.integers(1, 3), st.integers(0, 2), st.integers(1, 2), st.data())
def test_what_a_tap_meets(side: int, kernel: int, stride: int, pad: int, dilation: int, data: st.DataObject) -> None:
    sides = {"kernel": (kernel,), "stride": (stride,), "padding": (pad,), "dilation": (dilation,)}
    window = Window(image=(side,), **sides)
    begin = data.draw(st.integers(0, side - 1))
    end, tap = data.draw(st.integers(begin + 1, side)), data.draw(st.integers(0, kernel - 1))
    pairs = [(q, q * stride + tap * dilation - pad) for q in range(max(0, window.positions[0]))]
    wanted = [(q, x) for q, x in pairs if begin <= x < end]
    found = met(window, 0, tap, begin, end)
    assert [(found.window + i, found.first + i * stride) for i in range(found.met)] == wanted


def test_atoms_are_cut_to_the_same_lengths() -> None:
    flat, image = [Atom(12, 1)], [Atom(3, 20), Atom(4, 2)]
    assert refined([flat, image]) == [[Atom(3, 4), Atom(4, 1)], image]
    assert refined([[Atom(6, 1)], [Atom(4, 1)]]) is None
    assert refined([[Atom(3, 1)], [Atom(3, 1), Atom(2, 3)]]) is None
    assert refined([[Atom(1, 0)], []]) == [[Atom(1, 1)], [Atom(1, 1)]]
    assert merged([flat]) == [(12, (1,))]
    padded = View.whole(0, (2, 3, 4, 5), (1, 2))
    assert padded.axes == ((Atom(2, 162),), (Atom(3, 1),), (Atom(4, 27),), (Atom(5, 3),)) and padded.offset == 33
