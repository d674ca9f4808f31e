"""What the order of a spanning tree saves and costs in a network that was trained: `weft tree`."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import reduce
from operator import add
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..dataflow.spanning_tree import TreeCost, TreeEngine, tree_cost
from ..workloads.errors import InputError
from ..workloads.one_line import OneLine
from ..workloads.spanning_tree import spanning_tree

if TYPE_CHECKING:
    from ..workloads.training import TrainResult

__all__ = ["LayerTree", "TreeAccount", "read_tree_account", "tree_account"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerTree:
    """A layer of ``groups`` trees of ``channels`` outputs of ``k`` weights each; ``cost`` of all of them, a position,
    and ``positions`` of an image."""

    layer: str
    groups: int
    channels: int
    k: int
    positions: int
    cost: TreeCost


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class TreeAccount(OneLine):
    """A network in the order of trees, against its channels one by one; test accuracy is that of the training.

    Of the binary layers alone, without what stays in full precision; ``compared`` bits are those of an image.
    """

    name: str
    scheme: str
    accuracy: float
    engine: TreeEngine
    layers: tuple[LayerTree, ...]

    @property
    def compared(self) -> int:
        return sum(x.cost.compared * x.positions for x in self.layers)

    @property
    def compared_plain(self) -> int:
        return sum(x.cost.compared_plain * x.positions for x in self.layers)

    @property
    def cycles(self) -> int:
        """Of as many images as there are positions held at once, so that every block is full."""
        return sum(x.cost.cycles * x.positions for x in self.layers)

    @property
    def cycles_plain(self) -> int:
        return sum(x.cost.cycles_plain * x.positions for x in self.layers)

    @property
    def weights(self) -> TreeCost:
        """The costs of the layers added up, for what does not depend on positions."""
        return reduce(add, (x.cost for x in self.layers))

    def document(self) -> dict[str, Any]:
        """As the command line prints it."""
        totals = ("compared", "compared_plain", "cycles", "cycles_plain")
        return {
            **asdict(self),
            "total": {name: getattr(self, name) for name in totals}
            | {name: getattr(self.weights, name) for name in ("stored", "stored_plain", "held", "levels")},
        }


def read_tree_account(folder: Path, engine: TreeEngine, *, inverse: bool = False) -> TreeAccount:
    """The account of the finished training in ``folder``; one that is not finished is `weft train --resume`'s to end.

    `InputError` where the folder holds none, or its scheme trains no binary weights.
    """
    from ..workloads.training import RESULT, resume

    if not (folder / RESULT).is_file():
        raise InputError(f"{folder}: holds no finished training: it has no {RESULT}")
    return tree_account(resume(folder), engine, inverse=inverse, name=str(folder))


def tree_account(result: TrainResult, engine: TreeEngine, *, inverse: bool = False, name: str = "") -> TreeAccount:
    """The account of a finished training; ``inverse``: a channel may be made of the inverse of its parent."""
    from ..workloads.training import binary_layers

    made = []
    for layer, found in binary_layers(result).items():
        groups, channels, k = found.weights.shape
        costs = [tree_cost(spanning_tree(group, inverse=inverse), engine) for group in found.weights]
        made.append(
            LayerTree(
                layer=layer, groups=groups, channels=channels, k=k, positions=found.positions, cost=reduce(add, costs)
            )
        )
    spec = result.spec
    return TreeAccount(
        name=name or f"{spec.model}, {spec.scheme}, seed {spec.seed}",
        scheme=spec.scheme,
        accuracy=result.accuracy,
        engine=engine,
        layers=tuple(made),
    )
