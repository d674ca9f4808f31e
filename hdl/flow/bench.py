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

__all__ = ["Bus", "StreamVectors", "bench_of", "buses_of", "hex_lines", "stream_bench"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StreamVectors:
    """One run of an engine, a value a cycle for every port: ``inputs``, and the ``outputs`` where ``meant`` is set.

    Ports are unsigned integers [cycles], of any width as objects. ``meant`` is bool [cycles], or the bits of the port
    that are, as objects.
    """

    name: str
    inputs: Mapping[str, npt.NDArray[Any]]
    outputs: Mapping[str, npt.NDArray[Any]]
    meant: Mapping[str, npt.NDArray[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bus:
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


def buses_of(component: Any) -> list[Bus]:
    found: dict[str, Bus] = {}
    for path, member, port in component.signature.flatten(component):
        name = "__".join(part for part in path if isinstance(part, str))
        before = found[name].ports if name in found else ()
        ports = (*before, "__".join(map(str, path)))
        found[name] = Bus(name=name, driven=member.flow == In, width=len(Value.cast(port)), ports=ports)
    return list(found.values())


def bench_of(top: str, component: Any, body: str, runs: Sequence[str], what: str) -> str:
    """``component`` as ``dut``, and ``runs``, which are ``what``, through the tasks of ``body`` that count in
    ``checked`` and ``cycles``."""
    buses = buses_of(component)
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

_STREAM = """\
  // A line a cycle: the inputs side by side, the outputs, and a mask of the bits of the outputs that mean anything.
  reg [{in_bits} - 1:0] stimulus [0:{depth} - 1];
  reg [{out_bits} - 1:0] expected [0:{depth} - 1];
  reg [{out_bits} - 1:0] meant [0:{depth} - 1];
  reg [{out_bits} - 1:0] wanted, mask;
  reg [{widest} - 1:0] got, want;
  integer cycle, lane;

  task fail(input [8 * 32 - 1:0] port, input [{widest} - 1:0] found, input [{widest} - 1:0] awaited);
    begin
      $display("FAIL {top}: cycle %0d, %0s of lane %0d: got %h, wanted %h", cycle, port, lane, found, awaited);
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
        if (|mask[{low} + {width} * lane +: {width}]) begin
          checked = checked + 1;
          got = {name}[{width} * lane +: {width}] & mask[{low} + {width} * lane +: {width}];
          want = wanted[{low} + {width} * lane +: {width}] & mask[{low} + {width} * lane +: {width}];
          if (got !== want) fail("{name}", got, want);
        end"""


def stream_bench(component: Any, runs: Sequence[StreamVectors], top: str) -> dict[str, str]:
    """Files of a bench of an engine, by name: ``runs`` one after the other, every port that means something checked."""
    buses = buses_of(component)
    fed, read = [bus for bus in buses if bus.driven], [bus for bus in buses if not bus.driven]
    files, blocks = {}, []
    for run in runs:
        length = len(next(iter(run.inputs.values())))
        masks = {port: _mask(run.meant[port], bus.width) for bus in read for port in bus.ports}
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
        top=top,
        in_bits=sum(bus.bits for bus in fed),
        out_bits=low,
        widest=max(bus.width for bus in read),
        depth=max(len(next(iter(run.inputs.values()))) for run in runs),
        checks="\n".join(checks),
        inputs=", ".join(bus.name for bus in reversed(fed)),
    )
    return {f"{top}_tb.v": bench_of(top, component, body, blocks, "runs"), **files}


def _mask(meant: npt.NDArray[Any], width: int) -> npt.NDArray[Any]:
    if meant.dtype != np.bool_:
        return meant
    return np.array([(1 << width) - 1 if whole else 0 for whole in meant.tolist()], object)


def _lines(buses: Iterable[Bus], ports: Mapping[str, npt.NDArray[Any]], length: int) -> str:
    """One number a cycle of all ports of ``buses``, the first in the lowest bits."""
    total, low = [0] * length, 0
    for bus in buses:
        for port in bus.ports:
            for t, value in enumerate(np.asarray(ports[port]).tolist()):
                total[t] |= value << low
            low += bus.width
    return hex_lines(total, -(-low // 4))


def hex_lines(words: Iterable[Any], digits: int) -> str:
    return "".join(f"{int(word):0{digits}x}\n" for word in words)
