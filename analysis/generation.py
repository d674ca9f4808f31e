"""Text written by a model on a machine: time to the first token, tokens a second, joules a token, and what binds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

from ..dataflow.accelerator import AcceleratorSpec
from ..dataflow.actions import STANDING, Action
from ..dataflow.objective import Objective
from ..simulator.decode import Decoded, decode, overlapped
from ..simulator.memory import MemoryNeed, memory_need, require_room
from ..simulator.step import simulate
from ..simulator.system import simulate_system
from ..simulator.system_result import SystemResult
from ..workloads.growth import Growth
from ..workloads.step import Workload
from .bands import Joules
from .declared import counts_kind, cycles_kind
from .energy import ZJ_PER_J, amounts, beyond_amounts, energy
from .energy_table import load_table
from .level import AnyResult, seconds_of
from .scheduling import prices_for, scheduled
from .tariff import tariff

__all__ = ["Generated", "decode_energy", "generate"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Generated:
    """A prompt taken in (``prefill``) and tokens made behind it (``decoded``), each with its joules; ``need``: DRAM at
    the last token."""

    prefill: AnyResult
    decoded: Decoded
    prefill_joules: Joules
    decode_joules: Joules
    need: MemoryNeed

    @property
    def first_token_seconds(self) -> float:
        """Time to the first token, which the prompt's own step makes."""
        return seconds_of(self.prefill)

    @property
    def tokens_per_s(self) -> float:
        """Of all samples together, while decoding."""
        return self.decoded.tokens / self.decoded.seconds

    @property
    def joules_per_token(self) -> Joules:
        """Of decoding, with their band."""
        return Joules(*(joules / self.decoded.tokens for joules in self.decode_joules))

    @property
    def roof_tokens_per_s(self) -> float:
        """What DRAM allows: the bytes that decoding moves, at the bytes a second that the machine reaches, or with ops
        overlapped, where shapes say what is reached, at those of its port."""
        spec = self.decoded.spec
        port = isinstance(self.prefill, SystemResult)
        rate = spec.dram.bytes_per_second if port else float(spec.dram_bytes_per_cycle) * spec.clock_hz
        return self.decoded.tokens * rate / self.decoded.dram_bytes

    @property
    def bandwidth_share(self) -> float:
        """Share of decoding's time in which DRAM would be busy at its rate."""
        return self.tokens_per_s / self.roof_tokens_per_s

    @property
    def binds(self) -> str:
        """What most of decoding's time is spent on, in words."""
        return "DRAM bandwidth binds" if self.bandwidth_share >= 0.5 else "the array and its lanes bind"


def decode_energy(decoded: Decoded) -> Joules:
    """Joules of all steps, each at its own size and as long as it takes, by the table of the machine."""
    spec, rule = decoded.spec, decoded.growth.first.rule
    table = load_table(spec.technology)
    results = [r for r, _ in decoded.parts]
    prices = tariff(table, spec, counts_kind(results), cycles_kind(results))
    spent = Counter[Action](dict.fromkeys(STANDING, decoded.cycles))
    for r, times in decoded.parts:
        for action, n in amounts(r, rule, spec, table, standing=0).items():
            spent[action] += times * n
    for one in (one for piece in decoded.grown for one in piece):
        for action, n in one.amounts(rule, spec).items():
            spent[action] += one.times * n
    spent.update(beyond_amounts(decoded.beyond, spec, table))
    ends = [(n, prices[action]) for action, n in spent.items() if action in prices]
    low, high = (sum(n * price.ends[end] for n, price in ends) for end in (0, 1))
    return Joules(low / ZJ_PER_J, sum(n * price.zeptojoules for n, price in ends) / ZJ_PER_J, high / ZJ_PER_J)


def generate(
    prefill: Workload,
    steps: Growth,
    spec: AcceleratorSpec,
    objective: Objective | str = Objective.THRIFT,
    tell: Callable[[str], None] | None = None,
    *,
    level: Literal["step", "system"] = "step",
) -> Generated:
    """``prefill``, then ``steps`` of decoding, on ``spec``, op after op or at the level ``system`` with the ops of each
    step overlapped; refused where DRAM cannot hold either."""
    say = tell or (lambda _: None)
    require_room(prefill, spec)
    require_room(steps.last, spec)
    say("prefill")
    overlap = level == "system"
    choose = partial(scheduled, spec=spec, objective=objective, by_shape=overlap)
    taken_in = simulate_system(choose(prefill)) if overlap else simulate(choose(prefill))
    say("decode")
    if overlap:
        decoded = overlapped(steps, spec, choose, lambda done, all_: say(f"decode, {done:,} of {all_:,} steps"))
    else:
        decoded = decode(steps, spec, objective, prices_for(spec, objective))
    return Generated(
        prefill=taken_in,
        decoded=decoded,
        prefill_joules=energy(taken_in).band,
        decode_joules=decode_energy(decoded),
        need=memory_need(steps.last, spec),
    )
