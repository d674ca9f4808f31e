"""What is refused, how that is said, and what is offered instead."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weft.workloads.errors import InputError, nearest, printable, reading, require_int, require_positive


@given(st.floats() | st.integers(-(2**60), 2**60))
def test_a_positive_number_is_finite_and_above_zero(value: float) -> None:
    if 0 < value < float("inf"):
        require_positive("x", value)
    else:
        with pytest.raises(InputError, match=r"x must be a positive number, not "):
            require_positive("x", value)


def test_the_nearest_name_whatever_its_case_or_the_first_of_many() -> None:
    assert nearest("bdpw", ("bdwp", "dense")) == "did you mean 'bdwp'?"
    assert nearest("DENSE", ("bdwp", "dense")) == "did you mean 'dense'?"
    assert nearest("?", ("b", "a")) == "choose one of a, b"
    assert nearest("?", map(str, range(100, 400))).endswith(", 138, 139 and 260 more")
    # Long names are offered as far as they fit on some lines, one at least.
    assert nearest("?", ("a" * 199, "b" * 199, "c" * 197, "d")) == f"choose one of {'a' * 199}, {'b' * 199} and 2 more"
    assert nearest("?", ("a" * 900, "b")) == f"choose one of {'a' * 900} and 1 more"


@given(st.text())
def test_what_is_shown_moves_no_cursor_and_turns_no_text(text: str) -> None:
    shown = printable(text)
    assert not any(unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp") for c in shown)
    assert shown.isprintable() or max(shown) >= "\u00a0"
    assert printable(shown) == shown, "said twice, it is the same"
    assert printable(text, lines=True).count("\n") == text.count("\n")


def test_control_characters_are_written_as_python_writes_them() -> None:
    assert printable("\x1b]0;t\x07 \u202ea\tb\n\ud800 é 模型") == "\\x1b]0;t\\x07 \\u202ea\\tb\\n\\ud800 é 模型"


@given(st.text(st.characters(exclude_categories=["Cs"])), st.integers(1, 5000), st.sampled_from((" ", "", "\n", "-")))
def test_an_error_fits_on_a_screen(text: str, times: int, between: str) -> None:
    said = str(InputError(between.join([text] * times)))
    assert len(said.splitlines()) < 30
    assert all(len(line) <= 1000 for line in said.splitlines())
    assert str(InputError(said)) == said, "raised again, it is the same"


def test_a_long_value_leaves_the_rule_in_sight() -> None:
    said = str(InputError(f"model.json: scheme {'x' * 10_000!r} is unknown: did you mean 'bdwp'?"))
    assert said.startswith("model.json: scheme 'xxx") and said.endswith("is unknown: did you mean 'bdwp'?")
    assert len(said) < 400


def test_an_integer_that_python_does_not_write() -> None:
    with pytest.raises(InputError, match="x must be an integer from 1 to 4, not an integer of some 5000 digits"):
        require_int("x", 10**5000 - 1, 1, 4)


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (OverflowError("too big"), "f: is not a thing (OverflowError: too big)"),
        (RecursionError("deep"), "f: is not a thing (RecursionError: deep)"),
        (MemoryError(), "f: takes more memory than there is; expected a thing"),
        (PermissionError(13, "Permission denied"), "f: cannot be read: Permission denied"),
        (OSError("cut short"), "f: is not a thing (OSError: cut short)"),
        (InputError("f: its own"), "f: its own"),
    ],
)
def test_whatever_a_library_raises_of_a_file_is_bad_input(fault: Exception, said: str) -> None:
    with pytest.raises(InputError) as caught, reading("f", "a thing"):
        raise fault
    assert str(caught.value) == said


def test_faults_that_are_no_errors_pass() -> None:
    with pytest.raises(KeyboardInterrupt), reading("f", "a thing"):
        raise KeyboardInterrupt
