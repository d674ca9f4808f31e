"""Which machine trains a ternary language model? Four spaces: two FPGAs, with an XNOR engine and without one.

The model is BitNet b1.58 2B4T, its sizes those of its authors' code (microsoft/BitNet, gpu/model.py: 30 blocks, 2,560
wide; optimiser and master weights are ours).
weft explore examples/spaces/study_bitnet.py:vu9p; docs/results/which-machine.md
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

MODEL = str(Path(__file__).with_name("bitnet-2b.json"))
WORK = {"model": MODEL, "scheme": "bitnet", "batch": 1, "objectives": ["seconds", "lut"]}
XCVU9P = {"device": "xcup", "dram": True, "most": {"lut": 1_004_904, "uram": 800}}
"""85 % of the LUTs, for what is not counted; what the board's shell leaves of the memory."""
ECP5 = {"device": "ecp5", "most": {"lut": 71_094}}
CHANNELS, CHIPS = [38_400_000_000, 76_800_000_000], [1_600_000_000, 3_200_000_000]


def vu9p() -> dict[str, Any]:
    """Square XNOR engines beside an array."""
    axes = {
        "array.rows": [16, 28, 32, 36],
        "array.cols": [16, 24, 32],
        "pe.accumulators": [8, 32],
        "xnor.rows": [4, 8, 16, 24],
        "xnor.cols": "xnor.rows",
        "xnor.word_bits": [64, 128],
        "vector.lanes": [64, 128],
        "dram.bytes_per_second": CHANNELS,
    }
    return WORK | {"arch": "bnn-vu9p", "seq": 512, "axes": axes, "constraints": XCVU9P}


def vu9p_without() -> dict[str, Any]:
    """The array alone."""
    axes = {
        "array.rows": [16, 28, 32, 36, 48, 64],
        "array.cols": [16, 24, 28, 32, 36, 48],
        "vector.lanes": [64, 128],
        "dram.bytes_per_second": CHANNELS,
    }
    return WORK | {"arch": "sat-vcu1525", "seq": 512, "axes": axes, "constraints": XCVU9P}


def ecp5() -> dict[str, Any]:
    """Square XNOR engines beside an array."""
    axes = {
        "array.rows": [2, 4, 6, 8],
        "array.cols": [2, 4, 6],
        "xnor.rows": [2, 3, 4, 6],
        "xnor.cols": "xnor.rows",
        "xnor.word_bits": [32, 64],
        "vector.lanes": [4, 8],
        "dram.bytes_per_second": CHIPS,
    }
    return WORK | {"arch": "bnn-ecp5", "seq": 512, "axes": axes, "constraints": ECP5}


def ecp5_without() -> dict[str, Any]:
    """The array alone."""
    axes = {
        "array.rows": [2, 4, 6, 8, 12, 16],
        "array.cols": [2, 4, 6, 8, 12, 16],
        "wuve.lanes": [1, 2],
        "vector.lanes": [4, 8],
        "dram.bytes_per_second": CHIPS,
    }
    return WORK | {"arch": "sat-ecp5", "seq": 512, "axes": axes, "constraints": ECP5}
