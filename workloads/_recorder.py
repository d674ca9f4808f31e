"""Listens to one real training step on meta tensors and writes down its ops, each with module, pass and parameter.

How backward finds its way home: every differentiable forward op makes an autograd node and gives it the next sequence
number, and that node computes the gradient. So the number links a backward op to the module and to the product it is
the gradient of (tracing.md, section 2).
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch._ops import OpOverload
from torch.nn.modules import module as nn_module
from torch.utils._python_dispatch import TorchDispatchMode

from ._products import Product, operator_name, products_of, refuse_unknown
from ._provenance import Ledger, Origin, Provenance, stored_bytes, tensors_in
from ._traffic import access_of, dtype_name, traffic
from .errors import InputError
from .gemm import Gemm, Pass
from .step import MatrixOp, Operand, Role, VectorOp

__all__ = ["Recorder"]

_ADDED = {"aten.addmm": "self", "aten.baddbmm": "self", "aten.addmv": "self", "aten.addbmm": "self"}


@dataclass(slots=True)
class _Forward:
    """What a forward op left for its gradient: its module, and of every product in it the weight operand."""

    path: str
    products: list[_Weight] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Weight:
    """The parameter operands of a forward product: how many, their name, the elements of the first."""

    count: int
    parameter: str | None
    elements: int


@dataclass(slots=True)
class _Record:
    """One op with the storages it reads and writes, by serial number."""

    op: MatrixOp | VectorOp
    reads: tuple[int, ...]
    writes: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Moment:
    """Where in the step an op is: module, pass as far as it is known before looking at operands, autograd node."""

    path: str
    backward: bool
    recompute: bool
    node: int


class Recorder(TorchDispatchMode):
    """Dispatch mode that records every op of ``model``; :meth:`listen` is the only way to switch it on."""

    def __init__(self, model: nn.Module, title: str) -> None:
        super().__init__()
        self._title = title
        self._paths = {id(module): path for path, module in model.named_modules()}
        self._open: list[str] = []
        self._forwards: dict[int, _Forward] = {}
        self._records: list[_Record] = []
        self._first_node = 0
        self.ledger = Ledger(model)
        self.last_path = title

    @contextmanager
    def listen(self) -> Iterator[None]:
        """Record what runs inside; hooks and mode are gone afterwards, whatever happened."""
        self._first_node = torch.autograd._get_sequence_nr()
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

    def ops(self, gradients: Sequence[Tensor]) -> list[MatrixOp | VectorOp]:
        """The ops in order; ``gradients`` are those of the parameters, and what only feeds them is weight update."""
        _settle(self._records, {self.ledger.of(gradient).serial for gradient in gradients})
        return [record.op for record in self._records]

    def path_of(self, module: nn.Module) -> str | None:
        """The path of ``module`` in the model; the model itself goes by its name."""
        path = self._paths.get(id(module))
        return self._title if path == "" else path

    def _enter(self, module: nn.Module, _args: object) -> None:
        path = self.path_of(module)
        self._open.append(path if path is not None else self._here())

    def _leave(self, _module: nn.Module, _args: object, _output: object) -> None:
        self._open.pop()

    def _here(self) -> str:
        return self._open[-1] if self._open else self._title

    def __torch_dispatch__(
        self, func: OpOverload, types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is torch.ops.aten._local_scalar_dense.default and args[0].is_meta:
            return _answer_item(self._here())
        if torch._C.DispatchKey.CompositeImplicitAutograd in func.py_kernels or _is_composite(func):
            # Reached only under inference mode: elsewhere autograd has taken it apart already.
            with self:
                return func.decompose(*args, **kwargs)
        moment = self._moment()
        refuse_unknown(func, moment.path)
        out = func(*args, **kwargs)
        self._record(func, args, kwargs, out, moment)
        return out

    def _moment(self) -> _Moment:
        current = torch._C._current_autograd_node()
        backward = torch._C._current_graph_task_id() != -1
        # Gradients are computed with grad mode off, a checkpointed forward inside of backward with grad mode on.
        recompute = backward and torch.is_grad_enabled()
        node = torch.autograd._get_sequence_nr() - 1
        path = self._here()
        if current is not None and not (recompute and self._open):
            known = self._forwards.get(current._sequence_nr())
            # Accumulating a gradient has no forward op; it follows the op that made the gradient.
            path = known.path if known else self.last_path
        if backward and not recompute and current is not None:
            node = current._sequence_nr()
        self.last_path = path
        return _Moment(path, backward and not recompute, recompute, node)

    def _record(
        self, func: OpOverload, args: Sequence[Any], kwargs: dict[str, Any], out: Any, moment: _Moment
    ) -> None:
        ledger = self.ledger
        sources = [ledger.of(tensor) for tensor in tensors_in([args, kwargs])]
        forward = self._forward(moment)
        products = products_of(func, args, kwargs, out)
        if products is None:
            self._add_vector(func, args, kwargs, out, moment)
        else:
            for product in products:
                self._add_matrix(func, product, moment, forward)
            self._add_addend(func, args, kwargs, products, moment)
        written = [ledger.of(tensor) for tensor in tensors_in(out)]
        if access_of(func).written:
            # Not every operator returns what it changes.
            changed = zip(func._schema.arguments, args, strict=False)
            written += [ledger.of(t) for a, v in changed if a.name in access_of(func).written for t in tensors_in(v)]
        ledger.flow(sources, written)

    def _forward(self, moment: _Moment) -> _Forward | None:
        """The forward op of this moment: the one being run, or the one a gradient belongs to."""
        if moment.backward or moment.node < self._first_node:
            return self._forwards.get(moment.node)
        # Ops without a gradient see the number of the op before them, so the first to show a number owns it.
        return self._forwards.setdefault(moment.node, _Forward(moment.path))
