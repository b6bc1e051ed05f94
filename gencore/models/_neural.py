"""What all neural models share: a seed, a generator of keys, the count of updates, files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from gencore import io, optim
from gencore._checks import number
from gencore._devices import place, to_host
from gencore.autograd import Tensor, no_grad
from gencore.autograd.tensors import plain
from gencore.kernels._arrays import placed
from gencore.nn import Module
from gencore.random import Generator, KeyLike
from gencore.train import Schedule

__all__ = ["NeuralModel", "chunks", "logits_of_rates", "make_optimizer", "start_bias"]


class NeuralModel(Module):
    """A `Module` that is saved with its configuration and its random numbers, and goes on where it was.

    ``to("cuda")`` moves it to a device, where it learns and draws from then on. Data are kept on the host and taken
    from there a batch at a time; log-probabilities of examples come back to it; what else is computed or drawn stays.

    A subclass passes its constructor's arguments to ``super().__init__(seed, **config)``.
    """

    is_model: ClassVar[bool] = True

    def __init__(self, seed: int, **config: Any) -> None:
        super().__init__()
        self.generator = Generator(seed)
        self.seed = int(seed)
        self.steps = 0
        plain = {k: v.item() if isinstance(v, np.generic) else v for k, v in config.items()}
        # As a file gives it back, tuples inside tuples included: a checkpoint's must compare equal.
        self._config: dict[str, Any] = json.loads(json.dumps(plain | {"seed": self.seed}))

    @property
    def config(self) -> dict[str, Any]:
        """Arguments that build the model again, JSON-able."""
        return dict(self._config)

    def __repr__(self) -> str:
        arguments = ", ".join(f"{k}={v!r}" for k, v in self._config.items())
        return f"{type(self).__name__}({arguments}) after {self.steps} updates"

    def n_parameters(self) -> int:
        """How many numbers are learned."""
        return sum(p.size for p in self.parameters())

    def like(self) -> Any:
        """An array where the parameters are, for functions that make others beside it."""
        return plain(next(self.parameters()))

    def _here(self, x: Any) -> Any:
        """Rows from the host, or a tuple of such arrays, where the parameters are; None as it is."""
        device = next(self.parameters()).device
        if x is None or device == "cpu":
            return x
        if isinstance(x, tuple):
            return tuple(map(self._here, x))
        return place(type(self).__name__, x, device)

    def key(self, key: KeyLike | None = None) -> KeyLike:
        """Return the key that was given, or else the model's next one."""
        return self.generator.key() if key is None else key

    def save(self, path: str | Path) -> None:
        """Write a safetensors file: parameters, configuration, and the state of the random numbers."""
        state = {"steps": self.steps, "generator": self.generator.state}
        io.save_model(
            path, kind=type(self).__name__, config=self.config, state=state, tensors=self.state_dict()
        )

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a model written by `save`, or by a checkpoint of ``fit``. Names and shapes are checked.

        Raises
        ------
        FileNotFoundError, ValueError
            No such file; not a gencore file; another kind of model; tensors missing, unexpected or of a wrong shape.
        """
        stored = io.load_model(path, cls.__name__)
        config: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in stored.config.items()}
        model = cls(**config)
        model.load_state_dict({n: t for n, t in stored.tensors.items() if not n.startswith("training.")})
        model.steps = int(stored.state["steps"])
        model.generator.state = stored.state["generator"]
        return model.eval()


def chunks(n: int, size: int) -> list[slice]:
    """Cut n rows into stretches of at most `size`."""
    return [slice(begin, min(n, begin + size)) for begin in range(0, n, max(size, 1))]


def logits_of_rates(data: NDArray[Any]) -> NDArray[np.float32]:
    """Logits of the data's rates, as if one row more of 0 and one of 1 had been seen."""
    rate = (data.sum(axis=0, dtype=np.float64) + 1) / (len(data) + 2)
    return np.asarray(np.log(rate / (1 - rate))).astype(np.float32)


def start_bias(bias: Tensor, value: NDArray[Any]) -> None:
    """Set a bias that is all 0 still, as it was made; one that was loaded, or learned in another way, is kept."""
    if not np.any(to_host(plain(bias))):
        with no_grad():
            bias[...] = placed(plain(bias), value, np.float32)


_OPTIMIZERS: dict[str, Callable[..., optim.Optimizer]] = {
    "adam": optim.Adam, "adamw": optim.AdamW, "rmsprop": optim.RMSprop, "sgd": optim.SGD, "adagrad": optim.Adagrad,
    "adadelta": optim.Adadelta,
}  # fmt: skip


def make_optimizer(
    op: str, optimizer: Any, learned: list[Tensor], lr: float | Schedule | None
) -> optim.Optimizer:
    """An optimizer by its name in `gencore.optim`, or by the function that makes it; `op` is named by errors."""
    first = lr(0.0) if callable(lr) else number(op, "lr", lr, positive=True)
    if callable(optimizer):
        made = optimizer(learned)
        if not isinstance(made, optim.Optimizer):
            raise TypeError(
                f"{op}: expected optimizer to make an optimizer of the parameters, received {type(made).__name__}"
            )
        return made
    if not isinstance(optimizer, str) or optimizer not in _OPTIMIZERS:
        names = ", ".join(_OPTIMIZERS)
        raise ValueError(
            f"{op}: expected optimizer to be one of {names}, or a function of parameters, received {optimizer!r:.60}"
        )
    return _OPTIMIZERS[optimizer](learned, lr=first)
