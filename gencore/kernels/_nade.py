"""NADE; `gencore.kernels.autoregressive` offers its functions."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gencore import _core
from gencore._checks import count
from gencore.autograd import Tensor, defvjp, logistic, primitive
from gencore.autograd.tensors import plain
from gencore.kernels._arrays import empty
from gencore.kernels._contiguous import contiguous
from gencore.random import KeyLike, as_key

Float32Array = NDArray[np.float32]
OrderArray = NDArray[np.int64]
StateArray = NDArray[Any]


def nade_log_prob(
    x: StateArray,
    w: Float32Array,
    c: Float32Array,
    v: Float32Array,
    b: Float32Array,
    *,
    order: OrderArray | None = None,
) -> Float32Array:
    """Log-probability of each row of ``x`` under NADE: ``sum_d x_d logit_d - softplus(logit_d)``.

    Parameters
    ----------
    x : (N, D) bool, uint8 or float32
        0 and 1.
    w, c, v, b : float32
        Parameters, of shapes (D, H), (H,), (D, H), (D,): ``logit_d = b_d + v_d . logistic(c + sum_e x_e w_e)``, where e
        runs over the dimensions before d.
    order : (D,) int64, optional
        Which dimension comes first, second, ...; 0 to D - 1 by default.

    Returns
    -------
    (N,) float32

    Raises
    ------
    ValueError, TypeError
        Wrong shape, dtype or memory order; an x other than 0 and 1 (named with its place); an order that is no
        permutation.

    Notes
    -----
    Logits are float32 sums; what follows is that of `gencore.kernels.dense.bernoulli_log_prob`: exact near certainty,
    sums over dimensions in float64. A row's result does not depend on the other rows. NaN gives NaN.

    Gradient: to w, c, v and b, by `nade_log_prob_vjp`, of any order.

    Work: N D H multiply-adds, and H logistic functions for each one in ``x``. Extra memory: ``64 H + 65 D`` bytes a
    thread; with Tensors among the parameters also the logits, ``4 N D`` bytes, which the gradient starts from.

    On a CUDA device, which is not waited for, no values are looked at: an x other than 0 counts as 1, and an order that
    is no permutation gives numbers without meaning. Extra memory there: the logits.

    Examples
    --------
    >>> import numpy as np
    >>> w, v = np.zeros((2, 3), np.float32), np.zeros((2, 3), np.float32)
    >>> c, b = np.zeros(3, np.float32), np.array([0, 100], np.float32)
    >>> nade_log_prob(np.array([[0, 0], [1, 1]], np.uint8), w, c, v, b)
    array([-100.693146 ,   -0.6931472], dtype=float32)
    """
    if any(isinstance(a, Tensor) for a in (x, w, c, v, b)):
        result: Float32Array = _log_prob_and_logits(x, w, c, v, b, order=order)[0]
        return result
    out: Float32Array = empty(w, _rows(x), np.float32)
    _core.autoregressive_nade_log_prob(x=x, w=w, c=c, v=v, b=b, order=order, out=out)
    return out


@primitive
def _log_prob_and_logits(x: Any, w: Any, c: Any, v: Any, b: Any, *, order: Any) -> tuple[Any, Any]:
    """The logits are for the backward pass, and of no gradient to anybody else."""
    out, logits = empty(w, _rows(x), np.float32), empty(w, np.shape(x), np.float32)
    _core.autoregressive_nade_log_prob(x=x, w=w, c=c, v=v, b=b, order=order, out=out, logits=logits)
    return out, logits


@primitive
def nade_log_prob_vjp(
    grad: Float32Array,
    x: StateArray,
    w: Float32Array,
    c: Float32Array,
    v: Float32Array,
    b: Float32Array,
    *,
    order: OrderArray | None = None,
    logits: Float32Array | None = None,
) -> tuple[Float32Array, Float32Array, Float32Array, Float32Array]:
    """Gradients of ``sum_n grad[n] nade_log_prob(x, w, c, v, b)[n]``.

    With ``g_d = grad (x_d - logistic(logit_d))`` and a = c + sum of the w before d, h = logistic(a), summed over rows::

        grad_v_d = g_d h        grad_w_e = x_e sum over d after e of h (1 - h) g_d v_d
        grad_b_d = g_d          grad_c   =     sum over all d     of h (1 - h) g_d v_d

    Parameters
    ----------
    grad : (N,) float32
        Gradient with respect to the log-probabilities.
    x, w, c, v, b, order
        As in `nade_log_prob`.
    logits : (N, D) float32, optional
        Those of the forward pass, where somebody has kept them; computed again without.

    Returns
    -------
    grad_w, grad_c, grad_v, grad_b : float32
        Of the shapes of w, c, v and b.

    Raises
    ------
    ValueError, TypeError
        As `nade_log_prob`, and for a grad or logits of another shape.

    Notes
    -----
    Sums over rows are float32, in an order that the shapes alone decide: the bits are the same for any number of
    threads. Hidden units are independent here, 64 of them (32 and 16 on narrower processors) are a task.

    Gradient: to grad, w, c, v and b, in plain NumPy functions that hold arrays of shape (N, D, H).

    Work: twice the multiply-adds of `nade_log_prob`, and as many logistic functions; without ``logits``, those of
    `nade_log_prob` as well. Extra memory, for any H: ``33 N D / 8`` bytes, and, a thread, 1 KB for each dimension and
    256 bytes for each one among eight rows of ``x``. On a CUDA device ``17 N D / 4`` bytes, the
    logits without ``logits``, and for each four rows, 32 times at most, ``(8.5 D + 516) H`` bytes.
    """
    outputs = tuple(empty(w, np.shape(a), np.float32) for a in (w, c, v, b))
    grad_w, grad_c, grad_v, grad_b = outputs
    _core.autoregressive_nade_log_prob_vjp(
        grad=grad, x=x, w=w, c=c, v=v, b=b, order=order, logits=logits,
        grad_w=grad_w, grad_c=grad_c, grad_v=grad_v, grad_b=grad_b,
    )  # fmt: skip
    return grad_w, grad_c, grad_v, grad_b


def nade_sample(
    w: Float32Array,
    c: Float32Array,
    v: Float32Array,
    b: Float32Array,
    n: int,
    key: KeyLike,
    *,
    order: OrderArray | None = None,
    temperature: float = 1.0,
    given: StateArray | None = None,
    mask: NDArray[np.uint8 | np.bool_] | None = None,
    step: int = 0,
    first_row: int = 0,
) -> NDArray[np.uint8]:
    """Draw from NADE, dimension after dimension: ``x_d = 1`` with probability ``logistic(logit_d / temperature)``.

    Parameters
    ----------
    w, c, v, b, order
        As in `nade_log_prob`.
    n : int
        Rows to draw.
    key : Key, int or Generator
        Random numbers.
    temperature : float
        Above 0. Below 1, likely states become likelier; not 1, the rows' probabilities are no longer those of
        `nade_log_prob`, but their conditionals are its tempered ones.
    given : (D,), (1, D) or (n, D) bool, uint8 or float32, with ``mask``
        0 and 1, also where nobody looks: what is known, one row for all or one for each.
    mask : (D,), (1, D) or (n, D) bool or uint8, with ``given``
        Where it is 1, x_d is given_d. What comes after a given dimension in the order is drawn given its value; what
        comes before is not: to condition on some dimensions, take an order in which they come first.
    step, first_row : int
        Coordinates of the random numbers.

    Returns
    -------
    (n, D) uint8

    Raises
    ------
    ValueError, TypeError
        Wrong shape, dtype or memory order; given or mask without the other, or other than 0 and 1; an order that is no
        permutation; a temperature that is not above 0; parameters whose logits are NaN.

    Notes
    -----
    Unit d of row r is ``u < logistic(logit_d / temperature)``, where u has 32 bits and depends on (``key``, ``step``,
    ``first_row + r``, d) alone: rows can be drawn in parts, and on any number of threads. Logits are float32 sums,
    whose rounding another ISA level or device may decide otherwise for a draw within it, once in about a million.

    Work: as `nade_log_prob`; dimensions that are given to eight rows side by side cost no product. Extra memory:
    ``64 H + 66 D`` bytes a thread.

    On a CUDA device, which is not waited for, no values are looked at: given or mask other than 0 count as 1, a NaN
    logit draws 0, and an order that is no permutation gives numbers without meaning. A dimension that is given costs no
    product there. No extra memory, but for more hidden units than fit a multiprocessor, some 29,000.

    Examples
    --------
    >>> import numpy as np
    >>> w, v = np.zeros((2, 3), np.float32), np.full((2, 3), 20, np.float32)
    >>> c, b = np.zeros(3, np.float32), np.zeros(2, np.float32)
    >>> nade_sample(w, c, v, b, 2, key=1)
    array([[1, 1],
           [1, 1]], dtype=uint8)
    """
    n = count("autoregressive.nade_sample", "n", n, least=0)
    out: NDArray[np.uint8] = empty(w, (n, *np.shape(w)[:1]) if len(np.shape(w)) > 0 else (n, 0), np.uint8)
    _core.autoregressive_nade_sample(
        w=w, c=c, v=v, b=b, order=order, out=out, given=_one_row(given), mask=_one_row(mask),
        temperature=temperature, key=as_key(key), step=step, first_row=first_row,
    )  # fmt: skip
    return out


def _one_row(states: Any) -> Any:
    shape = getattr(states, "shape", ())  # what is no array is left for the kernel to name
    return states.reshape(1, *shape) if len(shape) == 1 else states


def _rows(x: Any) -> tuple[int]:
    """Of a matrix; none of anything else, of which the compiled function says what is wrong."""
    shape = np.shape(x)
    return (shape[0] if len(shape) == 2 else 0,)


# --- gradients ----------------------------------------------------------------------------------------------


def _log_prob_rule(
    needs: Any, g: Any, ans: Any, x: Any, w: Any, c: Any, v: Any, b: Any, *, order: Any
) -> Any:
    if g[0] is None:
        return (None,) * len(needs)
    found = nade_log_prob_vjp(contiguous(g[0]), plain(x), w, c, v, b, order=order, logits=plain(ans[1]))
    return None, *found


def _before(steps: Any) -> Any:
    """Sum over the dimensions before each, axis 1."""
    return np.concatenate([np.zeros_like(steps[:, :1]), np.cumsum(steps[:, :-1], axis=1)], axis=1)


def _after(terms: Any) -> Any:
    """Sum over the dimensions after each, axis 1."""
    return np.flip(_before(np.flip(terms, 1)), 1)


def _vjp_rule(
    _needs: Any, g: Any, _ans: Any, grad: Any, x: Any, w: Any, c: Any, v: Any, b: Any, *, order: Any = None,
    logits: Any = None,
) -> Any:  # fmt: skip
    """With dw, dc, dv, db the gradients of the results: that of sum_n grad[n] (d log p(x[n]) along dw, dc, dv, db).

    Everything in the order of the dimensions, arrays (N, D, H); only where second derivatives are asked for.
    """
    del logits
    dw, dc, dv, db = (
        np.zeros_like(like) if a is None else a for a, like in zip(g, (w, c, v, b), strict=True)
    )
    places = np.arange(w.shape[0]) if order is None else np.asarray(order)
    back = np.argsort(places)
    w, v, b, dw, dv, db = (a[places] for a in (w, v, b, dw, dv, db))
    states = plain(x)[:, places].astype(np.float32)
    on = states[:, :, None]
    h = logistic(c + _before(on * w))
    slope = h * (1 - h)
    da = dc + _before(on * dw)
    p = logistic(b + np.sum(v * h, axis=2))
    moved = db + np.sum(dv * h + v * slope * da, axis=2)  # how far the logits move
    by_moved = grad[:, None] * (states - p)
    by_logit = -grad[:, None] * p * (1 - p) * moved
    by_a = slope * (by_logit[:, :, None] * v + by_moved[:, :, None] * (dv + v * da * (1 - 2 * h)))
    by_w = np.sum(on * _after(by_a), axis=0)
    by_v = np.sum(by_logit[:, :, None] * h + by_moved[:, :, None] * (slope * da), axis=0)
    by_b = np.sum(by_logit, axis=0)
    by_grad = np.sum((states - p) * moved, axis=1)
    return by_grad, None, by_w[back], np.sum(by_a, axis=(0, 1)), by_v[back], by_b[back]


defvjp(_log_prob_and_logits, joint=_log_prob_rule)
defvjp(nade_log_prob_vjp, joint=_vjp_rule)
