"""Verilog as text: the patterns of the expressions that Yosys writes, and what is done to a line of it."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence

__all__ = [
    "ANONYMOUS",
    "AUTO",
    "COMPARE",
    "LONGEST",
    "OPERAND",
    "SAID",
    "SAME_WIDTH",
    "SHORT",
    "SIMPLE",
    "after_gap",
    "bare",
    "choice_in",
    "initial_of",
    "last_name",
    "lines_until",
    "names_in",
    "plain_names",
    "put_in",
    "range_of",
    "renamed",
    "wrapped",
]

_WIDTH = 118
LONGEST = 96
"""Characters of an expression that may still go into another one."""

# IEEE 1364-2001, annex B, and IEEE 1800-2012, annex B, as far as anybody would call a signal so: a tool may read either
_KEYWORDS = frozenset(
    """
    always and assign begin buf case cell config design edge else end event for force fork function if initial inout
    input instance integer join large library macromodule medium module nand negedge nor not or output parameter
    posedge real realtime reg release repeat scalared signed small strong0 strong1 supply0 supply1 table task time
    tri unsigned use vectored wait wand weak0 weak1 while wire wor xnor xor bit byte do final int logic priority ref
    return static string struct this type union unique var void with
    alias assert assume before bind bins binsof break chandle checker class clocking const constraint context continue
    cover cross dist enum eventually expect export extends extern first_match foreach global iff ignore_bins implements
    implies import inside interconnect interface intersect let local longint matches modport nettype new nexttime null
    package packed process program property protected pure rand randc reject_on restrict sequence shortint shortreal
    soft solve strong super sync_accept_on tagged throughout timeprecision timeunit typedef unique0 until untyped
    virtual wait_order weak wildcard within
    """.split()  # noqa: SIM905
)
AUTO = r"\b_\d+_\b(?!\s*\[)"
ANONYMOUS = r"\b_\d+_\b"
LIST = r"\{ [^{}?]* \}"
OPERAND = r"[A-Za-z_]\w*(?:\[\d+(?::\d+)?\])?|\d+'[hdb][0-9a-f]+"
SHORT = r"[|!] [A-Za-z]\w*|[A-Za-z]\w* == \d+'h\d"
"""What may stand wherever it is read instead of once under a name."""
SIMPLE = r"([a-zA-Z][\w\[\]:]*) ([-+<]|<=|==) ([a-zA-Z][\w\[\]:]*|\d+'h\w+)"
SAID = {"+": "plus", "-": "minus", "<": "below", "<=": "up_to", "==": "is"}
SAME_WIDTH = frozenset("&|^")
COMPARE = frozenset(("==", "!=", "<", "<=", ">", ">=", "&&", "||"))


def plain_names(body: str) -> tuple[str, dict[str, str]]:
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


def last_name(names: Mapping[str, str], name: str) -> str:
    while name in names:
        name = names[name]
    return name


def renamed(names: Mapping[str, str], text: str) -> str:
    return re.sub(ANONYMOUS, lambda found: names.get(found[0], found[0]), text)


def names_in(text: str) -> set[str]:
    return set(re.findall(r"[A-Za-z_]\w*", text))


def put_in(text: str, inline: Mapping[str, str]) -> str:
    return re.sub(AUTO, lambda found: inline.get(found[0], found[0]), text)


def choice_in(expression: str) -> tuple[str, str, str] | None:
    """Condition and both values of a plain choice."""
    found = re.fullmatch(rf"({OPERAND}) \? ({OPERAND}|{LIST}) : ({OPERAND}|{LIST})", expression)
    return (found[1], found[2], found[3]) if found else None


def bare(expression: str) -> str:
    """``expression`` without brackets that enclose all of it."""
    if not expression.startswith("("):
        return expression
    depth = 0
    for i, character in enumerate(expression):
        depth += (character == "(") - (character == ")")
        if depth == 0:
            return expression[1:-1] if i == len(expression) - 1 else expression
    return expression


def lines_until(lines: Iterator[str], last: str) -> list[str]:
    return list(iter(lambda: next(lines), last))


def initial_of(lines: Sequence[str]) -> str:
    """The first contents of a memory, in one line where all words are the same."""
    words = [re.fullmatch(r"    (\w+)\[(\d+)\] = (\S+);", line) for line in lines]
    values = {found[3] for found in words if found}
    if None in words or len(values) > 1 or words[0] is None:
        raise RuntimeError("memories that hold anything but one value at first are not written yet")
    name, index = words[0][1], f"{words[0][1]}_word"
    loop = f"for ({index} = 0; {index} < {len(words)}; {index} = {index} + 1) {name}[{index}] = {values.pop()};"
    return f"  integer {index};\n  initial {loop}"


def range_of(width: int) -> str:
    return f"[{width - 1}:0] " if width > 1 else ""


def after_gap(lines: Iterator[str] | Sequence[str]) -> list[str]:
    """``lines`` after an empty one, if there are any."""
    found = list(lines)
    return ["", *found] if found else []


def wrapped(line: str) -> str:
    indent = len(line) - len(line.lstrip())
    return "\n".join(
        textwrap.wrap(
            line, _WIDTH, subsequent_indent=" " * (indent + 4), break_long_words=False, break_on_hyphens=False
        )
    )
