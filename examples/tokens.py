"""Tokens that leave a vision transformer: what it still knows, and what its use still costs, by the share that is kept.

The tables of docs/shrinking.md: `vit_s` on the 5,000 images of MNIST, seed 0, cut without tuning; and the `vit_s` of
32 x 32 pixels in use. `examples/tokens.py [EPOCHS [BATCH ..]]`
"""

from __future__ import annotations

import sys

import torch

import weft
from weft.workloads.data import normalised, open_data
from weft.workloads.models.classifier import scores
from weft.workloads.models.module import module_source
from weft.workloads.models.vision import vit_s
from weft.workloads.shrinking import fewer_tokens
from weft.workloads.trace import trace_use
from weft.workloads.training import plan, train

SHARES = (0.9, 0.7, 0.5, 0.3)
WAYS = ("tokens", "core")
MACHINES = ("sat-vcu1525", "hbm-asic")
epochs = int(sys.argv[1]) if len(sys.argv) > 1 else 8
batches = tuple(map(int, sys.argv[2:])) or (1, 32)

data = open_data("mnist5k", None)
found = train(plan("vit_s", data="mnist5k", scheme="dense", epochs=epochs))
found.technique.detach()
model = found.model.cpu().eval()
pixels = normalised(data, data.test.fetch(torch.arange(len(data.test.labels))))


def right(by: str, share: float) -> float:
    """Share of the test images."""
    with torch.no_grad():
        small = fewer_tokens(model, by, share)
        parts = [scores(small(part)).argmax(1) for part in pixels.split(250)]
    return float((torch.cat(parts) == data.test.labels).float().mean())


print(f"whole: {100 * found.accuracy:.1f} % of {len(pixels):,} test images\n\n| kept | by attention | by neurons |")
print("|---|---|---|")
for share in SHARES:
    print(f"| {share:g} | " + " | ".join(f"{100 * right(by, share):.1f} %" for by in WAYS) + " |", flush=True)

print("\n| kept, chosen | MACs | " + " | ".join(f"`{m}`, batch {b}" for m in MACHINES for b in batches) + " |")
print("|---" * (2 + len(MACHINES) * len(batches)) + "|")
cycles: dict[tuple[str, int], int] = {}
for share, by in ((1.0, None), *((share, by) for by in WAYS for share in SHARES)):
    small = vit_s() if by is None else fewer_tokens(vit_s(), by, share)
    row = []
    for machine in MACHINES:
        for batch in batches:
            step = trace_use(module_source(small, torch.empty(batch, 3, 32, 32)), "infer")
            taken = weft.simulate(weft.schedule(step, machine)).cycles.total
            row.append(f"{cycles.setdefault((machine, batch), taken) / taken:.2f} times")
    macs = sum(step.dense_macs.values()) // batches[-1]
    print(f"| {'all' if by is None else f'{share:g}, `{by}`'} | {macs:,} | " + " | ".join(row) + " |", flush=True)
