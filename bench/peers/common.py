"""What several peers share: the libraries set up for a number of threads."""

from collections.abc import Callable
from typing import Any

HASH_NOTE = "a 32-bit hash of its own, weaker than Philox"
ONEDNN_NOTE = (
    "torch's private op mkldnn._linear_pointwise: oneDNN instead of MKL, whose path for other CPUs is slow"
)


def torch_with(threads: int) -> Any:
    """Import torch, held to so many threads; candidates need no gradients."""
    import torch

    torch.set_num_threads(threads)
    torch.set_grad_enabled(False)
    return torch


def compiled(torch: Any) -> Callable[..., Any]:
    """torch.compile for fixed shapes.

    Random numbers by eager's generator: Inductor's own takes 20 times as long on the CPU. mode="max-autotune" finds no
    faster product here.
    """
    return torch.compile(dynamic=False, options={"fallback_random": True})


def tensors(torch: Any, *arrays: Any) -> list[Any]:
    """Copies as float32 tensors; the problems' arrays are read-only."""
    return [torch.tensor(x, dtype=torch.float32) for x in arrays]


def onednn(torch: Any) -> Callable[..., Any]:
    """x w' + bias with an optional fused activation, by oneDNN; w is (out, in)."""
    op = torch.ops.mkldnn._linear_pointwise
    return lambda x, w, bias, activation="none": op(x, w, bias, activation, [], "")


def numba_kernels(threads: int) -> Any:
    """Import numba's side, held to so many threads."""
    import numba

    from peers import numba_kernels

    numba.set_num_threads(threads)
    return numba_kernels


def jax_with(threads: int) -> Any:
    """Import JAX for the CPU; the process is pinned to as many cores as it may use."""
    import jax

    jax.config.update("jax_platforms", "cpu")
    return jax
