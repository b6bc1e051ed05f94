"""`gencore train nade|made|fvbn|eonade`, and what `gencore sample` and `gencore evaluate` do with these models."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gencore import io, plot
from gencore._commands import training
from gencore._commands.data import PICTURES, Data
from gencore._commands.shared import (
    Sheet,
    clamp_rows,
    image_shape,
    independent_log_likelihood,
    judged_rows,
    mean_and_error,
    print_json,
    say,
    say_judged,
    start_rows,
    writable,
)
from gencore._states import as_states
from gencore.models import FVBN, MADE, NADE, EoNADE
from gencore.models._neural import chunks
from gencore.train.history import Progress

Rows = NDArray[Any]
Record = Mapping[str, float]

KINDS: dict[str, Any] = {"NADE": NADE, "MADE": MADE, "FVBN": FVBN, "EoNADE": EoNADE}

_SHOWN = 64  # samples of a picture of the training


def _take(op: str, name: str, rows: Rows, units: int) -> Rows:
    """How these models take rows: 0 and 1."""
    return as_states(op, name, rows, units)


# --- train --------------------------------------------------------------------------------------------------


def train_nade(args: argparse.Namespace) -> int:
    """`gencore train nade`."""
    return _train(args, lambda n: NADE(n, args.hidden, seed=args.seed))


def train_made(args: argparse.Namespace) -> int:
    """`gencore train made`."""
    order: Any = "random" if args.order == "random" else None
    options = {"n_masks": args.masks, "order": order, "direct": args.direct, "activation": args.activation}
    return _train(args, lambda n: MADE(n, args.hidden, seed=args.seed, **options))


def train_fvbn(args: argparse.Namespace) -> int:
    """`gencore train fvbn`."""
    return _train(args, lambda n: FVBN(n, hidden=args.hidden, activation=args.activation, seed=args.seed))


def train_eonade(args: argparse.Namespace) -> int:
    """`gencore train eonade`."""
    options = {"n_orderings": args.orderings, "activation": args.activation}
    return _train(args, lambda n: EoNADE(n, args.hidden, seed=args.seed, **options))


def _train(args: argparse.Namespace, make: Callable[[int], Any]) -> int:
    if args.samples_every is not None and args.samples is None:
        raise ValueError("--samples-every: expected --samples with it")
    if args.shape is not None and args.samples is None:
        raise ValueError("--shape: expected --samples with it")
    if args.samples is not None:
        writable(args.samples, "--samples", PICTURES)
    return training.run(
        args,
        lambda name, rows: _take("train", name, rows, rows.shape[1]),
        lambda data, rows: _plan(args, data, make(rows.shape[1])),
    )


def _plan(args: argparse.Namespace, data: Data, model: Any) -> training.Plan:
    held_out = training.held_out(args, data, _take, model.n_visible)
    picture = None
    if args.samples is not None:
        shape = image_shape(args.shape, model.n_visible, of="a row of the data")
        picture = _Picture(args.samples, args.samples_every or 1, args.seed, shape)

    def result(last: Record) -> str:
        if picture is not None:  # of the model that is kept: with --patience, the best
            picture.write(model)
        return _result(model, held_out, last)

    what = "log-likelihood, of random orders" if isinstance(model, EoNADE) else "log-likelihood"
    return training.Plan(
        model,
        size=_size(model),
        learning=f"{what}, {args.optimizer}",
        options={
            "optimizer": args.optimizer, "clip_norm": args.clip_norm, "patience": args.patience,
            "weight_decay": args.weight_decay, "validation": held_out.get("valid"),
        },
        figures=_figures,
        result=result,
        callbacks=() if picture is None else (picture,),
    )  # fmt: skip


@dataclass(frozen=True)
class _Picture:
    """Samples of a model that learns, by the same random numbers each time, which are none of the training's."""

    path: Path
    every: int
    seed: int
    shape: tuple[int, int]

    def __call__(self, model: Any, record: Record) -> None:
        """Draw them after every so many epochs."""
        if record["epoch"] % self.every == 0:
            self.write(model)

    def write(self, model: Any) -> None:
        """Draw them now: those of ``gencore sample`` by that seed."""
        plot.samples(model.sample(_SHOWN, key=self.seed), self.path, shape=self.shape, count=_SHOWN)


def _size(model: Any) -> str:
    config = model.config
    hidden = [config["n_hidden"]] if isinstance(model, NADE) else config["hidden"]
    layers = "-".join(str(size) for size in (model.n_visible, *hidden)) if hidden else f"{model.n_visible}"
    parts = [type(model).__name__, layers]
    if isinstance(model, FVBN):
        parts[1] = f"{model.n_visible} dimensions"
        parts.append(f"{', '.join(map(str, hidden))} hidden units each" if hidden else "logistic")
    for name, what in (("n_masks", "masks"), ("n_orderings", "orders")):
        if config.get(name, 1) > 1:
            parts.append(f"{config[name]} {what}")
    return f"{', '.join(parts)}, {model.n_parameters():,} parameters"


def _figures(record: Record) -> str:
    valid = [f"valid {record['validation_log_prob']:.3f}"] if "validation_log_prob" in record else []
    return ", ".join([f"log-likelihood train {record['log_prob']:.3f}", *valid])


def _result(model: Any, held_out: Mapping[str, Rows], last: Record) -> str:
    """Log-likelihood of held-out data by the model as it is now, the test data last."""
    if not held_out:
        return f"{_figures(last)} nats"
    means = {name: float(model.log_prob(rows).mean()) for name, rows in held_out.items()}
    texts = ", ".join(f"{name} {mean:.3f}" for name, mean in means.items())
    return f"log-likelihood {texts} nats; {_bits(model, list(means.values())[-1]):.4f} bits a dimension"


def _bits(model: Any, mean: float) -> float:
    """Bits a dimension, where a row has this log-likelihood in nats."""
    return -mean / (int(model.n_visible) * math.log(2))


# --- sample -------------------------------------------------------------------------------------------------


def _load(path: Path) -> Any:
    return KINDS[io.load_model(path).kind].load(path)


def sample(args: argparse.Namespace) -> int:
    """`gencore sample` of a file that holds one of these models."""
    model = _load(args.model)
    sheet, n = Sheet(args, model.n_visible), args.n or 64
    if (args.start is None) != (args.clamp is None):
        given, missing = ("--clamp", "--start") if args.start is None else ("--start", "--clamp")
        raise ValueError(f"{given}: expected {missing} with it")
    partial, note = None, ""
    if args.start is not None:
        partial, note = _partial(args, model, n)
    sheet.write(model.sample(n, partial=partial, temperature=args.temperature, key=args.seed))
    what = "samples" if partial is None else "completions"
    print(f"{n} {what}{note}: {sheet.path}")
    return 0


def _partial(args: argparse.Namespace, model: Any, n: int) -> tuple[NDArray[np.float64], str]:
    """Rows whose units to be drawn are NaN, and what to know of them."""
    start = start_rows(args, args.threshold if args.threshold is not None else 0.5, n, model.n_visible, _take)
    keep = clamp_rows(args, n, model.n_visible) == 1
    note = ""
    if not isinstance(model, EoNADE):  # which draws what is kept first
        note = ", each unit given those before it in the model's order (kept ones after it do not count)"
    rows = np.where(keep, start.astype(np.float64), np.nan)
    return np.broadcast_to(rows, (n, model.n_visible)), note


# --- evaluate -----------------------------------------------------------------------------------------------


def evaluate(args: argparse.Namespace) -> int:
    """`gencore evaluate` of a file that holds one of these models."""
    model = _load(args.model)
    threshold = args.threshold if args.threshold is not None else 0.5
    data, rows, _ = judged_rows(args, threshold, model.n_visible, _take)
    say_judged(args, _size(model), data, rows)
    mean, error = mean_and_error(_log_prob(model, rows, bar=not args.json))
    rates = None
    if "train" in data.splits:
        learned = _take("evaluate", f"{data.name} (train)", data.splits["train"], model.n_visible)
        rates = learned.mean(axis=0, dtype=np.float64)
    result = {
        "model": str(args.model),
        "data": data.name,
        "split": args.split,
        "rows": len(rows),
        "log_likelihood": mean,
        "row_standard_error": error,
        "bits_per_dimension": _bits(model, mean),
        "independent_units": independent_log_likelihood(rates, rows),
    }
    if args.json:
        print_json(result)
    else:
        _print_evaluation(result)
    return 0


def _log_prob(model: Any, rows: Rows, *, bar: bool) -> NDArray[np.float64]:
    steps, parts = chunks(len(rows), 1000), []
    with Progress("evaluate", total=len(steps), done=0, enabled=bar) as shown:
        for batch in steps:
            parts.append(model.log_prob(rows[batch]))
            shown.step()
    return np.concatenate(parts)


def _print_evaluation(result: Mapping[str, Any]) -> None:
    print("\nnats a row, higher is better")
    say(
        "log-likelihood",
        f"{result['log_likelihood']:.4f} +- {result['row_standard_error']:.4f} (exact; spread of the rows)",
    )
    say("", f"{result['bits_per_dimension']:.5f} bits a dimension, lower is better")
    if result["independent_units"] is not None:
        say(
            "independent",
            f"{result['independent_units']:.4f} (units of the training data's means, nothing learned)",
        )
