"""Every test here trains something small."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def alone(one_thread: None) -> None:
    """On one thread."""
