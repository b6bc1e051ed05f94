"""Models: compose kernels, hold parameters, learn, sample, save and load."""

from gencore.models.rbm import RBM

__all__ = ["RBM"]
