"""Loops on arrays of a CUDA device: the same functions, compiled by numba.cuda, on CuPy's current stream."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

import numpy as np

from gencore._elementwise.scalar import Loop, load_numba

MOST_BLOCKS = 4096  # of a launch; each thread strides over the rest
LEAST_BLOCKS = 128  # small arrays are spread over the multiprocessors; of fewer blocks numba would warn

Run = Callable[[Sequence[Any], Sequence[Any], tuple[int, ...]], None]


def grid(n: int) -> tuple[int, int]:
    """Blocks for so many elements, and threads of each: whole warps."""
    threads = min(max(-(-n // (32 * LEAST_BLOCKS)), 1), 8) * 32
    return min(max(-(-n // threads), LEAST_BLOCKS), MOST_BLOCKS), threads


def load_cupy(name: str) -> Any:
    """Import CuPy, which makes the results."""
    try:
        import cupy
    except ImportError as error:
        raise ImportError(
            f"{name}: expected CuPy for arrays of a device, which is not installed (cure: pip install cupy-cuda13x)"
        ) from error
    return cupy


def compile_loop(what: str, loop: Loop, dtype: np.dtype[Any], parts: int | None) -> Run:
    """Compile a loop; returns ``run(inputs, outputs, shape)``, outputs of that shape and C-contiguous."""
    load_numba()
    cuda: Any = import_module("numba.cuda")  # without types
    cupy = load_cupy(what)
    kernel = cuda.jit(loop.compile(what, dtype, parts, cuda.jit(device=True)))

    def run(inputs: Sequence[Any], outputs: Sequence[Any], shape: tuple[int, ...]) -> None:
        n = outputs[0].size
        if n == 0:
            return

        def flat(x: Any, single: bool) -> Any:
            if not single and x.shape != shape:
                x = cupy.broadcast_to(x, shape)
            # No synchronisation: all of it is on one stream.
            return cuda.as_cuda_array(cupy.ascontiguousarray(x).reshape(-1), sync=False)

        with outputs[0].device, cuda.gpus[outputs[0].device.id]:
            given = [flat(x, single) for x, single in zip(inputs, loop.single, strict=True)]
            made = [flat(x, False) for x in outputs]
            stream = cuda.external_stream(cupy.cuda.get_current_stream().ptr)
            kernel[(*grid(n), stream)](n, *given, *made)

    return run
