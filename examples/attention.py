"""A long prompt and a token behind it under patterns of attention, each with as many keys a query.

Prints the tables of docs/results/attention.md and draws its picture: `examples/attention.py [OUT.png] [--tokens N]`;
`--block`: tokens of a block. The model has grouped heads and the sizes of one of 8 billion parameters; two of its 32
layers are traced, which are all alike.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Literal

import matplotlib as mpl
from matplotlib.figure import Figure

import weft
from weft.analysis.energy import energy
from weft.analysis.theme import theme_of
from weft.dataflow.accelerator import AcceleratorSpec
from weft.workloads.attended import attended
from weft.workloads.blocks import BestBlocks, Blocks, Causal, Routed, SparkKeys, TopKeys, VerticalSlash, Window
from weft.workloads.step import MatrixOp, Op, Workload

LAYERS, FEATURES = 32, 128
CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 2,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "max_position_embeddings": 2**17,
    "vocab_size": 32000,
    "torch_dtype": "bfloat16",
}
PARTS = {
    "products": "#0072B2",
    "scores and copies": "#E69F00",
    "choosing": "#D55E00",
    "low rank": "#009E73",
    "all else": "#BBBBBB",
}
Parts = dict[str, float]


def patterns(tokens: int, block: int) -> dict[str, Blocks | None]:
    """An eighth of the tokens for every query, in whole blocks; and all of them."""
    keys = max(tokens // 8 // block, 2) * block
    half = keys // block // 2
    named = {
        "causal blocks": Causal(),
        "window": Window(keys=keys, sinks=4),
        "best blocks": BestBlocks(keep=keys // block),
        "vertical-slash": VerticalSlash(verticals=half, slashes=half),
        "routed clusters": Routed(clusters=tokens // keys),
        "top keys": TopKeys(keep=keys, channels=32),
        "spark keys": SparkKeys(keep=keys, channels=32),
    }
    found = {name: Blocks(pattern=p, block=block) for name, p in named.items()}
    mixed = {f"scatterbrain, {name}": replace(found[name], features=FEATURES) for name in ("window", "routed clusters")}
    return {"full, as traced": None} | found | mixed


def part(op: Op) -> str:
    """What work of a layer is for."""
    if not op.name.endswith("self_attn"):
        return "all else"
    if op.op.startswith("blocks."):  # type: ignore[union-attr]
        return "choosing"
    if op.op.startswith("low-rank."):  # type: ignore[union-attr]
        return "low rank"
    return "products" if isinstance(op, MatrixOp) else "scores and copies"


def costs(step: Workload, machine: AcceleratorSpec) -> tuple[Parts, float, float, float]:
    """Seconds of a layer by part; seconds, joules and DRAM bytes of all layers and what is around them."""
    found = weft.simulate(weft.schedule(step, machine, "cycles"))
    parts, total = Counter[str](), Counter[str]()
    for op, spent in zip(found.ops, energy(found).op_zeptojoules, strict=True):
        times = LAYERS if ".layers.1." in op.op.name or op.op.name.endswith(".layers.1") else 1
        if ".layers.0" in op.op.name:
            continue
        if times > 1:
            parts[part(op.op)] += op.cycles.total
        total["cycles"] += times * op.cycles.total
        total["energy"] += times * spent
        total["bytes"] += times * op.counts.dram_bytes
    seconds = {name: parts[name] / machine.clock_hz for name in PARTS}
    return seconds, total["cycles"] / machine.clock_hz, total["energy"] / 1e21, float(total["bytes"])


def table(
    use: Literal["prefill", "decode"], step: Workload, sizes: tuple[int, int], machine: AcceleratorSpec
) -> dict[str, Parts]:
    """Markdown; milliseconds of a layer by pattern and part."""
    title = f"{use}, {machine.array.rows} x {machine.array.cols}"
    print(f"| {title} | pairs | {', ms | '.join(PARTS)}, ms | 32 layers | | DRAM, GB | energy, J |")
    print("|---" * (6 + len(PARTS)) + "|")
    drawn: dict[str, Parts] = {}
    first = 0.0
    for name, blocks in patterns(*sizes).items():
        tokens = sizes[0]
        queries = tokens if use == "prefill" else 1
        share = 1.0 if blocks is None else blocks.pairs(queries, tokens) / (queries * tokens)
        parts, seconds, joules, moved = costs(step if blocks is None else attended(step, blocks), machine)
        first = first or seconds
        drawn[name] = {of: 1e3 * spent for of, spent in parts.items()}
        each = " | ".join(f"{spent:,.3f}" for spent in drawn[name].values())
        shown = f"{seconds:,.2f} s" if use == "prefill" else f"{1 / seconds:,.1f} tokens/s"
        gain = f"{first / seconds:.2f}x"
        print(f"| {name} | {share:.1%} | {each} | {shown} | {gain} | {moved / 1e9:,.0f} | {joules:,.3g} |")
    print()
    return drawn


def draw(panels: dict[str, dict[str, Parts]], path: str) -> None:
    """A bar a pattern, a panel a table."""
    theme = theme_of("light")
    with mpl.rc_context(theme.rc):
        figure = Figure(figsize=(10.4, 4.2), layout="constrained")
        for ax, (title, rows) in zip(figure.subplots(1, len(panels), sharey=True), panels.items(), strict=True):
            left = dict.fromkeys(rows, 0.0)
            for name, colour in PARTS.items():
                sizes = [parts[name] for parts in rows.values()]
                ax.barh(list(rows), sizes, left=list(left.values()), color=colour, label=name, height=0.65)
                left = {row: left[row] + size for row, size in zip(rows, sizes, strict=True)}
            shown = 1.2 * left[next(iter(rows))]
            ax.set_xlim(0, shown)
            for row, size in left.items():
                if size > shown:
                    ax.text(shown, row, f"{size:,.0f} ", ha="right", va="center", color="white")
            ax.grid(axis="x", linewidth=0.6)
            ax.set_title(title, loc="left")
            ax.set_xlabel("ms a layer")
        figure.axes[0].invert_yaxis()
        figure.axes[-1].legend(frameon=False, fontsize=9, loc="lower right")
        figure.savefig(path)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("picture", nargs="?")
    parser.add_argument("--tokens", type=int, default=32768)
    parser.add_argument("--block", type=int, default=512)
    asked = parser.parse_args()
    sizes = asked.tokens, asked.block
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "config.json"
        config.write_text(json.dumps(CONFIG))
        prompt = weft.trace(config, use="prefill", context=asked.tokens)
        token = weft.trace(config, use="decode", context=asked.tokens - 1)
    wide = weft.machine("hbm-asic")
    square = replace(wide, array=replace(wide.array, rows=128, cols=128))
    found = {
        f"Prompt of {asked.tokens:,}, 16 x 1024 PEs": table("prefill", prompt, sizes, wide),
        "The same, 128 x 128 PEs": table("prefill", prompt, sizes, square),
        f"A token behind {asked.tokens - 1:,}, 16 x 1024": table("decode", token, sizes, wide),
    }
    if asked.picture:
        draw(found, asked.picture)
