"""Random variables with the names and values of `torch.distributions`: densities, entropies, divergences, draws.

Parameters are Tensors, arrays or numbers; everything is differentiable where it can be. Draws take a key
(`gencore.Key`, an int, or a `gencore.Generator`): ``Normal(mu, sigma).rsample((100,), key=generator)``.
"""

from gencore.distributions import constraints
from gencore.distributions.base import Distribution
from gencore.distributions.continuous import (
    Exponential,
    Gumbel,
    Laplace,
    Logistic,
    LogNormal,
    Normal,
    Uniform,
)
from gencore.distributions.discrete import Bernoulli, Categorical
from gencore.distributions.independent import Independent
from gencore.distributions.kl import kl_divergence, register_kl
from gencore.distributions.relaxed import RelaxedBernoulli, RelaxedOneHotCategorical

__all__ = [
    "Bernoulli", "Categorical", "Distribution", "Exponential", "Gumbel", "Independent", "Laplace", "LogNormal",
    "Logistic", "Normal", "RelaxedBernoulli", "RelaxedOneHotCategorical", "Uniform", "constraints", "kl_divergence",
    "register_kl",
]  # fmt: skip
