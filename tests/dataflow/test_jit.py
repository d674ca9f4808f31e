"""A kernel's cache entry dies with any source it may call into, not only with its own."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

JITS = {
    "weft.dataflow.jit": {"macro_tiles.py", "stce/search.py", "stce/dataflows.py", "stce/weight_stationary.py"},
    "weft.simulator.kernels.jit": {"dram.py", "phases.py", "recurrence.py", "service.py", "sore.py", "stce.py"},
}
"""What compiles the kernels of a folder, and some files that have some."""


@pytest.mark.parametrize("name", JITS)
def test_a_changed_callee_in_another_file_is_seen(name, tmp_path):
    """Numba alone printed 2 twice: the caller's file had not changed."""
    library = f"import importlib\njit = importlib.import_module({name!r})\n"
    callee = library + "@jit.kernel\ndef callee(x):\n    return x + {}\n"
    caller = (
        library + "from callee import callee\n@jit.kernel\ndef caller(x):\n    return callee(x)\nprint(caller(1))\n"
    )

    def run(added: int, stamp: str) -> str:
        (tmp_path / "callee.py").write_text(callee.format(added))
        code = f"{library}jit._STAMP = {stamp!r}; import caller"
        done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    (tmp_path / "caller.py").write_text(caller)

    assert run(1, "one") == "2"
    assert run(2, "two") == "3"


@pytest.mark.parametrize("name", JITS)
def test_the_stamp_covers_every_kernel_file(name):
    jit = import_module(name)
    folder = Path(jit.__file__).parent
    kernels = ("@kernel", "@inlined", "@exact", "@bare", "@bare_inlined", "@helper", "helper(")
    sources = {p: p.read_text(encoding="utf-8") for p in folder.rglob("*.py")}
    with_kernels = {str(p.relative_to(folder)) for p, source in sources.items() if any(k in source for k in kernels)}

    assert JITS[name] < with_kernels
    assert _digest(sources) == jit._STAMP


def test_no_kernel_of_these_folders_is_compiled_in_another_way():
    for name in JITS:
        folder = Path(import_module(name).__file__).parent
        assert [p.name for p in folder.rglob("*.py") if "njit" in p.read_text(encoding="utf-8")] in ([], ["jit.py"])


def _digest(sources):
    digest = hashlib.sha256()
    for path in sorted(sources):
        digest.update(path.read_bytes())
    return digest.hexdigest()
