"""`weft tree`: a network trained with the term and without it, one JSON document, and what is refused."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import weft
from weft.analysis.trees import LayerTree, TreeAccount
from weft.cli import main
from weft.dataflow.spanning_tree import TreeEngine, tree_cost
from weft.workloads.spanning_tree import spanning_tree
from weft.workloads.training import binary_layers, plan, resume, train

from .examples_drawn import FULL

EPOCHS = 6


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folders = {}
    for scheme, options in (("bireal", {}), ("mst", {"full": 0.1})):
        folders[scheme] = tmp_path_factory.mktemp("runs") / scheme
        train(plan("mlp", scheme=scheme, epochs=EPOCHS, options=options), folders[scheme])
    return folders


def documents(capsys: pytest.CaptureFixture[str], *args: object) -> list[dict[str, Any]]:
    assert main(["tree", *map(str, args), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert isinstance(found, list)
    return found


def test_the_term_saves_bits_and_the_numbers_are_those_of_the_weights(
    runs: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    plain, pulled = documents(capsys, runs["bireal"], runs["mst"])

    assert [found["scheme"] for found in (plain, pulled)] == ["bireal", "mst"]
    assert pulled["total"]["compared"] < 0.8 * plain["total"]["compared"]
    assert pulled["accuracy"] > 0.8
    for found in (plain, pulled):
        (layer,) = found["layers"]
        assert (layer["layer"], layer["channels"], layer["k"], layer["positions"]) == ("3", 256, 256, 1)
        assert found["total"]["compared_plain"] == found["total"]["stored_plain"] == 256 * 256
        assert found["total"]["stored"] == layer["cost"]["stored"]

    # The least total distance, by Kruskal's algorithm on the trained weights themselves.
    weights = binary_layers(resume(runs["mst"]))["3"].weights[0]
    apart = (weights[:, None] != weights).sum(2)
    joined, total = list(range(256)), 0
    for i, j in sorted(zip(*np.triu_indices(256, 1), strict=True), key=lambda edge: apart[edge]):
        if joined[i] != joined[j]:
            total += int(apart[i, j])
            joined = [joined[j] if of == joined[i] else of for of in joined]
    assert pulled["total"]["compared"] == 256 + total


def test_the_table_has_a_line_a_layer_and_fits_a_screen(
    runs: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["tree", str(runs["mst"]), "--inverse", "--lanes", "4"]) == 0
    out = capsys.readouterr().out

    assert re.search(r"^ 3 +256 +256 +1 +[0-9.]+ % +[0-9.]+ % +[0-9.]+ % +\d+ +[0-9.]+ % *$", out, re.MULTILINE)
    assert "mst, test accuracy" in out and "on 4 lanes of 32 bits" in out


def test_what_holds_no_binary_training_is_refused(
    tmp_path: Path, runs: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    train(plan("mlp", scheme="dense", epochs=1, batch=1085), tmp_path / "dense")
    for args, said in (
        ([tmp_path], "holds no finished training: it has no result.json"),
        ([tmp_path / "dense"], "scheme 'dense' does not train binary weights"),
        ([runs["mst"], "--lanes", "0"], "lanes of a tree engine must be an integer from 1"),
    ):
        assert main(["tree", *map(str, args)]) == 2
        assert said in " ".join(capsys.readouterr().err.split())


def test_the_example_puts_both_side_by_side() -> None:
    names: dict[str, Any] = {"__name__": "example"}
    exec((Path(weft.__file__).parent / "examples" / "spanning_tree.py").read_text(), names)
    head, plain, pulled = names["table"](None if FULL else 6).splitlines()

    assert head.split() == ["scheme", "accuracy", "compared", "stored", "cycles", "levels"]
    shares = [float(line.split()[2].rstrip("%")) for line in (plain, pulled)]
    assert shares[1] < 0.8 * shares[0]


def test_an_account_weighs_layers_by_their_positions() -> None:
    """Two layers of four channels that have a one each, in places of their own; one of them at nine positions."""
    tree = spanning_tree(np.eye(4, 8, dtype=np.bool_))
    engine = TreeEngine(lanes=2, word_bits=4, positions=2)
    cost = tree_cost(tree, engine)
    layers = tuple(LayerTree(layer=str(n), groups=1, channels=4, k=8, positions=n, cost=cost) for n in (1, 9))
    found = TreeAccount(name="two", scheme="mst", accuracy=0.5, engine=engine, layers=layers)

    assert (found.compared, found.compared_plain) == (10 * (8 + 3 * 2), 10 * 32)
    # A level of the root, two words on a lane, and one of three channels at two positions: three tasks of a word each.
    assert (found.cycles, found.cycles_plain) == (10 * (2 + 1 + 3 + 1), 10 * 4 * 2)
    assert (found.weights.stored_plain, found.weights.levels) == (64, 4)
    assert found.document()["total"]["compared"] == 140
