"""The rules of a machine's fields as data: what they say is what is checked."""

from __future__ import annotations

from dataclasses import MISSING, fields, is_dataclass, replace

import pytest

from weft.dataflow.accelerator import AcceleratorSpec
from weft.dataflow.config_io import load_spec
from weft.dataflow.gather.spec import GatherSpec
from weft.dataflow.ranges import FieldRule, Range, field_rules
from weft.dataflow.tree_spec import TreeSpec
from weft.dataflow.xnor.spec import XnorSpec
from weft.workloads.errors import InputError

RULES = list(field_rules(AcceleratorSpec))
WITH_RANGES = [rule for rule in RULES if isinstance(rule.allowed, Range)]


def _everything() -> AcceleratorSpec:
    """A machine with every table that one may have."""
    xnor, tree = XnorSpec(rows=4, cols=4), TreeSpec(lanes=2, word_bits=8)
    return replace(load_spec("sat-vcu1525"), xnor=xnor, gather=GatherSpec(lanes=2, width=2), tree=tree)


def _given(rule: FieldRule, value: object) -> AcceleratorSpec:
    spec = _everything()
    *table, name = rule.path.split(".")
    if not table:
        return replace(spec, **{name: value})
    return replace(spec, **{table[0]: replace(getattr(spec, table[0]), **{name: value})})


def test_every_field_has_a_rule_and_every_number_a_range():
    spec = _everything()
    tables = [(f"{f.name}.", getattr(spec, f.name)) for f in fields(spec) if is_dataclass(getattr(spec, f.name))]
    named = {prefix + f.name for prefix, table in [("", spec), *tables] for f in fields(table)}

    assert {rule.path for rule in RULES} == named - {prefix[:-1] for prefix, _ in tables}
    assert not [rule.path for rule in RULES if rule.allowed is int]


@pytest.mark.parametrize("rule", WITH_RANGES, ids=lambda rule: rule.path)
def test_a_range_is_what_is_checked(rule):
    """The least of ``pe.dense_words`` is a group, which 1 holds no longer where groups are of 16."""
    least = 16 if rule.path == "pe.dense_words" else rule.allowed.least
    most = 32 if rule.path == "pe.max_group" else rule.allowed.most
    _given(rule, least)
    _given(rule, most)

    for beyond in (rule.allowed.least - 1, rule.allowed.most + 1):
        with pytest.raises(InputError, match=rule.path):
            _given(rule, beyond)


@pytest.mark.parametrize("rule", [r for r in RULES if isinstance(r.allowed, tuple)], ids=lambda rule: rule.path)
def test_words_are_what_is_checked(rule):
    for word in rule.allowed:
        _given(rule, word)
    with pytest.raises(InputError, match=rule.allowed[-1]):
        _given(rule, "else")


def test_what_may_be_left_out_says_what_holds_then():
    by_path = {rule.path: rule for rule in RULES}

    assert by_path["dram.capacity_bytes"].optional and by_path["dram.capacity_bytes"].otherwise == "none"
    assert by_path["xnor.rows"].otherwise == "must be given in [xnor]" and by_path["xnor.word_bits"].otherwise == "64"
    assert by_path["clock_hz"].default is MISSING and by_path["clock_hz"].otherwise == "must be given"
    assert (by_path["wuve.pregenerate"].values, by_path["wuve.pregenerate"].otherwise) == ("true or false", "true")
    assert by_path["buffers.w2e_bytes"].values == "64 to 2^40"
