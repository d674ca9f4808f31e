"""Verilog as Yosys writes it, made fit to read; nothing but names, layout and the wires of subexpressions changes.

Yosys gives every operation a wire of its own. Here such a wire goes where its value is used, once, in an expression of
one width: the widths of Verilog operands depend on what is around them, so arithmetic and whatever else could be
widened keeps its wire.
"""

from __future__ import annotations

import re
import textwrap
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

__all__ = ["Source", "readable"]

_WIDTH = 118
_LONGEST = 96
"""Characters of an expression that may still go into another one."""

# IEEE 1364-2001, annex B, as far as anybody would call a signal so
_KEYWORDS = frozenset(
    """
    always and assign begin buf case cell config design edge else end event for force fork function if initial inout
    input instance integer join large library macromodule medium module nand negedge nor not or output parameter
    posedge real realtime reg release repeat scalared signed small strong0 strong1 supply0 supply1 table task time
    tri unsigned use vectored wait wand weak0 weak1 while wire wor xnor xor bit byte do final int logic priority ref
    return static string struct this type union unique var void with
    """.split()  # noqa: SIM905
)
_AUTO = r"\b_\d+_\b(?!\s*\[)"
_OPERAND = r"[A-Za-z_]\w*(?:\[\d+(?::\d+)?\])?|\d+'[hdb][0-9a-f]+"
_SAME_WIDTH = frozenset("&|^")
_COMPARE = frozenset(("==", "!=", "<", "<=", ">", ">=", "&&", "||"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """What the component of a module says: its contract, and its ports in their order."""

    doc: str
    ports: Sequence[str]


def readable(text: str, sources: Mapping[str, Source]) -> dict[str, str]:
    """The modules of ``text``, as Yosys' ``write_verilog -noattr`` writes it, by name."""
    bodies = re.findall(r"^module .*?^endmodule$", text, re.MULTILINE | re.DOTALL)
    modules = (_Module(_plain_names(body)) for body in bodies)
    return {module.name: module.written(sources[module.name]) for module in modules}


def _plain_names(body: str) -> str:
    """Escaped identifiers (``\\a$1``) and keywords as plain ones."""
    escaped = dict.fromkeys(re.findall(r"\\(\S+) ", body))
    taken = set(re.findall(r"[A-Za-z_]\w*", body))
    plain: dict[str, str] = {}
    for name in escaped:
        wanted = re.sub(r"\W+", "_", name).strip("_") or "signal"
        if wanted in _KEYWORDS:
            wanted += "_"
        while wanted in taken and wanted != name:
            wanted += "_"
        taken.add(wanted)
        plain[name] = wanted
    return re.sub(r"\\(\S+) ", lambda found: plain[found[1]], body)


class _Module:
    """One module, taken apart into declarations, assignments and everything else."""

    def __init__(self, body: str) -> None:
        head, _, rest = body.partition(");\n")
        self.name = head.split()[1].partition("(")[0]
        self._ports: dict[str, str] = {}
        self._declared: dict[str, tuple[str, int, str]] = {}
        self._assigns: list[tuple[str, str]] = []
        self._clocked: list[str] = []
        self._memories: list[str] = []
        self._instances: list[str] = []
        self._read(iter(rest.splitlines()[:-1]))
        self._drop_unread()
        self._assigns = [(left, self._plainer(right)) for left, right in self._assigns]
        self._value = dict(self._assigns)

    def _read(self, lines: Iterator[str]) -> None:
        for line in lines:
            if found := re.fullmatch(r"  (input|output) (?:\[\d+:0\] )?(\w+);", line):
                self._ports[found[2]] = found[1]
            elif re.fullmatch(r"  wire \[-1:0\] \w+;", line):
                continue  # no bits at all
            elif found := re.fullmatch(r"  (wire|reg)( signed)? (?:\[(\d+):0\] )?(\w+)( = \S+)?;", line):
                kind = f"{found[1]:4}{found[2] or ''}"
                self._declared[found[4]] = (kind, int(found[3] or 0) + 1, found[5] or "")
            elif found := re.fullmatch(r"  assign (.+) = (.+);", line):
                self._assigns.append((found[1].strip(), found[2].strip()))
            elif re.fullmatch(r"  reg \[\d+:\d+\] \w+ \[\d+:\d+\];", line):
                self._memories.append(line)
            elif line == "  initial begin":
                self._memories.append(_initial(_until(lines, "  end")))
            elif line == "  always @(posedge clk)":
                self._clocked.append(next(lines))
            elif line.startswith("    else ") and self._clocked:
                self._clocked.append(line)
            elif line == "  always @(posedge clk) begin":
                self._clocked += _until(lines, "  end")
            elif re.fullmatch(r"  \w+ +\w+ \(", line):
                self._instances.append(
                    "\n".join([re.sub(r"(\S) +(\w)", r"\1 \2", line), *_until(lines, "  );"), "  );"])
                )
            else:
                raise RuntimeError(f"this version of Yosys writes Verilog that hdl/readable.py does not know: {line}")

    def _drop_unread(self) -> None:
        """Forget the wires that nobody reads, and those that only they read."""
        read = Counter(name for text in self._clocked + self._instances for name in _names(text))
        read.update(self._ports.keys())
        waiting = [(_names(left), _names(right), (left, right)) for left, right in self._assigns]
        for _, right, _ in waiting:
            read.update(right)
        gone: list[set[str]] | None = None
        while gone != []:
            gone = [right for left, right, _ in waiting if not any(read[name] for name in left)]
            waiting = [assign for assign in waiting if any(read[name] for name in assign[0])]
            for right in gone:
                read.subtract(right)
        self._assigns = [assign for _, _, assign in waiting]
        named = {name for left, right, _ in waiting for name in left | right} | (+read).keys()
        self._declared = {name: what for name, what in self._declared.items() if name in named}

    def _plainer(self, expression: str) -> str:
        """``! x`` of several bits, and ``x ? y : 0`` of one, as what they mean."""
        if (found := re.fullmatch(rf"! ({_OPERAND})", expression)) and (width := self._width(found[1])) > 1:
            return f"{found[1]} == {width}'h0"
        choice = _choice(expression)
        if choice and choice[2] == "1'h0" and self._width(choice[0]) == self._width(choice[1]) == 1:
            return f"{choice[0]} & {choice[1]}"
        return expression

    def written(self, source: Source) -> str:
        """The module again."""
        inline = self._inlined()
        clocked = [line for statement in self._clocked for line in self._decided(statement, inline)]
        parts = [
            *(f"// {line}".rstrip() for line in source.doc.splitlines()),
            self._head(source.ports),
            *self._wires(set(inline)),
            *self._memories,
            *_gap(
                _wrap(f"  assign {left} = {_bare(_put(right, inline))};")
                for left, right in self._assigns
                if left not in inline
            ),
            *_gap(["\n".join(["  always @(posedge clk) begin", *map(_wrap, clocked), "  end"])] if clocked else []),
            *_gap(_put(text, inline) for text in self._instances),
            "endmodule\n",
        ]
        return "\n".join(parts)

    def _decided(self, statement: str, inline: Mapping[str, str]) -> list[str]:
        """``statement`` of a clock edge, its choices written as such: reset first, then what else there is."""
        if found := re.fullmatch(r"    if \((_\d+_)\)", statement):
            return [f"    if ({_bare(_put(found[1], inline))})"]
        found = re.fullmatch(r"    (\w+) <= (_\d+_);", statement)
        if found is None:
            return [_put(statement, inline)]
        target, value, prefix, lines = found[1], self._meant(found[2], inline), "", []
        while value in inline and (choice := _choice(self._value[value])):
            condition, then, otherwise = (self._meant(operand, inline) for operand in choice)
            if target == otherwise:
                prefix, value = f"{prefix}if ({_bare(_put(condition, inline))}) ", then
            elif condition == "rst" and not prefix:
                lines.append(f"    if (rst) {target} <= {_put(then, inline)};")
                prefix, value = "else ", otherwise
            else:
                break
        return [*lines, f"    {prefix}{target} <= {_bare(_put(value, inline))};"]

    def _meant(self, operand: str, inline: Mapping[str, str]) -> str:
        """What ``operand`` is another name of."""
        while operand in inline and re.fullmatch(_OPERAND, self._value[operand]):
            operand = self._value[operand]
        return operand

    def _head(self, order: Sequence[str]) -> str:
        rank = {name: i for i, name in enumerate(("clk", "rst", *order))}
        ports = []
        for name in sorted(self._ports, key=rank.__getitem__):
            kind, width, init = self._declared[name]
            ports.append(f"  {self._ports[name]:6} {kind} {_range(width)}{name}{init}")
        return f"module {self.name} (\n" + ",\n".join(ports) + "\n);"

    def _wires(self, gone: set[str]) -> Iterator[str]:
        for name, (kind, width, init) in self._declared.items():
            if name not in self._ports and name not in gone:
                yield f"  {kind} {_range(width)}{name}{init};"

    def _inlined(self) -> dict[str, str]:
        """Wires without a name that are used once, and what to put in their place."""
        texts = [right for _, right in self._assigns] + self._clocked + self._instances
        whole = Counter(name for text in texts for name in re.findall(_AUTO, text))
        anyhow = Counter(name for text in texts for name in re.findall(r"\b_\d+_\b", text))
        targets = Counter(name for left, _ in self._assigns for name in re.findall(r"\b_\d+_\b", left))
        once = {name for name, uses in whole.items() if uses == anyhow[name] == targets[name] == 1}
        inline: dict[str, str] = {}
        candidates = {left: right for left, right in self._assigns if left in once}

        def place(name: str) -> None:
            right = candidates.pop(name)
            for inner in re.findall(_AUTO, right):
                if inner in candidates:
                    place(inner)
            kept = self._of_one_width(right, self._declared[name][1])
            if kept is not None and len(put := _put(kept, inline)) <= _LONGEST:
                inline[name] = put

        while candidates:
            place(next(iter(candidates)))
        return inline

    def _of_one_width(self, expression: str, width: int) -> str | None:
        """``expression`` in brackets if it has ``width`` bits and the same value wherever it stands, else None."""
        if re.fullmatch(r"\{[^?]*\}", expression) or re.fullmatch(_OPERAND, expression):
            return expression if self._width(expression) == width else None
        if found := re.fullmatch(rf"([~|&^!]) ({_OPERAND})", expression):
            if width > 1 or (found[1] == "~" and self._width(found[2]) > 1):
                return None
            return f"!{found[2]}" if found[1] == "~" else f"({found[1]}{found[2]})"
        if found := re.fullmatch(rf"({_OPERAND}) (\S+) ({_OPERAND})", expression):
            sides = self._width(found[1]), self._width(found[3])
            fits = width == 1 if found[2] in _COMPARE else found[2] in _SAME_WIDTH and sides == (width, width)
            return f"({expression})" if fits else None
        if choice := _choice(expression):
            return f"({expression})" if tuple(map(self._width, choice)) == (1, width, width) else None
        return None

    def _width(self, operand: str) -> int:
        """Bits of an operand; 0 if it is no plain and unsigned one."""
        if operand.startswith("{") and operand.endswith("}"):
            widths = [self._width(part.strip()) for part in operand[1:-1].split(",")]
            return sum(widths) if all(widths) else 0
        if found := re.fullmatch(r"(\d+)'[hdb][0-9a-f]+", operand):
            return int(found[1])
        if found := re.fullmatch(r"\w+\[(\d+)(?::(\d+))?\]", operand):
            return int(found[1]) - int(found[2] or found[1]) + 1
        kind, width, _ = self._declared.get(operand, ("signed", 0, ""))
        return 0 if kind.endswith("signed") else width


def _names(text: str) -> set[str]:
    return set(re.findall(r"[A-Za-z_]\w*", text))


def _put(text: str, inline: Mapping[str, str]) -> str:
    return re.sub(_AUTO, lambda found: inline.get(found[0], found[0]), text)


def _choice(expression: str) -> tuple[str, str, str] | None:
    """Condition and both values of a plain choice."""
    found = re.fullmatch(rf"({_OPERAND}) \? ({_OPERAND}) : ({_OPERAND})", expression)
    return (found[1], found[2], found[3]) if found else None


def _bare(expression: str) -> str:
    """``expression`` without brackets that enclose all of it."""
    if not expression.startswith("("):
        return expression
    depth = 0
    for i, character in enumerate(expression):
        depth += (character == "(") - (character == ")")
        if depth == 0:
            return expression[1:-1] if i == len(expression) - 1 else expression
    return expression


def _until(lines: Iterator[str], last: str) -> list[str]:
    return list(iter(lambda: next(lines), last))


def _initial(lines: Sequence[str]) -> str:
    """The first contents of a memory, in one line where all words are the same."""
    words = [re.fullmatch(r"    (\w+)\[(\d+)\] = (\S+);", line) for line in lines]
    values = {found[3] for found in words if found}
    if None in words or len(values) > 1 or words[0] is None:
        raise RuntimeError("memories that hold anything but one value at first are not written yet")
    name, index = words[0][1], f"{words[0][1]}_word"
    loop = f"for ({index} = 0; {index} < {len(words)}; {index} = {index} + 1) {name}[{index}] = {values.pop()};"
    return f"  integer {index};\n  initial {loop}"


def _range(width: int) -> str:
    return f"[{width - 1}:0] " if width > 1 else ""


def _gap(lines: Iterator[str] | Sequence[str]) -> list[str]:
    """``lines`` after an empty one, if there are any."""
    found = list(lines)
    return ["", *found] if found else []


def _wrap(line: str) -> str:
    indent = len(line) - len(line.lstrip())
    return "\n".join(
        textwrap.wrap(
            line, _WIDTH, subsequent_indent=" " * (indent + 4), break_long_words=False, break_on_hyphens=False
        )
    )
