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
from functools import partial

from .fields import Parts, name_fields

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
_ANONYMOUS = r"\b_\d+_\b"
_LIST = r"\{ [^{}?]* \}"
_OPERAND = r"[A-Za-z_]\w*(?:\[\d+(?::\d+)?\])?|\d+'[hdb][0-9a-f]+"
_SHORT = r"[|!] [A-Za-z]\w*|[A-Za-z]\w* == \d+'h\d"
"""What may stand wherever it is read instead of once under a name."""
_SIMPLE = r"([a-zA-Z][\w\[\]:]*) ([-+<]|<=|==) ([a-zA-Z][\w\[\]:]*|\d+'h\w+)"
_SAID = {"+": "plus", "-": "minus", "<": "below", "<=": "up_to", "==": "is"}
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
    modules = (_Module(*_plain_names(body)) for body in bodies)
    return {module.name: module.written(sources[module.name]) for module in modules}


def _plain_names(body: str) -> tuple[str, dict[str, str]]:
    """Escaped identifiers (``\\a$1``) and keywords as plain ones; and, of every field ``\\a.b``, the plain ``\\a``."""
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
    fields = {plain[name]: plain.get(base := name.partition(".")[0], base) for name in escaped if "." in name}
    return re.sub(r"\\(\S+) ", lambda found: plain[found[1]], body), fields


class _Module:
    """One module, taken apart into declarations, assignments and everything else."""

    def __init__(self, body: str, fields: dict[str, str]) -> None:
        head, _, rest = body.partition(");\n")
        self.name = head.split()[1].partition("(")[0]
        self._parts = Parts(fields=fields)
        self._read(iter(rest.splitlines()[:-1]))
        self._merge_equal()
        name_fields(self._parts)
        self._merge_equal()
        self._drop_unread()
        parts = self._parts
        parts.assigns = [(left, self._plainer(right)) for left, right in parts.assigns]
        self._value = dict(parts.assigns)
        self._once = self._used_once()
        self._inline = self._inlined()

    def _read(self, lines: Iterator[str]) -> None:
        for line in lines:
            if found := re.fullmatch(r"  (input|output) (?:\[\d+:0\] )?(\w+);", line):
                self._parts.ports[found[2]] = found[1]
            elif re.fullmatch(r"  wire \[-1:0\] \w+;", line):
                continue  # no bits at all
            elif found := re.fullmatch(r"  (wire|reg)( signed)? (?:\[(\d+):0\] )?(\w+)( = \S+)?;", line):
                kind = f"{found[1]:4}{found[2] or ''}"
                self._parts.declared[found[4]] = (kind, int(found[3] or 0) + 1, found[5] or "")
            elif found := re.fullmatch(r"  assign (.+) = (.+);", line):
                self._parts.assigns.append((found[1].strip(), found[2].strip()))
            elif re.fullmatch(r"  reg \[\d+:\d+\] \w+ \[\d+:\d+\];", line):
                self._parts.memories.append(line)
            elif line == "  initial begin":
                self._parts.memories.append(_initial(_until(lines, "  end")))
            elif line == "  always @(posedge clk)":
                self._parts.clocked.append(next(lines))
            elif line.startswith("    else ") and self._parts.clocked:
                self._parts.clocked.append(line)
            elif line == "  always @(posedge clk) begin":
                self._parts.clocked += _until(lines, "  end")
            elif re.fullmatch(r"  \w+ +\w+ \(", line):
                self._parts.instances.append(
                    "\n".join([re.sub(r"(\S) +(\w)", r"\1 \2", line), *_until(lines, "  );"), "  );"])
                )
            else:
                raise RuntimeError(f"this version of Yosys writes Verilog that hdl/readable.py does not know: {line}")

    def _merge_equal(self) -> None:
        """Keep one of the wires without a name that say the same, and none that says what has a name: Amaranth writes
        an expression wherever it is used."""
        parts, more = self._parts, True
        while more:
            first: dict[tuple[str, int], str] = {}
            same: dict[str, str] = {}
            for left, right in parts.assigns:
                if re.fullmatch(_AUTO, left):
                    width = parts.declared[left][1]
                    other = right if parts.declared.get(right, ("", 0))[1] == width else left
                    kept = first.setdefault((right, width), other)
                    if kept != left:
                        same[left] = kept
            parts.assigns = [(left, right) for left, right in parts.assigns if left not in same]
            final = {name: _last(same, name) for name in same}
            parts.everywhere(partial(_renamed, final))
            more = bool(same)

    def _drop_unread(self) -> None:
        """Forget the wires that nobody reads, and those that only they read."""
        read = Counter(name for text in self._parts.clocked + self._parts.instances for name in _names(text))
        read.update(self._parts.ports.keys())
        waiting = [(_names(left), _names(right), (left, right)) for left, right in self._parts.assigns]
        for _, right, _ in waiting:
            read.update(right)
        gone: list[set[str]] | None = None
        while gone != []:
            gone = [right for left, right, _ in waiting if not any(read[name] for name in left)]
            waiting = [assign for assign in waiting if any(read[name] for name in assign[0])]
            for right in gone:
                read.subtract(right)
        self._parts.assigns = [assign for _, _, assign in waiting]
        named = {name for left, right, _ in waiting for name in left | right} | (+read).keys()
        self._parts.declared = {name: what for name, what in self._parts.declared.items() if name in named}

    def _plainer(self, expression: str) -> str:
        """``! x`` of several bits, and ``x ? y : 0`` of one, as what they mean."""
        if (found := re.fullmatch(rf"! ({_OPERAND})", expression)) and (width := self._width(found[1])) > 1:
            return f"{found[1]} == {width}'h0"
        choice = _choice(expression)
        if choice and choice[1:] == ("1'h1", "1'h0"):
            return choice[0]
        if choice and choice[2] == "1'h0" and self._width(choice[0]) == self._width(choice[1]) == 1:
            return f"{choice[0]} & {choice[1]}"
        return expression

    def written(self, source: Source) -> str:
        """The module again."""
        parts = self._parts
        clocked = [line for statement in parts.clocked for line in self._decided(statement)]
        instances = [_put(text, self._inline) for text in parts.instances]
        shown, kept = self._reached([*clocked, *instances])
        body = [
            *(line for name, line in self._wires() if name in kept or not re.fullmatch(_AUTO, name)),
            *parts.memories,
            *_gap(_wrap(f"  assign {left} = {shown[left]};") for left, _ in parts.assigns if left in shown),
            *_gap(["\n".join(["  always @(posedge clk) begin", *map(_wrap, clocked), "  end"])] if clocked else []),
            *_gap(instances),
            "endmodule\n",
        ]
        comment = [f"// {line}".rstrip() for line in source.doc.splitlines()]
        text = "\n".join([*comment, self._head(source.ports), *body])
        return _renamed(self._named(shown, kept, [*clocked, *instances]), text)

    def _named(self, shown: Mapping[str, str], kept: set[str], read: list[str]) -> dict[str, str]:
        """Names for wires that have none: after what they are, or after what is made of them."""
        taken, names, again = set(self._parts.declared), dict[str, str](), Counter[str]()
        readers = {
            name: re.split(r"\W", left)[0]
            for left, right in reversed(list(shown.items()))
            for name in re.findall(_ANONYMOUS, right)
        }
        for line in (line for text in read for line in text.splitlines()):
            # a register, a memory, or a pin of an instance
            reader = re.match(r" *(?:else )?(?:if \(.*\) )?\.?(\w+)[ \[(]", line)
            for name in re.findall(_ANONYMOUS, line):
                readers.setdefault(name, reader[1] if reader else "shown")

        def name_of(name: str) -> str:
            if name not in kept:
                return name
            if name not in names:
                found = re.fullmatch(_SIMPLE, shown.get(name, ""))
                if found:
                    one, how, other = found.groups()
                    sides = (re.sub(r"\W+", "_", re.sub(r"^\d+'h", "", side)).strip("_") for side in (one, other))
                    wanted = f"_{_SAID[how]}_".join(sides)
                else:
                    reader = readers.get(name, "shown")
                    wanted = f"{name_of(reader).removesuffix('_part')}_part"
                names[name] = wanted
                while names[name] in taken:
                    again[wanted] += 1
                    names[name] = f"{wanted}_{again[wanted] + 1}"
                taken.add(names[name])
            return names[name]

        for name in sorted(kept):
            name_of(name)
        return names

    def _reached(self, read: list[str]) -> tuple[dict[str, str], set[str]]:
        """What drives all that has a name, or is read in its way; and the wires without a name among it."""
        waiting = dict(self._parts.assigns)
        shown: dict[str, str] = {}
        kept = {name for text in read for name in re.findall(_ANONYMOUS, text)}
        while ready := [left for left in waiting if not (name := re.match(_ANONYMOUS, left)) or name[0] in kept]:
            for left in ready:
                right = waiting.pop(left)
                shown[left] = _bare(self._in_full(right, self._width(left)) or _put(right, self._inline))
                kept.update(re.findall(_ANONYMOUS, shown[left]))
        return shown, kept

    def _low_of_several(self, members: list[str], width: int) -> str | None:
        """The low bits of a concatenation, if they are whole members or a part of the last one."""
        taken: list[str] = []
        for member in reversed(members):
            own = self._width(member)
            if own >= width and not taken:
                return self._low(member, width)
            taken.insert(0, _put(member, self._inline))
            width -= own
            if width <= 0:
                break
        return f"{{ {', '.join(taken)} }}" if width == 0 else None

    def _decided(self, statement: str) -> list[str]:
        """``statement`` of a clock edge, its choices written as such: reset first, then what else there is."""
        if found := re.fullmatch(r"    if \((_\d+_)\)", statement):
            return [f"    if ({_bare(_put(found[1], self._inline))})"]
        found = re.fullmatch(r"    (\w+) <= (_\d+_);", statement)
        if found is None:
            return [_put(statement, self._inline)]
        return [f"    {line}" for line in self._choices(found[1], found[2])]

    def _choices(self, target: str, value: str) -> list[str]:
        """``target <= value``, nothing where it holds."""
        value = self._meant(value)
        choice = _choice(self._value[value]) if value in self._once else None
        if choice is None:
            return [] if value == target else [f"{target} <= {self._leaf(value, target)};"]
        condition, then, otherwise = choice
        asked = f"if ({_bare(_put(self._meant(condition), self._inline))})"
        if self._meant(otherwise) == target:
            inner = self._choices(target, then)
            return [f"{asked} {inner[0]}"] if len(inner) == 1 else [asked, *(f"  {line}" for line in inner)]
        rest = self._choices(target, otherwise)
        return [f"{asked} {target} <= {self._leaf(then, target)};", *(f"else {line}" for line in rest[:1]), *rest[1:]]

    def _leaf(self, value: str, target: str) -> str:
        return _bare(self._assigned(self._meant(value), self._width(target)))

    def _used_once(self) -> set[str]:
        """Wires without a name that are read in one place, and driven in one."""
        uses = Counter(name for text in self._parts.texts() for name in re.findall(r"\b_\d+_\b", text))
        return {left for left, _ in self._parts.assigns if re.fullmatch(_AUTO, left) and uses[left] == 1}

    def _assigned(self, operand: str, width: int) -> str:
        """``operand`` of ``width`` bits as an assignment to as many can have it: what may be widened is cut there."""
        found = re.fullmatch(r"(_\d+_)(\[\d+:0\])?", operand)
        if found and found[1] in self._once and self._width(operand) == width:
            text = self._in_full(self._value[found[1]], width)
            if text is not None and len(text) <= _LONGEST:
                return text
        return _put(operand, self._inline)

    def _in_full(self, expression: str, width: int) -> str | None:
        """The low ``width`` bits of ``expression`` where an assignment gives it so many; None if it is not plain.

        Sums, bitwise operations and choices have the same low bits in any width of at least so many.
        """
        if choice := _choice(expression):
            condition, then, otherwise = choice
            sides = [self._low(side, width) for side in (then, otherwise)]
            if None in sides:
                return None
            return f"({_put(condition, self._inline)} ? {sides[0]} : {sides[1]})"
        if found := re.fullmatch(rf"({_OPERAND}) ([-+*&|^]) ({_OPERAND})", expression):
            sides = [self._low(side, width) for side in (found[1], found[3])]
            return None if None in sides else f"({sides[0]} {found[2]} {sides[1]})"
        if found := re.fullmatch(rf"~ ({_OPERAND})", expression):
            side = self._low(found[1], width) if self._width(found[1]) >= width else None
            return None if side is None or "(" in side else f"~{side}"
        if re.fullmatch(_OPERAND, expression):
            return self._low(expression, width)
        return None

    def _low(self, operand: str, width: int) -> str | None:
        """The low ``width`` bits of an operand, or all of it if it is shorter."""
        own = self._width(operand)
        if not own:
            return None
        if own <= width:
            return self._assigned(operand, width) if own == width else _put(operand, self._inline)
        if found := re.fullmatch(r"(\d+)'h([0-9a-f]+)", operand):
            return f"{width}'h{int(found[2], 16) & (1 << width) - 1:x}"
        if operand.startswith("{"):
            return self._low_of_several([part.strip() for part in operand[1:-1].split(",")], width)
        if found := re.fullmatch(r"(\w+)\[\d+:(\d+)\]", operand):
            return self._assigned(f"{found[1]}[{int(found[2]) + width - 1}:{found[2]}]", width)
        if re.fullmatch(r"[A-Za-z_]\w*", operand):
            return self._assigned(f"{operand}[{width - 1}:0]" if width > 1 else f"{operand}[0]", width)
        return None

    def _meant(self, operand: str) -> str:
        """What ``operand`` is another name of."""
        while operand in self._inline and re.fullmatch(_OPERAND, self._value[operand]):
            operand = self._value[operand]
        return operand

    def _head(self, order: Sequence[str]) -> str:
        rank = {name: i for i, name in enumerate(("clk", "rst", *order))}
        ports = []
        for name in sorted(self._parts.ports, key=rank.__getitem__):
            kind, width, init = self._parts.declared[name]
            ports.append(f"  {self._parts.ports[name]:6} {kind} {_range(width)}{name}{init}")
        return f"module {self.name} (\n" + ",\n".join(ports) + "\n);"

    def _wires(self) -> Iterator[tuple[str, str]]:
        for name, (kind, width, init) in self._parts.declared.items():
            if name not in self._parts.ports:
                yield name, f"  {kind} {_range(width)}{name}{init};"

    def _inlined(self) -> dict[str, str]:
        """Wires without a name that are used once, and what to put in their place."""
        texts = [right for _, right in self._parts.assigns] + self._parts.clocked + self._parts.instances
        whole = Counter(name for text in texts for name in re.findall(_AUTO, text))
        anyhow = Counter(name for text in texts for name in re.findall(r"\b_\d+_\b", text))
        targets = Counter(name for left, _ in self._parts.assigns for name in re.findall(r"\b_\d+_\b", left))
        short = {left for left, right in self._parts.assigns if re.fullmatch(_SHORT, right)}
        once = {
            name
            for name, uses in whole.items()
            if uses == anyhow[name] and targets[name] == 1 and (uses == 1 or name in short)
        }
        inline: dict[str, str] = {}
        candidates = {left: right for left, right in self._parts.assigns if left in once}

        def place(name: str) -> None:
            right = candidates.pop(name)
            for inner in re.findall(_AUTO, right):
                if inner in candidates:
                    place(inner)
            kept = self._of_one_width(right, self._parts.declared[name][1])
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
        kind, width, _ = self._parts.declared.get(operand, ("signed", 0, ""))
        return 0 if kind.endswith("signed") else width


def _last(names: Mapping[str, str], name: str) -> str:
    while name in names:
        name = names[name]
    return name


def _renamed(names: Mapping[str, str], text: str) -> str:
    return re.sub(_ANONYMOUS, lambda found: names.get(found[0], found[0]), text)


def _names(text: str) -> set[str]:
    return set(re.findall(r"[A-Za-z_]\w*", text))


def _put(text: str, inline: Mapping[str, str]) -> str:
    return re.sub(_AUTO, lambda found: inline.get(found[0], found[0]), text)


def _choice(expression: str) -> tuple[str, str, str] | None:
    """Condition and both values of a plain choice."""
    found = re.fullmatch(rf"({_OPERAND}) \? ({_OPERAND}|{_LIST}) : ({_OPERAND}|{_LIST})", expression)
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
