"""From a PyTorch model to the ordered ops of one training step, by running that step on tensors without data."""

from __future__ import annotations

import gc
from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import wraps
from types import TracebackType
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor, nn
from torch.autograd.graph import _engine_run_backward
from torch.nn.parameter import UninitializedParameter

from .errors import InputError, require_int
from .models.shells import model_on_meta
from .models.source import ModelSource, StepInputs
from .operand import DTYPE_BYTES
from .patterns import matching
from .phase import CACHING, Phase, Use
from .step import Frozen, MatrixOp, UpdateOp, VectorOp, Workload, require_products
from .tracing.answers import Answers, Following
from .tracing.generation import cached_of, lengths_of
from .tracing.provenance import Origin, stored_bytes, stored_elements, tensors_in
from .tracing.recompute import checkpoint_modules
from .tracing.recorder import Recorder
from .tracing.tensors import tensors_of
from .tracing.traffic import dtype_name
from .tracing.written_out import WrittenOut
from .update_rule import SGD, update_rule
from .windows import Attention, windowed, windows_of

__all__ = ["trace_recurrence", "trace_step", "trace_use"]

Progress = Callable[[str], None]
P = ParamSpec("P")
T = TypeVar("T")


def _uncollected(trace: Callable[P, T]) -> Callable[P, T]:
    """``trace`` without the collector of circles, which looks through all that is recorded again and again: half of the
    time of a step of 50,000 ops."""

    @wraps(trace)
    def inner(*args: P.args, **kwargs: P.kwargs) -> T:
        collecting = gc.isenabled()
        gc.disable()
        try:
            return trace(*args, **kwargs)
        finally:
            if collecting:
                gc.enable()

    return inner


@_uncollected
def trace_step(
    source: ModelSource,
    *,
    batch: int | None = None,
    seq: int | None = None,
    optimizer: str = SGD.name,
    recompute: Sequence[str] = (),
    freeze: Sequence[str] = (),
    attention: Attention = "full",
    progress: Progress | None = None,
) -> Workload:
    """Run forward, loss and backward of ``source`` on meta tensors and return what was done, in order.

    Ops are those of eager PyTorch in train mode: unfused, attention over the full square, checkpointed parts once more
    and marked ``recompute``; the experts of a mixture get equal shares. The optimizer is one :class:`UpdateOp` per
    parameter that received a gradient. ``recompute``: modules to checkpoint, by path with shell wildcards, besides what
    the model checkpoints itself. ``freeze``: parameters that are not trained, likewise. ``attention``: ``window``
    counts that of layers with a sliding window by it (`windows.py`). ``progress`` is told the name of each phase.
    Whatever the model does wrong is an :class:`InputError` that says where.
    """
    _check_request(batch, seq, optimizer)
    tell = progress or (lambda _: None)
    tell("build")
    answers = Answers()
    model, inputs = _build(source, batch, seq, freeze, answers)
    checkpoint_modules(model, recompute)
    recorder = Recorder(model, source.name, answers)
    recorder.ledger.declare([inputs.args, inputs.kwargs], Origin.DATA)
    with _like_training(), answers.listen(), recorder.listen():
        tell("forward")
        with _explained(source, recorder, "forward"):
            loss = source.loss(model(*inputs.args, **inputs.kwargs), inputs)
        seed = _seed(source, loss, recorder)
        recorder.turn()
        tell("backward")
        with _explained(source, recorder, "backward"):
            # Not torch.autograd.backward: inside of it PyTorch switches the modes of _like_training off, which is where
            # checkpointed modules run again.
            _engine_run_backward((loss,), (seed,), False, False, (), allow_unreachable=True, accumulate_grad=True)
    ops = recorder.ops([p.grad for p in model.parameters() if p.grad is not None])
    updates = _updates(recorder)
    _check_step(source, ops, list(updates.values()))
    step = Workload(
        model=source.name,
        batch=inputs.batch,
        input=inputs.shape,
        optimizer=optimizer,
        ops=(*ops, *updates.values()),
        after=tuple(recorder.after(list(updates))),
        frozen=tuple(_frozen(model, recorder, updates)),
        assumed=(*answers.assumed, *recorder.assumed),
        tensors=tensors_of(recorder.records, [recorder.ledger.of(p.grad) for p in updates if p.grad is not None]),
    )
    return windowed(step, windows_of(model.named_modules())) if attention == "window" else step


@_uncollected
def trace_use(
    source: ModelSource,
    use: Use,
    *,
    batch: int | None = None,
    seq: int | None = None,
    context: int | None = None,
    progress: Progress | None = None,
) -> Workload:
    """What ``use`` of ``source`` does in one step, in evaluation mode: forward work alone, whatever is frozen.

    Nothing is kept for a backward pass, and all parameters are read as they are. ``infer``: one call on its inputs.
    ``prefill``: one on a prompt of ``context`` tokens, whose keys and values are kept and of which only the last
    token's scores are made. ``decode``: a token a sample behind ``context`` others. Those two take one sample unless
    ``batch`` says else.
    """
    tell = progress or (lambda _: None)
    tell("build")
    _check_request(batch, seq, SGD.name)
    cached, past, tokens = use in CACHING, 0, 0
    if cached:
        past, tokens = lengths_of(source, use, seq, context)
        batch, seq = batch or 1, past + tokens
    elif context is not None:
        raise InputError(f"context {context} is for prefill and decode; a step to {use} takes a sequence length")
    answers = Answers()
    model, inputs = _build(source, batch, seq, (), answers, trains=False)
    if source.generation is not None and cached:
        with torch.device("meta"):
            inputs = source.generation.inputs(model, inputs.batch, past, tokens)
        answers.keep_given(tensors_in((inputs.args, inputs.kwargs)))
    recorder = Recorder(model, source.name, answers)
    recorder.ledger.declare([inputs.args, inputs.kwargs], Origin.DATA)
    # Gradients stay on: by them the recorder knows one call from the next, and no module takes a way of its own
    # without them (torch.nn's fused encoder layers). Nothing is differentiated.
    with _like_training(), answers.listen(), recorder.listen(), _explained(source, recorder, "forward"):
        tell("forward")
        model(*inputs.args, **inputs.kwargs)
    ops = recorder.ops([])
    require_products(source.name, ops)
    return Workload(
        model=source.name,
        batch=inputs.batch,
        input=inputs.shape,
        ops=tuple(ops),
        after=tuple(recorder.after([])),
        frozen=tuple(_frozen(model, recorder, ())),
        assumed=(*answers.assumed, *recorder.assumed),
        tensors=tensors_of(recorder.records, []),
        phase=Phase(use=use, context=past, tokens=tokens, cached=cached_of(source, inputs) if cached else ()),
    )


def trace_recurrence(
    layer: nn.RNNBase, args: Sequence[Any], data: Sequence[Tensor], passed: Sequence[bool]
) -> list[MatrixOp | VectorOp]:
    """The ops of ``layer`` alone, called with ``args``, whose module path is empty: forward, then backward.

    ``data`` are the tensors that are neither parameters nor constants; gradients are made of all that require one, from
    those of the results that ``passed`` names: outputs, last hidden state, last cell state. All are meta tensors of any
    shape and dtype.
    """
    recorder = Recorder(layer, "")
    recorder.ledger.declare(list(data), Origin.DATA)
    wanted = [tensor for tensor in (*data, *layer.parameters()) if tensor.requires_grad]
    with _like_training(), recorder.listen():
        out, last = layer(*args)
        made = [out, last] if isinstance(last, Tensor) else [out, *last]
        recorder.turn()
        ends = [end for end, needed in zip(made, passed, strict=True) if needed and end.requires_grad]
        seeds = [end.new_empty(end.shape) for end in ends]
        recorder.ledger.declare(seeds, Origin.GRADIENT)
        found = torch.autograd.grad(ends, wanted, seeds, allow_unused=True) if ends and wanted else ()
    parameters = {id(parameter) for parameter in layer.parameters()}
    weights = [g for g, of in zip(found, wanted, strict=True) if g is not None and id(of) in parameters]
    return recorder.ops(weights)


def _check_request(batch: int | None, seq: int | None, optimizer: str) -> None:
    if batch is not None:
        require_int("batch", batch, 1, 2**31)
    if seq is not None:
        require_int("sequence length", seq, 1, 2**31)
    update_rule(optimizer)


def _build(
    source: ModelSource,
    batch: int | None,
    seq: int | None,
    freeze: Sequence[str],
    answers: Answers,
    *,
    trains: bool = True,
) -> tuple[nn.Module, StepInputs]:
    """The model, in train mode if it ``trains``, and its inputs, on meta and in the dtype of the source."""
    with torch.device("meta"), answers.listen(), Following(answers):
        # Inputs first: a user's model may be built for the sizes that were asked for.
        inputs = source.inputs(batch, seq)
        with _explained(source, None, "build"), _default_dtype(source.dtype):
            model = source.build()
        _require_dense(source, model, inputs)
        model = model_on_meta(model)
    if source.dtype is not None:
        model = model.to(source.dtype)
        inputs = replace(inputs, args=_cast(inputs.args, source.dtype), kwargs=_cast(inputs.kwargs, source.dtype))
    answers.keep_given(tensors_in((inputs.args, inputs.kwargs)))
    _size_lazy(source, model, inputs, answers)
    try:
        model.train(trains)
    except NotImplementedError as error:
        raise InputError(
            f"model {source.name!r} is a program of torch.export, which cannot be set to training or evaluation; "
            "give the module that it was exported from"
        ) from error
    model.zero_grad()
    parameters = dict(model.named_parameters(remove_duplicate=False))
    for parameter in parameters.values():
        answers.values.forget(parameter)
    for name in matching(freeze, parameters, "parameter"):
        parameters[name].requires_grad_(False)
    if trains and not any(parameter.requires_grad for parameter in model.parameters()):
        raise InputError(f"model {source.name!r} has no parameter to train" + (", all are frozen" if freeze else ""))
    return model, inputs


def _require_dense(source: ModelSource, model: nn.Module, inputs: StepInputs) -> None:
    """Refuse sparse tensors: how many products they spare is in their values."""
    held = [*model.named_parameters(), *model.named_buffers()]
    held += [("among the inputs", tensor) for tensor in tensors_in((inputs.args, inputs.kwargs))]
    for name, tensor in held:
        if tensor.layout is not torch.strided:
            raise InputError(
                f"model {source.name!r}: tensor {name} is stored as {tensor.layout}, but a trace knows dense ones "
                "only; give it as tensor.to_dense(), and its products count in full"
            )


def _size_lazy(source: ModelSource, model: nn.Module, inputs: StepInputs, answers: Answers) -> None:
    """Let lazy modules, which learn the shapes of their parameters from a first input, see one."""
    if any(isinstance(parameter, UninitializedParameter) for parameter in model.parameters()):
        with (
            torch.device("meta"),
            torch.no_grad(),
            answers.listen(),
            Following(answers),
            _explained(source, None, "build"),
        ):
            model(*inputs.args, **inputs.kwargs)


@contextmanager
def _default_dtype(dtype: torch.dtype | None) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype or before)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def _cast(value: Any, dtype: torch.dtype) -> Any:
    """The same nest of arguments with its floating tensors in ``dtype``."""
    if isinstance(value, Tensor):
        return value.to(dtype) if value.is_floating_point() else value
    if isinstance(value, list | tuple):
        return type(value)(_cast(item, dtype) for item in value)
    if isinstance(value, dict):
        return {key: _cast(item, dtype) for key, item in value.items()}
    return value


@contextmanager
def _like_training() -> Iterator[None]:
    """Meta as default device, gradients on, recurrent layers as on a CPU, attention in its own dtype.

    Its math path widens bfloat16 otherwise.
    """
    narrow = torch.backends.cuda.fp16_bf16_reduction_math_sdp_allowed()  # type: ignore[no-untyped-call]
    torch.backends.cuda.allow_fp16_bf16_reduction_math_sdp(True)
    try:
        with torch.device("meta"), torch.enable_grad(), WrittenOut():
            yield
    finally:
        torch.backends.cuda.allow_fp16_bf16_reduction_math_sdp(narrow)


def _seed(source: ModelSource, loss: object, recorder: Recorder) -> Tensor:
    """The gradient of the loss by itself, from which every gradient is known as one."""
    name = source.name
    if not isinstance(loss, Tensor):
        raise InputError(f"the loss of model {name!r} must be a tensor of one number, not {type(loss).__name__}")
    if loss.numel() != 1 or not loss.is_floating_point():
        shape = " x ".join(map(str, loss.shape)) or "scalar"
        raise InputError(f"the loss of model {name!r} must be one floating-point number, not {shape} of {loss.dtype}")
    if not loss.requires_grad:
        raise InputError(f"the loss of model {name!r} does not depend on any parameter that is trained")
    seed = torch.ones_like(loss)
    recorder.ledger.declare(seed, Origin.GRADIENT)
    return seed


def _updates(recorder: Recorder) -> dict[nn.Parameter, UpdateOp]:
    return {
        parameter: UpdateOp(name=label, elements=stored_elements(parameter) * (1 + parameter.is_complex()))
        for parameter, label in recorder.ledger.labels.items()
        if parameter.grad is not None and parameter.numel()
    }


def _frozen(model: nn.Module, recorder: Recorder, updates: Container[nn.Parameter]) -> Iterator[Frozen]:
    """What of the model is read as it is: parameters that get no gradient, buffers that no op writes."""
    untouched = recorder.ledger.only_read()
    buffers = {tensor: name for name, tensor in model.named_buffers()}
    for tensor, name in (recorder.ledger.labels | buffers).items():
        # A configuration without registers or special tokens has them all the same, of no rows.
        if tensor.numel() and recorder.ledger.of(tensor) in untouched and tensor not in updates:
            dtype = dtype_name(tensor.dtype)
            dtype = dtype if dtype in DTYPE_BYTES else "uint8"
            yield Frozen(name=name, dtype=dtype, elements=stored_bytes(tensor) // DTYPE_BYTES[dtype])


def _check_step(source: ModelSource, ops: list[MatrixOp | VectorOp], updates: list[UpdateOp]) -> None:
    require_products(source.name, ops)
    if not updates:
        raise InputError(f"no parameter of model {source.name!r} received a gradient")


@contextmanager
def _explained(source: ModelSource, recorder: Recorder | None, phase: str) -> Iterator[None]:
    """Turn whatever the model raises into an :class:`InputError` of one screen that says where."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        place = "" if recorder is None else f" in {_failing_path(error.__traceback__, recorder, phase)}"
        text = "\n".join(str(error).strip().splitlines()[:12])[:1000]
        if isinstance(error, NotImplementedError):
            text += (
                "\nA model is traced on meta tensors, without data: what depends on values has no shape there, unless "
                "they follow from constants or from what topk, argmax, sort and multinomial choose."
            )
        raise InputError(f"model {source.name!r} fails in {phase}{place}: {type(error).__name__}: {text}") from error


def _failing_path(traceback: TracebackType | None, recorder: Recorder, phase: str) -> str:
    """Path of the innermost module on the stack; backward runs outside of modules, so there it is the last op's."""
    path = recorder.last_path if phase == "backward" else recorder.name
    while traceback is not None:
        found = recorder.path_of(traceback.tb_frame.f_locals.get("self"))
        path = found or path
        traceback = traceback.tb_next
    return path
