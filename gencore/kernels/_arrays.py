"""What the families' Python sides share: arrays as the matrices that kernels take."""

from typing import Any

import numpy as np

__all__ = ["as_matrix"]


def as_matrix(op: str, name: str, array: Any) -> Any:
    """Rows x last axis of an array, sharing its memory. What the kernel would refuse is left for it to say."""
    if not isinstance(array, np.ndarray) or array.ndim == 2:
        return array
    if not array.flags.c_contiguous:
        raise TypeError(
            f"{op}: expected {name} to be contiguous in C order (cure: numpy.ascontiguousarray), "
            "received a strided array"
        )
    columns = array.shape[-1] if array.ndim > 0 else 1
    return array.reshape(array.size // columns if columns > 0 else 0, columns)
