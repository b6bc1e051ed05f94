"""Layers."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from gencore._checks import count
from gencore.autograd import Tensor, defvjp, functions, primitive, tensor
from gencore.kernels import dense, sample
from gencore.nn import init as initial
from gencore.nn.module import Module, parameter
from gencore.random import Generator, KeyLike, as_key

__all__ = [
    "BatchNorm", "Dropout", "Embedding", "LayerNorm", "Linear", "Logistic", "ReLU", "Sequential", "Softplus", "Tanh",
]  # fmt: skip


def generator_of(key: KeyLike | None) -> Generator:
    """A generator that a key leads to; without one, of the operating system's randomness."""
    return Generator(int.from_bytes(os.urandom(8), "little") if key is None else as_key(key))


class Linear(Module):
    """``activation(x w + bias)``, one fused kernel.

    Parameters
    ----------
    n_in, n_out : int
        Columns of the input and of the result.
    activation : {"identity", "logistic", "tanh", "relu", "softplus"}
        Applied in the same pass.
    bias : bool
        Whether there is one.
    init : Initializer
        Of the weight; the bias starts at 0.
    key : Key, int or Generator, optional
        Where the initial weights come from. None: from the operating system, other ones each time.

    Attributes
    ----------
    weight : (n_in, n_out) Tensor
    bias : (n_out,) Tensor or None
    """

    def __init__(
        self,
        n_in: int,
        n_out: int,
        activation: dense.Activation = "identity",
        *,
        bias: bool = True,
        init: initial.Initializer = initial.glorot_uniform,
        key: KeyLike | None = None,
    ) -> None:
        super().__init__()
        for name, value in (("n_in", n_in), ("n_out", n_out)):
            count("Linear", name, value)
        dense.activation_code("Linear", activation)  # refuses an unknown name
        self.n_in, self.n_out, self.activation = int(n_in), int(n_out), activation
        self.weight = parameter(init((self.n_in, self.n_out), generator_of(key)))
        self.bias = parameter(np.zeros(self.n_out, np.float32)) if bias else None

    def forward(self, x: Any) -> Any:
        """(..., n_in) -> (..., n_out)."""
        weight: Any = self.weight
        bias: Any = self.bias
        return dense.linear(x, weight, bias, activation=self.activation)


class Sequential(Module):
    """Modules one after the other. ``net[i]`` is the i-th."""

    def __init__(self, *layers: Module) -> None:
        super().__init__()
        for i, layer in enumerate(layers):
            if not isinstance(layer, Module):
                raise TypeError(f"Sequential: expected layer {i} to be a Module, received {layer!r:.60}")
        for i, layer in enumerate(layers):
            setattr(self, str(i), layer)
        self._n = len(layers)

    def __len__(self) -> int:
        return self._n

    def __getitem__(self, i: int) -> Module:
        layer: Module = getattr(self, str(range(self._n)[i]))
        return layer

    def __iter__(self) -> Iterator[Module]:
        return (self[i] for i in range(self._n))

    def forward(self, x: Any) -> Any:
        """Feed each layer the result of the one before."""
        for layer in self:
            x = layer(x)
        return x


class _Elementwise(Module):
    def forward(self, x: Any) -> Any:
        """Any shape -> the same shape."""
        return type(self).function(x)

    function: Any


class Tanh(_Elementwise):
    """``tanh(x)``. Fused with the product: ``Linear(..., activation="tanh")``."""

    function = staticmethod(functions.tanh)


class Logistic(_Elementwise):
    """``1 / (1 + exp(-x))``. Fused with the product: ``Linear(..., activation="logistic")``."""

    function = staticmethod(functions.logistic)


class ReLU(_Elementwise):
    """``max(x, 0)``. Fused with the product: ``Linear(..., activation="relu")``."""

    function = staticmethod(functions.relu)


class Softplus(_Elementwise):
    """``log(1 + exp(x))``. Fused with the product: ``Linear(..., activation="softplus")``."""

    function = staticmethod(functions.softplus)


@primitive
def _dropout(x: Any, p: float, key: int, step: int) -> Any:
    return x * _kept_units(x, p, key, step)


def _kept_units(x: Any, p: float, key: int, step: int) -> Any:
    """1 / (1 - p) for the units that stay, 0 for the others; made anew by the backward pass, never stored."""
    keep = sample.uniform(x.shape, key, step=step) >= np.float32(p)
    return keep * x.dtype.type(1 / (1 - p))


defvjp(_dropout, lambda g, _ans, _x, p, key, step: g * _kept_units(_x, p, key, step))


class Dropout(Module):
    """In training, sets each unit to 0 with probability `p` and multiplies the others by 1 / (1 - p).

    Parameters
    ----------
    p : float
        From 0 to below 1.
    key : Key, int or Generator, optional
        Random numbers; call number i draws at step i. None: the operating system's.

    Notes
    -----
    Source: Srivastava et al. (2014), "Dropout: a simple way to prevent neural networks from overfitting". The mask is
    drawn anew in the backward pass from the same coordinates; none is kept.
    """

    def __init__(self, p: float = 0.5, *, key: KeyLike | None = None) -> None:
        super().__init__()
        if not 0 <= p < 1:
            raise ValueError(f"Dropout: expected p from 0 to below 1, received {p!r}")
        self.p = float(p)
        # Buffers: a model that is loaded goes on with the masks that it would have had.
        self.key = tensor(np.array(int(generator_of(key).key()), np.uint64))
        self.calls = tensor(np.zeros((), np.int64))

    def forward(self, x: Any) -> Any:
        """Any shape of real numbers -> the same shape."""
        if getattr(getattr(x, "dtype", None), "kind", "f") != "f":
            raise TypeError(f"Dropout: expected a floating-point dtype, received {x.dtype}")
        if not self.training or self.p == 0:
            return x
        step = int(self.calls)
        self.calls += 1
        return _dropout(x, self.p, int(self.key), step)


class LayerNorm(Module):
    """``(x - mean) / sqrt(var + eps) weight + bias``, mean and variance of each row's last axis.

    Source: Ba, Kiros & Hinton (2016), "Layer normalization".
    """

    def __init__(self, n: int, *, eps: float = 1e-5) -> None:
        super().__init__()
        self.n, self.eps = count("LayerNorm", "n", n), eps
        self.weight = parameter(np.ones(n, np.float32))
        self.bias = parameter(np.zeros(n, np.float32))

    def forward(self, x: Any) -> Any:
        """(..., n) -> (..., n)."""
        _check_columns("LayerNorm", x, self.n)
        centred = x - np.mean(x, axis=-1, keepdims=True)
        variance = np.mean(centred * centred, axis=-1, keepdims=True)
        return centred / np.sqrt(variance + self.eps) * self.weight + self.bias


class BatchNorm(Module):
    """``(x - mean) / sqrt(var + eps) weight + bias``, mean and variance of each column over all other axes.

    In training those of the batch, which also move the running ones; in evaluation the running ones.

    Parameters
    ----------
    n : int
        Columns.
    momentum : float
        What the running mean and variance take of a batch. The running variance is of the unbiased estimate.
    eps : float
        Keeps columns that never change finite.

    Notes
    -----
    Source: Ioffe & Szegedy (2015), "Batch normalization".
    """

    def __init__(self, n: int, *, momentum: float = 0.1, eps: float = 1e-5) -> None:
        super().__init__()
        self.n, self.momentum, self.eps = count("BatchNorm", "n", n), momentum, eps
        self.weight = parameter(np.ones(n, np.float32))
        self.bias = parameter(np.zeros(n, np.float32))
        self.running_mean = tensor(np.zeros(n, np.float32))
        self.running_var = tensor(np.ones(n, np.float32))

    def forward(self, x: Any) -> Any:
        """(..., n) -> (..., n)."""
        _check_columns("BatchNorm", x, self.n)
        if not self.training:
            mean, variance = self.running_mean, self.running_var
            return (x - mean) / np.sqrt(variance + self.eps) * self.weight + self.bias
        rows = x.size // self.n
        if rows < 2:
            raise ValueError(
                f"BatchNorm: expected at least 2 rows in training, received shape {tuple(x.shape)}"
            )
        axes = tuple(range(x.ndim - 1))
        mean = np.mean(x, axis=axes)
        centred = x - mean
        variance = np.mean(centred * centred, axis=axes)
        for running, value in ((self.running_mean, mean), (self.running_var, variance * (rows / (rows - 1)))):
            now = value.detach() if isinstance(value, Tensor) else value
            running += (now - running.detach()) * self.momentum
        return centred / np.sqrt(variance + self.eps) * self.weight + self.bias


class Embedding(Module):
    """Row ``weight[i]`` for each index i.

    Parameters
    ----------
    n, n_out : int
        Number of rows, and their length.
    init : Initializer
        Standard normal by default.
    key : Key, int or Generator, optional
        Where the initial values come from; see `Linear`.
    """

    def __init__(
        self, n: int, n_out: int, *, init: initial.Initializer | None = None, key: KeyLike | None = None
    ) -> None:
        super().__init__()
        self.n, self.n_out = count("Embedding", "n", n), count("Embedding", "n_out", n_out)
        self.weight = parameter((init or initial.normal(1.0))((self.n, self.n_out), generator_of(key)))

    def forward(self, index: Any) -> Any:
        """(...) integers from 0 to n - 1 -> (..., n_out)."""
        values = np.asarray(index)
        if values.dtype.kind not in "iu":
            raise TypeError(f"Embedding: expected integers, received dtype {values.dtype}")
        if values.size and not (values.min() >= 0 and values.max() < self.n):
            raise ValueError(
                f"Embedding: expected indices from 0 to {self.n - 1}, received {values.min()} to {values.max()}"
            )
        return self.weight[values]


def _check_columns(layer: str, x: Any, n: int) -> None:
    if x.ndim < 1 or x.shape[-1] != n:
        raise ValueError(f"{layer}: expected x of shape (..., {n}), received {tuple(x.shape)}")


def mlp(
    sizes: Sequence[int], activation: dense.Activation, *, last: dense.Activation = "identity", key: KeyLike
) -> Sequential:
    """Linear layers of these sizes with an activation between them."""
    generator = generator_of(key)
    kinds = [activation] * (len(sizes) - 2) + [last]
    return Sequential(
        *(Linear(a, b, kind, key=generator) for a, b, kind in zip(sizes[:-1], sizes[1:], kinds, strict=True))
    )
