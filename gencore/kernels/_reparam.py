"""Reparameterised Gaussians and location-scale families, with their gradients; users find them in `kernels.sample`."""

from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from gencore import _core
from gencore.autograd import defvjp, primitive
from gencore.kernels._arrays import as_matrix, contiguous, empty, same_shape
from gencore.kernels._contiguous import in_order
from gencore.random import KeyLike, as_key

__all__ = [
    "gaussian_log_prob",
    "gaussian_log_prob_vjp",
    "gaussian_reparam",
    "gaussian_reparam_vjp",
    "gaussian_sample",
    "location_scale",
    "location_scale_vjp",
]

Float32Array = NDArray[np.float32]
Kind = Literal["normal", "logistic", "laplace", "gumbel", "uniform", "exponential", "log_normal"]

_KINDS: Final = {
    "normal": 0, "logistic": 1, "laplace": 2, "gumbel": 3, "uniform": 4, "exponential": 5, "log_normal": 6,
}  # fmt: skip


# --- Gaussian draws -----------------------------------------------------------------------------------------


def gaussian_reparam(
    mu: Float32Array,
    logvar: Float32Array,
    key: KeyLike,
    *,
    samples: int = 1,
    step: int = 0,
    first_row: int = 0,
) -> tuple[Float32Array, Float32Array]:
    """Draws of ``N(mu, e^logvar)`` and the divergence from the standard normal, in one pass.

    ``z = mu + exp(logvar / 2) eps`` and ``kl = 1/2 sum_d (mu^2 + e^logvar - 1 - logvar)``.

    Parameters
    ----------
    mu, logvar : (..., D) float32
        Mean and logarithm of the variance; rows run along all axes but the last.
    key : Key, int or Generator
        Random numbers.
    samples : int
        Draws S of each row, at least 1.
    step, first_row : int
        Coordinates of the random numbers: eps is what `normal` gives for the shape of z.

    Returns
    -------
    z : float32
        Of the shape of `mu`; for S > 1 its first axis is S times as long: draw s of row n of N is row ``s N + n``.
    kl : (...) float32
        In nats, one a row of `mu`. Terms are float32, their sum is float64.

    Notes
    -----
    Gradient: to `mu` and `logvar`, through both results, by `gaussian_reparam_vjp`, which computes eps again; what is
    kept for it is `mu` and `logvar`. Second derivatives exist. NaN and inf stay in their row. Extra memory: 15 KB a
    thread, whatever the size.

    Raises
    ------
    ValueError, TypeError
        Wrong shape, dtype or memory order; `samples` below 1; a coordinate out of range.

    Source: Kingma & Welling (2014), "Auto-encoding variational Bayes", appendix B.

    Examples
    --------
    >>> z, kl = gaussian_reparam(np.zeros((3, 2), np.float32), np.zeros((3, 2), np.float32), key=1)
    >>> z.shape, kl
    ((3, 2), array([0., 0., 0.], dtype=float32))
    """
    result: tuple[Float32Array, Float32Array] = _gaussian_kl(
        in_order(mu), in_order(logvar), samples=samples, key=as_key(key), step=step, first_row=first_row
    )
    return result


def gaussian_sample(
    mu: Float32Array,
    logvar: Float32Array,
    key: KeyLike,
    *,
    samples: int = 1,
    step: int = 0,
    first_row: int = 0,
) -> tuple[Float32Array, Float32Array]:
    """Draws of ``q = N(mu, e^logvar)`` and their log-ratio to the standard normal.

    The same z as `gaussian_reparam`, and ``log q(z) - log N(z; 0, 1) = 1/2 sum_d (z^2 - eps^2 - logvar)``, whose
    mean over draws is the divergence: what importance-weighted bounds need.

    Parameters
    ----------
    mu, logvar, key, samples, step, first_row
        As in `gaussian_reparam`.

    Returns
    -------
    z : float32
        As in `gaussian_reparam`.
    log_ratio : float32
        In nats, one a row of z.

    Notes
    -----
    Gradient, memory and errors as in `gaussian_reparam`. The gradient is the total one: through z and through q.

    Source: Burda, Grosse & Salakhutdinov (2016), "Importance weighted autoencoders".
    """
    result: tuple[Float32Array, Float32Array] = _gaussian_ratio(
        in_order(mu), in_order(logvar), samples=samples, key=as_key(key), step=step, first_row=first_row
    )
    return result


def _repeated(shape: tuple[int, ...], samples: int) -> tuple[int, ...]:
    """The shape of so many draws of an array."""
    if samples == 1:
        return shape
    return (samples * shape[0], *shape[1:]) if len(shape) > 1 else (samples, *shape)


def _gaussian(name: str, mu: Any, logvar: Any, samples: int, **coordinates: int) -> tuple[Any, Any]:
    op = "sample.gaussian_reparam"
    same_shape(op, "logvar", logvar, "mu", mu)
    shape = _repeated(np.shape(mu), samples if isinstance(samples, int | np.integer) and samples > 0 else 1)
    z = empty(mu, shape, np.float32)
    per_row = empty(mu, np.shape(mu)[:-1] if name == "kl" else shape[:-1], np.float32)
    rows: dict[str, Any] = {name: per_row.reshape(-1)}
    _core.sample_gaussian_reparam(
        mu=as_matrix(op, "mu", mu), logvar=as_matrix(op, "logvar", logvar), samples=samples,
        z=as_matrix(op, "z", z), **rows, **coordinates,
    )  # fmt: skip
    return z, per_row


@primitive
def _gaussian_kl(mu: Any, logvar: Any, *, samples: int, **coordinates: int) -> tuple[Any, Any]:
    return _gaussian("kl", mu, logvar, samples, **coordinates)


@primitive
def _gaussian_ratio(mu: Any, logvar: Any, *, samples: int, **coordinates: int) -> tuple[Any, Any]:
    return _gaussian("log_ratio", mu, logvar, samples, **coordinates)


@primitive
def gaussian_reparam_vjp(
    grad_z: Float32Array | None,
    grad_kl: Float32Array | None,
    grad_log_ratio: Float32Array | None,
    mu: Float32Array,
    logvar: Float32Array,
    *,
    key: int,
    samples: int = 1,
    step: int = 0,
    first_row: int = 0,
) -> tuple[Float32Array, Float32Array]:
    """Gradients of `gaussian_reparam` and `gaussian_sample`, in one pass, with the noise computed again.

    With ``t = grad_z + grad_log_ratio z``, summed over the draws of each row::

        grad_mu     = sum_s t + grad_kl mu
        grad_logvar = 1/2 (sum_s (t e^(logvar / 2) eps - grad_log_ratio) + grad_kl (e^logvar - 1))

    Parameters
    ----------
    grad_z, grad_kl, grad_log_ratio : float32, optional
        Gradients of the results, of their shapes; None is 0. One that is not contiguous is copied.
    mu, logvar, samples, step, first_row
        As in the forward call.
    key : int
        As in the forward call; not a Generator, which would draw anew.

    Returns
    -------
    grad_mu, grad_logvar : float32 of the shape of `mu`

    Notes
    -----
    Sums over draws are float32. Gradient: to every array, in NumPy functions. Extra memory: 23 KB a thread.
    """
    op = "sample.gaussian_reparam_vjp"
    same_shape(op, "logvar", logvar, "mu", mu)
    grad_mu, grad_logvar = (empty(mu, np.shape(mu), np.float32) for _ in range(2))
    _core.sample_gaussian_reparam_vjp(
        mu=as_matrix(op, "mu", mu), logvar=as_matrix(op, "logvar", logvar), samples=samples,
        grad_z=_matrix_of(grad_z), grad_kl=_vector_of(grad_kl), grad_log_ratio=_vector_of(grad_log_ratio),
        grad_mu=as_matrix(op, "grad_mu", grad_mu), grad_logvar=as_matrix(op, "grad_logvar", grad_logvar),
        key=key, step=step, first_row=first_row,
    )  # fmt: skip
    return grad_mu, grad_logvar


def _matrix_of(grad: Any) -> Any:
    """A gradient as the matrix that kernels take; gradients of sums come broadcast."""
    return None if grad is None else as_matrix("", "", contiguous(grad))


def _vector_of(grad: Any) -> Any:
    return None if grad is None else contiguous(grad).reshape(-1)


def _gaussian_kl_rule(_needs: Any, g: Any, _ans: Any, mu: Any, logvar: Any, **options: Any) -> Any:
    return gaussian_reparam_vjp(g[0], g[1], None, mu, logvar, **options)


def _gaussian_ratio_rule(_needs: Any, g: Any, _ans: Any, mu: Any, logvar: Any, **options: Any) -> Any:
    return gaussian_reparam_vjp(g[0], None, g[1], mu, logvar, **options)


def _gaussian_vjp_rule(
    needs: Any,
    g: Any,
    _ans: Any,
    grad_z: Any,
    grad_kl: Any,
    grad_log_ratio: Any,
    mu: Any,
    logvar: Any,
    *,
    key: int,
    samples: int = 1,
    step: int = 0,
    first_row: int = 0,
) -> Any:
    """With a, b the gradients of grad_mu and grad_logvar, and w = a + b sd eps / 2, the gradient of t."""
    shape = np.shape(mu)
    draws = (samples, *shape)
    noise = empty(mu, _repeated(shape, samples), np.float32)
    _core.sample_normal(out=as_matrix("", "", noise), key=key, step=step, first_row=first_row)
    eps, sd = noise.reshape(draws), np.exp(0.5 * logvar)
    a, b = (np.zeros(shape, np.float32) if x is None else x for x in g)
    w, z = a + 0.5 * b * sd * eps, mu + sd * eps
    by_mu, by_logvar = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    by_ratio = by_kl = None
    t = 0.0 if grad_z is None else np.reshape(grad_z, draws)
    if grad_log_ratio is not None:
        ratio = np.reshape(grad_log_ratio, (*draws[:-1], 1))
        t = t + ratio * z
        by_mu = by_mu + np.sum(w * ratio, axis=0)
        by_logvar = by_logvar + 0.5 * np.sum(w * ratio * sd * eps, axis=0)
        by_ratio = np.reshape(np.sum(w * z - 0.5 * b, axis=-1), np.shape(grad_log_ratio))
    if grad_kl is not None:
        kl = np.reshape(grad_kl, (*shape[:-1], 1))
        by_mu, by_logvar = by_mu + a * kl, by_logvar + 0.5 * b * kl * sd * sd
        by_kl = np.sum(a * mu + 0.5 * b * (sd * sd - 1), axis=-1)
    by_logvar = by_logvar + 0.25 * b * sd * np.sum(t * eps, axis=0)
    by_z = np.reshape(w, np.shape(grad_z)) if needs[0] else None
    return by_z, by_kl, by_ratio, by_mu, by_logvar


defvjp(_gaussian_kl, joint=_gaussian_kl_rule)
defvjp(_gaussian_ratio, joint=_gaussian_ratio_rule)
defvjp(gaussian_reparam_vjp, joint=_gaussian_vjp_rule)


# --- Gaussian densities -------------------------------------------------------------------------------------


def gaussian_log_prob(x: Float32Array, mu: Float32Array, logvar: Float32Array) -> Float32Array:
    """Log-density of rows under diagonal Gaussians, ``sum_d log N(x; mu, e^logvar)``.

    Parameters
    ----------
    x : (..., D) float32
        Rows; a whole number S of times as many as those of `mu`: row ``s N + n`` meets row n of `mu`.
    mu, logvar : (..., D) float32
        Mean and logarithm of the variance.

    Returns
    -------
    (...) float32
        ``-1/2 sum_d ((x - mu)^2 e^-logvar + logvar + log 2 pi)``, in nats, one a row of `x`. Terms are float32, their
        sum is float64.

    Notes
    -----
    Gradient: to all three, by `gaussian_log_prob_vjp`. NaN and inf stay in their row. Extra memory: 5 KB a thread.

    Raises
    ------
    ValueError, TypeError
        Wrong shape, dtype or memory order.
    """
    result: Float32Array = _gaussian_log_prob(in_order(x), in_order(mu), in_order(logvar))
    return result


@primitive
def _gaussian_log_prob(x: Any, mu: Any, logvar: Any) -> Any:
    op = "sample.gaussian_log_prob"
    _check_log_prob(op, x, mu, logvar)
    out = empty(x, np.shape(x)[:-1], np.float32)
    _core.sample_gaussian_log_prob(
        x=as_matrix(op, "x", x), mu=as_matrix(op, "mu", mu), logvar=as_matrix(op, "logvar", logvar),
        samples=_times(x, mu), out=out.reshape(-1),
    )  # fmt: skip
    return out


def _check_log_prob(op: str, x: Any, mu: Any, logvar: Any) -> None:
    """Rows of x are those of mu, again and again: along the first axis, or along others before it."""
    same_shape(op, "logvar", logvar, "mu", mu)
    shape, own = np.shape(x), np.shape(mu)
    fits = shape[1:] == own[1:] or shape[-len(own) :] == own
    if not fits and not len(shape) == len(own) == 2:
        raise ValueError(
            f"{op}: expected x of shape {own}, that of mu, or with a first axis that is a whole number of times as "
            f"long, received {shape}"
        )


def _times(x: Any, mu: Any) -> int:
    """How many rows of x each row of mu meets; where that is no whole number, the kernel says so."""
    return max(int(np.prod(np.shape(x)[:-1])) // max(int(np.prod(np.shape(mu)[:-1])), 1), 1)


@primitive
def gaussian_log_prob_vjp(
    grad: Float32Array, x: Float32Array, mu: Float32Array, logvar: Float32Array
) -> tuple[Float32Array, Float32Array, Float32Array]:
    """Gradients of `gaussian_log_prob`, in one pass.

    With ``e = (x - mu) e^-logvar``: ``grad_x = -grad e``, ``grad_mu = sum_s grad e``,
    ``grad_logvar = 1/2 sum_s grad ((x - mu) e - 1)``.

    Parameters
    ----------
    grad : (...) float32
        Gradient of the result.
    x, mu, logvar
        As in the forward call.

    Returns
    -------
    grad_x, grad_mu, grad_logvar : float32
        Of the shapes of `x`, `mu` and `logvar`.

    Notes
    -----
    Gradient: to every array, in NumPy functions. Extra memory: 10 KB a thread.
    """
    op = "sample.gaussian_log_prob_vjp"
    _check_log_prob(op, x, mu, logvar)
    outs = [empty(array, np.shape(array), np.float32) for array in (x, mu, logvar)]
    _core.sample_gaussian_log_prob_vjp(
        grad=_vector_of(grad), x=as_matrix(op, "x", x), mu=as_matrix(op, "mu", mu),
        logvar=as_matrix(op, "logvar", logvar), samples=_times(x, mu),
        grad_x=as_matrix(op, "grad_x", outs[0]), grad_mu=as_matrix(op, "grad_mu", outs[1]),
        grad_logvar=as_matrix(op, "grad_logvar", outs[2]),
    )  # fmt: skip
    return outs[0], outs[1], outs[2]


def _log_prob_rule(_needs: Any, g: Any, _ans: Any, x: Any, mu: Any, logvar: Any) -> Any:
    return gaussian_log_prob_vjp(g, x, mu, logvar)


def _log_prob_vjp_rule(_needs: Any, g: Any, _ans: Any, grad: Any, x: Any, mu: Any, logvar: Any) -> Any:
    """With a, b, c the gradients of the results: that of ``sum grad ((b - a) e + c (d e - 1) / 2)``, d = x - mu."""
    draws = (_times(x, mu), *np.shape(mu))
    a = np.zeros(draws, np.float32) if g[0] is None else np.reshape(g[0], draws)
    b, c = (np.zeros(np.shape(mu), np.float32) if v is None else v for v in g[1:])
    precision, d = np.exp(-logvar), np.reshape(x, draws) - mu
    e, w, weight = d * precision, b - a, np.reshape(grad, (*draws[:-1], 1))
    by_grad = np.reshape(np.sum(w * e + 0.5 * c * (d * e - 1), axis=-1), np.shape(grad))
    by_x = weight * (w * precision + c * e)
    by_logvar = -np.sum(weight * (w * e + 0.5 * c * d * e), axis=0)
    return by_grad, np.reshape(by_x, np.shape(x)), -np.sum(by_x, axis=0), by_logvar


defvjp(_gaussian_log_prob, joint=_log_prob_rule)
defvjp(gaussian_log_prob_vjp, joint=_log_prob_vjp_rule)


# --- location and scale -------------------------------------------------------------------------------------


def location_scale(
    loc: Float32Array | None,
    scale: Float32Array,
    key: KeyLike,
    kind: Kind = "normal",
    *,
    step: int = 0,
    first_row: int = 0,
) -> Float32Array:
    """Reparameterised draws ``loc + scale noise`` of a location-scale family.

    Parameters
    ----------
    loc : (..., D) float32
        Location; None with "exponential", which has none.
    scale : (..., D) float32
        Scale. A negative one mirrors the noise; nothing is checked.
    key : Key, int or Generator
        Random numbers.
    kind : {"normal", "logistic", "laplace", "gumbel", "uniform", "exponential", "log_normal"}
        Of the noise: standard normal; ``log(u / (1 - u))``; ``log 2u`` or ``-log 2(1 - u)``; ``-log(-log u)``; uniform
        in (0, 1); of mean 1. "log_normal" gives ``exp(loc + scale noise)`` with normal noise. "normal", "uniform" and
        "exponential" noise is that of the functions of these names at the same coordinates.
    step, first_row : int
        Coordinates of the random numbers.

    Returns
    -------
    float32 of the shape of `scale`

    Notes
    -----
    u has 23 bits, so noise ends: logistic at 16.7, laplace at 16, gumbel at -2.9 and 16.7; all of it is finite.
    Gradient: to `loc` and `scale`, by `location_scale_vjp`. NaN and inf stay where they are. Extra memory: 3 KB a
    thread, 8 KB for normal noise.

    Raises
    ------
    ValueError, TypeError
        Wrong shape, dtype or memory order; an unknown `kind`; a coordinate out of range.
    """
    options = {"kind": _kind(kind), "key": as_key(key), "step": step, "first_row": first_row}
    function = _log_normal if kind == "log_normal" else _location_scale
    result: Float32Array = function(in_order(loc), in_order(scale), **options)
    return result


def _kind(kind: str) -> int:
    code = _KINDS.get(kind)
    if code is None:
        names = ", ".join(_KINDS)
        raise ValueError(f"sample.location_scale: expected kind to be one of {names}, received {kind!r}")
    return code


def _located(loc: Any, scale: Any, **options: int) -> Any:
    op = "sample.location_scale"
    if loc is not None:
        same_shape(op, "loc", loc, "scale", scale)
    out = empty(scale, np.shape(scale), np.float32)
    _core.sample_location_scale(
        loc=as_matrix(op, "loc", loc),
        scale=as_matrix(op, "scale", scale),
        out=as_matrix(op, "out", out),
        **options,
    )
    return out


@primitive
def _location_scale(loc: Any, scale: Any, **options: int) -> Any:
    return _located(loc, scale, **options)


@primitive
def _log_normal(loc: Any, scale: Any, **options: int) -> Any:
    return _located(loc, scale, **options)


@primitive
def location_scale_vjp(
    grad: Float32Array, y: Float32Array | None, *, kind: int, key: int, step: int = 0, first_row: int = 0
) -> tuple[Float32Array, Float32Array]:
    """Gradients of `location_scale`: ``grad h`` and ``grad h noise``; h is the result for a log-normal, else 1.

    Parameters
    ----------
    grad : (..., D) float32
        Gradient of the result.
    y : (..., D) float32, optional
        The result, of a log-normal.
    kind : int
        Place of the kind in the list of `location_scale`.
    key, step, first_row : int
        As in the forward call; the noise is computed again.

    Returns
    -------
    grad_loc, grad_scale : float32 of the shape of `grad`
    """
    grad_loc, grad_scale = (empty(grad, np.shape(grad), np.float32) for _ in range(2))
    _core.sample_location_scale_vjp(
        grad=_matrix_of(grad), y=_matrix_of(y), kind=kind, grad_loc=_matrix_of(grad_loc),
        grad_scale=_matrix_of(grad_scale), key=key, step=step, first_row=first_row,
    )  # fmt: skip
    return grad_loc, grad_scale


def _location_scale_rule(_needs: Any, g: Any, _ans: Any, _loc: Any, _scale: Any, **options: int) -> Any:
    return location_scale_vjp(g, None, **options)


def _log_normal_rule(_needs: Any, g: Any, ans: Any, _loc: Any, _scale: Any, **options: int) -> Any:
    return location_scale_vjp(g, ans, **options)


def _location_scale_vjp_rule(
    _needs: Any, g: Any, _ans: Any, grad: Any, y: Any, *, kind: int, **at: int
) -> Any:
    noise_kind = _KINDS["normal"] if kind == _KINDS["log_normal"] else kind
    shape = np.shape(grad)
    loc = None if kind == _KINDS["exponential"] else np.zeros(shape, np.float32)
    noise = _located(loc, np.ones(shape, np.float32), kind=noise_kind, **at)
    a, b = (0.0 if v is None else v for v in g)
    combined = a + b * noise
    return (combined, None) if y is None else (combined * y, combined * grad)


defvjp(_location_scale, joint=_location_scale_rule)
defvjp(_log_normal, joint=_log_normal_rule)
defvjp(location_scale_vjp, joint=_location_scale_vjp_rule)
