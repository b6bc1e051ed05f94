"""The tape: what is recorded of a call, and how edits of the arrays that it keeps are noticed.

A `Node` stands for one call. It keeps the arguments that the gradient rules of its op read, and no others, and refers
to its parents' nodes, never to Tensors: an intermediate result that no rule reads is freed as soon as its Tensor is.
"""

from __future__ import annotations

import inspect
import itertools
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from gencore import _core

if TYPE_CHECKING:
    from gencore.autograd.tensors import Tensor

Rule = Callable[..., Any]

_new = object.__new__
next_order = itertools.count(1).__next__


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


def hand_out(watch: Watch, array: Any) -> None:
    """Watch the bytes from now on: of all the memory that views share, not of this view alone."""
    if len(watch) == 1:
        while isinstance(array, np.ndarray) and isinstance(array.base, np.ndarray):
            array = array.base
        watch += [array, fingerprint(array)]


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
    order = 0.0
    parents: Sequence[AnyNode] = ()

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self.shape, self.dtype = shape, dtype
        self.grad: Tensor | None = None


class Node:
    """One recorded call; `record` makes them. Stands in for its result where no rule reads that."""

    __slots__ = ("ans", "args", "dtype", "kwargs", "marks", "op", "order", "parents", "shape")
    op: Op
    order: int  # of calls: a result is always later than what it was made of
    parents: list[AnyNode | None]  # of each argument
    args: list[Any] | None  # arrays that a rule reads, else what knows their shape and dtype; None once freed
    kwargs: dict[str, Any]
    ans: Any
    marks: Sequence[tuple[Watch, int]]  # kept memory, and how often it had been edited by then
    shape: Any  # a tuple of them, and of dtypes, for an op with several results
    dtype: Any

    def freed(self) -> RuntimeError:
        """Say that what this node kept is gone."""
        return RuntimeError(
            f"backward: what {self.op.name} kept for its gradient was freed by an earlier backward pass; "
            "give that one retain_graph=True"
        )

    def edited(self) -> RuntimeError:
        """Say that what this node kept is no longer what it was."""
        return RuntimeError(
            f"backward: an array that {self.op.name} kept for its gradient was edited in place since; "
            "edit a copy, or edit after backward"
        )


class Output:
    """One of several results of a recorded call; the same one, however often it is made."""

    __slots__ = ("dtype", "index", "node", "order", "parents", "shape")

    def __init__(self, node: Node, index: int, data: Any) -> None:
        self.node, self.index, self.order, self.parents = node, index, node.order + 0.5, (node,)
        self.shape, self.dtype = data.shape, data.dtype

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Output) and self.node is other.node and self.index == other.index

    def __hash__(self) -> int:
        return hash((id(self.node), self.index))


class Absent:
    """What is known of an argument without history that no rule reads."""

    __slots__ = ("dtype", "shape")
    shape: tuple[int, ...]
    dtype: np.dtype[Any]


def absent(argument: Any) -> Any:
    """What stands in for an argument that is not kept; what is no array is kept."""
    if not hasattr(argument, "dtype"):
        return argument
    found = _new(Absent)
    found.shape, found.dtype = argument.shape, argument.dtype
    return found


def like(data: tuple[Any, ...], results: list[Any]) -> tuple[Any, ...]:
    """Keep the names of a named tuple."""
    made: tuple[Any, ...] = getattr(type(data), "_make", tuple)(results)
    return made


AnyNode = Leaf | Node | Output

# What rules read, as bits; bit i + 2 is argument i.
TRACED = 1  # an argument has a history
ANSWER = 2  # a rule reads the result


class Op:
    """A function of arrays and the rules of its gradient."""

    __slots__ = (
        "differentiable",
        "foreign",
        "fun",
        "joint",
        "lists",
        "name",
        "rules",
        "signature",
        "uses",
        "view",
    )

    def __init__(self, fun: Callable[..., Any], view: bool) -> None:
        self.fun, self.view = fun, view
        self.name: str = getattr(fun, "__name__", repr(fun)).strip("_")
        self.rules: tuple[Rule | None, ...] = ()
        self.joint: Rule | None = None
        # For each argument, what its rule reads; the last entry stands for all that follow.
        self.uses: tuple[int, ...] = (TRACED,)
        self.differentiable: bool | None = None
        self.foreign = False  # whether its rules are a user's, who may return any memory
        self.lists = False  # whether lists and tuples among its arguments are arrays
        self.signature: inspect.Signature | None = None

    def declare(self, rules: tuple[Rule | None, ...], joint: Rule | None) -> None:
        """Take the rules, and find out what they read."""
        self.rules, self.joint, self.differentiable = rules, joint, True
        given = [rule for rule in (*rules, joint) if rule is not None]
        self.foreign = any(not str(getattr(r, "__module__", "")).startswith("gencore.") for r in given)
        if joint is not None:
            self.uses = (TRACED | _reads(joint, 2),)
        else:
            self.uses = (*(TRACED | (0 if rule is None else _reads(rule, 1)) for rule in rules), TRACED)

    def missing(self, argument: int) -> TypeError:
        """Say that an argument has no rule."""
        if self.differentiable is False:
            return TypeError(
                f"{self.name}: has no gradient (it is declared nondiff); detach() its argument to go on"
            )
        return TypeError(
            f"{self.name}: has no gradient rule for argument {argument}; declare it with gc.defvjp, or gc.nondiff"
        )


def _reads(rule: Rule, skip: int) -> int:
    """Bits of what a rule reads: parameters whose names do not start with an underscore."""
    reads, bit = 0, ANSWER
    for parameter in list(inspect.signature(rule).parameters.values())[skip:]:
        named = not parameter.name.startswith("_")
        if parameter.kind is parameter.VAR_POSITIONAL:
            return reads | (-bit if named else 0)  # this bit and all above it
        if parameter.kind in (parameter.KEYWORD_ONLY, parameter.VAR_KEYWORD):
            break
        reads |= bit if named else 0
        bit <<= 1
    return reads
