"""What several peers share: torch set up, its private oneDNN product, numba's arithmetic, JAX's keys."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np

ONEDNN_NOTE = (
    "torch's private op mkldnn._linear_pointwise: oneDNN instead of MKL, whose path for other CPUs is slow"
)


def torch_with(threads: int) -> Any:
    """Import torch, held to so many threads; candidates need no gradients."""
    import torch

    torch.set_num_threads(threads)
    torch.set_grad_enabled(False)
    return torch


def tensors(torch: Any, *arrays: Any) -> list[Any]:
    """Copies as float32 tensors; the problems' arrays are read-only."""
    return [torch.tensor(x, dtype=torch.float32) for x in arrays]


def onednn(torch: Any) -> Callable[..., Any]:
    """x w' + bias with an optional fused activation, by oneDNN; w is (out, in)."""
    op = torch.ops.mkldnn._linear_pointwise
    return lambda x, w, bias, activation="none": op(x, w, bias, activation, [], "")


def numba_math(threads: int) -> SimpleNamespace:
    """Uniforms and exponentials that LLVM vectorises; numba's own are scalar calls.

    uniform: a 32-bit finaliser of (seed, row, unit), 23 bits as ours; it passes the checks here, not BigCrush.
    exp: 2^k times a polynomial, relative error 2e-7 down to 2^-126.
    """
    import numba

    numba.set_num_threads(threads)
    f32, u32, i32, u64 = np.float32, np.uint32, np.int32, np.uint64

    @numba.njit(inline="always")
    def uniform(base: Any, unit: Any) -> Any:
        x = u32(base + u32(u32(unit) * u32(0x9E3779B1)))
        x = u32(x ^ u32(x >> u32(16)))
        x = u32(x * u32(0x7FEB352D))
        x = u32(x ^ u32(x >> u32(15)))
        x = u32(x * u32(0x846CA68B))
        x = u32(x ^ u32(x >> u32(16)))
        return (f32(i32(u32(x >> u32(9)))) + f32(0.5)) * f32(2**-23)

    @numba.njit
    def base(seed: Any, row: Any) -> Any:
        x = (u64(seed) + u64(row) * u64(0x9E3779B97F4A7C15)) * u64(0xD1342543DE82EF95)
        return u32((x ^ (x >> u64(29))) * u64(0xBF58476D1CE4E5B9) >> u64(32))

    @numba.njit(fastmath=True, inline="always")
    def exp(x: Any) -> Any:
        x = min(max(x * f32(1.44269504), f32(-126)), f32(126))
        k = np.floor(x + f32(0.5))
        r = x - k
        p = f32(1.5353362e-4)
        p = p * r + f32(1.3398874e-3)
        p = p * r + f32(9.6184370e-3)
        p = p * r + f32(5.5503324e-2)
        p = p * r + f32(2.4022648e-1)
        p = p * r + f32(6.9314720e-1)
        p = p * r + f32(1)
        return p * i32((i32(k) + i32(127)) << i32(23)).view(np.float32)

    return SimpleNamespace(numba=numba, uniform=uniform, base=base, exp=exp)


def numba_field(m: SimpleNamespace) -> Callable[..., None]:
    """field[:] = bias + the rows of weight that the set bits of states[r] select; index is scratch.

    Four rows at a time. Whole rows beat tiles of columns here, and beat the dense product.
    """

    @m.numba.njit(fastmath=True, nogil=True)
    def add_rows(states: Any, r: Any, weight: Any, bias: Any, index: Any, field: Any) -> None:
        n_set = 0
        for i in range(states.shape[1]):
            index[n_set] = i
            n_set += states[r, i]
        n_out = len(bias)
        for j in range(n_out):
            field[j] = bias[j]
        q = 0
        while q + 4 <= n_set:
            w0, w1, w2, w3 = (
                weight[index[q]],
                weight[index[q + 1]],
                weight[index[q + 2]],
                weight[index[q + 3]],
            )
            for j in range(n_out):
                field[j] += (w0[j] + w1[j]) + (w2[j] + w3[j])
            q += 4
        while q < n_set:
            w0 = weight[index[q]]
            for j in range(n_out):
                field[j] += w0[j]
            q += 1

    return add_rows


def jax_with(threads: int) -> Any:
    """Import JAX for the CPU; the process is pinned to as many cores as it may use."""
    import jax

    jax.config.update("jax_platforms", "cpu")
    return jax
