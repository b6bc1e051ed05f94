"""Going back: gradients flow from results to leaves along the tape.

In a first-order pass the rules run on plain arrays and cost what NumPy costs; under ``create_graph=True`` the same
rules run on Tensors and are recorded themselves, which makes second derivatives. What a node kept is let go of on the
way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from gencore.autograd.tape import AnyNode, Leaf, Node, Output, recording
from gencore.autograd.tensors import Tensor, wrap

__all__ = ["grad"]


def _reachable(roots: Iterable[AnyNode]) -> list[AnyNode]:
    """All nodes that the roots depend on, the latest first."""
    seen = set(roots)
    stack = list(seen)
    while stack:
        node = stack.pop()
        if type(node) is Node:
            for parent in node.parents:
                if parent is not None and parent not in seen:
                    seen.add(parent)
                    stack.append(parent)
        elif type(node) is Output and node.node not in seen:
            seen.add(node.node)
            stack.append(node.node)
    return sorted(seen, key=lambda n: n.order, reverse=True)


def _summed_to(g: Any, shape: tuple[int, ...]) -> Any:
    """Undo broadcasting: sum over the axes that were added or stretched."""
    extra = len(g.shape) - len(shape)
    if extra < 0:
        return np.broadcast_to(g, shape)
    axes = tuple(range(extra)) + tuple(
        i + extra for i, n in enumerate(shape) if n == 1 and g.shape[i + extra] != 1
    )
    if axes:
        g = np.sum(g, axis=axes)
    return np.reshape(g, shape) if g.shape != shape else g


def propagate(roots: list[tuple[AnyNode, Any]], create_graph: bool, retain: bool, only: set[AnyNode] | None,
               found: Callable[[AnyNode, Any], None]) -> None:  # fmt: skip
    """Carry gradients from the roots to the leaves, or to the nodes `only`, and hand them to `found`."""
    grads: dict[AnyNode, Any] = {}
    for node, g in roots:
        grads[node] = grads[node] + g if node in grads else g
    nodes = _reachable(grads)
    wanted = None
    if only is not None:
        wanted = set(only)
        for node in reversed(nodes):
            parents = node.parents if type(node) is Node else (node.node,) if type(node) is Output else ()
            if any(p in wanted for p in parents):
                wanted.add(node)
    for node in nodes:
        g = grads.pop(node, None)
        if g is None or (wanted is not None and node not in wanted):
            continue
        if only is None:
            if type(node) is Leaf:
                found(node, g)
                continue
        elif node in only:
            found(node, g)
        if type(node) is Leaf:
            continue
        if type(node) is Output:
            slots = grads.setdefault(node.node, [None] * len(node.node.shape))
            slots[node.index] = g
            continue
        assert type(node) is Node
        node.check()
        args, ans, op, kwargs = node.args, node.ans, node.op, node.kwargs
        assert args is not None
        if create_graph:
            args, ans = _as_tensors(node, args, ans)
        values = None
        if op.joint is not None:
            values = op.joint(tuple(p is not None for p in node.parents), g, ans, *args, **kwargs)
        for i, parent in enumerate(node.parents):
            if parent is None or (wanted is not None and parent not in wanted):
                continue
            value = op.rule(i)(g, ans, *args, **kwargs) if values is None else values[i]
            if value is None:
                continue
            if value.shape != parent.shape:
                value = _summed_to(value, parent.shape)
            if value.dtype != parent.dtype:
                value = value.astype(parent.dtype)
            before = grads.get(parent)
            grads[parent] = value if before is None else before + value
        if not retain:
            node.args = node.ans = None
            node.marks = []


def _as_tensors(node: Node, args: list[Any], ans: Any) -> tuple[list[Any], Any]:
    """What a node kept, as Tensors that know where they came from."""
    wrapped = [
        a if p is None or isinstance(a, Leaf | Node | Output) else wrap(a, p)
        for a, p in zip(args, node.parents, strict=True)
    ]
    if isinstance(ans, tuple):
        return wrapped, tuple(wrap(a, Output(node, i, a)) for i, a in enumerate(ans))
    return wrapped, None if ans is None else wrap(ans, node)


def start(name: str, output: Tensor, gradient: Any, create_graph: bool) -> tuple[AnyNode, Any]:
    if not isinstance(output, Tensor):
        raise TypeError(f"{name}: expected a Tensor to differentiate, received {type(output).__name__}")
    if output._node is None:
        raise ValueError(
            f"{name}: expected a Tensor that depends on one with requires_grad=True, received one without"
        )
    if gradient is None:
        if output._data.size != 1:
            raise ValueError(
                f"{name}: expected a gradient, since the result has shape {output.shape}, received None"
            )
        gradient = np.ones_like(output._data)
    if not isinstance(gradient, Tensor):
        gradient = wrap(np.asarray(gradient, output.dtype) if np.isscalar(gradient) else gradient)
    if gradient.shape != output.shape:
        raise ValueError(f"{name}: expected gradient of shape {output.shape}, received {gradient.shape}")
    return output._node, gradient if create_graph else gradient._data


def backward(output: Tensor, gradient: Any, retain_graph: bool, create_graph: bool) -> None:
    """What `Tensor.backward` does."""
    root = start("backward", output, gradient, create_graph)
    taken: set[int] = {id(root[1])}

    def collect(node: AnyNode, g: Any) -> None:
        assert isinstance(node, Leaf)
        if isinstance(g, Tensor):
            node.grad = g if node.grad is None else node.grad + g
        elif node.grad is None:
            # Nobody else may own the memory: optimizers and clipping write to it.
            node.grad = wrap(g.copy() if g.base is not None or id(g) in taken else g)
            taken.add(id(node.grad._data))
        else:
            node.grad = wrap(node.grad._data + g)

    with recording(create_graph):
        propagate([root], create_graph, retain_graph or create_graph, None, collect)


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
    many = not isinstance(inputs, Tensor)
    ins = [inputs] if isinstance(inputs, Tensor) else list(inputs)
    outs = [outputs] if isinstance(outputs, Tensor) else list(outputs)
    weights = [grad_outputs] if isinstance(outputs, Tensor) else grad_outputs or [None] * len(outs)
    for i, x in enumerate(ins):
        if not isinstance(x, Tensor) or x._node is None:
            raise ValueError(
                f"grad: expected input {i} to be a Tensor with requires_grad=True, received {x!r:.60}"
            )
    results: dict[AnyNode, Any] = {}
    roots = [start("grad", o, w, create_graph) for o, w in zip(outs, weights, strict=True)]
    with recording(create_graph):
        propagate(roots, create_graph, create_graph if retain_graph is None else retain_graph,
                   {x._node for x in ins if x._node is not None}, results.__setitem__)  # fmt: skip
    found: list[Tensor | None] = []
    for i, x in enumerate(ins):
        assert x._node is not None
        g = results.get(x._node)
        if g is None and not allow_unused:
            raise ValueError(
                f"grad: the outputs do not depend on input {i}; give allow_unused=True to get None"
            )
        found.append(g if g is None or isinstance(g, Tensor) else wrap(g))
    return tuple(found) if many else found[0]
