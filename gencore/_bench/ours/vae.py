"""Variational autoencoders: a step of training, and the importance-weighted likelihood of images."""

from __future__ import annotations

from itertools import count

import gencore as gc
from gencore import optim
from gencore.models import _vae_objectives as objectives

from ..measure import Candidate
from ..reference import Array
from ..registry import does
from ..works.vae import Iwae, VaeStep


def _set(model: gc.models.VAE, arrays: list[Array]) -> None:
    with gc.no_grad():
        for parameter, array in zip(model.parameters(), arrays, strict=True):
            parameter[...] = array


@does("vae_step", "gencore")
def vae_step(p: VaeStep, threads: int) -> Candidate:
    n_visible, n_hidden = p.adam.params[0].shape
    vae = gc.models.VAE(n_visible, len(p.adam.params[5]), hidden=(n_hidden, n_hidden))
    vae.train()
    objective = objectives.make(vae, objectives.Settings().checked(vae))
    optimizer = optim.Adam(vae.parameters(), lr=p.adam.lr)
    keys = gc.Generator(1)
    moments = {
        i: {"step": p.adam.step - 1, "exp_avg": m, "exp_avg_sq": v}
        for i, (m, v) in enumerate(zip(p.adam.means, p.adam.squares, strict=True))
    }
    start = {**optimizer.state_dict(), "state": moments}

    def prepare() -> None:
        _set(vae, p.adam.params)
        optimizer.load_state_dict(start)

    def call() -> float:  # what VAE.fit does with a batch
        optimizer.zero_grad()
        loss, _ = objective(p.x, keys.key(), 0.5)
        value = float(loss)
        loss.backward()
        optimizer.step()
        return value

    def sample() -> tuple[float, list[Array]]:
        prepare()
        return call(), [parameter.detach().numpy().copy() for parameter in vae.parameters()]

    return Candidate(call, sample, prepare=prepare, workspace=p.adam.nbytes)


@does("iwae", "gencore")
def iwae(p: Iwae, threads: int) -> Candidate:
    n_visible, n_hidden = p.layers.encoder1[0].shape
    vae = gc.models.VAE(n_visible, len(p.layers.mean[1]), hidden=(n_hidden, n_hidden))
    _set(vae, p.layers.flat)
    keys = count(1)

    def estimate(n_samples: int) -> Array:
        return vae.log_likelihood(p.x, n_samples, key=next(keys))

    return Candidate(lambda: estimate(p.n_samples), estimate, units=len(p.x))
