"""A lane of the unit for spanning trees: it looks up bits by index, counts those that agree, and corrects a count."""

from __future__ import annotations

from typing import Any, NamedTuple

from amaranth import Array, Cat, Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from amaranth.utils import bits_for

from ...dataflow.tree_spec import TreeSpec
from .popcount import Popcount

__all__ = ["INPUT_BITS", "TreeFormat", "TreeLane", "TreeSum"]

INPUT_BITS = 16
"""Of an input that are written at once; also what a reader chooses one from."""
_CHOICE = (INPUT_BITS - 1).bit_length()


class _Fill(NamedTuple):
    """What writes a memory."""

    en: Any
    address: Any
    data: Any


class TreeFormat:
    """Layouts of what the tables of a lane hold, and of what moves between lanes."""

    def __init__(self, spec: TreeSpec) -> None:
        self.spec = spec
        self.beats = -(-spec.inputs // spec.word_bits)
        self.place = bits_for(spec.inputs - 1)
        self.position = (spec.positions - 1).bit_length()
        self.count = bits_for(spec.inputs)
        self.slot = bits_for(spec.tasks - 1)
        self.level = bits_for(4 * spec.lanes * spec.tasks)  # room for levels without a task
        self.lane = 0 if spec.local else (spec.lanes - 1).bit_length()
        self.input = max(1, self.position + max(self.place - _CHOICE, 0))
        self.word = data.StructLayout(
            {"place": data.ArrayLayout(self.place, spec.word_bits), "sign": spec.word_bits, "mask": spec.word_bits}
        )
        self.task = data.StructLayout(
            {
                "level": self.level,
                "start": bits_for(spec.words - 1),
                "beats": bits_for(self.beats - 1),
                "position": self.position,
                "whole": 1,
                "inverted": 1,
                "offset": self.count,
                "slot": self.slot,
                "lane": self.lane,
            }
        )
        self.made = wiring.Signature({"valid": Out(1), "slot": Out(self.slot), "count": Out(self.count)})

    @property
    def tables(self) -> dict[str, tuple[int, int]]:
        """Bits of address and data of what a lane is filled with: tasks in the order in which it takes them, words of
        places, and all inputs."""
        return {
            "fill_tasks": (bits_for(self.spec.tasks), self.task.size),
            "fill_words": (bits_for(self.spec.words - 1), self.word.size),
            "fill_inputs": (self.input, INPUT_BITS),
        }

    def fills(self, **more: int) -> dict[str, Any]:
        """The ports that do; those of a lane's own tables have ``more``."""
        return {
            name: In(
                wiring.Signature(
                    {
                        "en": Out(1),
                        "address": Out(address),
                        "data": Out(width),
                        **({} if name == "fill_inputs" else {key: Out(size) for key, size in more.items()}),
                    }
                )
            )
            for name, (address, width) in self.tables.items()
        }


class TreeSum(wiring.Component):
    """The count of a channel after a beat: what stands so far, or at first that of its parent and an offset, and the
    ``ones`` of the beat, which count twice unless the channel is ``whole``, made of its own places alone.

    With ``d`` places in all, ``offset`` is ``-d``, of an ``inverted`` parent ``k - d``, of a whole channel 0. Sums
    wrap; the last one is from 0 to ``k``.
    """

    def __init__(self, count: int, ones: int) -> None:
        super().__init__(
            {
                "first": In(1),
                "whole": In(1),
                "inverted": In(1),
                "offset": In(count),
                "above": In(count),
                "held": In(count),
                "ones": In(ones),
                "total": Out(count),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        from_parent = Mux(self.inverted, -self.above, self.above)
        begun = Mux(self.first, Mux(self.whole, 0, from_parent)[: len(self.total)] + self.offset, self.held)
        m.d.comb += self.total.eq(begun + Mux(self.whole, self.ones, self.ones << 1))
        return m


class TreeLane(wiring.Component):
    """A task is a channel at a position; it takes ``beats + 1`` cycles, a word of places each.

    While ``issuing``, the lane takes its next task in the first cycle in which its level is ``level``; ``active`` says
    in that very cycle that it does. A word issued in cycle ``t`` finds its bits in ``t + 2``, and its ones join the
    count in ``t + latency``, when ``made`` shows what is done. A parent's count is read in the cycle before: it must
    have been made in an earlier one than that. ``others`` is what all lanes made, by which the lane keeps their counts;
    where positions stay on their lane it keeps its own alone. ``answer`` is the count in slot ``ask`` of this lane, a
    cycle later. ``clear`` begins with the first task and the first slot.
    """

    def __init__(self, spec: TreeSpec) -> None:
        self.spec = spec
        self.format = TreeFormat(spec)
        super().__init__(self.ports(spec))

    @staticmethod
    def ports(spec: TreeSpec) -> dict[str, Any]:
        """Members of the signature, for whoever instantiates the emitted module."""
        f = TreeFormat(spec)
        others = {} if spec.local else {"others": In(f.made).array(spec.lanes)}
        return {
            "clear": In(1),
            "issuing": In(1),
            "level": In(f.level),
            "active": Out(1),
            "made": Out(f.made),
            "ask": In(f.slot),
            "answer": Out(f.count),
            **others,
            **f.fills(),
        }

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        task, beat, ends = self._issue(m)
        latency = self.spec.latency
        stages = [self._stage(m, task, beat, ends)]
        for i in range(latency):
            after = Signal.like(stages[-1], name=f"stage_{i + 1}")
            m.d.sync += after.eq(stages[-1])
            stages.append(after)
        word = self._table(m, "words", self.format.word, self.spec.words, self.fill_words, task.start + beat)
        ones = self._ones(m, word, stages[1])
        above = self._above(m, stages[latency - 1], stages[latency])
        self._sum(m, stages[latency], above, ones)
        return m

    def _table(self, m: Module, name: str, shape: Any, depth: int, fill: Any, address: Any) -> Any:
        """What the memory ``name`` holds at ``address``, a cycle later; ``fill`` writes it.

        The register behind it has a name of its own, by which its Verilog is proved to be the same; synthesis makes it
        part of the memory.
        """
        m.submodules[name] = table = Memory(shape=shape, depth=depth, init=[])
        write, read = table.write_port(), table.read_port(domain="comb")
        held = Signal(shape, name=f"{name}_read", reset_less=True)
        m.d.comb += [write.en.eq(fill.en), write.addr.eq(fill.address), write.data.eq(fill.data), read.addr.eq(address)]
        m.d.sync += held.eq(read.data)
        return held

    def _issue(self, m: Module) -> tuple[Any, Any, Any]:
        """The task that is next, its beat, and whether that is its last."""
        pointer, following = (Signal(range(self.spec.tasks + 1), name=name) for name in ("pointer", "following"))
        beat = Signal(range(self.format.beats))
        ends = Signal()
        task = self._table(m, "tasks", self.format.task, self.spec.tasks + 1, self.fill_tasks, following)
        m.d.comb += [
            ends.eq(beat == task.beats),
            self.active.eq(self.issuing & (task.level == self.level)),
            # both are there before the compares are: the way from this table to its own address is the longest
            following.eq(Mux(self.clear, 0, Mux(self.active & ends, pointer + 1, pointer))),
        ]
        m.d.sync += [pointer.eq(following), beat.eq(Mux(self.active & ~ends, beat + 1, 0))]
        return task, beat, ends

    def _stage(self, m: Module, task: Any, beat: Any, ends: Any) -> Any:
        """What goes beside a word on its way."""
        f = self.format
        layout = {name: f.task[name].shape for name in ("position", "whole", "inverted", "offset", "slot", "lane")}
        stage = Signal(data.StructLayout({"valid": 1, "first": 1, "last": 1, **layout}), name="stage_0")
        m.d.comb += [stage[name].eq(task[name]) for name in layout if len(stage[name])]
        m.d.comb += [stage.valid.eq(self.active), stage.first.eq(beat == 0), stage.last.eq(ends)]
        return stage

    def _ones(self, m: Module, word: Any, stage: Any) -> Any:
        """How many of the places of ``word`` hold its signs; each has a way of its own into the inputs."""
        spec = self.spec
        signs = Signal(spec.word_bits)
        masks = Signal(spec.word_bits)
        m.d.sync += [signs.eq(word.sign), masks.eq(word.mask)]
        found = Signal(spec.word_bits)
        for i in range(spec.word_bits):
            at = Cat(word.place[i][_CHOICE:], stage.position)
            bits = self._table(m, f"inputs_{i}", INPUT_BITS, 1 << self.format.input, self.fill_inputs, at)
            choice = Signal(min(_CHOICE, self.format.place), name=f"choice_{i}", reset_less=True)
            m.d.sync += choice.eq(word.place[i][:_CHOICE])
            m.d.comb += found[i].eq(bits.bit_select(choice, 1))
        m.submodules.popcount = popcount = Popcount(spec.word_bits, latency=spec.popcount_latency)
        m.d.comb += popcount.bits.eq(masks & ~(found ^ signs))
        return popcount.count

    def _above(self, m: Module, before: Any, stage: Any) -> Any:
        """The count of the parent, for which ``before`` asks."""
        banks = [self.made] if self.spec.local else list(self.others)
        found = [self._counts(m, f"bank_{i}", made, before.slot) for i, made in enumerate(banks)]
        return found[0] if len(found) == 1 else Array(found)[stage.lane]

    def _counts(self, m: Module, name: str, made: Any, slot: Any) -> Any:
        """What a lane made in ``slot``, a cycle later."""
        fill = _Fill(made.valid, made.slot, made.count)
        return self._table(m, name, self.format.count, self.spec.tasks, fill, slot)

    def _sum(self, m: Module, stage: Any, above: Any, ones: Any) -> None:
        held = Signal(self.format.count)
        slot = Signal(self.format.slot)
        m.submodules.sum = total = TreeSum(self.format.count, len(ones))
        m.d.comb += [getattr(total, name).eq(stage[name]) for name in ("first", "whole", "inverted", "offset")]
        m.d.comb += [total.above.eq(above), total.held.eq(held), total.ones.eq(ones)]
        m.d.comb += [
            self.made.valid.eq(stage.valid & stage.last),
            self.made.slot.eq(slot),
            self.made.count.eq(total.total),
        ]
        m.d.sync += [held.eq(total.total), slot.eq(Mux(self.clear, 0, slot + self.made.valid))]
        m.d.comb += self.answer.eq(self._counts(m, "results", self.made, self.ask))
