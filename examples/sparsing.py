"""How few neurons `characters` needs along its training and in other shapes, and what a token gains by that.

Trains, prints the tables of docs/results/sparsing.md and draws its picture: `examples/sparsing.py OUT.png FOLDER`. What
is trained, measured and simulated is kept in FOLDER, and goes on from there. `--networks relu-3x128-0@1200,..`:
neurons, blocks x width, seed and last step, `@=300` to be looked at there alone; `--steps 75,..`: where the others are;
`--token MODEL@MACHINE@CONTEXT`: whose tokens.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

import weft
from weft.analysis.energy import energy
from weft.analysis.level import seconds_of
from weft.analysis.scheduling import scheduled
from weft.analysis.theme import theme_of
from weft.simulator.system import simulate_system
from weft.workloads.checkpoint import load_checkpoint, save_checkpoint
from weft.workloads.data.text import open_text
from weft.workloads.mark import Mark
from weft.workloads.row_forms import FORMS, AskedRows
from weft.workloads.rows import Alike
from weft.workloads.skip_rows import skip_rows
from weft.workloads.step import Workload
from weft.workloads.training.tails import activation
from weft.workloads.training.text_run import TextRun
from weft.workloads.training.text_spec import TextSpec

NETWORKS = (
    *("relu-3x128-0@1200", "silu-3x128-0@1200", "relu-3x128-1@600", "silu-3x128-1@600"),
    *("relu-2x160-0@=300", "relu-6x92-0@=300", "relu-2x84-0@=300"),
)
LONGEST = 1200
RISE = 0.01
COLOURS = {"relu": "#0072B2", "silu": "#E69F00"}
STYLES = {0: "o-", 1: "s--"}


@dataclass(frozen=True)
class Network:
    """``last``: the step that it is trained to; ``only``: it is looked at there alone."""

    spec: TextSpec
    last: int
    only: bool

    @classmethod
    def read(cls, text: str) -> Network:
        found = re.fullmatch(r"(relu|silu)-(\d+)x(\d+)-(\d+)@(=?)(\d+)", text)
        if found is None:
            raise SystemExit(f"{text!r} is not of the form relu-3x128-0@1200")
        blocks, width, seed, last = (int(found[i]) for i in (2, 3, 4, 6))
        steps = max(LONGEST, last)
        neurons: Any = found[1]
        spec = TextSpec(activation=neurons, blocks=blocks, width=width, seed=seed, steps=steps, falls=False)
        return cls(spec, last, bool(found[5]))

    def at(self, steps: list[int]) -> list[int]:
        """Of ``steps``, where it is looked at."""
        return [step for step in steps if step == self.last or (step < self.last and not self.only)]

    @property
    def name(self) -> str:
        spec = self.spec
        return f"{spec.activation}-{spec.blocks}x{spec.width}-{spec.seed}"

    @property
    def depth(self) -> float:
        """Width over depth."""
        return self.spec.width / self.spec.blocks


Points = dict[int, dict[str, Any]]
"""By step, what `activation` says."""


def train(networks: list[Network], steps: list[int], folder: Path) -> None:
    """Keeps the weights of every network at its steps."""
    text = open_text("pydoc")
    for network in networks:
        for step in network.at(steps):
            path = weights(folder, network, step)
            if not path.exists():
                # At one rate, so that what is kept at a step is what a training of so many steps ends with.
                model = TextRun(network.spec, text, folder / network.name).until(step)
                save_checkpoint(path, {"version": 1, "model": model.state_dict()})
                print(f"{network.name} trained to step {step}", flush=True)


def weights(folder: Path, network: Network, step: int) -> Path:
    return folder / f"{network.name}-{step}.pt"


def measure(network: Network, steps: list[int], folder: Path) -> Points:
    """Of the weights that are kept."""
    text, found = open_text("pydoc"), Points()
    for step in network.at(steps):
        path = weights(folder, network, step).with_suffix(".json")
        if not path.exists():
            model, _ = network.spec.build()
            model.load_state_dict(load_checkpoint(weights(folder, network, step), 1)["model"])
            seen = activation(model, text, RISE)
            point = {
                "kept": seen.ratio,
                "by layer": seen.ratios,
                "not zero": seen.nonzero,
                "cett": seen.cett,
                "bits": seen.bits,
                "correlation": seen.alike.correlation,
            }
            path.write_text(json.dumps(point))
        found[step] = json.loads(path.read_text())
    return found


@dataclass(frozen=True)
class Token:
    """Of one sample: cycles or seconds are those of a step over its samples."""

    per_s: float
    joules: float


class Decoding:
    """A step of a model that writes a token a sample, on a machine; what is simulated is kept in a folder."""

    def __init__(self, asked: str, folder: Path) -> None:
        self.model, machine, context = asked.split("@")
        self.machine, self.context = weft.machine(machine), int(context)
        self.path = folder / f"{asked}.json"
        self.done: dict[str, Any] = json.loads(self.path.read_text()) if self.path.exists() else {}
        self.traced: dict[int, Workload] = {}

    def dense(self, batch: int) -> Workload:
        if batch not in self.traced:
            self.traced[batch] = weft.trace(self.model, use="decode", context=self.context, batch=batch)
        return self.traced[batch]

    def token(self, batch: int, form: str = "", kept: Alike | None = None) -> Token:
        """Without ``kept``, dense."""
        key = f"{batch} {form} {kept}"
        if key not in self.done:
            step = self.dense(batch)
            if kept is not None:
                step = skip_rows(step, AskedRows(form=FORMS[form], alike=kept))
            found = simulate_system(scheduled(step, self.machine, by_shape=True))
            self.done[key] = [step.batch / seconds_of(found), energy(found).joules / step.batch]
            self.path.write_text(json.dumps(self.done))
        return Token(*self.done[key])

    def gain(self, batch: int, form: str, kept: Alike) -> tuple[float, float]:
        """Tokens a second, and joules of one, over dense."""
        dense, less = self.token(batch), self.token(batch, form, kept)
        return less.per_s / dense.per_s, less.joules / dense.joules


def alike(point: dict[str, Any], mark: Mark) -> Alike:
    return Alike(density=point["kept"], correlation=point["correlation"], mark=mark)


def trend(found: dict[Network, Points], steps: list[int]) -> None:
    """Markdown; a row a network."""
    print("| network | seed | " + " | ".join(map(str, steps)) + " | not zero | CETT | bits | r |")
    print("|---" * (6 + len(steps)) + "|")
    for network, points in found.items():
        spec, last = network.spec, points[max(points)]
        cells = [f"{points[step]['kept']:.3f}" if step in points else "-" for step in steps]
        ends = [f"{last[name]:.3f}" for name in ("not zero", "cett")] + [f"{last['bits'][0]:.3f}"]
        name = f"{spec.activation}, {spec.blocks} x {spec.width}"
        print(f"| {name} | {spec.seed} | {' | '.join(cells + ends)} | {last['correlation']:.2f} |")
    print()


def machines(found: dict[Network, Points], small: Decoding, large: Decoding, batches: list[int]) -> None:
    """Markdown; the first network of each kind of neurons, at its first and last step."""
    asked = [("relu", batches[0]), *(("lowrank", batch) for batch in batches)]
    heads = [f"{small.model}, relu", *(f"{large.model}, {form}, {batch} at once" for form, batch in asked)]
    print("| neurons, step | kept | r | " + " | ".join(f"{head} | joules" for head in heads) + " |")
    print("|---" * (3 + 2 * len(heads)) + "|")
    for network, step, point in ends(found):
        own = small.gain(1, "relu", alike(point, Mark.MEASURED))
        kept = alike(point, Mark.ASSUMED)
        gains = [own, *(large.gain(batch, form, kept) for form, batch in asked)]
        cells = [f"{point['kept']:.3f}", f"{point['correlation']:.2f}"]
        cells += [f"{number:.2f}" for pair in gains for number in pair]
        print(f"| {network.spec.activation}, {step} | {' | '.join(cells)} |", flush=True)
    for of in (small, large):
        dense = of.token(1)
        where = f"dense, {of.model} on {of.machine.name}"
        print(f"\n{where}: {dense.per_s:,.1f} tokens/s, {dense.joules:.3g} J a token")


def firsts(found: dict[Network, Points]) -> dict[str, Network]:
    """The first network of each kind of neurons."""
    named: dict[str, Network] = {}
    for network in found:
        named.setdefault(network.spec.activation, network)
    return named


def ends(found: dict[Network, Points]) -> Iterator[tuple[Network, int, dict[str, Any]]]:
    for network in firsts(found).values():
        for step in (min(found[network]), max(found[network])):
            yield network, step, found[network][step]


def draw(found: dict[Network, Points], large: Decoding, batches: list[int], path: str) -> None:
    """Kept neurons by training and by shape, and what they bring a token."""
    theme = theme_of("light")
    with mpl.rc_context(theme.rc):
        figure = Figure(figsize=(10.8, 3.6), layout="constrained")
        along, shapes, gains = figure.subplots(1, 3)
        base = firsts(found)["relu"].spec
        for network, points in found.items():
            spec, x = network.spec, list(points)
            if replace(spec, activation="relu", seed=base.seed) != base:
                continue
            label, colour = f"{spec.activation}, seed {spec.seed}", COLOURS[spec.activation]
            style = STYLES.get(spec.seed, "x:")
            along.plot(x, [p["kept"] for p in points.values()], style, color=colour, markersize=4, label=label)
            if spec.seed == base.seed and spec.activation == "relu":
                zeros = [p["not zero"] for p in points.values()]
                along.plot(x, zeros, ":", color=colour, label="relu, not zero")
        along.set_title("neurons that are kept")
        _by_shape(shapes, found)
        for name, network in firsts(found).items():
            points = found[network]
            for batch, style in zip(batches, ("o-", "s--", "x:"), strict=False):
                # With many samples only the ends, which the table has: a step takes seconds to simulate.
                at = list(points) if batch == 1 else [min(points), max(points)]
                y = [large.gain(batch, "lowrank", alike(points[step], Mark.ASSUMED))[0] for step in at]
                gains.plot(at, y, style, color=COLOURS[name], markersize=4, label=f"{name}, {batch} at once")
        gains.axhline(1, color=theme.muted, linewidth=0.8)
        gains.set_title(f"tokens/s of {large.model} over dense, lowrank")
        gains.set_ylim(top=1 + 1.35 * (gains.get_ylim()[1] - 1))
        looked = sorted({step for points in found.values() for step in points})
        for axes in (along, gains):
            axes.set_xscale("log")
            axes.minorticks_off()
            axes.set_xticks(looked, [str(step) for step in looked])
            axes.set_xlabel("steps of training")
        along.set_ylim(bottom=0)
        for axes in (along, shapes, gains):
            axes.grid(color=theme.grid, linewidth=0.6)
        along.legend(frameon=False, fontsize=8)
        shapes.legend(frameon=False, fontsize=8)
        gains.legend(frameon=False, fontsize=8, ncols=2, loc="upper right")
        figure.savefig(path, dpi=160)


def _by_shape(axes: Any, found: dict[Network, Points]) -> None:
    """Networks with a ReLU at the last step that all have, of one seed."""
    seed = firsts(found)["relu"].spec.seed
    relu = [n for n in found if n.spec.activation == "relu" and n.spec.seed == seed]
    step = min(n.last for n in relu)
    for network in relu:
        spec, kept = network.spec, found[network][step]["kept"]
        parameters = 12 * spec.blocks * spec.width**2
        size = 6 if parameters > 3e5 else 3
        axes.plot(network.depth, kept, "o", color=COLOURS["relu"], markersize=size)
        at, name = (network.depth, kept), f"{spec.blocks} x {spec.width}"
        axes.annotate(name, at, xytext=(6, -12 if size > 3 else 4), textcoords="offset points", fontsize=8)
    axes.plot([], [], "o", color=COLOURS["relu"], markersize=6, label="relu, 0.6 M parameters")
    axes.plot([], [], "o", color=COLOURS["relu"], markersize=3, label="relu, 0.2 M")
    axes.set_title(f"neurons that are kept, step {step}")
    axes.set_xlabel("width over depth")
    axes.margins(x=0.3)
    axes.set_ylim(0, 2 * max(found[network][step]["kept"] for network in relu))


parser = argparse.ArgumentParser()
parser.add_argument("picture")
parser.add_argument("folder", type=Path)
parser.add_argument("--networks", default=",".join(NETWORKS))
parser.add_argument("--steps", default="75,150,300,600,1200")
parser.add_argument("--batches", default="1,8")
parser.add_argument("--token", default="llama2_7b@hbm-asic@512")
given = parser.parse_args()
networks = [Network.read(text) for text in given.networks.split(",")]
asked_steps, at_once = ([int(n) for n in text.split(",")] for text in (given.steps, given.batches))
given.folder.mkdir(parents=True, exist_ok=True)
train(networks, asked_steps, given.folder)
seen = {network: measure(network, asked_steps, given.folder) for network in networks}
trend(seen, asked_steps)
own, larger = Decoding("characters@tiny@32", given.folder), Decoding(given.token, given.folder)
machines(seen, own, larger, at_once)
draw(seen, larger, at_once, given.picture)
