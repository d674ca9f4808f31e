"""Fine-tuning by low-rank adapters: what a step takes where all is trained, adapters alone, and those on N:M weights.

Prints the table of docs/lora.md: `examples/lora.py [MACHINE [MODEL [SEQ [RANK]]]]`. A model by itself:
`examples/lora.py:adapted`.
"""

from __future__ import annotations

import sys

import torch
from torch import Tensor, nn

import weft
from weft.analysis.energy import energy
from weft.simulator.memory import memory_need
from weft.workloads.models.zoo import source

ADAPTED = ("q_proj", "v_proj")
"""Of each layer of Llama, as the paper's own experiments have it (Hu et al. 2021, section 4.2: query and value)."""


class Adapter(nn.Module):
    """y = W x + B A x: W frozen, A and B of ``rank``."""

    def __init__(self, layer: nn.Linear, rank: int) -> None:
        super().__init__()
        self.layer = layer
        self.down = nn.Linear(layer.in_features, rank, bias=False)
        self.up = nn.Linear(rank, layer.out_features, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) + self.up(self.down(x))


def adapted(
    batch: int = 1, name: str = "llama2_7b", seq: int = 512, rank: int = 8
) -> tuple[nn.Module, dict[str, Tensor]]:
    """The model with adapters beside its query and value projections, all else frozen, and a batch of tokens for it."""
    with torch.device("meta"):
        model = source(name).build().requires_grad_(False)
        for module in list(model.modules()):
            for key, layer in list(module.named_children()):
                if key in ADAPTED and isinstance(layer, nn.Linear):
                    setattr(module, key, Adapter(layer, rank).to(layer.weight.dtype))
        tokens = torch.zeros(batch, seq, dtype=torch.long)
        return model, {"input_ids": tokens, "attention_mask": torch.ones(batch, seq, dtype=torch.bool)}


def main(machine: str = "hbm-asic", name: str = "llama2_7b", seq: int = 512, rank: int = 8) -> None:
    spec = weft.machine(machine)
    model, inputs = adapted(1, name, seq, rank)
    whole = weft.trace(name, batch=1, seq=seq, optimizer="adamw")
    lora = weft.trace(model, inputs, optimizer="adamw", loss=lambda output: output.logits.float().mean())
    print(f"{name} on {spec.name}, {seq} tokens, rank {rank}: {lora.parameters:,} of {whole.parameters:,} trained")
    print("| trained | scheme | schedule for | step | energy | DRAM moved | DRAM held |\n|---|---|---|---|---|---|---|")
    for what, step in (("all", whole), ("adapters", lora)):
        for scheme in ("dense", "bdwp"):
            marked = weft.sparsify(step, scheme, None if scheme == "dense" else "2:8")
            held = memory_need(marked, spec).total
            for objective in ("thrift", "edp"):
                result = weft.simulate(weft.schedule(marked, spec, objective))
                seconds, joules = result.cycles.total / spec.clock_hz, energy(result).joules
                print(
                    f"| {what} | {scheme} | {objective} | {seconds * 1e3:.1f} ms | {joules:.3g} J "
                    f"| {result.counts.dram_bytes / 1e9:.1f} GB | {held / 1e9:.1f} GB |"
                )


if __name__ == "__main__":
    asked = sys.argv[1:]
    main(*asked[:2], *map(int, asked[2:]))
