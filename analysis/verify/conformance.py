"""What every training scheme must keep to, for whoever writes one: `weft.testing`."""

from __future__ import annotations

from typing import Any

from ...dataflow.config_io import load_spec
from ...workloads.errors import InputError
from ...workloads.schemes.scheme import scheme
from ...workloads.sparsity import NMPattern
from .step import verify_step

__all__ = ["check_scheme"]


def check_scheme(name: str, nm: str = "2:8", **options: Any) -> str:
    """Hold a scheme to its word; says what was checked, and raises AssertionError with the first thing that is wrong.

    ``name``: as on the command line, ``file.py:Class`` included; ``options``: of its technique. Checked are: training
    and annotation thin out the same operands of the same layers; a state that is saved in the middle goes on in the
    same bits; ``detach`` leaves the model as it was; every GEMM of a real step of `mlp` on the digits, at the pattern
    ``nm`` where the scheme has a use for one, is what the array computes, with operands that are N:M, or of few values,
    as the scheme says.
    """
    from ...workloads.schemes.conformance import check_technique

    pattern = NMPattern.parse(nm) if scheme(name).takes_pattern else None
    check_technique(name, pattern, options)
    words, gemms = _check_gemms(name, pattern, options)
    at = "" if pattern is None else f" at {nm}"
    return f"{name}{at}: operands, resuming and detaching are right; {words:,} words of {gemms} GEMMs of a step too"


def _check_gemms(name: str, pattern: NMPattern | None, options: dict[str, Any]) -> tuple[int, int]:
    from ...workloads.training import capture_step, plan

    try:
        step = capture_step(plan("mlp", scheme=name, pattern=pattern, epochs=1, options=options))
        found = verify_step(load_spec("tiny"), step, budget=10**6)
    except InputError as error:
        raise AssertionError(f"a step of mlp: {error}") from error
    wrong = next((check for check in found.checks if check.difference is not None), None)
    if wrong is not None and wrong.difference is not None:
        raise AssertionError(
            f"{wrong.layer} {wrong.pass_}: {wrong.difference.where}: {wrong.difference.expected} and "
            f"{wrong.difference.found}"
        )
    return found.words, len(found.checks)
