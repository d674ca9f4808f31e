"""A real training step on the cycle level: every GEMM's operands from PyTorch, bits, cycles, and PyTorch's own result.

`weft verify --train-step` prints what :func:`verify_step` returns.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ...dataflow.accelerator import AcceleratorSpec
from ...dataflow.account import Cycles
from ...dataflow.stce.mapping import ArrayMapping
from ...dataflow.stce.time import array_cycles
from ...simulator.array import run_array
from ...simulator.compact import BUBBLE, Compact, compress, decompress, from_mask
from ...simulator.engines import run_sore
from ...simulator.operand import Half
from ...simulator.reference import gemm_reference
from ...workloads.errors import InputError
from ...workloads.gemm import GEMM_PASSES, Gemm, Pass
from ...workloads.sparsity import NMPattern
from .difference import Difference, Distance, distance, first_bits, first_of
from .product import MAX_PE_CYCLES, Product, best_product

if TYPE_CHECKING:
    from ...hdl.drivers.array import StceDriver
    from ...workloads.schemes.capture import StepGemm, StepProduct
    from ...workloads.training import CapturedStep

__all__ = ["GemmCheck", "StepVerification", "require_machine", "verify_step"]

RTL_PE_CYCLES = 2**19
"""PE-cycles of one GEMM that are run on the RTL: under a second in co-simulation of the machine `tiny`."""
_ROUNDING = 2.0**-24
_AFTERWARDS = 8
"""Cycles watched after a run of the RTL: nothing may leave any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GemmCheck:
    """One GEMM of the step, all its convolution groups.

    ``pattern`` and ``sparse``: of its N:M operand, None and "" if it is dense. ``kept``: products that are multiplied
    over those of the dense GEMM, counted in the real operands. ``cycles``: of the array, equal to the closed form.
    ``words`` of ``all_words`` results went through the cycle level, ``rtl_words`` through the RTL. ``fp32``: distance
    of the layer's result to PyTorch's, ``fp16``: after both are rounded to FP16; None where only part was run.
    """

    layer: str
    pass_: Pass
    gemm: Gemm
    pattern: NMPattern | None
    sparse: str
    mapping: ArrayMapping
    kept: float
    words: int
    all_words: int
    cycles: int
    sore_cycles: int
    rtl_words: int
    fp32: Distance | None
    fp16: Distance | None
    difference: Difference | None

    @property
    def equal(self) -> bool:
        return self.difference is None


@dataclass(frozen=True, slots=True, kw_only=True)
class StepVerification:
    """What :func:`verify_step` found of step ``step`` (from 1) of ``steps``, in the order FF, BP, WU of each layer."""

    spec: AcceleratorSpec
    model: str
    scheme: str
    pattern: NMPattern | None
    seed: int
    batch: int
    step: int
    steps: int
    loss: float
    loss_scale: float
    left_out: dict[str, str]
    checks: tuple[GemmCheck, ...]

    @property
    def equal(self) -> bool:
        return all(check.equal for check in self.checks)

    @property
    def words(self) -> int:
        return sum(check.words for check in self.checks)

    @property
    def all_words(self) -> int:
        return sum(check.all_words for check in self.checks)

    @property
    def rtl_words(self) -> int:
        return sum(check.rtl_words for check in self.checks)

    @property
    def cycles(self) -> int:
        return sum(check.cycles for check in self.checks)

    def distance(self, precision: str, *passes: Pass) -> Distance | None:
        """``fp32`` or ``fp16`` over the GEMMs of ``passes``, all if none is named, whose results are whole."""
        chosen = [check for check in self.checks if check.pass_ in (passes or GEMM_PASSES)]
        found = [d for check in chosen if (d := getattr(check, precision)) is not None]
        words = sum(d.words for d in found)
        if not words:
            return None
        return Distance(
            words=words,
            exact=sum(d.exact for d in found),
            mean=sum(d.mean * d.words for d in found) / words,
            most=max(d.most for d in found),
        )


def require_machine(spec: AcceleratorSpec, pattern: NMPattern | None) -> None:
    """Refuse a machine that cannot take the operands of a step in FP16 mixed precision, before anything is trained."""
    if spec.pe.format != "fp16":
        raise InputError(
            f"a step in FP16 needs a machine with pe.format = 'fp16', but that of {spec.name!r} is {spec.pe.format!r}"
        )
    if pattern is not None:
        spec.check_pattern(pattern)


def verify_step(
    spec: AcceleratorSpec,
    step: CapturedStep,
    *,
    rtl: bool = False,
    budget: int = MAX_PE_CYCLES,
    progress: Callable[[int, int], None] | None = None,
) -> StepVerification:
    """Run every GEMM of ``step`` on the array of ``spec``, each under its quickest mapping.

    Compared are, in this order: the compact weights that the technique made with those of the simulator, or what SORE
    makes of a gradient with what the technique kept; the array's bits with the k-order FP32 reference; its cycles with
    the closed form; the RTL's bits and cycles with ``rtl``; the layer's result with PyTorch's, within the error bound
    of FP32 sums. A GEMM of more than ``budget`` PE-cycles is sampled: some rows and columns of its result, all of k.
    """
    require_machine(spec, step.spec.pattern)
    driver = _driver(spec) if rtl else None
    first: dict[str, int] = {}
    for number, gemm in enumerate(step.gemms):
        first.setdefault(gemm.layer, number)
    gemms = sorted(step.gemms, key=lambda gemm: (first[gemm.layer], GEMM_PASSES.index(gemm.pass_)))
    checks: list[GemmCheck] = []
    for number, gemm in enumerate(gemms):
        bench = _Bench(spec, gemm.pattern, driver, budget, np.random.default_rng([step.spec.seed, number]))
        checks.append(_check(gemm, bench))
        if progress is not None:
            progress(number + 1, len(gemms))
    return StepVerification(
        spec=spec,
        model=step.spec.model,
        scheme=step.spec.scheme,
        pattern=step.spec.pattern,
        seed=step.spec.seed,
        batch=step.spec.batch,
        step=step.step,
        steps=step.steps,
        loss=step.loss,
        loss_scale=step.loss_scale,
        left_out=step.left_out,
        checks=tuple(checks),
    )


def _driver(spec: AcceleratorSpec) -> StceDriver:
    from ...hdl.drivers.array import StceDriver

    return StceDriver(spec)


@dataclass(frozen=True, slots=True)
class _Bench:
    """What one GEMM is run on."""

    spec: AcceleratorSpec
    pattern: NMPattern | None
    driver: StceDriver | None
    budget: int
    random: np.random.Generator


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ran:
    """One product on the array; ``result`` has the orientation of the layer's GEMM, None where a part was run."""

    best: Product
    result: npt.NDArray[np.float32] | None
    words: int
    rtl_words: int
    cycles: int
    sore_cycles: int
    kept: float
    difference: Difference | None


def _check(gemm: StepGemm, bench: _Bench) -> GemmCheck:
    ran = [_run(product, bench) for product in gemm.products()]
    difference = next((r.difference for r in ran if r.difference is not None), None)
    best, results = ran[0].best, [r.result for r in ran if r.result is not None]
    fp32 = fp16 = None
    if len(results) == len(ran):
        made = gemm.result(results)
        fp32 = distance(gemm.found, made)
        with np.errstate(over="ignore"):
            fp16 = distance(gemm.found.astype(np.float16), made.astype(np.float16))
        difference = difference or _beyond_rounding(gemm, made)
    placed = replace(best.placed, groups=gemm.groups)
    return GemmCheck(
        layer=gemm.layer,
        pass_=gemm.pass_,
        gemm=placed,
        pattern=gemm.pattern,
        sparse=str(gemm.role or ""),
        mapping=best.mapping,
        kept=sum(r.kept for r in ran) / len(ran),
        words=sum(r.words for r in ran),
        all_words=placed.groups * placed.m * placed.n,
        cycles=sum(r.cycles for r in ran),
        sore_cycles=sum(r.sore_cycles for r in ran),
        rtl_words=sum(r.rtl_words for r in ran),
        fp32=fp32,
        fp16=fp16,
        difference=difference,
    )


def _run(product: StepProduct, bench: _Bench) -> _Ran:
    spec, a, b = bench.spec, product.a, product.b
    best = best_product(spec, Gemm(m=a.shape[0], k=a.shape[1], n=b.shape[1], run=product.run), "auto", bench.pattern)
    swapped, sore_cycles, found = product.swapped, 0, None
    if bench.pattern is not None:
        pairs, sore_cycles, found = _thinned(spec, product, bench.pattern)
    else:
        if best.n2s == "a":
            a, b, swapped = np.ascontiguousarray(b.T), np.ascontiguousarray(a.T), not swapped
        pairs = compress(b, best.mapping.pattern, product.run)
    rows, cols = _tile(best, bench.budget, bench.random)
    part_a, part_b = a[rows], _columns(pairs, cols)
    ran = run_array(spec, best.mapping, part_a, part_b)
    found = found or first_bits("array and k-order reference", gemm_reference(part_a, part_b), ran.result)
    found = found or _cycles(spec, best.mapping, part_a, part_b, ran.cycles)
    rtl_words = 0
    if bench.driver is not None:
        rtl_words, differs = _on_rtl(bench.driver, best, a, pairs, bench.random)
        found = found or differs
    whole = ran.result.shape == (len(a), pairs.n)
    return _Ran(
        best=best,
        result=(ran.result.T if swapped else ran.result) if whole else None,
        words=ran.result.size,
        rtl_words=rtl_words,
        cycles=ran.cycles.total,
        sore_cycles=sore_cycles,
        kept=np.count_nonzero(pairs.indices != BUBBLE) / (pairs.k * pairs.n),
        difference=found,
    )


def _thinned(spec: AcceleratorSpec, product: StepProduct, pattern: NMPattern) -> tuple[Compact, int, Difference | None]:
    """The N:M operand as pairs: those that the technique made of a weight, or that SORE makes online of a gradient."""
    assert product.kept is not None
    packed = from_mask(product.b, product.kept, pattern, product.run)
    if product.unsorted is not None:
        sore = run_sore(spec, product.unsorted, pattern, product.run)
        left = decompress(sore.compact)
        differs = left != product.b
        found = first_of("SORE and the technique", product.b, left, differs)
        return sore.compact, sore.cycles, found
    if product.compact is None:
        return packed, 0, None
    values, indices = product.compact
    made = Compact(values=values, indices=indices, pattern=pattern, k=packed.k, run=packed.run)
    found = first_bits("compact weights of simulator and technique", packed.values, made.values)
    wrong = packed.indices != made.indices
    return made, 0, found or first_of("indices of simulator and technique", packed.indices, made.indices, wrong)


def _columns(pairs: Compact, cols: slice) -> Compact:
    return replace(
        pairs, values=np.ascontiguousarray(pairs.values[:, cols]), indices=np.ascontiguousarray(pairs.indices[:, cols])
    )


def _tile(best: Product, budget: int, random: np.random.Generator) -> tuple[slice, slice]:
    """All rows and columns of the result, or a part of about ``budget`` PE-cycles at a random place."""
    spec, placed = best.spec, best.placed
    work = best.cycles.total * spec.array.pes
    if work <= budget:
        return slice(0, placed.m), slice(0, placed.n)
    outputs = max(placed.m * placed.n * budget // work, 1)
    across = spec.array.cols * best.mapping.interleave
    cols = min(placed.n, max(across, int(outputs**0.5) // across * across))
    rows = min(placed.m, max(spec.array.rows, outputs // cols // spec.array.rows * spec.array.rows))
    top, left = int(random.integers(placed.m - rows + 1)), int(random.integers(placed.n - cols + 1))
    return slice(top, top + rows), slice(left, left + cols)


def _cycles(spec: AcceleratorSpec, mapping: ArrayMapping, a: Half, pairs: Compact, found: Cycles) -> Difference | None:
    closed = array_cycles(spec, Gemm(m=len(a), k=pairs.k, n=pairs.n, run=pairs.run), mapping)
    if closed == found:
        return None
    return Difference(what="cycles of closed form and array", expected=str(closed), found=str(found))


def _on_rtl(
    driver: StceDriver, best: Product, a: Half, pairs: Compact, random: np.random.Generator
) -> tuple[int, Difference | None]:
    """Words that a part of the product was compared in, bits and cycle of each, and the first difference."""
    rows, cols = _tile(best, RTL_PE_CYCLES, random)
    a, pairs = a[rows], _columns(pairs, cols)
    want = run_array(best.spec, best.mapping, a, pairs)
    gemm = Gemm(m=len(a), k=pairs.k, n=pairs.n, run=pairs.run)
    try:
        got = driver.run(best.mapping, gemm, a, pairs.values, pairs.indices, cycles=want.length + _AFTERWARDS)
    except RuntimeError as error:
        # The driver's word for RTL that lets go other words than it should.
        return want.result.size, Difference(
            what="array and RTL", expected=f"{want.result.size} words", found=str(error)
        )
    found = first_bits("array and RTL", want.result, got.result.view(np.float32))
    late = want.left != got.left
    found = found or first_of("cycle in which a word leaves array and RTL", want.left, got.left, late)
    if found is None and want.length != got.cycles:
        found = Difference(what="cycles of array and RTL", expected=str(want.length), found=str(got.cycles))
    return want.result.size, found


def _beyond_rounding(gemm: StepGemm, made: npt.NDArray[np.float32]) -> Difference | None:
    """The first word that is further from PyTorch's than two FP32 sums of the same products can be.

    A sum of n products, in any order, is off by at most n u / (1 - n u) times the sum of their magnitudes, u = 2^-24
    (Higham, Accuracy and Stability of Numerical Algorithms, ch. 3); products of FP16 are exact.
    """
    share = gemm.terms * _ROUNDING
    bound = 2.0 * share / (1.0 - share) * gemm.magnitude
    wrong = ~(np.abs(made.astype(np.float64) - gemm.found) <= bound)
    return first_of("PyTorch and array, beyond the rounding of FP32 sums", gemm.found, made, wrong)
