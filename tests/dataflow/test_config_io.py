"""Machines from TOML: the presets load, and every typo is answered with the place, the rule and the nearest name."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weft.dataflow.accelerator import AcceleratorSpec
from weft.dataflow.config_io import dumps_spec, load_spec, parse_spec, preset_names, preset_text, spec_hash
from weft.workloads.errors import InputError
from weft.workloads.strict import dump_json

from ..strategies import specs


def test_presets_load_under_their_own_name():
    assert set(preset_names()) >= {"sat-vcu1525", "sat-ecp5", "dense-32", "tiny"}
    for name in preset_names():
        assert load_spec(name).name == name


def test_files_that_a_machine_names_lie_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    text = preset_text("tiny").replace('kind = "ddr4-2400-x8"', 'kind = "memory.toml"')
    text = text.replace('technology = "asic-16nm"', 'technology = "../table.toml"')
    (tmp_path / "machines").mkdir()
    (tmp_path / "machines" / "mine.toml").write_text(text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)

    mine = load_spec("machines/mine.toml")

    assert mine.dram.kind == str((tmp_path / "machines" / "memory.toml").resolve())
    assert mine.technology == str((tmp_path / "table.toml").resolve())
    # Written elsewhere, as a folder of results is, it still names them.
    (tmp_path / "again.toml").write_text(dumps_spec(mine), encoding="utf-8")
    assert load_spec("again.toml") == mine


def test_hash_follows_every_choice():
    text = preset_text("tiny")
    base = spec_hash(parse_spec(text, "tiny"))

    assert spec_hash(parse_spec(text, "copy")) == base
    assert spec_hash(parse_spec(text.replace("add_latency = 4", "add_latency = 5"), "other")) != base


def test_hash_does_not_tell_the_capacity_of_dram():
    text = preset_text("tiny")

    assert spec_hash(parse_spec(text + "\ncapacity_bytes = 1000\n", "f.toml")) == spec_hash(load_spec("tiny"))


def test_hash_tells_bf16_but_not_whether_fp16_was_written():
    text = preset_text("tiny")
    silent, half, bfloat = (
        spec_hash(parse_spec(text.replace("add_latency = 4", f"add_latency = 4{line}"), "f.toml"))
        for line in ("", '\nformat = "fp16"', '\nformat = "bf16"')
    )

    assert silent == half != bfloat
    choices = json.loads(dump_json(AcceleratorSpec, load_spec("tiny")))
    del choices["pe"]["format"], choices["array"]["read_latency"], choices["dram"]["capacity_bytes"]
    bare = json.dumps(choices, separators=(",", ":"), ensure_ascii=False).encode()
    assert silent == hashlib.sha256(bare).hexdigest()[:12]


def test_hash_tells_slow_banks_but_not_whether_the_usual_ones_were_written():
    text = preset_text("tiny")
    silent, one, two = (
        spec_hash(parse_spec(text.replace("w2e_words = 1", f"w2e_words = 1{line}"), "f.toml"))
        for line in ("", "\nread_latency = 1", "\nread_latency = 2")
    )

    assert silent == one != two


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "rows = 4",
            "rows = 0",
            "f.toml: array.rows must be an integer from 1 to 1024, not 0; the nearest valid value is 1",
        ),
        ("rows = 4", "rwos = 4", "f.toml: unknown key 'array.rwos'; did you mean 'rows'"),
        ("rows = 4", 'rows = "4"', "f.toml: array.rows: Input should be a valid integer; found '4'"),
        ("rows = 4", "rows = true", "f.toml: array.rows: Input should be a valid integer; found True"),
        ("rows = 4", "rows = 4.5", "f.toml: array.rows: Input should be a valid integer"),
        ("rows = 4", "", "f.toml: key 'array.rows' is missing"),
        ("rows = 4", "rows = -3", "not -3"),
        ("rows = 4", "rows = 99999999999999999999", "not 99999999999999999999"),
        ("[array]", "[aray]", "unknown key 'aray'; did you mean 'array'"),
        # Tables that may be left out.
        ("[sore]", "[gather]\nlane = 4\n[sore]", "unknown key 'gather.lane'; did you mean 'lanes'"),
        ("[sore]", "[xnor]\nword_bit = 4\n[sore]", "unknown key 'xnor.word_bit'; did you mean 'word_bits'"),
        ("[sore]", "[tree]\nlane = 4\n[sore]", "unknown key 'tree.lane'; did you mean 'lanes'"),
        ('kind = "serial"', 'kind = "bitonic"', "sore.kind: Input should be 'serial' or 'network'; found 'bitonic'"),
        ("[array]", "[array", "f.toml: is not valid TOML"),
        ("max_group = 8", "max_group = 64", "pe.max_group must be an integer from 1 to 32"),
        ("dense_words = 16", "dense_words = 4", "pe.dense_words must be an integer from 8"),
        (
            "add_latency = 4",
            'add_latency = 4\nformat = "fp4"',
            "f.toml: pe.format: Input should be 'fp16', 'bf16', 'fp8' or 'int8'; found 'fp4'",
        ),
        ("clock_hz = 100_000_000", "clock_hz = 2026-01-01", "clock_hz: Input should be a valid integer"),
    ],
)
def test_bad_toml_is_refused_with_the_rule(old, new, message):
    with pytest.raises(InputError) as caught:
        parse_spec(preset_text("tiny").replace(old, new, 1), "f.toml")

    assert message in str(caught.value)


def test_unknown_preset_names_the_nearest():
    with pytest.raises(InputError, match=r"machine 'tyni' is neither a preset nor a \.toml file: did you mean 'tiny'"):
        load_spec("tyni")


def test_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"nowhere\.toml: cannot be read: No such file"):
        load_spec(tmp_path / "nowhere.toml")


def test_binary_file_is_refused(tmp_path):
    path = tmp_path / "binary.toml"
    path.write_bytes(b"\xff\xfe\x00")

    with pytest.raises(InputError, match="is not UTF-16 text"):
        load_spec(path)


@given(specs(), st.text(st.characters(exclude_categories=["Cs"])), st.none() | st.integers(1, 2**60))
def test_a_machine_that_is_written_reads_back(spec: AcceleratorSpec, text: str, capacity: int | None):
    spec = replace(spec, name=text, description=text, dram=replace(spec.dram, capacity_bytes=capacity))

    assert parse_spec(dumps_spec(spec), "written.toml") == spec
