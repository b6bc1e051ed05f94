"""User-written kernels: scalar Python functions that numba compiles for the CPU and for CUDA.

`op` is what a user meets, `scalar` prepares and compiles the functions, `cpu` and `cuda` run loops over arrays.
numba is imported when an op first runs.
"""

from gencore._elementwise.op import Elementwise, elementwise

__all__ = ["Elementwise", "elementwise"]
