"""Where on chip the words of a transfer lie: place after place, several words at once where they lie side by side."""

from __future__ import annotations

from typing import Any

from amaranth import Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from ...dataflow.program.spaces import PLACE_ADDRESS_BITS

__all__ = ["PLAN", "Places", "plan_of"]

_PLACE, _TURNS = 32, 16

PLAN = data.StructLayout(
    {
        "place": _PLACE,
        **{f"{side}{i}_step": _PLACE for side in ("inner", "outer") for i in range(3)},
        **{f"{side}{i}": _TURNS for side in ("inner", "outer") for i in (1, 2)},
    }
)
"""The registers of a transfer that say where its words lie (`dataflow/program/isa.py`)."""


def plan_of(command: Any, plan: Any) -> list[Any]:
    """Assignments of a command's registers to a ``plan``."""
    return [plan[name].eq(command[name]) for name, _ in PLAN]


class Places(wiring.Component):
    """The place of the next word, and how many from it on may be taken at once.

    Those are the words up to the turn of the innermost step where that is from address to address (``along``) or from
    bank to bank (``across``), and else, or without ``many``, one. `take` words are taken in a cycle, ``line_end`` with
    the last of a line. `begin` starts at the plan's first place, which shows from the next cycle on; the plan stands
    still until the last word is taken.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        super().__init__(
            {
                "begin": In(1),
                "plan": In(PLAN),
                "allow_along": In(1),
                "allow_across": In(1),
                "take": In(range(most + 1)),
                "line_end": In(1),
                "place": Out(_PLACE),
                "across": Out(1),
                "words": Out(range(most + 1)),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        plan = self.plan
        inner = [Signal(_PLACE, name=f"inner_{i}", reset_less=True) for i in range(3)]
        outer = [Signal(_PLACE, name=f"outer_{i}", reset_less=True) for i in range(3)]
        turns = {name: Signal(_TURNS, name=f"{name}_left") for name in ("inner1", "inner2", "outer1", "outer2")}
        along = Signal()
        across = Signal()
        room = Signal(_TURNS)
        m.d.comb += [
            along.eq(self.allow_along & (plan.inner2_step == 1)),
            across.eq(self.allow_across & (plan.inner2_step == 1 << PLACE_ADDRESS_BITS)),
            room.eq(turns["inner2"]),
            self.words.eq(Mux(along | across, Mux(room < self.most, room, self.most), 1)),
            self.place.eq(inner[2]),
            self.across.eq(across),
        ]
        moved = Signal(_PLACE)
        m.d.comb += moved.eq(Mux(across, self.take << PLACE_ADDRESS_BITS, Mux(along, self.take, plan.inner2_step)))
        self._count(m, "inner", inner, turns, self.take != 0, self.take, moved)
        line = self._count(m, "outer", outer, turns, self.line_end, 1, plan.outer2_step)
        with m.If(self.line_end):
            m.d.sync += [x.eq(line) for x in inner]
            m.d.sync += [turns["inner1"].eq(plan.inner1), turns["inner2"].eq(plan.inner2)]
        with m.If(self.begin):
            m.d.sync += [x.eq(plan.place) for x in (*inner, *outer)]
            m.d.sync += [left.eq(plan[name]) for name, left in turns.items()]
        return m

    def _count(
        self, m: Module, side: str, starts: list[Any], turns: dict[str, Any], goes: Any, by: Any, moved: Any
    ) -> Any:
        """Three nested steps, ``turns`` count down what is left of the two inner ones; the place that comes next."""
        plan = self.plan
        one, two = turns[f"{side}1"], turns[f"{side}2"]
        ends2, ends1 = Signal(name=f"{side}_ends_2"), Signal(name=f"{side}_ends_1")
        following = Signal(_PLACE, name=f"{side}_following")
        m.d.comb += [
            ends2.eq(two == by),
            ends1.eq(ends2 & (one == 1)),
            following.eq(
                Mux(
                    ends1,
                    starts[0] + plan[f"{side}0_step"],
                    Mux(ends2, starts[1] + plan[f"{side}1_step"], starts[2] + moved),
                )
            ),
        ]
        with m.If(goes):
            m.d.sync += [two.eq(Mux(ends2, plan[f"{side}2"], two - by)), starts[2].eq(following)]
            with m.If(ends2):
                m.d.sync += [one.eq(Mux(ends1, plan[f"{side}1"], one - 1)), starts[1].eq(following)]
            with m.If(ends1):
                m.d.sync += starts[0].eq(following)
        return following
