"""Bits of every layer, searched in one training, as FLIQS does (Dotzel et al., arXiv 2308.03290).

A policy has a distribution over the candidates of each layer. Every step draws choices from it, trains the shared
weights under the first, and rewards each by the accuracy on a batch of validation images minus a penalty times
|cost / target - 1| (the absolute reward of TuNAS, Bender et al., CVPR 2020, arXiv 2008.06120); REINFORCE follows, its
baseline the mean reward of the other choices of the step, which saw the same images. Entropy is rewarded too, less and
less along a cosine. Rates, draws and batches are ours, not the paper's (assumed: tried on the digits alone).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..data import normalised, open_data, order
from ..errors import InputError, nearest, require_int
from ..levels import INTEGERS
from ..models.classifier import image_side, scores
from ..schemes.integer import Integer
from .control import controlled, threads_for
from .run import Run
from .seeds import POLICY, generator_of
from .spec import TrainResult, TrainSpec

__all__ = ["Policy", "SearchedBits", "search_bits"]

_DRAWS, _IMAGES = 8, 128
_WARMING = 0.25
"""Of the steps, in which weights learn and the policy does not: TuNAS's share."""
_RATE, _ENTROPY = 0.1, 0.02


class Policy:
    """A distribution over the candidates of each layer, ``sizes`` of them; uniform at first."""

    def __init__(self, sizes: Sequence[int]) -> None:
        self._logits = [torch.zeros(size, dtype=torch.float64, requires_grad=True) for size in sizes]
        self._optimizer = torch.optim.Adam(self._logits, lr=_RATE)

    def draw(self, count: int, generator: torch.Generator) -> list[list[int]]:
        """``count`` choices, a number of a candidate a layer."""
        each = [torch.multinomial(p, count, True, generator=generator).tolist() for p in self.probabilities()]
        return [list(choice) for choice in zip(*each, strict=True)]

    def learn(self, choices: Sequence[Sequence[int]], rewards: Sequence[float], entropy: float) -> None:
        """One step towards what was rewarded above the mean of the others, of two ``choices`` at least."""
        gained = torch.tensor(rewards, dtype=torch.float64)
        others = (gained.sum() - gained) / (len(rewards) - 1)
        logs = [logits.log_softmax(0) for logits in self._logits]
        drawn = torch.stack([log[list(at)] for log, at in zip(logs, zip(*choices, strict=True), strict=True)]).sum(0)
        disorder = -torch.stack([(log.exp() * log).sum() for log in logs]).sum()
        self._optimizer.zero_grad()
        torch.autograd.backward(-((gained - others) * drawn).mean() - entropy * disorder)
        self._optimizer.step()

    def probabilities(self) -> list[Tensor]:
        """Of each layer, float64 [candidates]."""
        return [logits.detach().softmax(0) for logits in self._logits]

    def best(self) -> list[int]:
        """The likeliest candidate of each layer; of equal ones the first."""
        return [int(p.argmax()) for p in self.probabilities()]


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchedBits:
    """``choice``: a candidate a layer, whose ``cost`` includes all that has no choice. ``accuracy``: of the validation
    images under it, by the weights that all choices were trained with; the reward adds the penalty. ``result`` has
    these weights, still under the choice. ``reward_of``: the reward of any other choice, by the same weights."""

    choice: dict[str, str]
    cost: int
    accuracy: float
    reward: float
    result: TrainResult
    reward_of: Callable[[Mapping[str, str]], float]


class _Search:
    """The training, and what choices of bits are worth in it. ``menu``: candidates of each layer."""

    def __init__(
        self, run: Run, costs: Mapping[str, Mapping[str, int]], rest: int, target: int, penalty: float
    ) -> None:
        assert isinstance(run.technique, Integer)
        self.run, self._technique = run, run.technique
        self._costs, self._rest, self._target, self._penalty = costs, rest, target, penalty
        self.menu = {layer: [c for c in of if c in INTEGERS] for layer, of in costs.items()}
        for layer, of in self.menu.items():
            if layer not in run.technique.layers:
                raise InputError(f"costs of layer {layer!r}, which has no bits: {nearest(layer, run.technique.layers)}")
            if not of:
                raise InputError(f"costs of layer {layer!r} have no candidate from int2 to int8")
        self.policy = Policy([len(of) for of in self.menu.values()])

    def choose(self, choice: Mapping[str, str]) -> None:
        self._technique.choose({layer: INTEGERS[c] for layer, c in choice.items()})

    def named(self, at: Sequence[int]) -> dict[str, str]:
        return {layer: of[i] for (layer, of), i in zip(self.menu.items(), at, strict=True)}

    def cost(self, choice: Mapping[str, str]) -> int:
        return self._rest + sum(self._costs[layer][c] for layer, c in choice.items())

    def reward(self, choice: Mapping[str, str], index: Tensor | None = None) -> tuple[float, float]:
        """Of a choice on validation images ``index``, all if none, and the accuracy in it."""
        images, data = self.run.data.validation, self.run.data
        index = torch.arange(len(images.labels)) if index is None else index
        self.choose(choice)
        self.run.model.eval()
        with torch.no_grad():
            found = scores(self.run.model(normalised(data, images.fetch(index))))
        accuracy = float((found.argmax(1) == images.labels[index]).double().mean())
        return accuracy - self._penalty * abs(self.cost(choice) / self._target - 1), accuracy

    def step(self) -> None:
        """A step of the weights under the first of the choices drawn; past the first ones, also one of the policy."""
        run, generator = self.run, generator_of(self.run.spec, POLICY, self.run.step)
        gone, drawn = run.step / run.steps, self.policy.draw(_DRAWS, generator)
        self.choose(self.named(drawn[0]))
        run.advance()
        if gone >= _WARMING:
            index = order(len(run.data.validation.labels), generator)[:_IMAGES]
            rewards = [self.reward(self.named(at), index)[0] for at in drawn]
            falling = 0.5 * (1 + math.cos(math.pi * (gone - _WARMING) / (1 - _WARMING)))
            self.policy.learn(drawn, rewards, _ENTROPY * falling)


def search_bits(
    spec: TrainSpec,
    costs: Mapping[str, Mapping[str, int]],
    target: int,
    *,
    rest: int = 0,
    penalty: float = 1.0,
    progress: Callable[[int, int], None] | None = None,
) -> SearchedBits:
    """Train as ``spec`` of scheme ``integer`` says, on the CPU, and find bits for each layer of ``costs`` on the way.

    ``costs``: of each layer, of each candidate (``int2`` to ``int8``, others are left out), in any unit that adds up,
    as `LayerCosts.cycles`; with ``rest`` they come near ``target``. The same seed finds the same. SIGINT ends it
    between two steps by KeyboardInterrupt.
    """
    if spec.scheme != "integer":
        raise InputError(f"scheme {spec.scheme!r} has no bits by layer to search: train under 'integer'")
    require_int("target", target, 1, 2**63 - 1)
    data, cpu = open_data(spec.data, image_side(spec.model)), torch.device("cpu")
    with controlled(threads_for(data), cpu) as stop:
        run = Run(spec, data, None, cpu)
        search = _Search(run, costs, rest, target, penalty)
        while run.step < run.steps:
            search.step()
            if run.step % run.per_epoch == 0:
                search.choose(search.named(search.policy.best()))
                run.end_epoch()
            if progress is not None:
                progress(run.step, run.steps)
            if stop() and run.step < run.steps:
                raise KeyboardInterrupt
        choice = search.named(search.policy.best())
        reward, accuracy = search.reward(choice)
        return SearchedBits(
            choice=choice,
            cost=search.cost(choice),
            accuracy=accuracy,
            reward=reward,
            result=run.result(),
            reward_of=lambda other: search.reward(other)[0],
        )
