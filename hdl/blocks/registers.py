"""The run registers of the array, for whoever sets them without Weft: meaning, formula, range, and what breaks.

One table makes the README of the emitted folder, the one in docs/rtl.md, the module that derives all registers from a
product and its mapping, and the one that checks those that follow from others. `run_registers` of
`weft.hdl.blocks.banks` computes the same on its own; a test holds both equal.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from amaranth import Shape

from ...dataflow.accelerator import AcceleratorSpec
from .control_format import ControlFormat

__all__ = ["PARAMETERS", "REGISTERS", "RunRegister", "register_modules", "register_table"]

PARAMETERS = {
    "weight_stationary": "0: OS, 1: WS",
    "keep": "pairs of a group of the executed pattern; 1 in a dense OS product",
    "group": "elements of a group; 1 in a dense OS product",
    "interleave": "outputs of a PE that take turns in its adder",
    "m": "rows of the dense operand, which enters from the west",
    "k": "contraction",
    "n": "columns of the operand of pairs, which enters from the north",
    "run": "elements of k between two cuts of the grouping; divides k",
}
"""What registers are derived from."""

_CONSTANTS = {"R": "rows", "C": "columns", "Lm": "multiply latency", "La": "add latency", "Lr": "read latency"}


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRegister:
    """One register. ``os`` and ``ws`` are formulas in ``PARAMETERS``, other registers, R, C, Lm, La and Lr, that Python
    and Verilog read alike, with ``ceil_div``, ``min`` and ``max`` as functions."""

    name: str
    meaning: str
    os: str
    ws: str
    legal: str
    wrong: str

    def expression(self) -> str:
        """Of either dataflow, in Verilog."""
        return self.os if self.os == self.ws else f"weight_stationary ? {self.ws} : {self.os}"

    @property
    def follows(self) -> bool:
        """Whether other registers and the machine say what it must be."""
        read = set(re.findall(r"[A-Za-z]\w*", f"{self.os} {self.ws}")) - {"ceil_div", "min", "max"}
        return bool(read) and read <= {r.name for r in REGISTERS if r is not self} | set(_CONSTANTS)


REGISTERS = tuple(
    RunRegister(name=name, meaning=meaning, os=os, ws=ws, legal=legal, wrong=wrong)
    for name, meaning, os, ws, legal, wrong in (
        ("weight_stationary", "dataflow", "0", "1", "0 or 1", "another product"),
        ("interleave", "contexts of a PE", "interleave", "interleave", "1 to accumulators", "wrong sums"),
        (
            "part_words",
            "dense words of a whole part, the unit the west loads",
            "group",
            "group * interleave",
            "1 to dense_words",
            "wrong words meet the pairs",
        ),
        (
            "rest_words",
            "dense words of the last part of a run",
            "run - (ceil_div(run, group) - 1) * group",
            "group * interleave",
            "1 to part_words",
            "all words behind the first run are the wrong ones",
        ),
        (
            "part_pairs",
            "pairs issued of a whole part",
            "keep",
            "keep",
            "1 to max_group (OS), weight_pairs (WS)",
            "wrong sums",
        ),
        (
            "rest_pairs",
            "pairs issued of the last part of a run",
            "min(keep, run - (ceil_div(run, group) - 1) * group)",
            "keep",
            "1 to part_pairs",
            "wrong sums",
        ),
        (
            "parts",
            "parts: of a run (OS), batches of rows (WS)",
            "ceil_div(run, group)",
            "ceil_div(m, interleave)",
            "1 to 65535",
            "0 counts as 65536: the run all but never ends",
        ),
        ("runs", "runs of the contraction", "ceil_div(k, run)", "1", "1 to 65535", "as parts"),
        ("across", "tiles along n", "ceil_div(n, C * interleave)", "ceil_div(n, C)", "1 to 65535", "as parts"),
        (
            "down",
            "tiles along m (OS), along k (WS)",
            "ceil_div(m, R)",
            "ceil_div(ceil_div(run, group) * ceil_div(k, run), R)",
            "1 to 65535",
            "as parts",
        ),
        (
            "offset_step",
            "from the word of one context to that of the next",
            "0",
            "ceil_div(part_words, interleave)",
            "as given",
            "contexts multiply words of each other, unnoticed",
        ),
        (
            "row_delay",
            "cycles from row to row",
            "1",
            "(part_pairs - 1) * max(interleave, La) + La",
            "as given",
            "sums meet the products of other rows, unnoticed",
        ),
        (
            "drain_words",
            "words that a tile drains a column; 0 in WS",
            "min(R, m) * interleave",
            "0",
            "a multiple of interleave, up to R times it",
            "tiles too close lose results, too far apart only time",
        ),
        (
            "shift_pairs",
            "pairs shifted in for a tile; 0 in OS",
            "0",
            "part_pairs * R",
            "as given",
            "too few: pairs of the tile before; too many: pairs of the next",
        ),
        ("tap", "pairs that a PE holds, less one", "0", "part_pairs - 1", "as given", "other pairs, unnoticed"),
        (
            "tail_cycles",
            "cycles of busy behind the last issue",
            "Lm + La + Lr + R + C + drain_words - 1 - max(interleave, La)",
            "Lm + Lr + R * row_delay + C + interleave - part_pairs * max(interleave, La)",
            "as given",
            "too few: busy falls while words are still to leave, and the next run spoils them",
        ),
    )
)


def _widths(spec: AcceleratorSpec) -> dict[str, int]:
    return {name: Shape.cast(field.shape).width for name, field in ControlFormat(spec).run}


def register_table(spec: AcceleratorSpec) -> str:
    """All registers of a machine as a table in Markdown."""
    head = ("register", "bits", "meaning", "OS", "WS", "legal", "if wrong")
    widths = _widths(spec)
    rows = [
        (f"run__{r.name}", str(widths[r.name]), r.meaning, f"`{r.os}`", f"`{r.ws}`", r.legal, r.wrong)
        for r in REGISTERS
    ]
    lines = [head, ("---",) * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def register_modules(spec: AcceleratorSpec, top: str) -> str:
    """Verilog of ``{top}_run``, which derives the registers from a product, and ``{top}_run_check``, which says where
    registers contradict each other."""
    widths = _widths(spec)
    known = {
        "R": spec.array.rows,
        "C": spec.array.cols,
        "Lm": spec.pe.multiply_latency,
        "La": spec.pe.add_latency,
        "Lr": spec.array.read_latency,
    }
    constants = "\n".join(f"  localparam {name} = {value};  // {_CONSTANTS[name]}" for name, value in known.items())
    derived = [r for r in REGISTERS if r.name not in PARAMETERS]
    return _MODULES.format(
        top=top,
        parameters=",\n".join(f"  parameter {name.upper()} = 1" for name in PARAMETERS),
        meanings="\n".join(f"//   {name.upper()}: {meaning}" for name, meaning in PARAMETERS.items()),
        outputs=",\n".join(f"  output wire {_bits(widths[r.name])}run__{r.name}" for r in REGISTERS),
        inputs=",\n".join(f"  input  wire {_bits(widths[r.name])}run__{r.name}" for r in REGISTERS),
        constants=constants,
        functions=_FUNCTIONS,
        given="\n".join(f"  localparam {name} = {name.upper()};" for name in PARAMETERS),
        formulas="\n".join(
            f"  wire [31:0] {r.name} = {r.expression()};" for r in sorted(derived, key=lambda r: r.follows)
        ),
        assigns="\n".join(f"  assign run__{r.name} = {r.name};" for r in REGISTERS),
        registers="\n".join(f"  wire [31:0] {r.name} = run__{r.name};" for r in REGISTERS),
        zero=" || ".join(f"{r.name} == 0" for r in REGISTERS if r.legal.startswith("1 to")),
        checks="\n".join(_CHECK.format(name=r.name, top=top, value=r.expression()) for r in REGISTERS if r.follows),
    )


def _bits(width: int) -> str:
    return f"[{width - 1}:0] " if width > 1 else ""


_FUNCTIONS = """\
  function [31:0] ceil_div(input [31:0] a, input [31:0] b);
    ceil_div = (a + b - 1) / b;
  endfunction
  function [31:0] min(input [31:0] a, input [31:0] b);
    min = a < b ? a : b;
  endfunction
  function [31:0] max(input [31:0] a, input [31:0] b);
    max = a < b ? b : a;
  endfunction"""

_CHECK = """\
      if ({name} != ({value})) begin
        $display("{top}: run__{name} is %0d, but %0d follows from the other registers", {name}, {value});
        $stop;
      end"""

_MODULES = """\
`default_nettype none

// The run registers of {top} for one product C[m, n] = A[m, k] B[k, n]:
{meanings}
module {top}_run #(
{parameters}
) (
{outputs}
);
{constants}
{given}
{functions}
{formulas}
{assigns}
endmodule

// For simulation beside {top}: stops at a start with registers that contradict each other.
module {top}_run_check (
  input  wire clk,
  input  wire start,
{inputs}
);
{constants}
{registers}
{functions}
  always @(posedge clk)
    if (start) begin
      if ({zero}) begin
        $display("{top}: a register that counts something is 0");
        $stop;
      end
      if (rest_words > part_words || rest_pairs > part_pairs) begin
        $display("{top}: the last part of a run is longer than a whole one");
        $stop;
      end
      if (weight_stationary ? drain_words != 0 :
          drain_words == 0 || drain_words % interleave != 0 || drain_words > R * interleave) begin
        $display("{top}: run__drain_words is %0d: 0 in WS, in OS interleave times the rows in use", drain_words);
        $stop;
      end
{checks}
    end
endmodule

`default_nettype wire
"""
