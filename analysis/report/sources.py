"""The section of a page that says what its figures rest on."""

from __future__ import annotations

from collections.abc import Sequence

from ...dataflow.config_io import load_spec, preset_names, preset_text
from ..words import joules, percents_of
from .folder import Run
from .markup import Html, element, joined
from .tables import constants_table, machine_table, memory_table, published_table

__all__ = ["sources_section"]


def sources_section(runs: Sequence[Run]) -> Html:
    """Every constant with its source and mark, and every choice of the machines."""
    parts: list[Html] = []
    seen: set[tuple[str, str]] = set()
    for run in runs:
        report = run.energy
        marks = [f"{mark} {share} %" for mark, share in percents_of(report.by_mark).items() if report.by_mark[mark]]
        parts.append(
            element(
                "details",
                element(
                    "summary", f"{run.label}: {joules(report.joules)} rests on figures that are {', '.join(marks)}"
                ),
                constants_table(run),
            )
        )
    parts.append(element("details", element("summary", "Energy of published machines"), published_table()))
    for run in runs:
        spec, table = run.result.spec, run.energy.table
        if (spec.name, table.name) in seen:
            continue
        seen.add((spec.name, table.name))
        notes = [element("li", f"Scaling of table {table.name}: {table.scaling}")]
        notes += [element("li", f"Not counted: {text}") for text in table.not_counted]
        peak = f"{spec.dram.bytes_per_second / 1e9:g} GB/s ({spec.dram.kind})"
        notes.append(
            element(
                "li",
                f"Op after op, DRAM gives {spec.dram.efficiency_percent} % of {peak} to every "
                "transfer; at the system level, what its memory reaches for the shape",
            )
        )
        inner = [element("ul", *notes), machine_table(run), memory_table(spec.dram.kind), _as_shipped(run)]
        summary = f"Machine {spec.name}: every choice{': ' + spec.description if spec.description else ''}"
        parts.append(element("details", element("summary", summary), *inner))
    return joined(parts)


def _as_shipped(run: Run) -> Html | None:
    """The comments of a preset say where its figures come from."""
    spec = run.result.spec
    if spec.name not in preset_names() or load_spec(spec.name) != spec:
        return None
    text = preset_text(spec.name)
    label = f"Machine {spec.name} as it ships"
    return element("pre", element("code", text), tabindex="0", role="group", aria_label=label, class_="scroll")
