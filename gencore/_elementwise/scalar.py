"""Scalar functions: what they mention, how they are specialised for a dtype, and loops around them."""

from __future__ import annotations

import dis
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from types import BuiltinFunctionType, CellType, FunctionType, ModuleType
from typing import Any

import numpy as np

Jit = Callable[[FunctionType], Any]


def load_numba() -> Any:
    """Import numba, or say which extra brings it."""
    try:
        import numba
    except ImportError as error:
        raise ImportError(
            "elementwise: expected numba, which is not installed (cure: pip install 'gencore[numba]')"
        ) from error
    return numba


def stand_ins(dtype: np.dtype[Any]) -> Mapping[Any, Any]:
    """What to compile on the CPU in the place of functions of ``math``: for float32, ours."""
    if dtype != np.float32:
        return {}
    from gencore._elementwise.fast import STAND_INS

    return STAND_INS


def parameters(where: str, function: FunctionType) -> tuple[str, ...]:
    """Names of the arguments, which must be plain positional ones."""
    found = inspect.signature(function).parameters.values()
    for p in found:
        if p.kind is not p.POSITIONAL_OR_KEYWORD or p.default is not p.empty:
            raise TypeError(f"{where}: expected plain arguments without defaults, received {p}")
    return tuple(p.name for p in found)


def mentions(function: FunctionType, position: int) -> bool:
    """Whether the function may read the argument: its name stands in some instruction."""
    name = function.__code__.co_varnames[position]
    return any(name in i.argrepr for i in dis.get_instructions(function) if i.opname != "RESUME")


def specialise(
    function: FunctionType,
    dtype: np.dtype[Any],
    jit: Jit,
    replace: Mapping[Any, Any],
    callers: tuple[Any, ...] = (),
) -> Any:
    """Compile a function for scalars of one dtype.

    Floats that it mentions, literals and globals, take the dtype: numba would go on in float64 after the first of them.
    Functions that it calls are compiled with it, Python's and those of other elementwise ops; `replace` says what
    stands in for other functions and for modules.
    """
    if function in callers:
        raise TypeError(
            f"{callers[0].__name__}: expected no recursion, received a call of {function.__name__}"
        )

    def known(value: Any) -> Any:
        value = getattr(value, "__elementwise__", value)
        if isinstance(value, FunctionType):
            return specialise(value, dtype, jit, replace, (*callers, function))
        if isinstance(value, BuiltinFunctionType | ModuleType | np.ufunc):
            return replace.get(value, value)
        return dtype.type(value) if type(value) is float else value

    def cell(c: CellType) -> CellType:
        try:
            return CellType(known(c.cell_contents))
        except ValueError:  # empty
            return c

    code = function.__code__
    names = {i.argval for i in dis.get_instructions(code) if i.opname == "LOAD_GLOBAL"}
    scope = {n: known(function.__globals__[n]) for n in names if n in function.__globals__}
    # numba looks for the module of a function.
    scope |= {n: function.__globals__.get(n) for n in ("__name__", "__builtins__")}
    consts = tuple(dtype.type(c) if type(c) is float else c for c in code.co_consts)
    copy = FunctionType(
        code.replace(co_consts=consts),
        scope,
        function.__name__,
        None if function.__defaults__ is None else tuple(known(v) for v in function.__defaults__),
        None if function.__closure__ is None else tuple(cell(c) for c in function.__closure__),
    )
    copy.__module__ = function.__module__
    return jit(copy)


@dataclass(frozen=True)
class Loop:
    """What a loop computes: the values of a function, or gradients ``g * slope`` for some of its arguments.

    Attributes
    ----------
    functions
        The function itself; or the slopes, one a gradient; or one function that returns a tuple of all slopes.
    arguments
        Number of arguments of the first function, the result of the op among them where a slope reads it.
    takes
        How many of the arguments each function takes.
    picks
        For gradients: which entry of the tuple each one is, or None where the function returns a scalar.
    single
        For each input (g first, for gradients), whether it is one element for all.
    gradient
        Whether there is a g.
    """

    functions: tuple[FunctionType, ...]
    takes: tuple[int, ...]
    picks: tuple[int | None, ...]
    single: tuple[bool, ...]
    gradient: bool

    @property
    def outputs(self) -> int:
        """Number of results."""
        return len(self.picks)

    def source(self, device: bool) -> str:
        """Python text of the loop over flat arrays; `f0`, `f1`, ... are the functions."""
        n = len(self.single) - self.gradient
        inputs = (["g"] if self.gradient else []) + [f"x{i}" for i in range(n)]
        outputs = [f"out{k}" for k in range(self.outputs)]
        first = [f"    {x}_ = {x}[0]" for x, one in zip(inputs, self.single, strict=True) if one]
        value = {x: f"{x}_" if one else f"{x}[i]" for x, one in zip(inputs, self.single, strict=True)}
        calls = [f"f{k}({', '.join(value[f'x{i}'] for i in range(t))})" for k, t in enumerate(self.takes)]
        body, g = [], f"{value['g']} * " if self.gradient else ""
        if self.picks[0] is not None:
            body.append(f"        all = {calls[0]}")
            calls = [f"all[{k}]" for k in self.picks]
        body += [f"        {out}[i] = {g}{call}" for out, call in zip(outputs, calls, strict=True)]
        steps = "range(cuda.grid(1), n, cuda.gridsize(1))" if device else "range(n)"
        header = f"def loop(n, {', '.join(inputs + outputs)}):"
        return "\n".join([header, *first, f"    for i in {steps}:", *body, ""])

    def compile(
        self, what: str, dtype: np.dtype[Any], parts: int | None, device_jit: Jit | None = None
    ) -> FunctionType:
        """Check and compile the functions; return the loop as a Python function, which the caller compiles.

        `parts` is the length of the tuple that the function returns, None for a number. The check is on the CPU,
        also for a device.
        """
        scope: dict[str, Any] = {}
        for k, (function, takes) in enumerate(zip(self.functions, self.takes, strict=True)):
            scope[f"f{k}"] = compile_scalar(what, function, takes, dtype, parts)
            if device_jit is not None:
                scope[f"f{k}"] = specialise(function, dtype, device_jit, {})
        if device_jit is not None:
            scope["cuda"] = import_module("numba.cuda")
        exec(self.source(device_jit is not None), scope)  # the text is ours: no word of the user's is in it
        loop: FunctionType = scope["loop"]
        return loop


def compile_scalar(
    what: str, function: FunctionType, takes: int, dtype: np.dtype[Any], parts: int | None
) -> Any:
    """Compile a function of scalars, for the CPU; raise unless it returns one (`parts` None), or a tuple of so many."""
    numba = load_numba()
    expected = "a number" if parts is None else f"a tuple of {parts} numbers"
    scalar = numba.from_dtype(dtype)
    compiled = specialise(function, dtype, numba.njit(error_model="numpy"), stand_ins(dtype))
    try:
        compiled.compile((scalar,) * takes)
    except numba.core.errors.NumbaError as error:
        # numba's message speaks of its own compiler first, and of the user's mistake after that.
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        own = ("Failed in nopython", "File", "During", "-")
        reason = next((line for line in lines if not line.startswith(own)), lines[0])
        raise TypeError(f"{what}: numba cannot compile it for {dtype} scalars: {reason}") from error
    returned = compiled.nopython_signatures[0].return_type
    found: Sequence[Any] = [returned] if parts is None else list(getattr(returned, "types", []))
    numbers = numba.types.Float | numba.types.Integer | numba.types.Boolean
    if len(found) != (1 if parts is None else parts) or not all(isinstance(t, numbers) for t in found):
        raise TypeError(f"{what}: expected it to return {expected}, received {returned}")
    return compiled
