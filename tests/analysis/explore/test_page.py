"""The page of explored machines: what it draws is counted right, says what it lacks, stays small, and loads nothing."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from weft._cli.explore import show
from weft.analysis.explore.page.cuts import cut
from weft.analysis.explore.page.drawn import MOST_CORNERS, importance_rows
from weft.analysis.explore.page.folder import Results, read_results
from weft.analysis.explore.page.front_rows import MOST_SHOWN, shown_rows
from weft.analysis.explore.page.page import explore_page
from weft.analysis.explore.page.points import FolderPoints, FramePoints
from weft.analysis.explore.page.summary import Share, Summary
from weft.workloads.errors import InputError

from ..results import HOSTILE
from ..test_report import Outline
from .explored import AXES, large, small, summary_of, write

MOST_MARKS, MOST_BYTES = 56 * 56, 15e6
CHARTS = {"front", "parallel", "importances", "slice", "statuses", "refused"}


def made(folder: Path) -> str:
    results = read_results(folder)
    return explore_page(results, cut(results.points, results.summary), f"Title {HOSTILE}")


def drawn_in(page: str) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert found is not None
    data: dict[str, Any] = json.loads(found[1])
    return data


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("explored") / "all", small())


@pytest.fixture(scope="module")
def page(folder: Path) -> str:
    return made(folder)


def kinds(page: str) -> list[str | None]:
    return [a["data-kind"] for _, a in Outline(page).found if a.get("class") == "plot"]


def arrays(value: Any) -> Iterator[list[Any]]:
    """Every list in what is drawn, and those in them."""
    if isinstance(value, list):
        yield value
    if isinstance(value, list | dict):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from arrays(inner)


def test_the_page_is_ordered_labelled_and_loads_nothing(page: str) -> None:
    outline = Outline(page)
    levels = [int(tag[1]) for tag, _ in outline.found if re.fullmatch(r"h[1-6]", tag)]
    ids = [a["id"] for _, a in outline.found if "id" in a]

    assert levels[0] == 1 and levels.count(1) == 1 and all(b <= a + 1 for a, b in pairwise(levels))
    assert len(ids) == len(set(ids))
    for _, attributes in outline.found:
        for name in ("aria-labelledby", "aria-controls"):
            assert attributes.get(name) is None or attributes[name] in ids
    assert all(a["href"] in {f"#{i}" for i in ids} for a in outline.named("a"))
    assert set(kinds(page)) == CHARTS and kinds(page).count("slice") == len(AXES)
    assert all(a["aria-label"] for _, a in outline.found if a.get("class") == "plot")
    assert len(outline.named("table")) == len(outline.named("caption"))
    assert not any({"src", "srcset", "action", "data"} & set(a) for _, a in outline.found)
    assert not {"link", "img", "iframe", "object"} & {tag for tag, _ in outline.found}
    policy = next(a["content"] for a in outline.named("meta") if a.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None and policy.startswith("default-src 'none'")


def test_what_is_drawn_is_what_the_points_say(page: str) -> None:
    frame, front, _ = small()
    drawn, ran = drawn_in(page), frame[frame["status"] == "runs"]

    assert {one["label"]: one["points"] for one in drawn["statuses"]} == frame["status"].value_counts().to_dict()
    assert len(drawn["pairs"]) == 6 and all(sum(pair["runs"]["n"]) == len(ran) for pair in drawn["pairs"])
    assert all(sum(one["of"][0]["n"]) == len(ran) for one in drawn["slices"])
    assert [one["label"] for one in drawn["slices"]] == list(AXES)
    cycles = next(p for p in drawn["pairs"] if (p["x"], p["y"]) == (0, 1))["front"]
    assert min(cycles["x"]) == pytest.approx(ran["cycles"].min())
    assert min(cycles["y"]) == ran["pes"].min()
    shown = pd.DataFrame(
        {"cycles": drawn["front"]["values"][0], "point": [d["point"] for d in drawn["front"]["details"]]}
    )
    assert shown.set_index("point")["cycles"].to_dict() == front.set_index("point")["cycles"].to_dict()
    for detail in drawn["front"]["details"]:
        row = front.set_index("point").loc[detail["point"]]
        assert dict(detail["axes"]) == {name: f"{int(row[name]):,}" for name in AXES}
        assert dict(detail["numbers"])["cycles"] == f"{int(row['cycles']):,}"
        assert dict(detail["numbers"])["system gap"] == "-1.00 %" and "joules" not in dict(detail["numbers"])


def test_the_verdict_says_how_many_and_where_the_ends_are(page: str) -> None:
    frame, front, summary = small()
    best = front.loc[front["cycles"].idxmin()]

    assert f"{len(front)} of {len(frame)} machines are the front for resnet9" in page
    assert f"point {int(best['point'])}: array.rows {int(best['array.rows'])}, " in page
    assert summary["advice"][0] in page and summary["command"] in page


@pytest.mark.parametrize(
    ("key", "said", "gone"),
    [
        ("objectives", "A front needs two objectives", {"front", "slice"}),
        ("importances", "explore.json has no importances", {"importances"}),
        ("refused_by", "explore.json has no refused_by", {"refused"}),
        ("axes", "no axis that takes more than one value", {"slice"}),
        ("advice", "No advice: explore.json holds none", set()),
        ("machine", "machines are the front", set()),
    ],
)
def test_what_the_summary_does_not_say_is_absent_and_named(key: str, said: str, gone: set[str]) -> None:
    frame, front, summary = small()
    left = {name: value for name, value in summary.items() if name != key}
    results = Results(points=FramePoints(frame), front=front, summary=summary_of((frame, front, left)))
    page = explore_page(results, cut(results.points, results.summary), "t")

    assert said in page and CHARTS - set(kinds(page)) - {"parallel"} == gone


def test_nothing_is_needed_but_the_points() -> None:
    frame, *_ = small()
    nothing = summary_of((frame, None, {}))
    for rows in (frame, frame[frame["status"] == "refused"], frame.iloc[:0]):
        points = FramePoints(rows)
        page = explore_page(Results(points=points, front=None, summary=nothing), cut(points, nothing), "t")
        assert set(kinds(page)) == {"statuses"} and f"{len(rows):,} machines" in page


def test_the_page_shows_a_sweep_that_has_not_ended() -> None:
    frame, front, said = small()
    few = frame.iloc[:100]
    results = Results(points=FramePoints(few), front=front.iloc[:0], summary=summary_of((few, None, said)))
    page = explore_page(results, cut(results.points, results.summary), "t")

    assert f"The space has {len(frame)} machines; 100 have been decided so far" in page


def test_names_are_text(tmp_path: Path) -> None:
    frame, front, said = small()
    named = {"array.rows": f"array.{HOSTILE}"}
    said = {
        **said,
        "model": HOSTILE,
        "command": HOSTILE,
        "advice": [HOSTILE],
        "refused_by": {HOSTILE: 3},
        "axes": {named.get(name, name): values for name, values in said["axes"].items()},
        "importances": {"cycles": [{"axis": HOSTILE, "share": 1.0}]},
    }
    frame = frame.assign(status=frame["status"].replace("left out", HOSTILE)).rename(columns=named)
    page = made(write(tmp_path / "hostile", (frame, front.rename(columns=named).assign(reason=HOSTILE), said)))
    outline = Outline(page)

    assert "<script>alert" not in page and len(outline.named("script")) == 3
    assert not any(name.startswith("on") for _, attributes in outline.found for name in attributes)
    assert sum(HOSTILE in text for text in outline.texts) > 10


def test_a_tied_field_is_among_the_axes_of_a_point(tmp_path: Path) -> None:
    frame, front, said = small()
    frame, front = (one.assign(tied=one["array.rows"]).rename(columns={"tied": "xnor.rows"}) for one in (frame, front))
    page = made(write(tmp_path / "tied", (frame, front, {**said, "tied": {"xnor.rows": "array.rows"}})))

    for one in drawn_in(page)["front"]["details"]:
        axes = dict(one["axes"])
        assert list(axes) == [*AXES, "xnor.rows"] and axes["xnor.rows"] == axes["array.rows"]


def test_reports_are_linked_from_where_the_page_lies(tmp_path: Path) -> None:
    frame, front, said = small()
    first, second = front["point"].iloc[:2].tolist()
    folder = write(tmp_path / "a folder", (frame, front, said))
    report = folder / "reports" / str(first) / "report.html"
    report.parent.mkdir(parents=True)
    report.write_text("a report")

    assert read_results(folder).reports == {first: f"reports/{first}/report.html"}
    elsewhere = read_results(folder, tmp_path / "pages" / "one.html")
    assert elsewhere.reports == {first: f"../a%20folder/reports/{first}/report.html"}
    drawn = drawn_in(explore_page(elsewhere, cut(elsewhere.points, elsewhere.summary), "t"))["front"]
    points = [one["point"] for one in drawn["details"]]
    assert drawn["reports"][points.index(first)] and drawn["reports"][points.index(second)] is None
    assert drawn["place"] == f"'{folder}'"


KINDS = {
    "whole": st.integers(-3, 10**12),
    "real": st.floats(1e-9, 1e9),
    "word": st.sampled_from(["a", "b", "<i>", ""]),
    "flag": st.booleans(),
    "maybe": st.none() | st.integers(1, 3),
}


@st.composite
def tables(draw: st.DrawFn) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Points of all kinds of axes, of which anything may not be known."""
    rows = draw(st.integers(0, 12))
    frame = pd.DataFrame({"point": range(rows)})
    axes = draw(st.lists(st.sampled_from(list(KINDS)), unique=True))
    for name in axes:
        values = draw(st.lists(KINDS[name], min_size=rows, max_size=rows))
        frame[name] = pd.array(values, dtype="Int64") if name == "maybe" else values
    statuses = st.sampled_from(["runs", "left out", "refused", "no room"])
    frame["status"] = draw(st.lists(statuses, min_size=rows, max_size=rows))
    for name in ("cycles", "bound_cycles"):
        frame[name] = draw(st.lists(st.integers(0, 2**62), min_size=rows, max_size=rows))
    for name in ("joules", "lut", "samples_per_second"):
        numbers = st.floats(-1e100, 1e100) | st.sampled_from([float("nan"), float("inf"), 0.0])
        frame[name] = draw(st.lists(numbers, min_size=rows, max_size=rows))
    names = draw(st.lists(st.sampled_from(["cycles", "joules", "lut", "samples_per_second"]), unique=True))
    directions = st.sampled_from(["min", "max"])
    objectives = [{"name": name, "direction": draw(directions), "unit": ""} for name in names]
    return frame, {"axes": {name: [] for name in axes}, "objectives": objectives}


@settings(max_examples=15, phases=[Phase.explicit, Phase.generate])
@given(tables())
def test_whatever_the_points_hold_there_is_a_page(made: tuple[pd.DataFrame, dict[str, Any]]) -> None:
    frame, said = made
    front = frame[frame["status"] == "runs"]
    results = Results(points=FramePoints(frame), front=front, summary=summary_of((frame, front, said)))
    page = explore_page(results, cut(results.points, results.summary), "t")

    Outline(page)
    assert sum(one["points"] for one in drawn_in(page)["statuses"]) == len(frame)


def assert_small(page: str) -> None:
    assert len(page.encode()) < MOST_BYTES
    longest = max(map(len, arrays(drawn_in(page))))
    assert longest <= max(MOST_MARKS, MOST_CORNERS)


@pytest.mark.parametrize(
    ("shares", "drawn"), [({"rows": 0.7, "cols": 0.0006, "rows x cols": 0.0004}, ["rows", "cols"]), ({"a": 0.0}, ["a"])]
)
def test_importances_that_no_bar_shows_are_not_drawn(shares: dict[str, float], drawn: list[str]) -> None:
    found = importance_rows(Summary(importances={"seconds": [Share(*share) for share in shares.items()]}))

    assert found is not None
    assert [row["label"] for row in found["rows"]] == drawn


def test_many_points_make_no_large_page(folder: Path, page: str) -> None:
    found = large(60_000)
    results = Results(points=FramePoints(found[0]), front=found[1], summary=summary_of(found))
    many = explore_page(results, cut(results.points, results.summary), "t")

    for one in (page, many):
        assert_small(one)
    # What is beside plotly's script does not grow with the points.
    script = re.search(r'id="plotly">(.*?)</script>', page)
    assert script is not None and len(many) - len(script[1]) < 600_000


@pytest.mark.slow
def test_a_million_points_make_no_large_page(tmp_path: Path) -> None:
    folder = write(tmp_path / "million", large(1_000_000), part=10_000)
    page = made(folder)

    assert_small(page)
    assert sum(one["points"] for one in drawn_in(page)["statuses"]) == 1_000_000


def test_no_more_rows_are_held_than_two_parts_have(tmp_path: Path) -> None:
    frame = large(300_000)[0]
    (tmp_path / "points").mkdir()
    for number, start in enumerate(range(0, len(frame), 50_000)):
        frame.iloc[start : start + 50_000].to_parquet(tmp_path / "points" / f"{number:06}.parquet")
    points = FolderPoints(tmp_path)
    parts = [part["point"].to_pylist() for part in points.parts(["point", "cycles"])]

    assert max(map(len, parts)) <= 2 * 2**17
    assert [n for part in parts for n in part] == list(range(len(points))) == list(range(300_000))


def test_of_a_large_front_the_ends_are_shown_and_some_between() -> None:
    n = 5000
    front = pd.DataFrame({"point": range(n), "cycles": range(n, 0, -1), "pes": range(n), "joules": [1.0] * n})
    objectives = summary_of((front, None, small()[2])).objectives or ()
    shown = shown_rows(front, objectives)

    assert 100 < len(shown) <= MOST_SHOWN and {0, n - 1} <= set(shown["point"])
    assert shown["cycles"].is_monotonic_increasing


def test_the_command_writes_page_and_figures_and_equal_bytes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    frame, front, said = small()
    folder = write(tmp_path / "two objectives", (frame, front, {**said, "objectives": said["objectives"][:2]}))
    first, second = tmp_path / "one" / "p.html", tmp_path / "two" / "p.html"
    for path in (first, second):
        show(folder, path)
        assert "864 machines" in capsys.readouterr().out
    names = sorted(path.name for path in first.parent.iterdir())

    stems = ("p-front-cycles-pes", "p-axes", "p-importances")
    assert names == sorted(["p.html", *(f"{stem}.{form}" for stem in stems for form in ("png", "pdf"))])
    for name in names:
        data = (first.parent / name).read_bytes()
        assert data == (second.parent / name).read_bytes()
        assert data.startswith({"png": b"\x89PNG", "pdf": b"%PDF", "html": b"<!DOCTYPE"}[name.rsplit(".", 1)[1]])


def test_bad_folders_are_refused(tmp_path: Path, folder: Path) -> None:
    def spoilt(name: str) -> Path:
        return Path(shutil.copytree(folder, tmp_path / name))

    with pytest.raises(InputError, match="is no folder"):
        read_results(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"explore\.json: is not there"):
        read_results(tmp_path)
    (spoilt("a") / "explore.json").write_text('{"objectives": [{"name": "cycles", "direction": "down"}]}')
    with pytest.raises(InputError, match=r"objectives.*direction"):
        read_results(tmp_path / "a")
    shutil.rmtree(spoilt("b") / "points")
    with pytest.raises(InputError, match="holds no points"):
        read_results(tmp_path / "b")
    (spoilt("c") / "points" / "000001.parquet").write_bytes(b"PAR1 no parquet")
    with pytest.raises(InputError, match="Parquet"):
        cut(read_results(tmp_path / "c").points, read_results(tmp_path / "c").summary)
    pd.DataFrame({"point": [1], "status": [3]}).to_parquet(tmp_path / "c" / "points" / "000001.parquet")
    with pytest.raises(InputError, match=r"000001\.parquet"):
        cut(read_results(tmp_path / "c").points, read_results(tmp_path / "c").summary)
    frame = small()[0].astype({"pes": str})
    frame.to_parquet(tmp_path / "c" / "points" / "000001.parquet")
    with pytest.raises(InputError, match=r"000001\.parquet"):
        cut(read_results(tmp_path / "c").points, read_results(tmp_path / "c").summary)
    (spoilt("d") / "front.parquet").write_bytes(b"no parquet")
    with pytest.raises(InputError, match=r"front\.parquet"):
        read_results(tmp_path / "d")
    pd.DataFrame({"cycles": [1]}).to_parquet(spoilt("e") / "front.parquet")
    with pytest.raises(InputError, match="no column 'point'"):
        read_results(tmp_path / "e")


@pytest.mark.skipif(shutil.which("node") is None, reason="needs node")
def test_the_script_is_a_script(page: str, tmp_path: Path) -> None:
    script = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    assert len(script) == 1
    (tmp_path / "page.js").write_text(script[0], encoding="utf-8")
    done = subprocess.run(["node", "--check", tmp_path / "page.js"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
