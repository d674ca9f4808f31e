"""Listens to one real training step on meta tensors and writes down its ops, each with module, pass and parameter.

How backward finds its way home: every differentiable forward op makes an autograd node, which gets the next sequence
number, and that node computes the gradient. So the number links a backward op to the module and to the product it is
the gradient of.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch._ops import OpOverload
from torch.nn.modules import module as nn_module
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

from ._dependencies import Dependencies
from ._factorizations import COUNTS
from ._passes import ForwardOp, Record, operands, pass_and_parameter, settle, weight_of
from ._products import Product, bind, operator_name, products_of, refuse_unknown
from ._provenance import Ledger, Origin, Provenance, stored_bytes, stored_elements, tensors_in
from ._results import Call, Results, key_of
from ._sized import looked, looks_at_values
from ._traffic import SAMPLING, Traffic, access_of, dtype_name, sampling, traffic
from .answers import Answers, caller
from .errors import InputError
from .gemm import Pass
from .step import MatrixOp, VectorOp

__all__ = ["Recorder"]

_ADDED = ("aten.addmm", "aten.baddbmm", "aten.addmv", "aten.addbmm")
"""Products that add their argument ``self``."""

_GATHERS_OR_COPIES = ("aten.index", "aten.index_select", "aten.gather", "aten.clone", "aten._to_copy")


class _Moment(NamedTuple):
    """Where in the step an op is: module, forward or backward, and the sequence number of its autograd node."""

    path: str
    backward: bool
    recompute: bool
    node: int

    @property
    def pass_(self) -> Pass:
        """The pass of a vector op; :func:`settle` knows better in the end."""
        return Pass.BP if self.backward else Pass.FF


class _Call(NamedTuple):
    """One call of an operator that was made: arguments by name, results, and the forward op it is or belongs to."""

    name: str
    given: dict[str, Any]
    out: Any
    moment: _Moment
    forward: ForwardOp | None


class Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Dispatch mode that records every op of ``model``; :meth:`listen` is the only way to switch it on."""

    def __init__(self, model: nn.Module, name: str, answers: Answers | None = None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.name = name
        self._answers = answers or Answers()
        # The model itself goes by its name.
        self._paths = {id(module): path or name for path, module in model.named_modules()}
        # With the backward run in which the module was entered, if any.
        self._open: list[tuple[str, int]] = []
        self._turned = False
        self._forwards: dict[int, ForwardOp] = {}
        self._records: list[Record] = []
        self._first_node = 0
        self._read: set[int] = set()
        self._changed: set[int] = set()
        self._results = Results()
        self._vectors: dict[Any, VectorOp] = {}
        self.ledger = Ledger(model)
        self.assumed: dict[str, None] = {}
        self.last_path = name

    @contextmanager
    def listen(self) -> Iterator[None]:
        """Record what runs inside; hooks and mode are gone afterwards, whatever happened."""
        self._first_node = torch._C._autograd._get_sequence_nr()
        # Post hooks must run when a module is left by an exception too: checkpoint stops its recomputation with one.
        hooks = [
            nn_module.register_module_forward_pre_hook(self._enter),
            nn_module.register_module_forward_hook(self._leave, always_call=True),
        ]
        try:
            with self:
                yield
        finally:
            for hook in hooks:
                hook.remove()

    def turn(self) -> None:
        """Forward and loss are done; gradients that the model takes of its own, before this, are forward work."""
        self._turned = True

    def ops(self, gradients: Sequence[Tensor]) -> list[MatrixOp | VectorOp]:
        """The ops in order; ``gradients`` are those of the parameters, and what only feeds them is weight update."""
        settle(self._records, {self.ledger.of(gradient).serial for gradient in gradients})
        return [record.op for record in self._records]

    def after(self, updated: Sequence[nn.Parameter]) -> list[tuple[int, ...]]:
        """For every op, and then for the update of every parameter, the ops that must go before it."""
        known = Dependencies(self._records)

        def update(parameter: nn.Parameter) -> tuple[int, ...]:
            assert parameter.grad is not None, "what is updated has a gradient"
            return known.of([self.ledger.of(parameter.grad).serial], [self.ledger.of(parameter).serial])

        return [*known.after, *map(update, updated)]

    def only_read(self) -> set[int]:
        """Serial numbers of the storages that some op reads and none changes in place."""
        return self._read - self._changed

    def path_of(self, thing: object) -> str | None:
        """The path of a module, or of the module whose gradient a custom autograd function computes."""
        if isinstance(thing, torch.autograd.function.BackwardCFunction):
            known = self._forwards.get(thing._sequence_nr())
            return known.path if known else None
        return self._paths.get(id(thing))

    def _here(self) -> str:
        return self._open[-1][0] if self._open else self.name

    def _enter(self, module: nn.Module, _args: object) -> None:
        self.ledger.enter(module)
        self._open.append((self.path_of(module) or self._here(), torch._C._current_graph_task_id()))

    def _leave(self, _module: nn.Module, _args: object, _output: object) -> None:
        self._open.pop()
        self.ledger.calls.pop()

    def __torch_dispatch__(
        self, func: OpOverload, types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        # The function modes of a trace would be asked about every look at a tensor while gradients are made.
        with torch._C.DisableTorchFunction():
            return self._dispatched(func, args, kwargs or {})

    def _dispatched(self, func: OpOverload, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        if _decomposes(func):
            # Reached only under inference mode: elsewhere autograd has taken it apart already.
            with self:
                return func.decompose(*args, **kwargs)
        moment = self._moment()
        self.last_path = moment.path
        if refuse_unknown(func, moment.path):
            self.assumed.setdefault(f"{operator_name(func)} counts as the bytes that it touches, as declared")
        elif operator_name(func).removeprefix("aten.") in COUNTS:
            self.assumed.setdefault(f"{operator_name(func)}: its classical multiply-adds as vector work, none waits")
        key, tensors = key_of(func, args, kwargs)
        if key is None or kwargs.get("device"):
            args, kwargs = _without_data(args, kwargs)
            key, tensors = key_of(func, args, kwargs)
        known = None
        if looks_at_values(func, args) and any(tensor.is_meta for tensor in tensors):
            out = self._looked(func, args, kwargs, moment.path)
        elif func is torch.ops.aten._grouped_mm.default:
            out = _grouped_result(*args, **kwargs)
        elif key is None:
            out = func(*args, **kwargs)
        else:
            out, known = self._results.of(func, args, kwargs, key)
        self._answers.values.follow(func, args, kwargs, tensors, out)
        try:
            self._record(func, bind(func, args, kwargs), tensors, out, moment, known)
        except InputError as error:
            raise InputError(f"{moment.path}: {error}") from error
        return out

    def _looked(self, func: OpOverload, args: Sequence[Any], kwargs: dict[str, Any], path: str) -> Any:
        """What a call returns that looks at values: what they are known to be, or what transformers expects."""
        try:
            return looked(func, args, kwargs, self._answers.ask)
        except InputError as error:
            expected = _expected() if func is torch.ops.aten._local_scalar_dense.default else None
            if expected is None:
                raise InputError(f"{path}: {error}") from error
            return expected

    def _moment(self) -> _Moment:
        # Gradients are computed with grad mode off and outside of modules, a checkpointed forward inside of backward
        # with grad mode on, or in a module: one that is checkpointed within has grad mode off again.
        task = torch._C._current_graph_task_id()
        inside = self._turned and task != -1
        recompute = inside and (torch.is_grad_enabled() or any(entered == task for _, entered in self._open))
        backward = inside and not recompute
        current = torch._C._current_autograd_node()
        path, node = self._here(), torch._C._autograd._get_sequence_nr() - 1
        if current is not None:
            if backward:
                node = current._sequence_nr()
            if backward or not self._open:
                known = self._forwards.get(current._sequence_nr())
                # Accumulating a gradient has no forward op; it follows the op that made the gradient.
                path = known.path if known else self.last_path
        return _Moment(path, backward, recompute, node)

    def _forward_op(self, moment: _Moment, made: list[Provenance], *, multiplies: bool) -> ForwardOp | None:
        """The forward op of this moment: the one that ``made`` this, or the one whose gradient that is part of."""
        if moment.backward or moment.node < self._first_node:
            return self._forwards.get(moment.node)
        # An op without gradient sees the number of the op before it, so the first to show a number owns it.
        found = self._forwards.setdefault(moment.node, ForwardOp(moment.path, custom=not torch.is_grad_enabled()))
        if found.weights and not found.custom and multiplies:
            # A frozen layer behind it; only a custom function, which runs without gradient, has several products.
            found = ForwardOp(moment.path, custom=False)
        found.makes_data = found.makes_data or any(x.origin >= Origin.LEARNED for x in made)
        return found

    def _record(
        self,
        func: OpOverload,
        given: dict[str, Any],
        tensors: list[Tensor],
        out: Any,
        moment: _Moment,
        known: Call | None,
    ) -> None:
        changed = [given[name] for name in access_of(func).written if name in given]
        if given.get("training"):
            # The schema of aten.native_batch_norm does not say that it writes them.
            running = [given[name] for name in ("running_mean", "running_var") if name in given]
            for tensor in tensors_in(running):
                self._answers.values.forget(tensor)
            changed += running
        of = self.ledger.of
        reads, made = [of(x) for x in tensors], [of(x) for x in tensors_in(out)]
        replaced = [of(x) for x in tensors_in(changed)] if changed else []
        writes = made + replaced
        self._read.update([source.serial for source in reads])
        self._changed.update([target.serial for target in replaced])
        self.ledger.flow(reads, writes)
        if reads and operator_name(func) in _GATHERS_OR_COPIES:
            self.ledger.gather(reads[0], writes)
        products = products_of(func, given, out)
        forward = self._forward_op(moment, made, multiplies=bool(products))
        call = _Call(operator_name(func), given, out, moment, forward)
        if products is None:
            # What a storage that is given twice is read for, shapes do not tell.
            if known is None or len(set(map(id, reads))) < len(reads):
                moved = traffic(func, given, out)
            else:
                known.traffic = known.traffic or (traffic(func, given, out),)
                moved = known.traffic[0]
            self._add_vector(call, moved, reads, writes)
        else:
            for product in products:
                self._add_matrix(call, product)
            self._add_fused(call, products)

    def _add_matrix(self, call: _Call, product: Product) -> None:
        moment, forward, ledger = call.moment, call.forward, self.ledger
        if not moment.backward:
            self._multiply(product, forward)
        pass_, parameter = pass_and_parameter(product, forward, ledger, backward=moment.backward)
        a, b, c = operands(product, forward, ledger, backward=moment.backward)
        op = MatrixOp(
            name=moment.path, op=call.name, pass_=pass_, gemm=product.gemm, a=a, b=b, c=c,
            parameter=parameter, convolution=product.convolution, recompute=moment.recompute,
        )  # fmt: skip
        self._append(call, op, map(ledger.of, (product.a, product.b)), [ledger.of(product.c)])

    def _multiply(self, product: Product, forward: ForwardOp | None) -> None:
        """Note what of a forward product is a weight, and that what a layer makes is no weight."""
        enters = self.ledger.layer_input(product.a, product.b) is not None
        if enters:
            self.ledger.declare(product.c, Origin.LEARNED)
        if forward is not None:
            forward.makes_data |= enters
            forward.weights.append(weight_of((product.a, product.b), self.ledger))

    def _add_vector(
        self, call: _Call, moved: Traffic | None, reads: Iterable[Provenance], writes: Iterable[Provenance]
    ) -> None:
        if moved is None:
            return
        moment = call.moment
        key = moment.path, call.name, moment.pass_, moment.recompute, moved
        op = self._vectors.get(key)
        if op is None:
            op = self._vectors[key] = VectorOp(
                name=moment.path, op=call.name, pass_=moment.pass_, dtype=moved.dtype, elements=moved.elements,
                read_bytes=moved.read_bytes, write_bytes=moved.write_bytes, recompute=moment.recompute,
            )  # fmt: skip
        self._append(call, op, reads, writes)

    def _add_fused(self, call: _Call, products: list[Product]) -> None:
        """The vector work inside of a matrix operator: a bias gradient, or an addend larger than a bias."""
        given, name = call.given, call.name.removesuffix("_")
        if name == "aten.convolution_backward" and given["output_mask"][2]:
            source, target = given["grad_output"], call.out[2]
            moved = Traffic(source.numel(), stored_bytes(source), stored_bytes(target), dtype_name(target.dtype))
            self._add_vector(call, moved, [self.ledger.of(source)], [self.ledger.of(target)])
        elif name in SAMPLING:
            self._add_vector(call, sampling(name, given, call.out), *self._touched(given, call.out))
        elif name in _ADDED and products and given.get("beta", 1) != 0:
            addend = given["self"]
            size = stored_elements(addend)
            if size > products[0].gemm.n:
                moved = Traffic(size, stored_bytes(addend), 0, dtype_name(addend.dtype))
                self._add_vector(call, moved, [self.ledger.of(addend)], [self.ledger.of(call.out)])

    def _touched(self, given: dict[str, Any], out: Any) -> tuple[list[Provenance], list[Provenance]]:
        return [self.ledger.of(x) for x in tensors_in(given)], [self.ledger.of(x) for x in tensors_in(out)]

    def _append(
        self, call: _Call, op: MatrixOp | VectorOp, reads: Iterable[Provenance], writes: Iterable[Provenance]
    ) -> None:
        read, written = tuple([x.serial for x in reads]), tuple([x.serial for x in writes])
        of_data = call.forward is not None and call.forward.makes_data
        self._records.append(Record(op, read, written, call.moment.node, of_data))


@cache
def _decomposes(func: OpOverload) -> bool:
    return bool(func._can_decompose())


def _without_data(args: Sequence[Any], kwargs: dict[str, Any]) -> tuple[Sequence[Any], dict[str, Any]]:
    """The arguments of a call, all on meta: a model may name a device, or bring a constant that is on one.

    Lengths and indices stay where they are: some operators want them on the CPU.
    """

    def moved(tensor: Tensor) -> Tensor:
        return tensor.to("meta") if tensor.dim() and tensor.is_floating_point() else tensor

    on_meta = [tensor.is_meta for tensor in tensors_in((args, kwargs))]
    if any(on_meta):
        if kwargs.get("device") is not None:
            kwargs = {**kwargs, "device": torch.device("meta")}
        if not all(on_meta):
            args, kwargs = tree_map_only(Tensor, moved, (args, kwargs))
    return args, kwargs


def _grouped_result(a: Tensor, b: Tensor, offs: Tensor | None = None, *_: Any, **__: Any) -> Tensor:
    """What a grouped product returns; PyTorch's own rule for meta refuses every format but bfloat16."""
    groups = []
    if a.dim() == b.dim() == 3:
        groups = [len(a)]
    elif a.dim() == b.dim() and offs is not None:
        groups = [len(offs)]
    return a.new_empty(*groups, a.shape[-2], b.shape[-1])


_KNOWN_ANSWERS = {
    ("masking_utils.py", None): True,  # are the sequences not packed?
    ("modeling_utils.py", "warn_if_padding_and_no_attention_mask"): False,  # are there padding tokens?
}
"""What transformers asks of its inputs, by file and function (None: any), and the answer: they are whole sequences."""


def _expected() -> bool | None:
    """What transformers expects to hear where it asks for a value, if it is known to."""
    file, _, function = caller()
    if file is not None and file.parent.name == "transformers":
        for name in (function, None):
            if (file.name, name) in _KNOWN_ANSWERS:
                return _KNOWN_ANSWERS[file.name, name]
    return None
