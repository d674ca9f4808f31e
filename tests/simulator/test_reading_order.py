"""Frozen weights in the order of their reading: pieces counted element by element, and which weights lie so."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import weft
from weft.dataflow.config_io import load_spec
from weft.dataflow.engines import place, tiled
from weft.dataflow.objective import Objective
from weft.dataflow.schedule import Schedule
from weft.simulator.reading_order import read_in_order
from weft.simulator.step import macro_tiles
from weft.simulator.system import step_time
from weft.simulator.tasks import product_transfers
from weft.simulator.transfers import ONE_PIECE, Stored, by_shape, layout_of, shapes_of
from weft.workloads.gemm import Gemm, Pass
from weft.workloads.step import Frozen, MatrixOp, Workload

from ..dataflow.problems import make_op
from ..examples_drawn import examples
from .reading import in_reading_order

SAT = load_spec("sat-vcu1525")


def _pieces(addresses: list[int]) -> list[int]:
    """Lengths of the runs of neighbours in what is read, in order of address."""
    at = sorted(addresses)
    ends = [i for i in range(1, len(at)) if at[i] != at[i - 1] + 1]
    return [end - begin for begin, end in pairwise([0, *ends, len(at)])]


@settings(max_examples=examples(60), deadline=None)
@given(st.data())
def test_whatever_a_macro_tile_loads_of_a_weight_in_order_is_one_piece(data):
    """A slow player reads tile after tile, chunk after chunk of k, from addresses of its own."""
    g = Gemm(m=data.draw(st.integers(1, 9)), k=data.draw(st.integers(1, 20)), n=data.draw(st.integers(1, 20)))
    op = make_op(g, pass_=data.draw(st.sampled_from((Pass.FF, Pass.BP))))
    n2s, lines = data.draw(st.sampled_from("ab")), data.draw(st.integers(1, g.n))
    resident = data.draw(st.booleans())
    base = place(op, SAT, Objective.THRIFT).mapping
    tile = {"tile_cols": lines, "tile_rows": g.m} if n2s == "b" else {"tile_rows": lines, "tile_cols": g.m}
    mapping = replace(
        base, n2s=n2s, gemm=g if n2s == "b" else g.transposed, resident=resident, order="mn", compact="remade", **tile
    )
    product, half = tiled(op, SAT, mapping), data.draw(st.integers(2, 200))
    tiles, _, _ = macro_tiles(product, SAT)

    def shape(in_order: bool) -> Stored:
        found = shapes_of(tiles, product.problem, mapping, layout_of(op, mapping, in_order=in_order), half)
        return found.north[0][0] if n2s == "b" else found.west[0]

    assert shape(True) == ONE_PIECE
    laid, kept = in_reading_order(op, mapping)[0], np.arange(g.k * g.n).reshape(g.k, g.n)
    if op.pass_ is Pass.FF:
        kept = np.arange(g.k * g.n).reshape(g.n, g.k).T
    chunk = g.k if resident else max(half // (2 * lines), 1)
    sizes, as_kept = [], set[int]()
    for begin in range(0, g.n, lines):
        tile_read = list[int]()
        for k in range(0, g.k, chunk):
            part = np.s_[k : k + chunk, begin : begin + lines]
            assert len(_pieces(laid[part].ravel().tolist())) == 1
            assert not tile_read or laid[part].min() == max(tile_read) + 1, "chunks come one behind the other"
            tile_read += laid[part].ravel().tolist()
            if begin + lines <= g.n and k + chunk <= g.k:
                as_kept.update(_pieces(kept[part].ravel().tolist()))
        sizes.append(len(_pieces(tile_read)))
    assert set(sizes) == {1}
    stored = shape(False)
    if stored != ONE_PIECE and half % (2 * lines) == 0 and half >= 2 * lines:
        # Every whole chunk is in pieces of that length, but where neighbours touch.
        assert all(2 * length % stored.piece_bytes == 0 for length in as_kept)


def _laid(step: Workload, plan: Schedule) -> set[str | None]:
    return {op.parameter for i in read_in_order(step, plan.placements) if isinstance(op := step.ops[i], MatrixOp)}


def test_a_frozen_weight_is_laid_out_unless_somebody_reads_it_otherwise():
    """The last layer is trained, and its weight stays as PyTorch keeps it."""
    model = nn.Sequential(nn.Linear(64, 96), nn.ReLU(), nn.Linear(96, 32), nn.Linear(32, 8))
    step = weft.trace(model, torch.empty(4, 64), freeze=("0.*", "2.*"))
    plan = weft.schedule(step, "sat-vcu1525")
    products = [i for i, op in enumerate(step.ops) if isinstance(op, MatrixOp)]

    assert _laid(step, plan) == {"0.weight", "2.weight"}
    # The same layer once more: in the same tiles, and in others.
    again = replace(step, ops=(*step.ops, step.ops[products[0]]), after=(), tensors=())
    same = (*plan.placements, plan.placements[products[0]])
    assert step.frozen
    assert _laid(again, replace(plan, placements=same)) == {"0.weight", "2.weight"}
    first = plan.placements[products[0]]
    lines = "tile_cols" if first.mapping.n2s == "b" else "tile_rows"
    other = replace(first, mapping=replace(first.mapping, **{lines: 32}))
    assert getattr(first.mapping, lines) != 32
    assert _laid(again, replace(plan, placements=(*plan.placements, other))) == {"2.weight"}
    # Part of a larger tensor, or of one that the workload does not list, stays as it is.
    larger = tuple(Frozen(name=t.name, dtype=t.dtype, elements=t.elements * 2) for t in step.frozen)
    assert _laid(replace(step, frozen=larger), plan) == set()
    assert _laid(replace(step, frozen=()), plan) == set()


@pytest.mark.slow
def test_what_an_embedding_looks_up_stays_and_a_token_is_never_slower(monkeypatch: pytest.MonkeyPatch):
    """GPT-2's head is its embedding, whose rows are looked up."""
    step = weft.trace("gpt2", batch=1, use="decode", context=8)
    plan = weft.schedule(step, "hbm-u55c")
    laid = _laid(step, plan)
    assert len(laid) == 48
    assert not any(name and "wte" in name for name in laid)
    cycles, moving = step_time(plan), sum(product_transfers(plan, by_shape(plan.spec)))

    monkeypatch.setattr("weft.simulator.tasks.read_in_order", lambda *_: frozenset())

    assert cycles <= step_time(plan)
    assert moving < 0.99 * sum(product_transfers(plan, by_shape(plan.spec)))
