"""The equation of an Einsum, written out."""

from __future__ import annotations

from string import ascii_letters

from ..errors import InputError
from .graph import Node

__all__ = ["indices"]


def indices(node: Node) -> tuple[str, list[str], str]:
    """The equation of a node, and the letters of its operands and result, also of axes that ``...`` stands for.

    A result that is not written has the letters that occur once, in alphabetical order, behind those of the dots.
    """
    equation = bytes(node.attribute("equation", b"")).decode(errors="replace").replace(" ", "")
    left, arrow, out = equation.partition("->")
    terms = left.split(",")
    letters = left.replace(",", "").replace("...", "")
    named = letters + out.replace("...", "")
    # Of a scalar there is none to name: "->" is an equation.
    if (named and not (named.isalpha() and named.isascii())) or len(terms) != len(node.ins):
        raise InputError(f"equation {equation!r} does not name the axes of {len(node.ins)} operands")
    dots = []
    for term, tensor in zip(terms, node.ins, strict=True):
        left_over = (0 if tensor is None else len(tensor.shape)) - len(term.replace("...", ""))
        if left_over < 0 or (left_over and "..." not in term):
            at = "nothing" if tensor is None else f"{tensor.name!r}, which has {len(tensor.shape)} axes"
            raise InputError(f"{term!r} of equation {equation!r} does not fit {at}")
        dots.append(left_over)
    spare = "".join(letter for letter in ascii_letters if letter not in letters)[: max(dots)]
    if not arrow:
        out = "..." + "".join(sorted(one for one in set(letters) if letters.count(one) == 1))
    written = [term.replace("...", spare[len(spare) - count :]) for term, count in zip(terms, dots, strict=True)]
    return equation, written, out.replace("...", spare)
