"""Our kernels, called as a user calls them."""

from . import autograd, dense, made, nade, optim, pixels, rbm_chains, rbm_likelihood, recurrent, sample, vae  # noqa: F401 - they register themselves
