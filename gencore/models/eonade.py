"""EoNADE: one deep net for all orders of the dimensions (Uria, Murray & Larochelle 2014)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gencore._checks import count, entry
from gencore.autograd import Tensor, logistic, no_grad, relu, softplus
from gencore.autograd.tensors import plain
from gencore.kernels import dense, sample
from gencore.kernels._arrays import full
from gencore.kernels._contiguous import contiguous
from gencore.models._exact import Method
from gencore.models._masked_net import Layer
from gencore.models._neural import start_bias
from gencore.models._vectors import Asked, Draws, VectorModel, one_hot, permutation, sizes, split
from gencore.nn import init
from gencore.nn.module import parameter
from gencore.random import Generator, Key, KeyLike

__all__ = ["EoNADE"]

_ACTIVATIONS: dict[str, Any] = {"relu": relu, "softplus": softplus, "logistic": logistic, "tanh": np.tanh}
_ROWS = 500  # whose log-probability is computed at a time: their hidden units stay near the core


class EoNADE(VectorModel):
    """Exact model of binary vectors that knows every order: p(x_d | any set of the others) by one net.

    The net sees which dimensions are known and their values, 2 D inputs, and puts out the logits of all. An order o
    makes it an autoregressive model, ``p(x) = prod_t p(x_{o_t} | x_{o_1}, ..., x_{o_{t-1}})``, another one for each
    order; the ensemble's probability is the mean over its orders.

    Parameters
    ----------
    n_visible : int
        Dimensions D of the data.
    hidden : sequence of int
        Units of the hidden layers.
    n_orderings : int
        Orders of the ensemble, drawn once, from the seed.
    activation : {"relu", "softplus", "logistic", "tanh"}
        Of hidden units.
    n_classes : int
        0, or that of the `labels` on which rows depend: the first hidden layer sees the label.
    seed : int
        All randomness follows from it.

    Attributes
    ----------
    orders : (n_orderings, D) int64
        Which dimension comes first, second, ... in each.
    layers : list
        Of weights (k, n) and biases (n,). Of the first weight, rows 0 to D - 1 go with values, D to 2 D - 1 with the
        marks of what is known.

    Notes
    -----
    `fit` learns without orders: of each row a random set is known, of d - 1 dimensions with d uniform from 1 to D, and
    the mean log-probability of the others counts D times. That is the mean over all orders of the log-probability of a
    row, estimated; so are the ``log_prob`` and ``validation_log_prob`` that it records, which the ensemble exceeds.

    A log-probability takes D passes through the net for each order, a sample D in all: marks change all hidden units.

    Examples
    --------
    >>> import gencore as gc
    >>> data = gc.datasets.load("digits")
    >>> model = gc.models.EoNADE(64, (50, 50), n_orderings=2, seed=0)
    >>> history = model.fit(data.train, epochs=2, progress=False)
    >>> model.log_prob(data.test[:5]).shape
    (5,)
    """

    def __init__(
        self,
        n_visible: int,
        hidden: Sequence[int] = (500, 500),
        *,
        n_orderings: int = 16,
        activation: str = "relu",
        n_classes: int = 0,
        seed: int = 0,
    ) -> None:
        visible, orderings = (
            count("EoNADE", "n_visible", n_visible),
            count("EoNADE", "n_orderings", n_orderings),
        )
        widths = sizes("EoNADE", "hidden", hidden, least=1)
        if entry(_ACTIVATIONS, activation) is None:
            names = ", ".join(_ACTIVATIONS)
            raise ValueError(f"EoNADE: expected activation to be one of {names}, received {activation!r}")
        classes = count("EoNADE", "n_classes", n_classes, least=0)
        super().__init__(
            seed, n_visible=visible, hidden=widths, n_orderings=orderings, activation=activation,
            n_classes=classes,
        )  # fmt: skip
        self.n_classes = classes
        self.n_visible, self.activation = visible, activation
        keys = Generator(int(self.generator.key()))
        self.orders = np.argsort(sample.uniform((orderings, visible), keys), axis=1, kind="stable")
        ends = (2 * visible, *widths, visible)
        self.layers = [Layer(k, n, keys) for k, n in pairwise(ends)]
        self.label_weight = parameter(init.glorot_uniform((classes, widths[0]), keys)) if classes else None
        self.eval()

    # --- probabilities ----------------------------------------------------------------------------------------

    def logits(self, x: Any, known: Any, labels: Any = None) -> Any:
        """Logits of every dimension given those that are known.

        Parameters
        ----------
        x, known : (n, D) uint8
            Values, whatever they are where they are not known; and 1 where they are.
        labels : (n,) int64, optional
            Of a model of classes.

        Returns
        -------
        (n, D) float32
        """
        first: Any = self.layers[0].weight
        h: Any = np.concatenate([x & known, known], axis=1)
        if self.label_weight is not None:
            h = np.concatenate([one_hot(labels, self.n_classes), h], axis=1)
            first = np.concatenate([self.label_weight, first])
        for layer in self.layers[:-1]:
            h = self._layer(h, layer, self.activation, first if layer is self.layers[0] else None)
        return self._layer(h, self.layers[-1])

    @staticmethod
    def _layer(h: Any, layer: Layer, activation: Any = "identity", weight: Any = None) -> Any:
        w: Any = layer.weight if weight is None else weight
        b: Any = layer.bias
        return dense.linear(h, w, b, activation=activation)

    def log_prob_of(self, x: Any, orders: NDArray[np.int64] | None = None) -> Any:
        """Log-probability of rows as kernels take them, (n,), differentiable with respect to the parameters."""
        each = [self._log_prob_in_order(x, order) for order in (self.orders if orders is None else orders)]
        if len(each) == 1:
            return each[0]
        return dense.log_sum_exp(np.stack(each, axis=1)) - math.log(len(each))

    def log_prob(self, X: Any, labels: Any = None, *, orders: Any = None) -> NDArray[np.float64]:
        """Exact log-probability of each row, nats: the log of the mean of the probabilities in each order.

        Parameters
        ----------
        X : (n, n_visible) array_like
            0 and 1.
        labels : (n,) or () array_like of int, optional
            Class of each row, or of all, for a model of classes.
        orders : (k, n_visible) array_like of int, optional
            Permutations of 0 to D - 1; default: the model's.

        Returns
        -------
        (n,) float64
        """
        data = self._as_data("EoNADE.log_prob", "X", X, labels)
        given = self.orders if orders is None else self._checked_orders("EoNADE.log_prob", orders)
        return self._log_prob_in_parts(data, _ROWS, orders=given)

    def _checked_orders(self, op: str, orders: Any) -> NDArray[np.int64]:
        rows = list(orders) if isinstance(orders, Iterable) else [orders]
        if not rows:
            raise ValueError(f"{op}: expected orders to have at least one row, received none")
        return np.array([permutation(op, "each of orders", row, self.n_visible) for row in rows])

    def _log_prob_in_order(self, x: Any, order: NDArray[np.int64]) -> Any:
        rows, labels = split(x)
        columns = list(self._walk(rows, order, labels))
        logits: Any = np.concatenate([columns[t] for t in np.argsort(order)], axis=1)
        return dense.bernoulli_log_prob(logits, rows)

    def _walk(self, x: Any, order: NDArray[np.int64], labels: Any) -> Iterator[Any]:
        """Logits (n, 1) of one dimension after another, given those before it in x, which may be drawn meanwhile."""
        a = self._nothing_known(len(x), labels)
        for d in order:
            yield self._logit_of(a, d)
            a = self._with(a, x, d)

    def _nothing_known(self, n: int, labels: Any) -> Any:
        """The first layer's sums, by the label alone."""
        bias: Any = self.layers[0].bias
        if self.label_weight is None:
            return full(plain(bias), (n, 1), 0, np.float32) + bias
        of_label: Any = self.label_weight
        return dense.linear(one_hot(labels, self.n_classes), of_label, bias)

    def _with(self, a: Any, x: Any, d: int) -> Any:
        """Those sums when dimension d is known, too."""
        w: Any = self.layers[0].weight
        return a + (x[:, d : d + 1].astype(np.float32) * w[d] + w[self.n_visible + d])

    def _logit_of(self, a: Any, d: int) -> Any:
        h, last = _ACTIVATIONS[self.activation](a), self.layers[-1]
        for layer in self.layers[1:-1]:
            h = self._layer(h, layer, self.activation)
        column: Any = contiguous(last.weight[:, d : d + 1])
        bias: Any = last.bias[d : d + 1]
        return dense.linear(h, column, bias)

    def _fitted_log_prob(self, x: Any, key: Key) -> Any:
        """The mean over all orders, estimated: see the notes of the class."""
        x, labels = split(x)
        n, dims = x.shape
        u: Any = sample.uniform((n, dims + 1), key, device=x)
        n_known = np.minimum((u[:, :1] * dims).astype(np.int64), dims - 1)  # d - 1
        u = u[:, 1:]
        known = (u < np.take_along_axis(np.sort(u, axis=1), n_known, axis=1)).astype(np.uint8)
        logits = self.logits(x, known, labels)
        # A certain hit costs nothing: the logit of what is known is put far on its side.
        certain = np.where(x != 0, np.float32(200), np.float32(-200))
        log_p = dense.bernoulli_log_prob(np.where(known != 0, certain, logits), x)
        return log_p * (dims / (dims - known.sum(axis=1, dtype=np.int64))).astype(np.float32)

    def _weights(self) -> Sequence[Tensor]:
        labels = [] if self.label_weight is None else [self.label_weight]
        return [layer.weight for layer in self.layers] + labels

    def _start_at(self, logits: NDArray[np.float32]) -> None:
        start_bias(self.layers[-1].bias, logits)

    # --- sampling ---------------------------------------------------------------------------------------------

    def sample(
        self,
        n: int,
        *,
        labels: Any = None,
        method: Method = "cached",
        partial: Any = None,
        temperature: float = 1.0,
        key: KeyLike | None = None,
        order: Any = None,
    ) -> NDArray[np.uint8]:
        """Draw rows, or complete one, whatever is known of it.

        Parameters
        ----------
        n : int
            Rows.
        labels : (n,) or () array_like of int, optional
            Class of each row, or of all, for a model of classes.
        method : {"cached", "naive"}
            With the first layer's sums brought up to date by each draw; or all of them summed again. The rows are the
            same, bit for bit.
        partial : (n_visible,) or (n, n_visible) array_like, optional
            Dimensions that stay; NaN where they are to be drawn, or a `numpy.ma.MaskedArray`. They come first in the
            order: the others are drawn given all of them.
        temperature : float
            Logits are divided by it; 1e-30 to 1e30.
        key : Key, int or Generator, optional
            Random numbers; default: the model's own next key.
        order : (n_visible,) sequence of int, optional
            Order in which dimensions are drawn; default: rows are dealt to the model's orders at random.

        Returns
        -------
        (n, n_visible) uint8
        """
        orders = self.orders if order is None else self._checked_orders("EoNADE.sample", [order])
        return self._draw_in_orders(self._asked(n, labels, method, partial, temperature, key), orders, method)

    def _draw(self, asked: Asked, method: Method) -> NDArray[np.uint8]:
        return self._draw_in_orders(asked, self.orders, method)

    def _draw_in_orders(self, asked: Asked, orders: NDArray[np.int64], method: Method) -> NDArray[np.uint8]:
        """Rows are dealt to the orders at random; of each, what is kept comes first."""
        draws, n = asked.draws(self.like()), asked.shape[0]
        dealt = np.minimum((draws.uniform * len(orders)).astype(np.int64), len(orders) - 1)
        masks = np.zeros((n, 0), np.uint8) if asked.mask is None else asked.mask
        kinds, of_kind = np.unique(np.column_stack([dealt, masks]), axis=0, return_inverse=True)
        out: NDArray[np.uint8] = draws.rows()
        for i, kind in enumerate(kinds):
            rows, places = np.flatnonzero(of_kind.ravel() == i), orders[kind[0]]
            if asked.mask is not None:
                known = kind[1:][places] != 0
                places = np.concatenate([places[known], places[~known]])
            out[self._here(rows)] = self._draw_in_order(draws.of(rows), places, method)
        return out

    def _draw_in_order(self, draws: Draws, order: NDArray[np.int64], method: Method) -> NDArray[np.uint8]:
        x: NDArray[np.uint8] = draws.rows()
        with no_grad():
            walk = self._walk(x, order, draws.labels) if method == "cached" else None
            for t, d in enumerate(order):
                if walk is not None:
                    logit = next(walk)
                else:
                    a = self._nothing_known(len(x), draws.labels)
                    for known in order[:t]:
                        a = self._with(a, x, known)
                    logit = self._logit_of(a, d)
                x[:, d] = draws.unit(d, plain(logit)[:, 0])
        return x
