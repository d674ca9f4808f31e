"""Self-checking Verilog test benches: operands and expected words in files, any Verilog-2001 simulator runs them.

Inputs change just after a rising edge of the clock and outputs are looked at before the next one, so that no
simulator's order of events matters. A bench prints ``PASS`` with what it checked, or ``FAIL`` with the first word that
is not the expected one, and then stops with ``$stop``, which in batch mode is a non-zero exit code.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from amaranth import Value
from amaranth.lib.wiring import In

from ..dataflow.accelerator import AcceleratorSpec
from ..dataflow.mapping import ArrayMapping, Dataflow
from ..workloads.gemm import Gemm
from .array import Stce
from .drive import LEAD, banks, run_registers
from .registers import PARAMETERS, REGISTERS, register_modules

__all__ = ["ArrayVectors", "StreamVectors", "array_bench", "stream_bench"]

_AFTERWARDS = 8
"""Cycles watched after a run: nothing may leave any more."""
_NEVER = 0xFFFFFFFF
_NAN = 0x7FFF
"""A NaN in either format: what a bank shows where nothing was asked."""


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


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StreamVectors:
    """One run of an engine, a value a cycle for every port: ``inputs``, and the ``outputs`` where ``meant`` is set."""

    name: str
    inputs: Mapping[str, npt.NDArray[Any]]
    outputs: Mapping[str, npt.NDArray[Any]]
    meant: Mapping[str, npt.NDArray[np.bool_]]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Bus:
    """The ports of a component that differ in their indices only, side by side; the first in the lowest bits."""

    name: str
    driven: bool
    width: int
    ports: tuple[str, ...]

    @property
    def bits(self) -> int:
        return self.width * len(self.ports)

    @property
    def declaration(self) -> str:
        return f"  {'reg ' if self.driven else 'wire'} [{self.bits - 1}:0] {self.name}{' = 0' if self.driven else ''};"

    def slice(self, i: int | str) -> str:
        return f"{self.name}[{self.width} * {i} +: {self.width}]"


def _buses(component: Any) -> list[_Bus]:
    found: dict[str, _Bus] = {}
    for path, member, port in component.signature.flatten(component):
        name = "__".join(part for part in path if isinstance(part, str))
        before = found[name].ports if name in found else ()
        ports = (*before, "__".join(map(str, path)))
        found[name] = _Bus(name=name, driven=member.flow == In, width=len(Value.cast(port)), ports=ports)
    return list(found.values())


def _bench(top: str, component: Any, body: str, runs: Sequence[str], what: str) -> str:
    """``component`` as ``dut``, and ``runs``, which are ``what``, through the tasks of ``body`` that count in
    ``checked`` and ``cycles``."""
    buses = _buses(component)
    pins = [f"    .{port}({bus.slice(i)})" for bus in buses for i, port in enumerate(bus.ports)]
    return _SHELL.format(
        top=top,
        buses="\n".join(bus.declaration for bus in buses),
        pins=",\n".join(["    .clk(clk)", "    .rst(rst)", *pins]),
        body=body,
        runs="\n".join(runs),
        count=len(runs),
        what=what,
    )


_SHELL = """\
`timescale 1ns / 1ps
// Runs {top} on the vectors beside this file. Run it in the folder of the files.
module {top}_tb;
  reg clk = 0;
  reg rst = 1;
  always #5 clk = ~clk;

{buses}
  {top} dut (
{pins}
  );

  integer checked, cycles;
{body}
  initial begin
    checked = 0;
    cycles = 0;
    repeat (3) @(posedge clk);
    #1 rst = 0;
{runs}
    $display("PASS {top}: %0d words checked, each in its cycle, in {count} {what} of %0d cycles", checked, cycles);
    $finish;
  end
endmodule
"""

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
    spec, buses = array.spec, {bus.name: bus for bus in _buses(array)}
    files, blocks, derived = {}, [], []
    depths = {"west": 1, "north": 1, "sums": 1, "expected": 1, "ready": 1}
    index, address_bits = buses["north__index"].width, buses["north_ask__address"].width
    digits = {"west": 4, "north": -(-(17 + index) // 4), "expected": 16, "ready": -(-spec.array.cols // 4)}
    known = {"start", "west", "north__value", "north__index", "north__valid", "sums", "south__ready"}
    for bus in buses.values():
        if bus.driven and bus.name not in known and not bus.name.startswith("run__"):
            raise RuntimeError(f"Stce has an input {bus.name!r} that hdl/bench.py does not know")
    for i, product in enumerate(products):
        registers = run_registers(spec, product.mapping, product.gemm)
        contents = _contents(spec, product, registers, index)
        for kind, words in contents.items():
            depths[kind] = max(depths[kind], words.size)
            if kind in digits and words.size:
                files[f"{top}_{product.name}_{kind}.hex"] = _hex(words.ravel(), digits[kind])
        # every other product is followed at once, and so is one before another dataflow, whose rows lie further apart
        turns = any(after.mapping.dataflow != product.mapping.dataflow for after in products[i + 1 : i + 2])
        derived.append(_derived(top, product, buses))
        blocks.append(_product(top, product, registers, contents, watched=0 if turns or i % 2 == 0 else _AFTERWARDS))
    body = _ARRAY.format(
        top=top, rows=spec.array.rows, cols=spec.array.cols, lanes=spec.array.w2e_words, pair=17 + index, index=index,
        address_bits=address_bits, lead=LEAD,
        afterwards=_AFTERWARDS, never=_NEVER, nan=_NAN,
        **{f"{kind}_depth": depth for kind, depth in depths.items()},
    )  # fmt: skip
    body += "\n".join([_checked(top, buses), *derived])
    bench = _bench(top, array, body, blocks, "products")
    return {f"{top}_tb.v": bench, f"{top}_run.v": register_modules(spec, top), **files}


def _contents(
    spec: AcceleratorSpec, product: ArrayVectors, registers: Mapping[str, int], index: int
) -> dict[str, npt.NDArray[Any]]:
    """What the memories of the bench hold for one product, a row a bank."""
    filled = banks(spec, product.mapping, product.gemm, product.a, product.values, product.indices)
    bubble = filled.indices == 255
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


def _derived(top: str, product: ArrayVectors, buses: Mapping[str, _Bus]) -> str:
    """The registers of a product, as the emitted module derives them."""
    mapping, gemm = product.mapping, product.gemm
    parameters = {
        "weight_stationary": int(mapping.dataflow == Dataflow.WS),
        "keep": mapping.pattern.keep, "group": mapping.pattern.group, "interleave": mapping.interleave,
        "m": gemm.m, "k": gemm.k, "n": gemm.n, "run": gemm.run,
    }  # fmt: skip
    wires = {f"{product.name}__{r.name}": buses[f"run__{r.name}"].width for r in REGISTERS}
    given = ", ".join(f".{name.upper()}({parameters[name]})" for name in PARAMETERS)
    pins = ", ".join(f".run__{r.name}({product.name}__{r.name})" for r in REGISTERS)
    lines = [*(f"wire [{width - 1}:0] {name};" for name, width in wires.items())]
    return "\n".join(f"  {line}" for line in [*lines, f"{top}_run #({given}) {product.name}_run ({pins});"])


def _checked(top: str, buses: Mapping[str, _Bus]) -> str:
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


_STREAM = """\
  // A line a cycle: the inputs side by side, the outputs, and a mask of the bits of the outputs that mean anything.
  reg [{in_bits} - 1:0] stimulus [0:{depth} - 1];
  reg [{out_bits} - 1:0] expected [0:{depth} - 1];
  reg [{out_bits} - 1:0] meant [0:{depth} - 1];
  reg [{out_bits} - 1:0] wanted, mask;
  integer cycle, lane;

  task fail(input [8 * 32 - 1:0] port, input [{widest} - 1:0] got, input [{widest} - 1:0] want);
    begin
      $display("FAIL {top}: cycle %0d, %0s of lane %0d: got %h, wanted %h", cycle, port, lane, got, want);
      $stop;
      $finish;
    end
  endtask

  task check;
    begin
      wanted = expected[cycle];
      mask = meant[cycle];
{checks}
    end
  endtask

  task stream(input integer length);
    begin
      for (cycle = 0; cycle < length; cycle = cycle + 1) begin
        {{{inputs}}} = stimulus[cycle];
        @(negedge clk);
        check;
        @(posedge clk);
        #1;
      end
      cycles = cycles + length;
    end
  endtask
"""

_CHECK = """\
      for (lane = 0; lane < {lanes}; lane = lane + 1)
        if (mask[{low} + {width} * lane]) begin
          checked = checked + 1;
          if ({name}[{width} * lane +: {width}] !== wanted[{low} + {width} * lane +: {width}])
            fail("{name}", {name}[{width} * lane +: {width}], wanted[{low} + {width} * lane +: {width}]);
        end"""


def stream_bench(component: Any, runs: Sequence[StreamVectors], top: str) -> dict[str, str]:
    """Files of a bench of an engine, by name: ``runs`` one after the other, every port that means something checked."""
    buses = _buses(component)
    fed, read = [bus for bus in buses if bus.driven], [bus for bus in buses if not bus.driven]
    files, blocks = {}, []
    for run in runs:
        length = len(next(iter(run.inputs.values())))
        every = {bus.name: (1 << bus.width) - 1 for bus in read}
        masks = {
            port: np.where(run.meant[port], every[bus.name], 0).astype(object) for bus in read for port in bus.ports
        }
        lines = [f"    // {run.name}"]
        for kind, group, ports in (
            ("stimulus", fed, run.inputs),
            ("expected", read, run.outputs),
            ("meant", read, masks),
        ):
            files[f"{top}_{run.name}_{kind}.hex"] = _lines(group, ports, length)
            lines.append(f'    $readmemh("{top}_{run.name}_{kind}.hex", {kind}, 0, {length - 1});')
        blocks.append("\n".join([*lines, f"    stream({length});"]))
    checks, low = [], 0
    for bus in read:
        checks.append(_CHECK.format(name=bus.name, width=bus.width, lanes=len(bus.ports), low=low))
        low += bus.bits
    body = _STREAM.format(
        top=top, in_bits=sum(bus.bits for bus in fed), out_bits=low, widest=max(bus.width for bus in read),
        depth=max(len(next(iter(run.inputs.values()))) for run in runs), checks="\n".join(checks),
        inputs=", ".join(bus.name for bus in reversed(fed)),
    )  # fmt: skip
    return {f"{top}_tb.v": _bench(top, component, body, blocks, "runs"), **files}


def _lines(buses: Iterable[_Bus], ports: Mapping[str, npt.NDArray[Any]], length: int) -> str:
    """One number a cycle of all ports of ``buses``, the first in the lowest bits."""
    total, low = [0] * length, 0
    for bus in buses:
        for port in bus.ports:
            for t, value in enumerate(np.asarray(ports[port]).tolist()):
                total[t] |= value << low
            low += bus.width
    return _hex(total, -(-low // 4))


def _hex(words: Iterable[Any], digits: int) -> str:
    return "".join(f"{int(word):0{digits}x}\n" for word in words)
