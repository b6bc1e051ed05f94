"""What parameters must be and where values may lie: each constraint is a test and the words for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from gencore.autograd.tensors import plain

__all__ = [
    "Constraint", "boolean", "finite", "integer_interval", "interval", "log_weights", "nonnegative", "positive", "real",
    "simplex", "unit_interval", "weights",
]  # fmt: skip


@dataclass(frozen=True)
class Constraint:
    """A set of numbers, or of rows of numbers.

    Attributes
    ----------
    text : str
        Completes "expected x to be ...".
    event_ndim : int
        Last axes that are tested together: 0 for numbers, 1 for rows.
    """

    text: str
    test: Callable[[Any], Any]
    event_ndim: int = 0

    def check(self, value: Any) -> Any:
        """Whether each number (or row) of an array or Tensor belongs to the set: bool, NaN never does."""
        return self.test(plain(value))

    def __repr__(self) -> str:
        return f"Constraint({self.text})"


def _is_simplex(x: Any) -> Any:
    # Rows of n float32 that a kernel normalised sum to 1 within its 2e-6 and the rounding of each.
    return np.all(x >= 0, axis=-1) & (np.abs(np.sum(x, axis=-1, dtype=np.float64) - 1) < 1e-5)


real = Constraint("a number, not NaN", lambda x: x == x)
finite = Constraint("finite", np.isfinite)
positive = Constraint("positive and finite", lambda x: (x > 0) & np.isfinite(x))
nonnegative = Constraint("at least 0", lambda x: x >= 0)
unit_interval = Constraint("from 0 to 1", lambda x: (x >= 0) & (x <= 1))
boolean = Constraint("0 or 1", lambda x: (x == 0) | (x == 1))
simplex = Constraint("rows from 0 up that sum to 1", _is_simplex, 1)
weights = Constraint(
    "rows of finite numbers from 0 up, not all 0",
    lambda x: np.all((x >= 0) & np.isfinite(x), axis=-1) & np.any(x > 0, axis=-1),
    1,
)
log_weights = Constraint(
    "rows of numbers below inf, not all -inf",
    lambda x: np.all(x < np.inf, axis=-1) & np.any(x > -np.inf, axis=-1),
    1,
)


def interval(low: Any, high: Any) -> Constraint:
    """From low to high, both included; arrays broadcast."""
    low, high = plain(low), plain(high)
    return Constraint("from low to high", lambda x: (x >= low) & (x <= high))


def integer_interval(low: int, high: int) -> Constraint:
    """Whole numbers from low to high, both included."""
    return Constraint(
        f"a whole number from {low} to {high}", lambda x: (x >= low) & (x <= high) & (np.floor(x) == x)
    )
