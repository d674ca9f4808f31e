"""Which machine of an ECP5-85 trains ResNet-9? The fastest of 288 that fits, and what each knob is worth.

docs/results/which-machine.md asks the same of larger models and FPGAs. Another model, its batch:
python examples/which_machine.py vit_s 4
"""

from __future__ import annotations

import sys

import weft

model = sys.argv[1] if len(sys.argv) > 1 else "resnet9"
batch = int(sys.argv[2]) if len(sys.argv) > 2 else 16
AXES = {
    "array.rows": [4, 6, 8, 12],
    "array.cols": [4, 6, 8, 12],
    "pe.accumulators": [2, 4, 8],
    "buffers.w2e_bytes": [4_096, 32_768, 131_072],
    "buffers.n2s_bytes": "buffers.w2e_bytes",
    "dram.bytes_per_second": [1_600_000_000, 3_200_000_000],  # one and two chips of DDR3-800
}

points = weft.explore(
    {
        "model": model,
        "arch": "sat-ecp5",
        "batch": batch,
        "axes": AXES,
        "objectives": ["seconds", "lut"],
        "constraints": {"device": "ecp5", "most": {"lut": 71_094}},  # 85 % of the sites, for what is not counted
    }
)
fits = points[points["status"] == "runs"]
refused = points[points["status"] == "refused"]["reason"]
print(f"{len(fits)} of {len(points)} machines fit and run. The first that does not: {refused.iloc[0]}")

machine = weft.machine("sat-ecp5")
step = weft.sparsify(weft.trace(model, batch=batch), "bdwp", "2:8")
preset = weft.simulate(weft.schedule(step, machine, "cycles")).cycles.total / machine.clock_hz
print(f"sat-ecp5 as it ships: {preset:.3f} s")

best = fits.sort_values(["seconds", "lut", "buffer_bytes", "point"]).iloc[0]
lean = fits[fits["seconds"] <= 1.5 * preset].sort_values(["lut", "seconds", "buffer_bytes", "point"]).iloc[0]
for words, row in (("The fastest", best), ("The smallest that takes at most half as long again", lean)):
    shape = f"{row['array.rows']} x {row['array.cols']} PEs of {row['pe.accumulators']} sums"
    memory = f"{row['buffers.w2e_bytes']:,} B a buffer, {row['dram.bytes_per_second'] / 1e9:.1f} GB/s"
    print(f"{words}: {shape}, {memory}: {row['seconds']:.3f} s, {row['lut']:,.0f} LUT sites")

print("The best with each value of a knob, the others free:")
for name, values in AXES.items():
    if not isinstance(values, str):
        least = fits.groupby(name, observed=True)["seconds"].min()
        print(f"  {name}: " + ", ".join(f"{value:,} {seconds:.3f} s" for value, seconds in least.items()))
