"""What commands of models with an exact log-likelihood share: figures, pictures while they learn, evaluation."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gencore._commands import training
from gencore._commands.data import PICTURES, Data
from gencore._commands.shared import (
    Take,
    independent_log_likelihood,
    mean_and_error,
    print_json,
    say,
    writable,
)
from gencore.models._neural import chunks
from gencore.train.history import Progress

__all__ = [
    "SHOWN", "Picture", "check_completion", "check_pictures", "figures", "held_out", "judge", "judged_by",
    "labels_of_samples", "result",
]  # fmt: skip

Rows = NDArray[Any]
Record = Mapping[str, float]

SHOWN = 64  # samples of a picture of the training


def check_pictures(args: argparse.Namespace) -> None:
    """What ``--samples`` and ``--samples-every`` ask for can be had."""
    if args.samples_every is not None and args.samples is None:
        raise ValueError("--samples-every: expected --samples with it")
    if args.samples is not None:
        writable(args.samples, "--samples", PICTURES)


@dataclass(frozen=True)
class Picture:
    """Samples of a model that learns, by the same random numbers each time, which are none of the training's.

    `write` draws them now; as a callback it does so after every so many epochs.
    """

    write: Callable[[Any], None]
    every: int

    def __call__(self, model: Any, record: Record) -> None:
        """Draw them after every so many epochs."""
        if record["epoch"] % self.every == 0:
            self.write(model)


def figures(record: Record) -> str:
    """Those of an epoch, in words."""
    valid = [f"valid {record['validation_log_prob']:.3f}"] if "validation_log_prob" in record else []
    return ", ".join([f"log-likelihood train {record['log_prob']:.3f}", *valid])


def result(model: Any, held_out: Mapping[str, Any], last: Record, *, units: int, unit: str) -> str:
    """Log-likelihood of held-out data by the model as it is now, the test data last; rows may go with labels."""
    if not held_out:
        return f"{figures(last)} nats"
    means = {
        name: float(model.log_prob(*(rows if isinstance(rows, tuple) else (rows,))).mean())
        for name, rows in held_out.items()
    }
    texts = ", ".join(f"{name} {mean:.3f}" for name, mean in means.items())
    return f"log-likelihood {texts} nats; {_bits(list(means.values())[-1], units):.4f} bits a {unit}"


def _bits(mean: float, units: int) -> float:
    """Bits a unit, where a row has this log-likelihood in nats."""
    return -mean / (units * math.log(2))


def check_completion(args: argparse.Namespace) -> None:
    """``--start`` and ``--clamp`` come together."""
    if (args.start is None) != (args.clamp is None):
        given, missing = ("--clamp", "--start") if args.start is None else ("--start", "--clamp")
        raise ValueError(f"{given}: expected {missing} with it")


def labels_of_samples(model: Any, label: int | None, n: int) -> NDArray[np.int64] | None:
    """Classes of samples: the one asked for, or each in turn."""
    if model.n_classes == 0:
        if label is not None:
            raise ValueError("--label: expected none, as the model was trained without --classes")
        return None
    if label is not None and label >= model.n_classes:
        raise ValueError(f"--label: expected a class from 0 to {model.n_classes - 1}, received {label}")
    return np.arange(n) % model.n_classes if label is None else np.full(n, label)


def held_out(args: argparse.Namespace, data: Data, take: Take, units: int) -> dict[str, Any]:
    """As `training.held_out`; of classes, with their labels."""
    found = training.held_out(args, data, take, units)
    return {n: (rows, data.labels_of(n)) for n, rows in found.items()} if args.classes else dict(found)


def judged_by(
    model: Any, data: Data, split: str, rows: Rows, places: NDArray[np.int64]
) -> Callable[[slice], NDArray[np.float64]]:
    """Log-probabilities of some of the rows, which lie at these places of their split."""
    if model.n_classes == 0:
        return lambda batch: np.asarray(model.log_prob(rows[batch]))
    labels = data.labels_of(split)[places]
    return lambda batch: np.asarray(model.log_prob(rows[batch], labels[batch]))


def judge(
    args: argparse.Namespace,
    data: Data,
    rows: Rows,
    log_prob: Callable[[slice], NDArray[np.float64]],
    learned: Rows | None,
    *,
    at_a_time: int,
    units: int,
    unit: str,
) -> None:
    """Print what ``gencore evaluate`` finds: the rows' log-likelihood, and what the rates of `learned` would give."""
    steps, parts = chunks(len(rows), at_a_time), []
    with Progress("evaluate", total=len(steps), done=0, enabled=not args.json) as shown:
        for batch in steps:
            parts.append(log_prob(batch))
            shown.step()
    mean, error = mean_and_error(np.concatenate(parts))
    rates = None if learned is None else learned.mean(axis=0, dtype=np.float64)
    independent, bits = independent_log_likelihood(rates, rows), _bits(mean, units)
    if args.json:
        return print_json({
            "model": str(args.model), "data": data.name, "split": args.split, "rows": len(rows), "log_likelihood": mean,
            "row_standard_error": error, "bits_per_dimension": bits, "independent_units": independent,
        })  # fmt: skip
    print("\nnats a row, higher is better")
    say("log-likelihood", f"{mean:.4f} +- {error:.4f} (exact; spread of the rows)")
    say("", f"{bits:.5f} bits a {unit}, lower is better")
    if independent is not None:
        say("independent", f"{independent:.4f} (units of the training data's means, nothing learned)")
    return None
