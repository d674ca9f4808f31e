"""Machines that no table has, as synthesis counts them, for test_area_by_shape.py and docs/results/synthesis.md.

``python -m weft.tests.held_out_areas`` writes tests/analysis/figures/held-out-areas.json anew, in some minutes.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path

from weft.analysis.area_model import COUNTS
from weft.analysis.synthesised import AREA_TARGETS, counted_block
from weft.analysis.variants import base, changed
from weft.hdl.registry import BLOCKS

FILE = Path(__file__).parent / "analysis" / "figures" / "held-out-areas.json"


def _stce(rows, cols, form, lanes, sums, words, pairs, group):
    array = {"array.rows": rows, "array.cols": cols, "array.w2e_words": lanes}
    pe = {"pe.accumulators": sums, "pe.dense_words": words, "pe.weight_pairs": pairs, "pe.max_group": group}
    return array | pe | {"pe.format": form}


def _xnor(rows, cols, bits, sums, words, held, cycles):
    shape = {"xnor.rows": rows, "xnor.cols": cols, "xnor.word_bits": bits, "xnor.accumulators": sums}
    return shape | {"xnor.dense_words": words, "xnor.weight_words": held, "xnor.popcount_latency": cycles}


HELD_OUT = (
    ("stce", _stce(3, 5, "fp16", 1, 8, 32, 4, 16)),
    ("stce", _stce(3, 5, "fp16", 2, 12, 48, 3, 8)),
    ("stce", _stce(5, 3, "bf16", 1, 16, 64, 8, 16)),
    ("stce", _stce(2, 6, "fp16", 4, 32, 128, 6, 4)),
    ("sore", {"sore.kind": "serial", "sore.lanes": 5, "pe.max_group": 4, "pe.format": "bf16"}),
    ("sore", {"sore.kind": "network", "sore.lanes": 3, "pe.max_group": 2, "pe.format": "bf16"}),
    ("xnor_engine", _xnor(3, 4, 48, 16, 12, 6, 3)),
    ("xnor_engine", _xnor(5, 2, 96, 4, 4, 2, 2)),
)
"""Blocks, and the fields in which the machine that they are of differs from the one that all variants do."""


def main() -> None:
    rows = []
    for target in AREA_TARGETS:
        for block, fields in HELD_OUT:
            counted = counted_block(changed(base(target), fields), BLOCKS[block], target)
            modules = {m.name: [m.count, *(asdict(m)[name] for name in COUNTS)] for m in counted.modules}
            rows.append({"block": block, "target": target, "tools": counted.tools, "of": fields, "modules": modules})
            sys.stderr.write(f"\r{len(rows)} of {len(AREA_TARGETS) * len(HELD_OUT)} ")
            FILE.write_text("[\n" + ",\n".join(f" {json.dumps(row)}" for row in rows) + "\n]\n")


if __name__ == "__main__":
    main()
