"""NADE, the neural autoregressive distribution estimator (Larochelle & Murray 2011)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gencore import optim
from gencore._checks import count
from gencore._states import as_states
from gencore.autograd import Tensor, no_grad
from gencore.kernels import autoregressive
from gencore.models._exact import ExactModel, Method
from gencore.models._neural import logits_of_rates
from gencore.nn import init
from gencore.nn.module import parameter
from gencore.random import Generator, KeyLike, as_key
from gencore.train import Callback, History, Schedule
from gencore.train.fit import Options

__all__ = ["NADE"]

_ROWS = 1000  # whose log-probability is computed at a time


class NADE(ExactModel):
    """Exact autoregressive model of binary vectors: one hidden layer, whose weights all conditionals share.

    ``P(x_d = 1 | x before d) = logistic(b_d + v_d . logistic(c + sum of w_e x_e over e before d))``.

    Parameters
    ----------
    n_visible, n_hidden : int
        Dimensions D of the data, hidden units H.
    order : sequence of int, optional
        Which dimension comes first, second, ...: a permutation of 0 to D - 1; by default 0, 1, 2, ...
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
        self, n_visible: int, n_hidden: int, *, order: Sequence[int] | None = None, seed: int = 0
    ) -> None:
        visible, hidden = count("NADE", "n_visible", n_visible), count("NADE", "n_hidden", n_hidden)
        places = None if order is None else [int(d) for d in np.asarray(order).ravel()]
        if places is not None and sorted(places) != list(range(visible)):
            raise ValueError(
                f"NADE: expected order to be a permutation of 0 to {visible - 1}, received {order!r:.60}"
            )
        super().__init__(seed, n_visible=visible, n_hidden=hidden, order=places)
        self.n_visible, self.n_hidden = visible, hidden
        self._order = None if places is None else np.array(places, np.int64)
        keys = Generator(int(self.generator.key()))
        self.weight = parameter(init.glorot_uniform((visible, hidden), keys))
        self.output_weight = parameter(init.glorot_uniform((visible, hidden), keys))
        self.hidden_bias = parameter(np.zeros(hidden, np.float32))
        self.visible_bias = parameter(np.zeros(visible, np.float32))
        self.eval()

    # --- probabilities ----------------------------------------------------------------------------------------

    def log_prob_of(self, x: Any) -> Any:
        """Log-probability of rows as kernels take them, (n,), differentiable with respect to the parameters."""
        w: Any = self.weight
        c: Any = self.hidden_bias
        v: Any = self.output_weight
        b: Any = self.visible_bias
        return autoregressive.nade_log_prob(x, w, c, v, b, order=self._order)

    def log_prob(self, X: Any) -> NDArray[np.float64]:
        """Exact log-probability of each row, nats: (n, n_visible) array_like of 0 and 1 -> (n,) float64."""
        data = as_states("NADE.log_prob", "X", X, self.n_visible)
        return self._log_prob_in_parts(data, _ROWS)

    # --- learning ---------------------------------------------------------------------------------------------

    def fit(
        self,
        X: Any,
        *,
        epochs: int,
        batch_size: int = 100,
        lr: float | Schedule = 1e-3,
        optimizer: str | Callable[[list[Tensor]], optim.Optimizer] = "adam",
        weight_decay: float = 0.0,
        clip_norm: float | None = None,
        validation: Any = None,
        patience: int | None = None,
        callbacks: Sequence[Callback] = (),
        progress: bool = True,
        checkpoint: str | Path | None = None,
        checkpoint_every: int | None = None,
        resume: bool = False,
    ) -> History:
        """Learn by maximum likelihood, from the parameters as they are.

        Parameters
        ----------
        X : (n, n_visible) array_like
            Data, 0 and 1.
        epochs, batch_size : int
            Passes over the data, rows of an update.
        lr : float or Schedule
            Learning rate, or a function from the fraction of the training done to one (`gencore.train`).
        optimizer : {"adam", "adamw", "rmsprop", "sgd", "adagrad", "adadelta"}, or callable
            Of `gencore.optim`, with its defaults; or a function from a list of parameters to an optimizer.
        weight_decay : float
            Half this times the squares of both weights is added to the loss.
        clip_norm, patience, callbacks, progress, checkpoint, checkpoint_every, resume
            As in `gencore.train.fit`; patience watches ``validation_log_prob``.
        validation : array_like, optional
            Held-out data, whose mean log-probability is recorded as ``validation_log_prob``.

        Returns
        -------
        History
            One record an epoch: ``epoch``, ``step``, ``seconds``, ``lr``, ``loss`` and ``log_prob``, in nats a row.

        Raises
        ------
        ValueError, TypeError
            A wrong argument.
        DivergenceError
            The loss or a parameter is no longer finite; the last good checkpoint is untouched.
        """
        data = as_states("NADE.fit", "X", X, self.n_visible)
        held_out = (
            None if validation is None else as_states("NADE.fit", "validation", validation, self.n_visible)
        )
        options = Options(
            epochs, batch_size, lr, clip_norm, patience, "validation_log_prob", checkpoint, checkpoint_every, resume
        )  # fmt: skip
        options.check("NADE.fit")
        if not (np.isfinite(weight_decay) and weight_decay >= 0):
            raise ValueError(f"NADE.fit: expected weight_decay to be at least 0, received {weight_decay!r}")

        def penalty() -> Any:
            squares = (np.sum(np.square(w)) for w in (self.weight, self.output_weight))
            return 0.5 * weight_decay * sum(squares)

        def start() -> None:
            with no_grad():
                self.visible_bias[...] = logits_of_rates(data)

        return self._learn(
            data, held_out, optimizer, options, callbacks, progress, start=start,
            penalty=penalty if weight_decay > 0 else None, recorded={"weight_decay": float(weight_decay)},
        )  # fmt: skip

    # --- sampling ---------------------------------------------------------------------------------------------

    def sample(
        self,
        n: int,
        *,
        method: Method = "cached",
        partial: Any = None,
        temperature: float = 1.0,
        key: KeyLike | None = None,
    ) -> NDArray[np.uint8]:
        """Draw rows, or complete one.

        Parameters
        ----------
        n : int
            Rows.
        method : {"cached", "naive"}
            One compiled call; or one pass over all dimensions for each of them. The rows are the same, bit for bit.
        partial : (n_visible,) or (n, n_visible) array_like, optional
            Dimensions that stay; NaN where they are to be drawn, or a `numpy.ma.MaskedArray`. Each is drawn given those
            before it in the order, kept ones included: to condition on some, give a model an order in which they come
            first.
        temperature : float
            Logits are divided by it.
        key : Key, int or Generator, optional
            Random numbers; default: the model's own next key.

        Returns
        -------
        (n, n_visible) uint8
        """
        n = count("NADE.sample", "n", n)
        self._checked_method(method)
        given, mask = self._partial(partial, n)
        w, c, v, b = (
            p.detach().numpy() for p in (self.weight, self.hidden_bias, self.output_weight, self.visible_bias)
        )
        options: dict[str, Any] = {"order": self._order, "temperature": temperature}
        number = as_key(self.key(key))
        if method == "cached":
            return autoregressive.nade_sample(w, c, v, b, n, number, given=given, mask=mask, **options)
        rows = np.zeros((n, self.n_visible), np.uint8)
        for d in range(self.n_visible) if self._order is None else self._order:
            known = np.ones((n, self.n_visible), np.uint8)
            known[:, d] = 0
            drawn = autoregressive.nade_sample(w, c, v, b, n, number, given=rows, mask=known, **options)[:, d]
            rows[:, d] = drawn if mask is None else np.where(mask[:, d] != 0, given[:, d], drawn)
        return rows

    def _partial(self, partial: Any, n: int) -> tuple[Any, Any]:
        """What is known of each row, and where."""
        if partial is None:
            return None, None
        values, mask = self._known(partial, n, (self.n_visible,))
        given = as_states("NADE.sample", "partial", values, self.n_visible)
        return np.ascontiguousarray(np.broadcast_to(given, (n, self.n_visible))), mask
