"""The buses against models of AXI that nobody here wrote, and the text of what stands on them in four readers."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from weft.hdl.flow.tools import run_tool

from ..flow.test_emit import WAIVED
from ..verilating import Verilator
from .bus_machines import MACHINES, build, emitted, run

pytestmark = pytest.mark.slow
