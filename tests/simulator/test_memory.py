"""What a step keeps in DRAM: by hand, with and without recomputation, and what is said where it does not fit."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import weft
from weft.dataflow.config_io import load_spec
from weft.dataflow.schedule import schedule
from weft.simulator.memory import memory_need, require_capacity
from weft.simulator.system import simulate_system
from weft.workloads.errors import InputError
from weft.workloads.sparsity import NMPattern
from weft.workloads.step import CompactCopy, MatrixOp, UpdateOp, Workload

TINY = load_spec("tiny")
COPY = CompactCopy(pattern=NMPattern(keep=2, group=8), groups=100, kept=200)


class Mlp(nn.Module):
    """Four layers of 32; each may be checkpointed."""

    def __init__(self, again: bool) -> None:
        super().__init__()
        self.again = again
        self.layers = nn.ModuleList(nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 32)) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = checkpoint(layer, x, use_reentrant=False) if self.again else layer(x)
        return x


def _mlp(batch: int, again: bool = False) -> Workload:
    return weft.trace(Mlp(again), torch.randn(batch, 32), loss=lambda y: y.sum())


@pytest.mark.parametrize(("optimizer", "state"), [("sgd", 4), ("adam", 8)])
def test_weights_by_hand(optimizer, state):
    parameters = 4 * (2 * 32 * 64 + 64 + 32)
    need = memory_need(replace(_mlp(8), optimizer=optimizer), TINY)

    assert need.master_weights == 4 * parameters
    assert need.optimizer_state == state * parameters
    assert need.weight_copies == need.weight_gradients == 2 * parameters
    assert need.total == need.fixed + need.activations + need.recomputed + need.working


def test_copies_follow_the_update():
    ops = _mlp(8).ops[:1]
    update = UpdateOp(name="w", elements=800, dense_copy=False, copies=(COPY, COPY))
    late = replace(TINY, wuve=replace(TINY.wuve, pregenerate=False))
    workload = Workload(model="m", batch=8, ops=(*ops, update))

    assert memory_need(workload, TINY).weight_copies == 2 * COPY.bytes
    assert memory_need(workload, late).weight_copies == 2 * 800


def test_activations_by_hand():
    """The input, and 64 twice and 32 of every layer, in 16 bits; and the loss and its gradient, a number each."""
    need = memory_need(_mlp(8), TINY)

    assert need.activations == 2 * 8 * (32 + 4 * (64 + 64 + 32)) + 4
    assert need.recomputed == 0


def test_checkpoints_keep_the_inputs_of_the_layers_and_one_layer_at_a_time():
    plain, again = memory_need(_mlp(8), TINY), memory_need(_mlp(8, again=True), TINY)

    assert again.fixed == plain.fixed
    assert again.activations == 2 * 8 * (32 + 4 * 32) + 4
    assert 2 * 8 * (64 + 64) <= again.recomputed <= 2 * 8 * (64 + 64 + 32)
    assert again.total < plain.total


def test_activations_grow_with_the_batch_and_weights_do_not():
    one, four = memory_need(_mlp(8), TINY), memory_need(_mlp(32), TINY)

    assert four.fixed == one.fixed
    assert four.activations - 4 == 4 * (one.activations - 4)


def _limited(capacity: int):
    return replace(TINY, dram=replace(TINY.dram, capacity_bytes=capacity))


def test_a_step_that_fits_runs_and_one_that_does_not_says_what_would():
    need = memory_need(_mlp(8), TINY)
    enough = schedule(_mlp(8), _limited(need.total))
    assert simulate_system(enough).memory == need

    short = schedule(_mlp(8), _limited(need.total - 1))
    with pytest.raises(InputError, match=r"at batch 8 needs .* GB of DRAM .* a batch of 7 fits; .*--recompute PATH"):
        simulate_system(short)
    require_capacity(schedule(_mlp(7), short.spec), memory_need(_mlp(7), short.spec))


@pytest.mark.parametrize("again", [False, True])
def test_where_not_even_the_weights_fit(again: bool):
    plan = schedule(_mlp(8, again=again), _limited(1000))

    with pytest.raises(InputError, match="no batch fits, as what does not grow with it takes") as error:
        simulate_system(plan)
    assert "--recompute" not in str(error.value)


def test_where_the_weights_fit_but_no_sample_does():
    need = memory_need(_mlp(1), TINY)
    plan = schedule(_mlp(1), _limited(need.fixed + 1))

    with pytest.raises(InputError, match=r"not even a batch of 1 fits; .*--recompute PATH"):
        simulate_system(plan)


def test_a_machine_without_a_capacity_holds_everything():
    assert TINY.dram.capacity_bytes is None
    require_capacity(schedule(_mlp(8), TINY), memory_need(_mlp(8), TINY))


def test_every_shipped_capacity_is_read():
    assert load_spec("sat-vcu1525").dram.capacity_bytes == 64 * 2**30
    with pytest.raises(InputError, match=r"dram\.capacity_bytes"):
        _limited(0)


def test_what_is_recomputed_is_marked():
    assert any(isinstance(op, MatrixOp) and op.recompute for op in _mlp(8, again=True).ops)
