"""What every training loop shares: batches, schedules, history, progress bar, checkpoints, and divergence."""

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

__all__ = [
    "Callback",
    "DivergenceError",
    "History",
    "Schedule",
    "batches",
    "constant",
    "cosine",
    "exponential",
    "linear",
]

Schedule: TypeAlias = Callable[[float], float]
"""Maps the fraction of the training that is done, 0 to 1, to a learning rate."""

Callback: TypeAlias = Callable[[Any, Mapping[str, float]], bool | None]
"""``callback(model, record)`` after each epoch; returning True ends the training."""


class DivergenceError(FloatingPointError):
    """Training produced a number that is not finite. The last good checkpoint, if any, is untouched."""


def constant(lr: float) -> Schedule:
    """Learning rate ``lr`` throughout."""
    return lambda done: lr


def linear(start: float, end: float = 0.0, *, hold: float = 0.0) -> Schedule:
    """From ``start`` to ``end`` along a line, after staying at ``start`` for the fraction ``hold`` of the training."""
    return lambda done: start + (end - start) * _progress(done, hold)


def exponential(start: float, end: float, *, hold: float = 0.0) -> Schedule:
    """From ``start`` to ``end``, both above 0, by a constant factor a step; see `linear` for ``hold``."""
    if start <= 0 or end <= 0:
        raise ValueError(f"exponential: expected start and end to be above 0, received {start} and {end}")
    return lambda done: float(start * (end / start) ** _progress(done, hold))


def cosine(start: float, end: float = 0.0, *, hold: float = 0.0) -> Schedule:
    """From ``start`` to ``end`` along half a cosine; see `linear` for ``hold``."""
    return lambda done: float(end + (start - end) * 0.5 * (1 + np.cos(np.pi * _progress(done, hold))))


def _progress(done: float, hold: float) -> float:
    return min(max((done - hold) / (1 - hold), 0.0), 1.0) if hold < 1 else 0.0


def as_schedule(lr: float | Schedule) -> Schedule:
    """A number is a constant schedule."""
    return lr if callable(lr) else constant(float(lr))


def batches(n: int, batch_size: int, *, seed: int, epoch: int) -> list[NDArray[np.int64]]:
    """Row numbers of each batch of an epoch: a permutation that depends on ``(seed, epoch)`` alone, cut in order.

    The last batch is short where ``batch_size`` does not divide ``n``.
    """
    order = np.random.Generator(np.random.PCG64([seed, epoch])).permutation(n)
    return [order[i : i + batch_size] for i in range(0, n, batch_size)]


class History:
    """What a training recorded: one mapping an epoch.

    ``history["name"]`` is the column of that name, ``history.records`` the rows.
    """

    def __init__(self, records: list[dict[str, float]] | None = None) -> None:
        self.records: list[dict[str, float]] = [] if records is None else records

    def __getitem__(self, name: str) -> list[float]:
        if not any(name in record for record in self.records):
            raise KeyError(f"history: expected one of {', '.join(self.names())}, received {name!r}")
        return [record[name] for record in self.records if name in record]

    def __len__(self) -> int:
        return len(self.records)

    def names(self) -> list[str]:
        """Names of the columns, in the order of their first appearance."""
        return list(dict.fromkeys(name for record in self.records for name in record))

    def __repr__(self) -> str:
        last = ", ".join(f"{k}={v:.6g}" for k, v in self.records[-1].items()) if self.records else "empty"
        return f"History({len(self)} epochs; last: {last})"


class Progress:
    """A progress bar over the updates of a training; silent where the output is no terminal."""

    def __init__(self, label: str, *, total: int, done: int, enabled: bool) -> None:
        self._bar = tqdm(
            total=total, initial=done, desc=label, disable=not (enabled and sys.stderr.isatty()), mininterval=0.2,
            bar_format="{desc} {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} {elapsed}<{remaining}{postfix}",
            dynamic_ncols=True,
        )  # fmt: skip

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *exc: object) -> None:
        self._bar.close()

    def step(self) -> None:
        """One update is done."""
        self._bar.update()

    def show(self, record: Mapping[str, float], names: Mapping[str, str]) -> None:
        """Show these figures at the bar's end, by their short names: ``{"pll": "pseudo_log_likelihood"}``."""
        self._bar.set_postfix({short: f"{record[n]:.4g}" for short, n in names.items() if n in record})


class Checkpoints:
    """Says when a checkpoint is due, and where it goes."""

    def __init__(self, path: str | Path | None, every: int | None, steps_per_epoch: int) -> None:
        if every is not None and path is None:
            raise ValueError(
                f"fit: expected checkpoint to name a file, since checkpoint_every is {every}, received None"
            )
        if every is not None and every < 1:
            raise ValueError(f"fit: expected checkpoint_every to be at least 1 step, received {every}")
        self.path = None if path is None else Path(path)
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
