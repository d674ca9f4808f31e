"""One door for every form a model can have: a name, a PyTorch file, a configuration, ONNX, or a traced workload."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import InputError, require_choice
from .io import load_workload
from .models import zoo
from .phase import USES, Use
from .step import Workload, require_products
from .strict import read_text
from .trace_cache import Subject, built_in, configuration, kept_trace
from .update_rule import SGD, update_rule
from .user_code import is_user
from .windows import ATTENTION, Attention

if TYPE_CHECKING:
    from torch import nn

    from .models.source import ModelSource

__all__ = ["FORMS", "is_user", "open_model", "trace_module"]

FORMS = "a built-in name (see `weft models`), file.py:function, config.json, model.onnx or a workload .json"
"""What the MODEL of a command may be."""


def open_model(
    text: str,
    *,
    batch: int | None = None,
    seq: int | None = None,
    optimizer: str | None = None,
    input_shape: tuple[int, ...] | None = None,
    dims: Mapping[str, int] | None = None,
    recompute: Sequence[str] = (),
    freeze: Sequence[str] = (),
    attention: Attention = "full",
    use: Use = "train",
    context: int | None = None,
    progress: Callable[[str], None] | None = None,
) -> Workload:
    """Workload of whatever ``text`` names; PyTorch is imported only where there is something to trace.

    ``optimizer`` defaults to that of a workload file, else to SGD. ``input_shape`` is one sample of a user's model
    or of an ONNX file, ``dims`` are sizes of symbolic axes of an ONNX file by name.
    ``recompute``: modules whose activations are made again instead of kept (`trace.trace_step`).
    ``freeze``: parameters that are not trained, by name with shell wildcards. ``attention``: over the full square, or
    by the window of layers that have one. ``use``: what the step is for, training or what `trace.trace_use` does,
    behind ``context`` tokens.
    """
    _require_use(text, use, context, {"optimizer": optimizer, "recompute": recompute, "freeze": freeze}, attention)
    if optimizer is not None:
        update_rule(optimizer)
    if input_shape is not None and not is_user(text) and not text.endswith(".onnx"):
        raise InputError(f"{text}: an input shape is for models of the form file.py:function and ONNX files only")
    if dims and not text.endswith(".onnx"):
        raise InputError(f"{text}: dim {next(iter(dims))!r} given, but only the axes of ONNX files have names")
    require_choice("attention", attention, ATTENTION)
    if attention == "window" and (text.endswith(".onnx") or _is_workload(text)):
        raise InputError(f"{text}: how attention counts is decided when a PyTorch model is traced; leave it out")
    if recompute and (text.endswith(".onnx") or _is_workload(text)):
        raise InputError(f"{text}: what is recomputed is decided when a PyTorch model is traced; leave it out")
    if use != "train":
        told: Any = {"use": use, "batch": batch, "seq": seq, "context": context}
        return kept_trace(partial(_subject, text), told, lambda: _trace_use(_source(text, input_shape), told, progress))
    if _is_workload(text):
        if freeze:
            raise InputError(f"{text}: what is frozen is decided when a model is traced; leave it out")
        return _saved(Path(text), batch, seq, optimizer)
    if text.endswith(".onnx"):
        from .onnx import onnx_workload

        if seq is not None:
            raise InputError(f"{text}: an ONNX file has no sequence, but axes by name: give --dim NAME={seq}")
        return onnx_workload(
            _existing(text), batch=batch, optimizer=optimizer or SGD.name, freeze=freeze, dims=dims, sample=input_shape
        )
    asked: Any = {
        "batch": batch,
        "seq": seq,
        "optimizer": optimizer or SGD.name,
        "recompute": tuple(recompute),
        "freeze": tuple(freeze),
        "attention": attention,
    }
    return kept_trace(partial(_subject, text), asked, lambda: _trace(_source(text, input_shape), asked, progress))


def _require_use(text: str, use: Use, context: int | None, trained: Mapping[str, object], attention: Attention) -> None:
    """Refuse what only training has a use for, what it has none for, and what only it is traced of."""
    require_choice("use", use, USES)
    if use == "train":
        if context is not None:
            raise InputError(f"context {context} is for prefill and decode; training takes a sequence length")
        return
    given = next((name for name, value in trained.items() if value), None)
    if given is not None:
        raise InputError(
            f"{text}: {given} is for training; a step to {use} updates and recomputes nothing, so leave it out"
        )
    if attention != "full":
        raise InputError(
            f"{text}: a layer's own window is counted in training only; to {use}, give one as `Blocks` (window@KEYS)"
        )
    if text.endswith(".onnx"):
        raise InputError(f"{text}: an ONNX file is traced as the step that trains it; to {use} give the PyTorch model")
    if _is_workload(text):
        raise InputError(f"{text}: what a step is for is decided when a model is traced; trace it again to {use}")


def _trace_use(source: ModelSource, told: Mapping[str, Any], progress: Callable[[str], None] | None) -> Workload:
    from .trace import trace_use

    return trace_use(source, **told, progress=progress)


def trace_module(
    module: nn.Module,
    inputs: Any,
    *,
    loss: Any = None,
    optimizer: str | None = None,
    recompute: Sequence[str] = (),
    freeze: Sequence[str] = (),
    attention: Attention = "full",
    progress: Callable[[str], None] | None = None,
) -> Workload:
    """Workload of a model in memory, which stays as it is; ``inputs`` as :mod:`.models.user` describes them."""
    from .models.module import module_source

    asked = {"optimizer": optimizer or SGD.name, "recompute": recompute, "freeze": freeze, "attention": attention}
    return _trace(module_source(module, inputs, loss), asked, progress)


def _trace(source: ModelSource, asked: Mapping[str, Any], progress: Callable[[str], None] | None) -> Workload:
    from .trace import trace_step

    return trace_step(source, **asked, progress=progress)


def _subject(text: str) -> Subject | None:
    """What ``text`` names, as far as its trace can be kept: what a user's file imports is not known."""
    if is_user(text):
        return None
    file = _configuration(text)
    if file is not None:
        return configuration(file)
    return built_in(text) if zoo.base(text) in zoo.MODELS else None


def _source(text: str, input_shape: tuple[int, ...] | None) -> ModelSource:
    if is_user(text):
        from .models.user import user_source

        return user_source(text, input_shape)
    file = _configuration(text)
    if file is not None:
        from .models.hf import hf_config_source

        return hf_config_source(file)
    path = Path(text)
    name = zoo.base(text)
    if text and name not in zoo.MODELS and ("/" in text or path.exists() or path.suffix):
        found = "is of no form that can be read" if path.exists() else "no such file"
        raise InputError(f"{text}: {found}; a model is {FORMS}")
    return zoo.source(text)


def _configuration(text: str) -> Path | None:
    """The file of a model configuration that ``text`` names, or that lies in the folder that it names."""
    inside = Path(text) / "config.json"
    if inside.is_file():
        return inside
    return _existing(text) if text.endswith(".json") else None


def _existing(text: str) -> Path:
    path = Path(text)
    if not path.exists():
        raise InputError(f"{text}: no such file")
    return path


def _is_workload(text: str) -> bool:
    """Whether ``text`` is a file to read as a workload: any JSON that is no model configuration."""
    if not text.endswith(".json"):
        return False
    path = _existing(text)
    if path.is_dir():
        return False
    try:
        found = json.loads(read_text(path))
    except InputError:
        raise
    except (ValueError, RecursionError):
        # The strict reader says what is wrong with it.
        return True
    if not isinstance(found, dict) or not ({"model_type", "schema", "ops"} & found.keys()):
        raise InputError(
            f"{path}: is neither a workload (keys schema, ops, ...) nor a Hugging Face configuration (key model_type)"
        )
    return "model_type" not in found


def _saved(path: Path, batch: int | None, seq: int | None, optimizer: str | None) -> Workload:
    workload = load_workload(path)
    require_products(str(path), workload.ops)
    if batch not in (None, workload.batch):
        raise InputError(
            f"{path}: was traced at batch {workload.batch}, so batch {batch} cannot be had from it; "
            f"trace the model again, or leave the batch out"
        )
    if seq is not None:
        raise InputError(f"{path}: the sequence length of a traced workload is fixed; trace the model again")
    return workload if optimizer is None else replace(workload, optimizer=optimizer)
