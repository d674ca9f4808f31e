"""Every ONNX file that the package ``onnx`` ships or builds, traced or refused, and why.

Prints the tables of docs/results/onnx.md.
"""

from __future__ import annotations

import re
import tempfile
import warnings
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from weft.workloads.errors import InputError
from weft.workloads.gemm import Pass
from weft.workloads.onnx import onnx_workload
from weft.workloads.step import Workload

DATA = Path(onnx.__file__).parent / "backend" / "test" / "data"

TRACED = "traced"
READ = "read whole: nothing in it is trained, or nothing multiplied"

REASONS = {
    r"no parameter is trained|multiplies no matrices": READ,
    (
        r"\((Sequence|Optional|SplitTo|String|Regex|Tf|ConcatFrom)|of type string|(sequence|optional)_type"
    ): "sequences, optional values, text",
    r"cannot be inferred|depends on data|may end before|the graph has no input": "data decides a size, or which way",
    r"sizes of the file are symbolic|batch dimension .* is symbolic|is empty": "an axis of no element, or of no size",
    r"has no rule for a training step": "an operator without a rule",
    r"is of domain": "an operator of another domain",
    r"is of type (u?int[24]|float4|float8|complex)": "data in a format that no machine here holds",
    (
        r"linear_before_reset|peephole|is not a product of two operands|sums an index|has a batch of its own"
    ): "a form of a known operator without a rule",
}
"""What messages say, in the order they are tried, and what that is called."""

PUBLISHED = {"densenet121": 2.83, "resnet50": 4.09, "squeezenet": 0.35, "vgg19": 19.63}
"""GMACs at 224 x 224, second-hand: as torchvision lists them for the same models (SqueezeNet 1.1)."""


@dataclass
class Group:
    """Files that end alike."""

    names: list[str] = field(default_factory=list)
    operators: set[str] = field(default_factory=set)


def main() -> None:
    """Print all tables."""
    warnings.simplefilter("ignore")
    print(light_table())
    print()
    print(group_table("file of `simple`, `pytorch-converted`, `pytorch-operator`", shipped()))
    print()
    print(group_table("case of an operator", operator_cases()))


def outcome(path: Path) -> tuple[str, Workload | None, str]:
    """What becomes of a file: group, workload, operator that is refused. A reason without a name is an error."""
    try:
        return TRACED, onnx_workload(path), ""
    except InputError as error:
        said = str(error)
    reason = next((name for pattern, name in REASONS.items() if re.search(pattern, said)), None)
    if reason is None:
        raise AssertionError(f"no reason that is known: {said}")
    found = re.search(r"node '[^']*' \((\w+)\) (?:has no rule|is of domain)", said)
    return reason, None, found[1] if found else ""


def light_table() -> str:
    """The classifiers, whose weights are left out."""
    rows = ["| model | FF GMACs | published | BP GMACs | WU GMACs | parameters |", "|---|---|---|---|---|---|"]
    for path in sorted((DATA / "light").glob("*.onnx")):
        name = path.stem.removeprefix("light_")
        group, step, _ = outcome(path)
        assert step is not None, f"{name}: {group}"
        macs = " | ".join(f"{step.dense_macs[p] / 1e9:.3f}" for p in (Pass.BP, Pass.WU))
        known = f"{PUBLISHED[name]:g}" if name in PUBLISHED else "-"
        rows.append(f"| {name} | {step.dense_macs[Pass.FF] / 1e9:.3f} | {known} | {macs} | {step.parameters:,} |")
    return "\n".join(rows)


def shipped() -> dict[str, Group]:
    """The small files that are shipped."""
    kinds = ("simple", "pytorch-converted", "pytorch-operator")
    return grouped((path.parent.name, path) for kind in kinds for path in sorted(DATA.glob(f"{kind}/*/model.onnx")))


def operator_cases() -> dict[str, Group]:
    """The cases that ``onnx`` builds of every operator, with what they feed stored but for the first input."""
    with tempfile.TemporaryDirectory() as folder:
        return grouped((name, written(model, Path(folder))) for name, model in stored_cases().items())


def stored_cases() -> dict[str, Any]:
    """The models of those cases by name; weights and targets are stored, as an exporter leaves them."""
    from onnx.backend.test.case.node import collect_testcases

    return {case.name: _stored(case.model, case.data_sets) for case in collect_testcases(None)}


def _stored(model: Any, data_sets: Any) -> Any:
    fed = list(zip(model.graph.input, data_sets[0][0] if data_sets else (), strict=False))
    for value, data in fed[1:]:
        if isinstance(data, onnx.TensorProto):
            model.graph.initializer.add().CopyFrom(data)
            model.graph.initializer[-1].name = value.name
        elif isinstance(data, np.ndarray | np.generic) and np.asarray(data).dtype != object:
            model.graph.initializer.append(numpy_helper.from_array(np.asarray(data), value.name))
        else:
            continue
        model.graph.input.remove(value)
    return model


def written(model: Any, folder: Path) -> Path:
    """A file of ``model``."""
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def grouped(files: Iterable[tuple[str, Path]]) -> dict[str, Group]:
    """Files by what becomes of them."""
    groups: dict[str, Group] = defaultdict(Group)
    for name, path in files:
        group, _, operator = outcome(path)
        groups[group].names.append(name)
        groups[group].operators |= {operator} - {""}
    return groups


def group_table(what: str, groups: Mapping[str, Group]) -> str:
    """A row a group, the refused ones by their number."""
    first = [name for name in (TRACED, READ) if name in groups]
    rest = sorted(groups.keys() - set(first), key=lambda name: (-len(groups[name].names), name))
    rows = [f"| {what} | number | operators, or an example |", "|---|---|---|"]
    for name in (*first, *rest):
        found = groups[name]
        shown = ", ".join(f"`{each}`" for each in sorted(found.operators)) or f"`{found.names[0]}`"
        rows.append(f"| {name} | {len(found.names):,} | {shown} |")
    return "\n".join(rows)


if __name__ == "__main__":
    main()
