"""The GEMMs of one real step of a training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch

from ..data import open_data
from ..models.classifier import image_side
from ..schemes.capture import StepGemm, observed
from ..schemes.scheme import phase_at, scheme
from .control import controlled, threads_for
from .run import Run
from .spec import TrainSpec

__all__ = ["CapturedStep", "capture_step"]

_CAPTURE_SCALE = 2.0**10

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CapturedStep:
    """The GEMMs of one step of a training, in the order in which they were made.

    ``step`` (from 1) of ``steps``; ``loss``: of its batch; ``loss_scale``: what gradients are multiplied by;
    ``left_out``: why the products of other layers with a weight could not be seen.
    """

    spec: TrainSpec
    step: int
    steps: int
    loss: float
    loss_scale: float
    gemms: tuple[StepGemm, ...]
    left_out: dict[str, str]


def capture_step(spec: TrainSpec, progress: Progress | None = None) -> CapturedStep:
    """Train on the CPU, as ``spec`` says, and write down the GEMMs of a step: the last one with the most N:M passes.

    That step is in FP16 mixed precision with a loss scale of 2^10, whatever the ones before it were in; of a
    super-network it trains one sub-network.
    """
    data, device = open_data(spec.data, image_side(spec.model)), torch.device("cpu")
    with controlled(threads_for(data), device) as stop:
        run = Run(spec, data, None, device)
        phases = run.technique.phases

        def sparse_passes(step: int) -> int:
            phase = phase_at(phases, step, run.steps)
            return len(scheme(phase.scheme).sparse) if phase.pattern else 0

        chosen = max(range(run.steps), key=lambda step: (sparse_passes(step), step))
        while run.step < chosen:
            run.advance()
            if run.step % run.per_epoch == 0:
                run.start_epoch()
            if progress is not None:
                progress(run.step, chosen + 1)
            if stop():
                raise KeyboardInterrupt
        run.spec = replace(spec, amp="fp16", paths=1)
        run.scaler = torch.amp.GradScaler("cpu", init_scale=_CAPTURE_SCALE)
        loss = run.loss_sum
        with observed(run.model, run.technique) as (gemms, left_out):
            run.advance()
        for gemm in gemms:
            finite = np.isfinite(gemm.left).all() and np.isfinite(gemm.right).all()
            run.require_finite(bool(finite), run.step, f"an operand of {gemm.layer} in {gemm.pass_} overflows FP16")
        return CapturedStep(
            spec=spec,
            step=run.step,
            steps=run.steps,
            loss=run.loss_sum - loss,
            loss_scale=_CAPTURE_SCALE,
            gemms=tuple(gemms),
            left_out=left_out,
        )
