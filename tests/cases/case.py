"""The format of a row of the grid, and how a row is run."""

import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np

from gencore import _core

Size = dict[str, Any]  # numbers, and switches that pick a variant: {"n": 3, "n_visible": 5, "clamp": True}
# Keyword arguments of the compiled function, outputs left out. Arrays, numbers, and lists of arrays, whose elements are
# called "name[0]", "name[1]", ... wherever results are.
Arguments = dict[str, Any]
Shapes = dict[str, tuple[tuple[int, ...], Any]]  # name -> shape, dtype
Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Expected:
    """The truth of one output, and the largest |error| that the arithmetic allows (0: the same number)."""

    value: Any
    bound: Any = 0.0


@dataclass(frozen=True)
class Bad:
    """A wrong call: a good one with `argument` set to `value` (plain, or a function of the good arguments).

    The error must be of type `error` and name the op, the argument, what was expected and received, and
    `words`.
    """

    argument: str
    value: Any
    error: type[Exception]
    words: tuple[str, ...] = ()

    def apply(self, good: Arguments) -> Arguments:
        return {**good, self.argument: self.value(good) if callable(self.value) else self.value}


@dataclass(frozen=True, kw_only=True)
class Case:
    """One op: how to call it, what it must return, and what it must refuse."""

    name: str  # "family.op", as its errors spell it; the function is _core.family_op
    sizes: tuple[Size, ...]  # odd ones: 0, 1, around the vector, word and group widths; and every variant
    bench: Size  # the shape that the benchmark runs
    inputs: Callable[[np.random.Generator, Size], Arguments]
    outputs: Callable[[Size], Shapes]
    reference: Callable[[Arguments, Size], dict[str, Expected]]  # float64; its docstring derives the bounds
    public: Callable[[Arguments, Size], Arrays] | None = None  # the same call through gencore.kernels
    optional: frozenset[str] = frozenset()  # arguments that may be left out or None, outputs included
    host: frozenset[str] = frozenset()  # arrays that say what to do: on the host, whatever the device
    in_place: tuple[str, ...] = ()  # inputs that the op updates; they count as outputs
    batch: tuple[
        str, ...
    ] = ()  # arguments with one row for each of size["n"] examples: the call may be split
    bad: tuple[Bad, ...] = field(default=())

    @property
    def function(self) -> Callable[..., None]:
        return getattr(_core, self.name.replace(".", "_"))

    def good_inputs(self, size: Size) -> Arguments:
        """The same arguments whenever and wherever they are asked for."""
        return self.inputs(np.random.default_rng(zlib.crc32(f"{self.name} {size}".encode())), size)

    def run(self, arguments: Arguments, shapes: Shapes) -> Arrays:
        """Calls the op on outputs that hold rubbish; checks that nothing around them is written."""
        outputs = {name: Guarded(shape, dtype) for name, (shape, dtype) in shapes.items()}
        given = {name: arguments[name] for name in self.in_place if arguments.get(name) is not None}
        copies = {name: Guarded.copy_of(array) for name, array in arrays_in(given).items()}
        changed = {
            name: [copies[f"{name}[{k}]"].array for k in range(len(value))]
            if isinstance(value, list)
            else copies[name].array
            for name, value in given.items()
        }
        self.function(**{**arguments, **changed}, **{name: g.array for name, g in outputs.items()})
        for name, guarded in (outputs | copies).items():
            guarded.check(f"{self.name}: {name}")
        return {name: guarded.array for name, guarded in (outputs | copies).items()}

    def run_size(self, size: Size) -> Arrays:
        return self.run(self.good_inputs(size), self.outputs(size))

    def run_part(self, arguments: Arguments, size: Size, begin: int, end: int) -> Arrays:
        """The call on examples begin .. end - 1 alone, with the random numbers they have in the whole."""
        part = dict(arguments)
        for name in self.batch:
            if part.get(name) is not None and len(part[name]) == size["n"]:
                part[name] = part[name][begin:end]
        if "first_row" in part:
            part["first_row"] += begin
        shapes = self.outputs(size)
        for name in self.batch:
            if name in shapes:
                shapes[name] = ((end - begin, *shapes[name][0][1:]), shapes[name][1])
        return self.run(part, shapes)


class Guarded:
    """An array with sentinel bytes before and after it, filled with rubbish, aligned to its elements only."""

    MARGIN, SENTINEL = 128, 0xA5

    def __init__(self, shape: tuple[int, ...], dtype: Any):
        dtype = np.dtype(dtype)
        n_bytes = int(np.prod(shape)) * dtype.itemsize
        begin = self.MARGIN + dtype.itemsize
        self.memory = np.full(begin + n_bytes + self.MARGIN, self.SENTINEL, dtype=np.uint8)
        self.inside = slice(begin, begin + n_bytes)
        self.array = self.memory[self.inside].view(dtype).reshape(shape)

    @classmethod
    def copy_of(cls, array: np.ndarray) -> "Guarded":
        guarded = cls(array.shape, array.dtype)
        guarded.array[...] = array
        return guarded

    def check(self, what: str) -> None:
        outside = np.delete(self.memory, self.inside)
        assert np.all(outside == self.SENTINEL), f"{what}: memory around it was written"


def arrays_in(arguments: Arguments) -> Arrays:
    """Every array by its name, those in lists included."""
    found = {}
    for name, value in arguments.items():
        if isinstance(value, np.ndarray):
            found[name] = value
        elif isinstance(value, list):
            found |= {f"{name}[{k}]": array for k, array in enumerate(value)}
    return found


def nan_at(argument: str, value: float = np.nan) -> Callable[[Arguments], np.ndarray]:
    """For Bad: the good array with its last element made NaN (or inf)."""

    def change(good: Arguments) -> np.ndarray:
        array = good[argument].copy()
        array.flat[-1] = value
        return array

    return change


@cache
def expected_of(case_name: str, size_index: int) -> dict[str, Expected]:
    """The reference of one row at one size, computed once a process."""
    from . import CASES

    case = CASES[case_name]
    size = case.sizes[size_index]
    return case.reference(case.good_inputs(size), size)


def assert_agrees(actual: Arrays, expected: dict[str, Expected], what: str) -> None:
    """Every expected output is there, finite where the truth is, and within its bound."""
    for name, truth in expected.items():
        value = np.asarray(truth.value)
        assert actual[name].shape == value.shape, (
            f"{what}: {name} has shape {actual[name].shape}, not {value.shape}"
        )
        if value.size == 0:
            continue
        error = np.abs(actual[name].astype(np.float64) - value.astype(np.float64))
        excess = error - truth.bound
        worst = np.unravel_index(np.argmax(np.where(np.isnan(excess), np.inf, excess)), value.shape)
        assert excess[worst] <= 0, (
            f"{what}: {name}{list(map(int, worst))} is {actual[name][worst]!r}, expected {value[worst]!r}, "
            f"error {error[worst]:.3g}, bound {np.broadcast_to(truth.bound, value.shape)[worst]:.3g}"
        )
