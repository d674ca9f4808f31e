"""Tasks one after the other in one network, each in weights of its own that a mask which moves finds for it.

Every task draws a mask, which may reuse what earlier tasks have learned but not change it; while it trains, the weights
of its own exchange places as in SET or RigL; then they are frozen. So an earlier task's answers stay what they were, to
the bit. Parameter isolation by dynamic sparse training, as Yildirim et al. (arXiv 2308.14831) compare it; which parts
of it they vary is in their abstract, the rest is ours.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from ..data import ImageData, Images, normalised, open_data, order
from ..errors import InputError, require_choice, require_int
from ..models.classifier import classifier
from ..schemes.allocation import erk_densities
from ..schemes.nm import require_share
from ..schemes.unstructured import kept, top
from .control import controlled, threads_for

__all__ = ["Continual", "Growth", "Task", "continual"]

Growth = Literal["gradient", "random", "none"]
"""What grows where weights are dropped: the largest gradients (RigL), any (SET); or masks stay as they were drawn."""
_RATE, _MOMENTUM, _BATCH = 0.1, 0.9, 64
_FRACTION = 0.3
"""Of a task's own weights that a move exchanges, falling to 0 along half a cosine, as RigL's default."""
_MOVES = 10
"""Of the masks of a task, in the first three quarters of its training."""

Held = dict[str, Tensor]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Task:
    """``classes`` of a task; share of its test images right when it was ``learned`` and at the ``end`` of all.

    ``own``: weights that it was the first to use; ``reused``: those of earlier tasks in its masks. ``masks``, bool, and
    ``biases``, float32, by name of the parameter, of its shape.
    """

    classes: tuple[int, ...]
    learned: float
    end: float
    own: int
    reused: int
    masks: Held
    biases: Held


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Continual:
    """A ``model`` with the weights of all ``tasks``; ``weights``: how many it has, ``used``: of them by any task."""

    model: nn.Module
    tasks: tuple[Task, ...]
    weights: int
    used: int

    @property
    def forgotten(self) -> float:
        """What tasks lose from when they are learned to the end, mean of all but the last, as a share of images."""
        return sum(task.learned - task.end for task in self.tasks[:-1]) / max(len(self.tasks) - 1, 1)

    def answers(self, number: int, images: Tensor) -> Tensor:
        """Scores of the classes of a task, float32 [n, classes], for ``images``, float32 [n, channels, height, width],
        normalised."""
        task = self.tasks[number]
        effective = {name: w.detach() for name, w in self.model.named_parameters()} | task.biases
        return _scores(self.model, _masked(effective, task.masks), images, task.classes)


def continual(
    data: str = "digits",
    *,
    tasks: int = 5,
    density: float = 0.2,
    growth: Growth = "gradient",
    isolate: bool = True,
    epochs: int = 10,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Continual:
    """Train `mlp` on as many ``tasks`` as the classes of ``data`` are dealt into, in order, by SGD with momentum.

    ``density``: share of the weights in a task's masks, ERK over the hidden layers; of the last layer a task has the
    rows of its classes. ``isolate=False``: nothing is frozen, so that what is forgotten shows. Which task an image is
    of is known when it is asked about (task-incremental). SIGINT raises KeyboardInterrupt.
    """
    require_choice("growth", growth, get_args(Growth))
    require_share("density", density, 0.0, 1.0)
    require_int("epochs", epochs, 1, 10**6)
    require_int("seed", seed, 0, 2**32 - 1)
    opened = open_data(data)
    require_int("tasks", tasks, 1, opened.classes // 2)
    if density == 0 or (density == 1 and isolate and tasks > 1):
        raise InputError(f"density is {density:g}: each task needs weights, and must leave some for those behind it")
    with controlled(threads_for(opened), torch.device("cpu")) as stop:
        torch.manual_seed(seed)
        model = classifier("mlp", opened.shape, opened.classes)
        learner = _Learner(model, opened, density, growth, isolate, torch.Generator().manual_seed(seed))
        dealt = torch.arange(opened.classes).tensor_split(tasks)
        learned: list[Task] = []
        for number, part in enumerate(dealt):
            classes = tuple(part.tolist())
            masks, own, reused = learner.learn(classes, epochs, stop)
            biases = {name: p.detach().clone() for name, p in model.named_parameters() if p.dim() == 1}
            right = learner.right(classes, masks, biases)
            learned.append(
                Task(classes=classes, learned=right, end=right, own=own, reused=reused, masks=masks, biases=biases)
            )
            if progress is not None:
                progress(number + 1, tasks)
        found = tuple(replace(task, end=learner.right(task.classes, task.masks, task.biases)) for task in learned)
    return Continual(
        model=model,
        tasks=found,
        weights=sum(w.numel() for w in learner.weights.values()),
        used=sum(int(mask.sum()) for mask in learner.used.values()),
    )


def _masked(parameters: Held, masks: Held) -> Held:
    return {name: p.masked_fill(~masks[name], 0) if name in masks else p for name, p in parameters.items()}


def _scores(model: nn.Module, parameters: Held, images: Tensor, classes: tuple[int, ...]) -> Tensor:
    found: Tensor = functional_call(model, parameters, (images,))
    return found[:, list(classes)]


class _Learner:
    """The network, which weights tasks have ``used``, and how a task is learned beside them."""

    def __init__(
        self, model: nn.Module, data: ImageData, density: float, growth: Growth, isolate: bool, drawn: torch.Generator
    ) -> None:
        self.model, self.data, self.growth, self.isolate, self.drawn = model, data, growth, isolate, drawn
        self.weights = {name: p.detach() for name, p in model.named_parameters() if p.dim() > 1}
        self.used = {name: torch.zeros_like(w, dtype=torch.bool) for name, w in self.weights.items()}
        *hidden, self.last = self.weights
        self.shares = dict(
            zip(hidden, erk_densities([tuple(self.weights[name].shape) for name in hidden], density), strict=True)
        )

    def learn(self, classes: tuple[int, ...], epochs: int, stop: Callable[[], bool]) -> tuple[Held, int, int]:
        """The masks of a task once it is learned, how many weights in them are its own, how many of earlier tasks."""
        masks = self._draw(classes)
        taken = {name: used & self.isolate for name, used in self.used.items()}
        images, labels = self._of(self.data.train, classes)
        steps = epochs * -(-len(labels) // _BATCH)
        period, last_move = max(3 * steps // 4 // _MOVES, 1), 3 * steps // 4
        momentum = {name: torch.zeros_like(p) for name, p in self.model.named_parameters()}
        step = 0
        for _ in range(epochs):
            for index in torch.split(order(len(labels), self.drawn), _BATCH):
                gradients = self._gradients(images[index], labels[index], classes, masks)
                rate = _RATE * 0.5 * (1 + math.cos(math.pi * step / steps))
                self._step(gradients, momentum, masks, taken, rate)
                step += 1
                if self.growth != "none" and step <= last_move and step % period == 0:
                    self._move(masks, taken, momentum, gradients, step / last_move)
                if stop():
                    raise KeyboardInterrupt
        own = sum(int((mask & ~self.used[name]).sum()) for name, mask in masks.items())
        reused = sum(int((mask & self.used[name]).sum()) for name, mask in masks.items())
        for name, mask in masks.items():
            self.used[name] |= mask
        return masks, own, reused

    def right(self, classes: tuple[int, ...], masks: Held, biases: Held) -> float:
        """Share of the test images of a task that is right among its classes, with the weights of now."""
        images, labels = self._of(self.data.test, classes)
        parameters = {name: p.detach() for name, p in self.model.named_parameters()} | (biases if self.isolate else {})
        found = _scores(self.model, _masked(parameters, masks), images, classes).argmax(1)
        return float((found == labels).float().mean())

    def _draw(self, classes: tuple[int, ...]) -> Held:
        masks = {}
        for name, weight in self.weights.items():
            if name == self.last:
                rows = torch.zeros(len(weight), 1, dtype=torch.bool).index_fill(0, torch.tensor(classes), True)
                masks[name] = rows.expand_as(weight).clone()
            else:
                score = torch.rand(weight.shape, generator=self.drawn)
                masks[name] = top(score, kept(self.shares[name], weight.numel()), torch.ones_like(weight).bool())
        return masks

    def _of(self, part: Images, classes: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        """Images of a task, and which of its classes each is of."""
        among = torch.isin(part.labels, torch.tensor(classes)).nonzero()[:, 0]
        places = (part.labels[among][:, None] == torch.tensor(classes)[None]).int().argmax(1)
        return normalised(self.data, part.fetch(among)), places

    def _gradients(self, images: Tensor, labels: Tensor, classes: tuple[int, ...], masks: Held) -> Held:
        """Of all weights, also of those outside of the masks: what would change if they were there."""
        named = {name: p.detach() for name, p in self.model.named_parameters()}
        effective = {name: p.requires_grad_() for name, p in _masked(named, masks).items()}
        loss = functional.cross_entropy(_scores(self.model, effective, images, classes), labels)
        return dict(zip(effective, torch.autograd.grad(loss, list(effective.values())), strict=True))

    @torch.no_grad()
    def _step(self, gradients: Held, momentum: Held, masks: Held, taken: Held, rate: float) -> None:
        for name, parameter in self.model.named_parameters():
            gradient = gradients[name]
            if name in masks:
                gradient = gradient.masked_fill(~masks[name] | taken[name], 0)
            momentum[name].mul_(_MOMENTUM).add_(gradient)
            parameter.sub_(rate * momentum[name])

    @torch.no_grad()
    def _move(self, masks: Held, taken: Held, momentum: Held, gradients: Held, progress: float) -> None:
        """A share of a task's own weights changes places with others that no earlier task has; new ones begin at 0."""
        share = _FRACTION * 0.5 * (1 + math.cos(math.pi * progress))
        for name in self.shares:
            before, free = masks[name], masks[name] & ~taken[name]
            score = gradients[name].abs() if self.growth == "gradient" else self._random(before)
            # Those of earlier tasks neither go nor come.
            count = round(share * int(free.sum()))
            left = top(self.weights[name].abs(), int(free.sum()) - count, free)
            masks[name] = left | top(score, count, ~left & ~taken[name]) | (before & taken[name])
            gone, new = before & ~masks[name], masks[name] & ~before
            self.weights[name].masked_fill_(new, 0)
            momentum[name].masked_fill_(new | gone, 0)

    def _random(self, like: Tensor) -> Tensor:
        return torch.rand(like.shape, generator=self.drawn)
