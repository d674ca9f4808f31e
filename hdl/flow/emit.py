"""Verilog of a component: every distinct module once, under the names of the source, with the contract of each."""

from __future__ import annotations

import gc
import importlib.metadata
import inspect
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from amaranth import ClockSignal, Elaboratable, Instance, ResetSignal, Signal, Value
from amaranth.back import rtlil
from amaranth.hdl import Fragment
from amaranth.lib import wiring

from ...dataflow.accelerator import AcceleratorSpec
from ...dataflow.config_io import spec_hash
from .readable import Source, readable
from .tools import require_tool, run_tool, tool_version

__all__ = ["EmittedModule", "Verilog", "verilog"]

_PASSES = (
    "read_rtlil design.il",
    "hierarchy -check -top {top}",
    "proc",
    # Nothing is optimised: names stay with what they named. Unread wires go in hdl/readable.py.
    "memory_collect",
    "pmuxtree",  # write_verilog makes a function of a choice among many
    "check -assert",  # no loop of gates, no wire with two drivers
    "write_verilog -noattr design.v",
)
_PORT = re.compile(r"^  wire (?:width \d+ )?(?:input|output) \d+ +(?:signed +)?\\(\S+)$", re.MULTILINE)
_OF_PYTHON = re.compile(r"``blackbox``|``parts``|`parts`|weft\.|amaranth")
_SECTIONS = ("array", "pe", "xnor", "gather", "tree", "sore", "wuve")


@dataclass(frozen=True, slots=True, kw_only=True)
class EmittedModule:
    """One module: its Verilog, and the modules that it instantiates."""

    name: str
    text: str
    uses: tuple[str, ...]

    @property
    def lines(self) -> int:
        return self.text.count("\n")


@dataclass(frozen=True, slots=True, kw_only=True)
class Verilog:
    """A design, ``modules`` with every module after those that it instantiates; the last one is the top."""

    header: str
    modules: tuple[EmittedModule, ...]

    @property
    def text(self) -> str:
        """One self-contained file."""
        return "\n".join(
            [
                self.header,
                "`timescale 1ns / 1ps\n`default_nettype none\n",
                *(m.text for m in self.modules),
                "`default_nettype wire\n",
            ]
        )


def verilog(spec: AcceleratorSpec, component: Any, name: str) -> Verilog:
    """Verilog-2001 of ``component``, a block of ``spec``, as module ``name``; the same text for the same machine.

    Below the top, components become modules of their own, named after their class, equal ones the same one; a
    black-boxed ``component`` brings those that it instantiates by name in ``parts``. Everything has one clock, ``clk``,
    and a synchronous, active-high ``rst``; registers and memories also have initial values.
    """
    library = _Library(name)
    with _no_collection():
        library.add_parts(component)
        library.add(component, name)
    text = _through_yosys("".join(made.rtlil for made in library.modules.values()), name)
    found = readable(text, {made.name: made.source for made in library.modules.values()})
    modules = tuple(
        EmittedModule(name=made.name, text=found[made.name], uses=made.uses) for made in library.modules.values()
    )
    return Verilog(header=_header(spec, component, name), modules=modules)


@dataclass(frozen=True, slots=True)
class _Made:
    name: str
    component: Any
    rtlil: str
    uses: tuple[str, ...]

    @property
    def ports(self) -> set[str]:
        return set(_PORT.findall(self.rtlil))

    @property
    def source(self) -> Source:
        ports = ["__".join(map(str, path)) for path, _, _ in self.component.signature.flatten(self.component)]
        return Source(doc=_contract(self.component), ports=ports)


def _contract(component: Any) -> str:
    """What it says itself, or its docstring of the design: without paragraphs on its Python, numbers for names."""
    if hasattr(component, "contract"):
        return str(component.contract)
    paragraphs = (inspect.getdoc(type(component)) or "").split("\n\n")

    def plain(found: re.Match[str]) -> str:
        held = getattr(component, "_component", component)
        value = getattr(held, found[1], None) if found[1].isidentifier() else None
        if isinstance(value, int) and not isinstance(value, bool):
            return str(value)
        return _snake(found[1]) if found[1][:1].isupper() else found[1]

    kept = [text for text in paragraphs if not _OF_PYTHON.search(text)]
    return "\n\n".join(re.sub(r"``?([^`]+)``?", plain, text) for text in kept)


class _Library:
    """Modules in the order in which they can be read: children first."""

    def __init__(self, top: str) -> None:
        self._top = top
        self._parts: dict[str, _Made] = {}
        self._by_body: dict[tuple[str, str], _Made] = {}
        self.modules: dict[str, _Made] = {}

    def add_parts(self, component: Any) -> None:
        """The modules that ``component`` instantiates by name, under names that no other block has."""
        for part, made_of in getattr(component, "parts", {}).items():
            self._parts[part] = self.add(made_of, self._below_top(part))

    def add(self, component: Any, name: str) -> _Made:
        """The module of ``component``: a new one, or the one that has the same contents."""
        fragment = Fragment.get(component, None)
        uses = tuple(dict.fromkeys(self._instantiate(fragment)))
        text = rtlil.convert(_Elaborated(component, fragment), name="_", emit_src=False)
        known = self._by_body.get((type(component).__name__, text))
        if known is None:
            known = _Made(
                self._free(name), component, text.replace("module \\_\n", f"module \\{self._free(name)}\n"), uses
            )
            self._by_body[type(component).__name__, text] = known
            self.modules[known.name] = known
        return known

    def _below_top(self, name: str) -> str:
        """Blocks may be read together, so that the names of each begin with its own."""
        return name if name.startswith(f"{self._top}_") else f"{self._top}_{name}"

    def _free(self, name: str) -> str:
        taken = sum(1 for other in self.modules if re.fullmatch(rf"{re.escape(name)}(_\d+)?", other))
        return f"{name}_{taken + 1}" if taken else name

    def _instantiate(self, fragment: Any) -> Iterator[str]:
        """Put instances of modules in the place of the components inside ``fragment``; the names of those modules."""
        for i, (inner, name, where) in enumerate(fragment.subfragments):
            component = next((o for o in inner.origins or () if isinstance(o, wiring.Component)), None)
            if isinstance(inner, Instance) and inner.type in self._parts:
                inner.type = self._parts[inner.type].name
                yield inner.type
            elif component is not None and _is_ours(component):
                made = self.add(component, self._below_top(_snake(type(component).__name__)))
                fragment.subfragments[i] = (_instance(made, component, name), name, where)
                yield made.name
            else:
                yield from self._instantiate(inner)


@contextmanager
def _no_collection() -> Iterator[None]:
    """Amaranth makes millions of objects that all stay: looking for garbage among them doubles the time of 32 x 32."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


class _Elaborated(Elaboratable):
    """A component whose fragment is there already."""

    def __init__(self, component: Any, fragment: Any) -> None:
        self._component, self._fragment = component, fragment
        self.signature = component.signature

    def __getattr__(self, name: str) -> Any:
        return getattr(self._component, name)

    def elaborate(self, platform: Any) -> Any:
        return self._fragment


def _instance(made: _Made, component: Any, name: str) -> Any:
    """An instance of ``made`` on the signals of ``component``, which take its name."""
    pins: dict[str, Any] = {}
    for path, member, port in component.signature.flatten(component):
        pin, value = "__".join(map(str, path)), Value.cast(port)
        if isinstance(value, Signal):
            value.name = f"{name}_{pin}"
        pins[f"{'i' if member.flow == wiring.In else 'o'}_{pin}"] = value
    clocks = {"i_clk": ClockSignal(), "i_rst": ResetSignal(allow_reset_less=True)}
    return Instance(made.name, **{pin: value for pin, value in {**pins, **clocks}.items() if pin[2:] in made.ports})


def _is_ours(component: Any) -> bool:
    """Amaranth's own components are part of the module that holds them."""
    return not type(component).__module__.startswith("amaranth.")


def _snake(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


def _through_yosys(text: str, top: str) -> str:
    require_tool("yosys")
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work)
        (folder / "design.il").write_text(text)
        run_tool("yosys", ("-q", "-p", "; ".join(_PASSES).format(top=top)), folder)
        return (folder / "design.v").read_text()


def _header(spec: AcceleratorSpec, component: Any, name: str) -> str:
    version = importlib.metadata.version
    lines = [
        f"{name}: {type(component).__name__} of {spec.name}, spec {spec_hash(spec)}",
        f"Written by Weft {version('weft')} with amaranth {version('amaranth')} and {tool_version('yosys')}.",
        "",
    ]
    values = asdict(spec)
    for section in (name for name in _SECTIONS if values[name] is not None):
        lines.append(f"{section}: " + ", ".join(f"{key} {value}" for key, value in values[section].items()))
    lines += ["", "One clock, clk, rising edge; rst is synchronous and active high. A port a__1__b is field b of a[1]."]
    return "".join(f"// {line}".rstrip() + "\n" for line in lines)
