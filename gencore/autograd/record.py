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
    edits_of,
    fingerprint,
    mode,
)
from gencore.autograd.tensors import Tensor, wrap

__all__ = ["defvjp", "nondiff", "primitive"]

Function = TypeVar("Function", bound=Callable[..., Any])


def _without_history(data: Any, watch: Watch | None) -> Any:
    """Results as Tensors; what is neither array nor NumPy number (a shape, a bool) stays what it is."""
    if isinstance(data, tuple):
        return tuple(_without_history(d, None) for d in data)
    if isinstance(data, np.generic):
        data = np.asarray(data)
    return wrap(data, None, watch) if hasattr(data, "dtype") else data


def record(op: Op, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Run an op on the arrays of its arguments, and note what its rules will need."""
    raws: list[Any] = []
    parents: list[AnyNode | None] = []
    reads = 0
    for a, use in zip(args, op.uses, strict=False):
        if isinstance(a, Tensor):
            raws.append(a._data)
            parent = a._node
            parents.append(parent)
            if parent is not None:
                reads |= use
        else:
            raws.append(a)
            parents.append(None)
    data = op.fun(*raws, **kwargs)
    watch = args[0]._watch if op.view and isinstance(args[0], Tensor) else None
    if not reads or not mode.enabled or op.differentiable is False:
        return _without_history(data, watch)
    if reads == TRACED:
        node = Node(op, parents, parents, kwargs)
    else:
        node = Node(op, parents, raws, kwargs)
        _keep(node, args, reads)
    if isinstance(data, tuple):
        results = tuple(wrap(d, Output(node, i, d)) for i, d in enumerate(data))
        node.shape, node.dtype = tuple(d.shape for d in data), tuple(d.dtype for d in data)
        if reads & ANSWER:
            node.ans = data
            node.marks.extend((r._watch, 0) for r in results)
        return results
    if isinstance(data, np.generic):
        data = np.asarray(data)
    node.shape, node.dtype = data.shape, data.dtype
    result = wrap(data, node, watch)
    if reads & ANSWER:
        node.ans = data
        watch = result._watch
        node.marks.append((watch, watch[0]))
    return result


def _keep(node: Node, args: tuple[Any, ...], reads: int) -> None:
    """Let go of the arguments that no rule will read, and watch the memory of the others."""
    raws, marks = node.args, node.marks
    assert raws is not None
    bit = 2
    for i, a in enumerate(args):
        if not reads & bit:
            raws[i] = node.parents[i]
        elif isinstance(a, Tensor):
            watch = a._watch
            marks.append((watch, watch[0] if len(watch) == 1 else edits_of(watch)))
        elif isinstance(a, np.ndarray):
            marks.append(([0, a, fingerprint(a)], 0))
        bit <<= 1


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
    for name, parameter in op.signature.parameters.items():
        if parameter.kind is parameter.KEYWORD_ONLY and isinstance(bound.arguments.get(name), Tensor):
            raise TypeError(f"{op.name}: expected {name} to be an array or a number, received a Tensor")
    given = dict(bound.kwargs)  # keyword-only ones, as they were given
    bound.apply_defaults()
    return bound.args, given


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
