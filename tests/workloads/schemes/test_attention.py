"""Attention of few values: estimators by hand, each way to write it against autograd, training against trace."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

import weft
import weft.testing
from weft.tests.examples_drawn import examples
from weft.workloads.catalog import trace_module
from weft.workloads.errors import InputError
from weft.workloads.levels import Levels
from weft.workloads.schemes import attach
from weft.workloads.schemes.attention import Part, attention_parts
from weft.workloads.schemes.bivit import RowSign, SoftmaxAware
from weft.workloads.schemes.estimator import Estimator
from weft.workloads.schemes.few_product import few_product
from weft.workloads.schemes.language import BinaryRow, FilterMean, FilterTernary, TernaryRow, UnitRow
from weft.workloads.schemes.scheme import SCHEMES, Scheme

from .attended_net import CAUSAL, HEADS, TOKENS, WIDTH, Net, net, signs, whole, written_out

NAMES = [name for name, s in SCHEMES.items() if s.attention]
MAPS = torch.tensor([[0.5, 0.125, 0.375, 0.0], [0.25, 0.25, 0.25, 0.25], [0.0, 0.0, 0.0, 0.0]], dtype=torch.float64)
ROWS = torch.tensor([[0.5, -1.5, 0.0, 2.0], [-0.25, 0.25, 0.5, -1.0]], dtype=torch.float64)
FILTERS = torch.tensor([[0.5, -1.5], [0.2, -0.4]], dtype=torch.float64)[None, :, :, None]


@pytest.mark.parametrize(
    ("estimator", "x", "values", "scale", "gradient"),
    [
        # A share that is met exactly counts; a row of zeros keeps nothing.
        (SoftmaxAware(0.25, False), MAPS, [[1, 1, 1, 0], [1, 1, 1, 1], [0, 0, 0, 0]], None, torch.ones(3, 4)),
        (
            SoftmaxAware(0.5, True),
            MAPS,
            [[1, 0, 1, 0], [1, 1, 1, 1], [0, 0, 0, 0]],
            [0.875 / 2, 0.25, 0],
            torch.ones(3, 4),
        ),
        # Means 1 and 0.5; 1.5 and 2 are beyond 1.
        (RowSign(), ROWS, [[1, -1, 1, 1], [-1, 1, 1, -1]], [1, 0.5], [[1, 0, 1, 0], [0.5, 0.5, 0.5, 0.5]]),
        # Steps 2 and 1; what is on the edge counts.
        (BinaryRow(), ROWS, [[1, -1, 1, 1], [-1, 1, 1, -1]], [2, 1], torch.ones(2, 4)),
        # 0.25, -0.75, 0, 1; -0.25, 0.25, 0.5 (to even), -1.
        (TernaryRow(), ROWS, [[0, -1, 0, 1], [0, 0, 0, -1]], [2, 1], torch.ones(2, 4)),
        # Means 0.25: step 0.25 passes no gradient above it; half a step is to even, 0.
        (UnitRow(1.0), MAPS[:2], [[1, 0, 1, 0], [1, 1, 1, 1]], [0.25, 0.25], [[0, 1, 0, 1], [1, 1, 1, 1]]),
        (FilterMean(), FILTERS, [[1, -1], [1, -1]], [1.0, 0.3], torch.ones(2, 2)),
        # Steps 4/3 and 0.4: 0.375, -1.125; 0.5 (to even), -1.
        (FilterTernary(), FILTERS, [[0, -1], [0, -1]], [4 / 3, 0.4], torch.ones(2, 2)),
    ],
    ids=lambda x: type(x).__name__ if isinstance(x, Estimator) else "",
)
def test_forward_and_backward_by_hand(estimator, x, values, scale, gradient):
    few = estimator.few(x)
    assert few.values.reshape(len(values), -1).tolist() == values
    if scale is None:
        assert few.scale is None
    else:
        torch.testing.assert_close(few.scale.flatten(), torch.tensor(scale, dtype=torch.float64))
    wanted = 3 * torch.as_tensor(gradient, dtype=torch.float64)
    found = estimator.gradient(torch.full_like(x, 3), x)
    torch.testing.assert_close(found.reshape(wanted.shape), wanted)


def test_a_map_that_is_not_a_number_is_not_hidden():
    assert SoftmaxAware(0.25, False).few(torch.tensor([[math.nan, 0.5]])).values.isnan().any()


def test_an_image_is_one_row_to_a_layer():
    x = torch.arange(1.0, 17.0).reshape(2, 2, 2, 2)
    assert BinaryRow(whole=True).few(x).scale.flatten().tolist() == [9.0, 25.0]


# The same written as functions that autograd differentiates: forward the first, backward the other.


def through(forward, backward):
    return forward.detach() + backward - backward.detach()


def surrogate(name, part, x):
    """What an operand stands for; rows along its last dimension."""
    mean = x.detach().abs().mean(-1, keepdim=True)
    if part == Part.VALUE:
        return through(signs(x), x.clamp(-1, 1))
    if part == Part.MAP and name == "bivit":
        return through((x >= 0.25 * x.amax(-1, keepdim=True)).to(x.dtype) * (x > 0), x)
    if part == Part.MAP:
        return through(2 * mean * (x / (2 * mean)).round().clamp(0, 1), torch.minimum(x, 2 * mean))
    if name == "bivit":
        return through(mean * signs(x), mean * x.clamp(-1, 1))
    clipped = torch.minimum(torch.maximum(x, -2 * mean), 2 * mean)
    few = signs(x) if name == "tbt-binary" else (x / (2 * mean)).round().clamp(-1, 1)
    return through(2 * mean * few, clipped)


def reference(name, q, k, v, mask, scale):
    scores = surrogate(name, Part.QUERY, q) @ surrogate(name, Part.KEY, k).transpose(-2, -1) * scale
    a = torch.softmax(scores + mask, -1)
    return surrogate(name, Part.MAP, a) @ surrogate(name, Part.VALUE, v.transpose(-2, -1)).transpose(-2, -1)


def in_place(q, k, v):
    scores = torch.matmul(q, k.mT)
    scores /= 4
    scores.masked_fill_(CAUSAL.isinf(), -math.inf)
    return torch.matmul(functional.dropout(functional.softmax(scores, dim=-1), 0.5, training=False), v)


def batched(q, k, v):
    flat = [x.flatten(0, 1) for x in (q, k, v)]
    scores = torch.baddbmm(CAUSAL.expand(len(flat[0]), -1, -1), flat[0], flat[1].mT, beta=1, alpha=0.25)
    return torch.bmm(torch.softmax(scores, 2), flat[2]).reshape(v.shape)


def masked(q, k, v):
    return functional.scaled_dot_product_attention(q, k, v, attn_mask=~CAUSAL.isinf(), scale=0.25)


def added(q, k, v):
    return functional.scaled_dot_product_attention(query=q, key=k, value=v, attn_mask=CAUSAL, scale=0.25)


def of_attention(model, technique, x):
    """What attention makes under a technique, and its gradients: the layers around take part in neither."""
    with torch.no_grad():
        parts = model.parts(x)
    parts = [part.detach().clone().requires_grad_() for part in parts]

    class Alone(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Identity()

        def forward(self, *given):
            return model.attend(*given)

    alone = Alone()
    technique.attended._model = alone
    technique.attended.uninstall()
    technique.attended.install()
    found = alone(*parts)
    return parts, found, torch.autograd.grad((found**2).sum(), parts)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("attend", [written_out, in_place, batched, whole, masked, added])
def test_every_way_to_write_attention_is_what_autograd_makes_of_the_surrogates(name, attend):
    model, x = net(attend)
    technique = attach(model, name, None, steps=8)
    technique.before_step(0)
    parts, found, gradients = of_attention(model, technique, x)

    wanted = reference(name, *parts, CAUSAL, 0.25)
    torch.testing.assert_close(found, wanted)
    for ours, theirs in zip(gradients, torch.autograd.grad((wanted**2).sum(), parts), strict=True):
        torch.testing.assert_close(ours, theirs)


@settings(max_examples=examples(15), deadline=None)
@given(
    shape=st.tuples(*[st.integers(1, 5)] * 4),
    wide=st.booleans(),
    names=st.sampled_from(
        [(RowSign(), TernaryRow()), (BinaryRow(), RowSign()), (SoftmaxAware(0.3, True), Estimator())]
    ),
    seed=st.integers(0, 999),
)
def test_gradients_of_a_product_are_those_of_its_scaled_operands(shape, wide, names, seed):
    """dA' = dC B^T and dB' = A^T dC, handed to the estimators; what is repeated gets the sum of its gradients."""
    batch, m, k, n = shape
    made = torch.Generator().manual_seed(seed)
    a = torch.rand(batch, m, k, dtype=torch.float64, generator=made).requires_grad_()
    b = torch.rand(1 if wide else batch, n, k, dtype=torch.float64, generator=made).requires_grad_()
    found = few_product(a, b, *names)
    brought = [estimator.few(x.detach()) for estimator, x in zip(names, (a, b), strict=True)]
    scaled = [few.values if few.scale is None else few.values * few.scale for few in brought]
    one, other = (x.clone().requires_grad_() for x in scaled)
    wanted = one @ other.transpose(-2, -1)
    torch.testing.assert_close(found, wanted)
    dc = torch.rand(found.shape, dtype=torch.float64, generator=made)
    plain = torch.autograd.grad(wanted, (one, other), dc)
    ours = torch.autograd.grad(found, (a, b), dc)
    for estimator, g, x, gradient in zip(names, plain, (a, b), ours, strict=True):
        torch.testing.assert_close(gradient, estimator.gradient(g, x.detach()))


def test_grouped_queries_repeat_keys_and_values():
    def grouped(q, k, v):
        return functional.scaled_dot_product_attention(q, k[:, :1], v[:, :1], scale=0.25, enable_gqa=True)

    model, x = net(grouped)
    parts, found, _ = of_attention(model, attach(model, "bivit", None, steps=1), x)
    q, k, v = parts
    k, v = (x[:, :1].repeat(1, 2, 1, 1) for x in (k, v))
    repeated = reference("bivit", q, k, v, torch.zeros_like(CAUSAL), 0.25)
    torch.testing.assert_close(found, repeated)


def test_what_is_checkpointed_is_made_again_of_the_same_values():
    class Kept(Net):
        def forward(self, x):
            mixed = checkpoint(self.middle, x, use_reentrant=False)
            return self.head(mixed).mean(1)

    torch.manual_seed(0)
    model, plain = Kept().double(), Net().double()
    model.middle = nn.Sequential(Inner(model))
    plain.load_state_dict({key: value for key, value in model.state_dict().items() if not key.startswith("middle")})
    x = torch.randn(2, TOKENS, WIDTH, dtype=torch.float64)
    gradients = []
    for one in (model, plain):
        attach(one, "bivit", None, steps=1)
        gradients.append(torch.autograd.grad((one(x) ** 2).sum(), one.qkv.weight)[0])
    torch.testing.assert_close(*gradients)


class Inner(nn.Module):
    """The middle of a net, as a module by itself that holds the net's layers."""

    def __init__(self, of):
        super().__init__()
        self.into, self.qkv, self.proj = of.into, of.qkv, of.proj

    def forward(self, x):
        q, k, v = self.qkv(self.into(x)).unflatten(-1, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
        return self.proj(written_out(q, k, v).transpose(1, 2).flatten(2))


def test_a_product_of_activations_that_is_no_attention_stays_whole():
    def gram(q, k, v):
        return (q @ k.mT / 4).tanh() @ v

    model, x = net(gram)
    parts, found, _ = of_attention(model, attach(model, "bivit", None, steps=1), x)
    torch.testing.assert_close(found, gram(*parts), rtol=0, atol=0)
    step = trace_module(Net(gram).double(), x, loss=lambda y: y.sum())
    assert attention_parts(step) == {}
    marked = weft.sparsify(step, "bivit")
    assert {op.kept_dense for op in marked.matrix_ops if op.parameter is None} == {"no weight operand"}


@pytest.mark.parametrize(
    ("attend", "message"),
    [
        (lambda q, k, v: torch.einsum("bhqd,bhkd->bhqk", q, k).softmax(-1) @ v, "makes the scores of an attention by"),
        (
            lambda q, k, v: torch.einsum("bhqk,bhkd->bhqd", (q @ k.mT).softmax(-1), v),
            "multiplies the map of an attention by einsum; write them with matmul",
        ),
        (lambda q, k, v: (q @ k.mT).softmax(-2) @ v, "takes the softmax of its scores along dimension -2"),
        (lambda q, k, v: (v.mT @ (k @ q.mT).softmax(-1)).mT, "multiplies by the map of an attention from the left"),
    ],
)
def test_attention_that_cannot_be_reached_is_refused(attend, message):
    model, x = net(attend)
    attach(model, "bivit", None, steps=1)
    with pytest.raises(InputError, match=message):
        model(x)
    # An error leaves nobody listening.
    assert torch._C._len_torch_function_stack() == 0


def test_a_module_that_hides_its_products_is_refused_and_left_as_it_was():
    model = nn.TransformerEncoderLayer(16, 2)
    kinds = [type(module) for module in model.modules()]
    with pytest.raises(InputError, match="scheme 'bivit' changes the products of attention, but those of 'self_attn'"):
        attach(model, "bivit", None, steps=1)
    assert [type(module) for module in model.modules()] == kinds
    assert not any(module._forward_hooks for module in model.modules())


def test_levels_of_attention_need_layers_beside_them():
    with pytest.raises(InputError, match="'odd' has levels of attention, but none of layers in FF and BP beside them"):
        Scheme(name="odd", title="", attention={Part.MAP: Levels.SPIKE})
