"""Nets of masked layers: the logits of all dimensions in one pass, each from the dimensions before it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gencore.autograd import Tensor, no_grad
from gencore.autograd.tensors import plain
from gencore.kernels import autoregressive, dense
from gencore.kernels._arrays import contiguous, full
from gencore.models._exact import Method
from gencore.models._neural import start_bias
from gencore.models._vectors import Asked, Draws, VectorModel, one_hot, split
from gencore.nn import Module, init
from gencore.nn.module import parameter
from gencore.random import Generator, Key

__all__ = ["Degrees", "Layer", "MaskedNet"]

Degrees = tuple[NDArray[np.int64], ...]
"""Of the dimensions (their places in the order), and of each hidden layer's units (the last place that they see)."""


class Layer(Module):
    """Weights (k, n) and biases (n,)."""

    def __init__(self, k: int, n: int, keys: Generator) -> None:
        super().__init__()
        self.weight = parameter(init.glorot_uniform((k, n), keys))
        self.bias = parameter(np.zeros(n, np.float32))


class MaskedNet(VectorModel):
    """One net and one mask or more; with more of them, the mean of the probabilities under each."""

    def __init__(self, seed: int, *, n_visible: int, **config: Any) -> None:
        super().__init__(seed, n_visible=n_visible, **config)
        self.n_visible = n_visible
        self.activation: dense.Activation = "relu"
        self.layers: list[Layer] = []
        self.direct: Tensor | None = None
        self.label_weight: Tensor | None = None
        self.label_bias: Tensor | None = None
        self._degrees: list[Degrees] = []

    def _build(
        self,
        hidden: Sequence[int],
        degrees: Sequence[Degrees],
        *,
        direct: bool,
        keys: Generator,
        n_classes: int,
    ) -> None:
        """Make the layers; weights that no mask lets through are 0, and stay it.

        What a label adds to the sums of the first hidden layer, and to the logits, is seen by all of them.
        """
        self.n_classes = n_classes
        self._degrees = list(degrees)
        widths = (self.n_visible, *hidden, self.n_visible)
        self.layers = [Layer(k, n, keys) for k, n in pairwise(widths)]
        if direct:
            self.direct = parameter(init.glorot_uniform((self.n_visible, self.n_visible), keys))
        with no_grad():
            for i, layer in enumerate(self.layers):
                seen = [self._mask(one, i) for one in degrees]
                layer.weight *= np.logical_or.reduce(seen).astype(np.float32)
            if self.direct is not None:
                seen = [one[0] > one[0][:, None] for one in degrees]
                self.direct *= np.logical_or.reduce(seen).astype(np.float32)
        if n_classes:
            self.label_bias = parameter(np.zeros((n_classes, self.n_visible), np.float32))
        if n_classes and hidden:
            self.label_weight = parameter(init.glorot_uniform((n_classes, hidden[0]), keys))
        self.eval()

    def _mask(self, degrees: Degrees, i: int) -> NDArray[np.bool_]:
        sees, k = degrees[(i + 1) % len(self.layers)], degrees[i][:, None]
        return np.asarray(sees > k if i + 1 == len(self.layers) else sees >= k)

    @property
    def n_masks(self) -> int:
        """Masks, whose probabilities are averaged."""
        return len(self._degrees)

    def order(self, mask: int = 0) -> NDArray[np.int64]:
        """Which dimension comes first, second, ... under a mask: (n_visible,) int64."""
        return np.argsort(self._degrees[mask][0], kind="stable")

    # --- probabilities ----------------------------------------------------------------------------------------

    def logits(self, x: Any, mask: int = 0, labels: Any = None) -> Any:
        """Logits of p(x_d = 1 | x before d) under a mask, differentiable: (n, n_visible) -> (n, n_visible)."""
        z = self._logits_beside_label(x, mask, labels)
        if self.label_bias is None:
            return z
        of_label: Any = self.label_bias
        return z + dense.linear(one_hot(labels, self.n_classes), of_label)

    def _logits_beside_label(self, x: Any, mask: int, labels: Any) -> Any:
        """`logits` without `label_bias`."""
        degrees, h = list(self._here(self._degrees[mask])), x
        first: Any = self.layers[0].weight
        if self.label_weight is not None:  # a label's bits are inputs before all others
            h = np.concatenate([one_hot(labels, self.n_classes), x], axis=1)
            first = np.concatenate([self.label_weight, first])
        weights = [first, *(layer.weight for layer in self.layers[1:])]
        sees = [self._with_label_degrees(degrees[0]), *degrees[1:]]
        for i, layer in enumerate(self.layers[:-1]):
            b: Any = layer.bias
            h = autoregressive.masked_linear(
                h, weights[i], b, in_degree=sees[i], out_degree=degrees[i + 1], activation=self.activation
            )
        last: Any = self.layers[-1]
        places: Any = {"out_degree": degrees[0], "strict": True}
        z: Any = autoregressive.masked_linear(h, weights[-1], last.bias, in_degree=sees[-1], **places)
        if self.direct is not None:
            past: Any = self.direct
            z = z + autoregressive.masked_linear(x, past, in_degree=degrees[0], **places)
        return z

    def _with_label_degrees(self, degrees: Any) -> Any:
        """Those of the inputs: a label's bits, if hidden units see any, come before all dimensions."""
        if self.label_weight is None:
            return degrees
        return np.concatenate([np.arange(-self.n_classes, 0, like=degrees), degrees])

    def log_prob_under(self, x: Any, mask: int) -> Any:
        """Log-probability of rows, or of those and their labels, under one mask, (n,), differentiable."""
        rows, labels = split(x)
        return dense.bernoulli_log_prob(self.logits(rows, mask, labels), rows)

    def log_prob_of(self, x: Any) -> Any:
        """Log-probability of rows as kernels take them, (n,), differentiable with respect to the parameters."""
        each = [self.log_prob_under(x, i) for i in range(self.n_masks)]
        if len(each) == 1:
            return each[0]
        return dense.log_sum_exp(np.stack(each, axis=1)) - math.log(len(each))

    def _fitted_log_prob(self, x: Any, _key: Key) -> Any:
        """An update learns under one mask, the next under the next."""
        return self.log_prob_under(x, self.steps % self.n_masks) if self.training else self.log_prob_of(x)

    def _weights(self) -> Sequence[Tensor]:
        others = (self.direct, self.label_weight, self.label_bias)
        return [layer.weight for layer in self.layers] + [w for w in others if w is not None]

    def _start_at(self, logits: NDArray[np.float32]) -> None:
        start_bias(self.layers[-1].bias, logits)

    # --- sampling ---------------------------------------------------------------------------------------------

    def _draw(self, asked: Asked, method: Method) -> NDArray[np.uint8]:
        """Rows are dealt to the masks at random: draws of the mixture."""
        draws = self._without_label_bias(asked.draws(self.like()))
        one = self._draw_under if method == "cached" else self._draw_naively
        if self.n_masks == 1:
            return one(draws, 0)
        dealt = np.minimum((draws.uniform * self.n_masks).astype(np.int64), self.n_masks - 1)
        out: NDArray[np.uint8] = draws.rows()
        for mask in np.unique(dealt):
            rows = np.flatnonzero(dealt == mask)
            out[self._here(rows)] = one(draws.of(rows), int(mask))
        return out

    def _without_label_bias(self, draws: Draws) -> Draws:
        """What is added to a logit may as well be taken from the noise that it is compared with."""
        if self.label_bias is None:
            return draws
        return replace(draws, noise=draws.noise - plain(self.label_bias)[draws.labels])

    def _draw_under(self, draws: Draws, mask: int) -> NDArray[np.uint8]:
        degrees = list(self._here(self._degrees[mask]))
        weights, biases = (
            [plain(a) for a in (getattr(layer, k) for layer in self.layers)] for k in ("weight", "bias")
        )
        direct, n = plain(self.direct), 0
        if self.label_weight is not None:  # a label's bits are dimensions before all others, and given
            n = self.n_classes
            degrees[0] = self._with_label_degrees(degrees[0])
            weights[0] = np.concatenate([plain(self.label_weight), weights[0]])
            weights[-1], biases[-1] = (_widened(a, n) for a in (weights[-1], biases[-1]))
            if direct is not None:
                direct = np.concatenate([_zeros(direct, n, n + len(direct)), _widened(direct, n)])
            draws = self._with_label_given(draws)
        drawn = autoregressive.masked_sample(
            draws.noise, weights, biases, degrees=degrees, direct=direct, activation=self.activation,
            given=draws.given, mask=draws.mask,
        )  # fmt: skip
        of_dimensions: NDArray[np.uint8] = contiguous(drawn[:, n:])
        return of_dimensions

    def _with_label_given(self, draws: Draws) -> Draws:
        bits = one_hot(draws.labels, self.n_classes)
        nothing = draws.rows()
        given, mask = (nothing if a is None else a for a in (draws.given, draws.mask))
        return Draws(
            _widened(draws.noise, self.n_classes),
            np.concatenate([bits, given], axis=1), np.concatenate([full(bits, bits.shape, 1, np.uint8), mask], axis=1),
            draws.uniform,
        )  # fmt: skip

    def _draw_naively(self, draws: Draws, mask: int) -> NDArray[np.uint8]:
        rows: NDArray[np.uint8] = draws.rows()
        with no_grad():
            for d in self.order(mask):
                rows[:, d] = draws.unit(d, plain(self._logits_beside_label(rows, mask, draws.labels))[:, d])
        return rows


def _zeros(like: Any, *shape: int) -> Any:
    return full(like, shape, 0, np.float32)


def _widened(array: Any, n: int) -> Any:
    """With n columns of zeros before its own."""
    return np.concatenate([_zeros(array, *array.shape[:-1], n), array], axis=-1)
