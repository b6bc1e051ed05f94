"""Likelihoods of restricted Boltzmann machines: annealed, exact, pseudo."""

from __future__ import annotations

from itertools import count

import numpy as np

from gencore.kernels import rbm as kernels

from ..measure import Candidate
from ..reference import Array, Rbm
from ..registry import does
from ..works.rbm_likelihood import AIS_TEMPERATURES, LOG_PARTITION, Ais, LogZ


@does("ais", "gencore")
def ais(p: Ais, threads: int) -> Candidate:
    w, b, c = p.rbm[:3]
    keys = count(1)

    def run(betas: Array) -> Array:
        return kernels.ais(w, b, c, betas=betas, base_bias=b, n_runs=p.n_runs, key=next(keys))[0]

    def call() -> Array:
        return run(p.betas)

    whole = np.linspace(0, 1, AIS_TEMPERATURES + 1)
    return Candidate(call, call, units=len(p.betas) - 1, whole=lambda: run(whole))


@does("free_energy", "gencore")
def free_energy(rbm: Rbm, threads: int) -> Candidate:
    def call() -> tuple[Array, float]:
        energy = kernels.free_energy(rbm.w, rbm.b, rbm.c, rbm.v)
        return energy, float(-energy.mean() - LOG_PARTITION)

    return Candidate(call, call)


@does("log_z", "gencore")
def log_z(p: LogZ, threads: int) -> Candidate:
    w, b, c = p.rbm[:3]
    short = np.ascontiguousarray(w[:, : p.short]), b, c[: p.short].copy()
    return Candidate(
        lambda: kernels.log_partition_exact(w, b, c),
        lambda: kernels.log_partition_exact(*short),
        units=2 ** len(c),
    )


@does("pseudo", "gencore")
def pseudo(rbm: Rbm, threads: int) -> Candidate:
    def call() -> Array:
        return kernels.pseudo_log_likelihood(rbm.w, rbm.b, rbm.c, rbm.v)

    return Candidate(call, call)
