"""Place and route by stages, each bounded in processor time."""

from __future__ import annotations

from dataclasses import replace

import pytest

from weft.dataflow.config_io import load_spec
from weft.hdl.flow import tools
from weft.hdl.flow.staged import attempt
from weft.hdl.flow.tools import OutOfTimeError, run_tool
from weft.hdl.registry import BLOCKS


def test_a_tool_is_ended_when_its_processor_time_is_used_up(tmp_path, monkeypatch):
    (tmp_path / "spinning.py").write_text(
        "def spin(_):\n    print('spins', flush=True)\n    while True:\n        pass\n"
    )
    monkeypatch.setitem(tools.TOOLS, "spinner", ("spinning", "spin"))
    monkeypatch.setattr(tools, "_private_machine_code", dict)
    heard = []

    with pytest.raises(OutOfTimeError, match="spinner had not finished after 1 s of processor time"):
        run_tool("spinner", [], tmp_path, heard.append, processor_s=1)
    assert heard == ["spins\n"]


def test_a_tool_that_fails_within_its_time_has_failed(tmp_path, monkeypatch):
    (tmp_path / "failing.py").write_text("def fail(_):\n    return 3\n")
    monkeypatch.setitem(tools.TOOLS, "failing", ("failing", "fail"))
    monkeypatch.setattr(tools, "_private_machine_code", dict)

    with pytest.raises(RuntimeError, match="failing failed"):
        run_tool("failing", [], tmp_path, processor_s=9)


@pytest.mark.slow
def test_an_array_of_one_is_placed_once_by_a_placer_and_routed_by_either_router():
    spec = load_spec("tiny")
    spec = replace(spec, array=replace(spec.array, rows=1, cols=1))
    said = []
    first, second, other = (
        attempt(spec, BLOCKS["stce"], 80, by, 600, said.append)
        for by in (("heap", "router1"), ("heap", "router2"), ("static", "router2"))
    )
    stopped = attempt(spec, BLOCKS["stce"], 81, ("heap", "router1"), 1, said.append)

    assert first.placed == second.placed and first.placed.finished
    assert first.sites == second.sites and first.sites["MULT18X18D"] == (1, 156)
    assert first.mhz is not None and second.mhz is not None and min(first.mhz, second.mhz) > 40
    assert len({(x.mhz, x.critical) for x in (first, second, other)}) == 3, "by placer and by router"
    assert other.sites == first.sites and (other.placer, other.router) == ("static", "router2")
    assert not stopped.placed.finished and stopped.routed is None and stopped.mhz is None
