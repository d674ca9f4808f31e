"""Layers at work: PyTorch's own results where nothing is thinned out, and exactly the chosen operands where it is."""

from __future__ import annotations

import copy
import io

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from weft.workloads.errors import InputError
from weft.workloads.gemm import Pass
from weft.workloads.schemes import attach
from weft.workloads.sparsity import NMPattern

from .harness import TWO_OF_EIGHT, Products, backward, batch, most_kept, net, train

LAYERS = {
    "linear": (lambda: nn.Linear(24, 16), (5, 3, 24)),
    "vector": (lambda: nn.Linear(24, 16, bias=False), (24,)),
    "conv1d": (lambda: nn.Conv1d(16, 24, 3, padding="same", dilation=2), (2, 16, 9)),
    "uneven": (lambda: nn.Conv1d(16, 24, 4, padding="same"), (2, 16, 9)),
    "conv2d": (lambda: nn.Conv2d(16, 24, 3, stride=2, padding=(1, 0), groups=2, bias=False), (2, 16, 7, 8)),
    "reflect": (lambda: nn.Conv2d(16, 24, 3, padding=1, padding_mode="reflect"), (2, 16, 5, 5)),
    "unbatched": (lambda: nn.Conv2d(16, 24, 3), (16, 5, 5)),
    "conv3d": (lambda: nn.Conv3d(8, 8, 2), (1, 8, 3, 3, 3)),
    "up": (lambda: nn.ConvTranspose2d(16, 24, 3, stride=2, output_padding=1, groups=2), (2, 16, 4, 4)),
    "up1d": (lambda: nn.ConvTranspose1d(16, 24, 3, padding=1), (2, 16, 5)),
}


def _gradients(model: nn.Module, x: torch.Tensor) -> list[torch.Tensor]:
    x = x.clone().requires_grad_()
    model.zero_grad()
    y = model(x)
    (y * torch.linspace(-1, 1, y.numel()).reshape(y.shape)).sum().backward()
    return [y.detach(), x.grad, *(p.grad for p in model.parameters())]


def _alone(name: str) -> tuple[nn.Module, torch.Tensor]:
    """The layer behind a first convolution, which would stay dense."""
    torch.manual_seed(0)
    make, shape = LAYERS[name]
    return nn.ModuleDict({"first": nn.Conv2d(3, 3, 1), "layer": make()}), torch.randn(shape)


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@pytest.mark.parametrize("pattern", [None, "8:8"])
@pytest.mark.parametrize("name", LAYERS)
def test_without_zeros_a_layer_is_pytorchs_own(name, pattern):
    """Dense, and BDWP that keeps 8 of 8: values and every gradient."""
    model, x = _alone(name)
    expected = _gradients(model["layer"], x)
    scheme = "dense" if pattern is None else "srste"
    technique = attach(model, scheme, pattern and NMPattern.parse(pattern), steps=1)

    assert "layer" in technique.layers
    for ours, theirs in zip(_gradients(model["layer"], x), expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("name", LAYERS)
def test_operands_are_n_to_m_along_the_channels_of_their_pass(name):
    """In the layout of the GEMM: [groups, out, in, taps] of the convolution groups."""
    model, _ = _alone(name)
    layer = attach(model, "bdwp", TWO_OF_EIGHT, steps=1).layers["layer"]
    dense, ff, bp = (layer.canonical(w) for w in (layer.weight, layer.operand(Pass.FF), layer.operand(Pass.BP)))

    assert dense.shape == layer.shape
    assert most_kept(ff, 2, 8) == 2 and most_kept(bp, 1, 8) == 2
    for sparse in (ff, bp):
        assert torch.equal(sparse[sparse != 0], dense[sparse != 0])
    # What a group keeps is at least as large as what it drops.
    for part, kept in zip(dense.split(8, 2), ff.split(8, 2), strict=True):
        smallest = kept.abs().masked_fill(kept == 0, torch.inf).amin(2)
        assert (part.masked_fill(kept != 0, 0).abs().amax(2) <= smallest).all()
    assert torch.equal(layer.stored(layer.canonical(layer.weight)), layer.weight)


def test_three_gemms_read_exactly_their_operands():
    """What PyTorch's kernels were given, convolution and linear layers: W_ff, W_bp, and dense X and dY in WU."""
    model = net()
    technique = attach(model, "bdwp", TWO_OF_EIGHT, steps=1)
    conv, tokens, head = (technique.layers[n] for n in ("conv", "tokens", "head"))
    technique.before_step(0)
    with Products() as products:
        backward(model, batch())

    assert [torch.equal(products.forward[1][1], conv.operand(p)) for p in (Pass.FF, Pass.BP)] == [True, False]
    assert torch.equal(products.input_gradient[0][1], conv.operand(Pass.BP))
    dy, x = products.weight_gradient[0]
    assert torch.equal(dy, products.input_gradient[0][0]) and torch.equal(x, products.forward[1][0])
    dense = torch.ops.aten.convolution_backward(
        dy, x, conv.weight, None, (2, 2), (1, 1), (1, 1), False, (0, 0), 2, [False, True, False]
    )[1]
    torch.testing.assert_close(conv.weight.grad, dense)
    weights = [b for _, b in products.matrices]
    expected = [tokens.operand(Pass.FF).t(), head.operand(Pass.FF).t(), head.operand(Pass.BP), tokens.operand(Pass.BP)]
    assert [sum(w.shape == e.shape and torch.equal(w, e) for w in weights) for e in expected] == [1] * 4
    (rows, inputs), (dys, xs) = products.matrices[0], products.matrices[-1]
    assert torch.equal(xs, rows) and (dys != 0).float().mean() > 0.3 and inputs.shape == (40, 20)
    assert (model.stem.weight.grad != 0).all()


def test_backward_by_hand_on_a_linear_layer():
    """dX = dY W_bp, dW = dY^T X, db = sum dY, in 1:2 groups along either axis."""
    layer = nn.Linear(2, 2)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[3.0, 1.0], [2.0, -4.0]]))
        layer.bias.zero_()
    attach(layer, "bdwp", NMPattern(keep=1, group=2), steps=1)
    x = torch.tensor([[10.0, 100.0]], requires_grad=True)
    y = layer(x)
    y.backward(torch.tensor([[1.0, 5.0]]))

    assert y.tolist() == [[30.0, -400.0]]
    assert x.grad.tolist() == [[3.0, -20.0]]
    assert layer.weight.grad.tolist() == [[10.0, 100.0], [50.0, 500.0]]
    assert layer.bias.grad.tolist() == [1.0, 5.0]


def test_the_model_stays_the_users():
    model = net()
    keys, parameters = list(model.state_dict()), list(map(id, model.parameters()))
    technique = attach(model, "bdwp", TWO_OF_EIGHT, steps=1)

    assert list(model.state_dict()) == keys and list(map(id, model.parameters())) == parameters
    assert isinstance(model.conv, nn.Conv2d) and type(model.conv) is not nn.Conv2d
    technique.detach()
    assert type(model.conv) is nn.Conv2d and type(model.head) is nn.Linear
    assert vars(model.conv).keys() == vars(net().conv).keys()


def test_a_copy_of_the_model_works_on_its_own_weights():
    model = net()
    attach(model, "bdwp", TWO_OF_EIGHT, steps=1)
    twin = copy.deepcopy(model)
    with torch.no_grad():
        model.head.weight.zero_()

    x, _ = batch()
    assert not torch.equal(model(x), twin(x))
    assert (model(x) == 0).all()


def test_hooks_fire_and_an_optimizer_sees_the_dense_master():
    model, seen = net(), []
    model.conv.register_forward_hook(lambda *_: seen.append("forward"))
    technique = attach(model, "bdwp", TWO_OF_EIGHT, steps=3)
    before = model.conv.weight.detach().clone()
    train(model, technique, batch(), range(3), torch.optim.SGD(model.parameters(), 0.1))

    assert seen == ["forward"] * 3
    assert (model.conv.weight != 0).all() and (model.conv.weight != before).float().mean() > 0.99


def test_a_new_weight_is_seen_at_once():
    """Evaluation after an optimizer step, or after loading, must not read old operands."""
    model = net()
    attach(model, "bdwp", TWO_OF_EIGHT, steps=1)
    x, _ = batch()
    with torch.inference_mode():
        first = model(x)
    state = {k: 2 * v for k, v in model.state_dict().items()}
    model.load_state_dict(state)
    with torch.no_grad():
        second = model(x)

    assert not torch.allclose(first, second)
    backward(model, batch())


@pytest.mark.parametrize("scheme", ["dense", "srste", "bdwp", "bdwp-x", "sste"])
def test_gradient_checkpointing_changes_nothing(scheme):
    plain, saved = net(), net()
    for model in (plain, saved):
        attach(model, scheme, TWO_OF_EIGHT, steps=100).before_step(50)
    x, _ = batch()
    plain(x).square().sum().backward()
    checkpoint(saved, x, use_reentrant=False).square().sum().backward()

    for ours, theirs in zip(saved.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad)


@pytest.mark.parametrize("shape", [(24,), (5, 24), (2, 3, 24)])
def test_what_a_layer_returns_may_be_changed_in_place(shape):
    model, x = nn.Sequential(nn.Linear(24, 16), nn.ReLU(inplace=True)), torch.randn(shape)
    attach(model, "srste", NMPattern(keep=8, group=8), steps=1)

    plain = nn.Sequential(nn.Linear(24, 16), nn.ReLU())
    plain.load_state_dict(model.state_dict())
    for ours, theirs in zip(_gradients(model, x), _gradients(plain, x), strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
@pytest.mark.parametrize("scheme", ["bdwp-x", "rigl", "wanda"])
def test_a_compiled_model_is_trained_as_the_model_is(scheme):
    results = []
    for compiled in (False, True):
        model = net()
        technique = attach(model, scheme, TWO_OF_EIGHT, steps=6)
        called = torch.compile(model, backend="aot_eager") if compiled else model
        train(called, technique, batch(), range(6), torch.optim.SGD(model.parameters(), 0.1))
        results.append(model.state_dict())

    assert all(torch.equal(results[1][name], value) for name, value in results[0].items())


def test_an_input_of_another_type_than_the_weight_is_refused_as_pytorch_does():
    model = nn.Sequential(nn.Linear(24, 16, bias=False)).double()
    attach(model, "bdwp", TWO_OF_EIGHT, steps=1)
    with pytest.raises(InputError, match=r"layer '0' has a weight of torch\.float64 and an input of torch\.float32"):
        model(torch.randn(2, 24))


def test_gradients_accumulate():
    model = net()
    attach(model, "bdwp", TWO_OF_EIGHT, steps=1).before_step(0)
    backward(model, batch())
    once = model.conv.weight.grad.clone()
    backward(model, batch())

    torch.testing.assert_close(model.conv.weight.grad, 2 * once)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_autocast_computes_in_its_dtype_and_selects_in_it(dtype):
    model = net()
    technique = attach(model, "bdwp", TWO_OF_EIGHT, steps=1)
    technique.before_step(0)
    with Products() as products:
        with torch.autocast("cpu", dtype):
            loss = model(batch()[0]).float().square().mean()
        loss.backward()
    conv = technique.layers["conv"]

    assert {t.dtype for pair in products.weight_gradient[:1] + products.forward[1:] for t in pair} == {dtype}
    assert torch.equal(products.forward[1][1], conv.operand(Pass.FF, dtype))
    assert conv.weight.grad.dtype == torch.float32
    reference = net()
    with torch.no_grad():
        # Magnitudes that are equal in the short format are not in FP32, so the masks would differ.
        for p in reference.parameters():
            p.copy_(p.to(dtype))
    dense = attach(reference, "bdwp", TWO_OF_EIGHT, steps=1)
    dense.before_step(0)
    reference(batch()[0]).square().mean().backward()
    error = (conv.weight.grad - reference.conv.weight.grad).norm() / reference.conv.weight.grad.norm()
    assert error < (0.005 if dtype == torch.float16 else 0.05)


def test_gradient_scaler_skips_an_overflow_and_goes_on():
    model = net()
    technique = attach(model, "bdwp-x", TWO_OF_EIGHT, steps=40, dense_head=0.0)
    optimizer = torch.optim.SGD(model.parameters(), 1.0)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**26, growth_interval=1000)
    x, labels = batch()
    before, losses = model.conv.weight.detach().clone(), []
    for step in range(20):
        technique.before_step(step)
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.float16):
            loss = nn.functional.cross_entropy(model(x), labels)
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        technique.adjust_gradients(step)
        scaler.step(optimizer)
        scaler.update()
        technique.after_step(step, optimizer)
        losses.append(loss.item())
        if step == 0:
            assert torch.equal(model.conv.weight, before) and scaler.get_scale() == 2.0**25

    assert scaler.get_scale() <= 2.0**25 and losses[-1] < 0.9 * losses[0]


class _Own(nn.Linear):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) * 2


class _Named(nn.Linear):
    pass


def test_layers_that_cannot_be_sparse_say_why():
    model = nn.ModuleDict(
        {
            "stem": nn.Conv2d(16, 16, 1),
            "conv": nn.Conv2d(16, 16, 1),
            "deep": nn.Conv2d(16, 16, 3, groups=16),
            "attention": nn.MultiheadAttention(16, 2),
            "own": _Own(16, 16),
            "named": _Named(16, 16),
            "computed": nn.utils.parametrizations.weight_norm(nn.Linear(16, 16)),
            "narrow": nn.Linear(4, 16),
            "memory": nn.LSTM(16, 16),
            "words": nn.Embedding(9, 16),
        }
    )
    technique = attach(model, "bdwp", TWO_OF_EIGHT, steps=1)

    assert set(technique.layers) == {"conv", "named", "narrow"}
    assert technique.layers["narrow"].kept_dense == {Pass.FF: "contraction runs of 4 are shorter than a group of 8"}
    assert technique.kept_dense == {
        "stem": "first convolution",
        "deep": "FF: contraction runs of 1 are shorter than a group of 8; "
        "BP: contraction runs of 1 are shorter than a group of 8",
        "attention": "nn.MultiheadAttention multiplies by it without calling the layer",
        "attention.out_proj": "nn.MultiheadAttention multiplies by it without calling the layer",
        "own": "forward of the layer is the user's own",
        "computed": "weight is computed from other parameters",
        "computed.parametrizations.weight": "no layer of a kind that can be sparse",
        "memory": "no layer of a kind that can be sparse",
    }
    technique.detach()
    assert type(model["named"]) is _Named


def test_tied_layers_share_one_weight_and_decay_it_once():
    model = nn.ModuleDict({"words": nn.Embedding(16, 24), "one": nn.Linear(24, 16), "two": nn.Linear(24, 16)})
    model["one"].weight = model["two"].weight = model["words"].weight
    technique = attach(model, "srste", TWO_OF_EIGHT, steps=1, decay=0.5)
    weight = model["words"].weight
    weight.grad = torch.zeros_like(weight)
    technique.adjust_gradients(0)

    assert set(technique.layers) == {"one", "two"}
    expected = 0.5 * weight.detach() * (technique.layers["one"].operand(Pass.FF) == 0)
    torch.testing.assert_close(weight.grad, expected)


def test_the_linear_layer_of_gpt2_takes_part():
    from transformers.pytorch_utils import Conv1D

    torch.manual_seed(0)
    model, x = nn.Sequential(Conv1D(16, 24)), torch.randn(3, 5, 24)
    expected = _gradients(model, x)
    technique = attach(model, "dense", None, steps=1)
    for ours, theirs in zip(_gradients(model, x), expected, strict=True):
        torch.testing.assert_close(ours, theirs)
    technique.detach()
    layer = attach(model, "bdwp", TWO_OF_EIGHT, steps=1).layers["0"]
    assert most_kept(layer.operand(Pass.FF), 0, 8) == 2 and most_kept(layer.operand(Pass.BP), 1, 8) == 2


def test_evaluation_of_a_transformer_reads_the_sparse_weights_too():
    """PyTorch's fused encoder would go past the layers when no gradient is asked for."""
    torch.manual_seed(0)
    model = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, batch_first=True).eval()
    x = torch.randn(2, 5, 16)
    dense = model(x).detach()
    technique = attach(model, "bdwp", TWO_OF_EIGHT, steps=1)
    with torch.no_grad():
        evaluated = model(x)

    assert set(technique.layers) == {"linear1", "linear2"} and not torch.allclose(evaluated, dense)
    torch.testing.assert_close(evaluated, model(x))
    technique.detach()
    assert not model._forward_pre_hooks


def test_a_model_saves_and_loads_while_at_work():
    model, file = net(), io.BytesIO()
    attach(model, "bdwp", TWO_OF_EIGHT, steps=1)
    torch.save(model.state_dict(), file)
    file.seek(0)
    plain = net()
    plain.load_state_dict(torch.load(file))

    assert torch.equal(plain.conv.weight, model.conv.weight)


def test_a_lazy_layer_is_refused_until_it_has_a_weight():
    with pytest.raises(InputError, match="layer '0' has no weight yet; run the model once"):
        attach(nn.Sequential(nn.LazyLinear(16)), "bdwp", TWO_OF_EIGHT, steps=1)
