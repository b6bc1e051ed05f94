"""What optimizers and averages ask of parameters, and of what they load."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gencore._devices import to_host
from gencore.autograd import Tensor
from gencore.kernels._arrays import is_cuda_array, placed


def listed(params: Any) -> list[Tensor]:
    return [params] if isinstance(params, Tensor) else list(params)


def check_parameter(expected: str, p: Any, *, leaf: bool = True) -> None:
    if not isinstance(p, Tensor):
        raise TypeError(f"{expected} to be a Tensor, received {type(p).__name__}")
    if p.dtype != np.float32:
        raise TypeError(f"{expected} to be float32, received {p.dtype}")
    if not in_place(p._data):
        raise TypeError(f"{expected} to be contiguous and writable (cure: gencore.tensor(...), which copies)")
    if leaf and not (p.requires_grad and p.is_leaf):
        received = "the result of an op" if p.requires_grad else "requires_grad=False"
        raise ValueError(f"{expected} to be a leaf Tensor with requires_grad=True, received {received}")


def in_place(array: Any) -> bool:
    """Whether a kernel can write into an array as it lies."""
    if is_cuda_array(array):
        return array.__cuda_array_interface__.get("strides") is None
    return bool(array.flags.c_contiguous and array.flags.writeable)


def check_names(what: str, where: str, found: Mapping[str, Any], expected: set[str]) -> None:
    missing, unexpected = sorted(expected - found.keys()), sorted(found.keys() - expected)
    if missing or unexpected:
        faults = [
            f"{kind} {', '.join(names)}"
            for kind, names in (("missing", missing), ("unexpected", unexpected))
            if names
        ]
        raise ValueError(
            f"{what}: expected {where} to hold {', '.join(sorted(expected))}; {'; '.join(faults)}"
        )


def check_length(what: str, found: Any, expected: Any) -> Any:
    if len(found) != len(expected):
        raise ValueError(f"{what}: expected {len(expected)} entries, received {len(found)}")
    return found


def copy_like(what: str, array: Any, like: NDArray[np.float32]) -> NDArray[np.float32]:
    """A copy where `like` is."""
    array = to_host(array)
    if array.shape != like.shape or array.dtype != np.float32:
        raise ValueError(
            f"{what}: expected float32 of shape {like.shape}, received {array.dtype} of shape {array.shape}"
        )
    return placed(like, np.array(array, order="C"), np.float32)  # type: ignore[no-any-return]
