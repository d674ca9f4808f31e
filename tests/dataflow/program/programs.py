"""Instructions and programs for tests."""

from __future__ import annotations

from hypothesis import strategies as st

from weft.dataflow.program.instruction import Add, End, Go, Instruction, Loop, Next, Set
from weft.dataflow.program.isa import EVENTS, REGISTERS, Unit

MASKS = st.integers(0, 2**EVENTS - 1)
SIGNED = st.integers(-(2**31), 2**31 - 1)


@st.composite
def sets(draw) -> Set:
    r = draw(st.sampled_from([r for registers in REGISTERS.values() for r in registers]))
    return Set(r.unit, r.number, draw(SIGNED if r.signed else st.integers(0, 2**r.bits - 1)))


@st.composite
def adds(draw) -> Add:
    r = draw(st.sampled_from([r for registers in REGISTERS.values() for r in registers]))
    return Add(r.unit, r.number, draw(SIGNED))


def instructions() -> st.SearchStrategy[Instruction]:
    return st.one_of(
        st.just(End()),
        st.just(Next()),
        st.builds(Loop, st.integers(1, 2**32 - 1)),
        st.builds(Go, st.sampled_from(Unit), MASKS, MASKS),
        sets(),
        adds(),
    )
