"""Five pairs of digits learned one after the other: what a dense network forgets, and sparse ones beside each other.

`examples/continual.py [SEEDS]`: the table of docs/schemes.md, means over seeds 0 to SEEDS - 1 (3).
"""

from __future__ import annotations

import sys
from statistics import mean
from typing import Any

from weft.workloads.training.continual import continual

ASKED: dict[str, dict[str, Any]] = {
    "dense, nothing frozen": {"density": 1.0, "growth": "none", "isolate": False},
    "a fifth, nothing frozen": {"isolate": False},
    "a fifth, by gradients": {},
    "a fifth, at random": {"growth": "random"},
    "a fifth, masks that stay": {"growth": "none"},
    "a twentieth, by gradients": {"density": 0.05},
    "a twentieth, masks that stay": {"density": 0.05, "growth": "none"},
}

seeds = range(int(sys.argv[1]) if len(sys.argv) > 1 else 3)
print("| | learned, % | at the end, % | forgotten, points | weights in use, % |\n|---|---|---|---|---|")
for name, asked in ASKED.items():
    found = [continual(seed=seed, **asked) for seed in seeds]
    learned, end = ([getattr(task, of) for one in found for task in one.tasks] for of in ("learned", "end"))
    numbers = (mean(learned), mean(end), mean(one.forgotten for one in found), mean(o.used / o.weights for o in found))
    print(f"| {name} | {' | '.join(f'{100 * number:.1f}' for number in numbers)} |", flush=True)
