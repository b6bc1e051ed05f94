"""Samples of masked nets; `gencore.kernels.autoregressive` offers the function."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from gencore import _core
from gencore.kernels import dense
from gencore.kernels._arrays import empty

Float32Array = NDArray[np.float32]


def masked_sample(
    noise: Float32Array,
    weights: Sequence[Float32Array],
    biases: Sequence[Float32Array],
    *,
    degrees: Sequence[NDArray[np.int64]],
    direct: Float32Array | None = None,
    activation: dense.Activation = "relu",
    given: NDArray[np.uint8 | np.bool_] | None = None,
    mask: NDArray[np.uint8 | np.bool_] | None = None,
) -> NDArray[np.uint8]:
    """Draw from a stack of masked layers, dimension after dimension: ``x_d = 1`` where ``logit_d > noise_d``.

    Parameters
    ----------
    noise : (n, D) float32
        Logistic noise times a temperature T makes ``p(x_d = 1) = logistic(logit_d / T)``.
    weights, biases : sequences of (k, n) and (n,) float32
        Of the layers, as `masked_linear` takes them; the last, strict, puts out the logits of the D dimensions.
    degrees : sequence of (D,), (n,), ... int64
        Of the dimensions, which are drawn by ascending degree, and of the units of each hidden layer.
    direct : (D, D) float32, optional
        Connections past the hidden layers: ``masked_linear(x, direct, ..., strict=True)`` is added to the logits.
    activation : str
        Of the hidden layers.
    given : (1, D) or (n, D) uint8 or bool, with ``mask``
        0 and 1: what is known.
    mask : (1, D) or (n, D) uint8 or bool, with ``given``
        Where it is not 0, x_d is given_d. What comes after a given dimension is drawn given its value.

    Returns
    -------
    (n, D) uint8

    Raises
    ------
    ValueError, TypeError
        Wrong shape, dtype or memory order; degrees by which a dimension would see itself or a later one; weights whose
        sums are NaN, or noise that is NaN where it decides.

    Notes
    -----
    Logits have the bits of those of `masked_linear`. Each unit is computed once, when the first that sees it is drawn:
    one forward pass in all, where a pass for each dimension takes D. Rows do not depend on each other.

    Extra memory: a copy of the weights; 256 bytes a thread for each dimension and hidden unit (64 on AVX2). On a CUDA
    device, of 64 layers at most, 4 bytes for each degree, and 4 bytes a row for each where they do not fit a
    multiprocessor, some 58,000. Nothing is waited for there: NaN draws 0.

    Examples
    --------
    >>> order, nothing = np.arange(2), np.zeros((1, 2), np.float32)
    >>> weights = [np.array([[0, 9], [0, 0]], np.float32)]  # the second is on where the first is
    >>> masked_sample(nothing, weights, [np.array([4, -4], np.float32)], degrees=[order])
    array([[1, 1]], dtype=uint8)
    """
    shape = np.shape(noise)
    out: NDArray[np.uint8] = empty(noise, shape if len(shape) == 2 else (0, 0), np.uint8)
    _core.autoregressive_masked_sample(
        degrees=list(degrees), weights=list(weights), biases=list(biases), direct=direct,
        activation=dense.activation_code("autoregressive.masked_sample", activation), noise=noise,
        given=given, mask=mask, out=out,
    )  # fmt: skip
    return out
