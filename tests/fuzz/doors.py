"""Every kind of file that Weft reads: whole ones to begin with, how they are made worse, and what reads them."""

from __future__ import annotations

import copy
import json
import random
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

import weft
from weft.analysis.energy import energy
from weft.analysis.energy_table import load_table
from weft.analysis.frames import csv_text, ops_frame
from weft.analysis.publish import MANIFEST
from weft.analysis.save import save_run
from weft.analysis.saved import saved_run
from weft.dataflow.config_io import dumps_spec, load_spec, preset_names, preset_text
from weft.dataflow.program.assembly import assemble, disassemble
from weft.dataflow.program.checker import check
from weft.dataflow.program.program import HEADER, Program, read_program
from weft.dataflow.program.spaces import Target
from weft.dataflow.streaming import Cost, Fabric, Pipeline, read_foldings, streaming_layers
from weft.simulator.dram import run_memory
from weft.simulator.dram_requests import pattern
from weft.simulator.dram_spec import load_memory
from weft.simulator.dram_traces import read_trace
from weft.simulator.memory import memory_need
from weft.simulator.system import simulate_system
from weft.workloads import training
from weft.workloads.catalog import open_model
from weft.workloads.checkpoint import digest, load_checkpoint, save_checkpoint
from weft.workloads.data import open_data
from weft.workloads.data.folder import decode
from weft.workloads.data.text import LETTERS, TextData
from weft.workloads.io import dumps_workload, load_workload
from weft.workloads.recorded import Recorded
from weft.workloads.schemes.policies import patterns_of
from weft.workloads.schemes.scores import LayerScores, Scores
from weft.workloads.sparsity import NMPattern
from weft.workloads.step import Workload
from weft.workloads.strict import read_text
from weft.workloads.training.run import VERSION, Run
from weft.workloads.training.text_run import TextRun
from weft.workloads.training.text_spec import TextSpec
from weft.workloads.update_rule import SGD

from .mutate import EDGES, of_bytes, of_json, of_onnx, of_text, of_tree

__all__ = ["DOORS", "Door"]

ROOT = Path(weft.__file__).parent
TINY = Target(spec=load_spec("tiny"), rule=SGD)
Random = random.Random


@dataclass(frozen=True)
class Door:
    """``seeds`` writes whole files into an empty folder; ``worsen`` spoils them there; ``read`` is the program."""

    name: str
    seeds: Callable[[Path], Iterator[Path]]
    worsen: Callable[[Random, Path], None]
    read: Callable[[Path], object]
    inputs: int
    """In the full test."""
    text: bool = False
    """Whether people write such files in an editor."""


def bytes_of(change: Callable[[Random, bytes], bytes]) -> Callable[[Random, Path], None]:
    def worsen(random: Random, path: Path) -> None:
        path.write_bytes(change(random, path.read_bytes()))

    return worsen


def written(path: Path, raw: bytes) -> Path:
    path.write_bytes(raw)
    return path


# --- workloads


@cache
def small_step() -> Workload:
    """A convolution and a linear layer, as traced."""
    net = torch.nn.Sequential(
        torch.nn.Conv2d(8, 8, 3, padding=1), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(128, 16)
    )
    return weft.trace(net, torch.empty(2, 8, 4, 4))


def workload_seeds(folder: Path) -> Iterator[Path]:
    dense = small_step()
    for name, step in {"dense": dense, "sparse": weft.sparsify(dense, "bdwp-x", "2:8")}.items():
        yield written(folder / f"{name}.json", dumps_workload(step))


def read_workload(path: Path) -> None:
    step = load_workload(path)
    placed = weft.schedule(weft.sparsify(step, "bdwp", "2:4"), "tiny")
    csv_text(ops_frame(weft.simulate(placed)))
    simulate_system(placed)


def folding_seeds(folder: Path) -> Iterator[Path]:
    listed = [[4, 8], [2, 16]]
    yield written(folder / "list.json", json.dumps(listed).encode())
    yield written(folder / "names.json", json.dumps({"0": listed[0], "3": {"PE": 2, "SIMD": 16}}).encode())
    engines = {f"MVAU_hls_{i}": {"PE": pe, "SIMD": simd, "ram_style": "auto"} for i, (pe, simd) in enumerate(listed)}
    yield written(folder / "finn.json", json.dumps({"Defaults": {}, **engines}).encode())


def read_folding(path: Path) -> None:
    layers = streaming_layers(small_step())
    fabric = Fabric(name="xc7z020", has=Cost(lut=53_200, bram=280))
    Pipeline(layers=layers, foldings=read_foldings(path, layers, fabric)).rate(10**8)


# --- machines, memories, energy tables, traces of requests


def machine_seeds(folder: Path) -> Iterator[Path]:
    for name in preset_names():
        yield written(folder / f"{name}.toml", preset_text(name).encode())


def read_machine(path: Path) -> None:
    spec = load_spec(path)
    dumps_spec(spec)
    result = weft.simulate(weft.schedule(small_step(), spec))  # type: ignore[arg-type]
    energy(result)
    memory_need(result.workload, spec)


def memory_seeds(folder: Path) -> Iterator[Path]:
    for file in sorted((ROOT / "simulator" / "memories").glob("*.toml")):
        yield written(folder / file.name, file.read_bytes())


def read_memory(path: Path) -> None:
    memory = load_memory(path)
    run_memory(memory, pattern("train_3r1w_block64", memory, 400))


def table_seeds(folder: Path) -> Iterator[Path]:
    yield written(folder / "table.toml", (ROOT / "analysis" / "tables" / "asic-45nm.toml").read_bytes())


@cache
def _result() -> Any:
    return weft.simulate(weft.schedule(small_step(), "tiny"))


def read_table(path: Path) -> None:
    energy(_result(), load_table(path))


def request_seeds(folder: Path) -> Iterator[Path]:
    lines = [f"{64 * i:#x},{'RW'[i % 3 == 0]},{7 * i}" for i in range(40)]
    yield written(folder / "trace.csv", "\n".join(["address,op,time", *lines]).encode())
    yield written(folder / "short.csv", b"# comment\n0,R\n64,w\n128,R\n")
    yield written(folder / "ramulator.csv", b"LD 0x229f6f80\nST 0xda5e700\n")
    yield written(folder / "dramsim3.csv", b"0x12345680 READ 0\n0x4cbd56c0 WRITE 3\n")


def read_requests(path: Path) -> None:
    memory = load_memory("ddr4-2400-x8")
    run_memory(memory, read_trace(path, memory).requests)


RULES = """
[[op]]
layers = "*"
interleave = [1, 2, 4]
order = "mn"

[[op]]
layers = "3"
pass = "FF"
dataflow = "os"
tile_rows = "all"
tile_cols = 16
resident = true
"""


def rule_seeds(folder: Path) -> Iterator[Path]:
    yield written(folder / "rules.toml", RULES.encode())


def read_rules(path: Path) -> None:
    weft.simulate(weft.schedule(small_step(), "tiny", mapping=path))


# --- models


def onnx_seeds(folder: Path) -> Iterator[Path]:
    nodes = {
        "conv": [
            helper.make_node("Conv", ["x", "w"], ["c"], "c", pads=[1, 1, 1, 1], strides=[1, 1], group=1),
            helper.make_node("Relu", ["c"], ["r"], "r"),
            helper.make_node("GlobalAveragePool", ["r"], ["p"], "p"),
            helper.make_node("Flatten", ["p"], ["f"], "f"),
            helper.make_node("Gemm", ["f", "g", "b"], ["y"], "g", transB=1),
        ],
        "rnn": [
            helper.make_node("LSTM", ["t", "lw", "lr"], ["o", "h"], "l", hidden_size=4),
            helper.make_node("Reshape", ["h", "s"], ["q"], "q"),
            helper.make_node("MatMul", ["q", "v"], ["m"], "m"),
            helper.make_node("Einsum", ["m", "u"], ["y"], "e", equation="ij,jk->ik"),
        ],
    }
    nodes["stored"] = [
        helper.make_node("Constant", [], ["k"], "k", value=numpy_helper.from_array(np.zeros((4, 3, 1, 1), np.float32))),
        helper.make_node("Conv", ["x", "k", "n"], ["c"], "c"),
        helper.make_node("DepthToSpace", ["c"], ["d"], "d", blocksize=2),
        helper.make_node("Constant", [], ["a"], "a", value_floats=[1.0, 1.0, 2.0, 2.0]),
        helper.make_node("Resize", ["d", "", "a"], ["r"], "r"),
        helper.make_node("Constant", [], ["i"], "i", value_ints=[2, 1, 32, 32]),
        helper.make_node("Reshape", ["r", "i"], ["q"], "q"),
        helper.make_node("Constant", [], ["z"], "z", value_ints=[32, 5]),
        helper.make_node("ConstantOfShape", ["z"], ["o"], "o"),
        helper.make_node("MatMul", ["q", "o"], ["y"], "m"),
    ]
    weights = {
        "w": (4, 3, 3, 3),
        "g": (5, 4),
        "b": (5,),
        "lw": (1, 16, 6),
        "lr": (1, 16, 4),
        "v": (4, 3),
        "u": (3, 2),
        "n": (4,),
    }
    inputs = {"x": (2, 3, 8, 8), "t": (3, 2, 6)}
    for name, used in nodes.items():
        read = {name for node in used for name in node.input}
        stored = [numpy_helper.from_array(np.zeros(size, np.float32), n) for n, size in weights.items() if n in read]
        stored += [numpy_helper.from_array(np.array([2, 4]), "s")] * ("s" in read)
        graph = helper.make_graph(
            used,
            "g",
            [helper.make_tensor_value_info(n, TensorProto.FLOAT, size) for n, size in inputs.items() if n in read],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
            stored,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])
        yield written(folder / f"{name}.onnx", model.SerializeToString())


def written_out_seeds(folder: Path) -> Iterator[Path]:
    """Files that are rewritten before anything else: definitions of ONNX's own, integer operators."""
    node = helper.make_node
    nodes = {
        "attention": [
            node("MatMul", ["t", "w"], ["q"], "p"),
            node("RotaryEmbedding", ["q", "cos", "sin", "at"], ["r"], "rope", num_heads=4),
            node(
                "Attention",
                ["r", "r", "q", "mask"],
                ["y"],
                "a",
                q_num_heads=4,
                kv_num_heads=4,
                is_causal=1,
                softcap=2.0,
            ),
        ],
        "integers": [
            node("DynamicQuantizeLinear", ["t"], ["d", "ds", "dz"], "d"),
            node("MatMulInteger", ["d", "i", "dz"], ["m"], "m"),
            node("Cast", ["m"], ["f"], "f", to=1),
            node("Mul", ["f", "ds"], ["g"], "g"),
            node("QuantizeLinear", ["g", "s", "z"], ["h"], "h"),
            node("QLinearMatMul", ["h", "s", "z", "i", "s", "zi", "s", "z"], ["n"], "n"),
            node("DequantizeLinear", ["n", "s", "z"], ["y"], "y"),
        ],
    }
    arrays: dict[str, Any] = {
        "w": np.zeros((8, 8), np.float32),
        "cos": np.zeros((9, 1), np.float32),
        "sin": np.zeros((9, 1), np.float32),
        "at": np.zeros((2, 3), np.int64),
        "mask": np.ones((3, 3), bool),
        "i": np.zeros((8, 8), np.int8),
        "s": np.float32(1),
        "z": np.uint8(0),
        "zi": np.int8(0),
    }
    for name, used in nodes.items():
        read = {name for each in used for name in each.input}
        graph = helper.make_graph(
            used,
            "g",
            [helper.make_tensor_value_info("t", TensorProto.FLOAT, (2, 3, 8))],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
            [numpy_helper.from_array(np.asarray(value), key) for key, value in arrays.items() if key in read],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 24)])
        yield written(folder / f"{name}.onnx", model.SerializeToString())


def read_onnx(path: Path) -> None:
    open_model(str(path))


HF = {
    "llama": {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 1,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": 50,
        "max_position_embeddings": 16,
        "rms_norm_eps": 1e-6,
        "torch_dtype": "bfloat16",
    },
    "vit": {
        "model_type": "vit",
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_channels": 1,
        "intermediate_size": 32,
        "image_size": 16,
        "patch_size": 8,
        "hidden_act": "gelu",
        "qkv_bias": True,
    },
}


def hf_seeds(folder: Path) -> Iterator[Path]:
    for name, config in HF.items():
        yield written(folder / f"{name}.json", json.dumps(config).encode())


def read_hf(path: Path) -> None:
    open_model(str(path), batch=1)


# --- folders


def result_seeds(folder: Path) -> Iterator[Path]:
    save_run(_result(), folder / "run", "weft run")
    yield folder / "run"


def worsen_result(random: Random, folder: Path) -> None:
    name = random.choice(("result.json", "result.json", "workload.json", "machine.toml"))
    path = folder / name
    path.write_bytes((of_json if name.endswith("json") else of_text)(random, path.read_bytes()))
    if random.random() < 0.05:
        path.unlink()
    if random.random() < 0.9:
        # It tells every change by its digest; folders of older versions have none.
        (folder / MANIFEST).unlink()


def read_result(folder: Path) -> None:
    saved_run(folder).simulated()


@cache
def _checkpoint() -> dict[str, Any]:
    spec = training.plan("mlp", scheme="srste", pattern=NMPattern(keep=2, group=8), epochs=1)
    run = Run(spec, open_data(spec.data), None, torch.device("cpu"))
    run.advance()
    return copy.deepcopy(run.state())


def checkpoint_seeds(folder: Path) -> Iterator[Path]:
    save_checkpoint(folder / training.CHECKPOINT, _checkpoint())
    yield folder / training.CHECKPOINT


FEW = TextData(name="few", train=torch.arange(500) % LETTERS, test=torch.arange(200) % LETTERS, fingerprint="few")
SHORT = TextSpec(blocks=1, width=4, steps=2)


def text_checkpoint_seeds(folder: Path) -> Iterator[Path]:
    TextRun(SHORT, FEW, folder).until(1)
    yield folder / training.CHECKPOINT


def read_text_checkpoint(path: Path) -> None:
    TextRun(SHORT, FEW, path.parent)


def worsen_checkpoint(random: Random, path: Path) -> None:
    if random.random() < 0.3:
        path.write_bytes(of_bytes(random, path.read_bytes()))
        return
    edges = (*EDGES, torch.zeros(3), torch.zeros(()), torch.full((16,), float("nan")), torch.arange(3))
    state = load_checkpoint(path, VERSION, 1)
    if random.random() < 0.2:
        state["spec"] = of_json(random, state["spec"].encode()).decode(errors="replace")
    else:
        state = of_tree(random, state, edges)
    # Whoever makes a checkpoint can sign it too.
    torch.save({**state, "digest": digest(state)}, path)


def read_checkpoint(path: Path) -> None:
    training.resume(path.parent)


def picture_seeds(folder: Path) -> Iterator[Path]:
    shades = np.arange(40 * 50 * 3, dtype=np.uint8).reshape(40, 50, 3)
    for name in ("a.png", "b.jpg"):
        Image.fromarray(shades).save(folder / name)
        yield folder / name


def read_picture(path: Path) -> None:
    decode(path, 8)


# --- scores


@cache
def scored_step() -> Workload:
    return weft.trace(torch.nn.Sequential(torch.nn.Linear(16, 16), torch.nn.Linear(16, 8)), torch.zeros(2, 16))


def score_seeds(folder: Path) -> Iterator[Path]:
    by = {"1:8": 0.5, "2:8": 0.25, "int4": 0.125, "int8": 0.0}
    layers = tuple(LayerScores(layer=name, weights=128, scores={"fisher": by, "loss": by}) for name in ("0", "1"))
    path = folder / "scores.json"
    Scores(model="m", data="d", digest="", images=1, probes=1, seed=0, layers=layers).save(path)
    yield path


def mask_seeds(folder: Path) -> Iterator[Path]:
    path = folder / "masks.npz"
    about: dict[str, Any] = {"shape": (1, 8, 8), "classes": 10, "widen": 1.0, "said": "zero", "score": 0.5}
    about |= {"model": "mlp", "data": "digits", "scheme": "erk", "pattern": None, "weights": "", "examples": ""}
    masks = np.random.default_rng(0).random((2, 7, 19)) < 0.5
    Recorded.made([("1", "weight", masks[0]), ("3", "input", masks[1])], **about).save(path)
    yield path


def read_scores(path: Path) -> None:
    for budget in ("0.3", "0.4macs", "4bits"):
        patterns_of(f"fisher@{budget}:{path}", scored_step())


def program_seeds(folder: Path) -> Iterator[Path]:
    for name, of in (("loops", assemble(LOOPS)), ("end", assemble(LOOPS.partition("loop")[0] + "end"))):
        of.write(folder / f"{name}.weft")
        yield folder / f"{name}.weft"


LOOPS = f"""machine {TINY.hash}
set load form OPERAND
set load words 8
set load address 0
set load inner2 8
set load inner2_step 1
loop 2
  add load half 1
  set load space W2E
  go load notify 1
  set load space N2S
  add load address 16
  go load wait 1 notify 2
next
end
"""


def worsen_program(random: Random, path: Path) -> None:
    """Mostly with a checksum that fits, which lets the words through."""
    raw = path.read_bytes()
    head, words = raw[: HEADER.size - 4], of_bytes(random, raw[HEADER.size :])
    if random.random() < 0.9:
        words = words[: len(words) // 8 * 8]
        head = head[:16] + (len(words) // 8).to_bytes(4, "little")
    path.write_bytes(head + zlib.crc32(words, zlib.crc32(head)).to_bytes(4, "little") + words)


def read_made_program(path: Path) -> object:
    program = read_program(path)
    assert assemble(disassemble(program)) == program
    return check(program, TINY, 4096)


def text_seeds(folder: Path) -> Iterator[Path]:
    yield written(folder / "program.txt", LOOPS.encode())


def read_program_text(path: Path) -> object:
    return Program.from_bytes(assemble(read_text(path), str(path)).to_bytes(), str(path))


DOORS = (
    Door("workload", workload_seeds, bytes_of(of_json), read_workload, 4000, text=True),
    Door("machine", machine_seeds, bytes_of(of_text), read_machine, 2500, text=True),
    Door("memory", memory_seeds, bytes_of(of_text), read_memory, 2500, text=True),
    Door("energy table", table_seeds, bytes_of(of_text), read_table, 1000, text=True),
    Door("requests", request_seeds, bytes_of(of_text), read_requests, 1500, text=True),
    Door("mapping rules", rule_seeds, bytes_of(of_text), read_rules, 1000, text=True),
    Door("scores", score_seeds, bytes_of(of_json), read_scores, 1500, text=True),
    Door("masks", mask_seeds, bytes_of(of_bytes), Recorded.read, 1500),
    Door("foldings", folding_seeds, bytes_of(of_json), read_folding, 1500, text=True),
    Door("onnx", onnx_seeds, bytes_of(of_onnx), read_onnx, 4000),
    Door("onnx, written out", written_out_seeds, bytes_of(of_onnx), read_onnx, 2000),
    Door("hugging face", hf_seeds, bytes_of(of_json), read_hf, 300, text=True),
    Door("results", result_seeds, worsen_result, read_result, 600),
    Door("checkpoint", checkpoint_seeds, worsen_checkpoint, read_checkpoint, 400),
    Door("checkpoint of a text", text_checkpoint_seeds, worsen_checkpoint, read_text_checkpoint, 200),
    Door("program", program_seeds, worsen_program, read_made_program, 600),
    Door("program text", text_seeds, bytes_of(of_text), read_program_text, 600, text=True),
    Door("picture", picture_seeds, bytes_of(of_bytes), read_picture, 3000),
)
