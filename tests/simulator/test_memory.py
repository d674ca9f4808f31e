"""What a step keeps in DRAM: by hand, with and without recomputation, and what is said where it does not fit."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import weft
from weft.dataflow.config_io import load_spec
from weft.dataflow.gather.spec import GatherSpec
from weft.dataflow.schedule import schedule
from weft.simulator.memory import exceeds, memory_need, require_capacity
from weft.simulator.system import simulate_system
from weft.workloads.copies import CompactCopy
from weft.workloads.errors import InputError
from weft.workloads.io import dumps_workload, loads_workload
from weft.workloads.schemes.annotate import annotate
from weft.workloads.sparsity import NMPattern
from weft.workloads.step import Frozen, MatrixOp, UpdateOp, Workload
from weft.workloads.trace import trace_use
from weft.workloads.unstructured import Unstructured

from ..workloads.toy_models import floats, source_of, tokens

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


@pytest.mark.parametrize(("optimizer", "state"), [("sgd", 4), ("nesterov", 4), ("adam", 8), ("adamw", 8)])
def test_weights_by_hand(optimizer, state):
    parameters = 4 * (2 * 32 * 64 + 64 + 32)
    need = memory_need(replace(_mlp(8), optimizer=optimizer), TINY)

    assert need.master_weights == 4 * parameters
    assert need.optimizer_state == state * parameters
    assert need.weight_copies == 2 * parameters
    assert need.fixed == need.master_weights + need.optimizer_state + need.weight_copies
    assert need.alive == need.fixed + need.weight_gradients + need.activations + need.gradients
    assert need.total == need.alive + need.fragmentation


def test_copies_follow_the_update():
    ops = _mlp(8).ops[:1]
    update = UpdateOp(name="w", elements=800, dense_copy=False, copies=(COPY, COPY))
    late = replace(TINY, wuve=replace(TINY.wuve, pregenerate=False))
    workload = Workload(model="m", batch=8, ops=(*ops, update))

    assert memory_need(workload, TINY).weight_copies == 2 * 200 * (16 + 3) // 8
    assert memory_need(workload, late).weight_copies == 2 * 800


def test_activations_by_hand():
    """Most is alive when the last ReLU has its gradient: of what FF made the input, 64 of each layer, whose ReLU
    and product want what it left, and 32 of three; 64 of gradient twice; and the last product's own, in 16 bits."""
    need = memory_need(_mlp(512), TINY)

    assert need.activations == 2 * 512 * (32 + 3 * (64 + 32) + 64)
    assert need.gradients == 2 * 512 * (64 + 64)
    assert need.weight_gradients == 2 * (32 * 64 + 32)
    assert need.traced


def test_without_a_trace_what_eager_training_keeps_is_the_bound():
    """The input, and 64 twice and 32 of every layer; and the loss and its gradient, a number each."""
    need = memory_need(replace(_mlp(8), tensors=()), TINY)

    assert need.activations == 2 * 8 * (32 + 4 * (64 + 64 + 32)) + 4
    assert not need.traced


def test_checkpoints_keep_the_inputs_of_the_layers_and_one_layer_at_a_time():
    plain, again = (memory_need(replace(_mlp(8, again=x), tensors=()), TINY) for x in (False, True))
    kept = 2 * 8 * (32 + 4 * 32) + 4

    assert again.fixed == plain.fixed
    assert kept + 2 * 8 * (64 + 64) <= again.activations <= kept + 2 * 8 * (64 + 64 + 32)
    assert again.total < plain.total
    assert memory_need(_mlp(512, again=True), TINY).activations < memory_need(_mlp(512), TINY).activations


def test_activations_grow_with_the_batch_and_weights_do_not():
    one, four = memory_need(_mlp(512), TINY), memory_need(_mlp(2048), TINY)

    assert four.fixed == one.fixed
    assert four.activations == 4 * one.activations


def _limited(capacity: int):
    return replace(TINY, dram=replace(TINY.dram, capacity_bytes=capacity))


def test_a_step_that_fits_runs_and_one_that_does_not_says_what_would():
    need = memory_need(_mlp(8), TINY)
    enough = schedule(_mlp(8), _limited(need.total))
    assert simulate_system(enough).memory == need

    short = schedule(_mlp(8), _limited(need.total - 1))
    with pytest.raises(InputError, match=r"at batch 8 needs .* kB of DRAM .* a batch of 7 fits; .*--recompute PATH"):
        simulate_system(short)
    assert require_capacity(_mlp(7), short.spec) == memory_need(_mlp(7), short.spec)


@pytest.mark.parametrize("again", [False, True])
def test_where_not_even_the_weights_fit(again: bool):
    plan = schedule(_mlp(8, again=again), _limited(1000))

    with pytest.raises(InputError, match="no batch fits, as what does not grow with it takes") as error:
        simulate_system(plan)
    assert "--recompute" not in str(error.value)


def test_where_the_weights_fit_but_no_sample_does():
    need, none = memory_need(_mlp(512), TINY), 2 * (2 * 32 * 64 + 64 + 32) * 4
    plan = schedule(_mlp(512), _limited(need.fixed + none + 100))

    with pytest.raises(InputError, match=r"not even a batch of 1 fits; .*--recompute PATH"):
        simulate_system(plan)


def test_a_machine_without_a_capacity_holds_everything():
    assert TINY.dram.capacity_bytes is None
    assert require_capacity(_mlp(8), TINY) == memory_need(_mlp(8), TINY)


def test_every_shipped_capacity_is_read():
    assert load_spec("sat-vcu1525").dram.capacity_bytes == 64 * 2**30
    with pytest.raises(InputError, match=r"dram\.capacity_bytes"):
        _limited(0)


def test_what_is_recomputed_is_marked():
    assert any(isinstance(op, MatrixOp) and op.recompute for op in _mlp(8, again=True).ops)


class Adapted(nn.Module):
    """A frozen embedding, a frozen layer with a low-rank correction beside it, a mask; the head is trained."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(50, 32)
        self.base = nn.Linear(32, 64)
        self.down, self.up = nn.Linear(32, 4, bias=False), nn.Linear(4, 64, bias=False)
        self.head = nn.Linear(64, 10)
        self.register_buffer("mask", torch.ones(64, dtype=torch.int8))
        for frozen in (self.embedding, self.base):
            frozen.requires_grad_(False)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embedding(tokens)
        return self.head((self.base(x) + self.up(self.down(x))) * self.mask)


def _adapted() -> Workload:
    return weft.trace(Adapted(), torch.zeros(8, dtype=torch.long), loss=lambda y: y.sum())


def test_frozen_weights_are_held_in_16_bits_and_trained_ones_as_ever():
    need = memory_need(_adapted(), TINY)
    trained = 32 * 4 + 4 * 64 + 64 * 10 + 10

    assert need.frozen_weights == 2 * (50 * 32 + 32 * 64 + 64) + 64
    assert (need.master_weights, need.optimizer_state) == (4 * trained, 4 * trained)
    assert need.weight_copies == 2 * trained
    assert need.fixed == need.frozen_weights + 10 * trained


def test_a_frozen_weight_that_is_read_compact_is_held_compact_alone():
    """2:8 of 32 x 64: a quarter of the weights, 19 bits each, along inputs; nothing trained lies below, so no BP."""
    dense, sparse = _adapted(), annotate(_adapted(), "bdwp", NMPattern(keep=2, group=8))
    late = replace(TINY, wuve=replace(TINY.wuve, pregenerate=False))
    head = next(op for op in sparse.ops if isinstance(op, UpdateOp) and op.name == "head.weight")
    made = sum(copy.kept * 19 // 8 for op in sparse.ops if isinstance(op, UpdateOp) for copy in op.copies)
    read_dense = sum(2 * op.elements for op in sparse.ops if isinstance(op, UpdateOp) and op.dense_copy)

    assert head.copies
    assert memory_need(sparse, TINY).weight_copies == read_dense + made + 32 * 64 // 4 * 19 // 8
    assert memory_need(sparse, TINY).frozen_weights == memory_need(dense, TINY).frozen_weights - 2 * 32 * 64
    assert memory_need(sparse, late).frozen_weights == memory_need(dense, late).frozen_weights
    assert memory_need(sparse, late).weight_copies == memory_need(dense, late).weight_copies


def test_files_that_do_not_list_what_is_frozen_still_show_the_weights_of_products():
    old = replace(_adapted(), frozen=())
    assert b"frozen" not in dumps_workload(old)

    assert memory_need(loads_workload(dumps_workload(old)), TINY).frozen_weights == 2 * 32 * 64
    assert loads_workload(dumps_workload(_adapted())) == _adapted()


@pytest.mark.parametrize("name", ["embedding.weight", "head.weight"])
def test_what_is_frozen_is_listed_once_and_not_trained(name: str):
    step = _adapted()
    with pytest.raises(InputError, match=f"frozen tensor '{name}' of workload 'Adapted' is trained or listed before"):
        replace(step, frozen=(*step.frozen, Frozen(name=name, dtype="float32", elements=5)))


class Deep(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(65_536, 8, bias=False)
        self.frozen = nn.Sequential(
            nn.Linear(8, 65_536, bias=False), *(nn.Linear(65_536, 65_536, bias=False) for _ in range(8))
        )
        self.frozen.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        return self.frozen(self.first(x))


def _deep(scheme: str) -> Workload:
    with torch.device("meta"):
        model, x = Deep(), torch.zeros(1, 65_536)
    return annotate(weft.trace(model, x, loss=lambda y: y.sum()), scheme, NMPattern(keep=2, group=8))


def test_eight_frozen_layers_of_8_gib_are_refused_before_anything_is_scheduled():
    step, spec = _deep("dense"), load_spec("sat-vcu1525")

    assert memory_need(step, spec).frozen_weights == 2 * (8 * 65_536**2 + 8 * 65_536)  # 68.7 GB
    assert spec.dram.capacity_bytes == 2 * 8 * 65_536**2
    with pytest.raises(InputError, match=r"needs .* GB of DRAM \(frozen weights 68\.7 GB, .*: no batch fits"):
        require_capacity(step, spec)


def test_eight_frozen_layers_of_8_gib_fit_where_ff_and_bp_read_them_compact():
    """A quarter of each, 19 bits a weight, twice: 40.8 GB."""
    need = require_capacity(_deep("bdwp"), load_spec("sat-vcu1525"))

    assert need.frozen_weights == 0
    assert need.weight_copies >= 2 * 8 * 65_536**2 // 4 * 19 // 8


class Tied(nn.Module):
    """A head that is the embedding, looked up by an operator that is not called one."""

    def __init__(self, tied: bool) -> None:
        super().__init__()
        self.table, self.head = nn.Embedding(64, 32), nn.Linear(32, 64, bias=False)
        if tied:
            self.head.weight = self.table.weight
        self.tied = tied
        self.requires_grad_(False)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.head.weight[tokens] if self.tied else self.table(tokens))


@pytest.mark.parametrize(("tied", "traced"), [(True, True), (False, True), (False, False)])
def test_a_frozen_head_is_kept_dense_where_tokens_are_looked_up_in_it(tied: bool, traced: bool) -> None:
    step = trace_use(source_of(lambda: Tied(tied), tokens(8)), "infer")
    need = memory_need(
        annotate(step if traced else replace(step, tensors=()), "bdwp", NMPattern(keep=2, group=8)), TINY
    )

    assert need.frozen_weights == 2 * 64 * 32
    assert need.weight_copies == 64 * 32 // 4 * 19 // 8


def test_weights_without_a_pattern_are_held_as_they_are_gathered_and_dense_without_an_engine_for_them() -> None:
    with_gather = replace(TINY, gather=GatherSpec(lanes=2, width=2))
    source = source_of(lambda: nn.Sequential(nn.Linear(64, 64, bias=False)), floats(8, 64))
    step = annotate(trace_use(source, "infer"), "erk", NMPattern(keep=2, group=8))
    (op,) = step.matrix_ops
    assert isinstance(op.sparse, Unstructured)

    dense, gathered = memory_need(step, TINY), memory_need(step, with_gather)
    assert (dense.frozen_weights, dense.weight_copies) == (2 * 64 * 64, 0)
    assert (gathered.frozen_weights, gathered.weight_copies) == (0, op.sparse.bytes(op.gemm, 16))
    assert gathered.weight_copies < 64 * 64


def test_what_stays_on_chip_needs_no_dram() -> None:
    step = _mlp(512)
    plan = schedule(step, replace(TINY, buffers=replace(TINY.buffers, resident_bytes=2**17)))
    assert plan.residency is not None
    results = [kept for kept in plan.residency.kept if kept.tensor is not None]
    assert results
    plain, kept = memory_need(step, TINY), memory_need(plan.as_run, plan.spec, plan)

    assert kept.fixed == plain.fixed
    assert plain.alive - plan.residency.peak <= kept.alive < plain.alive
    # Before it is scheduled a step that might fit so is not refused.
    tight = replace(plan.spec, dram=replace(plan.spec.dram, capacity_bytes=kept.total))
    assert exceeds(step, tight, memory_need(step, tight)) is None
    assert simulate_system(schedule(step, tight)).memory == kept


def test_the_nearest_machine_that_ships_is_named() -> None:
    step, spec = _deep("dense"), load_spec("sat-vcu1525")
    assert memory_need(step, spec).total < load_spec("hbm-asic").dram.capacity_bytes
    with pytest.raises(InputError, match=r"no batch fits, .*; the DRAM of 'hbm-asic', 85\.9 GB, holds it"):
        require_capacity(step, spec)
