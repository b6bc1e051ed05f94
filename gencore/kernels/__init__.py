"""Compiled kernels: one documented function per op, arrays in, arrays out.

Arrays are C-contiguous and of exactly the dtype a function names: kernels convert nothing, and say what is wrong and
how to cure it. They release the GIL, may be called from several threads at once, and give the same bits for any thread
count. Random kernels take a ``key`` (see `gencore.random`).
"""

from gencore.kernels import autoregressive, conv, dense, optim, rbm, recurrent, sample

__all__ = ["autoregressive", "conv", "dense", "optim", "rbm", "recurrent", "sample"]
