"""What points work on: steps of each kind once."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from ...dataflow.fusion.fuse import fuse
from ...workloads.catalog import open_model
from ...workloads.joined import Fusion
from ...workloads.schemes.annotate import annotate
from ...workloads.schemes.policies import patterns_of
from ...workloads.schemes.scheme import scheme as scheme_of
from ...workloads.step import Workload
from ...workloads.strict import read_file
from ...workloads.user_code import is_user
from .space import Space, Value

__all__ = ["Work", "model_digest", "step_at", "traced", "work_at"]


class Work(NamedTuple):
    """What a point works on. ``digest``: of the model's file, so that a changed one is another model; ``nm``: "" where
    the scheme takes none."""

    model: str
    digest: str
    seq: int | None
    batch: int | None
    scheme: str
    nm: str
    fusion: Fusion = "none"


def model_digest(model: str) -> str:
    """Of a model that is a file; what is built in goes by its name and the sources."""
    path = Path(model.rpartition(":")[0] if is_user(model) else model)
    return hashlib.sha256(read_file(path)).hexdigest() if path.is_file() else ""


def work_at(space: Space, digests: Mapping[str, str], values: Mapping[str, Value]) -> Work:
    """What a point works on; ``digests``: by model."""

    def one(name: str) -> Any:
        return values[name] if name in values else getattr(space, name)

    model, name = one("model"), one("scheme")
    nm = one("nm") if scheme_of(name).takes_pattern else ""
    return Work(model, digests[model], one("seq"), one("batch"), name, nm, space.fusion)


def traced(work: Work) -> Workload:
    """The step of it as traced and fused, once in a process; an earlier trace on disk is used."""
    return _traced(work._replace(scheme="", nm=""))


@lru_cache(maxsize=64)
def _traced(work: Work) -> Workload:
    return fuse(open_model(work.model, batch=work.batch, seq=work.seq), work.fusion)


@lru_cache(maxsize=64)
def step_at(work: Work) -> Workload:
    """The step of it, annotated once in a process."""
    step = traced(work)
    return annotate(step, work.scheme, patterns_of(work.nm, step) if work.nm else None)
