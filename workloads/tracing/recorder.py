"""Listens to one real training step on meta tensors and writes down its ops, each with module, pass and parameter.

How backward finds its way home: every differentiable forward op makes an autograd node, which gets the next sequence
number, and that node computes the gradient. So the number links a backward op to the module and to the product it is
the gradient of.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch._ops import OpOverload
from torch.nn.modules import module as nn_module
from torch.utils._python_dispatch import TorchDispatchMode

from ..errors import InputError
from ..gemm import Pass
from ..own_levels import told_levels
from ..step import MatrixOp, VectorOp
from .answers import Answers, expected, nothing_compiled
from .dependencies import Dependencies
from .factorizations import COUNTS
from .packs import Packs, own_levels, with_levels
from .passes import ForwardOp, Record, Weight, operands, pass_and_parameter, roles, settle, weight_of
from .products import Product, bind, operator_name, products_of, refuse_unknown
from .provenance import Ledger, Origin, Provenance, stored_bytes, stored_elements, tensors_in
from .results import Call, Results, call_of, grouped_result, key_of, without_data
from .sized import looked, looks_at_values
from .traffic import SAMPLING, Traffic, dtype_name, sampling, traffic

__all__ = ["Recorder"]

_ADDED = ("aten.addmm", "aten.baddbmm", "aten.addmv", "aten.addbmm")
"""Products that add their argument ``self``."""

_LEARNED = Origin.LEARNED
_GATHERS_OR_COPIES = ("aten.index", "aten.index_select", "aten.gather", "aten.clone", "aten._to_copy")


class _Place(NamedTuple):
    """Where in the step an op is: module, forward or backward, and whether it is done again."""

    path: str
    backward: bool = False
    recompute: bool = False

    @property
    def pass_(self) -> Pass:
        """The pass of a vector op; :func:`settle` knows better in the end."""
        return Pass.BP if self.backward else Pass.FF


class _Made(NamedTuple):
    """One product that was made: results, place, and autograd node and forward op that it belongs to."""

    call: Call
    out: Any
    place: _Place
    node: int
    forward: ForwardOp | None


class Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Dispatch mode that records every op of ``model``; :meth:`listen` is the only way to switch it on."""

    def __init__(self, model: nn.Module, name: str, answers: Answers | None = None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.name = name
        self._answers = answers or Answers()
        # The model itself goes by its name.
        self._modules = list(model.modules())  # kept: one that is replaced in the step leaves its id to nobody
        self._paths = {id(module): path or name for path, module in model.named_modules()}
        self._outside = _Place(name)
        self._behind: dict[str, _Place] = {}  # of gradients, by module
        # With the backward run in which the module was entered, if any.
        self._open: list[tuple[_Place, int]] = []
        self._turned = False
        self._forwards: dict[int, ForwardOp] = {}
        self.records: list[Record] = []
        self._first_node = 0
        self._results = Results()
        self.ledger = Ledger(model)
        self._packs = Packs(self.ledger)
        self.assumed: dict[str, None] = {}
        self.last_path = name

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """No: that takes 3 us a call. :meth:`listen` has nothing compiled instead."""
        return False

    @contextmanager
    def listen(self) -> Iterator[None]:
        """Record what runs inside, eagerly; hooks and mode are gone afterwards, whatever happened."""
        self._first_node = torch._C._autograd._get_sequence_nr()
        # Post hooks must run when a module is left by an exception too: checkpoint stops its recomputation with one.
        hooks = [
            nn_module.register_module_forward_pre_hook(self._enter),
            nn_module.register_module_forward_hook(self._leave, always_call=True),
        ]
        try:
            with nothing_compiled(), told_levels(self._packs.declare), self:
                yield
        finally:
            for hook in hooks:
                hook.remove()

    def turn(self) -> None:
        """Forward and loss are done; gradients that the model takes of its own, before this, are forward work."""
        self._turned = True

    def ops(self, gradients: Sequence[Tensor]) -> list[MatrixOp | VectorOp]:
        """The ops in order; ``gradients`` are those of the parameters, and what only feeds them is weight update."""
        settle(self.records, {self.ledger.of(gradient) for gradient in gradients})
        return [record.op for record in self.records]

    def after(self, updated: Sequence[nn.Parameter]) -> list[tuple[int, ...]]:
        """For every op, and then for the update of every parameter, the ops that must go before it."""
        known = Dependencies(self.records)

        def update(parameter: nn.Parameter) -> tuple[int, ...]:
            assert parameter.grad is not None, "what is updated has a gradient"
            return known.of([self.ledger.of(parameter.grad)], [self.ledger.of(parameter)])

        return [*known.after, *map(update, updated)]

    def path_of(self, thing: object) -> str | None:
        """The path of a module, or of the module whose gradient a custom autograd function computes."""
        if isinstance(thing, torch.autograd.function.BackwardCFunction):
            known = self._forwards.get(thing._sequence_nr())
            return known.path if known else None
        return self._paths.get(id(thing))

    def _here(self) -> _Place:
        return self._open[-1][0] if self._open else self._outside

    def _enter(self, module: nn.Module, _args: object) -> None:
        self.ledger.enter(module)
        path = self.path_of(module)
        self._open.append((_Place(path) if path else self._here(), torch._C._current_graph_task_id()))

    def _leave(self, _module: nn.Module, _args: object, _output: object) -> None:
        self._open.pop()
        self.ledger.calls.pop()

    def __torch_dispatch__(
        self, func: OpOverload, types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        # The function modes of a trace would be asked about every look at a tensor while gradients are made.
        with torch._C.DisableTorchFunction():
            kwargs = kwargs or {}
            key, tensors = key_of(func, args, kwargs)
            call = self._results.known(key)
            if call is None:
                return self._first(func, args, kwargs)
            place, node = self._moment()
            self.last_path = place.path
            out = func(*args, **kwargs) if call.make is None else call.make(args)
            self._note(call, args, kwargs, tensors, out, place, node)
            return out

    def _first(self, func: OpOverload, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        """A call of which shapes do not tell all, or not yet."""
        if func._can_decompose():
            # Reached only under inference mode: elsewhere autograd has taken it apart already.
            with self:
                return func.decompose(*args, **kwargs)
        place, node = self._moment()
        self.last_path = place.path
        if refuse_unknown(func, place.path):
            self.assumed.setdefault(f"{operator_name(func)} counts as the bytes that it touches, as declared")
        elif operator_name(func).removeprefix("aten.") in COUNTS:
            self.assumed.setdefault(f"{operator_name(func)}: its classical multiply-adds as vector work, none waits")
        key, tensors = key_of(func, args, kwargs)
        if key is None or kwargs.get("device"):
            args, kwargs = without_data(args, kwargs)
            key, tensors = key_of(func, args, kwargs)
        if looks_at_values(func, args) and any(tensor.is_meta for tensor in tensors):
            out = self._looked(func, args, kwargs, place.path)
        elif func is torch.ops.aten._grouped_mm.default:
            out = grouped_result(*args, **kwargs)
        elif key is None:
            out = func(*args, **kwargs)
        else:
            out, call = self._results.of(func, args, kwargs, key)
            self._note(call, args, kwargs, tensors, out, place, node)
            return out
        self._note(call_of(func, args, kwargs, plain=False), args, kwargs, tensors, out, place, node)
        return out

    def _looked(self, func: OpOverload, args: Sequence[Any], kwargs: dict[str, Any], path: str) -> Any:
        """What a call returns that looks at values: what they are known to be, or what transformers expects."""
        try:
            return looked(func, args, kwargs, self._answers.ask)
        except InputError as error:
            answer = expected() if func is torch.ops.aten._local_scalar_dense.default else None
            if answer is None:
                raise InputError(f"{path}: {error}") from error
            return answer

    def _moment(self) -> tuple[_Place, int]:
        """Where the step is, and the sequence number of the autograd node of what is done."""
        if self._open and not self._turned:
            return self._open[-1][0], torch._C._autograd._get_sequence_nr() - 1
        current = torch._C._current_autograd_node()
        # Gradients are computed with grad mode off and outside of modules, a checkpointed forward inside of backward
        # with grad mode on, or in a module: one that is checkpointed within has grad mode off again.
        task = torch._C._current_graph_task_id()
        inside = self._turned and task != -1
        recompute = inside and bool(
            torch.is_grad_enabled() or (self._open and any(entered == task for _, entered in self._open))
        )
        backward = inside and not recompute
        node = torch._C._autograd._get_sequence_nr() - 1
        if current is None or (self._open and not backward):
            path = self._here().path
        else:
            number = current._sequence_nr()
            known = self._forwards.get(number)
            # Accumulating a gradient has no forward op; it follows the op that made the gradient.
            path = known.path if known else self.last_path
            node = number if backward else node
        if recompute or not backward:
            return _Place(path, backward, recompute), node
        place = self._behind.get(path)
        if place is None:
            place = self._behind[path] = _Place(path, backward=True)
        return place, node

    def _forward_op(self, place: _Place, node: int, made: list[Provenance], *, multiplies: bool) -> ForwardOp | None:
        """The forward op of this moment: the one that ``made`` this, or the one whose gradient that is part of."""
        if place.backward or node < self._first_node:
            return self._forwards.get(node)
        # An op without gradient sees the number of the op before it, so the first to show a number owns it.
        found = self._forwards.get(node)
        if found is None:
            found = self._forwards[node] = ForwardOp(place.path, custom=not torch.is_grad_enabled())
        elif found.weights and not found.custom and multiplies:
            # A frozen layer behind it; only a custom function, which runs without gradient, has several products.
            found = ForwardOp(place.path, custom=False)
        if not found.makes_data:
            for one in made:
                if one.origin >= _LEARNED:
                    found.makes_data = True
        return found

    def _note(
        self,
        call: Call,
        args: Sequence[Any],
        kwargs: dict[str, Any],
        tensors: list[Tensor],
        out: Any,
        place: _Place,
        node: int,
    ) -> None:
        """Take down a call that was made."""
        ledger, values = self.ledger, self._answers.values
        storages = [tensor.untyped_storage()._cdata for tensor in tensors]
        reads = ledger.of_all(tensors, storages)
        if call.looks and not values.chose:
            reads[0].read = True
            if not place.backward:
                self._forward_op(place, node, reads, multiplies=False)
            return
        if not (call.plain and values.lets_go(storages, call.changed, overwrites=call.access.overwrites)):
            values.follow(call.func, args, kwargs, tensors, out)
            for hidden in call.running:
                values.forget(tensors[hidden])
        made = [ledger.of(out)] if type(out) is Tensor else [ledger.of(x) for x in tensors_in(out)]
        writes = made
        if call.changed:
            replaced = [reads[changed] for changed in call.changed]
            for target in replaced:
                target.changed, target.levels = True, None
            writes = made + replaced
        ledger.flow(reads, writes)
        if reads and call.name in _GATHERS_OR_COPIES:
            ledger.gather(reads[0], writes)
        try:
            if call.multiplies:
                self._add_products(call, bind(call.func, args, kwargs), out, made, place, node)
                return
            forward = self._forward_op(place, node, made, multiplies=False)
            # What a storage that is given twice is read for, shapes do not tell.
            if len(storages) > 1 and len(set(storages)) < len(storages):
                moved = traffic(call.func, bind(call.func, args, kwargs), out)
                key: Any = (place, moved)
            else:
                if call.traffic is None:
                    call.traffic = (traffic(call.func, bind(call.func, args, kwargs), out),)
                    nothing = call.traffic[0] is None and not call.changed
                    call.looks = nothing and len(reads) == 1 and all(x is reads[0] for x in made)
                moved, key = call.traffic[0], place
            if moved is not None:
                op = call.vectors.get(key) or self._vector(call, key, place, moved)
                self._append(op, reads, writes, node, forward)
        except InputError as error:
            raise InputError(f"{place.path}: {error}") from error

    def _add_products(
        self, call: Call, given: dict[str, Any], out: Any, written: list[Provenance], place: _Place, node: int
    ) -> None:
        products = products_of(call.func, given, out) or []
        forward = self._forward_op(place, node, written, multiplies=bool(products))
        made = _Made(call, out, place, node, forward)
        for index, product in enumerate(products):
            self._add_matrix(made, index, product)
        self._add_fused(made, given, products)

    def _add_matrix(self, made: _Made, index: int, product: Product) -> None:
        call, place, forward, ledger = made.call, made.place, made.forward, self.ledger
        read = weight_of((product.a, product.b), ledger)
        if not place.backward:
            self._weigh(product, read, forward)
        pass_, parameter = pass_and_parameter(product, read, forward, ledger, backward=place.backward)
        parts = roles(product, read, forward, ledger, backward=place.backward)
        levels = own_levels(product, parts, ledger)
        key = index, place, pass_, parameter, parts, levels
        op = call.matrices.get(key)
        if op is None:
            a, b, c = with_levels(operands(product, parts), levels)
            op = call.matrices[key] = MatrixOp(
                name=place.path,
                op=call.name,
                pass_=pass_,
                gemm=product.gemm,
                a=a,
                b=b,
                c=c,
                parameter=parameter,
                convolution=product.convolution,
                recompute=place.recompute,
            )
        packed = self._packs.before(op, product, self.records, made.node)
        reads, writes = [ledger.of(product.a), ledger.of(product.b), *packed], [ledger.of(product.c)]
        self._append(op, reads, writes, made.node, forward)

    def _weigh(self, product: Product, read: Weight, forward: ForwardOp | None) -> None:
        """Note what of a forward product is a weight, and that what a layer makes is no weight."""
        enters = self.ledger.layer_input(product.a, product.b) is not None
        if enters:
            self.ledger.declare(product.c, Origin.LEARNED)
        if forward is not None:
            forward.makes_data |= enters
            forward.weights.append(read)

    @staticmethod
    def _vector(call: Call, key: Any, place: _Place, moved: Traffic) -> VectorOp:
        op = call.vectors[key] = VectorOp(
            name=place.path,
            op=call.name,
            pass_=place.pass_,
            dtype=moved.dtype,
            elements=moved.elements,
            read_bytes=moved.read_bytes,
            write_bytes=moved.write_bytes,
            recompute=place.recompute,
        )
        return op

    def _add_vector(
        self, made: _Made, moved: Traffic, reads: Sequence[Provenance], writes: Sequence[Provenance]
    ) -> None:
        key = made.place, moved
        op = made.call.vectors.get(key) or self._vector(made.call, key, made.place, moved)
        self._append(op, reads, writes, made.node, made.forward)

    def _add_fused(self, made: _Made, given: dict[str, Any], products: list[Product]) -> None:
        """The vector work inside of a matrix operator: a bias gradient, or an addend larger than a bias."""
        name, out = made.call.name.removesuffix("_"), made.out
        if name == "aten.convolution_backward" and given["output_mask"][2]:
            source, target = given["grad_output"], out[2]
            moved = Traffic(source.numel(), stored_bytes(source), stored_bytes(target), dtype_name(target.dtype))
            self._add_vector(made, moved, [self.ledger.of(source)], [self.ledger.of(target)])
        elif name in SAMPLING:
            self._add_vector(made, sampling(name, given, out), *self._touched(given, out))
        elif name in _ADDED and products and given.get("beta", 1) != 0:
            addend = given["self"]
            size = stored_elements(addend)
            if size > products[0].gemm.n:
                moved = Traffic(size, stored_bytes(addend), 0, dtype_name(addend.dtype))
                self._add_vector(made, moved, [self.ledger.of(addend)], [self.ledger.of(out)])

    def _touched(self, given: dict[str, Any], out: Any) -> tuple[list[Provenance], list[Provenance]]:
        return [self.ledger.of(x) for x in tensors_in(given)], [self.ledger.of(x) for x in tensors_in(out)]

    def _append(
        self,
        op: MatrixOp | VectorOp,
        reads: Sequence[Provenance],
        writes: Sequence[Provenance],
        node: int,
        forward: ForwardOp | None,
    ) -> None:
        self.records.append(Record(op, reads, writes, node, forward is not None and forward.makes_data))
