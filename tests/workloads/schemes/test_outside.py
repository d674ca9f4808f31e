"""Schemes of others: in a file, registered, installed; and what is said of those that are none."""

from __future__ import annotations

from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
import torch

import weft
import weft.testing
from weft.workloads.errors import InputError
from weft.workloads.gemm import Pass
from weft.workloads.operand import Role
from weft.workloads.schemes import attach, outside
from weft.workloads.schemes.masks import largest
from weft.workloads.schemes.scheme import SCHEMES, Scheme, scheme
from weft.workloads.schemes.technique import Technique

from .harness import TWO_OF_EIGHT, batch, net, train

OWN = Path(__file__).parents[3] / "examples" / "own_scheme.py"


@pytest.fixture(autouse=True)
def nothing_known(monkeypatch):
    monkeypatch.setattr(outside, "_KNOWN", {})


class Mine(Technique):
    """The largest weights in FF."""

    def forward_weight(self, layer, weight):
        return largest(weight, layer.view(Pass.FF), self.nm())


MINE = Scheme(name="mine", title="largest weights in FF", sparse={Pass.FF: Role.WEIGHT})


def trained(name):
    model = net()
    technique = attach(model, name, TWO_OF_EIGHT, steps=4)
    train(model, technique, batch(), range(4), torch.optim.SGD(model.parameters(), 0.1))
    return [p.detach() for p in model.parameters()]


def test_a_registered_scheme_trains_and_is_costed_as_ours():
    """SR-STE without its decay is exactly this."""
    weft.register_scheme(MINE, Mine)

    def without_decay():
        model = net()
        technique = attach(model, "srste", TWO_OF_EIGHT, steps=4, decay=0.0)
        train(model, technique, batch(), range(4), torch.optim.SGD(model.parameters(), 0.1))
        return [p.detach() for p in model.parameters()]

    for ours, theirs in zip(trained("mine"), without_decay(), strict=True):
        assert torch.equal(ours, theirs)
    step = weft.trace("resnet9", batch=2)
    mine, srste = (weft.sparsify(step, name, "2:8") for name in ("mine", "srste"))
    assert mine.ops == srste.ops
    assert mine.scheme == "mine"


def test_a_scheme_in_a_file_is_found_by_its_name_everywhere(capsys):
    from weft.cli import main

    name = f"{OWN}:GradientTopN"
    assert scheme(name).sparse == {Pass.WU: Role.GRADIENT}
    assert main(["run", "resnet9", "--scheme", name, "--nm", "2:8", "--arch", "tiny", "--batch", "2"]) == 0
    assert "GradientTopN" in capsys.readouterr().out
    assert not all(torch.equal(a, b) for a, b in zip(trained(name), trained("dense"), strict=True))


def test_an_installed_scheme_is_found_by_its_entry_point(monkeypatch):
    point = EntryPoint(name="theirs", value=f"{__name__}:Mine", group=outside.GROUP)
    monkeypatch.setattr(outside, "entry_points", lambda group: (point,) if group == outside.GROUP else ())
    monkeypatch.setattr(EntryPoint, "load", lambda self: type("Theirs", (Mine,), {"scheme": MINE}))

    assert scheme("theirs").title == MINE.title
    assert scheme("theirs").name == "theirs"
    with pytest.raises(InputError, match="did you mean 'theirs'"):
        scheme("theirz")


def test_an_entry_point_that_cannot_be_loaded_is_named(monkeypatch):
    point = EntryPoint(name="gone", value="no_such_package:Class", group=outside.GROUP)
    monkeypatch.setattr(outside, "entry_points", lambda group: (point,))

    with pytest.raises(InputError, match=r"scheme 'gone': no_such_package:Class cannot be loaded: ModuleNotFoundError"):
        scheme("gone")


def test_what_is_no_scheme_is_refused(tmp_path):
    with pytest.raises(InputError, match="exists already"):
        weft.register_scheme(Scheme(name="bdwp", title="", sparse={}), Mine)
    weft.register_scheme(Scheme(name="odd", title="odd", sparse={Pass.FF: Role.WEIGHT}), dict)
    with pytest.raises(InputError, match=r"<class 'dict'> is no subclass of .*Technique"):
        attach(net(), "odd", TWO_OF_EIGHT, steps=1)
    path = tmp_path / "mute.py"
    path.write_text("from weft.workloads.schemes.technique import Technique\nclass Mute(Technique): pass\n")
    with pytest.raises(InputError, match="its class says nothing of itself; give it an attribute scheme"):
        scheme(f"{path}:Mute")
    with pytest.raises(InputError, match="no such file"):
        scheme(f"{tmp_path / 'gone.py'}:Mute")


class Liar(Mine):
    """Says BP, does FF."""

    scheme = Scheme(name="liar", title="liar", sparse={Pass.BP: Role.WEIGHT})


class Forgetful(Mine):
    """Draws without its seed."""

    def forward_weight(self, layer, weight):
        return super().forward_weight(layer, weight * torch.rand(weight.shape))


def test_the_conformance_test_finds_what_is_wrong():
    weft.register_scheme(MINE, Forgetful)
    with pytest.raises(AssertionError, match="resumed in the middle"):
        weft.testing.check_scheme("mine")
    outside._KNOWN.clear()
    weft.register_scheme(Liar.scheme, Liar)
    with pytest.raises(AssertionError, match="operand is not 2:8 along its contraction"):
        weft.testing.check_scheme("liar")


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, one in SCHEMES.items() if one.sparse])
def test_ours_conform(name):
    """Their phases end where the steps of a check do not reach, so periods are short."""
    options = {"bimask": {"period": 2, "candidates": 3}, "transposable": {"period": 3}, "sdgf-geometric": {"frames": 1}}
    assert "are right" in weft.testing.check_scheme(name, "2:8", **options.get(name, {}))


def test_the_example_conforms():
    assert "8 GEMMs of a step" in weft.testing.check_scheme(f"{OWN}:GradientTopN", "2:8")
