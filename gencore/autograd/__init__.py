"""Autograd-lite: Tensors on NumPy and CuPy arrays, a tape, and gradient rules declared beside the ops.

`tensor` makes Tensors, `Tensor.backward` and `grad` differentiate, `primitive` with `defvjp` (or `nondiff`) adds an op.
Operators, NumPy's own functions (``np.exp(t)``, ``np.sum(t, axis=0)``) and gencore's kernels take Tensors as arrays.
"""

from gencore.autograd.backward import grad
from gencore.autograd.functions import logistic, relu, softplus
from gencore.autograd.record import defvjp, nondiff, primitive
from gencore.autograd.shapes import log_softmax, log_sum_exp, softmax
from gencore.autograd.tape import enable_grad, is_grad_enabled, no_grad
from gencore.autograd.tensors import Tensor, tensor

__all__ = [
    "Tensor", "defvjp", "enable_grad", "grad", "is_grad_enabled", "log_softmax", "log_sum_exp", "logistic", "no_grad",
    "nondiff", "primitive", "relu", "softmax", "softplus", "tensor",
]  # fmt: skip
