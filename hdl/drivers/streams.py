"""Beats through a block between streams in co-simulation: in at ``into``, out at all the others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..blocks.payload import payloads
from ..flow.cosim import Cosim
from ..flow.packing import pack, unpack

__all__ = ["Ran", "Streams"]

Array = npt.NDArray[Any]
Bools = npt.NDArray[np.bool_]
Index = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Ran:
    """Cycles in which the input is ``open``, int64 [n], and in which beats ``entered``, int64 [beats]; by output those
    in which each beat is ``shown`` first and ``taken``, int64 [beats of it], and its ``fields``, uint32 likewise."""

    entered: Index
    open: Index
    shown: dict[str, Index]
    taken: dict[str, Index]
    fields: dict[str, dict[str, Array]]

    @property
    def cycles(self) -> int:
        """To the last beat taken."""
        return max(int(times[-1]) for times in self.taken.values() if len(times)) + 1


class Streams:
    """``machine``, a co-simulation of ``component``, by beats."""

    def __init__(self, machine: Cosim, component: Any) -> None:
        self._machine = machine
        self._at_once = True
        layouts = payloads(component)
        self._into = layouts.pop("into")
        self.outputs = layouts

    def run(
        self,
        beats: Mapping[str, Array],
        fixed: Mapping[str, Any],
        cycles: int,
        offered: Bools | None = None,
        ready: Bools | None = None,
    ) -> Ran:
        """``beats`` by field, unsigned [beats]; ``offered`` bool [cycles], ``ready`` bool [cycles, outputs]. What is
        not offered stands there as ones.

        When beats enter does not depend on what they hold, so where they do not enter at once a run finds it and a
        second one is given them.
        """
        count = len(next(iter(beats.values())))
        offers = _over(offered, cycles, 1)[:, 0]
        takes = _over(ready, cycles, len(self.outputs))
        given = dict(fixed) | {f"{name}__ready": takes[:, i] for i, name in enumerate(self.outputs)}
        entered = np.arange(count)
        seen = None
        if self._at_once and offered is None and ready is None and count <= cycles:
            seen = self._given(given, offers, beats, entered)
            self._at_once = seen is not None
        if seen is None:
            asked = self._once(given | {"into__valid": offers})
            entered = np.flatnonzero(asked["into__ready"] & offers)[:count]
            if len(entered) < count:
                raise RuntimeError(f"{len(entered)} beats enter in the given cycles instead of {count}")
            seen = self._given(given, offers, beats, entered)
        if seen is None:
            raise RuntimeError("beats enter in other cycles when they hold something")
        shown, taken, fields = {}, {}, {}
        for i, (name, layout) in enumerate(self.outputs.items()):
            there, payload = seen[f"{name}__valid"].astype(bool), seen[f"{name}__payload"]
            waits = there & ~takes[:, i]
            changes = (payload[1:] != payload[:-1]).reshape(cycles - 1, -1).any(axis=1) | ~there[1:]
            if (waits[:-1] & changes).any():
                cycle = int(np.flatnonzero(waits[:-1] & changes)[0])
                raise RuntimeError(f"{name} is not taken in cycle {cycle}, but does not stay as it is")
            taken[name] = np.flatnonzero(there & takes[:, i])
            shown[name] = np.flatnonzero(there & ~np.append(False, waits[:-1]))
            fields[name] = {field: words[taken[name]] for field, words in unpack(layout, payload).items()}
        opened = np.flatnonzero(seen["into__ready"])
        return Ran(entered=entered, open=opened, shown=shown, taken=taken, fields=fields)

    def _given(
        self, given: Mapping[str, Any], offers: Bools, beats: Mapping[str, Array], entered: Index
    ) -> dict[str, Array] | None:
        """Outputs of a run whose beats are given to enter in those cycles; None if they do not."""
        clock = np.arange(len(offers))
        valid = offers & (clock <= entered[-1])
        # whatever is not offered is all ones: nothing of it must be looked at
        following = np.searchsorted(entered, clock)
        dealt = {name: np.where(valid, np.append(values, 0)[following], 2**32 - 1) for name, values in beats.items()}
        packed = pack(self._into, dealt, len(clock))
        seen = self._once({**given, "into__valid": valid, "into__payload": packed})
        return seen if np.array_equal(np.flatnonzero(seen["into__ready"] & valid), entered) else None

    def _once(self, given: Mapping[str, Any]) -> dict[str, Array]:
        self._machine.reset()
        return self._machine.run(given)


def _over(given: Bools | None, cycles: int, columns: int) -> Bools:
    """``given`` bool [cycles, columns], and always behind it."""
    found = np.ones((cycles, columns), np.bool_)
    if given is not None:
        found[: len(given)] = given.reshape(len(given), columns)[:cycles]
    return found
