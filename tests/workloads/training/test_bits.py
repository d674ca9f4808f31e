"""Bits searched by a policy in one training: held against every choice of a small space, and against exact ones."""

from __future__ import annotations

from itertools import product

import pytest
import torch

import weft
from weft.analysis.layer_costs import layer_costs
from weft.workloads.errors import InputError
from weft.workloads.gemm import Pass
from weft.workloads.schemes.allocation import allocate
from weft.workloads.training import plan, step_workload
from weft.workloads.training.bits import Policy, SearchedBits, search_bits

pytestmark = pytest.mark.usefixtures("one_thread")

MODEL = "supernet9:w0.25-0.25-0.25:d1-1-1@8"
CANDIDATES = ("int2", "int4", "int8")


def test_a_policy_finds_the_best_of_a_table() -> None:
    """Layers that differ in what bits are worth and cost; the reward is known of all 256 choices."""
    drawn = torch.Generator().manual_seed(2)
    worth = torch.rand(4, 4, generator=drawn, dtype=torch.float64).cumsum(1) / 8
    cost = torch.randint(1, 9, (4, 4), generator=drawn).cumsum(1)
    target = int(cost.double().mean(1).sum())

    def reward(choice: list[int]) -> float:
        spent = sum(int(cost[layer, c]) for layer, c in enumerate(choice))
        return sum(float(worth[layer, c]) for layer, c in enumerate(choice)) - abs(spent / target - 1)

    policy = Policy([4] * 4)
    assert all(p.tolist() == [0.25] * 4 for p in policy.probabilities())
    for step in range(300):
        choices = policy.draw(8, drawn)
        policy.learn(choices, [reward(choice) for choice in choices], 0.02 * (1 - step / 300))
    every = sorted((reward(list(choice)) for choice in product(range(4), repeat=4)), reverse=True)
    assert every[0] - reward(policy.best()) < 0.05 * (every[0] - every[-1])

    # The exact choice for the same target: worth alone under a budget of cost.
    scores = {str(i): {str(c): -float(worth[i, c]) for c in range(4)} for i in range(4)}
    costs = {str(i): {str(c): int(cost[i, c]) for c in range(4)} for i in range(4)}
    exact = allocate(scores, costs, target).choice
    assert reward(policy.best()) >= reward([int(exact[str(i)]) for i in range(4)]) - 0.05 * (every[0] - every[-1])


def test_equal_rewards_teach_nothing_but_disorder() -> None:
    policy = Policy([3])
    policy.learn([[0], [2]], [0.5, 0.5], 0.0)
    assert policy.probabilities()[0].tolist() == pytest.approx([1 / 3] * 3)
    policy.learn([[0], [2]], [1.0, 0.0], 0.0)
    first, middle, last = policy.probabilities()[0].tolist()
    assert first > middle > last
    for _ in range(400):
        policy.learn([[0], [2]], [0.5, 0.5], 1.0)
    assert policy.probabilities()[0].tolist() == pytest.approx([1 / 3] * 3, abs=0.02)


def searched(epochs: int) -> tuple[SearchedBits, dict[str, dict[str, int]], int, int]:
    """Half-way between the cycles of the fewest and of the most bits, on the machine for binary networks."""
    spec = plan(MODEL, scheme="integer", epochs=epochs)
    costs = layer_costs(step_workload(spec), "integer", CANDIDATES, weft.machine("bnn-ecp5"), passes=(Pass.FF,))
    ends = (sum(f(of[c] for c in CANDIDATES) for of in costs.cycles.values()) for f in (min, max))
    target = costs.rest + sum(ends) // 2
    return search_bits(spec, costs.cycles, target, rest=costs.rest), costs.cycles, costs.rest, target


def test_what_is_found_is_near_the_best_of_all_choices() -> None:
    """Regret by the shared weights, over the 27 choices of three layers; the cost is that of the machine."""
    found, costs, rest, target = searched(6)
    rewards = {
        choice: found.reward_of(dict(zip(costs, choice, strict=True)))
        for choice in product(CANDIDATES, repeat=len(costs))
    }
    best, worst = max(rewards.values()), min(rewards.values())
    assert found.reward == rewards[tuple(found.choice.values())]
    assert best - found.reward < 0.1 * (best - worst)
    assert found.cost == rest + sum(costs[layer][c] for layer, c in found.choice.items())
    assert found.reward == pytest.approx(found.accuracy - abs(found.cost / target - 1))
    assert found.result.log[-1].epoch == 6


def test_the_same_seed_finds_the_same() -> None:
    first, second = (searched(1)[0] for _ in range(2))
    assert (first.choice, first.reward, first.result.digest) == (second.choice, second.reward, second.result.digest)


def test_what_is_refused() -> None:
    spec = plan(MODEL, scheme="integer", epochs=1)
    with pytest.raises(InputError, match="scheme 'dense' has no bits by layer to search: train under 'integer'"):
        search_bits(plan(MODEL, scheme="dense"), {}, 1)
    with pytest.raises(InputError, match="target must be an integer from 1"):
        search_bits(spec, {}, 0)
    with pytest.raises(InputError, match="costs of layer 'heed', which has no bits: did you mean 'head'"):
        search_bits(spec, {"heed": {"int2": 1}}, 1)
    with pytest.raises(InputError, match="costs of layer 'head' have no candidate from int2 to int8"):
        search_bits(spec, {"head": {"dense": 1}}, 1)
