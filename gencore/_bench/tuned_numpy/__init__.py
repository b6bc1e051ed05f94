"""The same works in NumPy, as its best user writes them.

float32 throughout, preallocated outputs, NumPy's fastest generator, `u (1 + exp(-x)) < 1` in place of a division, and
negated weights so that the sign costs nothing. NumPy's loops run on one core: where rows are independent they are split
among Python threads (NumPy releases the GIL), each with its own generator and its BLAS held to one thread, if
threadpoolctl is there to hold it; otherwise BLAS alone uses the cores.
"""

from . import autograd, dense, made, nade, optim, pixels, rbm_chains, rbm_likelihood, recurrent, sample, vae  # noqa: F401 - they register themselves
