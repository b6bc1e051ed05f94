"""Optimizers with the names, defaults and arithmetic of `torch.optim`, gradient clipping, and averages of parameters.

An optimizer takes Tensors (or groups of them, as dicts), and its ``step()`` updates all of them in one pass over
memory, by a kernel of `gencore.kernels.optim`. Learning rates are read from ``param_groups`` at each step; schedules
are in `gencore.train`.
"""

from gencore.optim.algorithms import SGD, Adadelta, Adagrad, Adam, AdamW, RMSprop
from gencore.optim.averages import EMA
from gencore.optim.base import Optimizer
from gencore.optim.clipping import clip_grad_norm, clip_grad_value

__all__ = [
    "EMA",
    "SGD",
    "Adadelta",
    "Adagrad",
    "Adam",
    "AdamW",
    "Optimizer",
    "RMSprop",
    "clip_grad_norm",
    "clip_grad_value",
]
