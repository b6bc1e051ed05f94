"""The works that are timed: sizes, cost, and the check that a candidate does this work and no other.

A work hands each builder its problem and asks a `Candidate` back. What `Candidate.sample` must return is said by the
work's check.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, NamedTuple

import numpy as np

from . import reference
from .measure import Candidate
from .reference import Array, Rbm

EPS = float(np.finfo(np.float32).eps)


class Cost(NamedTuple):
    """What one unit of work asks of the machine at least, done the plain way."""

    flops: float
    bytes: float
    basis: str


@dataclass(frozen=True)
class Work:
    """One line of the table.

    Attributes
    ----------
    name, title
        Short name and what it is.
    kind
        Key of the builders: works of one kind differ in size only.
    units
        Units of work that the reported time stands for.
    problem
        Makes what all candidates share; True asks for a tiny one, for tests.
    cost
        Cost of one unit.
    check
        Raises `reference.Disagreement`, or says what agrees.
    """

    name: str
    title: str
    kind: str
    problem: Callable[[bool], Any]
    cost: Callable[[Any], Cost]
    check: Callable[[Any, Candidate], str]
    units: float = 1


# --- dense --------------------------------------------------------------------------------------------------


class Gemm(NamedTuple):
    """out (m, n) = a (m, k) b (k, n), float32."""

    a: Array
    b: Array


def gemm_work(m: int, n: int, k: int) -> Work:
    """Matrix product; `sample() -> (m, n)`."""

    @lru_cache
    def problem(tiny: bool) -> Gemm:
        rng = np.random.default_rng(1)
        scale = 16 if tiny else 1
        shape = [max(1, x // scale) for x in (m, n, k)]
        a, b = rng.standard_normal((shape[0], shape[2])), rng.standard_normal((shape[2], shape[1]))
        return Gemm(a.astype(np.float32), b.astype(np.float32))

    def cost(p: Gemm) -> Cost:
        (m, k), n = p.a.shape, p.b.shape[1]
        return Cost(2.0 * m * n * k, 0, "multiply-adds of the product")

    def check(p: Gemm, candidate: Candidate) -> str:
        exact = p.a.astype(float) @ p.b.astype(float)
        # At most k roundings of a sum of |a||b|.
        bound = EPS * p.a.shape[1] * float((np.abs(p.a) @ np.abs(p.b)).max())
        return reference.close("product", candidate.sample(), exact, bound)

    return Work(f"gemm_{m}x{n}x{k}", f"GEMM {m}x{n}x{k}", "gemm", problem, cost, check)


class Layer(NamedTuple):
    """Backward of y = tanh(x w + bias): the gradients (x, w, bias) of a float32 layer, given that of y."""

    x: Array
    w: Array
    y: Array
    grad: Array


@lru_cache
def _layer(tiny: bool) -> Layer:
    m, k, n = (8, 49, 31) if tiny else (128, 784, 500)
    rng = np.random.default_rng(12)
    x, w, grad = (rng.standard_normal(shape).astype(np.float32) for shape in ((m, k), (k, n), (m, n)))
    w /= np.float32(k**0.5)
    return Layer(x, w, np.tanh(x @ w), grad)


def _layer_cost(p: Layer) -> Cost:
    (m, k), n = p.x.shape, p.w.shape[1]
    return Cost(4.0 * m * n * k, 0, "multiply-adds of the two products")


def _check_layer(p: Layer, candidate: Candidate) -> str:
    """`sample() -> (grad_x, grad_w, grad_bias)`."""
    x, w, y, grad = (a.astype(float) for a in p)
    dz = grad * (1 - y * y)
    # 1 - y^2 may lose a unit of 1; then at most as many roundings as a sum has terms, of a sum of magnitudes.
    size, terms = np.abs(grad), max(*p.x.shape, p.w.shape[1]) + 8
    exact = (dz @ w.T, x.T @ dz, dz.sum(0))
    magnitudes = (size @ np.abs(w.T), np.abs(x.T) @ size, size.sum(0))
    for name, got, want, magnitude in zip("xwb", candidate.sample(), exact, magnitudes, strict=True):
        said = reference.close(f"gradient of {name}", got, want, EPS * terms * float(magnitude.max()))
    return said


class Entropy(NamedTuple):
    """Log-probability of targets under Bernoulli units, one number a row, and its gradient for the logits."""

    logits: Array
    targets: Array  # uint8
    grad: Array  # of each row's log-probability


@lru_cache
def _entropy(tiny: bool) -> Entropy:
    n, units = (8, 49) if tiny else (128, 784)
    rng = np.random.default_rng(13)
    logits = rng.normal(0, 3, (n, units)).astype(np.float32)
    targets = (rng.random((n, units)) < reference.logistic(logits)).astype(np.uint8)
    return Entropy(logits, targets, np.full(n, 1 / n, np.float32))


def _entropy_cost(p: Entropy) -> Cost:
    return Cost(0, 9.0 * p.logits.size, "logits and targets read once, the gradient written")


def _check_entropy(p: Entropy, candidate: Candidate) -> str:
    """`sample() -> (log-probabilities (n,), gradient (n, units))`."""
    x, t = p.logits.astype(float), p.targets.astype(float)
    terms = t * x - reference.softplus(x)
    value, slope = candidate.sample()
    exact = p.grad[:, None] * (t - reference.logistic(x))
    reference.close("gradient", slope, exact, 8 * EPS * float(p.grad.max()))
    bound = EPS * x.shape[1] * float(np.abs(terms).sum(1).max())  # a sum in float32, at its worst
    return reference.close("log-probability", value, terms.sum(1), bound)


# --- sample -------------------------------------------------------------------------------------------------


class Variates(NamedTuple):
    """Bernoulli draws with probabilities p (rows, units) into an array of one byte or more each."""

    p: Array


@lru_cache
def _variates(tiny: bool) -> Variates:
    rows, units = (64, 40) if tiny else (256, 1024)
    return Variates(np.random.default_rng(2).random((rows, units), dtype=np.float32))


def _variates_cost(p: Variates) -> Cost:
    # A Philox4x32-10 block is 20 products 32x32 -> 64 and serves 8 variates of 16 bits. A vector unit makes half as
    # many of those as multiply-adds, so a product counts as 2 multiply-adds, 4 operations: 20 / 8 * 4.
    return Cost(10, 0, "Philox's products alone, at the multiply-add units' rate")


def _check_variates(p: Variates, candidate: Candidate) -> str:
    # A row of `got` is one array of draws; its statistics are the means over rows and over columns, and products of
    # neighbours, which reused random numbers would shift.
    def statistics(x: Array) -> Array:
        x = np.asarray(x, float) - p.p
        down, across = x[1:] * x[:-1], x[:, 1:] * x[:, :-1]
        return np.concatenate([x.mean(0), x.mean(1), down.mean(0), across.mean(1)])

    rng = np.random.default_rng(3)
    got = np.stack([statistics(candidate.sample()) for _ in range(30)])
    want = np.stack([statistics(rng.random(p.p.shape) < p.p) for _ in range(30)])
    return reference.same_distribution("draws", got, want)


@dataclass(frozen=True, eq=False)
class Reparam:
    """Gaussian draws and their KL divergence, forward, and backward from given gradients of both."""

    mu: Array
    logvar: Array
    grad_z: Array
    grad_kl: Array

    def check(self, candidate: Candidate) -> str:
        """`sample() -> (z, kl, grad_mu, grad_logvar)`. The noise is read off z; the rest follows from it."""
        z, kl, by_mu, by_logvar = (np.asarray(x, float) for x in candidate.sample())
        mu, logvar, g, h = (
            x.astype(float) for x in (self.mu, self.logvar, self.grad_z, self.grad_kl[:, None])
        )
        eps = (z - mu) * np.exp(-logvar / 2)

        def statistics(x: Array) -> Array:
            return np.stack([x, x**2, x**3, x**4, np.abs(x), x * np.roll(x, 1), x * np.roll(x, 16)], axis=1)

        normal = np.random.default_rng(14).standard_normal(eps.size)
        found = reference.same_distribution("noise", statistics(eps.ravel()), statistics(normal))
        terms = mu**2 + np.exp(logvar) + 1 + np.abs(logvar)
        bound = 16 * EPS * float(terms.sum(1).max())
        reference.close("kl", kl, 0.5 * (mu**2 + np.exp(logvar) - 1 - logvar).sum(1), bound)
        bound = 16 * EPS * float((np.abs(g) + np.abs(h * mu)).max())
        reference.close("gradient by mu", by_mu, g + h * mu, bound)
        # z - mu is known to the rounding of z.
        want = 0.5 * (g * (z - mu) + h * np.expm1(logvar))
        bound = (
            16 * EPS * float((np.abs(g) * (np.abs(z) + np.abs(mu)) + np.abs(h) * (np.exp(logvar) + 1)).max())
        )
        return f"{found}; {reference.close('gradient by logvar', by_logvar, want, bound)}"


def reparam_work(rows: int, units: int) -> Work:
    """Reparameterised Gaussians."""

    @lru_cache
    def problem(tiny: bool) -> Reparam:
        rng = np.random.default_rng(13)
        shape = (60, min(units, 40)) if tiny else (rows, units)
        mu, logvar, grad = (rng.standard_normal(shape, np.float32) for _ in range(3))
        return Reparam(mu, logvar, grad, rng.standard_normal(shape[0], np.float32))

    def cost(p: Reparam) -> Cost:
        return Cost(0, 4.0 * (7 * p.mu.size + 2 * p.grad_kl.size), "each array read or written once a pass")

    name = f"reparam_{rows}x{units}"
    return Work(
        name, f"Gaussian draws and KL {rows}x{units}, there and back", "reparam", problem, cost, Reparam.check
    )


@dataclass(frozen=True, eq=False)
class Gumbel:
    """Gumbel-softmax draws at temperature tau, forward, and backward from a given gradient."""

    logits: Array
    grad: Array
    tau: float = 0.7

    def check(self, candidate: Candidate) -> str:
        """`sample() -> (y, grad_logits)`. All rows of logits are alike: rows of y are independent draws of one law."""
        y, by_logits = (np.asarray(x, float) for x in candidate.sample())
        reference.close("sums of rows", y.sum(1), np.ones(len(y)), 16 * EPS)
        noise = np.random.default_rng(16).gumbel(size=self.logits.shape)
        x = (self.logits + noise) / self.tau
        want = np.exp(x - x.max(1, keepdims=True))
        want /= want.sum(1, keepdims=True)

        def statistics(y: Array) -> Array:
            return np.concatenate(
                [y, y**2, np.eye(y.shape[1])[y.argmax(1)], y * np.roll(y, 1, axis=0)], axis=1
            )

        found = reference.same_distribution("draws", statistics(y), statistics(want))
        grad = self.grad.astype(float)
        gradient = y * (grad - (grad * y).sum(1, keepdims=True)) / self.tau
        bound = 16 * EPS * float(np.abs(grad).max()) / self.tau
        return f"{found}; {reference.close('gradient', by_logits, gradient, bound)}"


@lru_cache
def _gumbel(tiny: bool) -> Gumbel:
    rng = np.random.default_rng(15)
    shape = (500, 10) if tiny else (104_857, 10)
    logits = np.tile(rng.standard_normal(shape[1], np.float32), (shape[0], 1))
    return Gumbel(logits, rng.standard_normal(shape, np.float32))


def _gumbel_cost(p: Gumbel) -> Cost:
    return Cost(0, 4.0 * 5 * p.logits.size, "each array read or written once a pass")


# --- rbm ----------------------------------------------------------------------------------------------------


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


# --- optim --------------------------------------------------------------------------------------------------


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

    def check(self, candidate: Candidate) -> str:
        """`sample() -> parameters after that step`, a list of arrays."""
        found = ""
        for x, p, g, m, v in zip(
            candidate.sample(), self.params, self.grads, self.means, self.squares, strict=True
        ):
            g, m, v = g.astype(float), m.astype(float), v.astype(float)
            m = (self.beta1 * m + (1 - self.beta1) * g) / (1 - self.beta1**self.step)
            v = (self.beta2 * v + (1 - self.beta2) * g * g) / (1 - self.beta2**self.step)
            change = self.lr * m / (np.sqrt(v) + self.eps)
            # Two roundings of the parameter, and twenty of what goes into the change.
            bound = EPS * float(np.abs(p).max() + 10 * np.abs(change).max())
            found = reference.close("parameters", np.asarray(x), p - change, bound)
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


# --- autograd -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Chain:
    """A chain of small ops and its gradient: `steps` times y = tanh(FACTOR y + b) - w from y = x, then sum(y).

    Four ops a step, of every common kind: with a number, with a leaf that gradients add up in, a function, and with an
    array that needs no gradient. Vectors are so short that an op costs what calling it costs.
    """

    x: Array
    b: Array
    w: Array
    steps: int

    def check(self, candidate: Candidate) -> str:
        """`sample() -> (value, dx, db)`."""
        y, slopes = self.x.astype(float), []
        for _ in range(self.steps):
            t = np.tanh(FACTOR * y + self.b)
            slopes.append(1 - t * t)
            y = t - self.w
        g, db, growth = np.ones_like(y), np.zeros_like(y), 1.0
        for slope in reversed(slopes):
            db += g * slope
            g = FACTOR * g * slope
            growth = max(growth, float(np.abs(g).max()))
        value, dx, got = candidate.sample()
        # Eight roundings a step, forward and back, each of which grows at most as a gradient does.
        relative = 8 * self.steps * EPS * growth
        reference.close("value", value, y.sum(), relative * float(np.abs(y).sum()))
        reference.close("dx", dx, g, relative * growth)
        return reference.close("db", got, db, relative * float(np.abs(db).max()))


FACTOR = 1.001


@lru_cache
def _chain(tiny: bool) -> Chain:
    x, b = 0.03 * np.random.default_rng(9).standard_normal((2, 8)).astype(np.float32)
    return Chain(x, b, b, 5 if tiny else 250)


def _chain_cost(p: Chain) -> Cost:
    return Cost(12.0 * p.steps * p.x.size, 0, "an operation an element and op, two more on the way back")


WORKS = {
    work.name: work
    for work in (
        Work("gibbs", "Gibbs step 784x500, 1000 chains", "gibbs", _gibbs, _gibbs_cost, _check_gibbs),
        cd_work(1),
        cd_work(10),
        Work("ais", "AIS 784x500, 100 x 14,500", "ais", _ais, _ais_cost, Ais.check, AIS_TEMPERATURES),
        *(
            gemm_work(*shape)
            for shape in ((1024, 1024, 1024), (128, 500, 784), (64, 256, 256), (32, 64, 64), (1, 512, 512))
        ),
        Work(
            "linear_vjp",
            "tanh layer backward 128x784x500",
            "linear_vjp",
            _layer,
            _layer_cost,
            _check_layer,
        ),
        Work("bce", "Bernoulli loss + grad, 128x784", "bce", _entropy, _entropy_cost, _check_entropy),
        Work(
            "free_energy",
            "log-likelihood of 10,000 rows",
            "free_energy",
            _free_energy,
            _free_energy_cost,
            _check_free_energy,
        ),
        Work("log_z", "exact log Z 784x20", "log_z", _log_z, _log_z_cost, _check_log_z, 2**20),
        Work("philox", "Bernoulli draw, one variate", "philox", _variates, _variates_cost, _check_variates),
        reparam_work(10_000, 100),
        reparam_work(50_000, 20),
        Work(
            "gumbel",
            "Gumbel-softmax 104,857x10, there and back",
            "gumbel",
            _gumbel,
            _gumbel_cost,
            Gumbel.check,
        ),
        Work("pseudo", "pseudo-likelihood of 128 rows", "pseudo", _pseudo, _pseudo_cost, _check_pseudo),
        Work("adam", "Adam step, 1.3 M parameters", "adam", _adam, _adam_cost, Adam.check),
        Work("autograd", "gradient of 1,000 small ops", "autograd", _chain, _chain_cost, Chain.check),
    )
}


def select(patterns: list[str] | None) -> list[Work]:
    """Works whose names begin with one of the patterns, in the table's order; all without patterns."""
    if not patterns:
        return list(WORKS.values())
    unknown = [p for p in patterns if not any(name.startswith(p) for name in WORKS)]
    if unknown:
        raise ValueError(f"bench: no work is called {', '.join(unknown)}; there are {', '.join(WORKS)}")
    return [work for name, work in WORKS.items() if any(name.startswith(p) for p in patterns)]
