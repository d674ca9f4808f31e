"""The test bench of the XNOR engine: words of plane pairs, thresholds, and what the edge makes of every sum."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ...dataflow.stce.mapping import Dataflow
from ...dataflow.xnor.mapping import XnorMapping
from ...workloads.gemm import Gemm
from ..blocks.frame import frame_of
from ..blocks.xnor import Xnor
from ..blocks.xnor_banks import Sides, level_banks, slots_of, xnor_banks, xnor_registers
from .grid_bench import OwnText, Product, as_ready, expected_words, grid_bench, in_order, sums_bank

__all__ = ["XnorVectors", "xnor_bench"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class XnorVectors:
    """One product: ``a`` [m, k] and ``b`` [k, n], integers of any dtype, values of ``levels``; ``result`` int32, the
    sums, ``passed`` bool, whether each is at least ``at``, with ``flip`` at most (int32 and bool [n]), and ``left``
    int64, the cycle of each, all [m, n]; ``cycles``, ``ready`` and ``hold`` as of `ArrayVectors`.
    ``skip``: words that are zero in all rows or all columns of a tile are left out."""

    name: str
    mapping: XnorMapping
    gemm: Gemm
    levels: Sides
    a: npt.NDArray[Any]
    b: npt.NDArray[Any]
    at: npt.NDArray[np.int32]
    flip: npt.NDArray[np.bool_]
    result: npt.NDArray[np.int32]
    passed: npt.NDArray[np.bool_]
    left: npt.NDArray[np.int64]
    cycles: int
    ready: npt.NDArray[np.bool_]
    hold: npt.NDArray[np.bool_]
    skip: bool = False


_MEMORIES = """\
  localparam BITS = {bits};
  // Banks of the operand buffers: the words of each, and how many of them a product needs.
  reg [2 * BITS - 1:0] west_bank [0:{{west_depth}} - 1];  // masks, signs
  reg [2 * BITS:0] north_bank [0:{{north_depth}} - 1];  // valid, mask, sign
  integer west_words, north_words;
  // Slots of each tile, where words are left out.
  reg [15:0] tiles_bank [0:{{tiles_depth}} - 1];
  integer tile_words;
  // Whether a sum is to be below its level, and the level, by the columns of C that a column makes.
  reg [32:0] levels_bank [0:{{levels_depth}} - 1];
  integer level_words;
  // Beside each result: whether it passes its threshold, and its value.
  reg [32:0] made_bank [0:{{made_depth}} - 1];
  reg tiles_asked;
  reg [{{address_bits}} - 1:0] tiles_at;
  reg [COLS - 1:0] levels_asked;
  reg [{{address_bits}} * COLS - 1:0] levels_at;"""

_NOTED = """\
      tiles_asked = tiles_ask__valid;
      tiles_at = tiles_ask__address;
      levels_asked = levels_ask__valid;
      levels_at = levels_ask__address;
"""

_SHOWN = """\
      tiles = advance && tiles_asked && tiles_at < tile_words ? tiles_bank[tiles_at] : 16'h5a5a;
      for (r = 0; r < ROWS; r = r + 1) begin
        address = west_at[{address_bits} * r +: {address_bits}];
        west[2 * BITS * r +: 2 * BITS] =
          advance && west_asked[r] && address < west_words ? west_bank[west_words * r + address] : {{2 * BITS{{1'b1}}}};
      end
      for (c = 0; c < COLS; c = c + 1) begin
        address = north_at[{address_bits} * c +: {address_bits}];
        {{north__valid[c], north__mask[BITS * c +: BITS], north__sign[BITS * c +: BITS]}} =
          advance && north_asked[c] ? north_bank[north_words * c + address] : {{2 * BITS + 1{{1'b1}}}};
        address = levels_at[{address_bits} * c +: {address_bits}];
        {{levels__flip[c], levels__level[32 * c +: 32]}} =
          advance && levels_asked[c] && address < level_words ? levels_bank[level_words * c + address] : 33'h17fff0000;
      end"""

_BESIDE = """\
        else if (made__value[32 * c +: 32] !== made_bank[c * results + next[c]][31:0]) fail("wrong value beside it");
        else if (made__passes[c] !== made_bank[c * results + next[c]][32]) fail("wrong bit beside it");
"""


def xnor_bench(engine: Xnor, products: Sequence[XnorVectors], top: str) -> dict[str, str]:
    """Files of a bench of ``engine`` that runs ``products`` one after the other, by name; see `grid_bench`.

    Beside every result its value and its threshold's bit are checked, too. The registers of a run are numbers here.
    """
    bits = engine.spec.word_bits
    own = OwnText(
        memories=_MEMORIES.format(bits=bits),
        noted=_NOTED,
        shown=_SHOWN,
        beside=_BESIDE,
        behind="",
        drives=("tiles", "west", "north__sign", "north__mask", "north__valid", "levels__level", "levels__flip"),
        digits={"west": bits // 2, "north": bits // 2 + 1, "levels": 9, "made": 9, "tiles": 4},
    )
    runs = [_product(engine, product) for product in products]
    return grid_bench(engine, frame_of(engine.spec), runs, own, top)


def _product(engine: Xnor, product: XnorVectors) -> Product:
    """What the memories of the bench hold for one product, a row a bank."""
    own, mapping, gemm, levels = engine.spec, product.mapping, product.gemm, product.levels
    registers = xnor_registers(own, mapping, gemm, levels, skip=product.skip)
    filled = xnor_banks(own, mapping, gemm, levels, product.a, product.b, skip=product.skip)
    length = (
        f"{filled.tiles[:-1].sum()} slots in {len(filled.tiles) - 1} tiles"
        if product.skip
        else (f"{slots_of(own, mapping, gemm, levels).k} slots")
    )
    north = np.concatenate([filled.sign, filled.mask, filled.valid[..., None]], axis=-1)
    level, flip = level_banks(own, registers, product.at, product.flip)
    sums = (product.result + registers["length"]) // 2 if registers["twice"] else product.result
    beside = product.passed.astype(np.uint64) << np.uint64(32) | product.result.view(np.uint32)
    return Product(
        name=product.name,
        said=f"{gemm}, {levels[0]} by {levels[1]}, {str(mapping.dataflow).upper()}, interleave {mapping.interleave}, "
        f"{length}",
        weight_stationary=mapping.dataflow == Dataflow.WS,
        registers=registers,
        sets=(
            *(f"run__{name} = {value};" for name, value in registers.items()),
            f"west_words = {filled.west.shape[1]}; north_words = {filled.valid.shape[1]}; "
            f"level_words = {level.shape[1]}; tile_words = {filled.tiles.size};",
        ),
        contents={
            "west": _numbers(filled.west),
            "north": _numbers(north),
            "tiles": filled.tiles,
            "levels": flip.astype(np.uint64) << np.uint64(32) | level,
            "sums": sums_bank(own.cols, registers),
            "expected": expected_words(own.cols, product.left, sums.astype(np.int32).view(np.uint32)),
            "made": in_order(own.cols, product.left, beside, np.uint64(0)),
            "ready": as_ready(product.ready),
            "hold": product.hold.astype(np.int64),
        },
        cycles=product.cycles,
    )


def _numbers(bits: npt.NDArray[np.bool_]) -> npt.NDArray[Any]:
    """Bits [banks, words, width] as numbers of dtype object [banks, words], the first bit lowest."""
    packed = np.packbits(bits, axis=-1, bitorder="little")
    found = np.empty(bits.shape[:-1], object)
    for at in np.ndindex(found.shape):
        found[at] = int.from_bytes(packed[at].tobytes(), "little")
    return found
