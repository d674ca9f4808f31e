"""Layers of equal shape are one group, whose name stands for exactly the layers in it."""

from __future__ import annotations

from itertools import product

from hypothesis import given
from hypothesis import strategies as st

from weft.analysis.layer_groups import bar_labels, equal_layers, ops_of_bars, short_labels
from weft.simulator.result import SimResult
from weft.workloads.gemm import Gemm, Pass
from weft.workloads.step import Workload

from .conftest import matrix, relu, run

PLACES = st.tuples(st.sampled_from("ab"), st.integers(0, 9), st.integers(0, 3))


def simulated(layers: dict[str, int]) -> SimResult:
    """A step with a product of ``size`` columns and an activation beside it in every layer."""
    ops = [
        op
        for name, size in layers.items()
        for op in (matrix(name, Pass.FF, Gemm(m=8, k=8, n=size)), relu(f"{name}.act", size, Pass.FF))
    ]
    return run("dense", workload=Workload(model="toy", batch=1, ops=tuple(ops)))


def stood_for(name: str) -> list[str]:
    """Every layer that the name of a group stands for."""
    parts = []
    for part in name.split("."):
        ends = [piece.split("-") for piece in part.split(",")] if part[0].isdigit() else []
        parts.append([str(n) for end in ends for n in range(int(end[0]), int(end[-1]) + 1)] or [part])
    return [".".join(found) for found in product(*parts)]


@given(st.dictionaries(PLACES, st.sampled_from((8, 16)), min_size=1, max_size=12))
def test_a_group_holds_what_its_name_says_and_one_shape(places: dict[tuple[str, int, int], int]) -> None:
    sizes = {f"{head}.{block}.fc.{n}": size for (head, block, n), size in places.items()}
    group_of = equal_layers(simulated(sizes))

    assert set(group_of) == {name for layer in sizes for name in (layer, f"{layer}.act")}
    for group in set(group_of.values()):
        inside = {layer for layer, its in group_of.items() if its == group}
        assert len({sizes[layer.removesuffix(".act")] for layer in inside}) == 1
        if "…" not in group:
            assert set(stood_for(group)) == inside


def test_repeated_blocks_are_one_row_and_others_stay_apart() -> None:
    sizes = {"in.fc": 8, **{f"net.{i}.{part}": 8 for i in range(12) for part in ("up", "down")}, "net.12.up": 16}
    groups = list(dict.fromkeys(equal_layers(simulated(sizes)).values()))

    assert [name for name in groups if "act" not in name] == ["in.fc", "net.0-11.up", "net.0-11.down", "net.12.up"]
    assert "net.0-11.up" in ops_of_bars(simulated(sizes))


def test_a_gap_is_told_and_many_are_a_range_with_a_count() -> None:
    def named(*numbers: int) -> set[str]:
        found = equal_layers(simulated({f"l.{n}.fc": 8 for n in numbers})).values()
        return {name for name in found if not name.endswith("act")}

    assert named(0, 1, 2, 5) == {"l.0-2,5.fc"}
    assert named(0, 2, 4, 6) == {"l.0…6.fc"}


def test_a_name_that_is_too_long_keeps_whole_words() -> None:
    assert short_labels(["encoder.layer.0-11.output.dense", "b"], 18) == ["…0-11.output.dense", "b"]
    assert bar_labels({"encoder.output.dense": 12, "b": 1}, 17) == ["…output.dense ×12", "b"]
