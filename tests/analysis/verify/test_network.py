"""Digits classified in PyTorch, by the stepped engine and in RTL simulation: the same classes, and every bit."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from weft.analysis.verify import network
from weft.analysis.verify.network import classify
from weft.dataflow.config_io import load_spec
from weft.dataflow.stce.spec import ArraySpec
from weft.dataflow.xnor.spec import XnorSpec
from weft.workloads.errors import InputError
from weft.workloads.training import deploy, plan, train, trained

from ...integer_reference import classified, numbers
from ...strategies import make_spec

TINY = replace(
    make_spec(array=ArraySpec(rows=1, cols=1)),
    xnor=XnorSpec(rows=2, cols=3, word_bits=8, accumulators=3, dense_words=9, weight_words=3, popcount_latency=2),
)
"""The smallest engine of tests/equivalence/test_rtl_xnor.py, whose compiled RTL is used again."""
EIGHTH = Fraction(1, 8)
OPTIONS = {"norm": "none", "ends": "int6"}


def trained_in(folder: Path, model: str, scheme: str, epochs: int, seed: int = 0) -> Path:
    spec = plan(model, scheme=scheme, epochs=epochs, optimizer="adamw", options=OPTIONS, seed=seed)
    train(spec, folder)
    return folder


@pytest.fixture(scope="module")
def tfc(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained_in(tmp_path_factory.mktemp("classify") / "tfc", "tfc", "xnor", 4)


def assert_same(found: network.Classification) -> None:
    """In every place, for every image: the class, and each bit that a layer reads; in the RTL the cycles as well."""
    assert found.equal
    for other in found.agreements:
        assert (other.images, other.unequal, other.odd, other.cycles or 0) == (found.images, (), (), 0)
        assert other.bits == found.images * sum(layer.first.layer.weights.shape[1] for layer in found.layers[:-1])


def test_all_digits_on_the_stepped_engine_and_some_in_rtl(tfc: Path) -> None:
    everything = classify(tfc, load_spec("bnn-ecp5"))
    assert_same(everything)
    assert [other.what for other in everything.agreements] == ["PyTorch, FP32", "PyTorch, FP64"]
    assert (everything.images, everything.batch, len(set(everything.classes.tolist()))) == (355, 355, 10)
    assert everything.accuracy > 0.4
    assert everything.cycles == sum(layer.cycles for layer in everything.layers)
    assert everything.seconds == everything.cycles / 60e6

    some = classify(tfc, TINY, images=5, batch=2, rtl=True)
    assert_same(some)
    assert [(other.what, other.exact) for other in some.agreements][2:] == [("RTL", True)]
    assert some.classes.tolist() == everything.classes[:5].tolist()


def test_classes_are_those_of_the_exact_reference(tfc: Path) -> None:
    run = trained(tfc)
    pixels, labels = deploy(run).images(0, 355)
    _, classes = classified(run.model, numbers(pixels, run.data, 6), EIGHTH)
    found = classify(tfc, TINY)
    assert found.classes.tolist() == classes and found.labels.tolist() == labels.tolist()


def test_a_bit_and_a_cycle_that_differ_are_told(tfc: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A faulty RTL, of which one threshold is one off and one product a cycle longer."""
    real = network._driver(TINY)

    class Faulty:
        def run(self, mapping, gemm, levels, a, b, *, cycles, thresholds):
            if thresholds is None:
                return replace(real.run(mapping, gemm, levels, a, b, cycles=cycles), cycles=1)
            got = real.run(mapping, gemm, levels, a, b, cycles=cycles, thresholds=thresholds)
            passed = got.passed.copy()
            passed[0, 3] ^= gemm.k == 64 and levels[0] != levels[1]
            return replace(got, passed=passed)

    monkeypatch.setattr(network, "_driver", lambda spec: Faulty())
    found = classify(tfc, TINY, images=2, rtl=True)
    single, _, rtl = found.agreements
    assert not found.equal and not single.odd and rtl.cycles == 1
    assert rtl.odd[0] == (0, "4", 3) and {image for image, _, _ in rtl.odd} == {0}


def test_a_part_of_the_images_and_its_bounds(tfc: Path) -> None:
    with pytest.raises(
        InputError, match=r"images, of 355 in the test set of 'digits', must be an integer from 1 to 355"
    ):
        classify(tfc, TINY, images=356)
    with pytest.raises(InputError, match="batch must be an integer from 1 to 3"):
        classify(tfc, TINY, images=3, batch=4)
    one, two = classify(tfc, TINY, images=6, batch=3), classify(tfc, TINY, images=3)
    assert one.cycles == 2 * two.cycles and one.classes[:3].tolist() == two.classes.tolist()
    assert [layer.array for layer in one.layers] == [2 * layer.array for layer in two.layers]


@pytest.mark.slow
@pytest.mark.parametrize(("model", "scheme"), [("tfc", "xnor"), ("tfc", "reste"), ("sfc", "bireal")])
def test_every_test_image_in_three_places(model: str, scheme: str, tmp_path: Path) -> None:
    folder = trained_in(tmp_path / model, model, scheme, 30, seed=1)
    found = classify(folder, load_spec("bnn-ecp5"), rtl=True)
    assert_same(found)
    run = trained(folder)
    pixels, _ = deploy(run).images(0, 355)
    _, classes = classified(run.model, numbers(pixels, run.data, 6), EIGHTH)
    if scheme != "reste":  # whose alpha is that of the layer, not of a channel
        assert found.classes.tolist() == classes
    assert found.accuracy > 0.7 and np.array_equal(found.labels, run.data.test.labels.numpy())
