"""Nets of masked layers: the logits of all dimensions in one pass, each from the dimensions before it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gencore.autograd import Tensor, no_grad
from gencore.autograd.tensors import plain
from gencore.kernels import autoregressive, dense
from gencore.models._exact import Method
from gencore.models._neural import start_bias
from gencore.models._vectors import Asked, Draws, VectorModel
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
        self._degrees: list[Degrees] = []

    def _build(
        self, hidden: Sequence[int], degrees: Sequence[Degrees], *, direct: bool, keys: Generator
    ) -> None:
        """Make the layers; weights that no mask lets through are 0, and stay it."""
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

    def logits(self, x: Any, mask: int = 0) -> Any:
        """Logits of p(x_d = 1 | x before d) under a mask, differentiable: (n, n_visible) -> (n, n_visible)."""
        degrees, h = self._here(self._degrees[mask]), x
        for i, layer in enumerate(self.layers[:-1]):
            w: Any = layer.weight
            b: Any = layer.bias
            h = autoregressive.masked_linear(
                h, w, b, in_degree=degrees[i], out_degree=degrees[i + 1], activation=self.activation
            )
        last: Any = self.layers[-1]
        places: Any = {"out_degree": degrees[0], "strict": True}
        z: Any = autoregressive.masked_linear(h, last.weight, last.bias, in_degree=degrees[-1], **places)
        if self.direct is not None:
            past: Any = self.direct
            z = z + autoregressive.masked_linear(x, past, in_degree=degrees[0], **places)
        return z

    def log_prob_under(self, x: Any, mask: int) -> Any:
        """Log-probability of rows under one mask, (n,), differentiable."""
        return dense.bernoulli_log_prob(self.logits(x, mask), x)

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
        direct = [] if self.direct is None else [self.direct]
        return [layer.weight for layer in self.layers] + direct

    def _start_at(self, logits: NDArray[np.float32]) -> None:
        start_bias(self.layers[-1].bias, logits)

    # --- sampling ---------------------------------------------------------------------------------------------

    def _draw(self, asked: Asked, method: Method) -> NDArray[np.uint8]:
        """Rows are dealt to the masks at random: draws of the mixture."""
        draws = asked.draws(self.like())
        one = self._draw_under if method == "cached" else self._draw_naively
        if self.n_masks == 1:
            return one(draws, 0)
        dealt = np.minimum((draws.uniform * self.n_masks).astype(np.int64), self.n_masks - 1)
        out: NDArray[np.uint8] = draws.rows()
        for mask in np.unique(dealt):
            rows = np.flatnonzero(dealt == mask)
            out[self._here(rows)] = one(draws.of(rows), int(mask))
        return out

    def _draw_under(self, draws: Draws, mask: int) -> NDArray[np.uint8]:
        return autoregressive.masked_sample(
            draws.noise, [plain(layer.weight) for layer in self.layers], [plain(layer.bias) for layer in self.layers],
            degrees=self._here(self._degrees[mask]), direct=plain(self.direct), activation=self.activation,
            given=draws.given, mask=draws.mask,
        )  # fmt: skip

    def _draw_naively(self, draws: Draws, mask: int) -> NDArray[np.uint8]:
        rows: NDArray[np.uint8] = draws.rows()
        with no_grad():
            for d in self.order(mask):
                rows[:, d] = draws.unit(d, plain(self.logits(rows, mask))[:, d])
        return rows
