"""Going back: gradients flow from results to leaves along the tape.

In a first-order pass the rules run on plain arrays and cost what NumPy costs; under ``create_graph=True`` the same
rules run on Tensors and are recorded themselves, which makes second derivatives. What a node kept is let go of on the
way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from operator import attrgetter
from typing import Any

import numpy as np

from gencore import _core
from gencore.autograd.tape import AnyNode, Leaf, Node, Op, Output, edits_of, like, recording
from gencore.autograd.tensors import Tensor, wrap

__all__ = ["grad"]


_order = attrgetter("order")


def _reachable(roots: Iterable[AnyNode]) -> list[AnyNode]:
    """All nodes that the roots depend on, the latest first."""
    seen = set(roots)
    stack = list(seen)
    while stack:
        for parent in stack.pop().parents:
            if parent is not None and parent not in seen:
                seen.add(parent)
                stack.append(parent)
    return sorted(seen, key=_order, reverse=True)


def _fit(op: Op, argument: int, value: Any, node: AnyNode) -> Any:
    """Bring a gradient to its argument's shape and dtype: sum over the axes that were added or stretched."""
    shape = node.shape
    if value.shape != shape:
        extra = len(value.shape) - len(shape)
        if extra < 0 or any(n not in (1, m) for n, m in zip(shape, value.shape[extra:], strict=True)):
            raise ValueError(
                f"{op.name}: expected the gradient of argument {argument} to have shape {shape}, or one that "
                f"broadcasting makes of it, received {value.shape}"
            )
        axes = tuple(i for i, n in enumerate(value.shape) if i < extra or shape[i - extra] != n)
        value = np.sum(value, axis=axes) if axes else value
        if value.shape != shape:
            value = np.reshape(value, shape)
    return value if value.dtype == node.dtype else value.astype(node.dtype)


def propagate(roots: list[tuple[AnyNode, Any]], create_graph: bool, retain: bool, only: set[AnyNode] | None,
               found: Callable[[AnyNode, Any], None]) -> None:  # fmt: skip
    """Carry gradients from the roots to the leaves, or to the nodes `only`, and hand them to `found`."""
    grads: dict[AnyNode, Any] = {}
    for node, g in roots:
        grads[node] = grads[node] + g if node in grads else g
    nodes = _reachable(grads)
    wanted = None if only is None else _between(nodes, only)
    for node in nodes:
        g = grads.pop(node, None)
        if g is None or (wanted is not None and node not in wanted):
            continue
        if (type(node) is Leaf) if only is None else (node in only):
            found(node, g)
        if type(node) is not Node:
            if type(node) is Output:
                results = grads.setdefault(node.node, [None] * len(node.node.shape))
                results[node.index] = g
            continue
        args, ans, op, kwargs = node.args, node.ans, node.op, node.kwargs
        if args is None:
            raise node.freed()
        for watch, edits in node.marks:
            if (watch[0] if len(watch) == 1 else edits_of(watch)) != edits:
                raise node.edited()
        if type(g) is list:
            g = tuple(g)
        if create_graph:
            args, ans = _as_tensors(node, args, ans)
        rules = op.rules if op.joint is None else _joint(node, wanted, g, ans, args)
        i = -1
        for parent in node.parents:
            i += 1
            if parent is None or (wanted is not None and parent not in wanted):
                continue
            value: Any = rules[i] if i < len(rules) else None
            if op.joint is None:
                if value is None:
                    raise op.missing(i)
                value = value(g, ans, *args, **kwargs) if kwargs else value(g, ans, *args)
            if value is None:
                continue
            if op.foreign and value is not g:
                value = _copied(value, parent)
            if value.shape != parent.shape or value.dtype is not parent.dtype:
                value = _fit(op, i, value, parent)
            grads[parent] = grads[parent] + value if parent in grads else value
        if not retain:
            node.args = node.ans = None
            node.marks = ()


def _copied(value: Any, node: AnyNode) -> Any:
    """What a user's rule returned, as an array that nobody else has: the rule may return its argument, or a number."""
    if isinstance(value, np.generic) or not hasattr(value, "shape"):
        return np.array(value, node.dtype)
    return value.copy()


def _between(nodes: list[AnyNode], ends: set[AnyNode]) -> set[AnyNode]:
    """Those of the nodes (the latest first) that depend on the ends."""
    wanted = set(ends)
    for node in reversed(nodes):
        if not wanted.isdisjoint(node.parents):
            wanted.add(node)
    return wanted


def _joint(node: Node, wanted: set[AnyNode] | None, g: Any, ans: Any, args: list[Any]) -> Sequence[Any]:
    """Gradients of all arguments, by the rule that makes them together."""
    op, parents = node.op, node.parents
    assert op.joint is not None
    needs = tuple([p is not None and (wanted is None or p in wanted) for p in parents])
    values: Sequence[Any] = op.joint(needs, g, ans, *args, **node.kwargs)
    if not isinstance(values, tuple | list) or len(values) != len(parents):
        count = len(values) if isinstance(values, tuple | list) else type(values).__name__
        raise TypeError(
            f"{op.name}: expected its joint rule to return {len(parents)} gradients, received {count}"
        )
    return values


def _as_tensors(node: Node, args: list[Any], ans: Any) -> tuple[list[Any], Any]:
    """What a node kept, as Tensors that know where they came from."""
    wrapped = [a if p is None or a is p else wrap(a, p) for a, p in zip(args, node.parents, strict=True)]
    if isinstance(ans, tuple):
        return wrapped, like(ans, [wrap(a, Output(node, i, a)) for i, a in enumerate(ans)])
    return wrapped, None if ans is None else wrap(ans, node)


def _start(name: str, output: Tensor, gradient: Any, create_graph: bool) -> tuple[AnyNode, Any]:
    if not isinstance(output, Tensor):
        raise TypeError(f"{name}: expected a Tensor to differentiate, received {type(output).__name__}")
    if output._node is None:
        raise ValueError(
            f"{name}: expected a Tensor that depends on one with requires_grad=True, received one without"
        )
    data = output._data
    if gradient is None:
        if data.size != 1:
            raise ValueError(
                f"{name}: expected a gradient, since the result has shape {output.shape}, received None"
            )
        gradient = np.ones_like(data)
    elif not hasattr(gradient, "dtype"):  # a number, a list
        gradient = np.asarray(gradient, data.dtype, like=data)
    if gradient.shape != output.shape:
        raise ValueError(f"{name}: expected gradient of shape {output.shape}, received {gradient.shape}")
    if gradient.dtype != data.dtype:
        gradient = gradient.astype(data.dtype)
    if not isinstance(gradient, Tensor):
        gradient = wrap(gradient)
    return output._node, gradient if create_graph else gradient._data


def _own(g: Any, taken: set[int]) -> Tensor:
    """A gradient as a Tensor that shares its memory with nobody: optimizers and clipping write to it.

    Rules return their g, views of it or new arrays, so what owns its memory and is not `taken` yet belongs to nobody.
    """
    if isinstance(g, Tensor):
        mine = +g if id(g._data) in taken or not _owns(g._data) else g
    elif isinstance(g, np.generic):
        mine = wrap(np.asarray(g))
    else:
        mine = wrap(g.copy() if id(g) in taken or not _owns(g) else g)
    taken.add(id(mine._data))
    return mine


def _owns(array: Any) -> bool:
    """Whether the array is no view of another, nor of what others have."""
    return array.base is None or isinstance(array.base, _core.Memory)


def backward(output: Tensor, gradient: Any, retain_graph: bool, create_graph: bool) -> None:
    """What `Tensor.backward` does."""
    root = _start("backward", output, gradient, create_graph)
    taken = {id(root[1]._data if create_graph else root[1])}

    def collect(node: AnyNode, g: Any) -> None:
        assert isinstance(node, Leaf)
        if node.grad is None:
            node.grad = _own(g, taken)
        elif isinstance(g, Tensor):
            node.grad = node.grad + g
        else:
            node.grad = _own(node.grad._data + g, taken)

    with recording(create_graph):
        propagate([root], create_graph, retain_graph or create_graph, None, collect)


def _listed(tensors: Any) -> list[Any]:
    many = isinstance(tensors, Iterable) and not isinstance(tensors, Tensor)
    return list(tensors) if many else [tensors]


def grad(
    outputs: Tensor | Sequence[Tensor],
    inputs: Tensor | Sequence[Tensor],
    grad_outputs: Any = None,
    *,
    create_graph: bool = False,
    retain_graph: bool | None = None,
    allow_unused: bool = False,
) -> Any:
    """Gradients of the sum of `outputs` with respect to `inputs`, returned; ``.grad`` of no Tensor changes.

    Parameters
    ----------
    outputs : Tensor or sequence of Tensors
        What is differentiated.
    inputs : Tensor or sequence of Tensors
        With respect to these; intermediate results are allowed.
    grad_outputs : array, Tensor or sequence of them, optional
        Weights of the elements of `outputs`; may be left out where each has one element.
    create_graph : bool
        Record the computation of the gradients, so that they can be differentiated in turn.
    retain_graph : bool, optional
        Keep what the nodes hold, for another pass. Default: `create_graph`.
    allow_unused : bool
        Return None for an input that the outputs do not depend on, instead of raising.

    Returns
    -------
    Tensor, or a tuple of Tensors if `inputs` is a sequence

    Raises
    ------
    ValueError, TypeError
        An output without history, an input that nothing depends on, a shape that differs, an op without a rule.
    RuntimeError
        A kept array was edited in place, or freed by an earlier pass.
    """
    ins, outs = _listed(inputs), _listed(outputs)
    if grad_outputs is None:
        weights = [None] * len(outs)
    else:
        weights = [grad_outputs] if isinstance(outputs, Tensor) else list(grad_outputs)
    if len(weights) != len(outs):
        raise ValueError(
            f"grad: expected {len(outs)} grad_outputs, one for each output, received {len(weights)}"
        )
    for i, x in enumerate(ins):
        if not isinstance(x, Tensor) or x._node is None:
            raise ValueError(
                f"grad: expected input {i} to be a Tensor with requires_grad=True, received {x!r:.60}"
            )
    nodes = [x._node for x in ins if x._node is not None]
    results: dict[AnyNode, Any] = {}
    roots = [_start("grad", o, w, create_graph) for o, w in zip(outs, weights, strict=True)]
    taken = {id(g._data if create_graph else g) for _, g in roots}
    keep = create_graph if retain_graph is None else retain_graph
    found: list[Tensor | None] = []
    with recording(create_graph):
        propagate(roots, create_graph, keep, set(nodes), results.__setitem__)
        for i, node in enumerate(nodes):
            if node not in results and not allow_unused:
                raise ValueError(
                    f"grad: the outputs do not depend on input {i}; give allow_unused=True to get None"
                )
            found.append(_own(results[node], taken) if node in results else None)
    return found[0] if isinstance(inputs, Tensor) else tuple(found)
