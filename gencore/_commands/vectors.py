"""`gencore train nade|made|fvbn|eonade`, and what `gencore sample` and `gencore evaluate` do with these models."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gencore import io, plot
from gencore._commands import exact, training
from gencore._commands.data import Data
from gencore._commands.shared import (
    Sheet,
    clamp_rows,
    image_shape,
    judged_rows,
    say_judged,
    start_rows,
)
from gencore._states import as_states
from gencore.models import FVBN, MADE, NADE, EoNADE

Rows = NDArray[Any]
Record = Mapping[str, float]

KINDS: dict[str, Any] = {"NADE": NADE, "MADE": MADE, "FVBN": FVBN, "EoNADE": EoNADE}


def _take(op: str, name: str, rows: Rows, units: int) -> Rows:
    """How these models take rows: 0 and 1."""
    return as_states(op, name, rows, units)


# --- train --------------------------------------------------------------------------------------------------


def train_nade(args: argparse.Namespace) -> int:
    """`gencore train nade`."""
    return _train(args, lambda n, **more: NADE(n, args.hidden, **more))


def train_made(args: argparse.Namespace) -> int:
    """`gencore train made`."""
    order: Any = "random" if args.order == "random" else None
    options = {"n_masks": args.masks, "order": order, "direct": args.direct, "activation": args.activation}
    return _train(args, lambda n, **more: MADE(n, args.hidden, **options, **more))


def train_fvbn(args: argparse.Namespace) -> int:
    """`gencore train fvbn`."""
    return _train(args, lambda n, **more: FVBN(n, hidden=args.hidden, activation=args.activation, **more))


def train_eonade(args: argparse.Namespace) -> int:
    """`gencore train eonade`."""
    options = {"n_orderings": args.orderings, "activation": args.activation}
    return _train(args, lambda n, **more: EoNADE(n, args.hidden, **options, **more))


def _train(args: argparse.Namespace, make: Callable[..., Any]) -> int:
    exact.check_pictures(args)
    if args.shape is not None and args.samples is None:
        raise ValueError("--shape: expected --samples with it")
    return training.run(
        args,
        lambda name, rows: _take("train", name, rows, rows.shape[1]),
        lambda data, rows: _plan(args, data, rows.shape[1], make),
    )


def _plan(args: argparse.Namespace, data: Data, units: int, make: Callable[..., Any]) -> training.Plan:
    labels = data.labels_of("train") if args.classes else None
    model = make(units, n_classes=0 if labels is None else int(labels.max()) + 1, seed=args.seed)
    held_out = exact.held_out(args, data, _take, units)
    picture = None
    if args.samples is not None:
        shape = image_shape(args.shape, model.n_visible, of="a row of the data")

        def draw(model: Any) -> None:
            labels = exact.labels_of_samples(model, None, exact.SHOWN)
            drawn = model.sample(exact.SHOWN, labels=labels, key=args.seed)
            plot.samples(drawn, args.samples, shape=shape, count=exact.SHOWN)

        picture = exact.Picture(draw, args.samples_every or 1)

    def result(last: Record) -> str:
        if picture is not None:  # of the model that is kept: with --patience, the best
            picture.write(model)
        return exact.result(model, held_out, last, units=model.n_visible, unit="dimension")

    what = "log-likelihood, of random orders" if isinstance(model, EoNADE) else "log-likelihood"
    return training.Plan(
        model,
        size=_size(model),
        learning=f"{what}, {args.optimizer}",
        options={
            "optimizer": args.optimizer, "clip_norm": args.clip_norm, "patience": args.patience,
            "weight_decay": args.weight_decay, "validation": held_out.get("valid"), "labels": labels,
        },
        figures=exact.figures,
        result=result,
        callbacks=() if picture is None else (picture,),
    )  # fmt: skip


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
    if model.n_classes:
        parts.append(f"{model.n_classes} classes")
    return f"{', '.join(parts)}, {model.n_parameters():,} parameters"


# --- sample -------------------------------------------------------------------------------------------------


def _load(path: Path) -> Any:
    return KINDS[io.load_model(path).kind].load(path)


def sample(args: argparse.Namespace) -> int:
    """`gencore sample` of a file that holds one of these models."""
    model = _load(args.model)
    sheet, n = Sheet(args, model.n_visible), args.n or 64
    exact.check_completion(args)
    partial, note = None, ""
    if args.start is not None:
        partial, note = _partial(args, model, n)
    labels = exact.labels_of_samples(model, args.label, n)
    sheet.write(model.sample(n, labels=labels, partial=partial, temperature=args.temperature, key=args.seed))
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
    data, rows, places = judged_rows(args, threshold, model.n_visible, _take)
    say_judged(args, _size(model), data, rows)
    learned = None
    if "train" in data.splits:
        learned = _take("evaluate", f"{data.name} (train)", data.splits["train"], model.n_visible)
    log_prob = exact.judged_by(model, data, args.split, rows, places)
    exact.judge(args, data, rows, log_prob, learned, at_a_time=1000, units=model.n_visible, unit="dimension")
    return 0
