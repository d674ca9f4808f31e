"""A batch that an exporter wrote into an ONNX graph whose first axis it calls free: refused, not miscounted."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper

from weft.workloads.errors import InputError
from weft.workloads.gemm import Pass
from weft.workloads.onnx import onnx_workload

from .test_onnx import Weights, save
from .test_onnx_shapes import chains

node = helper.make_node


def listed(*values: int) -> Any:
    return np.array(values, np.int64)


def detector(path: Path, batch: int) -> Path:
    """The head of a detector: a convolution, its result taken apart by anchor, and a product."""
    nodes = [
        node("Conv", ["x", "w1"], ["a"], "a", pads=[1] * 4),
        node("Reshape", ["a", "s"], ["b"], "b"),
        node("Transpose", ["b"], ["c"], "c", perm=[0, 1, 3, 4, 2]),
        node("Reshape", ["c", "s2"], ["d"], "d"),
        node("MatMul", ["d", "w2"], ["y"], "y"),
    ]
    stored = {"s": listed(batch, 2, 8, 8, 8), "s2": listed(batch, 128, 8)}
    return save(path, nodes, {"x": ("N", 3, 8, 8)}, {"w1": (16, 3, 3, 3), "w2": (8, 4)}, stored)


@pytest.mark.parametrize("baked", [1, 4, -1])
def test_a_batch_in_a_reshape(tmp_path: Path, baked: int) -> None:
    """By hand: 64 pixels x 27 x 16 and 128 anchors x 8 x 4 a sample, of which the first has no BP."""
    path = detector(tmp_path / "yolo.onnx", baked)
    for batch in (1, 4, 8):
        if baked in (batch, -1):
            step = onnx_workload(path, batch=batch)
            assert step.dense_macs[Pass.FF] == batch * (64 * 27 * 16 + 128 * 8 * 4)
            assert step.dense_macs[Pass.BP] == batch * 128 * 8 * 4
            continue
        said = (
            rf"yolo\.onnx: exported for batch {baked}, not {batch}: node 'b' \(Reshape\): makes .* give --batch {baked}"
        )
        with pytest.raises(InputError, match=said):
            onnx_workload(path, batch=batch)


def test_a_file_of_a_fixed_batch_is_told_what_contradicts_it(tmp_path: Path) -> None:
    nodes = [node("Reshape", ["x", "s"], ["f"], "flat"), node("MatMul", ["f", "w"], ["y"])]
    path = save(tmp_path / "m.onnx", nodes, {"x": (8, 4, 4)}, {"w": (16, 3)}, {"s": listed(1, 16)})
    said = r"node 'flat' \(Reshape\): makes 128 elements, 'x' \(8 x 4 x 4\), into 16, 'f' \(1 x 16\); .* 8 x 16 would"
    with pytest.raises(InputError, match=said):
        onnx_workload(path)


RESIZES = [
    ({"sizes": listed(1, 8, 16, 16)}, 1),
    ({"sizes": listed(4, 8, 16, 16)}, 4),
    ({"scales": np.float32([1, 1, 2, 2])}, None),
]


@pytest.mark.parametrize(("stored", "baked"), RESIZES)
def test_a_batch_in_a_resize(tmp_path: Path, stored: dict[str, Any], baked: int | None) -> None:
    """Legal at every batch: it would resample the samples."""
    ins = ["a", "", "", "sizes"] if "sizes" in stored else ["a", "", "scales"]
    nodes = [
        node("Conv", ["x", "w0"], ["a"], pads=[1] * 4),
        node("Resize", ins, ["b"], "larger"),
        node("Conv", ["b", "w1"], ["y"], pads=[1] * 4),
    ]
    path = save(tmp_path / "m.onnx", nodes, {"x": ("N", 3, 8, 8)}, {"w0": (8, 3, 3, 3), "w1": (8, 8, 3, 3)}, stored)
    for batch in (1, 4, 8):
        if baked in (batch, None):
            assert onnx_workload(path, batch=batch).dense_macs[Pass.FF] == batch * (64 * 27 * 8 + 256 * 72 * 8)
        else:
            with pytest.raises(InputError, match=rf"exported for batch {baked}, not {batch}: node 'larger' \(Resize\)"):
                onnx_workload(path, batch=batch)


def test_a_class_token_of_one_sample(tmp_path: Path) -> None:
    nodes = [
        node("Expand", ["cls", "s"], ["c"]),
        node("Concat", ["c", "x"], ["t"], "tokens", axis=1),
        node("MatMul", ["t", "w"], ["y"]),
    ]
    path = save(tmp_path / "m.onnx", nodes, {"x": ("N", 6, 4)}, {"cls": (1, 1, 4), "w": (4, 3)}, {"s": listed(1, 1, 4)})
    assert onnx_workload(path, batch=1).dense_macs[Pass.FF] == 7 * 4 * 3
    said = r"exported for batch 1, not 2: shape inference failed at node 'tokens' \(Concat\): .* 'x' \(2 x 6 x 4\)"
    with pytest.raises(InputError, match=said):
        onnx_workload(path, batch=2)


def test_the_first_sample_alone(tmp_path: Path) -> None:
    """x[0], to be rid of the batch: seven samples would do nothing."""
    for one in (node("Gather", ["x", "at"], ["s"], "first"), node("Slice", ["x", "at", "to"], ["s"], "first")):
        stored = {"at": listed(0), "to": listed(1)} if one.op_type == "Slice" else {"at": np.int64(0)}
        nodes = [one, node("MatMul", ["s", "w"], ["y"])]
        path = save(tmp_path / "m.onnx", nodes, {"x": ("N", 3, 4)}, {"w": (4, 3)}, stored)
        assert onnx_workload(path, batch=1).dense_macs[Pass.FF] == 36
        with pytest.raises(
            InputError, match=rf"exported for batch 1, not 8: node 'first' \({one.op_type}\) makes .*3 x 4"
        ):
            onnx_workload(path, batch=8)


def attention(path: Path, target: Any, turn: list[int]) -> Path:
    """Self-attention of 6 tokens x 8 features in 2 heads, taken apart by the list ``target``."""
    nodes = [
        node("MatMul", ["x", "w"], ["p"], "p"),
        node("Reshape", ["p", "target"], ["h"], "heads"),
        node("Transpose", ["h"], ["q"], perm=turn),
        node("Transpose", ["q"], ["k"], perm=[*range(len(turn) - 2), len(turn) - 1, len(turn) - 2]),
        node("MatMul", ["q", "k"], ["y"], "scores"),
    ]
    return save(path, nodes, {"x": ("N", 6, 8)}, {"w": (8, 8)}, {"target": target})


def test_samples_run_together_are_no_longer_sample(tmp_path: Path) -> None:
    """-1 takes in the batch: the shapes fit, the scores of all tokens of all samples with each other do not."""
    good = attention(tmp_path / "good.onnx", listed(-1, 6, 2, 4), [0, 2, 1, 3])
    assert onnx_workload(good, batch=3).dense_macs[Pass.FF] == 3 * (6 * 8 * 8 + 2 * 6 * 4 * 6)
    first = attention(tmp_path / "first.onnx", listed(1, -1, 2, 4), [0, 2, 1, 3])
    tokens = attention(tmp_path / "tokens.onnx", listed(-1, 2, 4), [1, 0, 2])
    for path, said in (
        (first, r"node 'heads' \(Reshape\) makes 1 x 18 x 2 x 4 of 3 x 6 x 8, a longer sample"),
        (tokens, r"node 'scores' \(MatMul\) does 9 times the work of one sample"),
    ):
        assert onnx_workload(path, batch=1).dense_macs[Pass.FF] == 6 * 8 * 8 + 2 * 6 * 4 * 6
        with pytest.raises(InputError, match=f"exported for batch 1, not 3: {said}"):
            onnx_workload(path, batch=3)


def test_a_token_for_all_samples(tmp_path: Path) -> None:
    """The tokens of all samples in a row, before them the one that each should have."""
    nodes = [
        node("Reshape", ["x", "s"], ["t"]),
        node("Concat", ["cls", "t"], ["c"], axis=0),
        node("MatMul", ["c", "w"], ["y"], "all"),
    ]
    path = save(tmp_path / "m.onnx", nodes, {"x": ("N", 6, 4)}, {"cls": (1, 4), "w": (4, 5)}, {"s": listed(-1, 4)})
    assert onnx_workload(path, batch=1).dense_macs[Pass.FF] == 7 * 4 * 5
    with pytest.raises(InputError, match=r"node 'all' \(MatMul\) does 2\.71429 times the work of one sample"):
        onnx_workload(path, batch=3)


def test_samples_that_become_steps_of_a_recurrence(tmp_path: Path) -> None:
    nodes = [node("Reshape", ["x", "s"], ["t"]), node("LSTM", ["t", "w", "r"], ["y"], "cell", hidden_size=6)]
    weights: Weights = {"w": (1, 24, 4), "r": (1, 24, 6)}
    path = save(tmp_path / "m.onnx", nodes, {"x": ("N", 5, 4)}, weights, {"s": listed(-1, 1, 4)})
    with pytest.raises(InputError, match=r"node 'cell' \(LSTM\) takes the 3 samples for steps of one"):
        onnx_workload(path, batch=3)


def test_a_contrastive_product_is_of_all_samples_with_all(tmp_path: Path) -> None:
    nodes = [
        node("MatMul", ["x", "w"], ["a"]),
        node("MatMul", ["x", "v"], ["b"]),
        node("Transpose", ["b"], ["t"], perm=[1, 0]),
        node("MatMul", ["a", "t"], ["y"]),
    ]
    path = save(tmp_path / "m.onnx", nodes, {"x": ("N", 6)}, {"w": (6, 4), "v": (6, 4)})
    assert onnx_workload(path, batch=5).dense_macs[Pass.FF] == 2 * 5 * 6 * 4 + 5 * 4 * 5


def test_channels_of_all_samples_by_their_own_count(tmp_path: Path) -> None:
    """A reshape whose target is computed from the batch means it."""
    nodes = [
        node("Shape", ["x"], ["n"], end=1),
        node("Mul", ["n", "four"], ["nc"]),
        node("Concat", ["one", "nc", "edge"], ["s"], axis=0),
        node("Reshape", ["x", "s"], ["r"]),
        node("Reshape", ["r", "back"], ["b"]),
        node("Conv", ["b", "w"], ["y"]),
    ]
    stored = {"four": listed(4), "one": listed(1), "edge": listed(5, 5), "back": listed(-1, 4, 5, 5)}
    path = save(tmp_path / "m.onnx", nodes, {"x": ("N", 4, 5, 5)}, {"w": (6, 4, 1, 1)}, stored)
    assert onnx_workload(path, batch=3).dense_macs[Pass.FF] == 3 * 25 * 4 * 6


def free_batch(path: Path, nodes: list[Any], arrays: dict[str, Any], *, baked: bool) -> Path:
    """A chain of layers whose batch is free; ``baked``: all but in the targets of its reshapes."""
    targets = {one.input[1] for one in nodes if one.op_type == "Reshape"}
    stored = {name: value for name, value in arrays.items() if name != "x"}
    if not baked:
        stored |= {name: listed(-1, *stored[name][1:]) for name in targets if stored[name][0] == 1}
    return save(path, nodes, {"x": ("N", *arrays["x"].shape[1:])}, {}, stored, outputs=(nodes[-1].output[0],))


def macs_or_refusal(path: Path, batch: int) -> Any:
    try:
        return onnx_workload(path, batch=batch).dense_macs
    except InputError as error:
        return str(error)


@settings(max_examples=20)
@given(chains(1), st.integers(2, 4))
def test_a_baked_chain_is_refused_or_counts_what_the_free_one_does(chain: Any, batch: int) -> None:
    """Whatever layers come first: one sample is counted alike, and no batch is miscounted."""
    with TemporaryDirectory() as folder:
        free = free_batch(Path(folder) / "free.onnx", *chain, baked=False)
        baked = free_batch(Path(folder) / "baked.onnx", *chain, baked=True)
        one = macs_or_refusal(free, 1)
        if isinstance(one, str):
            assert "multiplies no matrices" in one or "no parameter is trained" in one
            return
        assert macs_or_refusal(baked, 1) == one
        many = macs_or_refusal(free, batch)
        assert many == {pass_: batch * count for pass_, count in one.items()}
        found = macs_or_refusal(baked, batch)
        assert found == many or f"exported for batch 1, not {batch}: " in found


WRONG = {
    "takes 4 channels in 1 group, but input 'x' (1 x 6 x 4 x 4) has 6; a weight of 3 x 6 x 1 x 1 would": (
        node("Conv", ["x", "w"], ["y"], "n"),
        (1, 6, 4, 4),
        {"w": (3, 4, 1, 1)},
    ),
    "(1 x 6 x 4 x 4) are no multiple of 4, the square of blocksize 2; the nearest valid count is 8": (
        node("DepthToSpace", ["x"], ["y"], "n", blocksize=2),
        (1, 6, 4, 4),
        {},
    ),
    "makes 8 elements, 'x' (4 x 2), into 2, 'y' (1 x 2); it has to keep them all; 4 x 2 would": (
        node("Reshape", ["x", "s"], ["y"], "n"),
        (4, 2),
        {},
    ),
    "'w' (5) does not fit: 'x' (2 x 4 x 3) has 4 channels, so it has to be 4": (
        node("InstanceNormalization", ["x", "w", "w"], ["y"], "n"),
        (2, 4, 3),
        {"w": (5,)},
    ),
    "index 'j' of equation 'ij,jk->ik' is 4 in 'x' (3 x 4) and 5 in 'w' (5 x 6)": (
        node("Einsum", ["x", "w"], ["y"], "n", equation="ij,jk->ik"),
        (3, 4),
        {"w": (5, 6)},
    ),
    "input 'x' (1 x 2 x 2) is smaller than the window": (
        node("Conv", ["x", "w"], ["y"], "n"),
        (1, 2, 2),
        {"w": (3, 2, 4)},
    ),
    "asks for row 6; 'x' (2 x 6) has rows -6 to 5": (node("Gather", ["x", "i"], ["y"], "n", axis=1), (2, 6), {}),
    "the 3 filters of weight 'w' (3 x 2 x 1) cannot be shared out to 2 groups": (
        node("Conv", ["x", "w"], ["y"], "n", group=2),
        (1, 4, 9),
        {"w": (3, 2, 1)},
    ),
    "'w' (4) does not stretch to 2 x 4 x 5, the shape of the data": (
        node("PRelu", ["x", "w"], ["y"], "n"),
        (2, 4, 5),
        {"w": (4,)},
    ),
    "'i' (2) does not fit: the batch is 3": (
        node("RNN", ["x", "w", "r", "", "i"], ["y"], "n", hidden_size=6),
        (5, 3, 4),
        {"w": (1, 6, 4), "r": (1, 6, 6)},
    ),
    "kernel_shape 2 is not that of weight 'w' (3 x 2 x 4)": (
        node("Conv", ["x", "w"], ["y"], "n", kernel_shape=[2]),
        (1, 2, 9),
        {"w": (3, 2, 4)},
    ),
}


@pytest.mark.parametrize("said", WRONG)
def test_what_does_not_fit_says_what_would(tmp_path: Path, said: str) -> None:
    one, shape, weights = WRONG[said]
    lists = {"s": listed(1, 2), "i": np.array([0, 6], np.int32)}
    path = save(
        tmp_path / "m.onnx",
        [one],
        {"x": shape},
        weights,
        {name: value for name, value in lists.items() if name in one.input},
    )
    with pytest.raises(InputError) as caught:
        onnx_workload(path)
    assert str(caught.value).startswith(f"{path}: node 'n' ({one.op_type}): ")
    assert said in str(caught.value)


@pytest.mark.parametrize("free", [0, -1])
def test_a_batch_that_no_data_has_is_free(tmp_path: Path, free: int) -> None:
    path = save(tmp_path / "m.onnx", [node("MatMul", ["x", "w"], ["y"])], {"x": (free, 4)}, {"w": (4, 3)})
    with pytest.raises(InputError, match="batch dimension without a name of input 'x' is symbolic: give a batch"):
        onnx_workload(path)
    assert onnx_workload(path, batch=8).dense_macs[Pass.FF] == 8 * 4 * 3


def test_a_name_is_made_once(tmp_path: Path) -> None:
    nodes = [node("Relu", ["x"], ["w"]), node("MatMul", ["x", "w"], ["y"])]
    with pytest.raises(InputError, match="value 'w' is made 2 times"):
        onnx_workload(save(tmp_path / "m.onnx", nodes, {"x": (4, 4)}, {"w": (4, 4)}))


def test_a_parameter_keeps_its_elements_too(tmp_path: Path) -> None:
    nodes = [node("Reshape", ["w0", "s"], ["w"], "n"), node("MatMul", ["x", "w"], ["y"])]
    path = save(tmp_path / "m.onnx", nodes, {"x": (4, 2)}, {"w0": (2, 1)}, {"s": listed(2, 8)})
    with pytest.raises(InputError, match=r"node 'n' \(Reshape\): makes 2 elements, 'w0' \(2 x 1\), into 16"):
        onnx_workload(path)


def test_group_normalisation_has_a_shape(tmp_path: Path) -> None:
    """Inference has no rule for it."""
    nodes = [
        node("Conv", ["x", "w"], ["c"]),
        node("GroupNormalization", ["c", "g", "b"], ["n"], num_groups=2),
        node("Relu", ["n"], ["y"]),
    ]
    weights: Weights = {"w": (8, 3, 1, 1), "g": (8,), "b": (8,)}
    step = onnx_workload(save(tmp_path / "m.onnx", nodes, {"x": ("N", 3, 4, 4)}, weights, opset=21), batch=2)
    assert step.parameters == 24 + 16


@pytest.mark.parametrize("batch", [1, 2, 3, 8])
def test_a_batch_of_one_may_vanish_in_a_squeeze(tmp_path: Path, batch: int) -> None:
    """Without axes it takes away every 1; the file is right at any batch, and one that then merges samples is not."""
    squeeze = [helper.make_node("Squeeze", ["x"], ["h"]), helper.make_node("MatMul", ["h", "w"], ["k"])]
    path = save(tmp_path / "m.onnx", squeeze, {"x": ("N", 16, 1)}, {"w": (16, 8)}, outputs=["k"])
    assert onnx_workload(path, batch=batch).dense_macs[Pass.FF] == batch * 16 * 8
    merging = [
        *squeeze,
        helper.make_node("Reshape", ["k", "shape"], ["r"]),
        helper.make_node("Transpose", ["r"], ["t"], perm=[0, 2, 1]),
        helper.make_node("MatMul", ["r", "t"], ["y"]),
    ]
    path = save(tmp_path / "n.onnx", merging, {"x": ("N", 16, 1)}, {"w": (16, 8)}, {"shape": np.array([1, -1, 8])})
    if batch == 1:
        assert onnx_workload(path, batch=1).dense_macs[Pass.FF] == 16 * 8 + 8
    else:
        with pytest.raises(InputError, match=f"exported for batch 1, not {batch}: node 'r'"):
            onnx_workload(path, batch=batch)
