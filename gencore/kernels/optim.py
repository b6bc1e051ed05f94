"""Fused parameter updates, in place: of one array uphill (`sgd`), and of all parameters of a model downhill.

The functions ``*_step`` do one step of a `torch.optim` optimizer, with its arithmetic, on all arrays in one call and
one pass over memory. Their lists hold float32 arrays, contiguous in C order, of the same shapes at the same places; no
two of them may share memory. `gencore.optim` keeps the state for you. All functions write into their arguments, and
hence take arrays, never Tensors: there is no gradient.

Arrays may be CuPy's, or others with ``__cuda_array_interface__``: a launch updates up to 48 arrays on CuPy's (or
PyTorch's) current stream, and nothing waits for it. The bits are the CPU's (of a level with fused multiply-add).
"""

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from gencore import _core
from gencore.kernels._arrays import empty, is_cuda_array

__all__ = [
    "adadelta_step",
    "adagrad_step",
    "adam_step",
    "ema_update",
    "rmsprop_step",
    "scale",
    "sgd",
    "sgd_step",
    "square_sum",
]

Float32Array = NDArray[np.float32]
Float32Arrays: TypeAlias = list[Float32Array] | tuple[Float32Array, ...]


def sgd(
    param: Float32Array,
    grad: Float32Array,
    *,
    lr: float,
    momentum: float = 0.0,
    weight_decay: float = 0.0,
    velocity: Float32Array | None = None,
) -> None:
    """One step of stochastic gradient ascent with momentum, in place and in one pass.

    ``velocity <- momentum velocity + lr (grad - weight_decay param)``, then ``param <- param + velocity``. The
    gradient points uphill: it is that of a log-likelihood. (To descend, give a negative `lr` and negative
    `weight_decay`.)

    Parameters
    ----------
    param : float32 array
        Parameters of any shape. Updated.
    grad : float32 array of the same shape
        Gradient.
    lr : float
        Learning rate.
    momentum : float
        What is kept of the last step.
    weight_decay : float
        Strength of the pull towards 0: the gradient of ``-weight_decay / 2 |param|^2`` is added.
    velocity : float32 array of the same shape, optional
        The last step, at first zeros. Updated. Needed where `momentum` is not 0.

    Raises
    ------
    ValueError, TypeError
        Shapes that differ; wrong dtype or memory order; a read-only array; a number that is not finite; momentum
        without velocity.

    Notes
    -----
    The same bits for any number of threads. A NaN in `grad` makes NaN of its parameter and no other.

    Source: Rumelhart, Hinton & Williams (1986), "Learning representations by back-propagating errors".
    """
    for name, array in (("grad", grad), ("velocity", velocity)):
        if array is not None and np.shape(array) != np.shape(param):
            raise ValueError(
                f"optim.sgd: expected {name} of shape {np.shape(param)}, the shape of param, "
                f"received {np.shape(array)}"
            )
    _core.optim_sgd(
        param=_as_vector("param", param), grad=_as_vector("grad", grad),
        velocity=None if velocity is None else _as_vector("velocity", velocity),
        lr=lr, momentum=momentum, weight_decay=weight_decay,
    )  # fmt: skip


def sgd_step(
    params: Float32Arrays,
    grads: Float32Arrays,
    *,
    lr: float,
    momentum: float = 0.0,
    dampening: float = 0.0,
    weight_decay: float = 0.0,
    nesterov: bool = False,
    maximize: bool = False,
    momentum_buffers: Float32Arrays | None = None,
) -> None:
    """One step of gradient descent with momentum on all parameters, as `torch.optim.SGD` does it.

    With ``g = grad + weight_decay param``: ``buffer <- momentum buffer + (1 - dampening) g``, then
    ``param <- param - lr buffer``; with `nesterov`, ``param <- param - lr (g + momentum buffer)``; without buffers,
    ``param <- param - lr g``.

    Parameters
    ----------
    params : list of float32 arrays
        Parameters of any shapes. Updated.
    grads : list of float32 arrays of the same shapes
        Gradients; they point uphill, and the step goes down.
    lr : float
        Learning rate.
    momentum, dampening : float
        What is kept of the buffer, and what is kept out of it.
    weight_decay : float
        Its multiple of the parameter is added to the gradient.
    nesterov : bool
        Look one step ahead.
    maximize : bool
        Go uphill: turn the gradients around.
    momentum_buffers : list of float32 arrays of the same shapes, optional
        Running sums of gradients. Updated. Needed where `momentum` is not 0. torch's first step makes the buffer the
        gradient: give zeros and ``dampening=0``.

    Raises
    ------
    ValueError, TypeError
        Lists of different lengths, arrays of different shapes; wrong dtype or memory order; a read-only array; a number
        that is not finite; momentum without buffers.

    Notes
    -----
    The same bits for any number of threads. A NaN in a gradient makes NaN of its parameter and no other. No extra
    memory.

    Source: Sutskever, Martens, Dahl & Hinton (2013), "On the importance of initialization and momentum in deep
    learning", in the form of `torch.optim.SGD`.
    """
    _check_shapes("sgd_step", "params", params, grads=grads, momentum_buffers=momentum_buffers)
    _core.optim_sgd_step(
        params=params, grads=grads, lr=lr, momentum=momentum, dampening=dampening, weight_decay=weight_decay,
        nesterov=nesterov, maximize=maximize, momentum_buffers=momentum_buffers,
    )  # fmt: skip


def rmsprop_step(
    params: Float32Arrays,
    grads: Float32Arrays,
    *,
    square_avgs: Float32Arrays,
    lr: float,
    alpha: float = 0.99,
    eps: float = 1e-8,
    momentum: float = 0.0,
    weight_decay: float = 0.0,
    maximize: bool = False,
    grad_avgs: Float32Arrays | None = None,
    momentum_buffers: Float32Arrays | None = None,
) -> None:
    """One step of RMSprop on all parameters, as `torch.optim.RMSprop` does it.

    With ``g = grad + weight_decay param``: ``s <- alpha s + (1 - alpha) g^2``, ``u = g / (sqrt(s) + eps)``, and
    ``param <- param - lr u``. With `momentum_buffers`, ``buffer <- momentum buffer + u`` is subtracted in place of u;
    with `grad_avgs` (centred), ``m <- alpha m + (1 - alpha) g`` and ``s - m^2`` stands for s under the root.

    Parameters
    ----------
    params : list of float32 arrays
        Parameters of any shapes. Updated.
    grads : list of float32 arrays of the same shapes
        Gradients; they point uphill, and the step goes down.
    square_avgs : list of float32 arrays of the same shapes
        Running means of squares, s; zeros at first. Updated.
    lr : float
        Learning rate.
    alpha : float
        What is kept of a running mean.
    eps : float
        Added to the root.
    momentum : float
        What is kept of the buffer.
    weight_decay : float
        Its multiple of the parameter is added to the gradient.
    maximize : bool
        Go uphill: turn the gradients around.
    grad_avgs : list of float32 arrays of the same shapes, optional
        Running means of gradients, m; zeros at first. Updated. They make it centred.
    momentum_buffers : list of float32 arrays of the same shapes, optional
        Zeros at first. Updated. Needed where `momentum` is not 0.

    Raises
    ------
    ValueError, TypeError
        Lists of different lengths, arrays of different shapes; wrong dtype or memory order; a read-only array; a number
        that is not finite; momentum without buffers.

    Notes
    -----
    ``s - m^2`` is held at 0 where rounding takes it below (torch makes NaN of that).

    The same bits for any number of threads. A NaN in a gradient makes NaN of its parameter and no other. No extra
    memory.

    Source: Tieleman & Hinton (2012), lecture 6.5; Graves (2013), "Generating sequences with recurrent neural
    networks" (centred).
    """
    _check_shapes("rmsprop_step", "params", params, grads=grads, square_avgs=square_avgs,
                  grad_avgs=grad_avgs, momentum_buffers=momentum_buffers)  # fmt: skip
    _core.optim_rmsprop_step(
        params=params, grads=grads, square_avgs=square_avgs, lr=lr, alpha=alpha, eps=eps, momentum=momentum,
        weight_decay=weight_decay, maximize=maximize, grad_avgs=grad_avgs, momentum_buffers=momentum_buffers,
    )  # fmt: skip


def adagrad_step(
    params: Float32Arrays,
    grads: Float32Arrays,
    *,
    state_sums: Float32Arrays,
    lr: float,
    step: int,
    lr_decay: float = 0.0,
    eps: float = 1e-10,
    weight_decay: float = 0.0,
    maximize: bool = False,
) -> None:
    """One step of Adagrad on all parameters, as `torch.optim.Adagrad` does it.

    With ``g = grad + weight_decay param``: ``s <- s + g^2``, then
    ``param <- param - lr / (1 + (step - 1) lr_decay) g / (sqrt(s) + eps)``.

    Parameters
    ----------
    params : list of float32 arrays
        Parameters of any shapes. Updated.
    grads : list of float32 arrays of the same shapes
        Gradients; they point uphill, and the step goes down.
    state_sums : list of float32 arrays of the same shapes
        Sums of squares, s. Updated.
    lr : float
        Learning rate.
    step : int
        The number of this step, from 1.
    lr_decay : float
        How fast the learning rate falls.
    eps : float
        Added to the root.
    weight_decay : float
        Its multiple of the parameter is added to the gradient.
    maximize : bool
        Go uphill: turn the gradients around.

    Raises
    ------
    ValueError, TypeError
        Lists of different lengths, arrays of different shapes; wrong dtype or memory order; a read-only array; a number
        that is not finite; a step below 1.

    Notes
    -----
    The same bits for any number of threads. A NaN in a gradient makes NaN of its parameter and no other. No extra
    memory.

    Source: Duchi, Hazan & Singer (2011), "Adaptive subgradient methods for online learning and stochastic
    optimization".
    """
    _check_shapes("adagrad_step", "params", params, grads=grads, state_sums=state_sums)
    _core.optim_adagrad_step(
        params=params, grads=grads, state_sums=state_sums, lr=lr, step=step, lr_decay=lr_decay, eps=eps,
        weight_decay=weight_decay, maximize=maximize,
    )  # fmt: skip


def adadelta_step(
    params: Float32Arrays,
    grads: Float32Arrays,
    *,
    square_avgs: Float32Arrays,
    acc_deltas: Float32Arrays,
    lr: float = 1.0,
    rho: float = 0.9,
    eps: float = 1e-6,
    weight_decay: float = 0.0,
    maximize: bool = False,
) -> None:
    """One step of Adadelta on all parameters, as `torch.optim.Adadelta` does it.

    With ``g = grad + weight_decay param``: ``s <- rho s + (1 - rho) g^2``, ``d = sqrt(a + eps) / sqrt(s + eps) g``,
    ``a <- rho a + (1 - rho) d^2``, then ``param <- param - lr d``.

    Parameters
    ----------
    params : list of float32 arrays
        Parameters of any shapes. Updated.
    grads : list of float32 arrays of the same shapes
        Gradients; they point uphill, and the step goes down.
    square_avgs, acc_deltas : lists of float32 arrays of the same shapes
        Running means of squares: of gradients, s, and of steps, a; zeros at first. Updated.
    lr : float
        What the step is multiplied by.
    rho : float
        What is kept of a running mean.
    eps : float
        Added to both means; sets the size of the first steps.
    weight_decay : float
        Its multiple of the parameter is added to the gradient.
    maximize : bool
        Go uphill: turn the gradients around.

    Raises
    ------
    ValueError, TypeError
        Lists of different lengths, arrays of different shapes; wrong dtype or memory order; a read-only array; a number
        that is not finite.

    Notes
    -----
    The same bits for any number of threads. A NaN in a gradient makes NaN of its parameter and no other. No extra
    memory.

    Source: Zeiler (2012), "ADADELTA: an adaptive learning rate method".
    """
    _check_shapes(
        "adadelta_step", "params", params, grads=grads, square_avgs=square_avgs, acc_deltas=acc_deltas
    )
    _core.optim_adadelta_step(
        params=params, grads=grads, square_avgs=square_avgs, acc_deltas=acc_deltas, lr=lr, rho=rho, eps=eps,
        weight_decay=weight_decay, maximize=maximize,
    )  # fmt: skip


def adam_step(
    params: Float32Arrays,
    grads: Float32Arrays,
    *,
    exp_avgs: Float32Arrays,
    exp_avg_sqs: Float32Arrays,
    lr: float,
    step: int,
    beta1: float = 0.9,
    beta2: float = 0.999,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    decoupled: bool = False,
    maximize: bool = False,
    max_exp_avg_sqs: Float32Arrays | None = None,
) -> None:
    """One step of Adam on all parameters, as `torch.optim.Adam` and `torch.optim.AdamW` do it.

    With ``g = grad + weight_decay param``, or with `decoupled` (AdamW) ``param <- (1 - lr weight_decay) param`` first:
    ``m <- beta1 m + (1 - beta1) g``, ``v <- beta2 v + (1 - beta2) g^2``, then
    ``param <- param - lr / (1 - beta1^step) m / (sqrt(v / (1 - beta2^step)) + eps)``. With `max_exp_avg_sqs` (AMSGrad)
    the largest v so far stands for v there.

    Parameters
    ----------
    params : list of float32 arrays
        Parameters of any shapes. Updated.
    grads : list of float32 arrays of the same shapes
        Gradients; they point uphill, and the step goes down.
    exp_avgs, exp_avg_sqs : lists of float32 arrays of the same shapes
        Running means of gradients, m, and of their squares, v; zeros at first. Updated.
    lr : float
        Learning rate.
    step : int
        The number of this step, from 1. The corrections ``1 - beta^step`` are computed in float64.
    beta1, beta2 : float
        What is kept of m and of v.
    eps : float
        Added to the root.
    weight_decay : float
        Its multiple of the parameter is added to the gradient, or shrinks the parameter if `decoupled`.
    decoupled : bool
        AdamW.
    maximize : bool
        Go uphill: turn the gradients around.
    max_exp_avg_sqs : list of float32 arrays of the same shapes, optional
        Largest v so far; zeros at first. Updated.

    Raises
    ------
    ValueError, TypeError
        Lists of different lengths, arrays of different shapes; wrong dtype or memory order; a read-only array; a number
        that is not finite; a step below 1.

    Notes
    -----
    The same bits for any number of threads. A NaN in a gradient makes NaN of its parameter and no other. No extra
    memory.

    Source: Kingma & Ba (2015), "Adam: a method for stochastic optimization"; Reddi, Kale & Kumar (2018), "On the
    convergence of Adam and beyond"; Loshchilov & Hutter (2019), "Decoupled weight decay regularization".
    """
    _check_shapes("adam_step", "params", params, grads=grads, exp_avgs=exp_avgs, exp_avg_sqs=exp_avg_sqs,
                  max_exp_avg_sqs=max_exp_avg_sqs)  # fmt: skip
    _core.optim_adam_step(
        params=params, grads=grads, exp_avgs=exp_avgs, exp_avg_sqs=exp_avg_sqs, lr=lr, step=step, beta1=beta1,
        beta2=beta2, eps=eps, weight_decay=weight_decay, decoupled=decoupled, maximize=maximize,
        max_exp_avg_sqs=max_exp_avg_sqs,
    )  # fmt: skip


def ema_update(averages: Float32Arrays, params: Float32Arrays, *, decay: float) -> None:
    """Exponential moving averages of parameters, ``average <- decay average + (1 - decay) param``, in one pass.

    Parameters
    ----------
    averages : list of float32 arrays
        Averages of any shapes. Updated.
    params : list of float32 arrays of the same shapes
        What is averaged.
    decay : float
        What is kept of the average; 0 and 1 copy and keep exactly.

    Raises
    ------
    ValueError, TypeError
        Lists of different lengths, arrays of different shapes; wrong dtype or memory order; a read-only average; a
        decay that is not finite.

    Notes
    -----
    The same bits for any number of threads. No extra memory.

    Source: Polyak & Juditsky (1992), "Acceleration of stochastic approximation by averaging".
    """
    _check_shapes("ema_update", "averages", averages, params=params)
    _core.optim_ema_update(averages=averages, params=params, decay=decay)


def square_sum(arrays: Float32Arrays) -> float:
    """Sum of the squares of all elements of all arrays, in float64.

    Parameters
    ----------
    arrays : list of float32 arrays
        Any shapes.

    Returns
    -------
    float
        The squared Euclidean norm of all elements together; 0 for no elements. On a device an array there of no axes:
        nothing waits.

    Raises
    ------
    TypeError
        Wrong dtype or memory order.

    Notes
    -----
    The same bits for any number of threads and on every ISA level. The relative error is at most ``n 2^-53`` for n
    elements. Memory: 8 bytes for each 65,536 elements.
    """
    on_device = len(arrays) > 0 and is_cuda_array(arrays[0])
    out: NDArray[np.float64] = empty(arrays[0] if on_device else None, (1,), np.float64)
    _core.optim_square_sum(arrays=arrays, out=out)
    return out.reshape(()) if on_device else float(out[0])  # type: ignore[return-value]


def scale(arrays: Float32Arrays, factor: float) -> None:
    """Multiply every element of all arrays by one number, in place.

    Parameters
    ----------
    arrays : list of float32 arrays
        Any shapes. Updated.
    factor : float
        Rounded to float32 once. Infinity and NaN are allowed, and show.

    Raises
    ------
    TypeError
        Wrong dtype or memory order; a read-only array.

    Notes
    -----
    The same bits for any number of threads. No extra memory.
    """
    _core.optim_scale(arrays=arrays, factor=factor)


def _check_shapes(op: str, like: str, arrays: Any, **lists: Any) -> None:
    """Arrays of the same shapes at the same places; the kernel sees sizes only, and says what else is wrong."""
    try:
        shapes = [array.shape for array in arrays]
        if all(others is None or [other.shape for other in others] == shapes for others in lists.values()):
            return
    except (AttributeError, TypeError):
        pass
    for name, others in lists.items():
        if not isinstance(others, list | tuple) or not isinstance(arrays, list | tuple):
            continue
        for k, (array, other) in enumerate(zip(arrays, others, strict=False)):
            expected, received = getattr(array, "shape", None), getattr(other, "shape", None)
            if expected != received and expected is not None and received is not None:
                raise ValueError(
                    f"optim.{op}: expected {name}[{k}] of shape {tuple(expected)}, the shape of {like}[{k}], "
                    f"received {tuple(received)}"
                )


def _as_vector(name: str, array: Any) -> Any:
    """All elements in a row, sharing the memory. What the kernel would refuse is left for it to say."""
    on_device = is_cuda_array(array)
    if not (on_device or isinstance(array, np.ndarray)) or len(array.shape) == 1:
        return array
    strides = array.__cuda_array_interface__.get("strides") if on_device else None
    in_order = strides is None if on_device else array.flags.c_contiguous
    if not in_order:
        raise TypeError(
            f"optim.sgd: expected {name} to be contiguous in C order (cure: numpy.ascontiguousarray), "
            "received a strided array"
        )
    return array.reshape(-1)
