"""Values on their way through a pipeline, each by its age: the cycles since what it belongs to has entered."""

from __future__ import annotations

from amaranth import Module, Signal, Value

__all__ = ["Passing"]


class Passing:
    """A value of whatever is in flight; it exists from ``age`` cycles after that has entered."""

    def __init__(self, m: Module, name: str, value: Value, age: int) -> None:
        self._m, self._name = m, name
        self.age = age
        self._stages = [value]

    def at(self, age: int) -> Value:
        """The value of what is of that age, through as many registers as it takes."""
        assert age >= self.age, f"{self._name} is there after {self.age} cycles, not {age}"
        while self.age + len(self._stages) <= age:
            last = self._stages[-1]
            register = Signal(len(last), name=f"{self._name}_at_{self.age + len(self._stages)}", reset_less=True)
            self._m.d.sync += register.eq(last)
            self._stages.append(register)
        return self._stages[age - self.age]
