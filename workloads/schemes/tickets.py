"""Masks found by training more than once: lottery tickets, soups of sparse models, jackpots of weights that stay.

All of it happens within the steps of one training; each training in it goes through the schedule of the learning rate
anew (:meth:`.Technique.clock`). Zeros follow no pattern, as in `unstructured.py`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from bisect import bisect_right
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ..errors import InputError, require_int
from ..sparsity import NMPattern
from .dynamic import cosine
from .layer import SparseLayer
from .nm import require_share
from .scheme import Scheme
from .technique import Options, mask_of
from .unstructured import Unstructured, UnstructuredOptions, kept, top

__all__ = ["Jackpot", "Lottery", "Soup"]

Held = dict[str, Tensor]
"""Parameters and floating-point buffers of a model, by the names of its state; of any shapes."""


class Repeated(Unstructured, ABC):
    """Trainings one after the other, each of which ends at one of ``ends``, in steps done.

    ``snapshots``: what a later training takes up again.
    """

    snapshots: dict[str, Held]

    def __init__(
        self, model: nn.Module, chosen: Scheme, pattern: NMPattern | None, *, seed: int, steps: int, options: Options
    ) -> None:
        self._model, self.snapshots = model, {}
        super().__init__(model, chosen, pattern, seed=seed, steps=steps, options=options)
        self.ends = self.planned()
        if any(end <= begin for begin, end in zip((0, *self.ends), self.ends, strict=False)):
            raise InputError(
                f"scheme {chosen.name!r} trains {len(self.ends)} times, for which {steps} steps are too few: train for "
                f"more epochs, or take fewer of {', '.join(self.counts)}"
            )

    counts: ClassVar[tuple[str, ...]]
    """Options that say how often it trains."""

    @abstractmethod
    def planned(self) -> tuple[int, ...]:
        """Steps done when each training ends, the last one with the last step."""

    @property
    def initial_density(self) -> float:
        return 1.0

    def clock(self, step: int) -> tuple[int, int]:
        number = bisect_right(self.ends, step)
        begin = self.ends[number - 1] if number else 0
        return step - begin, self.ends[number] - begin

    def prune(self, exponent: float) -> None:
        """Of each mask the largest |W| stay: the share that its layer ends with, to the power of ``exponent``."""
        for layer, share in self.shares(self.density):
            weight = layer.weight.detach().abs()
            self.set_mask(layer, top(weight, kept(share**exponent, weight.numel()), mask_of(layer)))

    def held(self) -> Held:
        """The model as it is now."""
        state = self._model.state_dict()
        return {name: value.detach().clone() for name, value in state.items() if value.is_floating_point()}

    def become(self, held: Held, optimizer: torch.optim.Optimizer) -> None:
        """Set the model to ``held`` under the masks of now, and ``optimizer`` to what it was before its first step."""
        with torch.no_grad():
            for name, value in self._model.state_dict().items():
                if name in held:
                    value.copy_(held[name])
        for state in optimizer.state.values():
            for value in state.values():
                if isinstance(value, Tensor):
                    value.zero_()
        self._hold(optimizer)

    def state_dict(self) -> dict[str, Any]:
        copies = {name: {key: value.clone() for key, value in held.items()} for name, held in self.snapshots.items()}
        return {**super().state_dict(), "snapshots": copies}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.snapshots = {
            name: {key: value.clone() for key, value in held.items()} for name, held in state["snapshots"].items()
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class LotteryOptions(UnstructuredOptions):
    """``rounds``: how often weights are pruned and set back; ``rewind``: to which share of the first training."""

    rounds: int = 4
    rewind: float = 0.0
    distribution: str = "uniform"

    def __post_init__(self) -> None:
        UnstructuredOptions.__post_init__(self)
        require_int("option 'rounds'", self.rounds, 1, 1000)
        require_share("rewind", self.rewind, 0.0, 0.9)

    def schedule(self) -> dict[str, Any]:
        return {"rounds": self.rounds, "rewind": self.rewind}


class Lottery(Repeated):
    """Lottery tickets (Frankle and Carbin, ICLR 2019): train, keep the largest |W|, set what is left back, train again.

    Every round keeps the same share of each layer's mask, so that the last one reaches the density. What is set back is
    all of the model, to its weights before the first step, or, ``rewind`` above 0, to those of that share of the first
    training, from where the schedule goes on (late resetting: Frankle et al., arXiv 1903.01611). Trainings are as long
    as the first one, less what they are set back to.
    """

    options_type: ClassVar[type[Options]] = LotteryOptions
    counts = ("rounds",)

    def __init__(
        self, model: nn.Module, chosen: Scheme, pattern: NMPattern | None, *, seed: int, steps: int, options: Options
    ) -> None:
        super().__init__(model, chosen, pattern, seed=seed, steps=steps, options=options)
        if not self.early:
            self.snapshots["start"] = self.held()

    def planned(self) -> tuple[int, ...]:
        later = 1 - self.options.rewind
        first = self.steps / (1 + self.options.rounds * later)
        return tuple(round(first * (1 + later * number)) for number in range(self.options.rounds + 1))

    @property
    def early(self) -> int:
        """Steps done when the weights are kept to which each round goes back."""
        back: float = self.options.rewind
        return round(back * self.ends[0])

    def clock(self, step: int) -> tuple[int, int]:
        done, length = super().clock(step)
        return (done, length) if step < self.ends[0] else (done + self.early, length + self.early)

    def after_step(self, step: int, optimizer: torch.optim.Optimizer) -> None:
        super().after_step(step, optimizer)
        if step + 1 == self.early:
            self.snapshots["start"] = self.held()
        if step + 1 in self.ends[:-1]:
            self.prune((self.ends.index(step + 1) + 1) / self.options.rounds)
            self.become(self.snapshots["start"], optimizer)


@dataclass(frozen=True, slots=True, kw_only=True)
class LateLotteryOptions(LotteryOptions):
    """``rewind``: a tenth of the first training, a choice of this project."""

    rewind: float = 0.1


class LateLottery(Lottery):
    """The same with late resetting."""

    options_type: ClassVar[type[Options]] = LateLotteryOptions


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainedFirstOptions(UnstructuredOptions):
    """``until``: share of the steps that train the dense model."""

    until: float = 0.5
    distribution: str = "uniform"

    def __post_init__(self) -> None:
        UnstructuredOptions.__post_init__(self)
        require_share("until", self.until, 0.01, 0.99)

    def schedule(self) -> dict[str, Any]:
        return {"until": self.until}


@dataclass(frozen=True, slots=True, kw_only=True)
class SoupOptions(TrainedFirstOptions):
    """``cycles`` of pruning, each with ``copies`` trained from there and averaged."""

    cycles: int = 1
    copies: int = 3

    def __post_init__(self) -> None:
        TrainedFirstOptions.__post_init__(self)
        require_int("option 'cycles'", self.cycles, 1, 1000)
        require_int("option 'copies'", self.copies, 1, 1000)


class Soup(Repeated):
    """Sparse model soups (Zimmer, Spiegel and Pokutta, ICLR 2024, arXiv 2306.16788; repository ZIB-IOL/SMS).

    A dense model is pruned by |W|, trained ``copies`` times from there under that one mask, and becomes the mean of
    what came of it, from which the next cycle prunes. Copies differ in the batches that they see, one after the other
    here. Running statistics of batch norms are averaged too, where the repository estimates them anew.
    """

    options_type: ClassVar[type[Options]] = SoupOptions
    counts = ("cycles", "copies")

    def planned(self) -> tuple[int, ...]:
        dense, parts = round(self.options.until * self.steps), self.options.cycles * self.options.copies
        return (dense, *(dense + round((self.steps - dense) * i / parts) for i in range(1, parts + 1)))

    def after_step(self, step: int, optimizer: torch.optim.Optimizer) -> None:
        super().after_step(step, optimizer)
        if step + 1 not in self.ends:
            return
        trained = self.ends.index(step + 1)
        cycle, others = divmod(trained, self.options.copies)
        if trained:
            made = self.held()
            before = self.snapshots.get("sum")
            self.snapshots["sum"] = made if before is None else {name: before[name] + made[name] for name in made}
        if not others:
            summed = self.snapshots.pop("sum", None)
            mean = {name: value / self.options.copies for name, value in summed.items()} if summed else self.held()
            self.become(mean, optimizer)
            if cycle == self.options.cycles:
                del self.snapshots["start"]
                return
            self.prune((cycle + 1) / self.options.cycles)
            self.snapshots["start"] = mean
        self.become(self.snapshots["start"], optimizer)


@dataclass(frozen=True, slots=True, kw_only=True)
class JackpotOptions(TrainedFirstOptions):
    """``rate``, ``momentum``: of the scores."""

    rate: float = 0.1
    momentum: float = 0.9

    def __post_init__(self) -> None:
        TrainedFirstOptions.__post_init__(self)
        require_share("rate", self.rate, 0.0, 1e6)
        require_share("momentum", self.momentum, 0.0, 1.0)


class Jackpot(Repeated):
    """Lottery jackpots (Zhang et al., IEEE TPAMI 2023, arXiv 2104.08700; repository zyxxmu/lottery-jackpots).

    A mask of a dense model that stays as it is: every weight has a score, and those with the largest are kept. Scores
    begin at 1 where the largest |W| are and at 0.99 elsewhere; as if the mask were the score, its gradient is dW W; SGD
    moves them, at a rate that falls along a cosine. All parameters stay from ``until`` on, running statistics do not.
    Of the repository's first kind, without its short restriction of what may change; weight decay of scores left out.
    """

    options_type: ClassVar[type[Options]] = JackpotOptions
    counts = ("until",)

    def planned(self) -> tuple[int, ...]:
        return round(self.options.until * self.steps), self.steps

    @property
    def searches(self) -> bool:
        """Whether the step is one of scores."""
        return self.step >= self.ends[0]

    def adjust_gradients(self, step: int) -> None:
        if not self.searches:
            return super().adjust_gradients(step)
        self._gradients = {}
        for layer in self.own_layers():
            gradient = layer.weight.grad
            if gradient is not None and bool(gradient.isfinite().all()):
                self._gradients[layer.name] = gradient.detach() * layer.weight.detach()
        for parameter in self._model.parameters():
            parameter.grad = None

    def after_step(self, step: int, optimizer: torch.optim.Optimizer) -> None:
        if self.searches:
            done, length = self.clock(step)
            for layer in self.own_layers():
                if layer.name in self._gradients:
                    self._move(layer, self._gradients[layer.name], cosine(self.options.rate, 0.0, done / length))
        elif step + 1 == self.ends[0]:
            self.prune(1.0)
            for layer in self.own_layers():
                layer.state["score"] = torch.where(mask_of(layer), 1.0, 0.99)
                layer.state["momentum"] = torch.zeros_like(layer.state["score"])
        self._gradients = {}

    def _move(self, layer: SparseLayer, gradient: Tensor, rate: float) -> None:
        score, momentum = (layer.state[name].to(gradient.device) for name in ("score", "momentum"))
        layer.state["momentum"] = momentum = self.options.momentum * momentum + gradient.float()
        layer.state["score"] = score = score - rate * momentum
        self.set_mask(layer, top(score, int(mask_of(layer).sum()), torch.ones_like(mask_of(layer))))
