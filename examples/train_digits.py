"""One word, two numbers: what a scheme does to the accuracy of a training and to the cycles of one of its steps."""

from __future__ import annotations

import weft
from weft.workloads.training import step_workload

machine = weft.machine("sat-vcu1525")
cycles = {}
for scheme in ("dense", "bdwp"):
    trained = weft.train("resnet9", scheme, "2:8", epochs=4)
    # The very model that was trained, at its batch and with its optimizer.
    step = weft.sparsify(step_workload(trained.spec), scheme, "2:8")
    result = weft.simulate(weft.schedule(step, machine))
    cycles[scheme] = result.cycles.total
    print(
        f"{scheme:6} {100 * trained.accuracy:6.2f} % of the test images, {result.cycles.total:>9,} cycles a step, "
        f"{cycles['dense'] / result.cycles.total:.2f}x"
    )
