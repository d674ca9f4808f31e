"""Fields of a struct by their names instead of as ranges of bits.

Amaranth emits a wire for every field, ``\\a.b`` of ``\\a``, which nobody reads: what reads or drives the bits names a
range. Here readers name the field, whatever is driven field by field becomes a wire or a register a field, and the
struct, where others still see it whole, their concatenation.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

__all__ = ["Parts", "name_fields"]

_ANONYMOUS = r"_\d+_"
_RANGE = re.compile(r"\b([A-Za-z_]\w*)\[(\d+)(?::(\d+))?\]")


@dataclass(slots=True, kw_only=True)
class Parts:
    """What a module is made of. ``declared``: kind, width and initial value of each name; ``fields``: whose part each
    dotted name is, by its first name."""

    ports: dict[str, str] = field(default_factory=dict)
    declared: dict[str, tuple[str, int, str]] = field(default_factory=dict)
    assigns: list[tuple[str, str]] = field(default_factory=list)
    clocked: list[str] = field(default_factory=list)
    memories: list[str] = field(default_factory=list)
    instances: list[str] = field(default_factory=list)
    fields: dict[str, str] = field(default_factory=dict)

    def everywhere(self, change: Callable[[str], str]) -> None:
        """Change every text that reads or drives something."""
        self.assigns = [(change(left), change(right)) for left, right in self.assigns]
        self.clocked = [change(text) for text in self.clocked]
        self.instances = [change(text) for text in self.instances]

    def texts(self) -> Iterator[str]:
        """All that reads something."""
        yield from (right for _, right in self.assigns)
        yield from self.clocked
        yield from self.instances

    def fresh(self) -> str:
        """A name for a wire that has none, in the manner of Yosys."""
        taken = {int(name[1:-1]) for name in self.declared if re.fullmatch(r"_\d+_", name)}
        return f"_{max(taken, default=0) + 1}_"


Bits = tuple[int, int]
"""The highest and the lowest of a range."""


def name_fields(parts: Parts) -> None:
    """Give every range of bits that is a field the name of the field."""
    known: dict[str, dict[Bits, str]] = {}
    for left, right in parts.assigns:
        if left not in parts.fields:
            continue
        if re.fullmatch(_ANONYMOUS, right):
            known.setdefault(right, {})[parts.declared[right][1] - 1, 0] = left
        elif found := _RANGE.fullmatch(right):
            names, bits = known.setdefault(found[1], {}), (int(found[2]), int(found[3] or found[2]))
            # of a struct of one field the field
            names[bits] = max(names.get(bits, ""), left, key=len)
    by_ranges = {found[1] for left, _ in parts.assigns if (found := _RANGE.fullmatch(left))}
    for base, names in list(known.items()):
        if re.fullmatch(_ANONYMOUS, base):
            whole = names.pop((parts.declared[base][1] - 1, 0), None)
            if whole is None:
                _split_wire(parts, base, names)
            else:
                known[whole] = names
                _rename(parts, base, whole)
        elif base in by_ranges:
            _split_wire(parts, base, names)
    for base in [left for statement in parts.clocked if (left := statement.split()[0]) in known]:
        _split_register(parts, base, known[base])
    aliases = {name for names in known.values() for name in names.values()}

    def named(text: str) -> str:
        def field_of(found: re.Match[str]) -> str:
            bits = int(found[2]), int(found[3] or found[2])
            return known.get(found[1], {}).get(bits, found[0])

        return _RANGE.sub(field_of, text)

    parts.assigns = [
        (left, right if left in aliases and _RANGE.fullmatch(right) else named(right))
        for left, right in parts.assigns
        if left
    ]
    parts.clocked = [named(text) for text in parts.clocked]
    parts.instances = [named(text) for text in parts.instances]


def _rename(parts: Parts, base: str, whole: str) -> None:
    """What has no name is ``whole``, a struct or a field."""
    _drop_alias(parts, whole)
    parts.declared[whole] = parts.declared.pop(base)
    parts.everywhere(lambda text: re.sub(rf"\b{base}\b", whole, text))


def _split_wire(parts: Parts, base: str, names: dict[Bits, str]) -> None:
    """What drives ranges of ``base`` drives the fields; if it has no name, they take its place in a concatenation."""
    driven = _driven(parts, base, names)
    if driven is None:
        return
    for bits, i in driven:
        _drop_alias(parts, names[bits])
        parts.assigns[i] = (names[bits], parts.assigns[i][1])
    members = ", ".join(names[bits] for bits, _ in reversed(driven))
    if re.fullmatch(_ANONYMOUS, base):
        parts.declared.pop(base)
        parts.everywhere(lambda text: re.sub(rf"\b{base}\b(?!\[)", members, text))
    else:
        parts.assigns.append((base, f"{{ {members} }}"))


def _driven(parts: Parts, base: str, names: dict[Bits, str]) -> list[tuple[Bits, int]] | None:
    """The fields of which ``base`` is driven, from the lowest up, and where; None if it is driven in another way."""
    driven = [(bits, i) for i, (left, _) in enumerate(parts.assigns) if (bits := _bits_of(left, base)) is not None]
    whole = sum(high - low + 1 for (high, low), _ in driven) == parts.declared[base][1]
    return sorted(driven, key=lambda place: place[0][1]) if whole and all(bits in names for bits, _ in driven) else None


def _split_register(parts: Parts, base: str, names: dict[Bits, str]) -> None:
    """``base <= { what drives its fields }``: a register a field."""
    statement = next((s for s in parts.clocked if re.fullmatch(rf"    {base} <= _\d+_;", s)), None)
    if statement is None:
        return
    following, (_, width, init) = statement.split()[2].rstrip(";"), parts.declared[base]
    driven = _driven(parts, following, names)
    if driven is None:
        return
    base_of = {"h": 16, "d": 10, "b": 2}
    digits = init.partition("'")[2]
    value = int(digits[1:], base_of[digits[0]])
    statements, members = [], []
    for (high, low), i in driven:
        name, drives, bits = names[high, low], parts.fresh(), high - low + 1
        _drop_alias(parts, name)
        parts.declared[name] = ("reg ", bits, f" = {bits}'h{value >> low & (1 << bits) - 1:x}")
        parts.declared[drives] = ("wire", bits, "")
        parts.assigns[i] = (drives, parts.assigns[i][1])
        statements.append(f"    {name} <= {drives};")
        members.append(name)
    at = parts.clocked.index(statement)
    parts.clocked[at : at + 1] = statements
    parts.declared[base] = ("wire", width, "")
    parts.declared.pop(following)
    parts.assigns.append((base, f"{{ {', '.join(reversed(members))} }}"))


def _drop_alias(parts: Parts, name: str) -> None:
    """Forget that a field is a range: something drives it itself."""
    for i, (left, right) in enumerate(parts.assigns):
        if left == name and name in parts.fields and (_RANGE.fullmatch(right) or re.fullmatch(_ANONYMOUS, right)):
            # stands for itself, so that places in the list do not change
            parts.assigns[i] = ("", "")
            return


def _bits_of(left: str, name: str) -> Bits | None:
    found = _RANGE.fullmatch(left)
    return (int(found[2]), int(found[3] or found[2])) if found and found[1] == name else None
