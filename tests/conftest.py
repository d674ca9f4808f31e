"""One Hypothesis profile: deterministic, and without deadlines, because the first call of a kernel compiles it."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

settings.register_profile(
    "weft", deadline=None, derandomize=True, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("explore", parent=settings.get_profile("weft"), derandomize=False)
settings.load_profile(os.environ.get("WEFT_HYPOTHESIS", "weft"))
