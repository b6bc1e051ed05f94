"""Restricted Boltzmann machines with binary units.

The model is ``p(v, h) = exp(b.v + c.h + v' w h) / Z`` over ``v`` in {0, 1}^n_visible and ``h`` in {0, 1}^n_hidden.
Every function takes the parameters first:

- ``w`` (n_visible, n_hidden), ``b`` (n_visible,), ``c`` (n_hidden,): float32, finite;
- states: bool, uint8 or float32 arrays of 0 and 1, one row a sample.

Gibbs step ``t`` draws ``h ~ p(h | v)``, then ``v ~ p(v | h)``. Row ``r`` of a batch uses the random numbers of row
``first_row + r`` at step ``first_step + t`` of ``key``: chains can be cut by rows or by steps, moved and continued, and
give the bits of the uncut run, for any number of threads.

Arrays may be CuPy's, or others with ``__cuda_array_interface__``: results are made on their device, kernels are queued
on CuPy's (or PyTorch's) current stream, and nothing waits for them. Hence there values are not checked: a state other
than 0 counts as 1 where it must be binary, NaN in a parameter makes NaN of the means and 0 of the draws that it meets,
and falling ``betas`` are those that come with a ``start``. Sums go in the CPU's order, so that chains give the CPU's
bits (of a level with fused multiply-add), unless `gibbs_chain` is told to round the weights.

Sources: Hinton (2002), "Training products of experts by minimizing contrastive divergence"; Tieleman (2008), "Training
restricted Boltzmann machines using approximations to the likelihood gradient"; Salakhutdinov & Murray (2008), "On the
quantitative analysis of deep belief networks"; Melchior, Fischer & Wiskott (2016), "How to center deep Boltzmann
machines".
"""

from numbers import Real
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gencore import _core
from gencore.kernels._arrays import empty, empty_like, full, is_cuda_array, placed
from gencore.random import KeyLike, as_key

Float32Array = NDArray[np.float32]
Float64Array = NDArray[np.float64]
StateArray = NDArray[Any]
"""Binary states: bool, uint8, or float32 of 0 and 1."""
Precision = Literal["float32", "tf32", "bf16"]
"""What the weights of a product are rounded to."""
_PRECISIONS = ("float32", "tf32", "bf16")  # in the order of the kernels' numbers


def gibbs_chain(
    w: Float32Array,
    b: Float32Array,
    c: Float32Array,
    v: StateArray,
    *,
    steps: int,
    key: KeyLike,
    beta: float | Float32Array = 1.0,
    clamp: StateArray | None = None,
    first_step: int = 0,
    first_row: int = 0,
    precision: Precision = "float32",
    out: StateArray | None = None,
) -> StateArray:
    """Run Gibbs chains from ``v``.

    Parameters
    ----------
    w, b, c
        Parameters of the machine.
    v : (n, n_visible) states
        Where the chains start. Not written, unless it is also ``out``.
    steps : int
        v-h-v steps, all in one call. 0 gives ``v`` back.
    key : Key, int or Generator
        Random numbers.
    beta : float or (n,) array of float32, default 1
        Inverse temperature: samples from ``p(v, h)^beta``; one for all rows, or one a row (tempering).
    clamp : (n_visible,), (1, n_visible) or (n, n_visible) bool or uint8, optional
        Units marked 1 keep the value they have in ``v``: samples of the rest given those.
    first_step, first_row : int
        Coordinates of the first random numbers.
    precision : {"float32", "tf32", "bf16"}
        "tf32" and "bf16", on CUDA devices of compute capability 8.0 or later: tensor cores take the weights rounded,
        once a call, to 11 or 8 significant bits. The chains are those of the machine with these weights: states are
        exact, and sums, biases, temperatures, uniforms and draws float32.
    out : (n, n_visible) states, optional
        Where to write; may be ``v`` itself.

    Returns
    -------
    (n, n_visible) states of the dtype of ``v``
        ``out``, or a new array.

    Notes
    -----
    Work: the weight rows of the units that are on, no multiplication. Extra memory: both packings of the weights
    (``8 n_visible n_hidden`` bytes, with "bf16" half of that), the states as bits, and nothing per step.

    With "tf32" and "bf16" the order of sums is the hardware's: the bits do not depend on how chains share the device,
    and may differ from those of "float32" with weights rounded beforehand where a uniform is within rounding of its
    probability. A weight that is not finite, or that bfloat16 cannot hold, makes 0 of all draws of its units.

    Raises
    ------
    ValueError, TypeError
        Wrong shape, dtype or memory order, a state other than 0 and 1, a parameter that is not finite, an unknown
        ``precision``, one other than "float32" on the CPU.
    """
    if precision not in _PRECISIONS:
        raise ValueError(
            f"rbm.gibbs_chain: expected precision to be 'float32', 'tf32' or 'bf16', received {precision!r}"
        )
    if out is None:
        out = empty_like(v)
    mask: Any = clamp
    if getattr(clamp, "ndim", None) == 1:
        mask = mask.reshape(1, -1)
    single = isinstance(beta, Real) or (isinstance(beta, np.ndarray) and beta.ndim == 0)
    temperature = full(v, (1,), float(beta), np.float32) if single else beta
    _core.rbm_gibbs_chain(
        w=w, b=b, c=c, v=v, v_out=out, steps=steps, key=as_key(key), beta=temperature, clamp=mask,
        first_step=first_step, first_row=first_row, precision=_PRECISIONS.index(precision),
    )  # fmt: skip
    return out


def hidden_mean(w: Float32Array, c: Float32Array, v: StateArray, *, beta: float = 1.0) -> Float32Array:
    """Means of the hidden units, ``p(h = 1 | v) = logistic(beta (c + v w))``.

    Parameters
    ----------
    w, c
        Parameters of the machine.
    v : (n, n_visible)
        States. float32 may be real-valued (grey levels, means).
    beta : float
        Inverse temperature.

    Returns
    -------
    (n, n_hidden) float32
    """
    out: Float32Array = empty(v, (_rows(v), _matrix_shape("rbm.hidden_mean", "w", w)[1]), np.float32)
    _core.rbm_hidden_mean(w=w, c=c, v=v, out=out, beta=beta)
    return out


def visible_mean(w: Float32Array, b: Float32Array, h: StateArray, *, beta: float = 1.0) -> Float32Array:
    """Means of the visible units, ``p(v = 1 | h) = logistic(beta (b + h w'))``; see `hidden_mean`."""
    out: Float32Array = empty(h, (_rows(h), _matrix_shape("rbm.visible_mean", "w", w)[0]), np.float32)
    _core.rbm_visible_mean(w=w, b=b, h=h, out=out, beta=beta)
    return out


def hidden_sample(
    w: Float32Array,
    c: Float32Array,
    v: StateArray,
    *,
    key: KeyLike,
    step: int = 0,
    first_row: int = 0,
    beta: float = 1.0,
) -> NDArray[np.uint8]:
    """Draws ``h ~ p(h | v)``: those that `gibbs_chain` makes at ``step``.

    Parameters
    ----------
    w, c
        Parameters of the machine.
    v : (n, n_visible)
        States. float32 may be real-valued.
    key : Key, int or Generator
        Random numbers.
    step, first_row : int
        Coordinates of the random numbers.
    beta : float
        Inverse temperature.

    Returns
    -------
    (n, n_hidden) uint8
    """
    out: NDArray[np.uint8] = empty(v, (_rows(v), _matrix_shape("rbm.hidden_sample", "w", w)[1]), np.uint8)
    _core.rbm_hidden_sample(
        w=w, c=c, v=v, out=out, beta=beta, key=as_key(key), step=step, first_row=first_row
    )
    return out


def visible_sample(
    w: Float32Array,
    b: Float32Array,
    h: StateArray,
    *,
    key: KeyLike,
    step: int = 0,
    first_row: int = 0,
    beta: float = 1.0,
) -> NDArray[np.uint8]:
    """Draws ``v ~ p(v | h)``: those that `gibbs_chain` makes at ``step``; see `hidden_sample`."""
    out: NDArray[np.uint8] = empty(h, (_rows(h), _matrix_shape("rbm.visible_sample", "w", w)[0]), np.uint8)
    _core.rbm_visible_sample(
        w=w, b=b, h=h, out=out, beta=beta, key=as_key(key), step=step, first_row=first_row
    )
    return out


def free_energy(
    w: Float32Array, b: Float32Array, c: Float32Array, v: StateArray, *, beta: float = 1.0
) -> Float64Array:
    """Free energy ``F(v) = -beta b.v - sum_j softplus(beta (c_j + (v w)_j))``, so that ``p(v) = exp(-F(v)) / Z``.

    Parameters
    ----------
    w, b, c
        Parameters of the machine.
    v : (n, n_visible)
        States. float32 may be real-valued.
    beta : float
        Inverse temperature.

    Returns
    -------
    (n,) float64
        In nats. Fields are float32, their sum is float64.
    """
    out: Float64Array = empty(v, (_rows(v),), np.float64)
    _core.rbm_free_energy(w=w, b=b, c=c, v=v, out=out, beta=beta)
    return out


class CdGradient(NamedTuple):
    """What `cd_gradient` computes."""

    weight: Float32Array
    """(n_visible, n_hidden): gradient by ``w``, uphill."""
    visible_bias: Float32Array
    """(n_visible,): gradient by ``b``."""
    hidden_bias: Float32Array
    """(n_hidden,): gradient by ``c``."""
    chains: NDArray[np.uint8]
    """(m, n_visible): the last states of the chains."""
    mean_v: Float32Array
    """(n_visible,): mean of the batch."""
    mean_h: Float32Array
    """(n_hidden,): mean of ``p(h = 1 | v)`` over the batch."""


def cd_gradient(
    w: Float32Array,
    b: Float32Array,
    c: Float32Array,
    v: StateArray,
    *,
    key: KeyLike,
    k: int = 1,
    first_step: int = 0,
    chains: NDArray[np.uint8] | None = None,
    offset_v: Float32Array | None = None,
    offset_h: Float32Array | None = None,
    out: CdGradient | None = None,
) -> CdGradient:
    """Contrastive-divergence estimate of the gradient of the mean log-likelihood.

    With ``E_d`` the mean over the batch, ``E_m`` the mean over the chains after ``k`` Gibbs steps,
    ``H = p(h = 1 | v)`` and offsets ``mu``, ``lambda``::

        weight       = E_d[(v - mu)(H - lambda)'] - E_m[(v - mu)(H - lambda)']
        visible_bias = E_d[v] - E_m[v] - weight lambda
        hidden_bias  = E_d[H] - E_m[H] - weight' mu

    Each mean divides by its own count. Without offsets this is the plain gradient.

    Parameters
    ----------
    w, b, c
        Parameters of the machine.
    v : (n, n_visible)
        The batch. float32 may be real-valued.
    key : Key, int or Generator
        Random numbers of the chains.
    k : int
        Gibbs steps.
    first_step : int
        Coordinate of the first step: persistent chains count on.
    chains : (m, n_visible) uint8, optional
        Persistent chains (PCD) start here. Not given: the chains start at the batch (CD).
    offset_v, offset_h : (n_visible,), (n_hidden,) float32, optional
        Offsets of the centred gradient; both or neither.
    out : CdGradient, optional
        Arrays to write into, as an earlier call returned them. ``out.chains`` may be ``chains``.

    Returns
    -------
    CdGradient

    Notes
    -----
    Extra memory: both packings of ``w``, the hidden means of batch and chains, states as bits.
    """
    if out is None:
        n_visible, n_hidden = _matrix_shape("rbm.cd_gradient", "w", w)
        out = CdGradient(
            empty(w, (n_visible, n_hidden), np.float32),
            empty(w, (n_visible,), np.float32),
            empty(w, (n_hidden,), np.float32),
            empty(w, (_rows(v) if chains is None else _rows(chains), n_visible), np.uint8),
            empty(w, (n_visible,), np.float32),
            empty(w, (n_hidden,), np.float32),
        )
    _core.rbm_cd_gradient(
        w=w, b=b, c=c, v=v, chains=chains, chains_out=out.chains, k=k, key=as_key(key), first_step=first_step,
        offset_v=offset_v, offset_h=offset_h, grad_w=out.weight, grad_b=out.visible_bias, grad_c=out.hidden_bias,
        mean_v=out.mean_v, mean_h=out.mean_h,
    )  # fmt: skip
    return out


def log_partition_exact(w: Float32Array, b: Float32Array, c: Float32Array) -> float:
    """Log of the partition function, ``log Z``, by enumeration of the smaller side.

    Parameters
    ----------
    w, b, c
        Parameters of the machine; one side has at most 30 units.

    Returns
    -------
    float
        In nats. Gray code over the states, sums in float64. On a device an array there of no axes: nothing waits.

    Notes
    -----
    Work ``2^small * large`` softplus; extra memory 64 ``large`` floats a thread.
    """
    out: Float64Array = empty(w, (1,), np.float64)
    _core.rbm_log_partition_exact(w=w, b=b, c=c, out=out)
    return out.reshape(()) if is_cuda_array(w) else float(out[0])  # type: ignore[return-value]


def ais(
    w: Float32Array,
    b: Float32Array,
    c: Float32Array,
    *,
    betas: ArrayLike,
    base_bias: Float32Array,
    key: KeyLike,
    n_runs: int | None = None,
    start: NDArray[np.uint8] | None = None,
    first_row: int = 0,
) -> tuple[Float64Array, NDArray[np.uint8]]:
    """Annealed importance sampling between a base-rate model and the machine, a whole schedule in one call.

    The path is ``f_beta(v) = exp((1 - beta) b0.v + beta b.v) prod_j (1 + exp(beta (c_j + (v w)_j)))``. With rising
    ``betas`` the runs start from independent draws of the base model, and::

        log Z = n_hidden log 2 + sum_i softplus(b0_i) + log E[exp(log_weights)]

    With falling ``betas`` they start from ``start``, samples of the machine, and ``-log_weights`` estimates the same
    ratio from above.

    Parameters
    ----------
    w, b, c
        Parameters of the machine.
    betas : (n_temperatures,) float64
        From 0 to 1, or from 1 to 0. For a machine on a device they are best there, too, else they are copied.
    base_bias : (n_visible,) float32
        ``b0``: logits of the base rates.
    key : Key, int or Generator
        Random numbers.
    n_runs : int, optional
        Number of runs, where ``start`` does not give it.
    start : (n_runs, n_visible) uint8, optional
        Where the runs start; required for falling ``betas``.
    first_row : int
        Coordinate of the first run.

    Returns
    -------
    log_weights : (n_runs,) float64
        Log importance weights, accumulated in float64.
    v : (n_runs, n_visible) uint8
        Last states: with rising ``betas``, approximate samples of the machine.

    Source
    ------
    Neal (2001), "Annealed importance sampling"; Salakhutdinov & Murray (2008).
    """
    n_visible, _ = _matrix_shape("rbm.ais", "w", w)
    if start is not None:
        rows = _rows(start)
        if n_runs is not None and n_runs != rows:
            raise ValueError(f"rbm.ais: expected n_runs to be the rows of start, {rows}, received {n_runs}")
    elif n_runs is None or n_runs < 1:
        raise ValueError(f"rbm.ais: expected n_runs to be at least 1, received {n_runs}")
    else:
        rows = n_runs
    log_weights = empty(w, (rows,), np.float64)
    v = empty(w, (rows, n_visible), np.uint8)
    _core.rbm_ais(
        w=w, b=b, c=c, betas=placed(w, betas, np.float64), base_bias=base_bias, start=start,
        log_weights=log_weights, v_out=v, key=as_key(key), first_row=first_row,
    )  # fmt: skip
    return log_weights, v


def pseudo_log_likelihood(w: Float32Array, b: Float32Array, c: Float32Array, v: StateArray) -> Float64Array:
    """Pseudo-log-likelihood ``sum_i log p(v_i | v without i)``, exact.

    Parameters
    ----------
    w, b, c
        Parameters of the machine.
    v : (n, n_visible) states

    Returns
    -------
    (n,) float64
        In nats. Work ``n n_visible n_hidden`` softplus.
    """
    out: Float64Array = empty(v, (_rows(v),), np.float64)
    _core.rbm_pseudo_log_likelihood(w=w, b=b, c=c, v=v, out=out)
    return out


def stochastic_pseudo_log_likelihood(
    w: Float32Array,
    b: Float32Array,
    c: Float32Array,
    v: StateArray,
    *,
    key: KeyLike,
    step: int = 0,
    first_row: int = 0,
) -> Float64Array:
    """Unbiased estimate of `pseudo_log_likelihood` from one unit a row.

    Parameters
    ----------
    w, b, c
        Parameters of the machine.
    v : (n, n_visible) states
    key : Key, int or Generator
        Random numbers: which unit each row looks at.
    step, first_row : int
        Coordinates of the random numbers.

    Returns
    -------
    (n,) float64
        ``n_visible log p(v_i | v without i)`` for a uniform ``i`` a row.
    """
    out: Float64Array = empty(v, (_rows(v),), np.float64)
    _core.rbm_stochastic_pseudo_log_likelihood(
        w=w, b=b, c=c, v=v, out=out, key=as_key(key), step=step, first_row=first_row
    )
    return out


def _rows(states: Any) -> int:
    """Rows of an output; whatever is wrong with ``states`` is for the op to say."""
    shape = getattr(states, "shape", ())
    return int(shape[0]) if shape else 0


def _matrix_shape(op: str, name: str, w: Any) -> tuple[int, int]:
    shape = getattr(w, "shape", None)
    if shape is None or len(shape) != 2:
        received = type(w).__name__ if shape is None else f"shape {tuple(shape)}"
        raise ValueError(f"{op}: expected {name} to have 2 dimensions, received {received}")
    return int(shape[0]), int(shape[1])
