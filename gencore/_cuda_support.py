"""The CUDA kernels at the door: loading them, what they are, and which stream they run on.

No package is imported here that the caller has not imported.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec
from typing import Any

__all__ = ["describe", "load", "stream_of"]


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
    if find_spec("gencore._cuda") is None:
        return "not built (cure: GENCORE_CUDA=1 pip install .)"
    try:
        from gencore import _cuda
    except ImportError as error:
        return f"built, but cannot be loaded ({error})"
    return _cuda.describe()


def stream_of(array: Any, interface_stream: int | None) -> int:
    """The stream on which an op on `array` is queued, as a number for CUDA.

    The current stream of the array's device for PyTorch's tensors and CuPy's arrays; for arrays of other packages the
    stream that their interface names, else the legacy default stream.
    """
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(array, torch.Tensor):
        return int(torch.cuda.current_stream(array.device).cuda_stream)
    cupy = sys.modules.get("cupy")
    if cupy is not None and isinstance(array, cupy.ndarray):
        return int(cupy.cuda.get_current_stream(array.device.id).ptr)
    return interface_stream or 0
