"""What PyTorch's own compiler moves beside its products: `python -m weft.tests.dataflow.inductor_groups` writes
tests/golden/inductor_groups.csv, by Inductor's scheduler on a CPU, which counts the elements that each of its kernels
reads and writes; nothing is compiled."""

from __future__ import annotations

import csv
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

FILE = Path(__file__).parents[1] / "golden" / "inductor_groups.csv"
ROWS, WIDTH = 256, 64


class Gated(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up, self.gate = (nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.silu(self.gate(x)) * self.up(x)


class Added(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(WIDTH, WIDTH, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.gelu(x + self.inner(x))


def _between(*layers: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
    return lambda: nn.Sequential(
        nn.Linear(WIDTH, WIDTH, bias=False), *(layer() for layer in layers), nn.Linear(WIDTH, WIDTH, bias=False)
    )


GRAPHS: dict[str, Callable[[], nn.Module]] = {
    "relu": _between(nn.ReLU),
    "gelu": _between(nn.GELU),
    "relu, hardswish": _between(nn.ReLU, nn.Hardswish),
    "layer norm": _between(lambda: nn.LayerNorm(WIDTH)),
    "gated": _between(Gated),
    "added": _between(Added),
}


def counted(make: Callable[[], nn.Module]) -> list[int]:
    """Elements read and written by kernels that are no products, forward and backward."""
    from torch._dynamo.utils import detect_fake_mode
    from torch._inductor.codegen.common import init_backend_registration
    from torch._inductor.compile_fx import compile_fx, make_boxed_func, record_original_output_strides
    from torch._inductor.debug import DebugContext
    from torch._inductor.graph import GraphLowering
    from torch._inductor.virtualized import V

    found = []

    def count(module: Any, inputs: Any, **_: Any) -> Any:
        init_backend_registration()
        record_original_output_strides(module)
        mode = detect_fake_mode(inputs)
        graph = GraphLowering(module, shape_env=mode.shape_env)
        with V.set_graph_handler(graph), V.set_fake_mode(mode), V.set_debug_handler(DebugContext()):
            graph.run(*inputs)
            graph.init_wrapper_code()
            graph._update_scheduler()
            kernels = graph.count_bytes()[1]
        found.append(sum(elements for kernel, elements in kernels if "Extern" not in type(kernel).__name__))
        return make_boxed_func(module.forward)

    torch._dynamo.reset()
    compiled = torch.compile(make(), backend=functools.partial(compile_fx, inner_compile=count))
    compiled(torch.randn(ROWS, WIDTH)).sum().backward()
    return found


def main() -> None:
    with FILE.open("w", newline="") as file:
        file.write(f"# Inductor of PyTorch {torch.__version__}, {ROWS} rows of {WIDTH} FP32; elements moved\n")
        out = csv.writer(file)
        out.writerow(("graph", "forward", "backward"))
        for name, make in GRAPHS.items():
            out.writerow((name, *counted(make)))


if __name__ == "__main__":
    main()
