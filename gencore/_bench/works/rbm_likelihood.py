"""Likelihoods of restricted Boltzmann machines: annealed, exact, pseudo."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import NamedTuple

import numpy as np

from .. import reference
from ..measure import Candidate
from ..reference import Array, Rbm
from .common import EPS, Cost, Work

AIS_TEMPERATURES = 14_500


@dataclass(frozen=True, eq=False)
class Ais:
    """`n_runs` AIS runs from visible biases b over `betas`, a shortened schedule that scales to the whole."""

    rbm: Rbm
    betas: Array
    n_runs: int

    @cached_property
    def want(self) -> Array:
        """Independent log-weights."""
        return reference.ais_log_weights(self.rbm, self.betas, 2 * self.n_runs, np.random.default_rng(8))

    def check(self, candidate: Candidate) -> str:
        """`sample() -> log_weights (n_runs,)` on the problem's schedule."""

        def statistics(x: Array) -> Array:
            return np.stack([x, (x - self.want.mean()) ** 2], axis=1)

        got = np.asarray(candidate.sample(), float)
        return reference.same_distribution("log-weights", statistics(got), statistics(self.want))


@lru_cache
def _ais(tiny: bool) -> Ais:
    if tiny:
        return Ais(reference.synthetic_rbm(36, 20, 50), np.linspace(0, 1, 11), 60)
    return Ais(reference.synthetic_rbm(784, 500, 100), np.linspace(0, 1, 51), 100)


def _ais_cost(p: Ais) -> Cost:
    return Cost(
        2 * p.n_runs * p.rbm.flops, 0, "two dense products a temperature; timed on 50 of 14,500 and scaled"
    )


@lru_cache
def _free_energy(tiny: bool) -> Rbm:
    rbm = reference.synthetic_rbm(*(36, 20, 50) if tiny else (784, 500, 1000))
    return rbm if tiny else rbm._replace(v=np.tile(rbm.v, (10, 1)))


def _free_energy_cost(rbm: Rbm) -> Cost:
    return Cost(len(rbm.v) * rbm.flops, 1.0 * rbm.v.size, "one dense product; states read as bytes")


LOG_PARTITION = 100.0  # any known value: the work subtracts it


def _check_free_energy(rbm: Rbm, candidate: Candidate) -> str:
    """`sample() -> (free energies (n,), mean log-likelihood given log Z = LOG_PARTITION)`."""
    energy, likelihood = candidate.sample()
    rows = slice(0, 1000)
    want = reference.free_energy(rbm, rbm.v[rows])
    bound = 8 * EPS * float(np.abs(rbm.v[rows] * rbm.b).sum(1).max() + np.abs(want).max())
    reference.close("mean log-likelihood", likelihood, -want.mean() - LOG_PARTITION, bound)
    return reference.close("free energy", np.asarray(energy)[rows], want, bound)


class LogZ(NamedTuple):
    """Exact log Z by enumeration of the hidden side; slow peers are timed on the first `short` hidden units."""

    rbm: Rbm
    short: int


@lru_cache
def _log_z(tiny: bool) -> LogZ:
    if tiny:
        return LogZ(reference.synthetic_rbm(30, 9, 10), 6)
    return LogZ(reference.synthetic_rbm(784, 20, 10), 13)


def _log_z_cost(p: LogZ) -> Cost:
    return Cost(4.0 * len(p.rbm.b), 0, "a multiply-add and a product a visible unit and state")


def _check_log_z(p: LogZ, candidate: Candidate) -> str:
    """`sample() -> log Z` of the RBM with its first `short` hidden units only."""
    want = reference.log_partition(p.rbm, p.short)
    return reference.close("log Z", candidate.sample(), want, 8 * EPS * abs(want))


@lru_cache
def _pseudo(tiny: bool) -> Rbm:
    return reference.synthetic_rbm(*(36, 20, 20) if tiny else (784, 500, 128))


def _pseudo_cost(rbm: Rbm) -> Cost:
    return Cost(4.0 * rbm.w.size * len(rbm.v), 0, "a multiply-add and a product a row and weight")


def _check_pseudo(rbm: Rbm, candidate: Candidate) -> str:
    """`sample() -> (n,)`. Each of n_visible terms is a difference of two sums near the free energy, in float32."""
    rows = 8
    want = reference.pseudo_log_likelihood(rbm, rbm.v[:rows])
    bound = 4 * EPS * rbm.w.shape[0] * float(np.abs(reference.free_energy(rbm, rbm.v[:rows])).max())
    return reference.close("pseudo-log-likelihood", np.asarray(candidate.sample())[:rows], want, bound)


WORKS = (
    Work("ais", "AIS 784x500, 100 x 14,500", "ais", _ais, _ais_cost, Ais.check, AIS_TEMPERATURES),
    Work(
        "free_energy",
        "log-likelihood of 10,000 rows",
        "free_energy",
        _free_energy,
        _free_energy_cost,
        _check_free_energy,
    ),
    Work("log_z", "exact log Z 784x20", "log_z", _log_z, _log_z_cost, _check_log_z, 2**20),
    Work("pseudo", "pseudo-likelihood of 128 rows", "pseudo", _pseudo, _pseudo_cost, _check_pseudo),
)
