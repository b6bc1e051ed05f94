"""CUDA arrays at the door: which stream their kernels run on, and how outputs are made beside them.

An array is on a CUDA device if it has ``__cuda_array_interface__``: CuPy's, PyTorch's, Numba's and others. No package
is imported here that the caller has not imported.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

__all__ = ["describe", "empty", "is_cuda_array", "load", "reshape", "stream_of"]


def load() -> None:
    """Make the CUDA kernels available to ops; the compiled module asks for it when it meets the first array.

    Raises
    ------
    ImportError
        They were not built.
    """
    from gencore import _cuda

    _cuda.load()


def describe() -> str:
    """One line: what was built, and which devices there are."""
    try:
        from gencore import _cuda
    except ImportError as error:
        if not str(error).startswith("cannot import name '_cuda'"):
            return f"built, but cannot be loaded ({error})"
        return "not built (cure: GENCORE_CUDA=1 pip install .)"
    return _cuda.describe()


def stream_of(array: Any, interface_stream: int | None) -> int:
    """The stream on which an op on `array` is queued, as a number for CUDA.

    PyTorch's current stream for its tensors, else CuPy's current stream where CuPy is imported, else the stream that
    the array's interface names, else the legacy default stream.
    """
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(array, torch.Tensor):
        return int(torch.cuda.current_stream(array.device).cuda_stream)
    cupy = sys.modules.get("cupy")
    if cupy is not None:
        return int(cupy.cuda.get_current_stream().ptr)
    return interface_stream or 0


def is_cuda_array(array: Any) -> bool:
    """Whether the memory of `array` is on a CUDA device."""
    return not isinstance(array, np.ndarray) and hasattr(array, "__cuda_array_interface__")


def empty(like: Any, shape: tuple[int, ...], dtype: Any) -> Any:
    """A new array where `like` is: NumPy's, or of the kind of a CUDA array."""
    if not is_cuda_array(like):
        return np.empty(shape, dtype)
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(like, torch.Tensor):
        return torch.empty(shape, dtype=getattr(torch, np.dtype(dtype).name), device=like.device)
    if not hasattr(like, "__array_function__"):
        raise TypeError(f"expected an array that numpy.empty_like understands, received {type(like).__name__}")
    return np.empty_like(like, dtype=dtype, shape=shape)


def reshape(array: Any, shape: tuple[int, ...]) -> Any:
    """`array` in another shape, sharing its memory; it must be contiguous."""
    return array.reshape(shape)
