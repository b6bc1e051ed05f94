"""Autoregressive models: ``p(x) = prod_d p(x_d | the dimensions before it)``, with exact likelihoods and samples.

NADE, the neural autoregressive distribution estimator on binary ``x``: from ``a = c``, for each dimension in order ::

    h = logistic(a)
    logit_d = b_d + v_d . h            p(x_d = 1 | before) = logistic(logit_d)
    a = a + x_d w_d

- ``w``, ``v`` (D, H), ``c`` (H,), ``b`` (D,): float32; D dimensions, H hidden units;
- ``x`` (N, D): bool, uint8 or float32 of 0 and 1;
- ``order`` (D,) int64: a permutation of 0 to D - 1, the dimension that comes first, second, ...; as they lie without
  it. ``w``, ``v``, ``b`` and ``x`` are indexed by dimension, whatever the order.

Where ``x_d`` is 0, ``a`` and ``h`` stay what they are: hidden units are computed after ones only.

MADE and fully visible nets are stacks of `masked_linear`, whose units see what comes before them.

Arrays may be CuPy's, or others with ``__cuda_array_interface__``: results are made on their device, kernels are queued
on CuPy's (or PyTorch's) current stream, and nothing waits for them, so that values are not checked there: what is not 0
counts as 1. Masked layers and their samples have the CPU's bits (of a level with fused multiply-add), and so do NADE's
draws but for those within rounding of their means.

Source: Larochelle & Murray (2011), "The neural autoregressive distribution estimator"; orderings: Uria, Murray &
Larochelle (2014), "A deep and tractable density estimator".
"""

from gencore.kernels._masked import masked_linear
from gencore.kernels._masked_sample import masked_sample
from gencore.kernels._nade import nade_log_prob, nade_log_prob_vjp, nade_sample

__all__ = ["masked_linear", "masked_sample", "nade_log_prob", "nade_log_prob_vjp", "nade_sample"]
