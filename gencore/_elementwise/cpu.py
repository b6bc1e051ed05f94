"""Loops on NumPy arrays: compiled by numba, on as many threads as `gencore.num_threads` says."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from gencore import _core
from gencore._elementwise.scalar import Loop, load_numba

BUFFER = 1 << 13  # elements of strided or broadcast inputs that are made contiguous at a time
BLOCK = 1 << 16  # elements worth the 20 us that another thread costs

Run = Callable[[Sequence[Any], Sequence[Any], tuple[int, ...]], None]


class _Threads:
    """Python threads; compiled loops hold no lock. numba's own threads do not survive a fork, or a second caller."""

    def __init__(self) -> None:
        self.forget()
        os.register_at_fork(after_in_child=self.forget)

    def forget(self) -> None:
        self.pool: ThreadPoolExecutor | None = None
        self.size = 0

    def run(self, task: Callable[[int, int], None], n: int) -> None:
        """Run ``task(begin, end)`` on pieces of 0..n that begin at multiples of BLOCK."""
        blocks = -(-n // BLOCK)
        parts = min(_core.num_threads(), blocks)
        if parts <= 1:
            task(0, n)
            return
        pool = self.pool
        if pool is None or self.size < parts - 1:
            # The threads of a pool that is replaced end when its last caller is done.
            pool = self.pool = ThreadPoolExecutor(parts - 1, thread_name_prefix="gencore-elementwise")
            self.size = parts - 1
        edges = [min(blocks * i // parts * BLOCK, n) for i in range(parts + 1)]
        others = [pool.submit(task, edges[i], edges[i + 1]) for i in range(1, parts)]
        try:
            task(edges[0], edges[1])
        finally:
            for other in others:
                other.result()


_threads = _Threads()


def compile_loop(what: str, loop: Loop, dtype: np.dtype[Any], parts: int | None) -> Run:
    """Compile a loop; returns ``run(inputs, outputs, shape)``, outputs of that shape and C-contiguous."""
    numba = load_numba()
    scalar = numba.from_dtype(dtype)
    given = numba.types.Array(scalar, 1, "C", readonly=True)
    made = numba.types.Array(scalar, 1, "C")
    signature = numba.void(numba.int64, *[given] * len(loop.single), *[made] * loop.outputs)
    python = loop.compile(what, dtype, parts)
    compiled = numba.njit(signature, error_model="numpy", nogil=True)(python)

    def run(inputs: Sequence[Any], outputs: Sequence[Any], shape: tuple[int, ...]) -> None:
        singles = {i: x.reshape(1) for i, x in enumerate(inputs) if loop.single[i]}
        arrays = [x for i, x in enumerate(inputs) if i not in singles]

        def on(n: int, pieces: Sequence[Any]) -> None:
            rest = iter(pieces)
            compiled(n, *[singles[i] if i in singles else next(rest) for i in range(len(inputs))], *rest)

        def flat(begin: int, end: int) -> None:
            on(end - begin, [x[begin:end] for x in views])

        def strided(begin: int, end: int) -> None:
            flags: Any = [["readonly", "contig", "aligned"]] * len(arrays) + [
                ["writeonly", "no_broadcast"]
            ] * len(outputs)
            with np.nditer(
                [*arrays, *outputs],
                flags=["external_loop", "buffered", "grow_inner", "ranged", "delay_bufalloc"],
                op_flags=flags,
                order="C",
                buffersize=BUFFER,
            ) as pieces:
                pieces.iterrange = (begin, end)  # type: ignore[misc]
                pieces.reset()
                for piece in pieces:
                    on(len(piece[0]), piece)

        if all(x.shape == shape and x.flags.c_contiguous and x.flags.aligned for x in arrays):
            views = [x.reshape(-1) for x in (*arrays, *outputs)]
            _threads.run(flat, outputs[0].size)
        elif outputs[0].size:
            _threads.run(strided, outputs[0].size)

    return run
