"""What the families' Python sides share: arrays as the matrices that kernels take, and outputs beside their inputs.

An array is on a CUDA device if it has ``__cuda_array_interface__``: CuPy's, PyTorch's, Numba's and others. No package
is imported here that the caller has not imported.
"""

import math
import sys
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np

from gencore import _core
from gencore.kernels._errors import strided

__all__ = [
    "as_matrix", "cast", "contiguous", "empty", "empty_like", "full", "is_contiguous", "is_cuda_array", "levels_or_nan",
    "new", "placed", "same_shape", "sums_of_rows",
]  # fmt: skip


def is_cuda_array(array: Any) -> bool:
    """Whether the memory of an array is on a CUDA device."""
    return not isinstance(array, np.ndarray) and hasattr(array, "__cuda_array_interface__")


def _torch_of(array: Any) -> Any:
    """PyTorch if the array is a tensor of it, else None."""
    torch = sys.modules.get("torch")
    return torch if torch is not None and isinstance(array, torch.Tensor) else None


def _on_device_of(array: Any) -> AbstractContextManager[Any]:
    """While in scope, the device of a CuPy array is CuPy's current one, where it makes arrays and runs its kernels."""
    if _torch_of(array) is not None or not hasattr(getattr(array, "device", None), "__enter__"):
        return nullcontext()
    device: AbstractContextManager[Any] = array.device
    return device


def _torch_dtype(torch: Any, dtype: Any) -> Any:
    return getattr(torch, np.dtype(dtype).name)


def as_matrix(op: str, name: str, array: Any) -> Any:
    """Rows x last axis of an array, sharing its memory. What the kernel would refuse is left for it to say."""
    if isinstance(array, np.ndarray):
        if array.ndim == 2:
            return array
        in_order = array.flags.c_contiguous
    elif is_cuda_array(array) and len(array.shape) != 2:
        in_order = array.__cuda_array_interface__.get("strides") is None
    else:
        return array
    if not in_order:
        raise strided(op, name)
    columns = array.shape[-1] if len(array.shape) > 0 else 1
    return array.reshape(math.prod(array.shape[:-1]), columns)


def same_shape(op: str, name: str, array: Any, of: str, like: Any) -> None:
    """Raise unless two arrays agree before they become matrices; of two matrices the kernel says it itself."""
    shape, expected = np.shape(array), np.shape(like)
    if shape != expected and not len(shape) == len(expected) == 2:
        raise ValueError(f"{op}: expected {name} of shape {expected}, that of {of}, received {shape}")


def is_contiguous(array: Any) -> bool:
    """Whether the array is in C order."""
    if not is_cuda_array(array):
        return bool(array.flags.c_contiguous)
    return array.__cuda_array_interface__.get("strides") is None


def contiguous(array: Any) -> Any:
    """The array, or a copy of it in C order."""
    if is_contiguous(array):
        return array
    with _on_device_of(array):
        return array.contiguous() if hasattr(array, "contiguous") else array.copy(order="C")


_LARGE = 16384  # elements, from which memory that the kernels keep is quicker than what NumPy takes from the system


def _on_host(shape: tuple[int, ...], dtype: Any) -> Any:
    return np.empty(shape, dtype) if math.prod(shape) < _LARGE else _core.empty(shape, dtype)


def empty(like: Any, shape: tuple[int, ...], dtype: Any) -> Any:
    """A new array where `like` is: NumPy's, or of the kind of a CUDA array."""
    if not is_cuda_array(like):
        return _on_host(shape, dtype)
    torch = _torch_of(like)
    if torch is not None:
        return torch.empty(shape, dtype=_torch_dtype(torch, dtype), device=like.device)
    if not hasattr(like, "__array_function__"):
        raise TypeError(
            f"expected an array that numpy.empty_like understands, received {type(like).__name__}"
        )
    with _on_device_of(like):
        return np.empty_like(like, dtype=dtype, shape=shape)


def cast(array: Any, dtype: Any) -> Any:
    """The array as one of another dtype; itself if it has that already."""
    torch = _torch_of(array)
    if torch is not None:
        return array.to(_torch_dtype(torch, dtype))
    if not is_cuda_array(array):
        return np.asarray(array, dtype)
    with _on_device_of(array):
        return array.astype(dtype)


def levels_or_nan(array: Any, levels: int) -> Any:
    """Levels on a device as float32, NaN where one is not below `levels`."""
    x = cast(array, np.float32)
    package: Any = _torch_of(x) or np
    with _on_device_of(x):
        return package.where(x < levels, x, float("nan"))


def sums_of_rows(array: Any) -> Any:
    """Of a matrix, in float64."""
    torch = _torch_of(array)
    if torch is not None:
        return array.sum(1, dtype=torch.float64)
    with _on_device_of(array):
        return np.sum(array, axis=1, dtype=np.float64)


def empty_like(array: Any) -> Any:
    """A new array of the same shape and dtype, where the array is."""
    torch = _torch_of(array)
    if torch is not None and is_cuda_array(array):
        return torch.empty_like(array)
    if isinstance(array, np.ndarray):
        return _on_host(array.shape, array.dtype)
    with _on_device_of(array):
        return np.empty_like(array)


def full(like: Any, shape: tuple[int, ...], value: float, dtype: Any) -> Any:
    """`empty`, filled; on a device by one kernel on its stream."""
    if not is_cuda_array(like):
        out = _on_host(shape, dtype)
        out.fill(value)
        return out
    torch = _torch_of(like)
    if torch is not None:
        return torch.full(shape, value, dtype=_torch_dtype(torch, dtype), device=like.device)
    with _on_device_of(like):
        return np.full_like(like, value, dtype=dtype, shape=shape)


def placed(like: Any, values: Any, dtype: Any) -> Any:
    """Values from the host as an array where `like` is; what is on a device already stays as it is."""
    if is_cuda_array(values):
        return values
    if not is_cuda_array(like):
        return np.asarray(values, dtype)
    torch = _torch_of(like)
    if torch is not None:
        return torch.as_tensor(np.asarray(values, dtype), device=like.device)
    with _on_device_of(like):
        return np.asarray(np.asarray(values, dtype), like=like)


def new(op: str, shape: tuple[int, ...], dtype: Any, device: Any) -> Any:
    """A new array on a device: "cpu" (NumPy's), "cuda" (CuPy's, on its current device), or where an array is."""
    if isinstance(device, np.ndarray) or is_cuda_array(device):
        return empty(device, shape, dtype)
    if device == "cpu":
        return _on_host(shape, dtype)
    if device == "cuda":
        try:
            import cupy  # type: ignore[import-not-found,unused-ignore]
        except ImportError as error:
            raise ImportError(f"{op}: device 'cuda' needs CuPy: pip install 'gencore[cuda]'") from error
        return cupy.empty(shape, dtype)
    raise ValueError(f"{op}: expected device to be 'cpu', 'cuda' or an array, received {device!r}")
