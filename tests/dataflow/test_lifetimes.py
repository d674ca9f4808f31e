"""What is in DRAM when: by a player of events that frees a storage once nobody asks for it, and by PyTorch's memory."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import weft
from weft.dataflow.config_io import load_spec
from weft.dataflow.fusion.fuse import FUSIONS, fuse, groups_of
from weft.dataflow.lifetimes import Live, lives
from weft.dataflow.operand import FP16, FP32
from weft.simulator.memory import memory_need
from weft.simulator.model_memory import model_tensors
from weft.workloads.gemm import Pass
from weft.workloads.step import VectorOp, Workload
from weft.workloads.tensors import StepTensor

from .fusion_interpreter import Trips, play, size
from .test_fusion import graph, shape

TINY = load_spec("tiny")
BEFORE = -1


def most_at_once(live: Sequence[Live], ops: int) -> int:
    return max(sum(one.size for one in live if one.first <= i <= one.last) for i in range(ops))


def played(step: Workload, trips: Trips, sizes: dict[int, int]) -> int:
    """The most bytes at a time: a storage is taken when a tensor of it is written and given back after the last use,
    and one that was there before and is written again stays."""
    home = {t: t for t in trips}
    for t in sorted(trips):
        replaced = step.tensors[t].replaces
        if replaced in home:
            home[t] = home[replaced]
    asked: dict[int, list[int]] = defaultdict(list)
    takes: dict[int, int] = defaultdict(int)
    for t, (written, fetched) in trips.items():
        asked[home[t]] += [max(written, 0), *fetched]
        takes[home[t]] = max(takes[home[t]], sizes[t])
    stays = {home[t] for t in trips if home[t] != t and step.tensors[home[t]].made == BEFORE}
    held = {t: takes[t] for t in takes if step.tensors[t].made == BEFORE}
    most = 0
    for i in range(len(step.ops)):
        for t, (written, _) in trips.items():
            if written == i:
                held[home[t]] = takes[home[t]]
        most = max(most, sum(held.values()))
        for storage in [s for s in held if s not in stays and max(asked[s]) <= i]:
            del held[storage]
    return most


@st.composite
def _steps(draw: st.DrawFn) -> Workload:
    """Vector work alone: forward, then backward; results in memory of their own or in place of what was there."""
    count = draw(st.integers(1, 12))
    backward = draw(st.integers(0, count))
    tensors = [[(draw(st.integers(1, 9)) * 64,), BEFORE, [], None] for _ in range(draw(st.integers(1, 3)))]
    latest = set(range(len(tensors)))
    for i in range(count):
        read = draw(st.sets(st.sampled_from(sorted(latest)), min_size=1, max_size=3))
        for t in read:
            tensors[t][2].append(i)
        over = draw(st.sampled_from([None, *sorted(read)]))
        extent = (draw(st.integers(1, 9)) * 64,) if over is None else tensors[over][0]
        latest.discard(-1 if over is None else over)
        latest.add(len(tensors))
        tensors.append([extent, i, [], over])
    ops = tuple(
        VectorOp(
            name=f"op{i}",
            op="aten.made_up",
            pass_=Pass.FF if i < backward else Pass.BP,
            dtype="float32",
            elements=64,
            read_bytes=256,
            write_bytes=256,
        )
        for i in range(count)
    )
    found = (StepTensor(dtype="float32", shape=s, made=m, read=tuple(r), replaces=o) for s, m, r, o in tensors)
    return Workload(model="random", batch=1, ops=ops, tensors=tuple(found))


@given(_steps())
def test_what_is_alive_is_what_a_player_of_events_holds(step: Workload) -> None:
    trips = {t: (one.made, set(one.read)) for t, one in enumerate(step.tensors)}
    most = played(step, trips, {t: size(step, t) for t in trips})

    assert most_at_once(lives(step, Counter(), FP32), len(step.ops)) == most
    need = memory_need(step, TINY)
    assert need.alive == need.activations + need.gradients == most // 2
    assert need.total >= need.alive


@pytest.mark.parametrize("fusion", FUSIONS)
def test_of_a_fused_step_what_an_interpreter_leaves_in_memory_is_alive(fusion: str) -> None:
    """The interpreter says who leaves a tensor and who fetches it, another player how long it is held."""
    total = 0
    for seed in range(10):
        step, fused = graph(seed), fuse(graph(seed), fusion)
        groups = groups_of(step, fusion)
        written = {one.replaces for one in step.tensors}
        batch = next(t for t, one in enumerate(step.tensors) if one.shape == shape(seed))
        trips: Trips = {
            t: (BEFORE, set())
            for t, one in enumerate(step.tensors)
            if one.made == BEFORE and (t == batch or t in written)
        }
        play(step, groups, trips)
        for t, one in enumerate(step.tensors):
            if one.replaces is not None and one.replaces in trips and t not in trips:
                trips[t] = (one.made, set(one.read))  # an interpreter of traffic leaves out what nobody reads again
        trips = {t: of for t, of in trips.items() if t not in groups.constants}
        sizes = {
            t: -(-step.tensors[t].elements // 8) if t in groups.bits else size(step, t) // _wide(step, t) for t in trips
        }
        live = lives(fused, model_tensors(fused), FP16)
        assert most_at_once(live, len(step.ops)) == played(step, trips, sizes), seed
        total += most_at_once(live, len(step.ops))
    assert total


def _wide(step: Workload, tensor: int) -> int:
    """How many times as large a tensor of the trace is as on a machine of 16 bits."""
    return {"float32": 2, "float64": 4}.get(step.tensors[tensor].dtype, 1)


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v, self.out = (nn.Linear(64, 64) for _ in range(4))
        self.norm, self.up, self.down = nn.LayerNorm(64), nn.Linear(64, 256), nn.Linear(256, 64)

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(x)
        x = x + self.out(torch.softmax(self.q(h) @ self.k(h).transpose(1, 2) / 8, -1) @ self.v(h))
        return x + self.down(nn.functional.gelu(self.up(self.norm(x))))


def _perceptron(inplace: bool) -> nn.Module:
    return nn.Sequential(
        nn.Linear(256, 512), nn.ReLU(inplace), nn.Linear(512, 512), nn.ReLU(inplace), nn.Linear(512, 64)
    )


@pytest.mark.parametrize("name", ["perceptron", "in place", "attention"])
def test_pytorch_takes_what_is_alive_and_a_copy_of_a_gradient(name: str) -> None:
    """Autograd copies a gradient of a weight that is laid out otherwise; nothing else of a step is more than needed."""
    torch.manual_seed(0)
    model, x = (
        (Block(), torch.randn(8, 64, 64))
        if name == "attention"
        else (_perceptron(name == "in place"), torch.randn(512, 256))
    )
    step = weft.trace(model, x, loss=lambda y: y.sum())
    live = [one for one in lives(step, model_tensors(step), FP32) if one.made >= 0]
    measured = _measured(model, x)

    # The batch is there before anything is measured.
    alive = most_at_once(live, len(step.ops))
    largest = max(4 * parameter.numel() for parameter in model.parameters())
    assert -1024 <= measured - alive <= 2 * largest + 1024


def _measured(model: nn.Module, x: Tensor) -> int:
    """The most bytes that PyTorch's allocator has given out in a step, beyond those before it."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as found:
        model(x).sum().backward()
    assert found.profiler is not None
    assert found.profiler.kineto_results is not None
    events = [e for e in found.profiler.kineto_results.events() if e.name() == "[memory]"]
    now = most = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        now += event.nbytes()
        most = max(most, now)
    return most
