"""One Hypothesis profile: deterministic, and without deadlines, because the first call of a kernel compiles it."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, settings

from .examples_drawn import PROFILE, examples

settings.register_profile(
    "full", deadline=None, derandomize=True, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("weft", parent=settings.get_profile("full"), max_examples=examples(100))
settings.register_profile("explore", parent=settings.get_profile("full"), derandomize=False)
# Of a mutant it is enough that it is found.
settings.register_profile(
    "mutants", parent=settings.get_profile("full"), phases=(Phase.explicit, Phase.generate), report_multiple_bugs=False
)
settings.load_profile(PROFILE)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let the clone be called anything: pytest would import its root, which is the package, by the name of the folder.

    It does so to look for a ``setup_module``, which there is not.
    """
    for node in {node for item in items for node in item.listchain() if isinstance(node, pytest.Package)}:
        if node.path == Path(__file__).parents[1]:
            node.setup = lambda: None  # type: ignore[method-assign]
