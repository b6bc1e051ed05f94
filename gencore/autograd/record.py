"""Recording: functions of arrays become ops that the tape knows, with the rules of their gradients."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

import numpy as np

from gencore.autograd.tape import (
    ANSWER,
    TRACED,
    AnyNode,
    Node,
    Op,
    Output,
    Rule,
    Watch,
    absent,
    edits_of,
    fingerprint,
    like,
    mode,
    next_order,
)
from gencore.autograd.tensors import Tensor, wrap

__all__ = ["defvjp", "nondiff", "primitive"]

Function = TypeVar("Function", bound=Callable[..., Any])
NO_OPTIONS: dict[str, Any] = {}
ARGUMENTS = ~(TRACED | ANSWER)
_new: Callable[[type[Node]], Node] = object.__new__
_new_tensor: Callable[[type[Tensor]], Tensor] = object.__new__
ndarray = np.ndarray
_LISTS = frozenset((list, tuple))
Marks = list[tuple[Watch, int]]


def record(op: Op, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Run an op on the arrays of its arguments, and note what its rules will need."""
    raws: list[Any] = []
    parents: list[AnyNode | None] = []
    reads = 0
    while len(op.uses) < len(args):
        op.uses += op.uses[-1:] * len(args)
    for a, use in zip(args, op.uses):  # noqa: B905 (`strict` costs; more uses than arguments)
        if isinstance(a, Tensor):
            raws.append(a._data)
            parent = a._node
            parents.append(parent)
            if parent is not None:
                reads |= use
        else:
            if type(a) in _LISTS and op.lists:
                return record(op, tuple([np.array(v) if type(v) in _LISTS else v for v in args]), kwargs)
            raws.append(a)
            parents.append(None)
    data = op.fun(*raws, **kwargs) if kwargs else op.fun(*raws)
    watch = args[0]._watch if op.view and isinstance(args[0], Tensor) else None
    if not reads or not mode.enabled or op.differentiable is False:
        return _without_history(data, watch)
    node = _new(Node)  # here and below set up without a constructor, which would cost as much as the rest
    node.op, node.parents, node.kwargs, node.order = op, parents, kwargs, next_order()
    marks: Any = ()
    if not reads & ARGUMENTS and None not in parents and not kwargs:
        node.args = parents
    else:
        node.args, marks = _keep(args, raws, parents, reads)
        for option in kwargs.values():
            _watch_arrays(option, marks)
    if type(data) is not ndarray:
        if isinstance(data, tuple):
            return _several(node, data, reads, marks)
        data = _array(op, data)
    node.shape, node.dtype = data.shape, data.dtype
    if watch is None:
        watch = [0]
    if reads & ANSWER:
        node.ans = data
        node.marks = (*marks, (watch, watch[0] if len(watch) == 1 else edits_of(watch)))
    else:
        node.ans = None
        node.marks = marks
    result = _new_tensor(Tensor)
    result._data, result._node, result._watch = data, node, watch
    return result


def _without_history(data: Any, watch: Watch | None) -> Any:
    """Results as Tensors; what is neither array nor NumPy number (a shape, a bool) stays what it is."""
    if isinstance(data, tuple):
        return like(data, [_without_history(d, None) for d in data])
    if isinstance(data, np.generic):
        data = np.asarray(data)
    return wrap(data, None, watch) if hasattr(data, "dtype") else data


def _array(op: Op, data: Any) -> Any:
    if isinstance(data, np.generic):
        return np.asarray(data)
    if not hasattr(data, "dtype"):
        raise TypeError(
            f"{op.name}: expected the result to be an array or a tuple of arrays, received {type(data).__name__}"
        )
    return data


def _several(node: Node, data: tuple[Any, ...], reads: int, marks: Marks) -> tuple[Any, ...]:
    arrays = [_array(node.op, d) for d in data]
    results = [wrap(d, Output(node, i, d)) for i, d in enumerate(arrays)]
    node.shape, node.dtype = tuple(d.shape for d in arrays), tuple(d.dtype for d in arrays)
    node.ans, node.marks = None, marks
    if reads & ANSWER:
        node.ans = like(data, arrays)
        node.marks = [*marks, *((r._watch, 0) for r in results)]
    return like(data, results)


def _keep(
    args: tuple[Any, ...], raws: list[Any], parents: list[AnyNode | None], reads: int
) -> tuple[list[Any], Marks]:
    """Let go of the arguments that no rule will read, and watch the memory of the others."""
    kept: list[Any] = []
    marks: Marks = []
    reads >>= 2
    for a, raw, parent in zip(args, raws, parents):  # noqa: B905 (as long as each other)
        if reads & 1:
            kept.append(raw)
            if a is raw:  # a number, or an array of the user's
                if type(a) is not float:
                    _watch_arrays(a, marks)
            else:
                watch = a._watch
                marks.append((watch, watch[0] if len(watch) == 1 else edits_of(watch)))
        else:
            kept.append(absent(raw) if parent is None else parent)
        reads >>= 1
    return kept, marks


def _watch_arrays(value: Any, marks: Marks) -> None:
    if isinstance(value, ndarray):
        marks.append(([0, value, fingerprint(value)], 0))
    elif isinstance(value, tuple):  # an index
        for part in value:
            _watch_arrays(part, marks)


def method(function: Callable[..., Any], arguments: int) -> Callable[..., Any]:
    """Make a method of Tensors of a primitive; with one or two arguments it saves the search for Tensors."""
    op = _op_of(function)
    if arguments == 1:
        return wraps(function)(lambda self: record(op, (self,), NO_OPTIONS))
    return wraps(function)(lambda self, other: record(op, (self, other), NO_OPTIONS))


def primitive(fun: Function, *, view: bool = False) -> Function:
    """Make a function of arrays one that is recorded when a Tensor is among its arguments.

    Parameters
    ----------
    fun : callable
        Takes arrays (and whatever else), returns an array or a tuple of arrays. With arrays only it is called as it
        is. Must not edit its arguments.
    view : bool
        Its result may share memory with its first argument.

    Returns
    -------
    callable
        Of the same signature. A Tensor among the arguments makes the results Tensors. Declare its gradient with
        `defvjp`, or that it has none with `nondiff`; one without either raises when it is differentiated.

    Examples
    --------
    >>> import gencore as gc, numpy as np
    >>> @gc.primitive
    ... def cube(x):
    ...     return x**3
    >>> gc.defvjp(cube, lambda g, _ans, x: g * 3 * x**2)
    >>> x = gc.tensor(2.0, requires_grad=True)
    >>> cube(x).backward()
    >>> x.grad
    tensor(12.)
    """
    op = Op(fun, view)

    @wraps(fun)
    def call(*args: Any, **kwargs: Any) -> Any:
        if kwargs:
            for value in kwargs.values():
                if isinstance(value, Tensor):
                    args, kwargs = _positional(op, args, kwargs)
                    break
        for a in args:
            if isinstance(a, Tensor):
                return record(op, args, kwargs)
        return fun(*args, **kwargs)

    call.__gencore_op__ = op  # type: ignore[attr-defined]
    return call  # type: ignore[return-value]


def _positional(
    op: Op, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Move Tensors given by keyword to the positions that rules know them by."""
    if op.signature is None:
        op.signature = inspect.signature(op.fun)
    bound = op.signature.bind(*args, **kwargs)
    bound.apply_defaults()  # now all that may be positional are; those that may not stay as they were given
    given = {name: value for name, value in bound.kwargs.items() if name in kwargs}
    for name, value in given.items():
        if isinstance(value, Tensor):
            raise TypeError(f"{op.name}: expected {name} to be an array or a number, received a Tensor")
    return bound.args, given


def takes_lists(fun: Function) -> Function:
    """Declare that lists among the arguments of a `primitive` are arrays, as NumPy takes them. Returns `fun`.

    They are copied, so that what backward reads is what the call read.
    """
    _op_of(fun).lists = True
    return fun


def _op_of(fun: Callable[..., Any]) -> Op:
    op = getattr(fun, "__gencore_op__", None)
    if not isinstance(op, Op):
        raise TypeError(f"expected a function made by gc.primitive, received {fun!r}")
    return op


def defvjp(fun: Callable[..., Any], *rules: Rule | None, joint: Rule | None = None) -> None:
    """Declare the gradient of a `primitive`: its vector-Jacobian products.

    Parameters
    ----------
    fun : callable
        Made by `primitive`.
    *rules : callable or None
        One for each positional argument: ``rule(g, ans, *args, **kwargs)`` returns the gradient of the argument, given
        that of the result. A parameter whose name starts with an underscore is not kept for the backward pass: the rule
        finds something there that has only ``shape`` and ``dtype``. None: this argument has no gradient.
    joint : callable
        Instead of `rules`, all gradients at once: ``joint(needs, g, ans, *args, **kwargs)``, where ``needs`` says for
        each positional argument whether its gradient is wanted, returns one gradient (or None) for each.

    Notes
    -----
    Rules are written in NumPy functions, operators and primitives: in a first-order pass all they see are arrays,
    under ``create_graph=True`` Tensors. For a function with several results, ``g`` and ``ans`` are tuples, and an entry
    of ``g`` is None where that result was not used. A gradient that is larger than its argument by broadcasting is
    summed by the caller.
    """
    op = _op_of(fun)
    if (joint is None) == (not rules):
        raise TypeError("defvjp: expected rules, one for each argument, or joint, received both or neither")
    op.declare(rules, joint)


def nondiff(fun: Function) -> Function:
    """Declare that a `primitive` has no gradient: its results have no history. Returns `fun`."""
    _op_of(fun).differentiable = False
    return fun
