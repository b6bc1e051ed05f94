"""NADE, the neural autoregressive distribution estimator (Larochelle & Murray 2011)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gencore._checks import count
from gencore._devices import to_host
from gencore.autograd import Tensor
from gencore.autograd.tensors import plain
from gencore.kernels import autoregressive
from gencore.kernels._arrays import contiguous, full
from gencore.models._exact import Method
from gencore.models._neural import start_bias
from gencore.models._vectors import Asked, VectorModel, one_hot, permutation, split
from gencore.nn import init
from gencore.nn.module import parameter
from gencore.random import Generator

__all__ = ["NADE"]


class NADE(VectorModel):
    """Exact autoregressive model of binary vectors: one hidden layer, whose weights all conditionals share.

    ``P(x_d = 1 | x before d) = logistic(b_d + v_d . logistic(c + sum of w_e x_e over e before d))``.

    Parameters
    ----------
    n_visible, n_hidden : int
        Dimensions D of the data, hidden units H.
    order : sequence of int, optional
        Which dimension comes first, second, ...: a permutation of 0 to D - 1; by default 0, 1, 2, ...
    n_classes : int
        0, or that of the `labels` on which rows depend: all conditionals see the label.
    seed : int
        All randomness follows from it.

    Attributes
    ----------
    weight, output_weight : (D, H) Tensor
        w and v.
    hidden_bias : (H,) Tensor
        c.
    visible_bias : (D,) Tensor
        b. The first ``fit`` starts it at the data's rates.
    label_weight : (n_classes, H) Tensor, or None
        What a label adds to c.

    Examples
    --------
    >>> import gencore as gc
    >>> data = gc.datasets.load("digits")
    >>> model = gc.models.NADE(64, 50, seed=0)
    >>> history = model.fit(data.train, epochs=2, progress=False)
    >>> model.log_prob(data.test[:5]).shape
    (5,)
    """

    def __init__(
        self,
        n_visible: int,
        n_hidden: int,
        *,
        order: Sequence[int] | None = None,
        n_classes: int = 0,
        seed: int = 0,
    ) -> None:
        visible, hidden = count("NADE", "n_visible", n_visible), count("NADE", "n_hidden", n_hidden)
        places = None if order is None else permutation("NADE", "order", order, visible)
        classes = count("NADE", "n_classes", n_classes, least=0)
        super().__init__(
            seed, n_visible=visible, n_hidden=hidden, order=None if places is None else places.tolist(),
            n_classes=classes,
        )  # fmt: skip
        self.n_classes = classes
        self.n_visible, self.n_hidden, self._order = visible, hidden, places
        keys = Generator(int(self.generator.key()))
        self.weight = parameter(init.glorot_uniform((visible, hidden), keys))
        self.output_weight = parameter(init.glorot_uniform((visible, hidden), keys))
        self.hidden_bias = parameter(np.zeros(hidden, np.float32))
        self.visible_bias = parameter(np.zeros(visible, np.float32))
        self.label_weight = parameter(init.glorot_uniform((classes, hidden), keys)) if classes else None
        self.eval()

    # --- probabilities ----------------------------------------------------------------------------------------

    def log_prob_of(self, x: Any) -> Any:
        """Log-probability of rows as kernels take them, (n,), differentiable with respect to the parameters."""
        rows, labels = split(x)
        w, c, v, b, order = self._net()
        if labels is not None:
            rows = np.concatenate([one_hot(labels, self.n_classes), rows], axis=1)
        log_p = autoregressive.nade_log_prob(rows, w, c, v, b, order=order)
        # A label's bits come first and are seen, not judged: each has probability 1 / 2 whatever it is.
        return log_p if labels is None else log_p + self.n_classes * math.log(2)

    def _net(self) -> tuple[Any, Any, Any, Any, Any]:
        """Weights, biases and order as kernels take them; a label's bits are dimensions that lead the order."""
        w: Any = self.weight
        v: Any = self.output_weight
        b: Any = self.visible_bias
        order = self._order
        if self.label_weight is not None:
            n = self.n_classes
            w = np.concatenate([self.label_weight, w])
            v = np.concatenate([full(plain(v), (n, self.n_hidden), 0, np.float32), v])
            b = np.concatenate([full(plain(b), (n,), 0, np.float32), b])
            order = None if order is None else np.concatenate([np.arange(n), n + order])
        return w, self.hidden_bias, v, b, self._here(order)

    def _weights(self) -> Sequence[Tensor]:
        labels = [] if self.label_weight is None else [self.label_weight]
        return [self.weight, self.output_weight, *labels]

    def _start_at(self, logits: NDArray[np.float32]) -> None:
        start_bias(self.visible_bias, logits)

    # --- sampling ---------------------------------------------------------------------------------------------

    def _draw(self, asked: Asked, method: Method) -> NDArray[np.uint8]:
        w, c, v, b, order = map(plain, self._net())
        options: dict[str, Any] = {"order": order, "temperature": asked.temperature}
        (n, _), given, mask, number = asked.shape, asked.given, asked.mask, asked.key
        bits = None if asked.labels is None else one_hot(asked.labels, self.n_classes)

        def draw(given: Any, mask: Any) -> NDArray[np.uint8]:
            if bits is not None:
                nothing = np.zeros(asked.shape, np.uint8)
                given = np.concatenate([bits, nothing if given is None else given], axis=1)
                mask = np.concatenate([np.ones_like(bits), nothing if mask is None else mask], axis=1)
            drawn = autoregressive.nade_sample(
                w, c, v, b, n, number, given=self._here(given), mask=self._here(mask), **options
            )
            of_dimensions: NDArray[np.uint8] = contiguous(drawn[:, self.n_classes :])
            return of_dimensions

        if method == "cached":
            return draw(given, mask)
        rows = np.zeros((n, self.n_visible), np.uint8)
        for d in range(self.n_visible) if self._order is None else self._order:
            known = np.ones((n, self.n_visible), np.uint8)
            known[:, d] = 0
            drawn = to_host(draw(rows, known))[:, d]
            rows[:, d] = (
                drawn if mask is None or given is None else np.where(mask[:, d] != 0, given[:, d], drawn)
            )
        drawn_rows: NDArray[np.uint8] = self._here(rows)
        return drawn_rows
