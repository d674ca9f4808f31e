"""Machines by columns: each refused, or made, exactly as its whole description would be."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from weft.analysis.explore.machines import Fleet, alike
from weft.dataflow.accelerator import AcceleratorSpec
from weft.dataflow.config_io import load_spec
from weft.workloads.errors import InputError

BASES = {name: load_spec(name) for name in ("sat-ecp5", "bnn-ecp5", "tiny")}
VALUES = {
    "arch": list(BASES),
    "pe.max_group": [1, 16, 32],
    "pe.dense_words": [1, 16, 4096],
    "xnor.word_bits": [8, 12, 64],
    "array.rows": [1, 1024],
    "sore.kind": ["serial", "network"],
    "wuve.pregenerate": [True, False],
    "clock_hz": [1000, 10**9],
}


def whole(at: dict) -> AcceleratorSpec:
    """The machine by its description, table by table in the order of the axes."""
    base, tables = BASES[at["arch"]], {}
    for name, value in at.items():
        table, dot, leaf = name.partition(".")
        if dot:
            tables.setdefault(table, {})[leaf] = value
    made = {}
    for table, own in tables.items():
        if getattr(base, table) is None:
            raise InputError(f"machine {base.name!r} has no [{table}]")
        made[table] = replace(getattr(base, table), **own)
    return replace(base, **made, **{name: at[name] for name in ("clock_hz",) if name in at})


@given(st.data())
def test_a_fleet_is_each_of_its_machines(data):
    names = ["arch", *data.draw(st.lists(st.sampled_from(list(VALUES)[1:]), unique=True, min_size=1))]
    points = data.draw(st.lists(st.fixed_dictionaries({n: st.sampled_from(VALUES[n]) for n in names}), min_size=1))
    columns = {n: np.array([p[n] for p in points], object if isinstance(VALUES[n][0], str) else None) for n in names}
    fleet = Fleet(BASES, "tiny", columns, len(points))

    for i, point in enumerate(points):
        at = {name: point[name] for name in names}
        try:
            expected = whole(at)
        except InputError as error:
            assert fleet.refused[i] == str(error)
            continue
        assert fleet.refused[i] == ""
        assert fleet.at(i) == expected
        assert fleet.some(np.array([i])) == [expected]
        for path in ("array.rows", "buffers.w2e_bytes", "clock_hz"):
            table, dot, leaf = path.partition(".")
            assert fleet.column(path)[i] == (getattr(getattr(expected, table), leaf) if dot else expected.clock_hz)
        there = expected.xnor is not None
        assert fleet.column("xnor.cols")[i] == pytest.approx(expected.xnor.cols if there else np.nan, nan_ok=True)


def test_no_rule_of_a_machine_looks_at_two_tables():
    """A fleet makes each table by itself; a rule across tables would have to be asked of whole machines."""
    assert AcceleratorSpec.__post_init__.__code__.co_names == ("require_ranges",)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2))))
def test_rows_that_are_alike(rows):
    codes = np.array(rows, np.int64).reshape(-1, 2)
    first, which = alike([(codes[:, 0], 4), (codes[:, 1], 3)], len(rows))

    kinds = list(dict.fromkeys(rows))
    assert [rows[i] for i in first] == kinds
    assert [kinds[k] for k in which] == rows
    assert first.tolist() == [rows.index(kind) for kind in kinds]
