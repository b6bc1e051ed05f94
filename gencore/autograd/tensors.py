"""Tensors: arrays that remember how they were computed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from gencore.autograd._operators import Operators
from gencore.autograd.tape import AnyNode, Leaf, Node, Output, Watch, hand_out, mode

__all__ = ["Tensor", "tensor"]


class Tensor(Operators):
    """An array that remembers how it was computed. Made by `gencore.tensor` and by every op on Tensors.

    Operators, ``np`` functions and NumPy-named methods work as on arrays, with broadcasting; so do the functions of
    `gencore.kernels`. Comparisons give Tensors of bool. NumPy's functions may be called directly: ``np.exp(t)``.
    """

    __slots__ = ("__weakref__", "_data", "_node", "_watch")
    _data: Any
    _node: AnyNode | None
    _watch: Watch
    __array_priority__ = 1000.0
    __hash__ = object.__hash__

    def __init__(self, *_: Any) -> None:
        raise TypeError("Tensor: make Tensors with gencore.tensor(array, requires_grad=...)")

    # -- what it is

    @property
    def shape(self) -> tuple[int, ...]:
        """Lengths of the axes."""
        return tuple(self._data.shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the elements."""
        found: np.dtype[Any] = self._data.dtype
        return found

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return int(self._data.ndim)

    @property
    def size(self) -> int:
        """Number of elements."""
        return int(self._data.size)

    @property
    def device(self) -> str:
        """Where the array lies: "cpu" or "cuda"."""
        return "cpu" if isinstance(self._data, np.ndarray) else "cuda"

    @property
    def requires_grad(self) -> bool:
        """Whether gradients flow into this Tensor."""
        return self._node is not None

    @property
    def is_leaf(self) -> bool:
        """Whether it was made by the user, not by an op on Tensors that require gradients."""
        return self._node is None or isinstance(self._node, Leaf)

    @property
    def data(self) -> Any:
        """The array itself, no copy. Editing it where a recorded call still needs it makes backward raise."""
        hand_out(self._watch, self._data)
        return self._data

    def numpy(self) -> NDArray[Any]:
        """Return the array itself, without history and without a copy; from a device, a copy on the host."""
        array: NDArray[Any] = self.data if isinstance(self._data, np.ndarray) else self._data.get()
        return array

    def item(self) -> float | int | bool:
        """Return the only element, as a Python number."""
        number: float | int | bool = self._data.item()
        return number

    def detach(self) -> Tensor:
        """Return the same array without history."""
        return wrap(self._data, None, self._watch)

    def copy(self) -> Tensor:
        """Return a Tensor of its own memory; the gradient flows through."""
        return +self

    @property
    def grad(self) -> Tensor | None:
        """Sum of the gradients that backward passes brought here; None before the first. Leaves only."""
        return self._node.grad if isinstance(self._node, Leaf) else None

    @grad.setter
    def grad(self, value: Tensor | None) -> None:
        if not isinstance(self._node, Leaf):
            raise ValueError("grad: expected a leaf Tensor with requires_grad=True to give a gradient to")
        if value is not None and (not isinstance(value, Tensor) or value.shape != self.shape):
            raise ValueError(f"grad: expected a Tensor of shape {self.shape} or None, received {value!r:.60}")
        self._node.grad = value

    def backward(
        self, gradient: Any = None, *, retain_graph: bool = False, create_graph: bool = False
    ) -> None:
        """Add the gradient of this Tensor to ``.grad`` of every leaf that it depends on.

        Parameters
        ----------
        gradient : array or Tensor, optional
            Weights of the elements; may be left out if there is one.
        retain_graph : bool
            Keep what the tape holds, for another pass. Otherwise it is freed on the way.
        create_graph : bool
            Record the pass, so that the gradients can be differentiated.

        Raises
        ------
        ValueError, TypeError
            No history, no gradient for a result of several elements, another shape, an op without a rule.
        RuntimeError
            A kept array was edited in place, or freed by an earlier pass.
        """
        from gencore.autograd.backward import backward

        backward(self, gradient, retain_graph, create_graph)

    # -- in place

    def _bump(self) -> None:
        """Note an edit in place, so that calls which kept this memory refuse to be differentiated."""
        self._watch[0] += 1

    def _may_edit(self, what: str, value: Any = None) -> None:
        if mode.enabled and (
            self._node is not None or (isinstance(value, Tensor) and value._node is not None)
        ):
            raise RuntimeError(
                f"{what}: a Tensor with history (or a leaf that requires gradients) is not edited in place; "
                "use no_grad(), or compute a new one (np.where, np.concatenate, +)"
            )

    def __setitem__(self, index: Any, value: Any) -> None:
        self._may_edit("setitem", value)
        self._data[array_index(index, self._data)] = value._data if isinstance(value, Tensor) else value
        self._bump()

    def _in_place(self, ufunc: Any, other: Any) -> Tensor:
        if mode.enabled and self._node is not None and not isinstance(self._node, Leaf):
            result: Tensor = ufunc(self, other)  # rebinds the name, which is what x += y means for a value
            return result
        self._may_edit(f"in-place {ufunc.__name__}", other)
        ufunc(self._data, other._data if isinstance(other, Tensor) else other, out=self._data)
        self._bump()
        return self

    def __iadd__(self, other: Any) -> Tensor:
        return self._in_place(np.add, other)

    def __isub__(self, other: Any) -> Tensor:
        return self._in_place(np.subtract, other)

    def __imul__(self, other: Any) -> Tensor:
        return self._in_place(np.multiply, other)

    def __itruediv__(self, other: Any) -> Tensor:
        return self._in_place(np.true_divide, other)

    def __ifloordiv__(self, other: Any) -> Tensor:
        return self._in_place(np.floor_divide, other)

    def __imod__(self, other: Any) -> Tensor:
        return self._in_place(np.remainder, other)

    def __ipow__(self, other: Any) -> Tensor:
        return self._in_place(np.power, other)

    def __imatmul__(self, other: Any) -> Tensor:
        return self._in_place(np.matmul, other)

    def __iand__(self, other: Any) -> Tensor:
        return self._in_place(np.bitwise_and, other)

    def __ior__(self, other: Any) -> Tensor:
        return self._in_place(np.bitwise_or, other)

    def __ixor__(self, other: Any) -> Tensor:
        return self._in_place(np.bitwise_xor, other)

    # -- Python's protocols; operators, methods and NumPy's functions are added by gencore.autograd.functions

    def __len__(self) -> int:
        return len(self._data)

    def __iter__(self) -> Iterator[Tensor]:
        return (self[i] for i in range(len(self)))

    def __bool__(self) -> bool:
        return bool(self._data)

    def __float__(self) -> float:
        return float(self._data)

    def __int__(self) -> int:
        return int(self._data)

    def __index__(self) -> int:
        return int(self._data.__index__())

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> NDArray[Any]:
        if self._node is not None:
            raise TypeError(
                "numpy: expected an array, received a Tensor that requires gradients "
                "(cure: .numpy(), which drops its history)"
            )
        return np.array(self.numpy(), dtype, copy=copy)

    def __repr__(self) -> str:
        data = self._data if isinstance(self._data, np.ndarray) else self._data.get()
        text = np.array2string(data, separator=", ", prefix="tensor(")
        dtype = "" if self.dtype in (np.float32, np.int64, np.bool_) else f", dtype={self.dtype}"
        history = (
            ""
            if self._node is None
            else ", requires_grad=True"
            if self.is_leaf
            else f", made by {self._made_by()}"
        )
        return f"tensor({text}{dtype}{history})"

    def _made_by(self) -> str:
        node = self._node.node if isinstance(self._node, Output) else self._node
        return node.op.name if isinstance(node, Node) else ""

    def __reduce__(self) -> Any:
        if self._node is not None and not self.is_leaf:
            raise TypeError(
                "pickle: expected a Tensor without history, received the result of an op (cure: .detach())"
            )
        return tensor, (self._data, self.requires_grad)

    def __deepcopy__(self, memo: Any) -> Tensor:
        return tensor(self._data, self.requires_grad)


def wrap(data: Any, node: AnyNode | None = None, watch: Watch | None = None) -> Tensor:
    """Make a Tensor of an array, without a copy."""
    t = object.__new__(Tensor)
    t._data, t._node, t._watch = data, node, [0] if watch is None else watch
    return t


def plain(x: Any) -> Any:
    """The array of a Tensor; anything else as it is."""
    return x._data if isinstance(x, Tensor) else x


def array_index(index: Any, x: Any) -> Any:
    """An index of the array x, with arrays beside it in place of Tensors and lists; those may be edited later."""
    if isinstance(index, tuple):
        return tuple([_index_part(part, x) for part in index])
    return _index_part(index, x)


def _index_part(index: Any, x: Any) -> Any:
    index = np.array(index, None if index else np.int64) if type(index) is list else plain(index)
    if isinstance(index, np.ndarray) and not isinstance(x, np.ndarray):
        return np.asarray(index, like=x)
    return index


def tensor(x: Any, requires_grad: bool = False, *, dtype: DTypeLike | None = None) -> Tensor:
    """Make a Tensor from an array or a list; the data are copied.

    Parameters
    ----------
    x : array_like, or an array on a device
        Values. Python numbers become float32 (or int64, bool); arrays keep their dtype. A Tensor gives a new leaf.
    requires_grad : bool
        Collect gradients in ``.grad``. Floating-point Tensors only.
    dtype : dtype, optional
        Convert to this type.

    Returns
    -------
    Tensor

    Raises
    ------
    TypeError
        Gradients are asked for integers, or the values are no numbers.
    """
    if isinstance(x, Tensor):
        x = x._data
    if hasattr(x, "__cuda_array_interface__"):
        data = x.astype(x.dtype if dtype is None else dtype)
    else:
        known = hasattr(x, "dtype")
        data = np.array(x, dtype, order="C")
        if not known and dtype is None and data.dtype == np.float64:
            data = data.astype(np.float32)
    if data.dtype.kind not in "biuf":
        raise TypeError(f"tensor: expected numbers, received dtype {data.dtype}")
    if requires_grad and data.dtype.kind != "f":
        raise TypeError(f"tensor: expected a floating-point dtype for requires_grad, received {data.dtype}")
    return wrap(data, Leaf(data.shape, data.dtype) if requires_grad else None)
