"""Chains of restricted Boltzmann machines, and learning by them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np

from .. import reference
from ..measure import Candidate
from ..reference import Array, Rbm
from .common import EPS, Cost, Work


@dataclass(frozen=True, eq=False)
class Gibbs:
    """`steps` v-h-v steps of all chains in a call, at best without leaving compiled code."""

    rbm: Rbm
    steps: int

    @property
    def start(self) -> Array:
        """All rows alike, so that the rows after a step are independent draws."""
        return np.ascontiguousarray(np.broadcast_to(self.rbm.v[0], self.rbm.v.shape))

    @cached_property
    def want(self) -> Array:
        """Rows after a step from `start`."""
        rng = np.random.default_rng(4)
        w, b, c, *_ = self.rbm
        steps = [reference.gibbs_step(w, b, c, self.start, rng)[0] for _ in range(3)]
        return np.concatenate(steps).astype(float)


@lru_cache
def _gibbs(tiny: bool) -> Gibbs:
    if tiny:
        return Gibbs(reference.synthetic_rbm(36, 20, 200), 2)
    return Gibbs(reference.synthetic_rbm(784, 500, 1000), 10)


def _gibbs_cost(p: Gibbs) -> Cost:
    return Cost(2 * len(p.rbm.v) * p.rbm.flops, 0, "two dense products; sparse states need fewer")


def _check_gibbs(p: Gibbs, candidate: Candidate) -> str:
    """`sample(v) -> v'` after one step."""
    got = np.asarray(candidate.sample(p.start), float)
    if not np.isin(got, (0, 1)).all():
        raise reference.Disagreement("states: expected 0 and 1 only")
    # Projections on columns of w spread wider when h is drawn than when its mean stands in: a drawn h ties units.
    direction = p.rbm.w[:, :64].astype(float)
    middle = p.want.mean(0) @ direction

    def spread(v: Array) -> Array:
        return np.asarray((v @ direction - middle) ** 2)

    first = reference.same_distribution("v after a step", got, p.want)
    second = reference.same_distribution("its spread along w", spread(got), spread(p.want))
    return f"{first}; {second}"


Update = tuple[Array, Array, Array]


@dataclass(frozen=True, eq=False)
class Cd:
    """One CD-k step on the batch rbm.v: gradient of the mean log-likelihood, then plain SGD in place."""

    rbm: Rbm
    k: int
    lr: float = 0.01

    @cached_property
    def want(self) -> Array:
        """Statistics of independent updates."""
        rng = np.random.default_rng(5)
        updates = (reference.cd_update(self.rbm, self.rbm.v, self.k, rng) for _ in range(24))
        return np.stack([self.statistics(update) for update in updates])

    def statistics(self, update: Update) -> Array:
        """Bias gradients as they are, weight gradients by random projections."""
        rng = np.random.default_rng(6)
        left, right = rng.standard_normal((64, len(self.rbm.b))), rng.standard_normal((64, len(self.rbm.c)))
        dw, db, dc = (np.asarray(x, float) for x in update)
        return np.concatenate([db, dc, np.einsum("kj,kj->k", left @ dw, right)])

    def check(self, candidate: Candidate) -> str:
        """`sample() -> (dw, db, dc)`, the change that one step from the problem's parameters makes."""
        got = np.stack([self.statistics(candidate.sample()) / self.lr for _ in range(12)])
        # The change of a float32 parameter is known to a unit in its last place.
        grain = EPS * float(max(np.abs(x).max() for x in self.rbm[:3])) / self.lr
        return reference.same_distribution("update", got, self.want, grain)


def cd_work(k: int) -> Work:
    """CD-k training step."""

    @lru_cache
    def problem(tiny: bool) -> Cd:
        return Cd(reference.synthetic_rbm(*(36, 20, 30) if tiny else (784, 500, 128)), k)

    def cost(p: Cd) -> Cost:
        products = 2 * k + 1 + 2  # v -> h -> v' ... -> h', and the two outer products
        flops = products * len(p.rbm.v) * p.rbm.flops
        return Cost(flops, 8.0 * p.rbm.w.size, "dense products; weights read and written")

    return Work(f"cd{k}", f"CD-{k} step 784x500, batch 128", "cd", problem, cost, Cd.check)


WORKS = (
    Work("gibbs", "Gibbs step 784x500, 1000 chains", "gibbs", _gibbs, _gibbs_cost, _check_gibbs),
    cd_work(1),
    cd_work(10),
)
