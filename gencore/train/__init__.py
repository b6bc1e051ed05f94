"""Training: schedules, history, callbacks, and the loop that every model's ``fit`` runs."""

from gencore.train.fit import fit
from gencore.train.history import Callback, History
from gencore.train.loop import DivergenceError, batches
from gencore.train.schedules import Schedule, constant, cosine, exponential, linear, step, warmup

__all__ = [
    "Callback",
    "DivergenceError",
    "History",
    "Schedule",
    "batches",
    "constant",
    "cosine",
    "exponential",
    "fit",
    "linear",
    "step",
    "warmup",
]
