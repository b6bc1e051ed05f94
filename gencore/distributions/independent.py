"""Batch axes taken as one event."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np

from gencore.distributions.base import Distribution, Shape
from gencore.distributions.constraints import Constraint
from gencore.random import KeyLike

__all__ = ["Independent"]


class Independent(Distribution):
    """A distribution whose last batch axes are one event: its log-probabilities are summed over them.

    Parameters
    ----------
    base_distribution : Distribution
        Independent of each other along its batch axes.
    reinterpreted_batch_ndims : int
        How many of its last batch axes; from 0 to all of them.

    Notes
    -----
    Terms are of the base's dtype, their sum is float64. `gencore.kernels.sample.gaussian_log_prob` and
    `gencore.kernels.dense.bernoulli_log_prob` are the fused kernels of this for rows.

    Examples
    --------
    >>> from gencore.distributions import Normal
    >>> rows = Independent(Normal(np.zeros((3, 2), np.float32), 1.0), 1)
    >>> rows.batch_shape, rows.event_shape, rows.log_prob(np.zeros(2))
    ((3,), (2,), array([-1.83787707, -1.83787707, -1.83787707]))
    """

    def __init__(self, base_distribution: Distribution, reinterpreted_batch_ndims: int) -> None:
        if not isinstance(base_distribution, Distribution):
            raise TypeError(
                "Independent: expected base_distribution to be a Distribution, received "
                f"{type(base_distribution).__name__}"
            )
        n, batch = operator.index(reinterpreted_batch_ndims), base_distribution.batch_shape
        if not 0 <= n <= len(batch):
            raise ValueError(
                f"Independent: expected reinterpreted_batch_ndims from 0 to {len(batch)}, the batch axes of the "
                f"base distribution, received {n}"
            )
        self.base_dist, self.reinterpreted_batch_ndims = base_distribution, n
        self._validate, self._given = False, base_distribution._given  # the base checks
        self.dtype = base_distribution.dtype
        self.batch_shape = batch[: len(batch) - n]
        self.event_shape = batch[len(batch) - n :] + base_distribution.event_shape

    @property
    def has_rsample(self) -> bool:  # type: ignore[override]
        """Whether draws can be differentiated."""
        return self.base_dist.has_rsample

    @property
    def support(self) -> Constraint:
        """That of the base distribution, for each element of the event."""
        return self.base_dist.support

    def sum_events(self, x: Any) -> Any:
        """Sum over the axes that became the event, in float64."""
        n = self.reinterpreted_batch_ndims
        return np.sum(x, axis=tuple(range(-n, 0)), dtype=np.float64).astype(x.dtype) if n else x

    def log_prob(self, value: Any) -> Any:
        """Sum over the event of the base distribution's."""
        return self.sum_events(self.base_dist.log_prob(self._value("log_prob", value, None)))

    def entropy(self) -> Any:
        """Sum over the event of the base distribution's."""
        return self.sum_events(self.base_dist.entropy())

    def rsample(self, shape: Shape = (), *, key: KeyLike) -> Any:
        """Draws of the base distribution."""
        return self.base_dist.rsample(shape, key=key)

    def sample(self, shape: Shape = (), *, key: KeyLike) -> Any:
        """Draws of the base distribution."""
        return self.base_dist.sample(shape, key=key)

    def expand(self, batch_shape: tuple[int, ...]) -> Any:
        """Give the same distribution a larger batch shape, by broadcasting."""
        n = self.reinterpreted_batch_ndims
        return Independent(self.base_dist.expand((*batch_shape, *self.event_shape[:n])), n)

    def _mean(self) -> Any:
        return self.base_dist.mean

    def _mode(self) -> Any:
        return self.base_dist.mode

    def _stddev(self) -> Any:
        return self.base_dist.stddev

    def _variance(self) -> Any:
        return self.base_dist.variance

    def __repr__(self) -> str:
        return f"Independent({self.base_dist!r}, {self.reinterpreted_batch_ndims})"
