"""FF, BP and WU of many models against a FLOP counter and a copy with frozen weights."""

from __future__ import annotations

import pytest
import torch

from weft.workloads.gemm import Pass
from weft.workloads.schemes.annotate import annotate
from weft.workloads.sparsity import NMPattern
from weft.workloads.step import Workload
from weft.workloads.trace import trace_step

from .oracle_configs import CONFIGS
from .oracle_idioms import LAYERS, LEARNED, WEIGHTS
from .oracle_routed import ROUTED
from .oracles import Case, counted


def check(case: Case) -> Workload:
    step = trace_step(case.source())
    assert step.dense_macs == counted(case)
    updated = {op.name for op in step.ops if op.kind == "update"}
    for op in step.matrix_ops:
        assert op.pass_ is not Pass.WU or op.parameter is None or updated.intersection(op.parameter.split("+"))
    return step


@pytest.mark.parametrize("name", LEARNED)
def test_activations_made_of_parameters_equal_both_oracles(name: str) -> None:
    check(LEARNED[name])


@pytest.mark.parametrize("name", WEIGHTS)
def test_weights_that_are_made_equal_both_oracles(name: str) -> None:
    check(WEIGHTS[name])


@pytest.mark.parametrize("name", LAYERS)
def test_layers_equal_both_oracles(name: str) -> None:
    check(LAYERS[name])


@pytest.mark.parametrize("name", ROUTED)
def test_mixtures_that_look_at_values_equal_both_oracles_on_even_routes(name: str) -> None:
    assert any("is shared equally" in said for said in check(ROUTED[name]).assumed)


@pytest.mark.slow
@pytest.mark.parametrize("name", CONFIGS)
def test_configurations_equal_both_oracles(name: str) -> None:
    check(CONFIGS[name])


@pytest.mark.slow
def test_perceiver_of_published_size() -> None:
    """Two of its 26 layers: latents ask 2,048 bytes of text, and the text's places ask the latents back."""
    import transformers

    settings = transformers.PerceiverConfig(num_self_attends_per_block=2)
    case = Case(
        build=lambda: transformers.PerceiverForMaskedLM(settings),
        inputs=lambda: ((), {"input_ids": torch.zeros(2, 2048, dtype=torch.long)}),
        live=("*latents", "*position_embeddings"),
    )
    step = annotate(trace_step(case.source()), "bdwp", NMPattern(keep=2, group=8))
    assert step.dense_macs == counted(case)
    scores = [op for op in step.matrix_ops if "cross_attention" in op.name and op.op == "aten.bmm"]
    assert [(op.pass_, op.parameter, op.kept_dense) for op in scores] == [
        (pass_, None, "no weight operand") for pass_ in [Pass.FF] * 4 + [Pass.BP] * 8
    ]
