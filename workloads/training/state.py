"""What a checkpoint of a training may hold: the same keys, types and shapes as the training that goes on from it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor

from ..errors import InputError, require_int
from ..host import Host
from ..update_rule import ADAMW, UpdateRule

__all__ = ["MAX_THREADS", "require_outline", "require_state", "require_text_state"]

MAX_THREADS = 1024
"""More threads than a machine has cores are slow; PyTorch starts whatever number it is told, and dies of it."""

_OUTLINE = {
    "version": int,
    "spec": str,
    "data": str,
    "threads": int,
    "step": int,
    "model": dict,
    "optimizer": dict,
    "scaler": dict,
    "technique": dict,
    "log": list,
    "hosts": list,
    "epoch": dict,
}
_EPOCH = {"loss_sum": float, "correct": int, "seconds": float}
_STEP = "step"
"""PyTorch's name of the step number a parameter."""

_SHARES = {"train_accuracy", "validation_accuracy", "flip_rate", "sad", "density_ff", "density_bp", "density_wu"}
_NEAR = 1e-9
"""Learning rates are computed again; another processor's cosine may differ in the last bit."""


def require_outline(state: Mapping[str, Any]) -> None:
    """Refuse a checkpoint that does not hold exactly the parts of one, each of its type."""
    _require_keys("it", state, _OUTLINE)
    _require_types("", state, _OUTLINE)
    require_int("threads", state["threads"], 1, MAX_THREADS)
    _require_keys("epoch", state["epoch"], _EPOCH)
    _require_types("epoch.", state["epoch"], _EPOCH)
    hosts = {field.name: int if field.name == "threads" else str for field in fields(Host)}
    if not state["hosts"]:
        raise InputError("hosts must name where the training ran")
    for host in state["hosts"]:
        _require_keys("host", host, hosts)
        _require_types("host: ", host, hosts)


def require_state(
    state: Mapping[str, Any],
    own: Mapping[str, Any],
    *,
    optimizer: torch.optim.Optimizer,
    rule: UpdateRule,
    rate: Callable[[int], float],
    per_epoch: int,
    steps: int,
    row: type[Any],
    weights: Mapping[str, Tensor],
    planes: int,
) -> None:
    """Refuse a checkpoint that is none of the training whose state before its first step is ``own``.

    ``rate`` is the learning rate of a step, ``row`` the dataclass of a line of the log, ``weights`` those of the layers
    that the technique works on, by name, of any shape and dtype, ``planes`` the bits of a mask for each. Parts that
    grow in a training are checked by what they can be.
    """
    step = state["step"]
    require_int("step", step, 0, steps)
    _require_epoch(state["epoch"], step % per_epoch)
    _require_log(state["log"], step, per_epoch, rate, row)
    _require_like("model", state["model"], own["model"])
    _require_optimizer(state["optimizer"], own["optimizer"], optimizer, rule, rate(step - 1) if step else None)
    _require_scaler(state["scaler"], own["scaler"])
    _require_technique(state["technique"], own["technique"], step, steps, weights, planes)
    if "snapshots" in own["technique"]:
        _require_snapshots(state["technique"]["snapshots"], own["model"])


def require_text_state(
    state: Mapping[str, Any],
    own: Mapping[str, Any],
    optimizer: torch.optim.Optimizer,
    rate: Callable[[int], float],
    steps: int,
) -> None:
    """The same of a training of a model of text by AdamW, for its model, its optimizer and its random numbers."""
    _require_keys("it", state, own)
    _require_types("", state, dict.fromkeys(("model", "optimizer"), dict))
    require_int("step", state["step"], 0, steps)
    step = state["step"]
    _require_like("model", state["model"], own["model"])
    _require_optimizer(state["optimizer"], own["optimizer"], optimizer, ADAMW, rate(step - 1) if step else None)
    _require_tensor("random", state["random"], own["random"].shape, own["random"].dtype)
    try:
        torch.Generator().set_state(state["random"])
    except RuntimeError as error:
        raise InputError(f"random is no state of random numbers: {error}") from None


def _require_keys(where: str, found: object, expected: Mapping[str, Any]) -> None:
    if not isinstance(found, dict) or found.keys() != expected.keys():
        keys = sorted(map(str, found)) if isinstance(found, dict) else type(found).__name__
        raise InputError(f"{where} must hold {', '.join(expected) or 'nothing'}, not {keys}")


def _require_types(where: str, found: Mapping[str, Any], types: Mapping[str, type]) -> None:
    for name, kind in types.items():
        value = found[name]
        wrong = type(value) is not kind if kind in (int, float, str) else not isinstance(value, kind)
        if wrong or (kind is float and not math.isfinite(value)):
            raise InputError(f"{where}{name} must be a finite {kind.__name__}, not {value!r}"[:300])


def _require_epoch(epoch: Mapping[str, Any], done: int) -> None:
    require_int("epoch.correct", epoch["correct"], 0, 2**40 if done else 0)
    if epoch["seconds"] < 0 or (not done and epoch["loss_sum"] != 0.0):
        raise InputError(f"epoch holds {epoch['loss_sum']} and {epoch['seconds']} s, which no sum of {done} steps is")


def _require_log(log: list[Any], step: int, per_epoch: int, rate: Callable[[int], float], row: type[Any]) -> None:
    names = {field.name: int if field.type in (int, "int") else float for field in fields(row)}
    if len(log) != step // per_epoch:
        raise InputError(f"log has {len(log)} lines, but {step} steps of {per_epoch} an epoch make {step // per_epoch}")
    for i, line in enumerate(log, 1):
        _require_keys(f"log line {i}", line, names)
        _require_types(f"log line {i}: ", line, names)
        if (line["epoch"], line["step"]) != (i, i * per_epoch):
            raise InputError(
                f"log line {i} is of epoch {line['epoch']} and step {line['step']}, not of {i * per_epoch}"
            )
        _require_rate(f"log line {i}", line["learning_rate"], rate(line["step"] - 1))
        out = sorted(name for name in _SHARES if not 0.0 <= line[name] <= 1.0)
        if out:
            raise InputError(f"log line {i}: {out[0]} must be from 0 to 1, not {line[out[0]]}")


def _require_rate(where: str, found: Any, expected: float) -> None:
    if type(found) is not float or not math.isclose(found, expected, rel_tol=_NEAR, abs_tol=1e-300):
        raise InputError(f"{where} is at learning rate {found!r}, but the training's own is {expected!r} there")


def _require_tensor(where: str, value: object, shape: torch.Size, dtype: torch.dtype) -> None:
    if not isinstance(value, Tensor) or value.shape != shape or value.dtype != dtype:
        found = f"{value.dtype} {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
        raise InputError(f"{where} must be a tensor {dtype} {tuple(shape)}, not {found}")
    if not bool(torch.isfinite(value).all()):
        raise InputError(f"{where} holds a number that is not finite")


def _require_like(where: str, found: object, own: Mapping[str, Any]) -> None:
    """The same names, each a tensor of the same shape and type."""
    if not isinstance(found, dict) or found.keys() != own.keys():
        odd = sorted(map(str, set(found) ^ set(own))) if isinstance(found, dict) else [type(found).__name__]
        raise InputError(f"{where} is of another model: {odd[0]!r} is on one side only")
    for name, tensor in own.items():
        _require_tensor(f"{where}.{name}", found[name], tensor.shape, tensor.dtype)


def _require_optimizer(
    found: Mapping[str, Any],
    own: Mapping[str, Any],
    optimizer: torch.optim.Optimizer,
    rule: UpdateRule,
    rate: float | None,
) -> None:
    _require_keys("optimizer", found, own)
    groups, own_groups = found["param_groups"], own["param_groups"]
    if not isinstance(groups, list) or len(groups) != len(own_groups) or not isinstance(found["state"], dict):
        raise InputError("optimizer is of another model")
    for i, (group, mine) in enumerate(zip(groups, own_groups, strict=True)):
        _require_keys(f"optimizer group {i}", group, mine)
        for name, value in mine.items():
            if name == "lr":
                _require_rate(f"optimizer group {i}", group[name], mine[name] if rate is None else rate)
            elif type(group[name]) is not type(value) or group[name] != value:
                raise InputError(f"optimizer group {i} has {name} {group[name]!r}; the training has {value!r}"[:300])
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    kept = {held.in_torch for held in rule.state} | ({_STEP} if rule.trained.counts_steps else set())
    for index, slots in found["state"].items():
        require_int("optimizer: parameter", index, 0, len(parameters) - 1)
        if not isinstance(slots, dict) or slots.keys() != kept:
            raise InputError(f"optimizer: parameter {index} must hold {', '.join(sorted(kept))}")
        for name, value in slots.items():
            shape = torch.Size() if name == _STEP else parameters[index].shape
            _require_tensor(f"optimizer: {name} of parameter {index}", value, shape, parameters[index].dtype)


def _require_scaler(found: Mapping[str, Any], own: Mapping[str, Any]) -> None:
    _require_keys("scaler", found, own)
    for name, value in found.items():
        if type(value) is not type(own[name]) or (name not in ("scale", "_growth_tracker") and value != own[name]):
            raise InputError(f"scaler has {name} {value!r}; the training has {own[name]!r}")
    if found and not (0.0 < found["scale"] < math.inf and 0 <= found["_growth_tracker"] <= found["growth_interval"]):
        raise InputError(f"scaler has scale {found['scale']} and counts {found['_growth_tracker']} steps")


def _require_technique(
    found: Mapping[str, Any], own: Mapping[str, Any], step: int, steps: int, weights: Mapping[str, Tensor], planes: int
) -> None:
    _require_keys("technique", found, own)
    require_int("technique: step", found["step"], 0, steps)
    require_int("technique: draws", found["draws"], 0, 2**40)
    if found["step"] != max(step - 1, 0):
        raise InputError(f"technique is at step {found['step']}, the training behind step {step}")
    _require_keys("technique: layers", found["layers"], own["layers"])
    for name, layer in found["layers"].items():
        _require_keys(f"technique: layer {name!r}", layer, own["layers"][name])
        _require_keys(f"technique: masks of {name!r}", layer["masks"], own["layers"][name]["masks"])
        for key, bits in layer["masks"].items():
            if bits is not None:
                size = torch.Size([-(-planes * weights[name].numel() // 8)])
                _require_tensor(f"technique: mask {key!r} of {name!r}", bits, size, torch.uint8)
        _require_layer(f"technique: {name!r}", layer["state"], own["layers"][name]["state"], weights[name])
    if "changes" in own:
        changes, switched = found["changes"], found["switched"]
        if not isinstance(changes, list) or len(changes) > steps or not all(map(_is_number, changes)):
            raise InputError("technique: changes must be a list of numbers, at most one a step")
        if switched is not None:
            require_int("technique: switched", switched, 0, steps)


def _require_snapshots(found: object, model: Mapping[str, Tensor]) -> None:
    """States of the model that a technique goes back to: what of it is in floating point."""
    if not isinstance(found, dict):
        raise InputError(f"technique: snapshots must be a dict, not {type(found).__name__}")
    for name, held in found.items():
        own = {key: value for key, value in model.items() if value.is_floating_point()}
        _require_like(f"technique: snapshot {name!r}", held, own)


def _is_number(value: object) -> bool:
    return type(value) in (int, float) and math.isfinite(value)  # type: ignore[arg-type]


def _require_layer(where: str, found: object, own: Mapping[str, Tensor], weight: Tensor) -> None:
    """State of a layer: what is there from the start keeps its shape, the rest runs along the weight."""
    if not isinstance(found, dict) or not found.keys() >= own.keys():
        raise InputError(f"{where} must hold {', '.join(own)}")
    sides = {*weight.shape, weight.numel() // max(len(weight), 1)}
    for key, value in found.items():
        if not isinstance(value, Tensor) or not isinstance(key, str):
            raise InputError(f"{where}: {key!r} must be a tensor, not {type(value).__name__}")
        fits = (
            value.shape == own[key].shape and value.dtype == own[key].dtype if key in own else sides >= {*value.shape}
        )
        if not fits:
            raise InputError(f"{where}: {key!r} cannot be {value.dtype} {tuple(value.shape)}")
        if not bool(torch.isfinite(value).all()):
            raise InputError(f"{where}: {key!r} holds a number that is not finite")
        counts = value.dtype not in (torch.bool, torch.float32, torch.float64)
        if counts and value.numel() and not 0 <= int(value.min()) <= int(value.max()) < weight.numel():
            raise InputError(f"{where}: {key!r} points beside the weight")
