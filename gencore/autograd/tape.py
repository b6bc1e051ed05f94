"""The tape: what is recorded of a call, and how edits of the arrays that it keeps are noticed.

A `Node` stands for one call. It keeps the arguments that the gradient rules of its op read, and no others, and refers
to its parents' nodes, never to Tensors: an intermediate result that no rule reads is freed as soon as its Tensor is.
"""

from __future__ import annotations

import inspect
import itertools
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from gencore import _core

if TYPE_CHECKING:
    from gencore.autograd.tensors import Tensor

Rule = Callable[..., Any]

_next_order = itertools.count(1).__next__


class _Mode(threading.local):
    """Whether calls are recorded, for each thread."""

    enabled = True


mode = _Mode()


@contextmanager
def recording(enabled: bool) -> Iterator[None]:
    """Record, or do not record, in this context."""
    before = mode.enabled
    mode.enabled = enabled
    try:
        yield
    finally:
        mode.enabled = before


def no_grad() -> AbstractContextManager[None]:
    """Context (or decorator) in which nothing is recorded: no history, and Tensors may be edited in place."""
    return recording(False)


def enable_grad() -> AbstractContextManager[None]:
    """Context (or decorator) that undoes a `no_grad` around it."""
    return recording(True)


def is_grad_enabled() -> bool:
    """Whether calls on Tensors are being recorded in this thread."""
    return mode.enabled


# --- watching memory ------------------------------------------------------------------------------------------

# Memory is watched by a list [edits]: Tensors that share memory share the list, and in-place edits of a Tensor count
# up. Where the array itself has been handed out (`Tensor.data`, an array given to an op), edits cannot be counted: the
# list goes on with the array and a fingerprint of its bytes, [edits, array, fingerprint], taken again when it matters.
Watch = list[Any]


def fingerprint(array: Any) -> int:
    """Hash the bytes of an array; 0 on a device, whose memory is not read back."""
    return _core.fingerprint(array) if isinstance(array, np.ndarray) else 0


def edits_of(watch: Watch) -> int:
    """How often watched memory has been edited."""
    if len(watch) > 1:
        now = fingerprint(watch[1])
        if now != watch[2]:
            watch[0] += 1
            watch[2] = now
    return int(watch[0])


# --- nodes --------------------------------------------------------------------------------------------------


class Leaf:
    """Where a gradient is collected: the node of a Tensor that was made with ``requires_grad=True``."""

    __slots__ = ("dtype", "grad", "shape")
    order = 0

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self.shape, self.dtype = shape, dtype
        self.grad: Tensor | None = None


class Node:
    """One recorded call. Stands in for the arguments that no rule reads: it knows their shape and dtype."""

    __slots__ = ("ans", "args", "dtype", "kwargs", "marks", "op", "order", "parents", "shape")
    args: list[Any] | None  # arrays where a rule reads them, else the parent's node; None once freed
    marks: list[tuple[Watch, int]]  # kept memory, and how often it had been edited by then

    def __init__(
        self, op: Op, parents: list[AnyNode | None], args: list[Any], kwargs: dict[str, Any]
    ) -> None:
        self.op, self.parents, self.args, self.kwargs = op, parents, args, kwargs
        self.order = _next_order()
        self.ans: Any = None
        self.marks = []
        self.shape: Any  # a tuple of them, and of dtypes, for an op with several results
        self.dtype: Any

    @property
    def ndim(self) -> int:
        """Number of axes of the result."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of elements of the result."""
        return int(np.prod(self.shape, dtype=np.int64))

    def check(self) -> None:
        """Refuse to differentiate what is gone or was edited since."""
        if self.args is None:
            raise RuntimeError(
                f"backward: what {self.op.name} kept for its gradient was freed by an earlier backward pass; "
                "give that one retain_graph=True"
            )
        for watch, edits in self.marks:
            if edits_of(watch) != edits:
                raise RuntimeError(
                    f"backward: an array that {self.op.name} kept for its gradient was edited in place since; "
                    "edit a copy, or edit after backward"
                )


class Output:
    """One of several results of a recorded call."""

    __slots__ = ("dtype", "index", "node", "order", "shape")

    def __init__(self, node: Node, index: int, data: Any) -> None:
        self.node, self.index, self.order = node, index, _next_order()
        self.shape, self.dtype = data.shape, data.dtype


AnyNode = Leaf | Node | Output

TRACED = 1 << 62  # an argument of an op that has a history
ANSWER = 1  # a rule reads the result; bit i + 1: argument i
_MOST = 60  # arguments that rules may tell apart


class Op:
    """A function of arrays and the rules of its gradient."""

    __slots__ = ("differentiable", "fun", "joint", "name", "rules", "signature", "uses", "view")

    def __init__(self, fun: Callable[..., Any], view: bool) -> None:
        self.fun, self.view = fun, view
        self.name: str = getattr(fun, "__name__", repr(fun)).strip("_")
        self.rules: tuple[Rule | None, ...] = ()
        self.joint: Rule | None = None
        self.uses: tuple[int, ...] = (
            TRACED,
        ) * _MOST  # for each argument with a history, what its rule reads
        self.differentiable: bool | None = None
        self.signature: inspect.Signature | None = None

    def declare(self, rules: tuple[Rule | None, ...], joint: Rule | None) -> None:
        """Take the rules, and find out what they read."""
        self.rules, self.joint, self.differentiable = rules, joint, True
        if joint is not None:
            self.uses = (TRACED | _reads(joint, 2),) * _MOST
        else:
            own = tuple(TRACED | (0 if rule is None else _reads(rule, 1)) for rule in rules)
            self.uses = own + (TRACED,) * (_MOST - len(own))

    def rule(self, argument: int) -> Rule:
        """Rule for one argument."""
        rule = self.rules[argument] if argument < len(self.rules) else None
        if rule is not None:
            return rule
        if self.differentiable is False:
            raise TypeError(
                f"{self.name}: has no gradient (it is declared nondiff); detach() its argument to go on"
            )
        raise TypeError(
            f"{self.name}: has no gradient rule for argument {argument}; declare it with gc.defvjp, or gc.nondiff"
        )


def _reads(rule: Rule, skip: int) -> int:
    """Bits of what a rule reads: parameters whose names do not start with an underscore."""
    reads, bit = 0, ANSWER
    for parameter in list(inspect.signature(rule).parameters.values())[skip:]:
        named = not parameter.name.startswith("_")
        if parameter.kind is parameter.VAR_POSITIONAL:
            return reads | (((1 << _MOST) - bit) if named else 0)
        if parameter.kind in (parameter.KEYWORD_ONLY, parameter.VAR_KEYWORD):
            break
        reads |= bit if named else 0
        bit <<= 1
    return reads
