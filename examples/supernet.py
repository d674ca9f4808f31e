"""One training, many networks: accuracy of the sub-networks of a super-network against the cycles of their steps.

A super-network is trained on the digits, then a few dozen of its sub-networks are measured with
the weights that they inherit, and their training steps counted on a machine. Three of those that nothing beats are then
trained by themselves: is the one that inherits more also the better one?

With other epochs, numbers of sub-networks, or another machine: python examples/supernet.py 30 200 sat-vcu1525
"""

from __future__ import annotations

import random
import sys
import tempfile
from itertools import combinations

import weft
from weft.workloads.models.zoo import subnetworks
from weft.workloads.training import accuracies, plan, step_workload

epochs, count, machine = (sys.argv[1:] + ["16", "36", "sat-ecp5"][len(sys.argv) - 1 :])[:3]
SEED, SCHEME, NM = 0, "dense", None

every = list(subnetworks("supernet9@8"))
names = [every[0], *random.Random(SEED).sample(every[1:-1], int(count) - 2), every[-1]]
with tempfile.TemporaryDirectory() as folder:
    trained = weft.train("supernet9", SCHEME, NM, folder=folder, epochs=int(epochs), seed=SEED)
    inherited = accuracies(folder, names)
print(trained)


def cycles_of(name: str) -> int:
    """Of one training step of this very network under the scheme, at batch 64."""
    step = weft.sparsify(step_workload(plan(name, scheme="dense")), SCHEME, NM)
    return weft.simulate(weft.schedule(step, machine)).cycles.total


cycles = {name: cycles_of(name) for name in names}
front = []
for name in sorted(names, key=lambda name: (cycles[name], -inherited[name])):
    if not front or inherited[name] > inherited[front[-1]]:
        front.append(name)
print(
    f"\n{len(front)} of {len(names)} sub-networks that none beats: validation images right, cycles a step on {machine}"
)
for name in front:
    print(f"{name:<36} {inherited[name]:7.2%} {cycles[name]:>10,}")

shown = front if len(front) > 2 else sorted(names, key=cycles.__getitem__)
three = [shown[0], shown[len(shown) // 2], shown[-1]]
print(f"\nTrained alone, {epochs} epochs, seed {SEED}:")
alone = {}
for name in three:
    result = weft.train(name, SCHEME, NM, epochs=int(epochs), seed=SEED)
    alone[name] = result.validation
    print(f"{name:<36} inherited {inherited[name]:7.2%}, alone {alone[name]:7.2%}")
pairs = list(combinations(three, 2))
signs = [(inherited[a] - inherited[b]) * (alone[a] - alone[b]) for a, b in pairs]
tau = sum((sign > 0) - (sign < 0) for sign in signs) / len(pairs)
lost = sum(alone[name] - inherited[name] for name in three) / len(three)
print(
    f"Rank correlation (Kendall's tau): {tau:.2f}, of {len(pairs)} pairs and one seed. {100 * lost:.1f} points are "
    "not inherited on average: choose by inherited accuracy, then train what is chosen by itself."
)
