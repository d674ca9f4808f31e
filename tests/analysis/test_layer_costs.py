"""Costs by layer against the steps of whole choices: they add up, whatever is chosen."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import weft
from weft.analysis.layer_costs import LayerCosts, layer_costs
from weft.workloads.errors import InputError
from weft.workloads.gemm import Pass
from weft.workloads.schemes.allocation import allocate
from weft.workloads.schemes.policies import rules_of
from weft.workloads.step import Workload

CANDIDATES = {"bdwp": ("1:8", "2:8", "2:4", "2:16"), "integer": ("int2", "int4", "int7")}
MACHINES = {"bdwp": "sat-ecp5", "integer": "bnn-ecp5"}


@pytest.fixture(scope="module")
def step() -> Workload:
    """Its head of ten classes can have groups of 8, not of 16."""
    return weft.trace("resnet9", batch=2)


@pytest.fixture(scope="module")
def costs(step: Workload) -> dict[str, LayerCosts]:
    return {
        scheme: layer_costs(step, scheme, found, weft.machine(MACHINES[scheme])) for scheme, found in CANDIDATES.items()
    }


@pytest.mark.parametrize("scheme", CANDIDATES)
@given(data=st.data())
@settings(max_examples=12)
def test_layers_add_up_to_the_step(
    step: Workload, costs: dict[str, LayerCosts], scheme: str, data: st.DataObject
) -> None:
    """The witness is one schedule of all layers together."""
    found = costs[scheme]
    choice = {layer: data.draw(st.sampled_from([*of])) for layer, of in found.cycles.items()}
    if set(choice.values()) != {"dense"}:
        made = weft.sparsify(step, scheme, [str(rule) for rule in rules_of(found.layers, choice).rules])
        whole = weft.simulate(weft.schedule(made, MACHINES[scheme], "cycles")).cycles.total
        assert found.of(choice) == whole


def test_every_layer_has_the_candidates_that_fit(costs: dict[str, LayerCosts]) -> None:
    found = costs["bdwp"].cycles
    assert found["16.body.0"].keys() == {"dense", "1:8", "2:8", "2:4", "2:16"}
    assert found["19"].keys() == {"dense", "1:8", "2:8", "2:4"}
    assert "0" not in found
    assert costs["integer"].cycles["19"].keys() == {"dense", *CANDIDATES["integer"]}


def test_a_budget_of_cycles_is_kept(step: Workload, costs: dict[str, LayerCosts]) -> None:
    """The more cycles, the less is given up; a score that only counts layers made sparse spends them where they are."""
    found = costs["bdwp"]
    scores = {layer: {c: float(c != "dense") for c in of} for layer, of in found.cycles.items()}
    dense = found.of(dict.fromkeys(found.cycles, "dense")) - found.rest
    sparse = []
    for share in (0.6, 0.8, 1.0):
        best = allocate(scores, found.cycles, int(share * dense))
        assert found.of(best.choice) - found.rest == best.cost <= share * dense
        sparse.append(best.score)
    assert sparse == sorted(sparse, reverse=True)
    assert sparse[0] > sparse[-1] == 0


def test_forward_alone_is_a_part(step: Workload, costs: dict[str, LayerCosts]) -> None:
    machine = weft.machine("bnn-ecp5")
    forward = layer_costs(step, "integer", ["int2", "int4"], machine, passes=(Pass.FF,))
    choice = {layer: "int2" if i % 2 else "int4" for i, layer in enumerate(forward.cycles)}
    rules = [str(rule) for rule in rules_of(forward.layers, choice).rules]
    whole = weft.simulate(weft.schedule(weft.sparsify(step, "integer", rules), machine, "cycles"))
    assert forward.of(choice) == sum(op.cycles.total for op in whole.select(Pass.FF)) < whole.cycles.total


def test_no_layer_can_have_any() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.Linear(8, 4))
    with pytest.raises(InputError, match="no layer of 'Sequential' can have any of 2:16, 1:32"):
        layer_costs(weft.trace(model, torch.zeros(2, 8)), "bdwp", ["2:16", "1:32"], weft.machine("sat-ecp5"))
