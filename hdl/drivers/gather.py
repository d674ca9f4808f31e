"""What drives the gather engine: queues and ports filled, a run, and every sum as it leaves."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

import numpy as np
import numpy.typing as npt
from amaranth import Value

from ...dataflow.accelerator import AcceleratorSpec
from ...dataflow.gather.dense import dense_ports, most_columns, row_place
from ...dataflow.gather.mapping import GatherMapping, require_gather
from ...dataflow.gather.spec import READ_LATENCY, line_order
from ...workloads.errors import InputError
from ..blocks.gather_banks import GatherBanks
from ..flow.cosim import Cosim
from .grid import Machine

__all__ = ["GatherDriver", "GatherRtlRun"]

Matrix = npt.NDArray[Any]


@dataclass(frozen=True, slots=True, eq=False)
class GatherRtlRun:
    """``result`` uint32 [m, n], bits of the sums; ``left`` int64 [n], the cycle in which those of each line are there;
    ``cycles`` from the first issue until the engine is not busy."""

    result: npt.NDArray[np.uint32]
    left: npt.NDArray[np.int64]
    cycles: int


class GatherDriver:
    """Runs products of one macro-tile on the engine of ``spec`` in a co-simulation, built once for all."""

    def __init__(self, spec: AcceleratorSpec, machine: Machine | None = None) -> None:
        self.spec, self.own, self._ramp = spec, require_gather(spec), READ_LATENCY + spec.mac_latency
        if self.own.balance == "stealing":
            raise InputError(f"gather.balance of {spec.name!r} is stealing, of which there is no RTL; use sorted")
        self._banks = GatherBanks(spec, blackbox=True)
        self._machine = machine or Cosim(self._banks, parts=self._banks.parts)

    def run(
        self,
        a: Matrix,
        b: Matrix,
        kept: npt.NDArray[np.bool_],
        *,
        cycles: int,
        interleave: int = 1,
        gradients: tuple[bool, bool] = (False, False),
    ) -> GatherRtlRun:
        """A [m, k] times B [k, n], bits of operands, uint16 or uint8.

        ``kept``, bool [k, n], says what of B is gathered, ``interleave`` how many lines a lane holds; of FP8
        ``gradients`` which are encoded as such. ``cycles`` bounds the length of the run.
        """
        (m, k), n, own = a.shape, b.shape[1], self.own
        GatherMapping(interleave=interleave).check(self.spec)
        most = most_columns(self.spec, k, interleave)
        if m > most:
            raise InputError(f"the engine holds {most} columns of {k} rows at interleave {interleave}, not {m}")
        order, step = line_order(own, np.count_nonzero(kept, axis=0)), own.lanes * interleave
        lanes = [[order[i::step] for i in range(lane, step, own.lanes)] for lane in range(own.lanes)]
        bits = np.dtype(f"u{self._banks.format.raw // 8}")
        self._fill_words(a.astype(bits))
        ended = self._fill_elements(b, kept, lanes, m)
        start = np.zeros(1 + cycles + self._ramp + 2, np.uint32)
        start[0] = 1
        encodings = dict(zip(self._banks.format.encodings, map(int, gradients), strict=False))
        run = {"start": start, "row_words": -(-m // own.width)}
        run |= dict.fromkeys(self._banks.format.interleave, interleave)
        seen = self._machine.run({**run, **encodings})
        seen = {name: values[1:] for name, values in seen.items()}
        if seen["busy"][-1]:
            raise RuntimeError(f"the engine is busy for more than the given {cycles} cycles")
        issued = int(seen["issuing"].sum())
        if not seen["issuing"][:issued].all() or seen["busy"][issued + self._ramp :].any():
            raise RuntimeError("the engine does not issue from the first cycle on without a break")
        return self._collected(seen, ended, m, n, issued + self._ramp)

    def _fill_words(self, a: Matrix) -> None:
        """Of a bank the rows that lie in it, of every copy all rows; a word has ``width`` columns."""
        own, (m, k) = self.own, a.shape
        padded = np.pad(a, ((0, -m % own.width), (0, 0)))
        ports, addresses, words = list[int](), list[int](), list[bytes]()
        for row in range(k):
            bank, first = row_place(own, row, m)
            parts = padded[:, row].reshape(-1, own.width)
            for port in (bank,) if own.banks else range(dense_ports(own)):
                ports += [port] * len(parts)
                addresses += range(first, first + len(parts))
                words += [part.tobytes() for part in parts]
        self._write("fill_words", ports, addresses, words)

    def _fill_elements(
        self, b: Matrix, kept: npt.NDArray[np.bool_], lanes: list[list[Any]], m: int
    ) -> list[list[tuple[int, int]]]:
        """Elements of ``lanes``, for each line that one holds those that follow each other, in turn until all are over;
        by lane in the order in which they end, which of the held ones and which column of B."""
        numbers, addresses, words = list[int](), list[int](), list[bytes]()
        ended = list[list[tuple[int, int]]]()
        for lane, held in enumerate(lanes):
            streams = [
                [(line, element) for line in lines for element in self._line(b[:, line], kept[:, line], m)]
                for lines in held
            ]
            turns = [
                (turn, *found)
                for round_ in zip_longest(*streams, fillvalue=(-1, {"empty": 1}))
                for turn, found in enumerate(round_)
            ]
            while turns and turns[-1][1] < 0:
                turns.pop()
            ended.append([(turn, line) for turn, line, element in turns if element.get("last")])
            elements = [element for _, _, element in turns] + [{"over": 1}]
            if len(elements) > self._banks.depth:
                raise InputError(f"a lane's queue holds {self._banks.depth} elements, and lane {lane} has more")
            numbers += [lane] * len(elements)
            addresses += range(len(elements))
            layout = self._banks.format.element
            words += [int(Value.cast(layout.const(e)).value).to_bytes(-(-layout.size // 8), "little") for e in elements]
        self._write("fill_elements", numbers, addresses, words)
        return ended

    def _line(self, values: Matrix, kept: npt.NDArray[np.bool_], m: int) -> list[dict[str, int]]:
        if not kept.any():
            return [{"empty": 1, "last": 1}]
        places = [(int(i), row_place(self.own, int(i), m)) for i in np.flatnonzero(kept)]
        port = self._banks.format.port
        return [
            {
                "value": int(values[i]) & ((1 << self._banks.format.raw) - 1),
                **({"port": bank} if port else {}),
                "address": first,
                "last": int(i == places[-1][0]),
            }
            for i, (bank, first) in places
        ]

    def _write(self, name: str, at: list[int], addresses: list[int], words: list[bytes]) -> None:
        size = 4 * -(-len(words[0]) // 4)
        raw = b"".join(word.ljust(size, b"\0") for word in words)
        data = np.frombuffer(raw, "<u8" if size == 8 else "<u4")
        self._machine.run(
            {
                f"{name}__en": 1,
                f"{name}__at": np.array(at, np.uint32),
                f"{name}__address": np.array(addresses, np.uint32),
                f"{name}__data": data if size <= 8 else data.reshape(len(words), -1),
            }
        )

    def _collected(
        self, seen: dict[str, Any], lanes: list[list[tuple[int, int]]], m: int, n: int, cycles: int
    ) -> GatherRtlRun:
        """Sums by the order in which lines end; each line's must be there when it ends."""
        own, parts = self.own, -(-m // self.own.width)
        result, left = np.zeros((parts * own.width, n), np.uint32), np.zeros(n, np.int64)
        for lane, order in enumerate(lanes):
            turns, lines = np.array(order, np.int64).reshape(-1, 2).T
            (ends,) = np.nonzero(seen[f"ended__{lane}"])
            (made,) = np.nonzero(seen[f"sums__{lane}__valid"])
            if (len(ends), len(made)) != (len(lines), parts * len(lines)):
                raise RuntimeError(
                    f"lane {lane} made {len(made)} words of {len(ends)} lines instead of {parts} each of {len(lines)}"
                )
            numbers = seen[f"sums__{lane}__part"][made].reshape(-1, parts)
            if (numbers != parts * turns[:, None] + np.arange(parts)).any() or (
                made.reshape(-1, parts)[:, -1] > ends
            ).any():
                raise RuntimeError(f"lane {lane} made words of its lines out of order, or after their end")
            left[lines] = ends + 1
            for w in range(own.width):
                words = seen[f"sums__{lane}__words__{w}"][made].reshape(-1, parts)
                result[w :: own.width, lines] = words.T
        return GatherRtlRun(result[:m], left, cycles)
