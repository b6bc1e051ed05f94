"""Variational autoencoders: a step of training, and the importance-weighted likelihood of images."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import NamedTuple

import numpy as np

from .. import reference
from ..measure import Candidate
from ..reference import Array
from .common import EPS, Cost, Work
from .optim import Adam


class Layers(NamedTuple):
    """Weight and bias of each layer of a VAE with two deterministic tanh layers a side, in the order of its data flow.

    z = mean(h) + exp(logvar(h) / 2) noise with h = tanh layers of x; logits = out(tanh layers of z).
    """

    encoder1: tuple[Array, Array]
    encoder2: tuple[Array, Array]
    mean: tuple[Array, Array]
    logvar: tuple[Array, Array]
    decoder1: tuple[Array, Array]
    decoder2: tuple[Array, Array]
    out: tuple[Array, Array]

    @staticmethod
    def of(arrays: list[Array]) -> Layers:
        """Pair up a flat list of weights and biases."""
        return Layers(*zip(arrays[::2], arrays[1::2], strict=True))

    @property
    def flat(self) -> list[Array]:
        """Weights and biases in one list."""
        return [x for layer in self for x in layer]

    def precise(self) -> Layers:
        """Copies in float64."""
        return Layers.of([x.astype(float) for x in self.flat])

    def encode(self, x: Array) -> tuple[Array, Array, Array, Array]:
        """Both hidden layers, mean and log-variance."""
        first = np.tanh(x @ self.encoder1[0] + self.encoder1[1])
        second = np.tanh(first @ self.encoder2[0] + self.encoder2[1])
        return first, second, second @ self.mean[0] + self.mean[1], second @ self.logvar[0] + self.logvar[1]

    def decode(self, z: Array) -> tuple[Array, Array, Array]:
        """Both hidden layers and the logits."""
        first = np.tanh(z @ self.decoder1[0] + self.decoder1[1])
        second = np.tanh(first @ self.decoder2[0] + self.decoder2[1])
        return first, second, second @ self.out[0] + self.out[1]


def initial(
    sizes: tuple[int, int, int], x: Array, rng: np.random.Generator, *, spread: float, gain: float = 1
) -> Layers:
    """Glorot's weights, the data's rates in the last bias, and a posterior of about the standard deviation `spread`.

    `gain` is a factor of the weights into and out of z: how much data and z tell of each other.
    """
    n_visible, n_hidden, n_latent = sizes
    shapes = [
        *((n_visible, n_hidden), (n_hidden, n_hidden), (n_hidden, n_latent), (n_hidden, n_latent)),
        *((n_latent, n_hidden), (n_hidden, n_hidden), (n_hidden, n_visible)),
    ]
    bounds = [(6 / sum(shape)) ** 0.5 for shape in shapes]
    bounds[2:5] = [gain * b for b in bounds[2:5]]
    weights = [rng.uniform(-b, b, shape).astype(np.float32) for b, shape in zip(bounds, shapes, strict=True)]
    biases = [np.zeros(shape[1], np.float32) for shape in shapes]
    biases[3] += np.float32(2 * np.log(spread))
    rate = (x.sum(0) + 1) / (len(x) + 2)
    biases[6] = np.log(rate / (1 - rate)).astype(np.float32)
    return Layers(*zip(weights, biases, strict=True))


def gradients(layers: Layers, x: Array, noise: Array) -> tuple[float, list[Array]]:
    """Minus the mean evidence lower bound of the rows of x for given noise, and its gradients, as `Layers.flat`."""
    first, second, mean, logvar = layers.encode(x)
    sd = np.exp(logvar / 2)
    z = mean + sd * noise
    back1, back2, logits = layers.decode(z)
    kl = 0.5 * (mean**2 + sd**2 - 1 - logvar).sum(1)
    loss = (kl - (x * logits - reference.softplus(logits)).sum(1)).mean()

    def through(grad: Array, inputs: Array, layer: tuple[Array, Array]) -> Array:
        found[:0] = [inputs.T @ grad, grad.sum(0)]
        return np.asarray(grad @ layer[0].T)

    found: list[Array] = []
    d = through((reference.logistic(logits) - x) / len(x), back2, layers.out)
    d = through(d * (1 - back2**2), back1, layers.decoder2)
    d = through(d * (1 - back1**2), z, layers.decoder1)
    by_logvar = 0.5 * (d * (z - mean) + (sd**2 - 1) / len(x))
    by_mean = d + mean / len(x)
    d = through(by_logvar, second, layers.logvar) + through(by_mean, second, layers.mean)
    d = through(d * (1 - second**2), first, layers.encoder2)
    through(d * (1 - first**2), x, layers.encoder1)
    return float(loss), found


# --- a training step ----------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class VaeStep:
    """A step of Adam on minus the mean evidence lower bound of the batch x: one draw, the exact KL divergence."""

    x: Array  # uint8
    adam: Adam  # parameters as `Layers.flat`, and moments

    @cached_property
    def want(self) -> Array:
        """Statistics of independent steps in float64."""
        layers, x = Layers.of(self.adam.params).precise(), self.x.astype(float)
        rng = np.random.default_rng(18)
        steps = (gradients(layers, x, rng.standard_normal((len(x), len(layers.mean[1])))) for _ in range(24))
        return np.stack([self.statistics(loss, self.adam.after(grads)) for loss, grads in steps])

    @cached_property
    def directions(self) -> list[Array]:
        """Four for each array."""
        rng = np.random.default_rng(19)
        return [rng.standard_normal((4, a.size)) / a.size**0.5 for a in self.adam.params]

    def statistics(self, loss: float, params: list[Array]) -> Array:
        """Loss, and random projections of the change of each array, in learning rates."""
        changes = [np.asarray(a, float) - before for a, before in zip(params, self.adam.params, strict=True)]
        projected = [d @ c.ravel() / self.adam.lr for d, c in zip(self.directions, changes, strict=True)]
        return np.concatenate([[loss], *projected])

    def check(self, candidate: Candidate) -> str:
        """`sample() -> (loss, parameters after the step)`, the latter as `Layers.flat`."""
        got = np.stack([self.statistics(*candidate.sample()) for _ in range(12)])
        # A sum over units in float32; a float32 parameter is known to a unit in its last place.
        terms = self.x.shape[1] ** 0.5
        first = reference.same_distribution(
            "loss", got[:, :1], self.want[:, :1], terms * EPS * float(got[0, 0])
        )
        grain = EPS * float(max(np.abs(p).max() for p in self.adam.params)) / self.adam.lr
        return f"{first}; {reference.same_distribution('change', got[:, 1:], self.want[:, 1:], grain)}"


@lru_cache
def _vae_step(tiny: bool) -> VaeStep:
    x = reference.synthetic_rbm(*(36, 20, 30) if tiny else (784, 500, 128)).v
    layers = initial((36, 20, 5) if tiny else (784, 500, 20), x, np.random.default_rng(17), spread=0.3)
    noise = np.zeros((len(x), len(layers.mean[1])))
    grads = [g.astype(np.float32) for g in gradients(layers.precise(), x.astype(float), noise)[1]]
    # Moments near those of the gradients to come, so that a change is about linear in its gradient.
    squares = [g * g + np.mean(g * g) for g in grads]
    return VaeStep(x, Adam(layers.flat, grads, grads, squares))


def _vae_step_cost(p: VaeStep) -> Cost:
    weights = [a.size for a in p.adam.params[::2]]
    products = (
        3 * sum(weights) - weights[0]
    )  # forward, by weights, by inputs; the gradient of x is not needed
    return Cost(
        2.0 * len(p.x) * products,
        28.0 * p.adam.size,
        "products there and back; Adam's arrays read and written",
    )


# --- importance-weighted likelihood -------------------------------------------------------------------------


def log_weights(layers: Layers, x: Array, n_samples: int, rng: np.random.Generator) -> Array:
    """Log p(x, z) - log q(z | x) of draws of q: (n_samples, rows)."""
    found = []
    for row in x.astype(float):
        *_, mean, logvar = layers.encode(row)
        noise = rng.standard_normal((n_samples, len(mean)))
        z = mean + np.exp(logvar / 2) * noise
        logits = layers.decode(z)[-1]
        # logaddexp takes four times as long
        fit = logits @ row - (np.maximum(logits, 0) + np.log1p(np.exp(-np.abs(logits)))).sum(1)
        found.append(fit + 0.5 * (noise**2 - z**2 + logvar).sum(1))
    return np.stack(found, axis=1)


@dataclass(frozen=True, eq=False)
class Iwae:
    """log mean_k p(x, z_k) / q(z_k | x) over `n_samples` draws of q, for each row of x."""

    x: Array  # uint8
    layers: Layers
    n_samples: int

    @property
    def short(self) -> int:
        """Draws of an estimate that the check takes many times."""
        return self.n_samples // 10

    @cached_property
    def want(self) -> Array:
        """Independent estimates of `short` draws in float64, (estimates, rows)."""
        rng = np.random.default_rng(21)
        weights = (log_weights(self.layers.precise(), self.x, self.short, rng) for _ in range(16))
        return np.stack([np.logaddexp.reduce(w) - np.log(len(w)) for w in weights])

    def check(self, candidate: Candidate) -> str:
        """`sample(n_samples) -> estimates (rows,)`."""
        got = np.stack([np.asarray(candidate.sample(self.short), float) for _ in range(12)])
        grain = self.x.shape[1] ** 0.5 * EPS * float(np.abs(self.want).max())  # a sum over units in float32
        found = reference.same_distribution("estimates of few draws", got, self.want, grain)
        # All draws of the reference together are one estimate more, and a better one than that of a whole work.
        best = np.logaddexp.reduce(self.want) - np.log(len(self.want))
        spread = self.want.std(0, ddof=1).max() * (self.short / self.n_samples + 1 / len(self.want)) ** 0.5
        whole = reference.close("log-likelihood", candidate.sample(self.n_samples), best, 6 * spread + grain)
        return f"{found}; {whole}"


@lru_cache
def _iwae(tiny: bool) -> Iwae:
    rows, sizes, draws = (20, (36, 20, 5), 200) if tiny else (8, (784, 200, 50), 5000)
    x = reference.synthetic_rbm(*(36, 20, 30) if tiny else (784, 500, 128)).v
    # Posterior and prior near each other: log-weights vary by about 1, so that estimates can be compared.
    layers = initial(sizes, x, np.random.default_rng(20), spread=0.8 if tiny else 0.9, gain=0.2)
    return Iwae(x[:rows], layers, draws)


def _iwae_cost(p: Iwae) -> Cost:
    decoder = sum(layer[0].size for layer in p.layers[4:])
    return Cost(2.0 * p.n_samples * decoder, 0, "the decoder's products")


WORKS = (
    Work("vae_step", "VAE step 784-500-500-20", "vae_step", _vae_step, _vae_step_cost, VaeStep.check),
    Work("iwae", "IWAE bound, 5,000 draws", "iwae", _iwae, _iwae_cost, Iwae.check),
)
