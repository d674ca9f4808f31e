"""Steps of use that read only the lines of their weights that tokens keep, and pay for finding out which.

Every form puts ops into the step: what looks at the values, a predictor's products, and what lists the lines and packs
the kept values, each with its elements, bytes or multiply-accumulates (docs/rows.md). Other vector work stays whole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Literal

from .errors import InputError
from .gemm import Gemm, Pass
from .levels import Levels
from .operand import DTYPE_BYTES, Role
from .resized import resized
from .row_forms import AskedRows, Form
from .rows import Alike, Along, Rows
from .step import Frozen, MatrixOp, Op, VectorOp, Workload

__all__ = ["EXPERTS", "RANK", "rank_of_rest", "skip_rows"]

RANK: Final = 8
"""Of a predictor's product: inputs / RANK; of what stands for the lines left out: the shorter side / RANK. Assumed."""
EXPERTS: Final = 40
"""Into which a router cuts the neurons of a network (the least of the 40 to 56 of BlockFFN's checkpoints)."""
_ROUTED: Final = 3
"""Operations on every score of a router: ReLU, its square, the scale of the norm (assumed)."""
_PLACE_BYTES: Final = 4
"""Of where a kept line is."""


def skip_rows(workload: Workload, asked: AskedRows | str) -> Workload:
    """``workload``, a step of use, with the lines of its weights left out that no token of its batch keeps.

    ``asked``: as `AskedRows.read` takes it. A layer without such a form in it is an :class:`InputError`.
    """
    chosen = AskedRows.read(asked) if isinstance(asked, str) else asked
    if workload.phase.trains:
        raise InputError(f"rows of {chosen.form.name} are left out in use: trace a step with use infer or decode")
    if any(op.rows for op in workload.matrix_ops):
        raise InputError(f"workload {workload.model!r} leaves out rows already; trace it again")
    if chosen.form.rest == "state" and workload.phase.use == "prefill":
        raise InputError(
            f"{chosen.form.name} has one token behind another, but a prompt's are read at once: trace a step with use "
            "decode, or infer for frames"
        )
    weave = _Weave(workload, chosen)
    plans = _plans(workload, chosen.form)
    if not plans:
        raise InputError(f"{workload.model!r} has no {_WANTED[chosen.form.skips]}, so {chosen.form.name} skips nothing")
    return weave.run(plans)


_WANTED: Final = {
    "inputs": "linear layer with a weight before its last",
    "down": "linear layer behind a ReLU, or behind another and vector work",
    "ffn": "pair of linear layers with vector work alone between them",
}


def rank_of_rest(inputs: int, outputs: int) -> int:
    """Of the product that stands for inputs that are left out."""
    return max(min(inputs, outputs) // RANK, 1)


@dataclass(slots=True)
class _Plan:
    """What becomes of a product: lines left out along its inputs or outputs, and the ops in front of it."""

    along: Along
    like: int
    """The product whose input decides which."""
    before: Callable[[_Weave, set[int]], int] | None = None
    inputs_done: int = 0
    """Inputs that a predictor has multiplied already."""


def _plans(workload: Workload, form: Form) -> dict[int, _Plan]:
    ops = workload.ops
    layers = [i for i, op in enumerate(ops) if isinstance(op, MatrixOp) and _is_layer(op)]
    if form.skips == "inputs":
        # The last scores a vocabulary, of which none of the papers leaves anything out.
        return {i: _Plan("inputs", i, _select(i, "inputs")) for i in layers[:-1]}
    found: dict[int, _Plan] = {}
    for down in layers:
        firsts = _firsts(workload, down)
        if form.skips == "down" and (firsts or _behind_relu(workload, down)):
            found[down] = _Plan("inputs", down, _select(down, "inputs"))
        elif form.skips == "ffn" and firsts:
            found |= _of_network(workload, form, down, firsts)
    return found


def _behind_relu(workload: Workload, i: int) -> bool:
    before = [workload.ops[j] for j in workload.after[i]] if workload.after else []
    return len(before) == 1 and isinstance(before[0], VectorOp) and before[0].op in ("aten.relu", "aten.relu_")


def _of_network(workload: Workload, form: Form, down: int, firsts: Sequence[int]) -> dict[int, _Plan]:
    """A feed-forward network of which whole neurons are left out."""
    gate = _gate(workload, firsts)
    others = [i for i in firsts if i != gate]
    found = {down: _Plan("inputs", down)}
    if form.predictor == "gate":
        if gate is None:
            name = workload.ops[down].name
            raise InputError(f"{form.name} looks at a gate, and the network of {name!r} has none: use relu or lowrank")
        found[others[0]] = _Plan("outputs", down, _select(down, "neurons", of=_last_of_gate(workload, gate, others[0])))
        return found
    scored = gate if gate is not None else others[0]
    predict = _predict(scored, down, form)
    done = _first_inputs(workload.ops[scored]) if form.predictor == "first inputs" else 0
    found |= {i: _Plan("outputs", down) for i in firsts}
    found[scored].inputs_done = done
    found[min(firsts)].before = predict
    return found


def _is_layer(op: MatrixOp) -> bool:
    weight = op.b.role is Role.WEIGHT and op.parameter is not None and "+" not in op.parameter
    free = op.sparse is None and op.a.levels is None and op.b.levels is None
    return weight and free and op.pass_ is Pass.FF and op.gemm.groups == 1 and not op.convolution


def _firsts(workload: Workload, down: int) -> list[int]:
    """The layers of which vector work alone makes the input of ``down``, where they are as wide as that and read no
    more than it writes: those of a feed-forward network; none where another product has a part in it."""
    ops, op = workload.ops, workload.ops[down]
    assert isinstance(op, MatrixOp)
    seen, ask, found = set[int](), list(workload.after[down]) if workload.after else [], list[int]()
    while ask:
        i = ask.pop()
        if i in seen:
            continue
        seen.add(i)
        other = ops[i]
        if isinstance(other, MatrixOp):
            if not _is_layer(other) or (other.gemm.n, other.gemm.k) != (op.gemm.k, op.gemm.n):
                return []
            found.append(i)
        elif isinstance(other, VectorOp) and other.elements >= op.gemm.m * op.gemm.k:
            ask += workload.after[i]
        else:
            return []
    return sorted(found) if 1 <= len(found) <= 2 else []


def _readers(workload: Workload, i: int) -> list[int]:
    return [j for j in range(i + 1, len(workload.ops)) if i in workload.after[j]]


def _gate(workload: Workload, firsts: Sequence[int]) -> int | None:
    """Of two first layers that whose result vector work reads that has not seen the other's."""
    if len(firsts) == 1:
        return None
    seen: dict[int, set[int]] = {i: {i} for i in firsts}
    alone = []
    for j in range(min(firsts), max(_readers(workload, max(firsts))) + 1):
        if j not in seen:
            seen[j] = set[int]().union(*(seen.get(i, set()) for i in workload.after[j]))
            alone += [i for i in seen[j] if seen[j] == {i} and i not in alone]
    if len(alone) != 1:
        raise InputError(f"which of {', '.join(workload.ops[i].name for i in firsts)} is the gate cannot be told")
    return alone[0]


def _last_of_gate(workload: Workload, gate: int, up: int) -> int:
    """The last op before ``up`` that works on the gate alone."""
    chain = {gate}
    for i in range(gate + 1, up):
        if set(workload.after[i]) & chain:
            chain.add(i)
    return max(chain)


def _first_inputs(op: Op) -> int:
    assert isinstance(op, MatrixOp)
    return max(op.gemm.k // RANK, 1)


def _select(i: int, of_what: Literal["inputs", "neurons"], of: int | None = None) -> Callable[[_Weave, set[int]], int]:
    """Has the scores of the input of product ``i`` looked at: the result of op ``of``, or what the product reads."""

    def add(weave: _Weave, after: set[int]) -> int:
        scores = after if of is None else {weave.place[of]}
        return weave.look(i, scores, packs=of_what == "inputs")

    return add


def _predict(scored: int, down: int, form: Form) -> Callable[[_Weave, set[int]], int]:
    """The products that score the neurons, and a look at the scores."""

    def add(weave: _Weave, after: set[int]) -> int:
        op = weave.source.ops[scored]
        assert isinstance(op, MatrixOp)
        g, rank = op.gemm, _first_inputs(op)
        match form.predictor:
            case "first inputs":
                made = weave.product(op, "first inputs", g.m, rank, g.n, after, own=False)
            case "low rank":
                into = weave.product(op, "low rank in", g.m, g.k, rank, after)
                made = weave.product(op, "low rank out", g.m, rank, g.n, {into})
            case "router":
                made = weave.product(op, "router", g.m, g.k, EXPERTS, after)
                return weave.route(down, {made})
            case "signs":
                signs = weave.vector(op, "signs", g.m * g.k, read=g.m * g.k, wide=-(-g.m * g.k // 8), after=after)
                made = weave.product(op, "product of signs", g.m, g.k, g.n, {signs}, levels=Levels.BINARY)
            case _:
                raise AssertionError("forms of whole neurons have a predictor")
        return weave.look(down, {made}, packs=False)

    return add


@dataclass(slots=True)
class _Weave:
    """The step as it is written anew; ``place`` says where an op of ``source`` went."""

    source: Workload
    asked: AskedRows
    ops: list[Op] = field(default_factory=list)
    after: list[set[int]] = field(default_factory=list)
    place: dict[int, int] = field(default_factory=dict)
    frozen: list[Frozen] = field(default_factory=list)

    def run(self, plans: dict[int, _Plan]) -> Workload:
        waits: dict[int, int] = {}
        """By the product that decides, the op that lists its lines."""
        for i, op in enumerate(self.source.ops):
            after = {self.place[j] for j in self.source.after[i]} if self.source.after else set[int]()
            plan = plans.get(i)
            if plan is not None:
                assert isinstance(op, MatrixOp)
                if plan.before is not None:
                    waits[plan.like] = plan.before(self, after)
                op = self._smaller(op, plan)
                after = after | {waits[plan.like]}
            self.place[i] = self.add(op, after)
            if plan is not None and plan.along == "inputs" and self.asked.form.rest:
                self.place[i] = self._with_rest(i, after)
        after_all = tuple(tuple(sorted(one)) for one in self.after) if self.source.after else ()
        frozen = (*self.source.frozen, *self.frozen)
        return replace(self.source, ops=tuple(self.ops), after=after_all, tensors=(), frozen=frozen)

    def add(self, op: Op, after: Iterable[int]) -> int:
        self.ops.append(op)
        self.after.append(set(after))
        return len(self.ops) - 1

    def kept(self, i: int) -> tuple[Alike, int]:
        """What tokens keep of the input of product ``i``, and the lines that one of them keeps."""
        op = self.source.ops[i]
        assert isinstance(op, MatrixOp)
        alike = self.asked.of(op, op.gemm.k)
        lines = alike.lines(op.gemm.k, op.gemm.m)
        if self.asked.form.predictor == "router":
            # Experts are kept whole.
            expert = -(-op.gemm.k // EXPERTS)
            lines = min(-(-lines // expert) * expert, op.gemm.k)
        return alike, lines

    def _smaller(self, op: MatrixOp, plan: _Plan) -> MatrixOp:
        alike, lines = self.kept(plan.like)
        g = op.gemm
        inputs = plan.along == "inputs"
        gemm = Gemm(m=g.m, k=lines if inputs else g.k - plan.inputs_done, n=g.n if inputs else lines)
        rows = Rows(along=plan.along, of=g.k if inputs else g.n, form=self.asked.form.name, alike=alike)
        return replace(resized(op, gemm), rows=rows)

    def _with_rest(self, i: int, after: set[int]) -> int:
        """Adds what stands for the lines that product ``i`` has left out to its result."""
        op = self.source.ops[i]
        assert isinstance(op, MatrixOp)
        g, own, results = op.gemm, self.place[i], op.gemm.m * op.gemm.n
        match self.asked.form.rest:
            case "low rank":
                rank = rank_of_rest(g.k, g.n)
                into = self.product(op, "low rank in", g.m, g.k, rank, after)
                out = self.product(op, "low rank out", g.m, rank, g.n, {into})
                return self.vector(op, "add the rest", results, read=2 * results, write=results, after={own, out})
            case "state":
                return self.vector(op, "add to the sums", results, read=2 * results, write=results, after={own})
            case _:
                raise AssertionError("asked for where there is a rest")

    def look(self, i: int, after: set[int], *, packs: bool) -> int:
        """Looks at the scores of the lines of product ``i`` and lists those that are kept; ``packs``: the kept values
        are written side by side."""
        op, form = self.source.ops[i], self.asked.form
        assert isinstance(op, MatrixOp)
        scores, (_, lines) = op.gemm.m * op.gemm.k, self.kept(i)
        if form.looks == 3:
            after = {self.vector(op, "mean and variance", 2 * scores, read=scores, after=after)}
        elements = scores * min(form.looks, 2)
        read = scores + (op.gemm.k if form.beside else 0)
        write = op.gemm.m * lines if packs else 0
        if form.rest == "state":
            # The inputs of the token before, of which those that have changed are written anew.
            read, write = read + scores, 2 * write
        return self.vector(op, "select rows", elements, read=read, write=write, wide=_PLACE_BYTES * lines, after=after)

    def route(self, i: int, after: set[int]) -> int:
        """Works on the scores of experts, lists those that are kept, and scales the kept inputs of product ``i``."""
        op = self.source.ops[i]
        assert isinstance(op, MatrixOp)
        scores, (_, lines) = op.gemm.m * EXPERTS, self.kept(i)
        scaled, experts = op.gemm.m * lines, -(-lines // -(-op.gemm.k // EXPERTS))
        return self.vector(
            op,
            "route",
            _ROUTED * scores + scaled,
            read=scores + scaled,
            write=scores + scaled,
            wide=_PLACE_BYTES * experts,
            after=after,
        )

    def vector(
        self, op: MatrixOp, name: str, elements: int, *, after: set[int], read: int, write: int = 0, wide: int = 0
    ) -> int:
        size = DTYPE_BYTES[op.a.dtype]
        made = VectorOp(
            name=op.name,
            op=name,
            pass_=Pass.FF,
            dtype=op.a.dtype,
            elements=elements,
            read_bytes=read * size,
            write_bytes=write * size,
            wide_write=wide,
        )
        return self.add(made, after)

    def product(
        self,
        op: MatrixOp,
        name: str,
        m: int,
        k: int,
        n: int,
        after: set[int],
        *,
        own: bool = True,
        levels: Levels | None = None,
    ) -> int:
        """A predictor's product; ``own``: its weight is not a part of that of ``op``."""
        a, b = (replace(x.sized(size), levels=levels) for x, size in ((op.a, m * k), (op.b, k * n)))
        if own:
            dtype, size = (op.b.dtype, k * n) if levels is None else ("uint8", -(-k * n // 8))
            self.frozen.append(Frozen(name=f"{op.name}.{name}", dtype=dtype, elements=size))
        made = MatrixOp(
            name=f"{op.name}.{name}",
            op="predictor",
            pass_=Pass.FF,
            gemm=Gemm(m=m, k=k, n=n),
            a=a,
            b=b,
            c=op.c.sized(m * n),
        )
        return self.add(made, after)
