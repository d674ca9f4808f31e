"""Verilog as Yosys writes it, made fit to read; nothing but names, layout and the wires of subexpressions changes.

Yosys gives every operation a wire of its own. Here such a wire goes where its value is used, once, in an expression of
one width: the widths of Verilog operands depend on what is around them, so arithmetic and whatever else could be
widened keeps its wire.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from .fields import Parts, name_fields
from .verilog_text import (
    ANONYMOUS,
    AUTO,
    COMPARE,
    LONGEST,
    OPERAND,
    SAID,
    SAME_WIDTH,
    SHORT,
    SIMPLE,
    after_gap,
    bare,
    choice_in,
    initial_of,
    last_name,
    lines_until,
    names_in,
    plain_names,
    put_in,
    range_of,
    renamed,
    wrapped,
)

__all__ = ["Source", "readable"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """What the component of a module says: its contract, and its ports in their order."""

    doc: str
    ports: Sequence[str]


def readable(text: str, sources: Mapping[str, Source]) -> dict[str, str]:
    """The modules of ``text``, as Yosys' ``write_verilog -noattr`` writes it, by name."""
    bodies = re.findall(r"^module .*?^endmodule$", text, re.MULTILINE | re.DOTALL)
    modules = (_Module(*plain_names(body)) for body in bodies)
    return {module.name: module.written(sources[module.name]) for module in modules}


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
                self._parts.memories.append(initial_of(lines_until(lines, "  end")))
            elif line == "  always @(posedge clk)":
                self._parts.clocked.append(next(lines))
            elif line.startswith("    else ") and self._parts.clocked:
                self._parts.clocked.append(line)
            elif line == "  always @(posedge clk) begin":
                self._parts.clocked += lines_until(lines, "  end")
            elif re.fullmatch(r"  \w+ +\w+ \(", line):
                self._parts.instances.append(
                    "\n".join([re.sub(r"(\S) +(\w)", r"\1 \2", line), *lines_until(lines, "  );"), "  );"])
                )
            else:
                raise RuntimeError(
                    f"this version of Yosys writes Verilog that hdl/flow/readable.py does not know: {line}"
                )

    def _merge_equal(self) -> None:
        """Keep one of the wires without a name that say the same, and none that says what has a name: Amaranth writes
        an expression wherever it is used."""
        parts, more = self._parts, True
        while more:
            first: dict[tuple[str, int], str] = {}
            same: dict[str, str] = {}
            for left, right in parts.assigns:
                if re.fullmatch(AUTO, left):
                    width = parts.declared[left][1]
                    other = right if parts.declared.get(right, ("", 0))[1] == width else left
                    kept = first.setdefault((right, width), other)
                    if kept != left:
                        same[left] = kept
            parts.assigns = [(left, right) for left, right in parts.assigns if left not in same]
            final = {name: last_name(same, name) for name in same}
            parts.everywhere(partial(renamed, final))
            more = bool(same)

    def _drop_unread(self) -> None:
        """Forget the wires that nobody reads, and those that only they read."""
        read = Counter(name for text in self._parts.clocked + self._parts.instances for name in names_in(text))
        read.update(self._parts.ports.keys())
        waiting = [(names_in(left), names_in(right), (left, right)) for left, right in self._parts.assigns]
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
        if (found := re.fullmatch(rf"! ({OPERAND})", expression)) and (width := self._width(found[1])) > 1:
            return f"{found[1]} == {width}'h0"
        choice = choice_in(expression)
        if choice and choice[1:] == ("1'h1", "1'h0"):
            return choice[0]
        if choice and choice[2] == "1'h0" and self._width(choice[0]) == self._width(choice[1]) == 1:
            return f"{choice[0]} & {choice[1]}"
        return expression

    def written(self, source: Source) -> str:
        """The module again."""
        parts = self._parts
        clocked = [line for statement in parts.clocked for line in self._decided(statement)]
        instances = [put_in(text, self._inline) for text in parts.instances]
        shown, kept = self._reached([*clocked, *instances])
        body = [
            *(line for name, line in self._wires() if name in kept or not re.fullmatch(AUTO, name)),
            *parts.memories,
            *after_gap(wrapped(f"  assign {left} = {shown[left]};") for left, _ in parts.assigns if left in shown),
            *after_gap(
                ["\n".join(["  always @(posedge clk) begin", *map(wrapped, clocked), "  end"])] if clocked else []
            ),
            *after_gap(instances),
            "endmodule\n",
        ]
        comment = [f"// {line}".rstrip() for line in source.doc.splitlines()]
        text = "\n".join([*comment, self._head(source.ports), *body])
        return renamed(self._named(shown, kept, [*clocked, *instances]), text)

    def _named(self, shown: Mapping[str, str], kept: set[str], read: list[str]) -> dict[str, str]:
        """Names for wires that have none: after what they are, or after what is made of them."""
        taken, names, again = set(self._parts.declared), dict[str, str](), Counter[str]()
        readers = {
            name: re.split(r"\W", left)[0]
            for left, right in reversed(list(shown.items()))
            for name in re.findall(ANONYMOUS, right)
        }
        for line in (line for text in read for line in text.splitlines()):
            # a register, a memory, or a pin of an instance
            reader = re.match(r" *(?:else )?(?:if \(.*\) )?\.?(\w+)[ \[(]", line)
            for name in re.findall(ANONYMOUS, line):
                readers.setdefault(name, reader[1] if reader else "shown")

        def name_of(name: str) -> str:
            if name not in kept:
                return name
            if name not in names:
                found = re.fullmatch(SIMPLE, shown.get(name, ""))
                if found:
                    one, how, other = found.groups()
                    sides = (re.sub(r"\W+", "_", re.sub(r"^\d+'h", "", side)).strip("_") for side in (one, other))
                    wanted = f"_{SAID[how]}_".join(sides)
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
        kept = {name for text in read for name in re.findall(ANONYMOUS, text)}
        while ready := [left for left in waiting if not (name := re.match(ANONYMOUS, left)) or name[0] in kept]:
            for left in ready:
                right = waiting.pop(left)
                width = self._width(left)
                shown[left] = bare((width and self._in_full(right, width)) or put_in(right, self._inline))
                kept.update(re.findall(ANONYMOUS, shown[left]))
        return shown, kept

    def _low_of_several(self, members: list[str], width: int) -> str | None:
        """The low bits of a concatenation, if they are whole members or a part of the last one."""
        taken: list[str] = []
        for member in reversed(members):
            own = self._width(member)
            if own >= width and not taken:
                return self._low(member, width)
            taken.insert(0, put_in(member, self._inline))
            width -= own
            if width <= 0:
                break
        return f"{{ {', '.join(taken)} }}" if width == 0 else None

    def _decided(self, statement: str) -> list[str]:
        """``statement`` of a clock edge, its choices written as such: reset first, then what else there is."""
        if found := re.fullmatch(r"    if \((_\d+_)\)", statement):
            return [f"    if ({bare(put_in(found[1], self._inline))})"]
        found = re.fullmatch(r"    (\w+) <= (_\d+_);", statement)
        if found is None:
            return [put_in(statement, self._inline)]
        return [f"    {line}" for line in self._choices(found[1], found[2])]

    def _choices(self, target: str, value: str) -> list[str]:
        """``target <= value``, nothing where it holds."""
        value = self._meant(value)
        choice = choice_in(self._value[value]) if value in self._once else None
        if choice is None:
            return [] if value == target else [f"{target} <= {self._leaf(value, target)};"]
        condition, then, otherwise = choice
        asked = f"if ({bare(put_in(self._meant(condition), self._inline))})"
        if self._meant(otherwise) == target:
            inner = self._choices(target, then)
            return [f"{asked} {inner[0]}"] if len(inner) == 1 else [asked, *(f"  {line}" for line in inner)]
        rest = self._choices(target, otherwise)
        return [f"{asked} {target} <= {self._leaf(then, target)};", *(f"else {line}" for line in rest[:1]), *rest[1:]]

    def _leaf(self, value: str, target: str) -> str:
        return bare(self._assigned(self._meant(value), self._width(target)))

    def _used_once(self) -> set[str]:
        """Wires without a name that are read in one place, and driven in one."""
        uses = Counter(name for text in self._parts.texts() for name in re.findall(r"\b_\d+_\b", text))
        return {left for left, _ in self._parts.assigns if re.fullmatch(AUTO, left) and uses[left] == 1}

    def _assigned(self, operand: str, width: int) -> str:
        """``operand`` of ``width`` bits as an assignment to as many can have it: what may be widened is cut there."""
        found = re.fullmatch(r"(_\d+_)(\[\d+:0\])?", operand)
        if found and found[1] in self._once and self._width(operand) == width:
            text = self._in_full(self._value[found[1]], width)
            if text is not None and len(text) <= LONGEST:
                return text
        return put_in(operand, self._inline)

    def _in_full(self, expression: str, width: int) -> str | None:
        """The low ``width`` bits of ``expression`` where an assignment gives it so many; None if it is not plain.

        Sums, bitwise operations and choices have the same low bits in any width of at least so many.
        """
        if choice := choice_in(expression):
            condition, then, otherwise = choice
            sides = [self._low(side, width) for side in (then, otherwise)]
            if None in sides:
                return None
            return f"({put_in(condition, self._inline)} ? {sides[0]} : {sides[1]})"
        if found := re.fullmatch(rf"({OPERAND}) ([-+*&|^]) ({OPERAND})", expression):
            sides = [self._low(side, width) for side in (found[1], found[3])]
            return None if None in sides else f"({sides[0]} {found[2]} {sides[1]})"
        if found := re.fullmatch(rf"~ ({OPERAND})", expression):
            side = self._low(found[1], width) if self._width(found[1]) >= width else None
            return None if side is None or "(" in side else f"~{side}"
        if re.fullmatch(OPERAND, expression):
            return self._low(expression, width)
        return None

    def _low(self, operand: str, width: int) -> str | None:
        """The low ``width`` bits of an operand, or all of it if it is shorter."""
        own = self._width(operand)
        if not own:
            return None
        if own <= width:
            return self._assigned(operand, width) if own == width else put_in(operand, self._inline)
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
        while operand in self._inline and re.fullmatch(OPERAND, self._value[operand]):
            operand = self._value[operand]
        return operand

    def _head(self, order: Sequence[str]) -> str:
        # of a port whose name is a word of Verilog, the plain name comes after it
        rank = {spelt: i for i, name in enumerate(("clk", "rst", *order)) for spelt in (f"{name}_", name)}
        ports = []
        for name in sorted(self._parts.ports, key=rank.__getitem__):
            kind, width, init = self._parts.declared[name]
            ports.append(f"  {self._parts.ports[name]:6} {kind} {range_of(width)}{name}{init}")
        return f"module {self.name} (\n" + ",\n".join(ports) + "\n);"

    def _wires(self) -> Iterator[tuple[str, str]]:
        for name, (kind, width, init) in self._parts.declared.items():
            if name not in self._parts.ports:
                yield name, f"  {kind} {range_of(width)}{name}{init};"

    def _inlined(self) -> dict[str, str]:
        """Wires without a name that are used once, and what to put in their place."""
        texts = [right for _, right in self._parts.assigns] + self._parts.clocked + self._parts.instances
        whole = Counter(name for text in texts for name in re.findall(AUTO, text))
        anyhow = Counter(name for text in texts for name in re.findall(r"\b_\d+_\b", text))
        targets = Counter(name for left, _ in self._parts.assigns for name in re.findall(r"\b_\d+_\b", left))
        short = {left for left, right in self._parts.assigns if re.fullmatch(SHORT, right)}
        once = {
            name
            for name, uses in whole.items()
            if uses == anyhow[name] and targets[name] == 1 and (uses == 1 or name in short)
        }
        inline: dict[str, str] = {}
        candidates = {left: right for left, right in self._parts.assigns if left in once}

        def place(name: str) -> None:
            right = candidates.pop(name)
            for inner in re.findall(AUTO, right):
                if inner in candidates:
                    place(inner)
            kept = self._of_one_width(right, self._parts.declared[name][1])
            if kept is not None and len(put := put_in(kept, inline)) <= LONGEST:
                inline[name] = put

        while candidates:
            place(next(iter(candidates)))
        return inline

    def _of_one_width(self, expression: str, width: int) -> str | None:
        """``expression`` in brackets if it has ``width`` bits and the same value wherever it stands, else None."""
        if re.fullmatch(r"\{[^?]*\}", expression) or re.fullmatch(OPERAND, expression):
            return expression if self._width(expression) == width else None
        if found := re.fullmatch(rf"([~|&^!]) ({OPERAND})", expression):
            if width > 1 or (found[1] == "~" and self._width(found[2]) > 1):
                return None
            return f"!{found[2]}" if found[1] == "~" else f"({found[1]}{found[2]})"
        if found := re.fullmatch(rf"({OPERAND}) (\S+) ({OPERAND})", expression):
            sides = self._width(found[1]), self._width(found[3])
            fits = width == 1 if found[2] in COMPARE else found[2] in SAME_WIDTH and sides == (width, width)
            return f"({expression})" if fits else None
        if choice := choice_in(expression):
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


def _always(clocked: Sequence[str]) -> list[str]:
    return ["\n".join(["  always @(posedge clk) begin", *map(wrapped, clocked), "  end"])] if clocked else []
