"""The frame of `gencore train MODEL`: what is checked, said, kept and resumed whatever the model is."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from gencore import io, train
from gencore._commands.data import Data, read_data
from gencore._commands.shared import Take, say, set_threads, writable

Rows = NDArray[Any]
Record = Mapping[str, float]


@dataclass(frozen=True)
class Plan:
    """What a model adds to the frame.

    Attributes
    ----------
    model : one of gencore.models
        Untrained.
    size, learning : str
        It, and how it learns, in words.
    options : mapping
        Arguments of its ``fit`` besides those that all have.
    figures : callable
        Of a record, in words.
    result : callable
        What the trained model is worth, in words, given the last record.
    again : str
        Options that ``gencore evaluate`` needs to see the data as the training did.
    callbacks : sequence of callables
        Of its ``fit``.
    """

    model: Any
    size: str
    learning: str
    options: Mapping[str, Any]
    figures: Callable[[Record], str]
    result: Callable[[Record], str]
    again: str = ""
    callbacks: Sequence[train.Callback] = ()


def run(
    args: argparse.Namespace, take: Callable[[str, Rows], Rows], plan: Callable[[Data, Rows], Plan]
) -> int:
    """Train the model that `plan` makes for the data, whose rows `take` checks and converts."""
    set_threads(args)
    if args.resume and args.overwrite:
        raise ValueError(
            "expected --resume, which goes on with a file, or --overwrite, which starts anew, not both"
        )
    out = writable(args.out)
    if out.exists() and not (args.resume or args.overwrite):
        raise FileExistsError(f"{out} exists: --resume goes on with it, --overwrite starts anew")
    data = read_data(args.data, args.root, args.threshold)
    rows = take(f"{data.name} (train)", data.split("train"))
    made = plan(data, rows)
    model, per_epoch = made.model, math.ceil(len(rows) / args.batch_size)
    lr, lr_text = _learning_rate(args)
    say("data", f"{data.name}: {len(rows):,} rows of {rows.shape[1]}{data.note}")
    say("model", made.size)
    say("learning", f"{made.learning}, {args.epochs} x {per_epoch} updates, lr {lr_text}")
    if args.resume and out.exists():
        say("resume", f"{out}, after {_updates(out):,} updates")
    bar = sys.stderr.isatty()

    def print_epoch(_: object, record: Record) -> None:
        figures = made.figures(record)
        print(f"epoch {record['epoch']:4}  {figures}, {record['seconds']:.1f} s", flush=True)

    try:
        with _cleared(out, args.resume):
            history = model.fit(
                rows, epochs=args.epochs, batch_size=args.batch_size, lr=lr, checkpoint=out,
                checkpoint_every=args.checkpoint_every, resume=args.resume, progress=bar,
                callbacks=(*(() if bar else (print_epoch,)), *made.callbacks), **made.options,
            )  # fmt: skip
    except KeyboardInterrupt:
        raise KeyboardInterrupt(_kept(out)) from None
    last = history.records[-1]
    say("trained", f"{model.steps:,} updates in {last['seconds']:.1f} s")
    say("result", made.result(last))
    say("saved", f"{out}")
    print(
        f"\nNext: gencore evaluate {out} --data {args.data}{made.again}\n"
        f"      gencore sample {out} --out samples.png"
    )
    return 0


@contextmanager
def _cleared(out: Path, resume: bool) -> Iterator[None]:
    """Remove an older file, so that after an interrupt this training's lies there; put it back if this wrote none."""
    older = out.read_bytes() if out.exists() and not resume else None
    if older is None:
        yield
        return
    out.unlink()
    try:
        yield
    except Exception:  # a divergence, say; an interrupt is the user's own
        if not out.exists():
            out.write_bytes(older)
        raise


def held_out(args: argparse.Namespace, data: Data, take: Take, units: int) -> dict[str, Rows]:
    """The validation and test rows, as far as the data has them; ``--patience`` needs the former."""
    if args.patience is not None and "valid" not in data.splits:
        raise ValueError(f"--patience watches validation data; {data.name} has no array 'valid'")
    return {
        name: take("train", f"{data.name} ({name})", data.splits[name], units)
        for name in ("valid", "test")
        if name in data.splits
    }


def _learning_rate(args: argparse.Namespace) -> tuple[train.Schedule | float, str]:
    start, end = args.lr, args.lr_end
    if args.schedule == "constant":
        if end is not None:
            raise ValueError("--lr-end: expected none with --schedule constant")
        return start, f"{start:g}"
    if end is None:
        end = start / 100 if args.schedule == "exponential" else 0.0
    make = {"linear": train.linear, "cosine": train.cosine, "exponential": train.exponential}[args.schedule]
    return make(start, end), f"{start:g} to {end:g} ({args.schedule})"


def _updates(path: Path) -> int:
    return int(io.load_model(path).state["steps"])


def _kept(out: Path) -> str:
    if not out.exists():
        return "no checkpoint had been written yet"
    return f"{out} holds the state after {_updates(out):,} updates; the same command with --resume goes on"
