"""The works that are timed: sizes, cost, and the check that a candidate does this work and no other.

A work hands each builder its problem and asks a `Candidate` back. What `Candidate.sample` must return is said by the
work's check. A module holds the works of one family; `ours`, `tuned_numpy` and `bench/peers` have modules of the same
names.
"""

from __future__ import annotations

from . import autograd, dense, made, nade, optim, pixels, rbm_chains, rbm_likelihood, recurrent, sample, vae
from .common import Cost, Work

__all__ = ["WORKS", "Cost", "Work", "select"]

WORKS = {
    work.name: work
    for family in (
        rbm_chains,
        rbm_likelihood,
        dense,
        sample,
        optim,
        autograd,
        vae,
        pixels,
        nade,
        made,
        recurrent,
    )
    for work in family.WORKS
}


def select(patterns: list[str] | None) -> list[Work]:
    """Works whose names begin with one of the patterns, in the table's order; all without patterns."""
    if not patterns:
        return list(WORKS.values())
    unknown = [p for p in patterns if not any(name.startswith(p) for name in WORKS)]
    if unknown:
        raise ValueError(f"bench: no work is called {', '.join(unknown)}; there are {', '.join(WORKS)}")
    return [work for name, work in WORKS.items() if any(name.startswith(p) for p in patterns)]
