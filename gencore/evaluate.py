"""What a model is worth: log-partition functions with their bracket; how noisy the gradients are that it learns by."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gencore._devices import to_host
from gencore._states import as_states
from gencore.kernels import rbm as kernels
from gencore.kernels import sample
from gencore.kernels._arrays import contiguous, placed
from gencore.random import Generator, KeyLike, as_key

if TYPE_CHECKING:
    from gencore.models.rbm import RBM
    from gencore.models.vae import VAE

__all__ = [
    "GradientVariance",
    "LogPartition",
    "ais_schedule",
    "gradient_variance",
    "log_mean_exp",
    "log_partition",
]

Float64Array = NDArray[np.float64]

EXACT_UNITS = 20  # "auto" enumerates up to this many units of the smaller side: 2^20 terms, under a second


@dataclass(frozen=True)
class LogPartition:
    """Log of a partition function, in nats, and how far to trust it.

    Attributes
    ----------
    value : float
        The estimate; from AIS, that of the forward runs.
    lower, upper : float
        Both ends of the bracket. Exact: ``value``. AIS: the forward estimate less 3 standard errors, and the greater
        of the forward and the reverse estimate, each with 3 standard errors more. The upper end is as good as the
        samples that the reverse runs start from.
    ess : float
        Effective sample size of the forward weights, 1 to ``n_runs``; inf where exact. A value near 1 says that one
        run carries the estimate.
    std_error : float
        Standard error of ``value``, from the spread of the weights; 0 where exact.
    reverse, reverse_std_error, reverse_ess : float
        The same for the runs from the model back to the base; NaN without them.
    method : str
        "exact" or "ais".
    log_weights, reverse_log_weights : (n_runs,) float64
        Estimates of log Z by each run; their log-mean-exp is the estimate (reverse: with the signs turned).
    """

    value: float
    lower: float
    upper: float
    ess: float
    std_error: float
    method: str
    reverse: float = np.nan
    reverse_std_error: float = np.nan
    reverse_ess: float = np.nan
    log_weights: Float64Array = field(default_factory=lambda: np.empty(0), repr=False)
    reverse_log_weights: Float64Array = field(default_factory=lambda: np.empty(0), repr=False)

    def __str__(self) -> str:
        if self.method == "exact":
            return f"log Z = {self.value:.4f} (exact)"
        return (
            f"log Z = {self.value:.3f} +- {self.std_error:.3f}, bracket [{self.lower:.3f}, {self.upper:.3f}], "
            f"effective runs {self.ess:.1f} of {len(self.log_weights)}"
        )


def log_mean_exp(x: ArrayLike) -> float:
    """``log mean exp(x)`` in float64, without overflow."""
    values = np.asarray(x, np.float64)
    top = values.max()
    return float(top + np.log(np.mean(np.exp(values - top)))) if np.isfinite(top) else float(top)


def ais_schedule(n_temperatures: int = 14_500) -> Float64Array:
    """Inverse temperatures from 0 to 1, spaced as Salakhutdinov & Murray (2008) did.

    Of the steps, 1/29 lead to 0.5, 8/29 on to 0.9 and 20/29 to 1. For 14,500 these are their 500 of 1e-3, 4,000 of
    1e-4 and 10,000 of 1e-5.

    Returns
    -------
    (n_temperatures + 1,) float64
    """
    if n_temperatures < 3:
        raise ValueError(f"ais_schedule: expected n_temperatures to be at least 3, received {n_temperatures}")
    first = max(1, round(n_temperatures / 29))
    second = max(1, round(8 * n_temperatures / 29))
    ends = [(0.0, 0.5, first), (0.5, 0.9, second), (0.9, 1.0, n_temperatures - first - second)]
    parts = [np.linspace(a, b, n, endpoint=False) for a, b, n in ends]
    return np.concatenate([*parts, [1.0]])


def log_partition(
    model: "RBM",
    method: str = "auto",
    *,
    n_runs: int = 100,
    betas: int | ArrayLike = 14_500,
    base_rates: ArrayLike | None = None,
    reverse: bool = True,
    reverse_start: Any = None,
    burn_in: int = 1000,
    key: KeyLike = 0,
) -> LogPartition:
    """Log of the partition function of an RBM.

    Parameters
    ----------
    model : RBM
        Any object with ``weight``, ``visible_bias``, ``hidden_bias``, and, optionally, ``data_mean`` and ``chains``.
    method : "auto", "exact" or "ais"
        "exact" enumerates the smaller side (at most 30 units; 25 take seconds). "ais" estimates by annealed importance
        sampling. "auto": exact up to 20 units.
    n_runs : int
        AIS runs each way.
    betas : int or (n,) array_like
        Number of temperatures (see `ais_schedule`), or the inverse temperatures, from 0 to 1.
    base_rates : (n_visible,) array_like, optional
        Rates of the base model, where the runs start; by default the data's means, and for a model that has seen no
        data, the means of short Gibbs chains. A base of 1/2 throughout is off by much for data such as MNIST.
    reverse : bool
        Also run from the model back to the base: the other end of the bracket.
    reverse_start : (n, n_visible) array_like of 0 and 1, optional
        Samples of the model to start the reverse runs from. By default the persistent chains, else the last states of
        the forward runs; then moved on by ``burn_in`` steps.
    burn_in : int
        Gibbs steps before the reverse runs.
    key : Key, int or Generator
        Random numbers.

    Returns
    -------
    LogPartition

    Notes
    -----
    Forward AIS is unbiased for Z, hence on average below log Z; reverse AIS is unbiased for 1 / Z if it starts at exact
    samples, hence on average above. A base or a schedule that misses a mode shows as a bracket that does not close, or
    not at all if the reverse runs miss the same mode: look at samples, too.

    Source
    ------
    Salakhutdinov & Murray (2008), "On the quantitative analysis of deep belief networks"; Burda, Grosse & Salakhutdinov
    (2015), "Accurate and conservative estimates of MRF log-likelihood using reverse annealing".
    """
    w, b, c = model.weight, model.visible_bias, model.hidden_bias
    if method not in ("auto", "exact", "ais"):
        raise ValueError(
            f"log_partition: expected method to be 'auto', 'exact' or 'ais', received {method!r}"
        )
    if method == "exact" or (method == "auto" and min(w.shape) <= EXACT_UNITS):
        value = float(kernels.log_partition_exact(w, b, c))
        return LogPartition(value, value, value, np.inf, 0.0, "exact")
    keys = Generator(as_key(key)).spawn(4)
    schedule = ais_schedule(int(betas)) if np.ndim(betas) == 0 else np.asarray(betas, np.float64)  # type: ignore[arg-type]
    base = _base_bias(model, base_rates, keys[0])
    log_z_base = w.shape[1] * np.log(2) + float(np.logaddexp(0, base.astype(np.float64)).sum())
    base = placed(w, base, np.float32)
    log_weights, last = kernels.ais(w, b, c, betas=schedule, base_bias=base, n_runs=n_runs, key=keys[1].key())
    forward = _Estimate(log_z_base + to_host(log_weights))
    lower, upper = forward.value - 3 * forward.std_error, forward.value + 3 * forward.std_error
    if not reverse:
        return LogPartition(
            forward.value,
            lower,
            upper,
            forward.ess,
            forward.std_error,
            "ais",
            log_weights=forward.log_weights,
        )
    start = _reverse_start(model, reverse_start, last, n_runs)
    start = kernels.gibbs_chain(w, b, c, start, steps=burn_in, key=keys[2].key())
    down, _ = kernels.ais(
        w, b, c, betas=schedule[::-1].copy(), base_bias=base, start=start, key=keys[3].key()
    )
    back = _Estimate(to_host(down) - log_z_base)
    return LogPartition(
        forward.value,
        lower,
        max(upper, -back.value + 3 * back.std_error),
        forward.ess,
        forward.std_error,
        "ais",
        -back.value,
        back.std_error,
        back.ess,
        forward.log_weights,
        -back.log_weights,
    )


class _Estimate:
    """Log of a mean of weights, by delta method: standard error and effective sample size."""

    def __init__(self, log_weights: Float64Array) -> None:
        self.log_weights = log_weights
        self.value = log_mean_exp(log_weights)
        relative = np.exp(log_weights - self.value)  # mean 1
        n = len(relative)
        self.ess = float(relative.sum() ** 2 / np.square(relative).sum())
        self.std_error = float(relative.std(ddof=1) / np.sqrt(n)) if n > 1 else np.inf


def _base_bias(model: "RBM", base_rates: ArrayLike | None, keys: Generator) -> NDArray[np.float32]:
    """Logits of the base model's rates, kept off 0 and 1: a unit that is never on must still be reachable."""
    w, b, c = model.weight, model.visible_bias, model.hidden_bias
    rates = base_rates if base_rates is not None else getattr(model, "data_mean", None)
    if rates is None:
        halves = sample.bernoulli(np.full((500, len(b)), 0.5, np.float32), keys.key())
        halves = placed(w, halves, np.uint8)
        rates = to_host(kernels.gibbs_chain(w, b, c, halves, steps=50, key=keys.key())).mean(axis=0)
    rates = np.asarray(to_host(rates), np.float64)
    if rates.shape != b.shape or not ((rates >= 0) & (rates <= 1)).all():
        raise ValueError(
            f"log_partition: expected base_rates of shape {b.shape} from 0 to 1, received {rates}"
        )
    rates = np.clip(rates, 1e-3, 1 - 1e-3)
    base: NDArray[np.float32] = np.log(rates / (1 - rates)).astype(np.float32)
    return base


def _reverse_start(model: "RBM", given: Any, last: NDArray[np.uint8], n_runs: int) -> NDArray[np.uint8]:
    if given is not None:
        start = as_states("log_partition", "reverse_start", given, len(model.visible_bias))
        return placed(model.weight, start, np.uint8)  # type: ignore[no-any-return]
    chains = getattr(model, "chains", None)
    source = last if chains is None else chains
    rows = source[placed(source, np.arange(n_runs) % len(source), np.int64)]
    return contiguous(rows)  # type: ignore[no-any-return]


@dataclass(frozen=True)
class GradientVariance:
    """How an estimate of a gradient varies from draw to draw.

    Attributes
    ----------
    encoder_norm, decoder_norm : float
        Euclidean norm of the mean gradient, less what the noise of that mean adds to it.
    encoder_variance, decoder_variance : float
        Variance of the gradient, summed over the parameters.
    encoder_size, decoder_size : int
        How many parameters: ``encoder_variance / encoder_size`` is the variance per element.
    """

    encoder_norm: float
    encoder_variance: float
    encoder_size: int
    decoder_norm: float
    decoder_variance: float
    decoder_size: int


def gradient_variance(
    model: "VAE",
    X: Any,
    estimators: Sequence[str],
    *,
    n_draws: int = 100,
    temperature: float = 0.5,
    warm_up: int = 500,
    seed: int = 0,
) -> dict[str, GradientVariance]:
    """Compare estimators of a variational autoencoder's gradient by their noise, on one model.

    Parameters
    ----------
    model : VAE
        As far as it has learned. Left as it is, its random numbers included.
    X : (n, n_visible) array_like
        One batch: the gradient is that of the mean over its rows.
    estimators : sequence of {"reparam", "reinforce", "wake-sleep", "concrete"}
        Those that go with the model's latents; `VAE.fit` describes them.
    n_draws : int
        Gradients drawn for each, at least 2.
    temperature : float
        Of "concrete".
    warm_up : int
        Updates (Adam, 1e-2) that the baselines of "reinforce" learn before, on the same rows.
    seed : int
        Of all draws; the same for each estimator.

    Returns
    -------
    dict of str to GradientVariance
        By estimator. That of "reinforce" is given in the units of the others, with its normalisation undone.

    Raises
    ------
    ValueError, TypeError
        A wrong argument; an estimator that does not go with the latents.

    Notes
    -----
    "reparam" and "reinforce" are unbiased for the gradient of the bound, "concrete" nearly so at a low temperature.
    "wake-sleep" has another objective for the encoder, so that its norm there compares with nothing. Sums are float64;
    extra memory: three numbers for each parameter.
    """
    from gencore.models import _vae_objectives as objectives

    for name, value, least in (("n_draws", n_draws, 2), ("warm_up", warm_up, 0)):
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
            raise ValueError(
                f"gradient_variance: expected {name} to be an integer of at least {least}, received {value!r}"
            )
    batch = model._as_data("gradient_variance", "X", X)
    if len(batch) == 0:
        raise ValueError("gradient_variance: expected X to have at least 1 row, received 0")
    kinds = [
        objectives.Settings(estimator=name, temperature=temperature).checked(model) for name in estimators
    ]
    training = model.training
    model.train()
    try:
        found = {}
        for name, settings in zip(estimators, kinds, strict=True):
            objective, keys = objectives.make(model, settings), Generator(seed)
            _learn_baseline(objective, batch, warm_up, keys)
            found[name] = _gradient_variance(model, objective, batch, n_draws, keys)
        return found
    finally:
        model.zero_grad()
        model.train(training)


def _learn_baseline(objective: Any, batch: Any, updates: int, keys: Generator) -> None:
    from gencore import optim

    if objective.extra is None:
        return
    optimizer = optim.Adam(objective.extra.parameters(), lr=1e-2)
    for _ in range(updates):
        optimizer.zero_grad()
        objective(batch, keys.key(), 1.0)[0].backward()
        optimizer.step()


def _gradient_variance(
    model: "VAE", objective: Any, batch: Any, n_draws: int, keys: Generator
) -> GradientVariance:
    parts: dict[str, float] = {}
    named = list(model.named_parameters())
    mean = [np.zeros(p.shape) for _, p in named]
    squares = [np.zeros(p.shape) for _, p in named]  # sums of squared deviations, by Welford's update
    for draw in range(1, n_draws + 1):
        model.zero_grad()
        scale = objective.scale()  # of this call: the running variance moves on with each
        objective(batch, keys.key(), 1.0)[0].backward()
        for i, (name, p) in enumerate(named):
            g = np.zeros(p.shape) if p.grad is None else p.grad.numpy().astype(np.float64)
            g = g * scale if name.startswith("encoders.") else g
            off = g - mean[i]
            mean[i] += off / draw
            squares[i] += off * (g - mean[i])
    for part in ("encoder", "decoder"):
        own = [i for i, (name, _) in enumerate(named) if name.startswith(part)]
        variance = sum(float(squares[i].sum()) for i in own) / (n_draws - 1)
        norm = sum(float(np.square(mean[i]).sum()) for i in own) - variance / n_draws
        parts |= {f"{part}_norm": float(np.sqrt(max(norm, 0.0))), f"{part}_variance": variance}
        parts |= {f"{part}_size": sum(mean[i].size for i in own)}
    return GradientVariance(**parts)  # type: ignore[arg-type]
