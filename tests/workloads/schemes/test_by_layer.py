"""N:M by layer: which rule holds for which layer, what a step under rules is, and rules that are refused."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import weft
from weft.analysis.compare import compare, loss_ledger
from weft.workloads.errors import InputError
from weft.workloads.gemm import Gemm, Pass
from weft.workloads.io import dumps_workload, loads_workload
from weft.workloads.operand import Operand, Role
from weft.workloads.schemes.annotate import annotate, layers_by_rule
from weft.workloads.schemes.scheme import SCHEMES
from weft.workloads.sparsity import LayerPattern, LayerPatterns, NMPattern
from weft.workloads.step import MatrixOp, UpdateOp, Workload

NAMES = ("layer1.0.conv1", "layer1.0.conv2", "layer1.1.conv1", "layer2.0.conv1", "head.fc", "fc")
PATTERNS = {text: NMPattern.parse(text) for text in ("1:8", "2:8", "2:4")}


def layer(name: str, parameter: str | None = None) -> list[MatrixOp]:
    x, w, g = Role.ACTIVATION, Role.WEIGHT, Role.GRADIENT

    def op(pass_: Pass, gemm: Gemm, *roles: Role) -> MatrixOp:
        sizes = (gemm.m * gemm.k, gemm.k * gemm.n, gemm.m * gemm.n)
        a, b, c = (Operand(role=r, dtype="float16", bytes=2 * n) for r, n in zip(roles, sizes, strict=True))
        return MatrixOp(
            name=name, op="op", pass_=pass_, gemm=gemm, a=a, b=b, c=c, parameter=parameter or f"{name}.weight"
        )

    return [
        op(Pass.FF, Gemm(m=64, k=32, n=16), x, w, x),
        op(Pass.BP, Gemm(m=64, k=16, n=32), g, w, g),
        op(Pass.WU, Gemm(m=16, k=64, n=32), g, x, g),
    ]


def step(*names: str) -> Workload:
    ops = [op for name in names for op in layer(name)]
    updates = [UpdateOp(name=f"{name}.weight", elements=512) for name in names]
    return Workload(model="m", batch=64, ops=(*ops, *updates))


def matches(pattern: str, name: str) -> bool:
    """Shell wildcards ``*`` and ``?``, by the definition: a star is any number of characters."""
    if not pattern:
        return not name
    if pattern[0] == "*":
        return any(matches(pattern[1:], name[i:]) for i in range(len(name) + 1))
    return bool(name) and pattern[0] in ("?", name[0]) and matches(pattern[1:], name[1:])


rules = st.lists(
    st.tuples(
        st.sampled_from(("*", "layer1.*", "layer?.0.*", "*.conv1", "*fc", "fc", "layer2.0.conv1", "*.1.*", *NAMES)),
        st.sampled_from((*PATTERNS, "dense")),
    ),
    max_size=5,
)


@given(rules=rules, scheme=st.sampled_from([name for name, s in SCHEMES.items() if s.sparse]))
def test_every_op_is_what_its_last_rule_alone_would_make_of_it(rules: list[tuple[str, str]], scheme: str) -> None:
    dense = step(*NAMES)
    found = weft.sparsify(dense, scheme, ["2:8", *(f"{layers}={pattern}" for layers, pattern in rules)])

    whole = {text: annotate(dense, scheme, pattern) for text, pattern in PATTERNS.items()}
    for i, op in enumerate(dense.ops):
        name = op.name.removesuffix(".weight")
        asked = next((p for layers, p in reversed(rules) if matches(layers, name)), "2:8")
        if asked == "dense":
            made = found.ops[i]
            assert (made.dense_copy and not made.copies) if isinstance(made, UpdateOp) else made.sparse is None
            if isinstance(made, MatrixOp) and made.pass_ in SCHEMES[scheme].sparse:
                assert made.kept_dense.startswith("asked for by ")
        else:
            assert found.ops[i] == whole[asked].ops[i]
    assert loads_workload(dumps_workload(found)) == found
    assert sum(map(len, layers_by_rule(found).values())) == sum(any(matches(r, n) for r, _ in rules) for n in NAMES)


@given(rules=rules)
def test_a_mapping_and_a_list_say_the_same(rules: list[tuple[str, str]]) -> None:
    assume(len(dict(rules)) == len(rules))
    read = LayerPatterns.read([f"{layers}={pattern}" for layers, pattern in rules])
    assert LayerPatterns.read(dict(rules)) == read
    assert LayerPatterns.read([*map(str, read.rules), "2:8"]) == replace(read, usual=PATTERNS["2:8"])


def test_dense_but_for_some() -> None:
    """A bare ``dense`` stands before all rules, and the step goes by the first pattern."""
    for asked in (["fc=1:8", "dense"], {"*": "dense", "fc": "1:8"}, {"*": None, "fc": PATTERNS["1:8"]}):
        found = weft.sparsify(step(*NAMES), "bdwp", asked)
        assert {op.name for op in found.matrix_ops if op.sparse} == {"fc"}
        assert str(found.pattern) == "1:8"


def test_a_weight_goes_by_all_its_names() -> None:
    """Tied, made of several, or read by a module that does not hold it: who reads it reads one pattern."""
    tied = [*layer("wte", "wte.weight=lm_head.weight"), *layer("lm_head", "wte.weight=lm_head.weight")]
    made = [*layer("attn.product", "attn.q.weight+attn.k.weight"), *layer("plain", "bank")]
    work = Workload(model="m", batch=64, ops=(*tied, *made))
    for rule in ("lm_head", "attn.k", "attn.k.weight", "attn.product", "bank", "plain", "wte.*"):
        found = weft.sparsify(work, "bdwp", ["2:8", f"{rule}=1:8"])
        groups = {
            p: {str(o.sparse.pattern) for o in found.matrix_ops if o.parameter == p and o.sparse}
            for p in {o.parameter for o in found.matrix_ops}
        }
        assert sorted(map(sorted, groups.values())) == [["1:8"], ["2:8"], ["2:8"]]


def test_the_promise_is_that_of_the_rules() -> None:
    """Ideal speed-up: products by hand; a layer that was asked to be dense is no loss."""
    dense = weft.simulate(weft.schedule(step("a", "b"), "tiny"))
    found = weft.sparsify(step("a", "b"), "bdwp", {"*": "dense", "b": "2:4"})
    sparse = weft.simulate(weft.schedule(found, "tiny"))

    row = compare([dense, sparse]).rows[1]
    assert row.ideal_speedup == pytest.approx(6 / 5) == row.mac_speedup
    ledger = loss_ledger(sparse, dense)
    assert sum(row.cycles for row in ledger.rows) == sparse.cycles.total
    assert not [row for row in ledger.rows if row.item.startswith("kept dense")]


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (["2:8", "layer9.*=1:8"], r"rule layer9.\*=1:8 matches no layer with a weight: did you mean 'layer"),
        (["2:8", "Layer1.*=1:8"], r"did you mean 'layer1.\*"),
        (["2:8", "head.fc.bias=1:8"], "did you mean 'head.fc'"),
        (
            ["2:8", "fc=1:32"],
            r"rule fc=1:32 makes no layer sparse: fc stays dense \(contraction runs of 16 are shorter",
        ),
        (["2:8", "=1:8"], "a layer rule names the layers, as in layer4"),
        (["2:8", "fc="], "N:M pattern '' is not of the form keep:group"),
        (["2:8", "fc=9:8"], "9:8 keeps 9 of 8"),
        (["2:8", "1:8"], "two N:M patterns are for all layers, 2:8 and 1:8: name the layers of one"),
        (["2:8", "dense"], "two N:M patterns are for all layers, 2:8 and dense"),
        ({"fc": "1:8"}, "scheme 'bdwp' needs an N:M pattern"),
        ({"*": "dense"}, "scheme 'bdwp' needs an N:M pattern"),
    ],
)
def test_refused(asked: object, said: str) -> None:
    narrow = Workload(model="m", batch=64, ops=tuple(op for op in layer("fc") if op.pass_ is Pass.BP))
    work = narrow if asked == ["2:8", "fc=1:32"] else step(*NAMES)
    with pytest.raises(InputError, match=said):
        weft.sparsify(work, "bdwp", asked)  # type: ignore[arg-type]


def test_a_rule_is_what_it_was_written_as() -> None:
    assert [str(rule) for rule in LayerPatterns.read(["a.*=2:8", "b=dense", "c=d=1:4"]).rules] == [
        "a.*=2:8",
        "b=dense",
        "c=d=1:4",
    ]
    assert LayerPattern(layers="c=d", pattern=None).matches(["c=d"])
