"""A kernel's cache entry dies with any source it may call into, not only with its own."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

_LIBRARY = "from weft.dataflow import jit\n"
_CALLEE = _LIBRARY + "@jit.kernel\ndef callee(x):\n    return x + {}\n"
_CALLER = _LIBRARY + "from callee import callee\n@jit.kernel\ndef caller(x):\n    return callee(x)\nprint(caller(1))\n"


def test_a_changed_callee_in_another_file_is_seen(tmp_path):
    """Numba alone printed 2 twice: the caller's file had not changed."""

    def run(added: int, stamp: str) -> str:
        (tmp_path / "callee.py").write_text(_CALLEE.format(added))
        code = f"from weft.dataflow import jit; jit._STAMP = {stamp!r}; import caller"
        done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    (tmp_path / "caller.py").write_text(_CALLER)

    assert run(1, "one") == "2"
    assert run(2, "two") == "3"


def test_the_stamp_covers_every_kernel_file():
    from weft.dataflow import jit

    folder = Path(jit.__file__).parent
    kernels = ("@kernel", "@inlined", "@helper", "helper(")
    sources = {p: p.read_text(encoding="utf-8") for p in folder.rglob("*.py")}
    with_kernels = {str(p.relative_to(folder)) for p, source in sources.items() if any(k in source for k in kernels)}

    assert {"macro_tiles.py", "stce/search.py", "stce/dataflows.py", "stce/weight_stationary.py"} < with_kernels
    assert jit._stamp() == jit._STAMP == _digest(sources)


def _digest(sources):
    digest = hashlib.sha256()
    for path in sorted(sources):
        digest.update(path.read_bytes())
    return digest.hexdigest()
