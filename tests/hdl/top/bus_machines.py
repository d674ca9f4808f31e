"""Components on a bus, emitted under the ports that integrators know, and the simulator that cocotb runs in."""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

from weft.hdl.flow.emit import Verilog, verilog
from weft.hdl.top.axi_memory import AxiMemory
from weft.hdl.top.csr import ControlRegisters
from weft.hdl.top.load import LoadUnit
from weft.hdl.top.ports import Ports
from weft.hdl.top.sequencer import Sequencer
from weft.hdl.top.store import StoreUnit

from .commands import TARGET
from .transfers import BEAT

MEMORY_BEATS = 512
MACHINES = {
    "load_unit": (lambda: LoadUnit(TARGET, BEAT), {"": "m_axi"}),
    "store_unit": (lambda: StoreUnit(TARGET, BEAT), {"": "m_axi"}),
    "sequencer": (Sequencer, {"": "m_axi"}),
    "axi_memory": (lambda: AxiMemory(BEAT, MEMORY_BEATS), {"bus": "s_axi"}),
    "control_registers": (lambda: ControlRegisters(TARGET), {"bus": "s_axi"}),
}


@cache
def emitted(name: str) -> Verilog:
    make, buses = MACHINES[name]
    return verilog(TARGET.spec, Ports(make(), buses), name)


def build(verilator: Any, folder: Path, name: str, text: str) -> None:
    """Compile ``text`` with cocotb's main loop; its makefile asks for headers that do not compile."""
    share, libs = _cocotb()
    (folder / f"{name}.v").write_text(text)
    made = verilator.verilate(
        *(
            "--cc",
            "--exe",
            "--vpi",
            "--public-flat-rw",
            "--prefix",
            "Vtop",
            "--Mdir",
            "made",
            "-Wno-fatal",
            "-Wno-lint",
        ),
        *("--top-module", name, str(share), f"{name}.v"),
        cwd=folder,
    )
    assert made.returncode == 0, made.stderr
    sources = [path.name for path in sorted((folder / "made").glob("*.cpp"))]
    (folder / "made" / "all.cc").write_text("".join(f'#include "{source}"\n' for source in [*sources, share]))
    link = [f"-L{libs}", f"-Wl,-rpath,{libs}", "-lcocotbvpi_verilator", "-pthread"]
    subprocess.run(
        [*verilator.compile, "-Imade", "made/all.cc", *verilator.runtime, *link, "-o", "bench"], cwd=folder, check=True
    )


def run(folder: Path, name: str, module: str, seed: int) -> int:
    """How many cocotb tests of ``module`` for ``name`` passed; all must."""
    config, libpython = (importlib.import_module(name) for name in ("cocotb_tools.config", "find_libpython"))
    environment = os.environ | {
        "GPI_USERS": f"{libpython.find_libpython()};{config.pygpi_entry_point()}",
        "PYTHONPATH": os.pathsep.join(sys.path),
        "PYGPI_PYTHON_BIN": sys.executable,
        "COCOTB_TOPLEVEL": name,
        "COCOTB_TEST_MODULES": module,
        "COCOTB_TEST_FILTER": f"{name}__",
        "COCOTB_RANDOM_SEED": str(seed),
        "COCOTB_LOG_LEVEL": "WARNING",
        "COCOTB_RESULTS_FILE": str(folder / "results.xml"),
        "TOPLEVEL_LANG": "verilog",
    }
    done = subprocess.run(["./bench"], cwd=folder, capture_output=True, text=True, env=environment)
    said = done.stdout + done.stderr
    assert (folder / "results.xml").exists(), said
    results = (folder / "results.xml").read_text()
    assert not re.search(r"<(failure|error)\b", results), said + results
    return results.count("<testcase")


def _cocotb() -> tuple[Path, Path]:
    """Cocotb's main loop for Verilator, and the folder of its libraries."""
    found = importlib.util.find_spec("cocotb")
    assert found is not None
    assert found.origin is not None
    root = Path(found.origin).parent
    return root / "share" / "lib" / "verilator" / "verilator.cpp", root / "libs"
