"""What exact models of binary vectors share: arguments, learning, and how their samples are asked for."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gencore import optim
from gencore._checks import count, number
from gencore._checks import temperature as temperature_of
from gencore._devices import from_device
from gencore._states import as_states
from gencore.autograd import Tensor
from gencore.kernels import sample as kernels
from gencore.kernels._arrays import full, placed
from gencore.models._exact import ExactModel, Method
from gencore.models._neural import logits_of_rates
from gencore.random import KeyLike, as_key
from gencore.train import Callback, History, Schedule
from gencore.train.fit import Options

__all__ = ["Asked", "Draws", "VectorModel", "one_hot", "permutation", "sizes", "split"]

_ROWS = 1000  # whose log-probability is computed at a time


@dataclass(frozen=True)
class Asked:
    """What `sample` is asked for: rows, where mask is 1 those of `given` ((n, D) uint8, or None)."""

    shape: tuple[int, int]
    given: NDArray[np.uint8] | None
    mask: NDArray[np.uint8] | None
    temperature: float
    key: int
    labels: NDArray[np.int64] | None = None

    def draws(self, like: Any) -> Draws:
        """The random numbers for it, where the array `like` is."""
        loc, scale = (full(like, self.shape, x, np.float32) for x in (0.0, self.temperature))
        noise = kernels.location_scale(loc, scale, self.key, "logistic")
        given, mask = (None if a is None else placed(like, a, np.uint8) for a in (self.given, self.mask))
        labels = None if self.labels is None else placed(like, self.labels, np.int64)
        return Draws(noise, given, mask, kernels.uniform(self.shape[0], self.key), labels)


@dataclass(frozen=True)
class Draws:
    """What decides a draw: x_d = 1 where logit_d > noise_d, and given_d where mask is 1.

    Attributes
    ----------
    noise : (n, D) float32
        Logistic noise times the temperature.
    given, mask : (n, D) uint8, or None
    uniform : (n,) float32
        One more number a row, from 0 to 1, to choose among masks or orders; on the host.
    labels : (n,) int64, or None
        The class of each row.
    """

    noise: NDArray[np.float32]
    given: NDArray[np.uint8] | None
    mask: NDArray[np.uint8] | None
    uniform: NDArray[np.float32]
    labels: NDArray[np.int64] | None = None

    def of(self, rows: NDArray[Any]) -> Draws:
        """Those of some rows."""
        at = placed(self.noise, rows, np.int64)
        given, mask, labels = (None if a is None else a[at] for a in (self.given, self.mask, self.labels))
        return Draws(self.noise[at], given, mask, self.uniform[rows], labels)

    def rows(self) -> Any:
        """Rows to draw into, all 0."""
        return full(self.noise, self.noise.shape, 0, np.uint8)

    def unit(self, d: int, logits: NDArray[np.float32]) -> NDArray[np.uint8]:
        """Dimension d of all rows."""
        drawn = (self.noise[:, d] < logits).astype(np.uint8)
        if self.given is None or self.mask is None:
            return drawn
        return np.where(self.mask[:, d] != 0, self.given[:, d], drawn)


class VectorModel(ExactModel):
    """An `ExactModel` of rows of `n_visible` bits."""

    n_visible: int

    @abstractmethod
    def _weights(self) -> Sequence[Tensor]:
        """What weight decay shrinks."""

    @abstractmethod
    def _start_at(self, logits: NDArray[np.float32]) -> None:
        """Take these logits of the data's rates as the biases of the dimensions, where those are as they were made."""

    @abstractmethod
    def _draw(self, asked: Asked, method: Method) -> NDArray[np.uint8]:
        """Rows, by one pass or by one for each dimension, to the same bits."""

    def log_prob(self, X: Any, labels: Any = None) -> NDArray[np.float64]:
        """Exact log-probability of each row, nats.

        Parameters
        ----------
        X : (n, n_visible) array_like
            0 and 1.
        labels : (n,) or () array_like of int, optional
            Class of each row, or of all, for a model of classes.

        Returns
        -------
        (n,) float64
        """
        return self._log_prob_in_parts(
            self._as_data(f"{type(self).__name__}.log_prob", "X", X, labels), _ROWS
        )

    def _as_examples(self, op: str, name: str, X: Any) -> NDArray[np.uint8]:
        return as_states(op, name, X, self.n_visible)

    # --- learning ---------------------------------------------------------------------------------------------

    def fit(
        self,
        X: Any,
        labels: Any = None,
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
        X, labels : array_like
            Data, 0 and 1, and, for a model of classes, their labels, as `log_prob` takes them.
        epochs, batch_size : int
            Passes over the data, rows of an update.
        lr : float or Schedule
            Learning rate, or a function from the fraction of the training done to one (`gencore.train`).
        optimizer : {"adam", "adamw", "rmsprop", "sgd", "adagrad", "adadelta"}, or callable
            Of `gencore.optim`, with its defaults; or a function from a list of parameters to an optimizer.
        weight_decay : float
            Half this times the squares of all weights is added to the loss.
        clip_norm, patience, callbacks, progress, checkpoint, checkpoint_every, resume
            As in `gencore.train.fit`; patience watches ``validation_log_prob``.
        validation : array_like, or tuple of two, optional
            Held-out data, or those and their labels, whose mean log-probability is recorded as ``validation_log_prob``.

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
        name = f"{type(self).__name__}.fit"
        data = self._as_data(name, "X", from_device(X), labels)
        held_out = self._as_held_out(name, validation, "rows")
        options = Options(
            epochs, batch_size, lr, clip_norm, patience, "validation_log_prob", checkpoint, checkpoint_every, resume,
            callbacks,
        )  # fmt: skip
        options.check(name)
        weight_decay = number(name, "weight_decay", weight_decay)

        def penalty() -> Any:
            squares = [np.sum(np.square(w)) for w in self._weights()]
            return 0.5 * weight_decay * sum(squares[1:], squares[0])

        def start() -> None:
            self._start_at(logits_of_rates(data[0] if isinstance(data, tuple) else data))

        return self._learn(
            data, held_out, optimizer, options, progress, start=start,
            penalty=penalty if weight_decay > 0 else None, recorded={"weight_decay": weight_decay},
        )  # fmt: skip

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
    ) -> NDArray[np.uint8]:
        """Draw rows, or complete one.

        Parameters
        ----------
        n : int
            Rows.
        labels : (n,) or () array_like of int, optional
            Class of each row, or of all, for a model of classes.
        method : {"cached", "naive"}
            Each hidden unit computed once, where the model allows it; or a pass over the whole net for each dimension.
            The rows are the same, bit for bit.
        partial : (n_visible,) or (n, n_visible) array_like, optional
            Dimensions that stay; NaN where they are to be drawn, or a `numpy.ma.MaskedArray`. Each is drawn given those
            before it in the order, kept ones included: to condition on some, give a model an order in which they come
            first.
        temperature : float
            Logits are divided by it; 1e-30 to 1e30.
        key : Key, int or Generator, optional
            Random numbers; default: the model's own next key.

        Returns
        -------
        (n, n_visible) uint8
            Where the model is.

        Raises
        ------
        ValueError, TypeError
            A wrong argument; a parameter that is not finite (on a device, where no values are looked at, what is drawn
            by it means nothing).
        """
        return self._draw(self._asked(n, labels, method, partial, temperature, key), method)

    def _asked(
        self, n: int, labels: Any, method: str, partial: Any, temperature: float, key: KeyLike | None
    ) -> Asked:
        """The arguments of `sample`, looked at."""
        name = f"{type(self).__name__}.sample"
        n = count(name, "n", n)
        self._checked_method(method)
        self._check_parameters(name)
        given = mask = None
        if partial is not None:
            values, known = self._known(partial, n, (self.n_visible,))
            states = as_states(name, "partial", values, self.n_visible)
            given, mask = (
                np.ascontiguousarray(np.broadcast_to(a, (n, self.n_visible))) for a in (states, known)
            )
        return Asked(
            (n, self.n_visible), given, mask, temperature_of(name, temperature), as_key(self.key(key)),
            self._as_labels(name, labels, n),
        )  # fmt: skip


def split(x: Any) -> tuple[Any, Any]:
    """Rows and their labels, or None."""
    return x if isinstance(x, tuple) else (x, None)


def one_hot(labels: Any, classes: int) -> Any:
    """Labels as rows of so many bits: (n,) -> (n, classes) uint8, where they are."""
    return (labels[:, None] == np.arange(classes, like=labels)).astype(np.uint8)


def permutation(op: str, name: str, order: Any, n: int) -> NDArray[np.int64]:
    """Return an order of 0 to n - 1, or raise ValueError that names call and argument."""
    try:
        places = np.asarray(order)
    except ValueError:  # rows of different lengths
        places = np.empty(())
    if places.shape != (n,) or places.dtype.kind not in "iu" or sorted(places.tolist()) != list(range(n)):
        raise ValueError(f"{op}: expected {name} to be a permutation of 0 to {n - 1}, received {order!r:.60}")
    return places.astype(np.int64)


def sizes(op: str, name: str, value: Any, *, least: int) -> tuple[int, ...]:
    """Return sizes of layers, at least so many of them; a number is one layer."""
    layers = tuple(value) if isinstance(value, Sequence) else (value,)
    if len(layers) < least:
        raise ValueError(f"{op}: expected {name} to have at least {least} layer, received {value!r}")
    return tuple(count(op, f"a layer of {name}", size) for size in layers)
