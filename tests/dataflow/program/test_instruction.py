"""Every 64-bit word is one instruction or illegal; text and file come back as they went."""

from __future__ import annotations

import zlib

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from weft.dataflow.program.assembly import assemble, disassemble
from weft.dataflow.program.instruction import Add, End, Go, Loop, Next, Set, decode, encode
from weft.dataflow.program.isa import REGISTERS, Unit, register
from weft.dataflow.program.program import HEADER, Program, read_program
from weft.workloads.errors import InputError

from .programs import instructions

MACHINE = "0123456789ab"


@given(instructions())
def test_an_instruction_comes_back_from_its_word(instruction):
    assert decode(encode(instruction)) == instruction


fields = st.builds(
    lambda opcode, unit, number, low: opcode << 56 | unit << 48 | number << 32 | low,
    st.integers(0, 6),
    st.integers(0, 6),
    st.one_of(st.just(0), st.integers(0, 30)),
    st.one_of(st.integers(0, 3), st.integers(0, 2**32 - 1)),
)


def legal(word: int) -> bool:
    """Said once more, by the table of docs/design/accelerator.md."""
    opcode, unit, number, low = word >> 56, word >> 48 & 255, word >> 32 & 65535, word & 0xFFFFFFFF
    registers = [r for r in REGISTERS.get(unit, ()) if r.number == number]
    return (
        (opcode in (0, 5) and word & (1 << 56) - 1 == 0)
        or (opcode == 1 and bool(registers) and (registers[0].signed or low < 1 << registers[0].bits))
        or (opcode == 2 and bool(registers))
        or (opcode == 3 and unit < 5 and number == 0)
        or (opcode == 4 and unit == number == 0 and low > 0)
    )


@given(st.one_of(fields, st.integers(0, 2**64 - 1)))
@example(0)
@example(1)
@example(4 << 56)
@example(4 << 56 | 1 << 32 | 1)
@example(3 << 56 | 1 << 32)
@example(5 << 56 | 1)
@example(1 << 56 | 5 << 48)
@example(1 << 56 | 1 << 32 | 2)
@example(2 << 56 | 4 << 48 | 7 << 32)
def test_a_word_is_one_instruction_or_illegal(word):
    if legal(word):
        assert encode(decode(word)) == word
    else:
        with pytest.raises(InputError, match=f"^{word:#018x} is no instruction"):
            decode(word)


def test_words_by_hand():
    """What whoever builds the hardware may take as examples."""
    step = register(Unit.LOAD, "step0").number
    assert encode(End()) == 0
    assert encode(Set(Unit.LOAD, step, -64)) == 0x0100_0009_FFFF_FFC0
    assert encode(Add(Unit.STORE, register(Unit.STORE, "half").number, 1)) == 0x0201_0001_0000_0001
    assert encode(Go(Unit.PRODUCT, 0b11, 0x8000)) == 0x0302_0000_0003_8000
    assert encode(Loop(7)) == 0x0400_0000_0000_0007
    assert encode(Next()) == 0x0500_0000_0000_0000


@pytest.mark.parametrize(
    "instruction",
    [Set(Unit.LOAD, 1, 2), Set(Unit.LOAD, 99, 0), Set(Unit.LOAD, 9, 2**31), Add(Unit.LOAD, 1, 2**31), Loop(0)],
)
def test_what_has_no_word_is_refused(instruction):
    with pytest.raises(InputError):
        encode(instruction)


programs = st.builds(Program, st.lists(instructions(), max_size=12).map(tuple), st.just(MACHINE))


@given(programs)
def test_text_comes_back(program):
    assert assemble(disassemble(program)) == program


@given(programs)
def test_a_file_comes_back(program):
    assert Program.from_bytes(program.to_bytes(), "file") == program


@given(programs, st.data())
def test_no_changed_bit_of_a_file_goes_unseen(program, data):
    file = bytearray(program.to_bytes())
    bit = data.draw(st.integers(0, 8 * len(file) - 1))
    file[bit // 8] ^= 1 << bit % 8
    with pytest.raises(InputError, match=r"^file: "):
        Program.from_bytes(bytes(file), "file")


@given(programs, st.data())
def test_no_cut_of_a_file_goes_unseen(program, data):
    file = program.to_bytes()
    with pytest.raises(InputError, match=r"^file: "):
        Program.from_bytes(file[: data.draw(st.integers(0, len(file) - 1))], "file")


def test_an_illegal_word_in_a_sound_file_is_said_with_its_number(tmp_path):
    words = bytes(8) + (6 << 56).to_bytes(8, "little")
    head = HEADER.pack(int.from_bytes(b"WEFT", "little"), 1, 0, 2, 0)[:-4]
    path = tmp_path / "p.weft"
    path.write_bytes(head + zlib.crc32(head + words).to_bytes(4, "little") + words)

    with pytest.raises(InputError, match="instruction 1: 0x0600000000000000 is no instruction: opcode 6"):
        read_program(path)


def test_a_file_is_written_and_read(tmp_path):
    program = assemble(TEXT)
    program.write(tmp_path / "p.weft")

    assert read_program(tmp_path / "p.weft") == program


TEXT = """
machine 0123456789ab ; tiny
  set load space N2S
  set load form PAIR ; packed
loop 4
  add load address 0x40
  go load wait 0,3 notify 1
next
set vector operation NORMALISE_BACKWARD
set load step0 -64
end
"""


def test_text_by_hand():
    assert assemble(TEXT).instructions == (
        Set(Unit.LOAD, 0, 1),
        Set(Unit.LOAD, 2, 2),
        Loop(4),
        Add(Unit.LOAD, 4, 64),
        Go(Unit.LOAD, 0b1001, 0b10),
        Next(),
        Set(Unit.VECTOR, 0, 13),
        Set(Unit.LOAD, 9, -64),
        End(),
    )


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("sett load half 1", "did you mean 'set'"),
        ("set load hlf 1", "did you mean 'half'"),
        ("set lood half 1", "did you mean 'load'"),
        ("set load space W2F", "did you mean 'W2E'"),
        ("set load half 2", "from 0 to 1"),
        ("set load half", "set UNIT REGISTER VALUE"),
        ("go load notify 1 wait 2", r"go UNIT \[wait"),
        ("go load wait 16", "from 0 to 15"),
        ("go load wait 1,1", "stands twice"),
        ("loop 0", "from 1"),
        ("loop many", "no integer"),
        ("next 1", "not of the form 'next'"),
    ],
)
def test_what_is_wrong_in_a_text_is_said_with_its_line(line, said):
    with pytest.raises(InputError, match=rf"^text, line 3: .*{said}"):
        assemble(f"machine {MACHINE}\nend\n{line}\n")


@pytest.mark.parametrize("text", ["", "end", "machine 12"])
def test_a_text_begins_with_its_machine(text):
    with pytest.raises(InputError, match="machine"):
        assemble(text)
