"""`elementwise`: a scalar function with its derivative becomes an op on arrays and Tensors."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Sequence
from functools import update_wrapper
from types import FunctionType
from typing import Any

import numpy as np

from gencore._elementwise import cpu, cuda
from gencore._elementwise.scalar import Loop, mentions, parameters
from gencore.autograd import defvjp, primitive

__all__ = ["Elementwise", "elementwise"]

MOST_ARGUMENTS = 4
DTYPES = (np.dtype(np.float32), np.dtype(np.float64))


class Elementwise:
    """An elementwise op, made by `elementwise`. Call it with arrays, Tensors and numbers.

    Attributes
    ----------
    function : callable
        The scalar Python function.
    derivative : callable or tuple of callables or None
        As given.
    """

    def __init__(self, function: FunctionType, derivative: Any) -> None:
        if not isinstance(function, FunctionType):
            raise TypeError(f"elementwise: expected a Python function, received {function!r}")
        self.function, self.derivative = function, derivative
        self._name = function.__name__
        self._parameters = parameters(self._name, function)
        self._n = len(self._parameters)
        if not 1 <= self._n <= MOST_ARGUMENTS:
            raise TypeError(f"{self._name}: expected 1 to {MOST_ARGUMENTS} arguments, received {self._n}")
        # One function for each argument, or one for all of them.
        many = isinstance(derivative, tuple | list)
        given = list(derivative) if many else [] if derivative is None else [derivative]
        if many and len(given) != self._n:
            raise TypeError(
                f"{self._name}: expected {self._n} derivatives, one for each argument, received {len(given)}"
            )
        self._joint = not many and self._n > 1
        self._slopes = tuple(self._slope(i, d) for i, d in enumerate(given))
        self._takes = tuple(len(parameters(s.__name__, _scalar(s))) for s in self._slopes)
        self._uses_result = any(t > self._n for t in self._takes)
        self._compiled: dict[Any, Any] = {}
        self._lock = threading.Lock()
        update_wrapper(self, function)
        self._declare()

    # --- what is declared -------------------------------------------------------------------------------------

    @property
    def __elementwise__(self) -> FunctionType:
        """What other ops compile where they call this one."""
        return self.function

    def _slope(self, i: int, given: Any) -> Any:
        what = f"{self._name}: derivative" + ("" if self._joint else f" for {self._parameters[i]}")
        if not isinstance(given, FunctionType | Elementwise) or (
            isinstance(given, Elementwise) and self._joint
        ):
            kind = "a Python function that returns a tuple, or one function or gc.elementwise op for each argument"
            if not self._joint:
                kind = "a Python function or a gc.elementwise op"
            raise TypeError(f"{what}: expected {kind}, received {given!r:.80}")
        names = parameters(what, _scalar(given))
        if len(names) not in (self._n, self._n + 1):
            raise TypeError(
                f"{what}: expected it to take {', '.join(self._parameters)}, and after them the result if it wants it, "
                f"received a function of ({', '.join(names)})"
            )
        return given

    def _declare(self) -> None:
        """Make both primitives, forward and gradient, and state their rules."""

        def forward(*args: Any) -> Any:
            return self._run(self._forward_loop, "", args)[0]

        def gradient(g: Any, *args: Any, wrt: tuple[int, ...]) -> Any:
            dtype = next((a.dtype for a in args if hasattr(a, "dtype")), g.dtype)
            g = g if g.dtype == dtype else g.astype(dtype)  # weights of another dtype, from the user
            return self._run(lambda single: self._gradient_loop(single, wrt), "_vjp", (g, *args))

        forward.__name__, gradient.__name__ = self._name, f"{self._name}_vjp"
        self._forward, self._gradient = primitive(forward), primitive(gradient)
        self.__gencore_op__ = self._forward.__gencore_op__  # type: ignore[attr-defined]

        def rule(needs: tuple[bool, ...], g: Any, ans: Any, *args: Any) -> Any:
            wrt = tuple(i for i, needed in enumerate(needs) if needed)
            if not self._slopes:
                raise TypeError(
                    f"{self._name}: has no derivative; declare it with gc.elementwise(derivative=...), "
                    "or say gc.nondiff(op)"
                )
            # What no slope mentions was not kept, and any number of that dtype stands for it.
            dtype = next((a.dtype for a in args if hasattr(a, "dtype")), g.dtype)
            inputs = [a if _is_value(a) else dtype.type(0) for a in args]
            inputs += [ans] if self._uses_result else []
            parts = dict(zip(wrt, self._gradient(g, *inputs, wrt=wrt), strict=True))
            return tuple(parts.get(i) for i in range(self._n))

        # The tape keeps what a rule's parameters name without an underscore.
        kept = [f"x{i}" if self._reads(i) else f"_x{i}" for i in range(self._n)]
        names = ["needs", "g", "ans" if self._reads(self._n) else "_ans", *kept]
        kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
        rule.__signature__ = inspect.Signature([inspect.Parameter(n, kind) for n in names])  # type: ignore[attr-defined]
        defvjp(self._forward, joint=rule)
        width = self._n + self._uses_result
        if self._slopes:
            defvjp(self._gradient, self._rule_of_g, *[self._rule_of(j) for j in range(width)])

    def _reads(self, position: int) -> bool:
        return any(
            position < takes and mentions(_scalar(s), position)
            for s, takes in zip(self._slopes, self._takes, strict=True)
        )

    def _rule_of_g(self, gg: Any, _ans: Any, _g: Any, *args: Any, wrt: tuple[int, ...]) -> Any:
        """The gradient is linear in g."""
        used = [i for i, one in enumerate(gg) if one is not None]
        return _total(self._gradient(gg[i], *args, wrt=(wrt[i],))[0] for i in used)

    def _rule_of(self, j: int) -> Callable[..., Any]:
        """Second derivatives, by argument j (the result is the last): through the slopes, if they are ops."""

        def rule(gg: Any, _ans: Any, g: Any, *args: Any, wrt: tuple[int, ...]) -> Any:
            terms = []
            for i, one in zip(wrt, gg, strict=True):
                if one is None:
                    continue
                slope = self._slopes[0] if self._joint else self._slopes[i]
                if not isinstance(slope, Elementwise):
                    raise TypeError(
                        f"{self._name}: cannot be differentiated twice, because its derivative is a plain function; "
                        "declare derivative as gc.elementwise ops, one for each argument, with derivatives of their own"
                    )
                if j < slope._n:
                    inputs = args[: slope._n]
                    if slope._uses_result:
                        inputs = (*inputs, slope(*inputs))
                    slope._require_derivative()
                    terms.append(slope._gradient(one * g, *inputs, wrt=(j,))[0])
            return _total(terms)

        return rule

    def _require_derivative(self) -> None:
        if not self._slopes:
            raise TypeError(
                f"{self._name}: has no derivative, which a second derivative needs; declare it with "
                "gc.elementwise(derivative=...)"
            )

    # --- running it -------------------------------------------------------------------------------------------

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if kwargs or len(args) != self._n:
            try:
                args = inspect.signature(self.function).bind(*args, **kwargs).args
            except TypeError as error:
                raise TypeError(
                    f"{self._name}: expected {', '.join(self._parameters)}, received {len(args)} positional arguments"
                    + (f" and {', '.join(kwargs)}" if kwargs else "")
                    + f" ({error})"
                ) from None
        return self._forward(*args)

    def _forward_loop(self, single: tuple[bool, ...]) -> Loop:
        return Loop((self.function,), (self._n,), (None,), single, False)

    def _gradient_loop(self, single: tuple[bool, ...], wrt: tuple[int, ...]) -> Loop:
        if self._joint:
            return Loop((self._slopes[0],), self._takes, wrt, single, True)
        functions, takes = zip(*((_scalar(self._slopes[i]), self._takes[i]) for i in wrt), strict=True)
        return Loop(functions, takes, (None,) * len(wrt), single, True)

    def _run(
        self, make: Callable[[tuple[bool, ...]], Loop], suffix: str, args: tuple[Any, ...]
    ) -> tuple[Any, ...]:
        names = self._parameters
        if suffix:
            names = ("g", *names, "the result")
        inputs, dtype, device = _inputs(self._name + suffix, names, args)
        shape = _shape(self._name + suffix, names, inputs)
        single = tuple(x.size == 1 for x in inputs)
        if all(single):
            single = (False,) * len(inputs)
        if device:
            module = cuda.load_cupy(self._name)
            with next(x for x in inputs if hasattr(x, "__cuda_array_interface__")).device:
                inputs = [module.asarray(x) for x in inputs]
                return self._results(module, make(single), inputs, dtype, shape, cuda.compile_loop)
        return self._results(np, make(single), inputs, dtype, shape, cpu.compile_loop)

    def _results(
        self, module: Any, loop: Loop, inputs: Sequence[Any], dtype: Any, shape: tuple[int, ...], build: Any
    ) -> tuple[Any, ...]:
        key = loop, dtype, build
        run = self._compiled.get(key)
        if run is None:
            with self._lock:
                run = self._compiled.get(key)
                if run is None:
                    what = f"{self._name}: derivative" if loop.gradient else self._name
                    parts = self._n if loop.gradient and self._joint else None
                    run = self._compiled[key] = build(what, loop, dtype, parts)
        outputs = tuple(module.empty(shape, dtype) for _ in range(loop.outputs))
        run(inputs, outputs, shape)
        return outputs

    # --- checking it ------------------------------------------------------------------------------------------

    def check(self, *points: Any, rtol: float = 1e-6) -> None:
        """Compare the declared derivative with differences of the function, in float64; and that of its slopes.

        Parameters
        ----------
        *points : array_like
            Where, one for each argument; they broadcast. Away from kinks, and inside the domain.
        rtol : float
            A declared derivative may be wrong by this fraction of the difference quotient.

        Raises
        ------
        ValueError
            Names the argument, the point, the declared derivative and the difference quotient.
        TypeError
            The op has no derivative, or takes another number of arguments.

        Notes
        -----
        The quotient is the central one with a step of ``eps^(1/3) max(1, |x|)``, and another of half that step. Beside
        `rtol`, their distance is allowed, which is three times the truncation error of the second, and 16 roundings of
        the function over the step.
        """
        self._require_derivative()
        if len(points) != self._n:
            raise TypeError(f"{self._name}.check: expected {self._n} points, received {len(points)}")
        xs = [np.array(x, np.float64) for x in np.broadcast_arrays(*[np.asarray(p) for p in points])]
        result = np.asarray(self(*xs))
        given = (*xs, result) if self._uses_result else xs
        declared = self._gradient(np.ones_like(result), *given, wrt=tuple(range(self._n)))
        eps = float(np.finfo(np.float64).eps)
        for k, name in enumerate(self._parameters):
            step = eps ** (1 / 3) * np.maximum(1, np.abs(xs[k]))
            (first, _), (second, size) = (self._quotient(xs, k, h) for h in (step, step / 2))
            allowed = np.abs(second - first) + 16 * eps * size / step + rtol * np.abs(second)
            wrong = ~(np.abs(declared[k] - second) <= allowed)
            if wrong.any():
                i = int(np.argmax(wrong))
                at = ", ".join(f"{p}={x.flat[i]:.6g}" for p, x in zip(self._parameters, xs, strict=True))
                raise ValueError(
                    f"{self._name}.check: expected the derivative for {name} to be {second.flat[i]:.9g} at {at} "
                    f"(central difference), received {declared[k].flat[i]:.9g}"
                )
        for slope in self._slopes:
            if isinstance(slope, Elementwise) and slope._slopes:
                slope.check(*(*xs, result)[: slope._n], rtol=rtol)

    def _quotient(self, xs: list[Any], k: int, step: Any) -> tuple[Any, Any]:
        """Central difference quotient by argument k, and how large the function is there."""
        above, below = xs[k] + step, xs[k] - step
        high, low = (np.asarray(self(*xs[:k], x, *xs[k + 1 :])) for x in (above, below))
        return (high - low) / (above - below), np.maximum(np.abs(high), np.abs(low))

    def __repr__(self) -> str:
        return f"<elementwise op {self._name}({', '.join(self._parameters)})>"


def _scalar(function: Any) -> FunctionType:
    scalar: FunctionType = function.function if isinstance(function, Elementwise) else function
    return scalar


def _is_value(a: Any) -> bool:
    """Whether this is an argument, not what the tape left in its place."""
    return a is not None and (
        isinstance(a, int | float | np.generic) or hasattr(a, "__array__") or hasattr(a, "get")
    )


def _total(terms: Any) -> Any:
    total = None
    for term in terms:
        total = term if total is None else total + term
    return total


def _inputs(name: str, names: tuple[str, ...], args: tuple[Any, ...]) -> tuple[list[Any], Any, bool]:
    """Arrays of one dtype, numbers among them; and whether they lie on a device."""
    dtype, owner, device, host = None, "", "", ""
    inputs = [cuda.load_cupy(name).asarray(a) if hasattr(a, "__cuda_array_interface__") else a for a in args]
    for n, a in zip(names, inputs, strict=False):
        if isinstance(a, int | float) and not isinstance(a, np.generic):
            continue
        if hasattr(a, "__cuda_array_interface__"):
            device = n
        elif isinstance(a, np.ndarray | np.generic):
            host = n if a.ndim else host
        else:
            raise TypeError(
                f"{name}: expected {n} to be an array, a Tensor or a number, received {type(a).__name__}"
            )
        if a.dtype not in DTYPES:
            raise TypeError(
                f"{name}: expected {n} to be float32 or float64, received {a.dtype} (cure: {n}.astype(np.float32))"
            )
        if dtype is None:
            dtype, owner = a.dtype, n
        elif a.dtype != dtype:
            raise TypeError(
                f"{name}: expected {n} to be {dtype} as {owner} is, received {a.dtype} (cure: {n}.astype(np.{dtype}))"
            )
    if device and host:
        raise TypeError(
            f"{name}: expected all arrays on one device, received {host} on the host, {device} on CUDA"
        )
    dtype = DTYPES[1] if dtype is None else dtype
    return [a if hasattr(a, "dtype") else np.asarray(a, dtype) for a in inputs], dtype, bool(device)


def _shape(name: str, names: tuple[str, ...], inputs: list[Any]) -> tuple[int, ...]:
    shape: tuple[int, ...] = inputs[0].shape
    if all(x.shape == shape for x in inputs):
        return shape
    try:
        return np.broadcast_shapes(*(x.shape for x in inputs))
    except ValueError:
        shapes = ", ".join(f"{n} {x.shape}" for n, x in zip(names, inputs, strict=False))
        raise ValueError(f"{name}: expected shapes that broadcast, received {shapes}") from None


def elementwise(function: Any = None, *, derivative: Any = None) -> Any:
    """Make a fast, differentiable op of a function of one to four numbers; a decorator. Needs ``gencore[numba]``.

    Parameters
    ----------
    function : callable
        Takes numbers by position and returns one. Compiled by numba: arithmetic, comparisons, ``if``, loops, functions
        of ``math``, plain Python functions and other elementwise ops.
    derivative : callable, or a sequence of them, optional
        A function of the same arguments, and after them of the result if it wants it. Returns the derivative; with
        several arguments, a tuple of all derivatives. Or one function for each argument. If these are elementwise ops
        with derivatives of their own, the op can be differentiated twice, and so on. Without it, the op raises when
        it is differentiated, unless it is declared with `gencore.defvjp` or `gencore.nondiff`.

    Returns
    -------
    Elementwise
        ``op(*args)`` takes arrays of NumPy (any strides) or of a CUDA device (CuPy), Tensors and Python numbers, which
        broadcast, and returns a new C-contiguous array, or a Tensor. float32 gives float32, float64 gives float64; of
        numbers alone, float64. ``op.check(*points)`` compares the derivative with differences.

    Raises
    ------
    ImportError
        numba is not installed, or CuPy for an array on a device.
    TypeError
        A derivative is missing or one too many; a function does not compile or returns no number; a dtype other than
        float32 and float64, or both. What needs the compiler shows when the op first runs, or is first differentiated.
    ValueError
        Shapes that do not broadcast; a wrong derivative (`Elementwise.check`).

    Notes
    -----
    Gradient of argument i: ``g * derivative_i(args)``, in one pass for all arguments that need one. Arguments that no
    derivative mentions are not kept for the backward pass.

    Float literals and global floats take the dtype of the arguments, as in NumPy; integers do not: in float32, write
    ``1.0 + x`` rather than ``1 + x``, which numba computes in float64. Divisions by zero give inf or NaN. On the CPU in
    float32, ``exp``, ``expm1``, ``log``, ``log1p`` and ``tanh`` (of ``math`` or NumPy) are ours: vectorised, within
    0.52 units in the last place, and without exceptions; other functions are calls of the C library.

    Compiled once a process for each dtype and combination of arguments that are single elements (0.1 to 0.5 s, the
    first time 1 s more). On the CPU, large arrays are cut among `gencore.num_threads` threads; the bits do not
    depend on how many. Extra memory: none for contiguous inputs, else 8192 elements an input and thread. On a device,
    runs on CuPy's current stream without synchronising; inputs that are broadcast or not contiguous are copied.

    Examples
    --------
    >>> import math
    >>> import gencore as gc, numpy as np
    >>> @gc.elementwise(derivative=lambda x, a: (math.cos(x) * a, math.sin(x)))
    ... def scaled_sine(x, a):
    ...     return math.sin(x) * a
    >>> x = gc.tensor([0.0, 1.0], requires_grad=True)
    >>> scaled_sine(x, 2.0).sum().backward()
    >>> x.grad
    tensor([2.       , 1.0806046])
    >>> scaled_sine.check([0.5, -3.0], 2.0)

    Twice differentiable, because the derivative is an op that has one:

    >>> @gc.elementwise(derivative=lambda x: -math.sin(x))
    ... def cosine(x):
    ...     return math.cos(x)
    >>> @gc.elementwise(derivative=cosine)
    ... def sine(x):
    ...     return math.sin(x)
    >>> x = gc.tensor(2.0, requires_grad=True)
    >>> (slope,) = gc.grad(sine(x), [x], create_graph=True)
    >>> gc.grad(slope, x) == -np.sin(np.float32(2.0))
    tensor(True)
    """
    if function is None:
        return lambda f: Elementwise(f, derivative)
    return Elementwise(function, derivative)
