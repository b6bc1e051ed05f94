"""Where a model's arrays lie: "cpu" (NumPy's) or "cuda" (CuPy's), and the ways between the two."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

__all__ = ["check_device", "from_device", "place", "to_host"]


def check_device(what: str, device: Any) -> Literal["cpu", "cuda"]:
    """Return the name of a device; CuPy must be there for "cuda".

    Raises
    ------
    ValueError, ImportError
        Another name; CuPy is not installed.
    """
    if device == "cpu":
        return "cpu"
    if device != "cuda":
        raise ValueError(f"{what}: expected device to be 'cpu' or 'cuda', received {device!r}")
    _cupy(what)
    return "cuda"


def _cupy(what: str) -> Any:
    try:
        import cupy  # type: ignore[import-not-found,unused-ignore]
    except ImportError as error:
        raise ImportError(f"{what}: device 'cuda' needs CuPy: pip install 'gencore[cuda]'") from error
    return cupy


def place(what: str, array: Any, device: str) -> Any:
    """Return the array on this device: itself where it is there already, else a copy."""
    if device == "cpu":
        return to_host(array)
    return _cupy(what).asarray(array)


def from_device(value: Any) -> Any:
    """Return what lies on a device as a NumPy array, anything else as it is."""
    return to_host(value) if hasattr(value, "__cuda_array_interface__") else value


def to_host(array: Any) -> NDArray[Any]:
    """Return a NumPy array: of an array on a device a copy, which waits for what is queued before it."""
    if isinstance(array, np.ndarray):
        return array
    if hasattr(array, "__cuda_array_interface__"):
        host: NDArray[Any] = array.get() if hasattr(array, "get") else array.cpu().numpy()
        return host
    return np.asarray(array)
