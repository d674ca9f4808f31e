"""The test bench of the array: banks that answer it, receivers that keep it waiting, every word in its cycle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ...dataflow.accelerator import AcceleratorSpec
from ...dataflow.stce.mapping import ArrayMapping, Dataflow
from ...workloads.gemm import Gemm
from ..blocks.array import Stce
from ..blocks.banks import BUBBLE, NAN, banks, run_registers
from ..blocks.control_format import LEAD
from ..blocks.registers import PARAMETERS, REGISTERS, register_modules
from .bench import Bus, bench_of, buses_of, hex_lines

__all__ = ["ArrayVectors", "array_bench"]

_AFTERWARDS = 8
"""Cycles watched after a run: nothing may leave any more."""
_NEVER = 0xFFFFFFFF


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ArrayVectors:
    """One product: ``a`` [m, k] and the pairs ``values``, ``indices`` [slots, n] as bits; ``result`` bits of FP32 and
    ``left``, the cycle of each in the run, both [m, n]; ``cycles`` is the length of the run. ``ready`` [cycles, cols]
    says when a word is taken: from its end on always."""

    name: str
    mapping: ArrayMapping
    gemm: Gemm
    a: npt.NDArray[np.uint16]
    values: npt.NDArray[np.uint16]
    indices: npt.NDArray[np.uint8]
    result: npt.NDArray[np.uint32]
    left: npt.NDArray[np.int64]
    cycles: int
    ready: npt.NDArray[np.bool_]


_ARRAY = """\
  localparam ROWS = {rows};
  localparam COLS = {cols};
  localparam LANES = {lanes};
  localparam PAIR = {pair};
  // Banks of the operand buffers: the words of each, and how many of them a product needs.
  reg [15:0] west_bank [0:{west_depth} - 1];
  reg [PAIR - 1:0] north_bank [0:{north_depth} - 1];  // valid, index, value
  // The output buffer: partial sums of WS, in the order in which they left.
  reg [31:0] sums_bank [0:{sums_depth} - 1];
  integer west_words, north_pairs, sums_words;
  // Whether the receiver of each column takes a word, by cycle; after the last of them it does.
  reg [COLS - 1:0] ready_bank [0:{ready_depth} - 1];
  integer receivers;
  // Results of each column in their order: the cycle in which one is taken, and its bits.
  reg [63:0] expected [0:{expected_depth} - 1];
  integer results;

  integer cycle, r, c, x, address, words, total, over;
  integer next [0:COLS - 1];
  integer at [0:COLS - 1];
  reg [63:0] wanted;
  // The asks of the last cycle in which the array did not stand still.
  reg [ROWS - 1:0] west_asked;
  reg [COLS - 1:0] north_asked, sums_asked;
  reg [{address_bits} * ROWS - 1:0] west_at;
  reg [{address_bits} * COLS - 1:0] north_at, sums_at;
  reg [PAIR - 1:0] pair;

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
      // busy from the cycle after start on, until all words have been taken
      if (busy !== (cycle > -{lead} && words < total)) begin
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
        next[c] = next[c] + 1;
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

  // What the buffers are asked; the output buffer answers with all that was taken before its answer.
  task ask;
    if (advance) begin
      west_asked = west_ask__valid;
      west_at = west_ask__address;
      north_asked = north_ask__valid;
      north_at = north_ask__address;
      sums_asked = sums_ask__valid;
      sums_at = sums_ask__address;
    end
  endtask

  // What the buffers show: the answers once the array moves on; noise before, and where nobody asked.
  task answer;
    begin
      for (r = 0; r < ROWS; r = r + 1)
        for (x = 0; x < LANES; x = x + 1) begin
          address = west_at[{address_bits} * r +: {address_bits}] + x;
          west[16 * (LANES * r + x) +: 16] =
            advance && west_asked[r] && address < west_words ? west_bank[west_words * r + address] : 16'h{nan:04x};
        end
      for (c = 0; c < COLS; c = c + 1) begin
        address = north_at[{address_bits} * c +: {address_bits}];
        pair = advance && north_asked[c] ? north_bank[north_pairs * c + address]
          : {{1'b0, {{{index}{{1'b1}}}}, 16'h{nan:04x}}};
        {{north__valid[c], north__index[{index} * c +: {index}], north__value[16 * c +: 16]}} = pair;
        address = sums_at[{address_bits} * c +: {address_bits}];
        sums[32 * c +: 32] = advance && sums_asked[c] ? sums_bank[sums_words * c + address] : 32'h{nan:08x};
      end
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
      start = 1;
      for (cycle = -{lead}; over <= watched && cycle < 2 * length + COLS + {afterwards}; cycle = cycle + 1) begin
        south__ready = cycle >= 0 && cycle < receivers ? ready_bank[cycle] : {{COLS{{1'b1}}}};
        @(negedge clk);
        check;
        ask;
        if (words >= total) over = over + 1;
        @(posedge clk);
        #1;
        start = 0;
        answer;
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


def array_bench(array: Stce, products: Sequence[ArrayVectors], top: str) -> dict[str, str]:
    """Files of a bench of ``array`` that runs ``products`` one after the other, by name.

    The bench holds the operands in banks, answers what the array asks, partial sums included, and takes words when
    ``ready`` says so. It checks every result, in its cycle, and the number of all words.
    """
    spec, buses = array.spec, {bus.name: bus for bus in buses_of(array)}
    files, blocks, derived = {}, [], []
    depths = {"west": 1, "north": 1, "sums": 1, "expected": 1, "ready": 1}
    index, address_bits = buses["north__index"].width, buses["north_ask__address"].width
    digits = {"west": 4, "north": -(-(17 + index) // 4), "expected": 16, "ready": -(-spec.array.cols // 4)}
    known = {"start", "west", "north__value", "north__index", "north__valid", "sums", "south__ready"}
    for bus in buses.values():
        if bus.driven and bus.name not in known and not bus.name.startswith("run__"):
            raise RuntimeError(f"Stce has an input {bus.name!r} that hdl/flow/array_bench.py does not know")
    for i, product in enumerate(products):
        registers = run_registers(spec, product.mapping, product.gemm)
        contents = _contents(spec, product, registers, index)
        for kind, words in contents.items():
            depths[kind] = max(depths[kind], words.size)
            if kind in digits and words.size:
                files[f"{top}_{product.name}_{kind}.hex"] = hex_lines(words.ravel(), digits[kind])
        # every other product is followed at once, and so is one before another dataflow, whose rows lie further apart
        turns = any(after.mapping.dataflow != product.mapping.dataflow for after in products[i + 1 : i + 2])
        derived.append(_derived(top, product, buses))
        blocks.append(_product(top, product, registers, contents, watched=0 if turns or i % 2 == 0 else _AFTERWARDS))
    body = _ARRAY.format(
        top=top,
        rows=spec.array.rows,
        cols=spec.array.cols,
        lanes=spec.array.w2e_words,
        pair=17 + index,
        index=index,
        address_bits=address_bits,
        lead=LEAD,
        afterwards=_AFTERWARDS,
        never=_NEVER,
        nan=NAN,
        **{f"{kind}_depth": depth for kind, depth in depths.items()},
    )
    body += "\n".join([_checked(top, buses), *derived])
    bench = bench_of(top, array, body, blocks, "products")
    return {f"{top}_tb.v": bench, f"{top}_run.v": register_modules(spec, top), **files}


def _contents(
    spec: AcceleratorSpec, product: ArrayVectors, registers: Mapping[str, int], index: int
) -> dict[str, npt.NDArray[Any]]:
    """What the memories of the bench hold for one product, a row a bank."""
    filled = banks(spec, product.mapping, product.gemm, product.a, product.values, product.indices)
    bubble = filled.indices == BUBBLE
    pairs = np.where(bubble, 1, filled.indices).astype(np.uint64) << np.uint64(16) | filled.values
    stationary = product.mapping.dataflow == Dataflow.WS
    deep = registers["across"] * registers["parts"] * registers["interleave"] if stationary else 0
    return {
        "west": filled.west,
        "north": pairs | np.where(bubble, 0, 1).astype(np.uint64) << np.uint64(16 + index),
        "sums": np.zeros((spec.array.cols, deep)),
        "expected": _expected(spec.array.cols, product),
        "ready": product.ready.astype(object) @ [1 << c for c in range(spec.array.cols)],
    }


def _expected(cols: int, product: ArrayVectors) -> npt.NDArray[np.uint64]:
    """Cycle and word of the results of each column in order, filled up with such as never leave."""
    columns = [slice(c, None, cols) for c in range(cols)]
    deepest = max(product.left[:, column].size for column in columns)
    expected = np.full((cols, deepest), _NEVER << 32, np.uint64)
    for c, column in enumerate(columns):
        left, word = product.left[:, column].ravel(), product.result[:, column].ravel()
        order = np.argsort(left)
        expected[c, : left.size] = left[order].astype(np.uint64) << np.uint64(32) | word[order]
    return expected


def _derived(top: str, product: ArrayVectors, buses: Mapping[str, Bus]) -> str:
    """The registers of a product, as the emitted module derives them."""
    mapping, gemm = product.mapping, product.gemm
    parameters = {
        "weight_stationary": int(mapping.dataflow == Dataflow.WS),
        "keep": mapping.pattern.keep,
        "group": mapping.pattern.group,
        "interleave": mapping.interleave,
        "m": gemm.m,
        "k": gemm.k,
        "n": gemm.n,
        "run": gemm.run,
    }
    wires = {f"{product.name}__{r.name}": buses[f"run__{r.name}"].width for r in REGISTERS}
    given = ", ".join(f".{name.upper()}({parameters[name]})" for name in PARAMETERS)
    pins = ", ".join(f".run__{r.name}({product.name}__{r.name})" for r in REGISTERS)
    lines = [*(f"wire [{width - 1}:0] {name};" for name, width in wires.items())]
    return "\n".join(f"  {line}" for line in [*lines, f"{top}_run #({given}) {product.name}_run ({pins});"])


def _checked(top: str, buses: Mapping[str, Bus]) -> str:
    pins = ", ".join(f".{name}({name})" for name in buses if name.startswith("run__"))
    return f"  {top}_run_check run_check (.clk(clk), .start(start), {pins});"


def _product(
    top: str,
    product: ArrayVectors,
    registers: Mapping[str, int],
    contents: Mapping[str, npt.NDArray[Any]],
    watched: int,
) -> str:
    files = {kind: f"{top}_{product.name}_{kind}" for kind in ("west", "north", "expected", "ready")}
    tiles = registers["across"] * registers["down"]
    words = registers["drain_words"] or registers["parts"] * registers["interleave"]
    columns = len(contents["sums"])
    lines = [
        f"// {product.name}: {product.gemm}, {str(product.mapping.dataflow).upper()}, executed "
        f"{product.mapping.pattern}, interleave {product.mapping.interleave}",
        *(f"run__{name} = {product.name}__{name};" for name in registers),
        *(
            f'$readmemh("{name}.hex", {kind}{"" if kind == "expected" else "_bank"}, 0, {contents[kind].size - 1});'
            for kind, name in files.items()
            if contents[kind].size
        ),
        f"west_words = {contents['west'].shape[1]}; north_pairs = {contents['north'].shape[1]};",
        f"sums_words = {contents['sums'].shape[1]}; results = {contents['expected'].shape[1]};",
        f"receivers = {contents['ready'].size};",
        f"product({product.cycles}, {columns * tiles * words}, {watched});",
    ]
    return "\n".join("    " + line for line in lines)
