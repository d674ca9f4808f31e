"""The test bench of an array of any PEs: banks that answer it, receivers that keep it waiting, every word in its
cycle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..blocks.banks import NAN
from ..blocks.frame import Frame
from .bench import Bus, bench_of, buses_of, hex_lines

__all__ = ["OwnText", "Product", "as_ready", "expected_words", "grid_bench", "in_order", "sums_bank"]

_AFTERWARDS = 8
"""Cycles watched after a run: nothing may leave any more."""
_NEVER = 0xFFFFFFFF
_SHARED = ("start", "hold", "sums", "south__ready")
_DIGITS = {"expected": 16, "hold": 1}

Contents = Mapping[str, npt.NDArray[Any]]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Product:
    """One run: ``contents`` of the memories of the bench, integers [banks, words] each, by the name of the memory
    without ``_bank``; ``sets``, the lines that set its registers and sizes."""

    name: str
    said: str
    weight_stationary: bool
    registers: Mapping[str, int]
    sets: Sequence[str]
    contents: Contents
    cycles: int


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnText:
    """What the bench of one array has besides: its memories and asks as declarations, what is noted of the asks, how
    its operands are shown, and what is looked at beside a word; inputs that they drive, digits of a word in a file."""

    memories: str
    noted: str
    shown: str
    beside: str
    behind: str
    drives: Sequence[str]
    digits: Mapping[str, int]


_GRID = """\
  localparam ROWS = {rows};
  localparam COLS = {cols};
  // Cycles in which the array does not stand still, from an ask to its answer.
  localparam READ = {read};
{memories}
  // The output buffer: partial sums of WS, in the order in which they left.
  reg [31:0] sums_bank [0:{sums_depth} - 1];
  integer sums_words;
  // Whether the receiver of each column takes a word, by cycle; after the last of them it does.
  reg [COLS - 1:0] ready_bank [0:{ready_depth} - 1];
  integer receivers;
  // Whether the array is held, so that it stands still in the next cycle; after the last of them it is not.
  reg hold_bank [0:{hold_depth} - 1];
  integer holds;
  reg held;
  // Results of each column in their order: the cycle in which one is taken, and its bits.
  reg [63:0] expected [0:{expected_depth} - 1];
  integer results;

  integer cycle, r, c, x, address, words, total, over;
  integer next [0:COLS - 1];
  integer at [0:COLS - 1];
  reg [63:0] wanted;
  // Asks of operands, the next to be answered first; those of partial sums of the last cycle in which the array did not
  // stand still, and what they found, likewise.
  reg [ROWS - 1:0] west_asked, west_line [0:READ - 1];
  reg [COLS - 1:0] north_asked, north_line [0:READ - 1], sums_asked;
  reg [{address_bits} * ROWS - 1:0] west_at, west_at_line [0:READ - 1];
  reg [{address_bits} * COLS - 1:0] north_at, north_at_line [0:READ - 1], sums_at;
  reg [32 * COLS - 1:0] sums_line [0:READ - 1];

  task fail(input [8 * 32 - 1:0] what);
    begin
      $display("FAIL {top}: cycle %0d, column %0d: %0s, got %h, wanted %h in cycle %0d", cycle, c, what,
        south__word[32 * c +: 32], wanted[31:0], $signed(wanted[63:32]));
      $stop;
      $finish;
    end
  endtask

  // What the array shows in a cycle against what it should show.
  task check;
    begin
      // busy from the cycle after start on, until all words have been taken, and where the array is held
      if (busy !== (cycle > -{lead} && words < total || held)) begin
        $display("FAIL {top}: cycle %0d: busy is %b with %0d of %0d words taken", cycle, busy, words, total);
        $stop;
        $finish;
      end
      check_words;
    end
  endtask

  task check_words;
    for (c = 0; c < COLS; c = c + 1) begin
      wanted = next[c] < results ? expected[c * results + next[c]] : {{32'h{never:08x}, 32'h0}};
      if (cycle >= 0 && wanted[63:32] == cycle) begin
        if (!(south__valid[c] && south__ready[c])) fail("nothing leaves");
        else if (south__word[32 * c +: 32] !== wanted[31:0]) fail("wrong word");
{beside}        next[c] = next[c] + 1;
        checked = checked + 1;
      end
      if (south__ready[c] && south__valid[c] !== 1'b0) begin
        words = words + 1;
        if (sums_words != 0) begin
          sums_bank[sums_words * c + at[c]] = south__word[32 * c +: 32];
          at[c] = at[c] + 1 == sums_words ? 0 : at[c] + 1;
        end
      end
    end
  endtask

  // What the buffers are asked.
  task ask;
    if (advance) begin
      for (x = 0; x + 1 < READ; x = x + 1) begin
        west_line[x] = west_line[x + 1];
        west_at_line[x] = west_at_line[x + 1];
        north_line[x] = north_line[x + 1];
        north_at_line[x] = north_at_line[x + 1];
      end
      west_line[READ - 1] = west_ask__valid;
      west_at_line[READ - 1] = west_ask__address;
      north_line[READ - 1] = north_ask__valid;
      north_at_line[READ - 1] = north_ask__address;
      west_asked = west_line[0];
      west_at = west_at_line[0];
      north_asked = north_line[0];
      north_at = north_at_line[0];
      sums_asked = sums_ask__valid;
      sums_at = sums_ask__address;
{noted}    end
  endtask

  // What the buffers show: the answers once the array moves on; noise before, and where nobody asked. The output buffer
  // answers with all that was taken before the array moves on from an ask, and with nothing that is taken later.
  task answer;
    begin
{shown}
      if (advance) begin
        for (x = 0; x + 1 < READ; x = x + 1) sums_line[x] = sums_line[x + 1];
        for (c = 0; c < COLS; c = c + 1) begin
          address = sums_at[{address_bits} * c +: {address_bits}];
          sums_line[READ - 1][32 * c +: 32] = sums_asked[c] ? sums_bank[sums_words * c + address] : 32'h{nan:08x};
        end
      end
      sums = advance ? sums_line[0] : {{COLS{{32'h{nan:08x}}}}};
    end
  endtask

  // One product: all_words leave in it, those beyond the edges of the result and partial sums included. Watched for
  // some cycles more, in which nothing may leave; with 0 of them the next start is in the first cycle without busy.
  task product(input integer length, input integer all_words, input integer watched);
    begin
      for (c = 0; c < COLS; c = c + 1) begin
        next[c] = 0;
        at[c] = 0;
      end
      words = 0;
      total = all_words;
      over = 0;
      held = 0;
      start = 1;
      for (cycle = -{lead}; over <= watched && cycle < 2 * length + COLS + {afterwards}; cycle = cycle + 1) begin
        hold = cycle >= 0 && cycle < holds && hold_bank[cycle];
        south__ready = cycle >= 0 && cycle < receivers ? ready_bank[cycle] : {{COLS{{1'b1}}}};
        @(negedge clk);
        check;
        ask;
        if (words >= total) over = over + 1;
        @(posedge clk);
        #1;
        start = 0;
        held = hold;
        answer;
      end
      hold = 0;
      if (held) begin
        @(posedge clk);
        #1;
      end
      for (c = 0; c < COLS; c = c + 1)
        if (next[c] < results && expected[c * results + next[c]] >> 32 != 32'h{never:08x}) begin
            wanted = expected[c * results + next[c]];
            fail("a result is missing");
          end
      if (words != total) begin
        $display("FAIL {top}: %0d words left the array instead of %0d", words, total);
        $stop;
        $finish;
      end
      cycles = cycles + length;
    end
  endtask
"""


def grid_bench(component: Any, frame: Frame, products: Sequence[Product], own: OwnText, top: str) -> dict[str, str]:
    """Files of a bench of ``component``, an array of ``frame``, that runs ``products`` one after the other, by name.

    The bench holds the operands in banks, answers what the array asks, partial sums included, and takes words when
    ``ready`` says so. It checks every result, in its cycle, and the number of all words.
    """
    buses = {bus.name: bus for bus in buses_of(component)}
    _require_all_driven(type(component).__name__, buses, own)
    digits = {**_DIGITS, "ready": -(-frame.cols // 4), **own.digits}
    files, blocks = {}, []
    depths = dict.fromkeys([*digits, "sums"], 1)
    for i, product in enumerate(products):
        for kind, words in product.contents.items():
            depths[kind] = max(depths[kind], words.size)
            if kind in digits and words.size:
                files[f"{top}_{product.name}_{kind}.hex"] = hex_lines(words.ravel(), digits[kind])
        # every other product is followed at once, and so is one before another dataflow, whose rows lie further apart
        turns = any(after.weight_stationary != product.weight_stationary for after in products[i + 1 : i + 2])
        blocks.append(_run(top, product, digits, watched=0 if turns or i % 2 == 0 else _AFTERWARDS))
    address_bits = buses["north_ask__address"].width
    deep = {f"{kind}_depth": depth for kind, depth in depths.items()} | {"address_bits": address_bits}
    body = _GRID.format(
        top=top,
        rows=frame.rows,
        cols=frame.cols,
        memories=own.memories.format(**deep),
        noted=own.noted,
        shown=own.shown.format(**deep),
        beside=own.beside,
        lead=frame.lead,
        read=frame.read_latency,
        afterwards=_AFTERWARDS,
        never=_NEVER,
        nan=NAN,
        **deep,
    )
    return {f"{top}_tb.v": bench_of(top, component, body + own.behind, blocks, "products"), **files}


def _require_all_driven(name: str, buses: Mapping[str, Bus], own: OwnText) -> None:
    for bus in buses.values():
        if bus.driven and bus.name not in (*_SHARED, *own.drives) and not bus.name.startswith("run__"):
            raise RuntimeError(f"{name} has an input {bus.name!r} that its bench does not know")


def expected_words(cols: int, left: npt.NDArray[np.int64], result: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint64]:
    """Cycle and word of the results of each column in order, uint64 [cols, words], filled up with such as never leave.

    ``left`` and ``result`` are [m, n].
    """
    each = left.astype(np.uint64) << np.uint64(32) | result
    return in_order(cols, left, each, np.uint64(_NEVER << 32))


def in_order(
    cols: int, left: npt.NDArray[np.int64], words: npt.NDArray[np.uint64], filler: np.uint64
) -> npt.NDArray[np.uint64]:
    """``words``, uint64 [m, n], by the column that each leaves and by its cycle in ``left`` [m, n], then ``filler``:
    uint64 [cols, words]."""
    columns = [slice(c, None, cols) for c in range(cols)]
    found = np.full((cols, max(left[:, column].size for column in columns)), filler, np.uint64)
    for c, column in enumerate(columns):
        own = left[:, column].ravel()
        found[c, : own.size] = words[:, column].ravel()[np.argsort(own)]
    return found


def sums_bank(cols: int, registers: Mapping[str, int]) -> npt.NDArray[np.int64]:
    """An output buffer of partial sums, none yet, int64 [cols, words]; of no words where none come back."""
    stationary = registers["weight_stationary"]
    deep = registers["across"] * registers["parts"] * registers["interleave"] if stationary else 0
    return np.zeros((cols, deep), np.int64)


def as_ready(ready: npt.NDArray[np.bool_]) -> npt.NDArray[Any]:
    """``ready`` [cycles, cols] as a number a cycle, of dtype object, column 0 lowest."""
    numbers: npt.NDArray[Any] = ready.astype(object) @ [1 << c for c in range(ready.shape[1])]
    return numbers


def _run(top: str, product: Product, digits: Mapping[str, int], watched: int) -> str:
    registers, contents = product.registers, product.contents
    tiles = registers["across"] * registers["down"]
    words = registers["drain_words"] or registers["parts"] * registers["interleave"]
    columns = len(contents["sums"])
    lines = [
        f"// {product.name}: {product.said}",
        *product.sets,
        *(
            f'$readmemh("{top}_{product.name}_{kind}.hex", {kind}{"" if kind == "expected" else "_bank"}, 0, '
            f"{contents[kind].size - 1});"
            for kind in digits
            if contents[kind].size
        ),
        f"sums_words = {contents['sums'].shape[1]}; results = {contents['expected'].shape[1]};",
        f"receivers = {contents['ready'].size}; holds = {contents['hold'].size};",
        f"product({product.cycles}, {columns * tiles * words}, {watched});",
    ]
    return "\n".join("    " + line for line in lines)
