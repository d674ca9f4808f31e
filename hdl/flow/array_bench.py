"""The test bench of the STCE: pairs and words of operands, and registers that the emitted modules derive."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ...dataflow.stce.mapping import ArrayMapping, Dataflow
from ...workloads.gemm import Gemm
from ..blocks.array import Stce
from ..blocks.banks import BUBBLE, NAN, banks, run_registers
from ..blocks.frame import frame_of
from ..blocks.registers import PARAMETERS, REGISTERS, register_modules
from .bench import Bus, buses_of
from .grid_bench import OwnText, Product, as_ready, expected_words, grid_bench, sums_bank

__all__ = ["ArrayVectors", "array_bench"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ArrayVectors:
    """One product: ``a`` [m, k] and the pairs ``values``, ``indices`` [slots, n] as bits; ``result`` bits of FP32 and
    ``left``, the cycle of each in the run, both [m, n]; ``cycles`` is the length of the run. ``ready`` [cycles, cols]
    says when a word is taken: from its end on always; ``hold`` [cycles] when the array must stand still in the next
    cycle: from its end on never."""

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
    hold: npt.NDArray[np.bool_]


_DERIVED = frozenset(r.name for r in REGISTERS)
"""Registers that the emitted module makes; what a format has besides is a choice."""

_MEMORIES = """\
  localparam LANES = {lanes};
  localparam PAIR = {pair};
  // Banks of the operand buffers: the words of each, and how many of them a product needs.
  reg [{top}:0] west_bank [0:{{west_depth}} - 1];
  reg [PAIR - 1:0] north_bank [0:{{north_depth}} - 1];  // valid, index, value
  integer west_words, north_pairs;
  reg [PAIR - 1:0] pair;"""

_SHOWN = """\
      for (r = 0; r < ROWS; r = r + 1)
        for (x = 0; x < LANES; x = x + 1) begin
          address = west_at[{{address_bits}} * r +: {{address_bits}}] + x;
          west[{bits} * (LANES * r + x) +: {bits}] =
            advance && west_asked[r] && address < west_words ? west_bank[west_words * r + address] : {bits}'h{nan};
        end
      for (c = 0; c < COLS; c = c + 1) begin
        address = north_at[{{address_bits}} * c +: {{address_bits}}];
        pair = advance && north_asked[c] ? north_bank[north_pairs * c + address]
          : {{{{1'b0, {{{{{index}{{{{1'b1}}}}}}}}, {bits}'h{nan}}}}};
        {{{{north__valid[c], north__index[{index} * c +: {index}], north__value[{bits} * c +: {bits}]}}}} = pair;
      end"""


def array_bench(array: Stce, products: Sequence[ArrayVectors], top: str) -> dict[str, str]:
    """Files of a bench of ``array`` that runs ``products`` one after the other, by name; see `grid_bench`."""
    spec, buses = array.spec, {bus.name: bus for bus in buses_of(array)}
    index, bits = buses["north__index"].width, spec.pe.operand.bits
    pair, nan = bits + 1 + index, f"{NAN & ((1 << bits) - 1):0{bits // 4}x}"
    own = OwnText(
        memories=_MEMORIES.format(lanes=spec.array.w2e_words, pair=pair, top=bits - 1),
        noted="",
        shown=_SHOWN.format(index=index, nan=nan, bits=bits),
        beside="",
        behind="\n".join([_checked(top, buses), *(_derived(top, product, buses) for product in products)]),
        drives=("west", "north__value", "north__index", "north__valid"),
        digits={"west": bits // 4, "north": -(-pair // 4)},
    )
    runs = [_product(array, product, index) for product in products]
    return grid_bench(array, frame_of(spec), runs, own, top) | {f"{top}_run.v": register_modules(spec, top)}


def _product(array: Stce, product: ArrayVectors, index: int) -> Product:
    """What the memories of the bench hold for one product, a row a bank."""
    spec, mapping, cols = array.spec, product.mapping, array.spec.array.cols
    bits = np.uint64(spec.pe.operand.bits)
    ones = np.uint64((1 << spec.pe.operand.bits) - 1)
    registers = run_registers(spec, mapping, product.gemm)
    filled = banks(spec, mapping, product.gemm, product.a, product.values, product.indices)
    bubble = filled.indices == BUBBLE
    pairs = np.where(bubble, 1, filled.indices).astype(np.uint64) << bits | filled.values & ones
    return Product(
        name=product.name,
        said=f"{product.gemm}, {str(mapping.dataflow).upper()}, executed {mapping.pattern}, interleave "
        f"{mapping.interleave}",
        weight_stationary=mapping.dataflow == Dataflow.WS,
        registers=registers,
        sets=(
            *(f"run__{name} = {product.name}__{name};" for name in registers if name in _DERIVED),
            *(f"run__{name} = {value};" for name, value in registers.items() if name not in _DERIVED),
            f"west_words = {filled.west.shape[1]}; north_pairs = {pairs.shape[1]};",
        ),
        contents={
            "west": filled.west & ones,
            "north": pairs | np.where(bubble, 0, 1).astype(np.uint64) << (bits + np.uint64(index)),
            "sums": sums_bank(cols, registers),
            "expected": expected_words(cols, product.left, product.result),
            "ready": as_ready(product.ready),
            "hold": product.hold.astype(np.int64),
        },
        cycles=product.cycles,
    )


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
    pins = ", ".join(f".{name}({name})" for name in buses if name.removeprefix("run__") in _DERIVED)
    return f"  {top}_run_check run_check (.clk(clk), .start(start), {pins});"
