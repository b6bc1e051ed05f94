"""The loop that every training runs: epochs of batches, a record of each, checkpoints, resumption, and divergence.

A model's training is a `Loop` that says what an update is, what an epoch's record holds and what a checkpoint keeps.
"""

import os
import time
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from gencore._checks import count
from gencore.train.history import Callback, History, Progress
from gencore.train.schedules import Schedule, as_schedule

__all__ = ["Checkpoints", "DivergenceError", "Loop", "Position", "batches"]


class DivergenceError(FloatingPointError):
    """Training produced a number that is not finite. The last good checkpoint, if any, is untouched."""


def batches(n: int, batch_size: int, *, seed: int, epoch: int) -> list[NDArray[np.int64]]:
    """Row numbers of each batch of an epoch: a permutation that depends on ``(seed, epoch)`` alone, cut in order.

    The last batch is short where ``batch_size`` does not divide ``n``.
    """
    order = np.random.Generator(np.random.PCG64([seed, epoch])).permutation(n)
    return [order[i : i + batch_size] for i in range(0, n, batch_size)]


class Checkpoints:
    """Says when a checkpoint is due, and where it goes."""

    def __init__(self, name: str, path: str | Path | None, every: int | None, steps_per_epoch: int) -> None:
        if every is not None and path is None:
            raise ValueError(
                f"{name}: expected checkpoint to name a file, since checkpoint_every is {every}, received None"
            )
        if every is not None:
            count(name, "checkpoint_every", every)
        self.path = None if path is None else _file(name, path)
        self._every = every if every is not None else steps_per_epoch

    def due(self, step: int) -> bool:
        """Whether the state after ``step`` updates is to be saved."""
        return self.path is not None and step % self._every == 0

    def advice(self) -> str:
        """What a user whose training diverged can go back to."""
        if self.path is None:
            return "no checkpoint was asked for (fit(checkpoint=...))"
        return (
            f"the last good checkpoint is {self.path}"
            if self.path.exists()
            else "no checkpoint was written yet"
        )


def _file(name: str, path: Any) -> Path:
    """A path that a file can be written to, as far as its name tells."""
    if not isinstance(path, str | os.PathLike):
        raise TypeError(f"{name}: expected checkpoint to be a path, received {path!r}")
    file = Path(path)
    if file.is_dir():
        raise ValueError(f"{name}: expected checkpoint to name a file, received a folder, {file}")
    if not file.parent.is_dir():
        raise ValueError(f"{name}: expected checkpoint in a folder that exists, received {file}")
    return file


def _callables(name: str, callbacks: Any) -> tuple[Callback, ...]:
    found = tuple(callbacks) if isinstance(callbacks, Iterable) else (None,)
    if wrong := [c for c in found if not callable(c)]:
        received = repr(callbacks) if wrong[0] is None else repr(wrong[0])
        raise TypeError(f"{name}: expected callbacks to be a sequence of functions, received {received:.60}")
    return found


@dataclass
class Position:
    """Where an unfinished training stands: what it needs to go on to the same bits, besides the model's own state."""

    epoch: int = 0
    batch: int = 0  # the next one of the epoch
    seconds: float = 0.0
    options: dict[str, Any] = field(default_factory=dict)  # as recorded: a resumed call must have the same
    history: History = field(default_factory=History)

    def to_json(self) -> dict[str, Any]:
        """As a checkpoint keeps it."""
        scalars = {name: getattr(self, name) for name in ("epoch", "batch", "seconds", "options")}
        return scalars | {"history": self.history.records}


class Loop(ABC):
    """One call of a model's ``fit``.

    Parameters
    ----------
    name : str
        Of the call, for errors: "RBM.fit".
    n_rows, n_held_out : int
        Rows of the data, and of those held out; None without.
    epochs, batch_size, lr
        As ``fit`` takes them.
    seed : int
        Of the batches' order.
    callbacks
        As ``fit`` takes them.
    checkpoint, checkpoint_every
        As ``fit`` takes them.
    """

    shown: ClassVar[Mapping[str, str]] = {}
    """In the progress bar: short names of recorded figures."""

    def __init__(
        self,
        name: str,
        n_rows: int,
        n_held_out: int | None,
        *,
        epochs: int,
        batch_size: int,
        lr: float | Schedule,
        seed: int,
        callbacks: Sequence[Callback],
        checkpoint: str | Path | None,
        checkpoint_every: int | None,
        resume: bool,
    ) -> None:
        if n_rows == 0:
            raise ValueError(f"{name}: expected X to have at least 1 row, received 0")
        if n_held_out == 0:
            raise ValueError(f"{name}: expected validation to have at least 1 row, received 0")
        if resume and checkpoint is None:
            raise ValueError(f"{name}: expected checkpoint to name the file to resume from, received None")
        self.name, self.seed = name, seed
        self.n_rows, self.epochs, self.batch_size = n_rows, epochs, batch_size
        self.steps_per_epoch = -(-n_rows // batch_size)
        self.checkpoints = Checkpoints(name, checkpoint, checkpoint_every, self.steps_per_epoch)
        self.callbacks = _callables(name, callbacks)
        self.schedule = as_schedule(lr)
        self._sound = 0  # the update after which all was seen to be finite

    # --- what a training says of itself ---------------------------------------------------------------------------

    @property
    @abstractmethod
    def position(self) -> Position:
        """Where it stands; kept by the model or by the training."""

    @property
    @abstractmethod
    def model(self) -> Any:
        """What callbacks are given."""

    @abstractmethod
    def steps(self) -> int:
        """Updates that the model has seen in all its life."""

    @abstractmethod
    def update(self, rows: NDArray[np.int64], lr: float) -> None:
        """Learn from these rows of the data."""

    @abstractmethod
    def measure(self) -> dict[str, float]:
        """Figures of the epoch that has just ended. Draws nothing from the model's generator."""

    @abstractmethod
    def parameters(self) -> Iterable[tuple[str, Any]]:
        """Names and arrays that must stay finite."""

    @abstractmethod
    def save(self, path: Path) -> None:
        """Write model and training to a file."""

    def begin_epoch(self) -> None:  # noqa: B027 (most need nothing)
        """Get ready to learn: callbacks may have done anything to the model."""

    def finished(self) -> bool:
        """Whether to end before the last epoch."""
        return False

    # --- the loop -------------------------------------------------------------------------------------------------

    def run(self, progress: bool) -> History:
        """Train to the end, or until a callback says so."""
        position, total = self.position, self.epochs * self.steps_per_epoch
        start = time.perf_counter() - position.seconds
        label, self._sound = self.name.partition(".")[0], self.steps()
        with Progress(label, total=total, done=self.done(), enabled=progress) as bar:
            while position.epoch < self.epochs and not self.finished():
                self.begin_epoch()
                first_step = self.steps() - position.batch
                order = batches(self.n_rows, self.batch_size, seed=self.seed, epoch=first_step)
                while position.batch < self.steps_per_epoch:
                    lr = self.schedule(self.done() / total)
                    self.update(order[position.batch], lr)
                    position.batch += 1
                    position.seconds = time.perf_counter() - start
                    bar.step()
                    if position.batch < self.steps_per_epoch:
                        self._save_if_due()
                position.epoch, position.batch = position.epoch + 1, 0
                record = self._record(lr)
                self._save_if_due()
                bar.show(record, self.shown)
                stops = [callback(self.model, record) for callback in self.callbacks]
                if any(isinstance(stop, bool | np.bool_) and stop for stop in stops):  # all were called
                    break
        if self.checkpoints.path is not None and not self.checkpoints.due(self.done()):
            self.save(self.checkpoints.path)
        return position.history

    def done(self) -> int:
        """Updates of this training that are done."""
        return self.position.epoch * self.steps_per_epoch + self.position.batch

    def check_finite(self) -> None:
        """Raise `DivergenceError` if a parameter is NaN or infinite."""
        self._check_finite(self.parameters())
        self._sound = self.steps()

    def _check_finite(self, arrays: Iterable[tuple[str, Any]]) -> None:
        for name, array in arrays:
            wrong = array[~np.isfinite(array)]
            if len(wrong):
                raise self.divergence(name, wrong[0], after=self._sound)

    def divergence(
        self, name: str, value: float, *, during: bool = False, after: int | None = None
    ) -> DivergenceError:
        """Say what became of which number, when, and what is left to go on from.

        It was after the last update, or during the next one; or anywhere from the one after `after` on, as parameters
        are not looked at after each.
        """
        done, last = self.done() + during, self.steps() + during
        epoch = -(-done // self.steps_per_epoch)
        first = last if after is None else after + 1
        when = f"at update {last}" if first >= last else f"at one of the updates {first} to {last}"
        return DivergenceError(
            f"{self.name}: {name} became {value} {when} (epoch {epoch}): "
            f"use a smaller learning rate; {self.checkpoints.advice()}"
        )

    def check_same(self, path: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
        """Raise unless a checkpoint is of a training with these arguments."""
        if not before:
            raise ValueError(
                f"{self.name}: expected {path} to be a checkpoint of a training, received a model never trained"
            )
        changed = [f"{n} was {before[n]!r}, is {now.get(n)!r}" for n in before if before[n] != now.get(n)]
        if changed:
            raise ValueError(
                f"{self.name}: expected the arguments of the training in {path}, received others: {'; '.join(changed)}"
            )

    def _save_if_due(self) -> None:
        if self.checkpoints.path is not None and self.checkpoints.due(self.done()):
            self.check_finite()
            self.save(self.checkpoints.path)

    def _record(self, lr: float) -> dict[str, float]:
        self.check_finite()
        position = self.position
        record = {
            "epoch": position.epoch, "step": self.steps(), "seconds": round(position.seconds, 3), "lr": float(lr),
        } | self.measure()  # fmt: skip
        for name, value in record.items():
            if not np.isfinite(value):  # finite parameters, too large to compute with
                raise self.divergence(name, value)
        position.history.records.append(record)
        return record


def checksum(data: NDArray[Any]) -> str:
    """What stands for the data in the record of a call's arguments."""
    return f"{len(data)} rows of checksum {zlib.crc32(np.ascontiguousarray(data).data):08x}"


def schedule_json(lr: float | Schedule | None) -> Any:
    """A schedule is a function: what it gives at three points, and a checksum of many more, stand for it."""
    if not callable(lr):
        return None if lr is None else float(lr)
    many = np.array([lr(i / 256) for i in range(257)], np.float64)
    return [float(lr(x)) for x in (0.0, 0.5, 1.0)] + [zlib.crc32(many.tobytes())]
