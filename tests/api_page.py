"""docs/api.md, made of signatures and docstrings: `python -m weft.tests.api_page` writes it, `test_docs.py` compares.

Every name of ours that README, docs or examples use must be in `GROUPS`.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import os
import re
import textwrap
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "api.md"
READ = sorted({ROOT / "README.md", *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/*.py")} - {PAGE})

GROUPS = {
    "Trace a model": {
        "weft": "trace count_as_vector_work",
        "weft.workloads.onnx": "onnx_workload",
        "weft.workloads.trace": "trace_use",
        "weft.workloads.models.module": "module_source",
        "weft.workloads.step": "Workload MatrixOp VectorOp UpdateOp Op",
        "weft.workloads.operand": "Operand SparseOperand NMOperand Gathered Role DTYPE_BYTES",
        "weft.workloads.unstructured": "Unstructured Counted Drawn Histogram Cell counted_mask counted_runs",
        "weft.workloads.attended": "attended",
        "weft.workloads.blocks": "Blocks Causal Window BestBlocks VerticalSlash TopKeys SparkKeys Routed Tile",
        "weft.workloads.gemm": "Gemm Pass",
    },
    "Fuse its vector work": {
        "weft": "fuse",
        "weft.dataflow.fusion.fuse": "FUSIONS groups_of",
        "weft.dataflow.fusion.groups": "Group Groups",
        "weft.workloads.tensors": "StepTensor",
        "weft.workloads.joined": "Joined",
        "weft.analysis.fused": "savings Saving",
        "weft.dataflow.residency": "Residency",
        "weft.dataflow.kept": "Kept Use",
        "weft.simulator.memory": "memory_need MemoryNeed",
    },
    "Make it sparse": {
        "weft": "sparsify skip_rows record",
        "weft.workloads.groups": "Groups GroupShape grouped_mask",
        "weft.workloads.grouped": "grouped",
        "weft.workloads.resized": "resized",
        "weft.workloads.training.recording": "record recorded_step",
        "weft.workloads.sparsity": "NMPattern",
        "weft.workloads.recorded": "Recorded",
        "weft.workloads.rows": "Alike Rows alike_of",
        "weft.workloads.mark": "Mark",
        "weft.workloads.row_forms": "FORMS AskedRows Form",
        "weft.workloads.skip_rows": "skip_rows",
        "weft.workloads.schemes.scheme": "scheme",
    },
    "Make its shapes smaller": {
        "weft": "shrink narrow",
        "weft.workloads.shrinking": "Shrunk SlicedText Layer Asked pruned_channels factored FactorPair fewer_tokens "
        "sliced_opt",
        "weft.workloads.shrinking.form": "FORMS",
        "weft.workloads.models.vision": "vit_s",
        "weft.workloads.models.classifier": "scores",
        "weft.workloads.models.long_convolution": "LongConvolution",
    },
    "Choose by layer": {
        "weft.workloads.training.scored": "score",
        "weft.workloads.schemes.scores": "Scores LayerScores candidate",
        "weft.workloads.schemes.sensitivity": "sensitivities brought_to changed",
        "weft.workloads.schemes.distilled": "distilled distilling_loss",
        "weft.workloads.schemes.policies": "patterns_of Policy LayerChoice rules_of",
        "weft.workloads.schemes.allocation": "allocate cheapest Allocation",
        "weft.analysis.layer_costs": "layer_costs LayerCosts",
        "weft.workloads.training.bits": "search_bits SearchedBits",
    },
    "Describe a machine": {
        "weft": "machine",
        "weft.dataflow.accelerator": "AcceleratorSpec BufferSpec SoreSpec WuveSpec VectorSpec DramSpec",
        "weft.dataflow.operand": "OperandFormat NumberFormat FormatName FP16 BF16 FP8 INT8 FP32 OPERAND_FORMATS",
        "weft.dataflow.stce.spec": "ArraySpec PESpec",
        "weft.dataflow.ranges": "field_rules",
    },
    "Schedule it": {
        "weft": "schedule",
        "weft.dataflow.schedule": "Schedule",
        "weft.dataflow.objective": "Objective",
        "weft.dataflow.placement": "Placement",
        "weft.dataflow.mapping": "Mapping",
        "weft.dataflow.stce.mapping": "ArrayMapping Dataflow DENSE",
        "weft.dataflow.constraint": "parse_mapping Constraint",
        "weft.dataflow.engines": "place evaluate engines_of",
        "weft.dataflow.stce.time": "array_cycles",
        "weft.dataflow.xnor.mapping": "XnorMapping",
        "weft.dataflow.xnor.time": "xnor_cycles skipped_cycles",
        "weft.dataflow.xnor.skipped": "executed Executed",
        "weft.dataflow.xnor.words": "beats_of Beat",
        "weft.dataflow.gather.spec": "GatherSpec",
        "weft.dataflow.gather.mapping": "GatherMapping",
        "weft.dataflow.gather.engine": "Gather",
        "weft.dataflow.gather.time": "slots_of_lines slots_of Slots gather_cycles",
    },
    "Fold it into engines": {
        "weft.dataflow.streaming": "streaming_layers StreamingLayer Bits Folding Cost Fabric Pipeline at_rate cheapest "
        "fastest read_foldings UnreachableError"
    },
    "Program the accelerator": {
        "weft.dataflow.program.spaces": "Target Space Form",
        "weft.workloads.update_rule": "SGD",
        "weft.dataflow.program.isa": "Unit Register REGISTERS",
        "weft.dataflow.program.instruction": "Instruction End Set Add Go Loop Next encode decode",
        "weft.dataflow.program.program": "Program read_program",
        "weft.dataflow.program.assembly": "assemble disassemble",
        "weft.dataflow.program.checker": "check Rule RuleError",
        "weft.dataflow.program.commands": "Command ProgramError commands execution",
        "weft.dataflow.program.transfers": "line_addresses line_places indices_of Lines lines_of",
        "weft.simulator.machine.sequencer": "run_commands timeline Timeline Ran",
    },
    "Run it on a board": {
        "weft.dataflow.program.compiler": "compile_step CompiledStep",
        "weft.dataflow.program.layout": "Region",
        "weft.workloads.training.prepared": "prepared Prepared Batch",
        "weft.simulator.machine.host": "Host",
        "weft.simulator.machine.binary_host": "BinaryHost compile_folded",
        "weft.dataflow.program.binary_network": "BinaryProgram",
        "weft.simulator.update_settings": "Sgd",
        "weft.hdl.boards.core": "Core CoreShape",
        "weft.hdl.registry": "BLOCKS",
        "weft.hdl.host": "Machine MachineRun Tty Link LinkUse LinkError BusError Line SimulatedLine PseudoTerminal",
    },
    "Simulate it": {
        "weft": "simulate",
        "weft.simulator.result": "SimResult OpResult",
        "weft.dataflow.account": "Cycles Counts",
        "weft.simulator.system": "simulate_system step_time",
        "weft.simulator.system_result": "SystemResult EngineUse",
        "weft.simulator.transfers": "Transfers by_shape",
        "weft.simulator.array": "run_array ArrayRun",
        "weft.simulator.xnor": "run_xnor XnorRun pack occupied_words",
        "weft.simulator.xnor_edge": "fold signs scaled Threshold",
        "weft.dataflow.xnor.neuron": "Neurons",
        "weft.simulator.xnor_neuron": "run_spiking SpikingRun fire neurons_of",
        "weft.simulator.gather": "run_gather step_mask GatherRun",
        "weft.simulator.compact": "compress Compact",
        "weft.simulator.reference": "gemm_reference",
    },
    "Execute a step": {
        "weft.workloads.graph": "Graph GraphTensor Node Kept Port PortKind Stored annotated OPERATORS",
        "weft.workloads.tracing.graph": "step_graph forward_graph",
        "weft.simulator.machine.step": "Execution",
        "weft.simulator.machine.numerics": "machine_numerics",
    },
    "Deploy a binary network": {
        "weft": "classify",
        "weft.workloads.training": "trained deploy Deployed Evaluated",
        "weft.workloads.integer_network": "IntegerNetwork IntegerLayer Norm Forward Made",
        "weft.simulator.network": "run_network NetworkRun LayerRun threshold_of",
        "weft.analysis.verify.network": "Classification LayerCycles Agreement",
    },
    "Order binary channels": {
        "weft.workloads.spanning_tree": "spanning_tree SpanningTree",
        "weft.dataflow.spanning_tree": "tree_cost TreeEngine TreeCost",
        "weft.simulator.spanning_tree": "run_tree TreeRun",
        "weft.analysis.trees": "tree_account read_tree_account TreeAccount LayerTree",
    },
    "Report": {
        "weft": "compare need explore",
        "weft.analysis.explore.space": "Space Span Constraints Search read_space",
        "weft.analysis.explore.plan": "plan_of Plan",
        "weft.analysis.explore.chunk": "evaluate_points",
        "weft.analysis.explore.search": "Asker",
        "weft.analysis.explore.environment": "Environment",
        "weft.analysis.explore.saved": "read_explored Explored",
        "weft.analysis.explore.front": "front_of pareto hypervolume knee",
        "weft.analysis.explore.importance": "importance Importance",
        "weft.analysis.explore.advice": "advise Advice",
        "weft.analysis.explore.infeasible": "infeasible Infeasible",
        "weft.analysis.need": "Need Line",
        "weft.analysis.grown": "Point",
        "weft.analysis.resources": "Resource",
        "weft.analysis.energy": "energy EnergyReport",
        "weft.analysis.bands": "Joules",
        "weft.analysis.level": "seconds_of",
        "weft.analysis.scheduling": "scheduled",
        "weft.analysis.energy_table": "load_table",
        "weft.analysis.area": "machine_area Area",
        "weft.analysis.synthesised": "counted_block",
        "weft.analysis.area_by_shape": "area_of_shape areas Areas",
        "weft.analysis.clocks": "closes Closes",
        "weft.analysis.tariff": "tariff",
        "weft.analysis.savings": "saving saving_words Saving",
        "weft.analysis.compare": "Comparison loss_ledger LossLedger",
        "weft.analysis.theme": "theme_of",
        "weft.cli": "main",
    },
    "Train": {
        "weft": "train",
        "weft.workloads.training": "train resume TrainResult step_workload new_model plan accuracy_of accuracies "
        "binary_layers BinaryLayer",
        "weft.workloads.models.zoo": "subnetworks source",
        "weft.workloads.schemes": "attach",
        "weft.workloads.data": "open_data normalised order",
        "weft.workloads.im2col": "Window unfold",
        "weft.workloads.spiking": "LIF",
        "weft.workloads.hashed_attention": "HashedAttention KernelHashing",
        "weft.workloads.data.text": "open_text",
        "weft.workloads.training.characters": "trained_characters bits",
        "weft.workloads.training.tails": "activation Activation",
        "weft.workloads.checkpoint": "load_checkpoint save_checkpoint",
        "weft.workloads.training.text_run": "TextRun",
        "weft.workloads.training.text_spec": "TextSpec STEPS",
        "weft.workloads.training.attending": "bits_attending seen",
        "weft.workloads.training.continual": "continual Continual Task",
    },
    "Extend and verify": {
        "weft": "register_scheme register_engine",
        "weft.workloads.schemes.technique": "Technique",
        "weft.workloads.schemes.scheme": "Scheme",
        "weft.workloads.schemes.layer": "SparseLayer",
        "weft.workloads.schemes.masks": "largest",
        "weft.workloads.schemes.estimator": "Estimator Few sign",
        "weft.workloads.schemes.vector_work": "VectorWork ScaleOf",
        "weft.workloads.schemes.estimated": "Estimated EstimatedOptions",
        "weft.workloads.levels": "Levels",
        "weft.workloads.own_levels": "of_levels",
        "weft.dataflow.engine": "Engine",
        "weft.dataflow.outside": "OutsideMapping",
        "weft.dataflow.macro_tiles": "Tiled Axis Issue Demand Tile FITS op_cost",
        "weft.dataflow.prices": "Pricing unpriced",
        "weft.dataflow.integers": "ceil_div",
        "weft.dataflow.problem": "problem_of memory_machine bound_cycles",
        "weft.dataflow.actions": "Action Each counted cause Component",
        "weft.testing": "check_scheme",
        "weft.verify": "verify verify_step",
    },
    "Errors": {"weft": "InputError"},
}

HEAD = """# Every name that users import

By task, each with the module that it is imported from; what is not here is the inside of the house. Whatever is wrong
with an argument is a `weft.InputError` that says where, the value, the rule and the nearest valid choice. Where nothing
else is said, sizes are elements, times clock cycles and traffic bytes, all integers. [walk.md](walk.md) goes through
them in the order in which they are called.

`python -m weft.tests.api_page` makes this page of signatures and docstrings, and a test compares."""


def names_of(groups: dict[str, str]) -> list[str]:
    return [f"{module}.{name}" for module, names in groups.items() for name in names.split()]


def found(name: str) -> Any:
    """The object of a dotted name; None where there is none."""
    module, _, last = name.rpartition(".")
    try:
        return getattr(importlib.import_module(module), last, None)
    except ImportError:
        return None


def key(name: str) -> tuple[str, ...]:
    """The same for two names of one class or function."""
    thing = found(name)
    return (thing.__module__, thing.__qualname__) if hasattr(thing, "__qualname__") else (name,)


@cache
def used(page: Path) -> dict[tuple[str, ...], str]:
    """Our names in a page or script by `key`, modules aside."""
    imports = r"from (weft[\w.]*) import (\([^)]*\)|[^\n]*)"
    text = page.read_text()
    names = {f"{module}.{name}" for module, listed in re.findall(imports, text) for name in re.findall(r"\w+", listed)}
    names |= set(re.findall(r"\bweft(?:\.\w+)+", re.sub(imports, "", text)))
    return {key(n): n for n in names if found(n) is not None and not isinstance(found(n), ModuleType)}


def not_on_the_page() -> set[str]:
    listed = {key(name) for groups in GROUPS.values() for name in names_of(groups)}
    return {name for page in READ for of, name in used(page).items() if of not in listed}


def definition(name: str) -> tuple[ast.stmt | str, str]:
    """What makes a name, a constant as its source; and its docstring as Markdown."""
    module, _, last = name.rpartition(".")
    thing = found(name)
    if inspect.isroutine(thing) or inspect.isclass(thing):
        node = ast.parse(textwrap.dedent(inspect.getsource(thing))).body[0]
        return node, prose(ast.get_docstring(node))  # type: ignore[arg-type]
    source = inspect.getsource(importlib.import_module(module))
    body = ast.parse(source).body
    at = next(i for i, n in enumerate(body) if isinstance(n, ast.Assign) and ast.unparse(n.targets[0]) == last)
    return ast.get_source_segment(source, body[at]) or "", said(body, at)


def prose(text: str | None) -> str:
    return re.sub(r":\w+:`\.?([^`]+)`", r"`\1`", (text or "").replace("``", "`")).strip()


def said(body: list[ast.stmt], at: int) -> str:
    """The string after an assignment."""
    after = body[at + 1] if at + 1 < len(body) else None
    return prose(after.value.value) if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant) else ""


def signature(function: ast.FunctionDef, wide: int = 110) -> str:
    spaced = re.sub(r"(: [^:=]+)=", r"\1 = ", ast.unparse(function.args)).replace("'", '"')
    own = re.sub(r"^(self|cls)(, |$)", "", spaced)
    returns = f" -> {ast.unparse(function.returns)}" if function.returns else ""
    line = f"{function.name}({own}){returns}"
    if len(line) <= wide:
        return line
    return f"{function.name}(\n    " + re.sub(r", (?=\*|\w+: )", ",\n    ", own) + f",\n){returns}"


def members(body: list[ast.stmt]) -> Iterator[str]:
    """A line a field, property or method that is public."""
    for at, n in enumerate(body):
        match n:
            case ast.AnnAssign() | ast.Assign() if not ast.unparse(n).startswith("_"):
                yield f"- `{ast.unparse(n)}` {said(body, at)}"
            case ast.FunctionDef() if not n.name.startswith("_"):
                is_field = any(ast.unparse(decorator).endswith("property") for decorator in n.decorator_list)
                line = signature(n, 10**6)
                line = line.replace("()", "") if is_field else line
                yield f"- `{line}` {' '.join(prose(ast.get_docstring(n)).split())}"


def section(name: str) -> Iterator[str]:
    node, text = definition(name)
    yield f"### `{name}`"
    match node:
        case ast.FunctionDef():
            yield f"```python\n{signature(node)}\n```\n{text}"
        case ast.ClassDef():
            kin = [kind for kind in found(name).__mro__ if kind.__module__.startswith("weft.")]
            bodies = [ast.parse(textwrap.dedent(inspect.getsource(kind))).body[0].body for kind in reversed(kin)]  # type: ignore[attr-defined]
            lines = [line.rstrip() for body in bodies for line in members(body)]
            by_name = {re.split(r"\W+", line)[1]: line for line in lines}  # of two of one name that of the class itself
            yield f"{text}\n\n" + "\n".join(by_name.values())
        case _:
            yield f"```\n{node}\n```\n{text}"
    pages = [f"[{page.name}]({os.path.relpath(page, PAGE.parent)})" for page in READ if key(name) in used(page)]
    if pages:
        yield f"In {', '.join(pages)}."


def index() -> Iterator[str]:
    """A line a group, each name a link to its section; of headings that differ in case the later have a number."""
    yield "| | |\n|---|---|"
    seen: Counter[str] = Counter()
    for title, groups in GROUPS.items():
        links = []
        for name in names_of(groups):
            anchor = name.lower().replace(".", "")
            links.append(f"[{name.rpartition('.')[2]}](#{anchor}{f'-{seen[anchor]}' * (seen[anchor] > 0)})")
            seen[anchor] += 1
        yield f"| {title} | {', '.join(links)} |"


def page() -> str:
    parts = [HEAD, "\n".join(index())]
    for title, groups in GROUPS.items():
        parts += [f"## {title}", *(part for name in names_of(groups) for part in section(name))]
    return "\n\n".join(part.strip() for part in parts) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page())
