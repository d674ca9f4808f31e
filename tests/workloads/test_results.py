"""Remembered results of operators on meta against those of the operators themselves."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from weft.workloads.tracing.provenance import tensors_in
from weft.workloads.tracing.results import Results, key_of

aten = torch.ops.aten

CALLS: dict[str, Any] = {
    "mul": lambda x, y: (aten.mul.Tensor, (x, y)),
    "mul by an integer": lambda x, _: (aten.mul.Tensor, (x, 1)),
    "mul by a float": lambda x, _: (aten.mul.Tensor, (x, 1.0)),
    "mul by a truth": lambda x, _: (aten.mul.Tensor, (x, True)),
    "mul in place": lambda x, y: (aten.mul_.Tensor, (x.contiguous(), y)),
    "sum": lambda x, _: (aten.sum.dim_IntList, (x, [0], True)),
    "softmax": lambda x, _: (aten._softmax.default, (x.float(), -1, False)),
    "layer norm": lambda x, _: (aten.native_layer_norm.default, (x.float(), x.shape[-1:], None, None, 1e-5)),
    "norm gradient": lambda x, _: (
        aten.native_layer_norm_backward.default,
        (x.float(), x.float(), x.shape[-1:], x.float()[..., :1], x.float()[..., :1], None, None, [True, False, False]),
    ),
    "batch norm": lambda x, _: (
        aten._native_batch_norm_legit.default,
        (
            x.float().repeat(2, 1),
            None,
            None,
            *(x.new_empty(x.shape[1], dtype=torch.float32) for _ in range(2)),
            True,
            0.1,
            1e-5,
        ),
    ),
    "mm": lambda x, _: (aten.mm.default, (x, x.t())),
    "cat": lambda x, y: (aten.cat.default, ([x, y], 1)),
    "transpose": lambda x, _: (aten.t.default, (x,)),
    "transpose in place": lambda x, _: (aten.t_.default, (x.clone(),)),
    "split": lambda x, _: (aten.unsafe_split.Tensor, (x, 1)),
    "unbind": lambda x, _: (aten.unbind.int, (x,)),
    "no copy": lambda x, _: (aten._to_copy.default, (x,)),
    "empty": lambda x, _: (aten.new_empty.default, (x, [3, 4])),
}


def asked(results: Results, func: Any, args: Any) -> Any:
    """The result, as the recorder asks for it."""
    key, tensors = key_of(func, args, {})
    assert list(map(id, tensors)) == list(map(id, tensors_in(args)))
    return func(*args) if key is None else results.of(func, args, {}, key)[0]


def tensors() -> st.SearchStrategy[Tensor]:
    """Two dimensions, as stored, transposed, expanded, or a part."""

    def make(rows: int, columns: int, form: str, dtype: torch.dtype) -> Tensor:
        whole = torch.empty(rows + 1, columns, dtype=dtype, device="meta")
        forms = {
            "as stored": lambda: torch.empty(rows, columns, dtype=dtype, device="meta"),
            "transposed": lambda: torch.empty(columns, rows, dtype=dtype, device="meta").t(),
            "expanded": lambda: torch.empty(1, columns, dtype=dtype, device="meta").expand(rows, columns),
            "part": lambda: whole[1:],
        }
        return forms[form]()

    return st.builds(
        make,
        st.integers(1, 3),
        st.integers(1, 3),
        st.sampled_from(["as stored", "transposed", "expanded", "part"]),
        st.sampled_from([torch.float32, torch.bfloat16, torch.int64]),
    )


def look(tensor: Tensor) -> tuple[Any, ...]:
    return tensor.shape, tensor.stride(), tensor.dtype, tensor.storage_offset(), tensor.untyped_storage().nbytes()


@settings(max_examples=20)
@given(st.lists(tensors(), min_size=2, max_size=3), st.permutations(sorted(CALLS)))
def test_results_are_those_of_the_operator(inputs: list[Tensor], names: list[str]) -> None:
    """Whatever was asked before: shapes, strides and formats are equal, and so is what shares a storage with what."""
    results = Results()
    for x, name in 2 * list(product(inputs, names)):
        func, args = CALLS[name](x, torch.empty(x.shape, dtype=x.dtype, device="meta"))
        try:
            expected = tensors_in(func(*args))
        except RuntimeError:
            with pytest.raises(RuntimeError):
                asked(results, func, args)
            continue
        func, args = CALLS[name](x, torch.empty(x.shape, dtype=x.dtype, device="meta"))
        found, operands = tensors_in(asked(results, func, args)), tensors_in(args)
        assert list(map(look, found)) == list(map(look, expected))
        assert [any(y is x for x in operands) for y in found] == [
            name == "mul in place" or func is aten.t_.default
        ] * len(found)
        storages = [y.untyped_storage()._cdata for y in found]
        shares = name in ("transpose", "split", "unbind", "mul in place", "transpose in place")
        assert [s in {x.untyped_storage()._cdata for x in operands} for s in storages] == [shares] * len(found)
        assert shares or len(set(storages)) == len(storages)


def test_a_result_is_made_once_and_anew_each_time() -> None:
    """The first call is the operator's own; the next makes another tensor without it."""
    called = []

    class Counting:
        namespace, tags, _schema = "aten", aten.mul.Tensor.tags, aten.mul.Tensor._schema

        def __call__(self, *args: Any) -> Any:
            called.append(args)
            return aten.mul.Tensor(*args)

    results, func, x = Results(), Counting(), torch.empty(2, 3, device="meta")
    first, second = (asked(results, func, (x, x)) for _ in range(2))
    assert len(called) == 1 and first is not second
    assert first.untyped_storage()._cdata != second.untyped_storage()._cdata
    asked(results, func, (x, torch.empty(2, 1, device="meta")))
    assert len(called) == 2


def test_values_on_the_cpu_are_looked_at_each_time() -> None:
    """How long a repetition is depends on its counts."""
    results, x = Results(), torch.empty(2, device="meta")
    for counts in ([1, 2], [5, 5]):
        arguments = (torch.tensor(counts), None)
        out = asked(results, aten.repeat_interleave.Tensor, (arguments[0],))
        assert len(out) == sum(counts)
    assert asked(results, aten.view.dtype, (x, torch.int32)).dtype == torch.int32
