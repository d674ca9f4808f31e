"""Modules that are checkpointed from outside: the same step as one that checkpoints itself, and what may be named."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import weft
from weft.workloads.errors import InputError
from weft.workloads.models import zoo
from weft.workloads.step import MatrixOp
from weft.workloads.trace import trace_step


class Blocks(nn.Module):
    """Three blocks of two layers; each may checkpoint itself."""

    def __init__(self, again: bool = False) -> None:
        super().__init__()
        self.again = again
        self.stem = nn.Linear(16, 16)
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 16)) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = x + (checkpoint(block, x, use_reentrant=False) if self.again else block(x))
        return x


def _traced(model: nn.Module, *recompute: str) -> weft.workloads.step.Workload:
    return weft.trace(model, torch.randn(4, 16), loss=lambda y: y.sum(), recompute=recompute)


def test_it_is_the_step_of_a_model_that_checkpoints_itself():
    assert _traced(Blocks(), "blocks.*") == _traced(Blocks(again=True))


def test_of_nested_modules_the_outermost_is_checkpointed_and_the_model_stays_as_it_is():
    model = Blocks()

    once = _traced(model, "blocks.0", "blocks.0.*", "blocks.*.2")

    # Of a product alone nothing is made again: its input is what is kept.
    assert [op.name for op in once.ops if isinstance(op, MatrixOp) and op.recompute] == ["blocks.0.0"]
    assert _traced(model) == _traced(Blocks())


@pytest.mark.parametrize(
    ("model", "layers"), [("resnet9", "*.body"), ("vit_s", "blocks.*"), ("bert_base", "*.layer.?")]
)
def test_a_real_model_multiplies_the_same_in_every_pass_and_some_again(model: str, layers: str):
    plain = trace_step(zoo.source(model), batch=2)
    again = trace_step(zoo.source(model), batch=2, recompute=(layers,))

    def products(step: weft.workloads.step.Workload) -> list[tuple[object, ...]]:
        return [(op.name, op.op, op.pass_, op.gemm, op.parameter) for op in step.matrix_ops if not op.recompute]

    assert products(again) == products(plain)
    assert again.dense_macs == plain.dense_macs
    assert 0 < again.recomputed_macs < sum(plain.dense_macs.values()) / 3


def test_a_path_that_is_none_is_refused():
    with pytest.raises(InputError, match=r"no module with parameters matches 'block\.\*': did you mean 'blocks"):
        _traced(Blocks(), "block.*")


def test_files_are_recomputed_as_they_were_traced(tmp_path):
    from weft.workloads.io import save_workload

    save_workload(_traced(Blocks()), tmp_path / "step.json")
    with pytest.raises(InputError, match="decided when a PyTorch model is traced"):
        weft.trace(tmp_path / "step.json", recompute=("blocks.*",))
