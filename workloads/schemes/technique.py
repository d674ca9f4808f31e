"""The protocol of a training technique, and what all of them share: layers, phases, random numbers, state, metrics."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from ..errors import InputError
from ..gemm import GEMM_PASSES, Pass
from ..sparsity import NMPattern
from .annotate import FIRST_CONVOLUTION
from .estimator import Few
from .layer import SparseLayer, short_runs
from .layers import ATTRIBUTE, find_layers, install, uninstall
from .masks import CompactWeight, bits_of, mask_from, pack
from .scheme import Phase, Scheme, phase_at, phases, scheme

__all__ = ["LayerMetrics", "Options", "Technique", "hold_zero", "mask_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Settings of a technique beyond its pattern; a technique with some has a subclass that checks itself."""

    def schedule(self) -> dict[str, Any]:
        """Those of them that the phases of the scheme depend on."""
        return {}


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerMetrics:
    """One layer in the current step: shares of non-zeros of W_ff and W_bp, and of dY in WU (1.0 where not sampled).

    ``flip_rate``: share of the weights whose mask differs from that of the step before (Hu et al. 2024, arXiv
    2404.01847). ``sad``: share of the weights whose mask differs from that of the first step, the sparse architecture
    divergence of SR-STE (arXiv 2102.04010) over the number of weights. Of few values, the sign or zero is it.
    """

    density_ff: float
    density_bp: float
    density_wu: float
    flip_rate: float
    sad: float


class Technique:
    """One technique at work on a model; as it stands, dense training through the same three GEMMs.

    A technique is what it overrides: the operands (``forward_weight``, ``backward_weight``, ``backward_gradient``,
    ``update_gradient``), when they are re-made (``before_step``), and what happens around the optimizer
    (``adjust_gradients``, ``after_step``). The order of a step is ``before_step``, forward and backward (any number of
    times), unscaling of the gradients, ``adjust_gradients``, ``optimizer.step()``, ``after_step``.

    ``layers``: the layers at work by module path. ``kept_dense``: why other layers with a weight are not. ``pattern``
    and ``phase``: of the current step.
    """

    options_type: ClassVar[type[Options]] = Options
    scales: ClassVar[frozenset[Pass]] = frozenset()
    """Passes in which the gradient is not only selected from but changed, so that no top-N of dY makes it."""
    planes: ClassVar[int] = 1
    """Bits a weight that :meth:`marks` makes."""
    options: Any
    scheme: Scheme
    pattern: NMPattern | None

    def __init__(
        self, model: nn.Module, chosen: Scheme, pattern: NMPattern | None, *, seed: int, steps: int, options: Options
    ) -> None:
        self.scheme, self.pattern, self.asked, self.options = chosen, pattern, pattern, options
        self.seed, self.steps, self.step = seed, steps, 0
        self.phases = phases(chosen.name, pattern, **options.schedule())
        self.phase = phase_at(self.phases, 0, steps)
        self.layers, self.kept_dense = self._collect(model)
        self._draws = 0
        self.enter_phase()
        for layer in self.layers.values():
            install(layer)
        # A fused kernel for evaluation would read the weights past their layers; PyTorch leaves it out where a hook is.
        self._hooks = [
            module.register_forward_pre_hook(_call_every_layer)
            for module in model.modules()
            if isinstance(module, nn.TransformerEncoderLayer)
        ]

    # What a technique may choose.

    def forward_weight(self, layer: SparseLayer, weight: Tensor) -> Tensor:
        """W_ff of a layer whose FF is sparse, stored like the dense ``weight``: any shape, of the dtype of the GEMM."""
        return weight

    def backward_weight(self, layer: SparseLayer, weight: Tensor, forward: Tensor) -> Tensor:
        """W_bp of a layer whose BP is sparse; elsewhere BP reads ``forward``, W_ff, as autograd would.

        All three are stored alike: any shape, of the dtype of the GEMM.
        """
        return forward

    def backward_gradient(self, layer: SparseLayer, dy: Tensor) -> Tensor:
        """g_bp(dY) of a layer whose BP is sparse.

        Both are [batch, *positions, out], of a convolution [batch, out, *positions], of the dtype of the GEMM.
        """
        return dy

    def update_gradient(self, layer: SparseLayer, dy: Tensor) -> Tensor:
        """g_wu(dY) of a layer whose WU is sparse.

        Both are [batch, *positions, out], of a convolution [batch, out, *positions], of the dtype of the GEMM.
        """
        return dy

    def prepared(self, layer: SparseLayer, x: Tensor, conv: Any) -> tuple[Tensor, Any]:
        """What the layer multiplies in the place of its input, by operators that autograd knows, and its ``conv``.

        Both are [batch, *positions, in], of a convolution [batch, in, *positions], of the dtype of the GEMM. ``conv``:
        stride, padding, dilation, transposed, output padding, groups.
        """
        return x, conv

    def gain(self, layer: SparseLayer, x: Tensor, conv: Any) -> Tensor | None:
        """What the output is multiplied by before the bias, None for 1; of the dtype and dimensions of ``x``
        [batch, ...], which is prepared. It gets no gradient unless it is made of something that does."""
        return None

    def activation(self, layer: SparseLayer, x: Tensor) -> Few:
        """What FF and WU multiply in the place of ``x``, which is prepared; of its shape [batch, ...] and dtype. The
        scale has the dimensions of the output, 1 along out."""
        return Few(values=x)

    def activation_gradient(self, layer: SparseLayer, g: Tensor, x: Tensor) -> Tensor:
        """dX, where :meth:`activation` is not ``x`` itself, of ``g``, the gradient of scale times values.

        All are [batch, ...] as ``x`` and of the dtype of the GEMM.
        """
        return g

    def weight_gradient(self, layer: SparseLayer, g: Tensor, weight: Tensor) -> Tensor:
        """dW, under a scheme of few values, of ``g``, the gradient of scale times W_ff.

        All are stored alike, in any shape; ``g`` has the dtype of the GEMM, the others that of the master.
        """
        return g

    def marks(self, weight: Tensor) -> Tensor:
        """What of W_ff, or of W_bp, is watched for flips: bool of its shape, [planes, ...] if several; of any dtype."""
        return weight != 0

    def prepare(self, layer: SparseLayer) -> None:
        """Once per layer, when it is put to work."""

    def refresh(self, layer: SparseLayer) -> None:
        """At the begin of every step, before the layer's operands are made anew."""

    def before_step(self, step: int) -> None:
        """Begin optimizer step ``step`` (from 0): enter its phase and have the operands made anew."""
        self.step, self._draws = step, 0
        self.enter_phase()
        for layer in self.layers.values():
            self.refresh(layer)
            layer.begin_step()

    def adjust_gradients(self, step: int) -> None:
        """After backward and unscaling, before ``optimizer.step()``: decay terms, gradient masks."""

    def after_step(self, step: int, optimizer: torch.optim.Optimizer) -> None:
        """After ``optimizer.step()``: what happens to the master weights and to the optimizer's state."""

    def clock(self, step: int) -> tuple[int, int]:
        """Which step of how many ``step`` is to the schedule of the learning rate: a technique that trains again goes
        through it again."""
        return step, self.steps

    def full_precision(self) -> tuple[str, ...]:
        """The layers that it leaves alone: those of the scheme, and the first convolution."""
        return (*self.scheme.full_precision, FIRST_CONVOLUTION)

    # What every technique has.

    def _collect(self, model: nn.Module) -> tuple[dict[str, SparseLayer], dict[str, str]]:
        if any(ATTRIBUTE in module.__dict__ for module in model.modules()):
            raise InputError("a technique is already attached to the model; detach it first")
        layers: dict[str, SparseLayer] = {}
        dense: dict[str, str] = {}
        for name, module, kind, reason in find_layers(model, self.full_precision()):
            if reason or kind is None:
                dense[name] = reason
                continue
            layer = SparseLayer(name, module, kind, self)
            reasons: dict[Pass, str] = {}
            if all(not self.passes_of(layer, phase, reasons) for phase in self.phases) and self._thins():
                dense[name] = "; ".join(f"{p}: {why}" for p, why in reasons.items())
            else:
                layers[name] = layer
                self.prepare(layer)
        if not layers:
            why = "; ".join(f"{name or 'the model'}: {reason}" for name, reason in list(dense.items())[:8])
            raise InputError(
                f"no sparsifiable layer for scheme {self.scheme.name!r}{f' at {self.asked}' if self.asked else ''}"
                f"{f' ({why})' if why else ''}"
                f"{'; a weight needs at least one group along its channels' if self.asked else ''}"
            )
        return layers, dense

    def _thins(self) -> bool:
        return self.scheme.takes_pattern or bool(self.scheme.levels)

    def passes_of(self, layer: SparseLayer, phase: Phase, reasons: dict[Pass, str]) -> frozenset[Pass]:
        """Passes of ``layer`` that are sparse or of few values in ``phase``; ``reasons`` gets why others are not."""
        of_phase = scheme(phase.scheme)
        passes = frozenset(of_phase.sparse)
        reasons.update(short_runs(layer, passes, phase.pattern.group) if phase.pattern else {})
        return (passes - reasons.keys()) | of_phase.unstructured.keys() | of_phase.levels.keys()

    def enter_phase(self) -> None:
        """Decide the passes of every layer by the step and by the shape that its weight has now."""
        self.phase = phase_at(self.phases, self.step, self.steps)
        self.pattern = self.phase.pattern
        for layer in self.layers.values():
            layer.kept_dense = {}
            passes = self.passes_of(layer, self.phase, layer.kept_dense)
            if passes != layer.passes:
                layer.passes = passes
                layer.forget()

    def nm(self) -> NMPattern:
        """The N:M pattern of the current phase."""
        if self.pattern is None:
            raise InputError(f"scheme {self.scheme.name!r} needs an N:M pattern, for example 2:8")
        return self.pattern

    def own_layers(self) -> Iterator[SparseLayer]:
        """The layers, one for each weight: tied layers share theirs."""
        seen: set[int] = set()
        for layer in self.layers.values():
            if id(layer.weight) not in seen:
                seen.add(id(layer.weight))
                yield layer

    def generator(self, *salt: int, device: torch.device | str = "cpu") -> torch.Generator:
        """Random numbers that depend on the seed, the step and ``salt`` alone."""
        entropy = np.random.SeedSequence([self.seed, self.step, *salt]).generate_state(1, np.uint64)[0]
        return torch.Generator(device).manual_seed(int(entropy >> np.uint64(1)))

    def sampler(self, device: torch.device | str = "cpu") -> torch.Generator:
        """Random numbers of one draw within the step; the same draws come again when the step is run again."""
        self._draws += 1
        return self.generator(1, self._draws, device=device)

    def state_dict(self) -> dict[str, Any]:
        """All that a resumed run needs beyond model and optimizer, as tensors and plain values."""
        return {
            **self._identity(),
            "step": self.step,
            "draws": self._draws,
            "layers": {
                name: {
                    "state": {key: value.clone() for key, value in layer.state.items()},
                    "masks": {key: bits_of(self._watched(layer, key)) for key in ("initial", "previous", "used")},
                }
                for name, layer in self.layers.items()
            },
        }

    def _identity(self) -> dict[str, Any]:
        return {
            "scheme": self.scheme.name,
            "pattern": None if self.asked is None else str(self.asked),
            "seed": self.seed,
            "steps": self.steps,
            "options": asdict(self.options),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on exactly where ``state`` was taken; the state of another scheme, pattern or model is refused."""
        for key, own in self._identity().items():
            if key not in state or state[key] != own:
                raise InputError(f"state of a technique has {key} {state.get(key)!r}, but this one has {own!r}")
        if state["layers"].keys() != self.layers.keys():
            odd = sorted(state["layers"].keys() ^ self.layers.keys())[0]
            raise InputError(f"state of a technique is of another model: layer {odd!r} is on one side only")
        self.step, self._draws = state["step"], state["draws"]
        for name, layer in self.layers.items():
            saved = state["layers"][name]
            device = layer.weight.device
            layer.state = {key: value.clone().to(device) for key, value in saved["state"].items()}
            for key, bits in saved["masks"].items():
                setattr(layer, key, mask_from(bits, layer.weight, self.planes))
            layer.forget()
        self.enter_phase()

    def metrics(self) -> dict[str, LayerMetrics]:
        """Densities and mask changes of every layer at work."""
        return {name: self._metrics_of(layer) for name, layer in self.layers.items()}

    def _metrics_of(self, layer: SparseLayer) -> LayerMetrics:
        ff, bp = (_density(layer.operand(p)) for p in (Pass.FF, Pass.BP))
        initial, previous, used = (self._watched(layer, key) for key in ("initial", "previous", "used"))
        now = used if used is not None else previous
        wu = self.pattern.density if Pass.WU in layer.passes and self.pattern is not None else 1.0
        return LayerMetrics(
            density_ff=ff,
            density_bp=bp,
            density_wu=wu,
            flip_rate=_changed(previous, now, layer.weight.numel()),
            sad=_changed(initial, now, layer.weight.numel()),
        )

    def _watched(self, layer: SparseLayer, key: str) -> Tensor | None:
        held: Tensor | None = getattr(layer, key)
        return held if held is None or held.dtype == torch.bool else self.marks(held)

    def compact(self) -> dict[str, dict[Pass, CompactWeight]]:
        """FP16 operands of the sparse weights of every layer, by pass, as the machine reads them."""
        return {
            name: {
                p: self.compact_operand(layer, p)
                for p in GEMM_PASSES
                if p in layer.passes and scheme(self.phase.scheme).sparse.get(p) == "weight"
            }
            for name, layer in self.layers.items()
        }

    def compact_operand(self, layer: SparseLayer, pass_: Pass) -> CompactWeight:
        """W_ff as [groups, taps x in, out] or W_bp as [groups, out, in x taps], compacted along channels."""
        return self.compacted(layer, pass_, layer.operand(pass_))

    def compacted(self, layer: SparseLayer, pass_: Pass, weight: Tensor) -> CompactWeight:
        """The same of an operand ``weight`` that was made before, stored like the weight: any shape, in whatever
        dtype."""
        values = layer.canonical(weight.detach().to(torch.float16)).cpu().numpy()
        mask = layer.canonical(weight != 0).cpu().numpy()
        order = self.channel_order(layer) if pass_ == Pass.BP else None
        return pack(_matrix(values, pass_, order), _matrix(mask, pass_, order), self.nm(), layer.run(pass_), order)

    def channel_order(self, layer: SparseLayer) -> npt.NDArray[np.int64] | None:
        """Order in which BP takes the output channels of a convolution group, int64 [out]; None for that of
        storage."""
        return None

    def detach(self) -> None:
        """Leave the model as an ordinary one with its dense weights."""
        for layer in self.layers.values():
            uninstall(layer)
        for hook in self._hooks:
            hook.remove()
        self.layers = {}


def mask_of(layer: SparseLayer) -> Tensor:
    """The mask in the state of ``layer``, on the device of its weight; bool of any shape, the weight's."""
    layer.state["mask"] = layer.state["mask"].to(layer.weight.device)
    return layer.state["mask"]


def hold_zero(layer: SparseLayer, mask: Tensor, optimizer: torch.optim.Optimizer | None) -> None:
    """Zero the master weight outside ``mask``, and what an optimizer has gathered there (momentum, second moment).

    ``mask``: bool of any shape, the weight's.
    """
    weight, outside = layer.weight, ~mask
    with torch.no_grad():
        weight.masked_fill_(outside, 0)
        for held in (optimizer.state.get(weight, {}) if optimizer else {}).values():
            if isinstance(held, Tensor) and held.shape == weight.shape:
                held.masked_fill_(outside, 0)


def _call_every_layer(module: nn.Module, inputs: Any) -> None:
    """A hook that does nothing; that it is there is enough."""


def _matrix(canonical: npt.NDArray[Any], pass_: Pass, order: npt.NDArray[np.int64] | None) -> npt.NDArray[Any]:
    groups, outputs, inputs, taps = canonical.shape
    if pass_ == Pass.FF:
        return canonical.transpose(0, 3, 2, 1).reshape(groups, taps * inputs, outputs)
    taken = canonical if order is None else canonical[:, order]
    return taken.reshape(groups, outputs, inputs * taps)


def _density(weight: Tensor) -> float:
    return int(torch.count_nonzero(weight)) / max(weight.numel(), 1)


def _changed(before: Tensor | None, now: Tensor | None, weights: int) -> float:
    if before is None or now is None:
        return 0.0
    return int((before != now).reshape(-1, weights).any(0).sum()) / max(weights, 1)
