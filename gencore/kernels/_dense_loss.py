"""Losses of a net's last layer, one number for each row; `gencore.kernels.dense` offers them."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gencore import _core
from gencore.autograd import defvjp, primitive
from gencore.kernels._arrays import empty
from gencore.kernels._contiguous import contiguous

Float32Array = NDArray[np.float32]
LabelArray = NDArray[np.int64]
TargetArray = NDArray[Any]


@primitive
def bernoulli_log_prob(logits: Float32Array, targets: TargetArray) -> Float32Array:
    """Log-probability of each row of targets under independent Bernoulli units.

    ``sum_d t_d x_d - softplus(x_d)``, in one pass and with no other array.

    Parameters
    ----------
    logits : (S N, D) float32
        Log-odds of a 1, ``log(p / (1 - p))``; any number, infinities included.
    targets : (N, D) bool, uint8 or float32
        0 and 1, or (float32) anything from 0 to 1. Row n goes with rows n, N + n, 2 N + n, ... of the logits: S samples
        of a batch, one batch after another, as ``z.reshape(S * N, -1)`` has them.

    Returns
    -------
    (S N,) float32

    Raises
    ------
    ValueError, TypeError
        Wrong shape, dtype or memory order; rows of logits that are no multiple of those of targets; on the CPU, a
        target outside [0, 1] (named with its place).

    Notes
    -----
    No term is positive and sums are float64, so that the result is exact to a relative 4e-7 (7 units of rounding) at
    both ends: near certainty as well as for logits of 1e4. A certain miss (a logit of inf and a target below 1) gives
    -inf; a certain hit costs nothing. NaN gives NaN.

    Gradient, to any order: ``g (t - logistic(x))`` for the logits, `bernoulli_log_prob_vjp`; ``g x``, summed over
    samples, for float32 targets.

    Extra memory: none.

    Examples
    --------
    >>> bernoulli_log_prob(np.array([[0, 100], [0, -100]], np.float32), np.array([[1, 1]], np.uint8))
    array([  -0.6931472, -100.693146 ], dtype=float32)
    """
    out: Float32Array = empty(logits, (_rows(logits),), np.float32)
    _core.dense_bernoulli_log_prob(logits=logits, targets=targets, out=out)
    return out


@primitive
def bernoulli_log_prob_vjp(grad: Float32Array, logits: Float32Array, targets: TargetArray) -> Float32Array:
    """Gradient of `bernoulli_log_prob` with respect to its logits: ``grad[r] (t - logistic(x))``.

    Parameters
    ----------
    grad : (S N,) float32
        Gradient with respect to the log-probabilities.
    logits, targets
        As in `bernoulli_log_prob`.

    Returns
    -------
    (S N, D) float32

    Raises
    ------
    ValueError, TypeError
        As `bernoulli_log_prob`, and for a grad of another shape.

    Notes
    -----
    Exact near certainty: where the target is 1, ``1 - logistic(x)`` is computed as ``logistic(-x)``.

    Extra memory: none.
    """
    grad_logits: Float32Array = empty(logits, _shape(logits), np.float32)
    _core.dense_bernoulli_log_prob_vjp(grad=grad, logits=logits, targets=targets, grad_logits=grad_logits)
    return grad_logits


def binary_cross_entropy_with_logits(logits: Float32Array, targets: TargetArray) -> Float32Array:
    """Binary cross-entropy of each row, summed over its units: minus `bernoulli_log_prob`.

    Parameters
    ----------
    logits : (S N, D) float32
        Log-odds of a 1.
    targets : (N, D) bool, uint8 or float32
        From 0 to 1.

    Returns
    -------
    (S N,) float32
        ``sum_d softplus(x_d) - t_d x_d``.

    Raises
    ------
    ValueError, TypeError
        As `bernoulli_log_prob`, in its name.

    Notes
    -----
    torch's function of the same name takes the mean over all units, unless told otherwise.
    """
    return -bernoulli_log_prob(logits, targets)


@primitive
def softmax_cross_entropy(logits: Float32Array, labels: LabelArray) -> Float32Array:
    """Cross-entropy of each row's label under a softmax: ``log sum_k exp(x_k) - x_label``.

    Parameters
    ----------
    logits : (N, K) float32
        Unnormalised log-probabilities of K classes.
    labels : (N,) int64
        From 0 to K - 1.

    Returns
    -------
    (N,) float32

    Raises
    ------
    ValueError, TypeError
        Wrong shape, dtype or memory order; on the CPU, a label out of range, named with its row (on a CUDA device,
        which is not waited for, its row gets NaN).

    Notes
    -----
    ``(max - x_label) + log1p(rest)``, where rest sums ``exp(x - max)`` over all but the greatest in float64: exact near
    certainty, and for any size of logits. A class of -inf is impossible: its label costs inf. Where the greatest
    logits are infinite they share alike. NaN gives NaN.

    Gradient, to any order: ``g (softmax(x) - onehot(label))``, `softmax_cross_entropy_vjp`.

    Extra memory: none.

    Examples
    --------
    >>> softmax_cross_entropy(np.array([[0, 0], [30, 0]], np.float32), np.array([1, 0]))
    array([6.931472e-01, 9.357623e-14], dtype=float32)
    """
    out: Float32Array = empty(logits, (_rows(logits),), np.float32)
    _core.dense_softmax_cross_entropy(logits=logits, labels=labels, out=out)
    return out


@primitive
def softmax_cross_entropy_vjp(grad: Float32Array, logits: Float32Array, labels: LabelArray) -> Float32Array:
    """Gradient of `softmax_cross_entropy`: ``grad[r] (softmax(x)_k - [k = label])``.

    Parameters
    ----------
    grad : (N,) float32
        Gradient with respect to the cross-entropies.
    logits, labels
        As in `softmax_cross_entropy`.

    Returns
    -------
    (N, K) float32

    Raises
    ------
    ValueError, TypeError
        As `softmax_cross_entropy`, and for a grad of another shape.

    Notes
    -----
    At the label it is minus the share of the others, exact where that is small.

    Extra memory: none.
    """
    grad_logits: Float32Array = empty(logits, _shape(logits), np.float32)
    _core.dense_softmax_cross_entropy_vjp(grad=grad, logits=logits, labels=labels, grad_logits=grad_logits)
    return grad_logits


@primitive
def log_sum_exp(x: Float32Array) -> Float32Array:
    """``log sum_k exp(x_k)`` of each row.

    Parameters
    ----------
    x : (N, K) float32
        Any numbers, infinities included.

    Returns
    -------
    (N,) float32

    Raises
    ------
    ValueError, TypeError
        Wrong shape, dtype or memory order.

    Notes
    -----
    The greatest element plus ``log1p`` of the rest in float64: nothing overflows. A row of -inf, or of no columns,
    gives -inf; one with an element of inf gives inf; NaN gives NaN.

    Gradient, to any order: ``g softmax(x)``, `log_sum_exp_vjp`.

    Extra memory: none.

    Examples
    --------
    >>> log_sum_exp(np.array([[1000, 1000], [-np.inf, -np.inf]], np.float32))
    array([1000.6932,      -inf], dtype=float32)
    """
    out: Float32Array = empty(x, (_rows(x),), np.float32)
    _core.dense_log_sum_exp(x=x, out=out)
    return out


@primitive
def log_sum_exp_vjp(grad: Float32Array, x: Float32Array) -> Float32Array:
    """Gradient of `log_sum_exp`: ``grad[r] softmax(x[r])``.

    Parameters
    ----------
    grad : (N,) float32
        Gradient with respect to the results.
    x : (N, K) float32
        As in `log_sum_exp`.

    Returns
    -------
    (N, K) float32

    Raises
    ------
    ValueError, TypeError
        As `log_sum_exp`, and for a grad of another shape.

    Notes
    -----
    Where the greatest elements are infinite they share alike: the limit of equal elements that grow.

    Extra memory: none.
    """
    grad_x: Float32Array = empty(x, _shape(x), np.float32)
    _core.dense_log_sum_exp_vjp(grad=grad, x=x, grad_x=grad_x)
    return grad_x


# --- gradients ----------------------------------------------------------------------------------------------


def _over_samples(x: Any, targets: Any) -> Any:
    """Sum, for each row of targets, over the rows that go with it."""
    n = targets.shape[0]
    return np.sum(np.reshape(x, (x.shape[0] // max(n, 1), *targets.shape)), axis=0)


def _slope_of_one(vjp: Any, *args: Any) -> Any:
    """The gradient where that of the result is 1."""
    return vjp(np.full_like(args[0], 1, np.float32, shape=args[0].shape[:1]), *args)


def _bernoulli_second(g: Any, _ans: Any, grad: Any, logits: Any, _targets: Any) -> Any:
    """The slope t - logistic(x) has the slope -logistic(x) logistic(-x): those of targets 0 and 1, multiplied."""
    never, always = (np.full_like(logits, t, np.uint8, shape=(1, logits.shape[1])) for t in (0, 1))
    less, more = (_slope_of_one(bernoulli_log_prob_vjp, logits, t) for t in (never, always))
    return g * grad[:, None] * less * more


def _softmax_second(g: Any, _ans: Any, grad: Any, x: Any, _labels: Any = None) -> Any:
    """Of the softmax s: grad s (g - sum_k g s)."""
    s = _slope_of_one(log_sum_exp_vjp, x)
    return grad[:, None] * s * (g - np.sum(g * s, axis=1, keepdims=True))


defvjp(
    bernoulli_log_prob,
    lambda g, _ans, logits, targets: bernoulli_log_prob_vjp(contiguous(g), logits, targets),
    lambda g, _ans, logits, _targets: _over_samples(g[:, None] * logits, _targets),
)
defvjp(
    bernoulli_log_prob_vjp,
    lambda g, _ans, _grad, logits, targets: np.sum(
        g * _slope_of_one(bernoulli_log_prob_vjp, logits, targets), axis=1
    ),
    _bernoulli_second,
    lambda g, _ans, grad, _logits, _targets: _over_samples(g * grad[:, None], _targets),
)
defvjp(
    softmax_cross_entropy,
    lambda g, _ans, logits, labels: softmax_cross_entropy_vjp(contiguous(g), logits, labels),
    None,
)
defvjp(
    softmax_cross_entropy_vjp,
    lambda g, _ans, _grad, logits, labels: np.sum(
        g * _slope_of_one(softmax_cross_entropy_vjp, logits, labels), axis=1
    ),
    _softmax_second,
    None,
)
defvjp(log_sum_exp, lambda g, _ans, x: log_sum_exp_vjp(contiguous(g), x))
defvjp(
    log_sum_exp_vjp,
    lambda g, _ans, _grad, x: np.sum(g * _slope_of_one(log_sum_exp_vjp, x), axis=1),
    _softmax_second,
)


def _shape(array: Any) -> tuple[int, int]:
    """That of a matrix; (0, 0) for anything else, of which the compiled function says what is wrong."""
    shape: tuple[int, ...] = getattr(array, "shape", ())
    return (shape[0], shape[1]) if len(shape) == 2 else (0, 0)


def _rows(array: Any) -> int:
    return _shape(array)[0]
