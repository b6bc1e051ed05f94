"""What models with an exact log-probability share: its computation in parts, learning by it, completion."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from gencore import optim
from gencore._devices import from_device, to_host
from gencore.autograd import Tensor, no_grad
from gencore.autograd.tensors import plain
from gencore.kernels.optim import square_sum
from gencore.models._neural import NeuralModel, chunks, make_optimizer
from gencore.random import Key
from gencore.train import History
from gencore.train.fit import Data, ModuleTraining, Options

__all__ = ["ExactModel", "Method"]

Method = Literal["cached", "naive"]


class ExactModel(NeuralModel):
    """A `NeuralModel` that learns by maximum likelihood and draws one dimension after the other.

    Attributes
    ----------
    n_classes : int
        0, or that of the `labels` on which examples depend.
    """

    n_classes = 0

    @abstractmethod
    def log_prob_of(self, x: Any) -> Any:
        """Log-probability of rows as kernels take them, (n,), differentiable with respect to the parameters.

        Where `_learn` gets a tuple of arrays, so does this function.
        """

    def _fitted_log_prob(self, x: Any, _key: Key) -> Any:
        """What `_learn` maximises the mean of, and measures of held-out rows; by default the log-probability."""
        return self.log_prob_of(x)

    def _log_prob_in_parts(self, data: Data, rows: int, **options: Any) -> NDArray[np.float64]:
        """`log_prob_of` without history, so many rows at a time."""
        n = len(data[0] if isinstance(data, tuple) else data)
        out = np.empty(n)
        with no_grad():
            for part in chunks(n, rows):
                x = tuple(array[part] for array in data) if isinstance(data, tuple) else data[part]
                out[part] = to_host(plain(self.log_prob_of(self._here(x), **options)))
        return out

    def _learn(
        self,
        data: Data,
        held_out: Data | None,
        optimizer: str | Callable[[list[Tensor]], optim.Optimizer],
        options: Options,
        progress: bool,
        *,
        penalty: Callable[[], Any] | None = None,
        start: Callable[[], None] | None = None,
        recorded: Mapping[str, Any],
    ) -> History:
        """Maximise the mean log-probability, less the `penalty`; `start` sets parameters before the first update."""
        name = f"{type(self).__name__}.fit"
        options.check(name)

        def objective(batch: Any, key: Key, done: float) -> tuple[Any, Mapping[str, float]]:
            loss = -np.mean(self._fitted_log_prob(self._here(batch), key))
            fit = -float(loss)
            return loss if penalty is None else loss + penalty(), {"log_prob": fit}

        training = ModuleTraining(
            name, self, objective, data, held_out,
            make_optimizer(name, optimizer, list(self.parameters()), options.lr), options, generator=self.generator,
            seed=self.seed, recorded=recorded, shown={"log p": "log_prob", "valid": "validation_log_prob"},
        )  # fmt: skip
        if (
            self.steps == 0 and start is not None
        ):  # after all arguments were looked at, not where a checkpoint goes on
            start()
        return training.run(progress)

    def _checked_method(self, method: str) -> None:
        if method not in ("cached", "naive"):
            raise ValueError(
                f"{type(self).__name__}.sample: expected method to be 'cached' or 'naive', received {method!r}"
            )

    def _check_parameters(self, op: str) -> None:
        """Raise ValueError where one on the host is not finite: what it would draw means nothing."""
        arrays = {name: plain(p) for name, p in self.named_parameters() if p.device == "cpu"}
        if np.isfinite(square_sum(list(arrays.values()))):  # one pass over each
            return
        for name, array in arrays.items():
            wrong = array[~np.isfinite(array)]
            if len(wrong):
                raise ValueError(f"{op}: expected {name} to be finite, received {wrong[0]}")

    @abstractmethod
    def _as_examples(self, op: str, name: str, X: Any) -> NDArray[np.uint8]:
        """Examples as kernels take them."""

    def _as_data(self, op: str, name: str, X: Any, labels: Any) -> Data:
        """Examples as kernels take them, with their labels if the model is one of classes."""
        examples = self._as_examples(op, name, X)
        classes = self._as_labels(op, labels, len(examples))
        return examples if classes is None else (examples, classes)

    def _as_held_out(self, op: str, validation: Any, examples: str) -> Data | None:
        """The same of held-out ones, or of a tuple of those and their labels; None of none."""
        if validation is None:
            return None
        pair = validation if isinstance(validation, tuple) else (validation, None)
        if len(pair) != 2 or (isinstance(validation, tuple) and self.n_classes == 0):
            what = (
                f"{examples} and their labels" if self.n_classes else f"{examples} alone, as n_classes is 0"
            )
            raise ValueError(f"{op}: expected validation to be {what}, received a tuple of {len(pair)}")
        return self._as_data(op, "validation", from_device(pair[0]), pair[1])

    def _as_labels(self, op: str, labels: Any, n: int) -> NDArray[np.int64] | None:
        """(n,) int64, or None for a model without classes."""
        if self.n_classes == 0:
            if labels is not None:
                raise ValueError(f"{op}: expected no labels, as n_classes is 0, received {labels!r:.60}")
            return None
        if labels is None:
            raise ValueError(f"{op}: expected labels from 0 to {self.n_classes - 1}, received none")
        array = np.asarray(from_device(labels))
        if array.dtype.kind not in "ui":
            raise TypeError(f"{op}: expected labels to be integers, received dtype {array.dtype}")
        if array.shape not in ((), (n,)):
            raise ValueError(f"{op}: expected labels of shape () or ({n},), received {array.shape}")
        if wrong := sorted({int(c) for c in array.ravel() if not 0 <= c < self.n_classes}):
            raise ValueError(f"{op}: expected labels from 0 to {self.n_classes - 1}, received {wrong[0]}")
        return np.ascontiguousarray(np.broadcast_to(array, (n,)), np.int64)

    def _known(
        self, partial: Any, n: int, shape: tuple[int, ...], *also: tuple[int, ...]
    ) -> tuple[NDArray[Any], NDArray[np.uint8]]:
        """What is known of one example or of n (0 where nothing is), and where: (1 or n, *shape) each."""
        try:
            array: Any = np.ma.asarray(from_device(partial), dtype=float)
        except (TypeError, ValueError):
            raise TypeError(
                f"{type(self).__name__}.sample: expected partial to hold numbers, received {partial!r:.60}"
            ) from None
        if array.shape not in (shape, (n, *shape), *also):
            raise ValueError(
                f"{type(self).__name__}.sample: expected partial of shape {shape} or {(n, *shape)}, "
                f"received {array.shape}"
            )
        hidden = np.ma.getmaskarray(array) | np.isnan(array.filled(0))
        values = np.where(hidden, 0, array.filled(0)).reshape(-1, *shape)
        return values, np.ascontiguousarray(~hidden.reshape(-1, *shape)).view(np.uint8)
