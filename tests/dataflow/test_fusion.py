"""Fusion: never more of anything, byte for byte what a slow interpreter finds, and the same on every path."""

from __future__ import annotations

import csv
from collections import Counter, defaultdict
from dataclasses import replace
from functools import cache
from random import Random

import pytest
import torch
from torch import Tensor, nn

from weft.dataflow.accelerator import AcceleratorSpec
from weft.dataflow.batch.evaluate import Status, evaluate
from weft.dataflow.config_io import load_spec
from weft.dataflow.fusion.facts import Facts
from weft.dataflow.fusion.fuse import FUSIONS, fuse, groups_of
from weft.dataflow.lifetimes import Live, lives
from weft.dataflow.schedule import schedule
from weft.simulator.memory import memory_need
from weft.simulator.model_memory import model_tensors
from weft.simulator.step import simulate
from weft.workloads.errors import InputError
from weft.workloads.gemm import Pass
from weft.workloads.io import dumps_workload, loads_workload
from weft.workloads.models import zoo
from weft.workloads.schemes.annotate import annotate
from weft.workloads.sparsity import NMPattern
from weft.workloads.step import MatrixOp, VectorOp, Workload
from weft.workloads.trace import trace_step

from ..workloads.oracle_configs import CONFIGS
from ..workloads.toy_models import floats, source_of
from . import inductor_groups
from .fusion_interpreter import kept_by_autograd, play, watched

SAT, TINY = load_spec("sat-vcu1525"), load_spec("tiny")
TWO_OF_EIGHT = NMPattern(keep=2, group=8)
GRAPHS = 30
SIDE, CHANNELS, BATCH = 8, 8, 4


class Residual(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return x + self.inner(x)


class Attention(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(width, width) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        scores = self.q(x) @ self.k(x).transpose(1, 2) * 0.25
        return nn.functional.softmax(scores.masked_fill(scores > 2, -1e4), dim=-1) @ self.v(x)


class RMSNorm(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        wide = x.float()
        return self.weight * (wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + 1e-6)).to(x.dtype)


def image_layers(random: Random) -> list[nn.Module]:
    kinds = [
        lambda: nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1),
        lambda: nn.Conv2d(CHANNELS, CHANNELS, 1),
        lambda: nn.BatchNorm2d(CHANNELS),
        lambda: nn.ReLU(),
        lambda: nn.Sequential(nn.BatchNorm2d(CHANNELS), nn.ReLU(inplace=True)),
        lambda: nn.Hardswish(),
        lambda: nn.AvgPool2d(3, 1, 1),
        lambda: nn.MaxPool2d(3, 1, 1),
        lambda: Residual(nn.Sequential(nn.Conv2d(CHANNELS, CHANNELS, 1), nn.BatchNorm2d(CHANNELS), nn.ReLU())),
    ]
    return [nn.Conv2d(3, CHANNELS, 3, padding=1), *(random.choice(kinds)() for _ in range(6)), nn.Flatten()]


def token_layers(random: Random) -> list[nn.Module]:
    kinds = [
        lambda: nn.Linear(CHANNELS, CHANNELS),
        lambda: nn.GELU(),
        lambda: nn.SiLU(),
        lambda: nn.Tanh(),
        lambda: nn.LayerNorm(CHANNELS),
        lambda: RMSNorm(CHANNELS),
        lambda: nn.Dropout(0.1),
        lambda: Residual(Attention(CHANNELS)),
        lambda: Residual(nn.Sequential(nn.LayerNorm(CHANNELS), nn.Linear(CHANNELS, CHANNELS), nn.Dropout(0.1))),
    ]
    return [nn.Linear(3, CHANNELS), *(random.choice(kinds)() for _ in range(7)), nn.Flatten()]


def model(seed: int) -> nn.Sequential:
    random = Random(seed)
    layers = image_layers(random) if seed % 2 else token_layers(random)
    return nn.Sequential(*layers, nn.LazyLinear(5))


def shape(seed: int) -> tuple[int, ...]:
    return (BATCH, 3, SIDE, SIDE) if seed % 2 else (BATCH, SIDE, 3)


def loss(output: Tensor) -> Tensor:
    return output.float().pow(2).sum()


@cache
def graph(seed: int) -> Workload:
    dtype = torch.bfloat16 if seed % 3 == 0 else None
    return trace_step(source_of(lambda: model(seed), floats(*shape(seed)), loss=loss, dtype=dtype))


@pytest.mark.parametrize("fusion", FUSIONS)
def test_bytes_are_those_of_an_interpreter_on_thirty_graphs(fusion: str) -> None:
    saved = compared = 0
    for seed in range(GRAPHS):
        step, fused = graph(seed), fuse(graph(seed), fusion)
        groups = groups_of(step, fusion)
        played = play(step, groups)
        whole = {i for i, op in enumerate(step.ops) if isinstance(op, VectorOp) and _told(step, i)}
        joined = {i for group in groups.groups for i in group.ops}
        for trip in (*(group.ops for group in groups.groups), *([i] for i in whole - joined)):
            work = [i for i in trip if isinstance(step.ops[i], VectorOp)]
            if whole.issuperset(work):
                read = sum(fused.ops[i].read_bytes + fused.ops[i].wide_read for i in work)
                written = sum(fused.ops[i].write_bytes + fused.ops[i].wide_write for i in work)
                assert (read, written) == played[trip[0]], (seed, trip)
                compared += len(work)
        saved += sum(a.moved - b.moved for a, b in zip(vectors(step), vectors(fused), strict=True))
    assert (saved > 0) is (fusion != "none")
    assert compared > 0.9 * sum(len(vectors(graph(seed))) for seed in range(GRAPHS))


def vectors(step: Workload) -> list[VectorOp]:
    return [op for op in step.ops if isinstance(op, VectorOp)]


def _told(step: Workload, i: int) -> bool:
    """Whether op ``i`` moves all of its tensors, as the interpreter has it: not so where one is read in part."""
    op = step.ops[i]
    assert isinstance(op, VectorOp)
    sizes = [sum(t.bytes for t in step.tensors if i in t.read), sum(t.bytes for t in step.tensors if t.made == i)]
    return sizes == [op.read_bytes, op.write_bytes]


def test_the_tensors_of_a_step_are_those_of_one_on_real_numbers() -> None:
    """Found by another dispatch mode, which knows no products; of images, as dropout is another operator on a CPU."""
    for seed in (1, 3, 5, 7, 9):
        torch.manual_seed(seed)
        real, x = model(seed), torch.randn(shape(seed))
        real(x)
        traced: Counter[tuple[int, int]] = Counter()
        step = trace_step(source_of(lambda seed=seed: model(seed), floats(*shape(seed)), loss=loss))
        for tensor in step.tensors:
            traced[tensor.bytes, len({_call(step, i) for i in tensor.read} - {"update"})] += tensor.made >= 0
        found = Counter((s.bytes, len(set(s.read))) for s in watched(real, x, loss) if s.made)
        # Whoever watches holds gradients of parameters, so PyTorch copies them.
        left_out = {0, *(4 * parameter.numel() for parameter in real.parameters())}
        traced, found = ({k: n for k, n in c.items() if n and k[0] not in left_out} for c in (traced, found))
        assert traced == found, seed
        assert len(traced) > 3


def _call(step: Workload, i: int) -> str:
    op = step.ops[i]
    return op.op if isinstance(op, MatrixOp | VectorOp) else "update"


def test_what_backward_reads_of_forward_is_what_autograd_saves() -> None:
    for seed in range(12):
        torch.manual_seed(seed)
        real, x = model(seed), torch.randn(shape(seed))
        real(x)
        step = trace_step(source_of(lambda seed=seed: model(seed), floats(*shape(seed)), loss=loss))
        kept = Counter[int]()
        for tensor in step.tensors:
            if tensor.made >= 0 and step.ops[tensor.made].pass_ is Pass.FF:
                kept[tensor.bytes] += any(step.ops[i].pass_ is not Pass.FF for i in tensor.read)
        # Running statistics are buffers, which it does not count.
        kept = Counter({size: n for size, n in kept.items() if size > 4 * CHANNELS})
        assert kept
        assert not kept - kept_by_autograd(real, x, loss), seed


def lives_of(step: Workload, spec: AcceleratorSpec) -> list[Live]:
    return lives(step, model_tensors(step), spec.pe.operand)


def kept_for_backward(step: Workload, spec: AcceleratorSpec) -> int:
    """Bytes that are there when the forward pass has ended."""
    last = max((i for i, op in enumerate(step.ops) if op.pass_ is Pass.FF), default=0)
    return sum(one.size for one in lives_of(step, spec) if one.first <= last < one.last)


def made_early(step: Workload, fused: Workload, spec: AcceleratorSpec) -> int:
    """The most bytes at a time that fusion makes before the op that made them."""
    own = {one.made: one.first for one in lives_of(step, spec)}
    early = [one for one in lives_of(fused, spec) if one.first < own.get(one.made, -1)]
    heads = {one.first for one in early}
    return max((sum(one.size for one in early if one.first <= at < own[one.made]) for at in heads), default=0)


def require_no_more(step: Workload, spec: AcceleratorSpec, *, timed: bool = True) -> None:
    """Under fusion nothing of a step is more than without, op by op, and in all."""
    assert fuse(step, "none") is step
    before, kept = schedule(step, spec) if timed else None, memory_need(step, spec)
    least = simulate(before).cycles.total if before else 0
    for fusion in ("elementwise", "full"):
        fused = fuse(step, fusion)
        for a, b in zip(step.ops, fused.ops, strict=True):
            if isinstance(b, VectorOp):
                assert isinstance(a, VectorOp)
                assert b.read_bytes <= a.read_bytes
                assert b.write_bytes <= a.write_bytes
                assert (b.elements, b.lanes <= a.lanes) == (a.elements, True)
            else:
                assert a == b
        # What backward keeps is never more. What is alive at a time may be, by what a group makes as early as its head.
        assert kept_for_backward(fused, spec) <= kept_for_backward(step, spec)
        assert memory_need(fused, spec).alive <= kept.alive + made_early(step, fused, spec)
        if before:
            try:
                after = simulate(schedule(fused, spec))
            except InputError as error:
                assert fusion == "full" and "rows" in str(error)
                continue
            assert after.counts.dram_bytes <= simulate(before).counts.dram_bytes
            assert after.cycles.total <= least
            least = after.cycles.total if fusion == "elementwise" else least


@pytest.mark.parametrize("spec", [SAT, TINY], ids=lambda spec: spec.name)
def test_nothing_is_more_on_small_graphs(spec: AcceleratorSpec) -> None:
    for seed in range(6):
        require_no_more(graph(seed), spec)


@pytest.mark.slow
@pytest.mark.parametrize("name", zoo.names())
def test_nothing_is_more_in_the_zoo(name: str) -> None:
    require_no_more(trace_step(zoo.source(name)), SAT)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(CONFIGS)[::2])
def test_nothing_is_more_in_configurations(name: str) -> None:
    require_no_more(trace_step(CONFIGS[name].source()), SAT)


@pytest.mark.parametrize("fusion", ["elementwise", "full"])
def test_many_machines_have_the_figures_of_each(fusion: str) -> None:
    """On machines whose vector unit, memory or buffers bind; one cannot hold a row."""
    lanes = [replace(SAT, vector=replace(SAT.vector, lanes=n)) for n in (1, 64, 4096)]
    slow = [replace(spec, dram=replace(spec.dram, bytes_per_second=2_000_000_000)) for spec in lanes]
    small = replace(SAT, buffers=replace(SAT.buffers, output_bytes=64))
    machines = [*lanes, *slow, small, TINY]
    refused = 0
    for seed in (1, 2):
        step = fuse(graph(seed), fusion)
        for work in (step, annotate(step, "bdwp", TWO_OF_EIGHT)):
            found = evaluate(work, machines)
            for n, spec in enumerate(machines):
                try:
                    one = simulate(schedule(work, spec))
                except InputError:
                    assert found.status[n] == Status.NO_ROOM
                    refused += 1
                    continue
                assert (found.cycles[n], found.dram_bytes[n]) == (one.cycles.total, one.counts.dram_bytes)
    assert refused >= (fusion == "full")


def test_what_joins_a_relu_is_by_hand() -> None:
    """A perceptron: ReLU is done as the product is stored, its gradient as that of the next product is."""
    layers = lambda: nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 8))  # noqa: E731
    step = trace_step(source_of(layers, floats(64, 16)))
    fused = fuse(step, "elementwise")
    relu = next(op for op in vectors(fused) if op.op == "aten.relu")
    back = next(op for op in vectors(fused) if op.op == "aten.threshold_backward")

    assert (relu.read_bytes, relu.write_bytes, relu.lanes) == (0, 0, 0)
    assert relu.joined is not None and relu.joined.name == "0"
    assert (relu.joined.read, relu.joined.write) == (64 * 32 * 4, 64 * 32 * 4)
    assert (back.read_bytes, back.write_bytes, back.lanes) == (64 * 32 * 4, 0, 64 * 32)
    assert back.joined is not None and (back.joined.name, back.joined.pass_) == ("2", Pass.BP)


def test_a_gradient_of_windows_takes_nothing_in() -> None:
    """The mapping may add such a gradient up in memory; of a kernel of one tap it is whole."""
    for taps, joined in ((3, False), (1, True)):
        layers = lambda taps=taps: nn.Sequential(  # noqa: E731
            nn.Conv2d(8, 8, 1), nn.ReLU(), nn.Conv2d(8, 8, taps, padding=taps // 2)
        )
        fused = fuse(trace_step(source_of(layers, floats(2, 8, 8, 8))), "elementwise")
        back = next(op for op in vectors(fused) if op.op == "aten.threshold_backward")
        assert (back.joined is not None) is joined


def test_a_mask_of_dropout_takes_a_bit() -> None:
    layers = lambda: nn.Sequential(nn.Linear(16, 32), nn.Dropout(0.5), nn.Linear(32, 8))  # noqa: E731
    step = trace_step(source_of(layers, floats(64, 16)))
    fused = fuse(step, "full")
    assert sum(op.wide_write for op in vectors(fused)) == sum(op.wide_read for op in vectors(fused)) == 64 * 32 // 8
    assert not any(op.wide_write for op in vectors(fuse(step, "elementwise")))


def test_a_fused_step_is_kept_as_it_is() -> None:
    fused = fuse(graph(2), "full")
    read = loads_workload(dumps_workload(fused))
    assert (read, read.tensors, read.fusion) == (fused, fused.tensors, "full")
    assert b"fusion" not in dumps_workload(graph(2))
    by_op = defaultdict(int)
    for tensor in read.tensors:
        by_op[tensor.made] += 1
    assert set(by_op) <= set(range(-1, len(read.ops)))


def test_what_cannot_be_fused_is_refused_with_what_would_do() -> None:
    step = graph(2)
    with pytest.raises(InputError, match="did you mean 'full'"):
        fuse(step, "ful")
    with pytest.raises(InputError, match="fused already"):
        fuse(fuse(step, "full"), "elementwise")
    with pytest.raises(InputError, match="trace it again"):
        fuse(replace(step, tensors=()), "full")
    with pytest.raises(InputError, match="name ops that it has not"):
        replace(step, ops=step.ops[:-1], after=())
    fused = next(f for f in (fuse(graph(seed), "full") for seed in range(0, GRAPHS, 2)) if _holds_rows(f))
    with pytest.raises(InputError, match="use fusion elementwise, or buffers"):
        schedule(fused, replace(SAT, buffers=replace(SAT.buffers, output_bytes=64)))


def _holds_rows(step: Workload) -> bool:
    return any(op.joined is not None and op.joined.row > 32 for op in vectors(step))


GROUPED = {
    row["graph"]: (int(row["forward"]), int(row["backward"]))
    for row in csv.DictReader(inductor_groups.FILE.read_text().splitlines()[1:])
}
_ONE = inductor_groups.ROWS * inductor_groups.WIDTH
_DIFFERS = {
    # Inductor makes the result of ReLU, and the sum, again in backward, of what it reads then; here they are written.
    "relu, hardswish": (_ONE, 0),
    "added": (_ONE, -_ONE),
    # Its backward takes two trips, of which the second gathers the gradients of scale and bias.
    "layer norm": (0, 49_920 - 83_136),
    # The two operands of the gate are made by two products, of which only one can be there first.
    "gated": (2 * _ONE, 4 * _ONE),
}


def elements(step: Workload) -> tuple[int, int]:
    """Elements that vector work moves forward and backward, but for the loss."""
    moved = {p: sum(op.moved // 4 for op in vectors(step) if op.pass_ is p and op.name != "toy") for p in Pass}
    return moved[Pass.FF], moved[Pass.BP] + moved[Pass.WU]


@pytest.mark.parametrize("name", GROUPED)
def test_without_products_vector_work_is_grouped_as_pytorchs_compiler_does(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Inductor joins nothing to a product of a library; neither does the pass here. Where they differ, by how much."""
    step = trace_step(source_of(inductor_groups.GRAPHS[name], floats(inductor_groups.ROWS, inductor_groups.WIDTH)))
    joined = elements(fuse(step, "full"))
    monkeypatch.setattr(Facts, "gives_whole", lambda *_: False)
    alone = elements(fuse(step, "full"))
    assert (alone[0] - GROUPED[name][0], alone[1] - GROUPED[name][1]) == _DIFFERS.get(name, (0, 0))
    assert sum(joined) <= sum(GROUPED[name])
