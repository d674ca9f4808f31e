"""What a block between streams did in co-simulation, against the simulator's run of the same waits."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from weft.hdl.drivers.streams import Ran
from weft.simulator.streams import StreamRun

Bools = npt.NDArray[np.bool_]


def assert_waits(got: Ran, want: StreamRun) -> None:
    """Every beat enters, is shown and is taken in its cycle, once, and the input is open in the same cycles.

    That what is shown stays as it is until then the driver has seen.
    """
    assert got.entered.tolist() == want.entered.tolist()
    assert got.open[got.open < want.cycles].tolist() == want.open.tolist()
    for name, shown, taken in zip(got.taken, want.shown, want.taken, strict=True):
        assert got.shown[name].tolist() == shown.tolist(), name
        assert got.taken[name].tolist() == taken.tolist(), name
    assert got.cycles == want.cycles
