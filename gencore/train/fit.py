"""Learning of any `gencore.nn.Module`: loss, backward pass, optimizer step, with all that the loop brings."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from gencore import io
from gencore._checks import count, number
from gencore.autograd import Tensor, no_grad
from gencore.nn import Module
from gencore.optim import Optimizer, clip_grad_norm
from gencore.random import Generator, Key
from gencore.train.history import Callback, History
from gencore.train.loop import Loop, Position, checksum, schedule_json
from gencore.train.schedules import Schedule

__all__ = ["Data", "ModuleTraining", "Options", "fit"]

Data: TypeAlias = "NDArray[Any] | tuple[NDArray[Any], ...]"
"""Rows of examples: an array, or arrays of as many rows each (images and labels)."""

Objective: TypeAlias = Callable[[Any, Key, float], tuple[Tensor, Mapping[str, float]]]
"""``objective(batch, key, done)``: the loss, and figures to record; ``done`` is the fraction of the training done."""


@dataclass(frozen=True)
class Options:
    """Arguments of a training that every neural model's ``fit`` has; `fit` documents them."""

    epochs: int
    batch_size: int = 128
    lr: float | Schedule | None = None
    clip_norm: float | None = None
    patience: int | None = None
    monitor: str = "validation_loss"
    checkpoint: str | Path | None = None
    checkpoint_every: int | None = None
    resume: bool = False
    callbacks: Sequence[Callback] = ()

    def check(self, name: str) -> None:
        """Name the first argument that is wrong."""
        for argument in ("epochs", "batch_size", "patience"):
            value = getattr(self, argument)
            if argument == "patience" and value is None:
                continue
            count(name, argument, value)
        if self.lr is not None and not callable(self.lr):
            number(name, "lr", self.lr, positive=True)
        if self.clip_norm is not None:
            number(name, "clip_norm", self.clip_norm, positive=True)


@dataclass
class State(Position):
    """Where a training stands."""

    sums: dict[str, float] = field(default_factory=dict)  # of the epoch's figures so far, weighted by rows
    rows: int = 0
    best: float | None = None  # of the monitored figure, and the epochs since
    waited: int = 0

    def to_json(self) -> dict[str, Any]:
        """As a checkpoint keeps it."""
        more = {name: getattr(self, name) for name in ("sums", "rows", "best", "waited")}
        return super().to_json() | more

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> State:
        """Undo `to_json`."""
        return cls(**(dict(stored) | {"history": History(stored["history"])}))


class ModuleTraining(Loop):
    """One call of ``fit``. Changes the module in place."""

    def __init__(
        self,
        name: str,
        module: Module,
        objective: Objective,
        data: Data,
        held_out: Data | None,
        optimizer: Optimizer,
        options: Options,
        *,
        generator: Generator,
        seed: int,
        recorded: Mapping[str, Any],
        extra: Module | None = None,
        shown: Mapping[str, str] | None = None,
    ) -> None:
        options.check(name)
        lr = options.lr if options.lr is not None else optimizer.param_groups[0]["lr"]
        super().__init__(
            name, _rows(name, data), None if held_out is None else _rows(name, held_out, "validation"),
            epochs=options.epochs, batch_size=options.batch_size, lr=lr, seed=seed, callbacks=options.callbacks,
            checkpoint=options.checkpoint, checkpoint_every=options.checkpoint_every, resume=options.resume,
        )  # fmt: skip
        if options.patience is not None and options.monitor.startswith("validation_") and held_out is None:
            raise ValueError(
                f"{name}: expected validation, since patience watches {options.monitor}, received None"
            )
        self._module: Any = module
        self.objective, self.data, self.held_out = objective, data, held_out
        self.optimizer, self.options, self.generator, self.extra = optimizer, options, generator, extra
        self._keys = generator.spawn(1)[0]  # its own: what a callback draws leaves the training's bits alone
        self.shown = shown or {"loss": "loss", "valid": "validation_loss"}  # type: ignore[misc]
        self._state = State()
        self._best: dict[str, NDArray[Any]] = {}
        self._last: dict[str, NDArray[Any]] = {}
        self._steps = int(getattr(module, "steps", 0)) if module.is_model else 0
        self.recorded = {
            "epochs": int(options.epochs), "batch_size": int(options.batch_size), "lr": schedule_json(lr),
            "clip_norm": None if options.clip_norm is None else float(options.clip_norm),
            "patience": None if options.patience is None else int(options.patience), "monitor": options.monitor,
            "optimizer": type(optimizer).__name__, "seed": int(seed), "X": _checksums(data),
            "validation": None if held_out is None else _checksums(held_out), **recorded,
        }  # fmt: skip
        path = self.checkpoints.path
        if options.resume and path is not None and path.exists():
            self._resume(path)
        self._state.options = self.recorded

    @property
    def position(self) -> State:
        """Where it stands."""
        return self._state

    @property
    def model(self) -> Any:
        """The module that learns."""
        return self._module

    def steps(self) -> int:
        """Updates that the module has seen."""
        return self._steps

    def parameters(self) -> Iterable[tuple[str, Any]]:
        """All that is learned, and the buffers."""
        parts = [self._module] if self.extra is None else [self._module, self.extra]
        return ((name, t._data) for part in parts for name, t in part._named_tensors() if t.dtype.kind == "f")

    # --- learning -------------------------------------------------------------------------------------------------

    @np.errstate(over="ignore", invalid="ignore")  # what is not finite is named, with its update
    def update(self, rows: NDArray[np.int64], lr: float) -> None:
        """One step of the optimizer."""
        if self.options.lr is not None:
            for group in self.optimizer.param_groups:
                group["lr"] = lr
        self.optimizer.zero_grad()
        done = self.done() / (self.epochs * self.steps_per_epoch)
        loss, figures = self.objective(_take(self.data, rows), self._keys.key(), done)
        value = float(loss)
        if not np.isfinite(value):
            # Perhaps only because an update before has spoilt a parameter. (Buffers may be this call's own.)
            self._check_finite((name, p._data) for name, p in self._module.named_parameters())
            raise self.divergence("the loss", value, during=True)
        loss.backward()
        if self.options.clip_norm is not None:
            clip_grad_norm(self.optimizer_parameters(), self.options.clip_norm)
        self.optimizer.step()
        self._count(self._steps + 1)
        sums = self._state.sums
        for name, figure in {"loss": value, **figures}.items():
            sums[name] = sums.get(name, 0.0) + float(figure) * len(rows)
        self._state.rows += len(rows)

    def _count(self, steps: int) -> None:
        self._steps = steps
        if self._module.is_model:
            self._module.steps = steps

    def optimizer_parameters(self) -> list[Tensor]:
        """Everything that the optimizer updates."""
        return [p for group in self.optimizer.param_groups for p in group["params"]]

    def measure(self) -> dict[str, float]:
        """Means over the epoch's batches, as they were met; of held-out data, with the parameters as they are now."""
        state = self._state
        record = {name: total / state.rows for name, total in state.sums.items()}
        state.sums, state.rows = {}, 0
        if self.held_out is not None:
            record |= {f"validation_{name}": v for name, v in self._evaluate(self.held_out).items()}
        self._watch(record)
        return record

    def _evaluate(self, data: Data) -> dict[str, float]:
        """Means of the figures over data, with the same random numbers each time."""
        n, size = _rows(self.name, data), max(self.batch_size, 1000)
        sums: dict[str, float] = {}
        self._module.eval()
        with no_grad():
            for begin in range(0, n, size):
                rows = np.arange(begin, min(n, begin + size))
                loss, figures = self.objective(_take(data, rows), Key(begin), 1.0)
                for name, figure in {"loss": float(loss), **figures}.items():
                    sums[name] = sums.get(name, 0.0) + float(figure) * len(rows)
        self._module.train()
        return {name: total / n for name, total in sums.items()}

    # --- early stopping -------------------------------------------------------------------------------------------

    def _watch(self, record: Mapping[str, float]) -> None:
        if self.options.patience is None:
            return
        if self.options.monitor not in record:
            raise ValueError(
                f"{self.name}: expected monitor to be one of {', '.join(record)}, received {self.options.monitor!r}"
            )
        value, state = record[self.options.monitor], self._state
        if "loss" not in self.options.monitor:  # a figure of merit: higher is better
            value = -value
        if state.best is None or value < state.best:
            state.best, state.waited, self._best = value, 0, self._module.state_dict()
        else:
            state.waited += 1

    def begin_epoch(self) -> None:
        """In training mode, also after a callback that evaluated the module."""
        self._module.train()

    def finished(self) -> bool:
        """Whether the monitored figure has not improved for as long as the patience lasts."""
        return self.options.patience is not None and self._state.waited >= self.options.patience

    def run(self, progress: bool) -> History:
        """Train, and return to the best parameters if the monitored figure says which these were."""
        try:
            history = super().run(progress)
        finally:
            self._module.eval()
        if self._state.waited:
            self._last = self._module.state_dict()  # where a resumed training goes on
            self._module.load_state_dict(self._best)
            if self.checkpoints.path is not None:
                self.save(self.checkpoints.path)
        return history

    # --- files ----------------------------------------------------------------------------------------------------

    def save(self, path: Path) -> None:
        """Write the module as its own ``save`` does, and beside it all that the training needs."""
        optimizer, tensors = io.split_state(self.optimizer.state_dict(), "training.optimizer")
        extra = {} if self.extra is None else self.extra.state_dict()
        for kind, arrays in (("best", self._best), ("last", self._last), ("extra", extra)):
            tensors |= {f"training.{kind}.{name}": array for name, array in arrays.items()}
        state = {
            "steps": self._steps, "generator": self.generator.state,
            "training": self._state.to_json() | {"optimizer": optimizer, "keys": self._keys.state},
        }  # fmt: skip
        io.save_model(
            path, kind=type(self._module).__name__, config=self._config(), state=state,
            tensors=self._module.state_dict() | tensors,
        )  # fmt: skip

    def _config(self) -> dict[str, Any]:
        config: dict[str, Any] = self._module.config if self._module.is_model else {}
        return config

    def _resume(self, path: Path) -> None:
        stored = io.load_model(path, type(self._module).__name__)
        if stored.config != self._config():
            raise ValueError(
                f"{self.name}: expected {path} to hold a model of {self._config()}, received {stored.config}"
            )
        training = dict(stored.state.get("training") or {})
        optimizer, keys = training.pop("optimizer", None), training.pop("keys", None)
        before, now = training.get("options", {}), dict(self.recorded)
        scheduled = any(isinstance(value, list) for value in before.values())
        if before and not scheduled and now["epochs"] > before["epochs"]:
            now["epochs"] = before["epochs"]  # the same training going on
        self.check_same(path, before, now)
        self._check_optimizer(path, optimizer)
        own = {name: t for name, t in stored.tensors.items() if not name.startswith("training.")}
        self._module.load_state_dict(_under("training.last.", stored.tensors) or own)
        joined = io.join_state(optimizer, stored.tensors)
        joined["state"] = {int(i): of_one for i, of_one in joined["state"].items()}
        self.optimizer.load_state_dict(joined)
        if self.extra is not None:
            self.extra.load_state_dict(_under("training.extra.", stored.tensors))
        self._best = _under("training.best.", stored.tensors)
        self._state = State.from_json(training)
        self._count(int(stored.state["steps"]))
        self.generator.state, self._keys.state = stored.state["generator"], keys

    def _check_optimizer(self, path: Path, stored: Any) -> None:
        """Options that the checkpoint would put in the place of those of this call; a rate may have moved since."""
        for before, now in zip(stored["param_groups"], self.optimizer.param_groups, strict=False):
            names = before.keys() - {"params", "lr"}
            as_stored = json.loads(json.dumps({name: now.get(name) for name in names}))
            if names:
                self.check_same(
                    path, *({f"optimizer's {n}": g[n] for n in sorted(names)} for g in (before, as_stored))
                )


def _under(prefix: str, tensors: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}


def _arrays(data: Data) -> tuple[NDArray[Any], ...]:
    return data if isinstance(data, tuple) else (data,)


def _rows(name: str, data: Data, argument: str = "X") -> int:
    lengths = [len(array) for array in _arrays(data)]
    if len(set(lengths)) != 1:
        raise ValueError(f"{name}: expected arrays of as many rows each in {argument}, received {lengths}")
    return lengths[0]


def _checksums(data: Data) -> str:
    return ", ".join(checksum(array) for array in _arrays(data))


def _take(data: Data, rows: NDArray[np.int64]) -> Any:
    return tuple(array[rows] for array in data) if isinstance(data, tuple) else data[rows]


_OWN = ("epoch", "step", "seconds", "lr", "loss")  # what every record holds


def fit(
    module: Module,
    loss: Callable[..., Any],
    X: Data,
    *,
    optimizer: Optimizer,
    epochs: int,
    batch_size: int = 128,
    lr: float | Schedule | None = None,
    validation: Data | None = None,
    clip_norm: float | None = None,
    patience: int | None = None,
    monitor: str = "validation_loss",
    callbacks: Sequence[Callback] = (),
    progress: bool = True,
    checkpoint: str | Path | None = None,
    checkpoint_every: int | None = None,
    resume: bool = False,
    seed: int = 0,
) -> History:
    """Learn the parameters of a module by gradient steps on a loss.

    Parameters
    ----------
    module : Module
        What learns. Changed in place, and left in evaluation mode.
    loss : callable
        ``loss(module, batch, key)``: a Tensor of one element, the mean over the batch, or that and a dict of figures
        to record. ``batch`` are rows of `X`, ``key`` is a new one each time, for whatever is random.
    X : array, or tuple of arrays of as many rows each
        Data.
    optimizer : gencore.optim optimizer
        Made for the module's parameters.
    epochs, batch_size : int
        Passes over the data, and rows of an update. The last batch of an epoch may be short.
    lr : float or Schedule, optional
        Learning rate, or a function from the fraction of the training done to one (`gencore.train.linear`, ...).
        None: the optimizer's own.
    validation : as `X`, optional
        Held-out data; its figures are recorded as ``validation_...``, with the same random numbers each epoch.
    clip_norm : float, optional
        Largest norm of the gradient of all parameters together; a longer one is scaled down.
    patience : int, optional
        Early stopping: end when the monitored figure has not improved for so many epochs, and return to the parameters
        that it was best with.
    monitor : str
        The figure; one with "loss" in its name should fall, any other should rise.
    callbacks : sequence of callables
        ``callback(module, record)`` after each epoch; returning True ends the training. Nothing else does: a figure
        that a plot returns is no reason to stop. The next epoch starts in training mode whatever a callback did.
    progress : bool
        Show a progress bar, where the output is a terminal.
    checkpoint : path, optional
        File for parameters, optimizer, random numbers and history, written at the end of each epoch or every
        ``checkpoint_every`` updates. `gencore.io.load_model` reads it; tensors whose names do not start with
        ``training.`` are the module's ``state_dict``.
    checkpoint_every : int, optional
        Updates between two checkpoints.
    resume : bool
        Go on from ``checkpoint`` if that file exists, to the bits that the unbroken training would have given. The
        other arguments must be those of the interrupted call; without a schedule, ``epochs`` may be more.
    seed : int
        Of the order of the batches and of the keys.

    Returns
    -------
    History
        One record an epoch: ``epoch``, ``step``, ``seconds``, ``lr``, ``loss``, the figures that `loss` returns, and
        those of held-out data.

    Raises
    ------
    ValueError, TypeError
        A wrong argument.
    DivergenceError
        The loss or a parameter is no longer finite: says at which update, or between which: parameters are looked at
        when the loss is not finite, before each checkpoint and after each epoch. The last good checkpoint is untouched.
    """

    def objective(batch: Any, key: Key, done: float) -> tuple[Tensor, Mapping[str, float]]:
        found = loss(module, batch, key)
        value, figures = found if isinstance(found, tuple) else (found, {})
        if not isinstance(value, Tensor) or value.size != 1:
            what = f"one of shape {value.shape}" if isinstance(value, Tensor) else type(value).__name__
            raise TypeError(f"fit: expected loss to return a Tensor of one element, received {what}")
        for name in figures:
            if name in _OWN or name.startswith("validation_"):
                own = ", ".join(_OWN)
                raise ValueError(
                    f"fit: expected loss to return figures of other names than {own} and validation_..., "
                    f"received {name!r}"
                )
        return value, figures

    for name, data in (("X", X), ("validation", validation)):
        if data is not None and not all(hasattr(a, "shape") for a in _arrays(data)):
            raise TypeError(
                f"fit: expected {name} to be an array or a tuple of arrays, received {type(data).__name__}"
            )

    if not isinstance(optimizer, Optimizer):
        raise TypeError(f"fit: expected optimizer to be one of gencore.optim, received {optimizer!r:.60}")
    options = Options(
        epochs, batch_size, lr, clip_norm, patience, monitor, checkpoint, checkpoint_every, resume, callbacks
    )
    training = ModuleTraining(
        "fit", module, objective, X, validation, optimizer, options, generator=Generator(seed), seed=seed, recorded={}
    )  # fmt: skip
    return training.run(progress)
