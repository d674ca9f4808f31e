"""The array's controller: the decisions of PE (0, 0).

Everything is decided ``read_latency`` + 1 cycles before PE (0, 0) does it: the decision is registered, goes out as an
ask to the buffers, and is registered as often as they take to answer, to be the control word of the row's first PE.
"""

from __future__ import annotations

from typing import Any

from amaranth import EnableInserter, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import bits_for

from .control_format import ADDRESS_BITS, ASK, COUNT_BITS, ControlFormat
from .frame import Gridded

__all__ = ["Decision", "StceControl"]


class Decision:
    """Wires between the parts of the controller: what holds in, and is decided in, this cycle."""

    def __init__(self) -> None:
        def wire(name: str) -> Any:
            return Signal(name=name)

        # of the part that is loaded, or waits to be
        self.present, self.loaded = wire("present"), wire("loaded")
        self.run_end, self.tile_end, self.block_end, self.final = map(
            wire, ("run_end", "tile_end", "block_end", "final")
        )
        self.tile_begin, self.block_begin = wire("tile_begin"), wire("block_begin")
        self.first_round, self.last_tile, self.next_run_end = map(wire, ("first_round", "last_tile", "next_run_end"))
        self.bank = wire("bank_now")
        # of the issue
        self.takes, self.opens = wire("takes"), wire("opens")
        self.issues, self.first_turn, self.last_pair = map(wire, ("issues", "first_turn", "last_pair"))
        self.wraps, self.rests = wire("wraps"), wire("rests")
        # of what a tile waits for
        self.free, self.pairs_held = wire("free"), wire("pairs_held")


class StceControl(wiring.Component):
    """The schedule of a run.

    ``start`` makes the first decision in the next cycle and the first ask in the one after, of which cycle 0,
    ``read_latency`` later, uses the answer. ``run`` is constant from ``start`` to the end of the run. ``step`` is what
    row 0 asks and, as much later, does; ``pairs`` what column 0 asks of the north; ``sums`` the issues whose partial
    sum row 0 takes from the output buffer. ``busy`` holds from the cycle after ``start`` until the last pair has had
    its time and ``tail_cycles`` have passed, which is when the last word has left the array. In a cycle without ``en``
    everything holds.

    The port loads parts, one ahead of the issue; the loop counters are its own, and the issue copies what it needs when
    it takes a part over. ``taken`` and ``returned`` (WS) come back from the step of the last row: it takes its pairs
    over, and it issues the last pair of the first sum of a tile.
    """

    def __init__(self, spec: Gridded) -> None:
        self.format = f = ControlFormat(spec)
        self.frame = f.frame
        super().__init__(
            {
                "en": In(1),
                "run": In(f.run),
                "start": In(1),
                "taken": In(1),
                "returned": In(1),
                "step": Out(f.step),
                "pairs": Out(ASK),
                "sums": Out(f.sums),
                "busy": Out(1),
                **self.more_ports(),
            }
        )

    def more_ports(self) -> dict[str, Any]:
        """Members of the signature that only the controller of an array of other PEs has."""
        return {}

    def elaborate(self, platform: Any) -> Any:
        m = Module()
        now = Decision()
        self._loops(m, now)
        self._port(m, now)
        self._pace(m, now)
        self._token(m, now)
        self._gate(m, now)
        self._pairs_os(m, now)
        self._pairs_ws(m, now)
        return EnableInserter(self.en)(m)

    def _loops(self, m: Module, now: Decision) -> None:
        """Counters of the part that is being loaded or waits to be used.

        The decision to take a part comes late in a cycle: whether a counter is at its first or last count, and whether
        it will be at the last with the part after this one, stands in registers by then.
        """
        run = self.run
        names = ("part", "run", "across", "down")
        counts = [Signal(COUNT_BITS, name=f"{name}_count") for name in names]
        firsts = [Signal(name=f"{name}_first", init=1) for name in names]
        lasts = [Signal(name=f"{name}_last") for name in names]
        followings = [Signal(name=f"{name}_last_next") for name in names]
        limits = (run.parts, run.runs, run.across, run.down)
        ends = (now.run_end, now.tile_end, now.block_end, now.final)
        carry = self._part_ends(m, now)
        for name, count, limit, first, last, following, end in zip(
            names, counts, limits, firsts, lasts, followings, ends, strict=True
        ):
            one, two, moves = (Signal(name=f"{name}_{what}") for what in ("of_one", "of_two_at_most", "moves"))
            m.d.comb += [one.eq(limit == 1), two.eq(one | (limit == 2)), moves.eq(now.takes & carry)]
            m.d.comb += end.eq(carry & last)
            with m.If(moves):
                m.d.sync += [count.eq(Mux(last, 0, count + 1)), first.eq(last), last.eq(following)]
                m.d.sync += following.eq(Mux(last, two, count + 3 == limit))
            with m.If(self.start):
                m.d.sync += [count.eq(0), first.eq(1), last.eq(one), following.eq(two)]
            carry = end
        m.d.comb += [
            now.tile_begin.eq(self._begins_tile(m, firsts[0] & firsts[1])),
            now.block_begin.eq(now.tile_begin & firsts[2]),
            now.opens.eq(now.takes & now.tile_begin),
            now.first_round.eq(firsts[3]),
            now.last_tile.eq(lasts[2] & lasts[3]),
            now.next_run_end.eq(followings[0]),
        ]

    def _part_ends(self, m: Module, now: Decision) -> Any:
        """Whether the loop counters go on with what is taken."""
        return 1

    def _begins_tile(self, m: Module, first: Any) -> Any:
        """Whether a tile begins; ``first``: by the loop counters."""
        return first

    def _repeats(self, now: Decision) -> Any:
        """Whether the words of a block of rows are asked for again, by the next tile across."""
        return now.tile_end & ~now.block_end

    def _first_pairs(self, now: Decision) -> Any:
        """OS: whether the pairs are those of the first tile again."""
        return now.block_begin

    def _chain_free(self, m: Module, free: Any) -> Any:
        """OS: whether a tile that begins now finds the drain chain free; ``free``: since the one before began."""
        return free

    def _port(self, m: Module, now: Decision) -> None:
        """Words of a part go out once its predecessor is taken, ``w2e_words`` a cycle."""
        run, lanes = self.run, self.format.pe.lanes
        present = Signal()
        bank = Signal()
        chunk = Signal(self.format.pe.chunk)
        left, following = (Signal.like(run.part_words, name=f"words_{name}") for name in ("left", "following"))
        base, address, restart = (Signal(ADDRESS_BITS, name=name) for name in ("base", "address", "restart"))
        m.d.comb += [
            now.present.eq(present),
            now.loaded.eq(present & (left == 0)),
            now.bank.eq(bank ^ now.takes),
            following.eq(Mux(now.final, 0, Mux(now.next_run_end, run.rest_words, run.part_words))),
            restart.eq(Mux(self._repeats(now), base, address)),
        ]

        def moved(words: Any) -> Any:
            wire = Signal.like(words, name=f"{words.name}_moved")
            m.d.comb += wire.eq(Mux(words < lanes, words, lanes))
            return wire

        left_moved, following_moved = moved(left), moved(following)

        # what follows either decision is made beside it
        m.d.sync += [
            left.eq(Mux(now.takes, following - following_moved, left - left_moved)),
            address.eq(Mux(now.takes, restart + following_moved, address + left_moved)),
            bank.eq(now.bank),
            chunk.eq(Mux(now.takes, 1, chunk + 1)),
            self.step.ask.valid.eq(Mux(now.takes, following != 0, left != 0)),
            self.step.ask.address.eq(Mux(now.takes, restart, address)),
            self.step.load.bank.eq(now.bank),
            self.step.load.chunk.eq(Mux(now.takes, 0, chunk)),
        ]
        with m.If(now.takes & now.block_end):
            m.d.sync += base.eq(address)
        with m.If(now.takes & now.final):
            m.d.sync += present.eq(0)
        with m.If(self.start):
            m.d.sync += [
                left.eq(Mux(run.parts == 1, run.rest_words, run.part_words)),
                address.eq(0),
                base.eq(0),
                chunk.eq(0),
                present.eq(1),
            ]

    def _pace(self, m: Module, now: Decision) -> None:
        """A pair is played for every context and then waits until the adder is through with the first of them."""
        run, latency = self.run, self.frame.add_latency
        bits = bits_for(max(self.frame.accumulators, latency))
        turn = Signal(bits)
        pace = Signal(bits)
        active = Signal()
        tail = Signal.like(run.tail_cycles)
        left, fresh = (Signal.like(run.part_pairs, name=name) for name in ("pairs_left", "pairs_fresh"))
        some = Signal()
        turns = Signal()
        ending = Signal()
        m.d.comb += [
            pace.eq(Mux(run.interleave < latency, latency, run.interleave)),
            now.takes.eq(now.loaded & (left == 0) & (~now.tile_begin | now.free)),
            fresh.eq(Mux(now.run_end, run.rest_pairs, run.part_pairs)),
            some.eq(Mux(now.takes, fresh != 0, left != 0)),
            turns.eq(turn < run.interleave),
            ending.eq(turn + 1 == pace),
            now.last_pair.eq(Mux(now.takes, fresh == 1, left == 1)),
            now.wraps.eq(some & ending),
            now.rests.eq(~some | ending),
            now.issues.eq(some & turns),
            now.first_turn.eq(turn == 0),
            active.eq(now.present | (left != 0)),
            self.busy.eq(active | (tail != 0)),
        ]
        m.d.sync += [
            left.eq(Mux(now.takes, fresh - (ending & (fresh != 0)), left - (ending & (left != 0)))),
            tail.eq(Mux(active, run.tail_cycles, tail - (tail != 0))),
            turn.eq(Mux(now.rests, 0, turn + 1)),
            self.step.token.context.eq(turn),
        ]

    def _token(self, m: Module, now: Decision) -> None:
        """What the PEs are told of an issue; the flags of a part are kept while it is in use."""
        run, token, stationary = self.run, self.step.token, self.run.weight_stationary
        pair = Signal(self.format.pe.held)
        offset = Signal(self.format.pe.position)
        pair_now = Signal.like(pair)
        later = Signal()
        first_pair = Signal()
        last = Signal()
        begins = self._in_use(m, now, "begins", now.tile_begin)
        ends = self._in_use(m, now, "ends", now.tile_end)
        m.d.comb += [
            pair_now.eq(Mux(now.takes, 0, pair)),
            first_pair.eq(now.takes | ~later),
            last.eq(now.last_pair & (stationary | ends)),
        ]
        m.d.sync += [
            pair.eq(pair_now + now.wraps),
            later.eq(~first_pair | now.wraps),
            offset.eq(Mux(now.rests, 0, offset + run.offset_step)),
            token.valid.eq(now.issues),
            token.first.eq(first_pair & (stationary | begins)),
            token.last.eq(last),
            token.bank.eq(~now.bank),
            token.offset.eq(offset),
            token.pair.eq(pair_now),
            token.takeover.eq(stationary & now.opens),
            token.returns.eq(stationary & now.issues & begins & last & now.first_turn),
            self.sums.valid.eq(stationary & now.issues & first_pair),
            self.sums.restart.eq(now.takes & now.block_begin),
            self.sums.fresh.eq(self._in_use(m, now, "first_round", now.first_round)),
        ]
        self._more(m, now)

    def _more(self, m: Module, now: Decision) -> None:
        """What PEs of another kind are told besides of an issue, in ``step.token``."""

    def _in_use(self, m: Module, now: Decision, name: str, loaded: Any) -> Any:
        """A flag of the part in use: that of the loaded part in the cycle in which it is taken, and from then on."""
        kept, flag = Signal(name=f"{name}_kept"), Signal(name=f"{name}_now")
        m.d.comb += flag.eq(Mux(now.takes, loaded, kept))
        m.d.sync += kept.eq(flag)
        return flag

    def _gate(self, m: Module, now: Decision) -> None:
        """OS: tiles are as far apart as the drain chain needs. WS: an n-tile waits for the sums of its last round."""
        run = self.run
        chain = Signal(self.format.drain)
        waiting = Signal(COUNT_BITS)
        room = Signal()
        back = self.returned
        for i in range(self.frame.add_latency + self.frame.read_latency - 1):
            delayed = Signal(name=f"returned_{i}")
            m.d.sync += delayed.eq(back)
            back = delayed
        m.d.comb += [
            # a tile comes back after it was opened, so that there is one when ``back``
            room.eq((waiting < run.across) | (back & (waiting == run.across))),
            now.free.eq(self._chain_free(m, chain == 0) & (~run.weight_stationary | (now.pairs_held & room))),
        ]
        m.d.sync += [
            chain.eq(Mux(now.opens, run.drain_words - (run.drain_words != 0), chain - (chain != 0))),
            waiting.eq(Mux(now.opens == back, waiting, Mux(back, waiting - 1, waiting + 1))),
        ]
        with m.If(self.start):
            m.d.sync += [chain.eq(0), waiting.eq(0)]

    def _pairs_os(self, m: Module, now: Decision) -> None:
        """A pair goes with its issue; those of a block of rows are the same as those of the last."""
        ask = Signal(ASK)
        address = Signal(ADDRESS_BITS, name="os_address")
        begins = Signal(name="os_begins")
        m.d.comb += begins.eq(now.takes & self._first_pairs(now))
        m.d.sync += [
            ask.valid.eq(now.issues),
            ask.address.eq(Mux(begins, 0, address)),
            address.eq(Mux(begins, now.issues, Mux(now.issues, address + 1, address))),
        ]
        with m.If(~self.run.weight_stationary):
            m.d.comb += self.pairs.eq(ask)

    def _pairs_ws(self, m: Module, now: Decision) -> None:
        """The pairs of a tile are shifted in once the last row has taken over those before; so are the first, at once.

        The asks are not registered: that of a takeover is made in the very cycle of the last row's ask.
        """
        run = self.run
        left = Signal.like(run.shift_pairs, name="shifts_left")
        shifting = Signal()
        address = Signal(ADDRESS_BITS, name="ws_address")
        started, begins, pending, begun, last_tile = (
            Signal(name=f"ws_{name}") for name in ("started", "begins", "pending", "begun", "last_tile")
        )
        m.d.comb += [
            begun.eq(begins | (self.taken & ~last_tile)),
            shifting.eq(Mux(begun, run.shift_pairs != 0, left != 0)),
            now.pairs_held.eq(Mux(begun, run.shift_pairs <= 1, ~pending & (left <= 1))),
        ]
        m.d.sync += [
            started.eq(self.start),
            begins.eq(started & run.weight_stationary),
            left.eq(Mux(begun, run.shift_pairs - (run.shift_pairs != 0), left - (left != 0))),
            address.eq(Mux(shifting, address + 1, address)),
            pending.eq(self.start | now.opens | (pending & ~begun)),
        ]
        with m.If(now.opens):
            m.d.sync += last_tile.eq(now.last_tile)
        with m.If(self.start):
            m.d.sync += [left.eq(0), address.eq(0)]
        with m.If(run.weight_stationary):
            m.d.comb += [self.pairs.valid.eq(shifting), self.pairs.address.eq(address)]
