"""Steps of optimizers."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from .. import reference
from ..measure import Candidate
from ..reference import Array
from .common import EPS, Cost, Work


@dataclass(frozen=True, eq=False)
class Adam:
    """Step number `step` of Adam with torch's defaults, on all arrays of a model; lists of arrays of like shapes."""

    params: list[Array]
    grads: list[Array]
    means: list[Array]
    squares: list[Array]
    step: int = 10
    lr: float = 1e-3
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8

    @property
    def size(self) -> int:
        """Number of parameters."""
        return sum(x.size for x in self.params)

    @property
    def nbytes(self) -> int:
        """Memory of a copy of parameters and state."""
        return sum(x.nbytes for xs in (self.params, self.means, self.squares) for x in xs)

    def copies(self) -> tuple[list[Array], list[Array], list[Array]]:
        """Parameters and state to work on."""
        params, means, squares = ([x.copy() for x in xs] for xs in (self.params, self.means, self.squares))
        return params, means, squares

    def restore(self, *lists: list[Array]) -> None:
        """Bring what `copies` returned back to the start."""
        for xs, starts in zip(lists, (self.params, self.means, self.squares), strict=True):
            for x, start in zip(xs, starts, strict=True):
                x[...] = start

    def after(self, grads: list[Array]) -> list[Array]:
        """Parameters after the step with these gradients, in float64."""
        found = []
        for p, g, m, v in zip(self.params, grads, self.means, self.squares, strict=True):
            mean = (self.beta1 * m.astype(float) + (1 - self.beta1) * g) / (1 - self.beta1**self.step)
            square = self.beta2 * v.astype(float) + (1 - self.beta2) * np.square(g, dtype=float)
            found.append(p - self.lr * mean / (np.sqrt(square / (1 - self.beta2**self.step)) + self.eps))
        return found

    def check(self, candidate: Candidate) -> str:
        """`sample() -> parameters after that step`, a list of arrays."""
        found = ""
        wanted = self.after([g.astype(float) for g in self.grads])
        for x, p, want in zip(candidate.sample(), self.params, wanted, strict=True):
            # Two roundings of the parameter, and twenty of what goes into the change.
            bound = EPS * float(np.abs(p).max() + 10 * np.abs(p - want).max())
            found = reference.close("parameters", np.asarray(x), want, bound)
        return found


def _vae_shapes() -> list[tuple[int, ...]]:
    """Weights and biases of a VAE 784-500-500-20: 1,316,824 numbers in 14 arrays."""
    layers = [(784, 500), (500, 500), (500, 20), (500, 20), (20, 500), (500, 500), (500, 784)]
    return [shape for layer in layers for shape in (layer, layer[1:])]


@lru_cache
def _adam(tiny: bool) -> Adam:
    rng = np.random.default_rng(9)

    def draw(scale: float) -> list[Array]:
        shapes = [(5, 7), (7,), (3,)] if tiny else _vae_shapes()
        return [scale * rng.standard_normal(shape, np.float32) for shape in shapes]

    return Adam(draw(0.05), draw(0.01), draw(0.003), [x * x for x in draw(0.01)])


def _adam_cost(p: Adam) -> Cost:
    return Cost(14.0 * p.size, 28.0 * p.size, "parameter, gradient, moments read; all but gradient written")


WORKS = (Work("adam", "Adam step, 1.3 M parameters", "adam", _adam, _adam_cost, Adam.check),)
