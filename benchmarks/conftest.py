"""What a benchmark ran on, above its figures: processor, vector width of the kernels, threads of PyTorch."""

from __future__ import annotations

import re
from pathlib import Path

import llvmlite.binding as llvm
import numba
import torch

_INFO = Path("/proc/cpuinfo")


def pytest_report_header() -> str:
    found = re.search(r"model name\s*: (.+)", _INFO.read_text()) if _INFO.exists() else None
    host = llvm.get_host_cpu_name()
    target = numba.config.CPU_NAME or host
    given = numba.config.CPU_FEATURES
    wide = llvm.get_host_cpu_features().get("avx512f") if given is None else "+avx512f" in given
    emulated = "" if (target, given) == (host, None) else f", emulating {target}"
    return (
        f"processor: {found[1] if found else 'unknown'} ({host}{emulated}), "
        f"kernels with {512 if wide else 256}-bit vectors, "
        f"torch {torch.backends.cpu.get_cpu_capability()} on {torch.get_num_threads()} threads"
    )
