"""Gradients as kernels take them: what NumPy hands back may be strided or broadcast."""

from typing import Any

from gencore.autograd import Tensor, defvjp, primitive
from gencore.kernels import _arrays

contiguous = primitive(_arrays.contiguous, view=True)
"""The same array or Tensor in C order, copied only where it is not."""

defvjp(contiguous, lambda g, _ans, _x: g)


def in_order(x: Any) -> Any:
    """A strided Tensor, such as some columns of a layer's, copied; an array as it is, for the kernel to refuse.

    NumPy's own cure, ascontiguousarray, would lose a Tensor's history.
    """
    if isinstance(x, Tensor) and not _arrays.is_contiguous(x._data):
        return contiguous(x)
    return x
