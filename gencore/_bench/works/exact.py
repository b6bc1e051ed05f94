"""What works of exact models of bits with parameters w, c, v, b are checked by alike."""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import cached_property
from typing import NamedTuple

import numpy as np

from .. import reference
from ..measure import Candidate
from ..reference import Array
from .common import EPS


class Parameters(NamedTuple):
    """Of one hidden layer: w (D, H), c (H,), v, b (D,), float32."""

    w: Array
    c: Array
    v: Array
    b: Array

    def precise(self) -> Parameters:
        """Copies in float64."""
        return Parameters(*(a.astype(float) for a in self))


def close_gradients(by: list[Array], gradient: list[Array], magnitude: list[Array]) -> str:
    """How near gradients by w, c, v, b are: within a hundred roundings of the largest sum of magnitudes."""
    return "; ".join(
        reference.close(f"gradient by {name}", got, expected, 100 * EPS * float(size.max()))
        for name, got, expected, size in zip("wcvb", by, gradient, magnitude, strict=True)
    )


class BitModel(ABC):
    """A batch (N, D) and a model that has seen its rates, whose samples are checked by their statistics."""

    x: Array

    @abstractmethod
    def logits(self, x: Array) -> Array:
        """Of rows (N, D), in float64."""

    @abstractmethod
    def samples(self, n: int, rng: np.random.Generator) -> Array:
        """Ancestral ones in float64."""

    def statistics(self, x: Array) -> Array:
        """Of each row: its log-probability, its units, and products of neighbours."""
        x = np.asarray(x, float)
        logits = self.logits(x)
        log_prob = np.sum(x * logits - reference.softplus(logits), axis=1)
        return np.column_stack([log_prob, x, x * np.roll(x, 1, axis=1)])

    @cached_property
    def want_samples(self) -> Array:
        """Statistics of independent samples."""
        return self.statistics(self.samples(4 * len(self.x), np.random.default_rng(23)))

    def check_sample(self, candidate: Candidate) -> str:
        """`sample() -> states (N, D)`, new ones each time."""
        got, want = np.concatenate([self.statistics(candidate.sample()) for _ in range(4)]), self.want_samples
        found = reference.same_distribution("log-probabilities", got[:, :1], want[:, :1])
        return f"{found}; {reference.same_distribution('samples', got[:, 1:], want[:, 1:])}"
