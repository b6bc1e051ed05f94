"""`gencore train pixelcnn` and its kin, and what `gencore sample` and `gencore evaluate` do with their files."""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gencore import io, plot
from gencore._commands import exact, training
from gencore._commands.data import Data
from gencore._commands.shared import (
    Sheet,
    Take,
    clamp_rows,
    image_shape,
    judged_rows,
    say_judged,
    start_rows,
)
from gencore._states import as_levels, as_states
from gencore.models import DiagonalBiLSTM, GatedPixelCNN, PixelCNN, RowLSTM
from gencore.models._pixel_model import PixelModel

Rows = NDArray[Any]
Record = Mapping[str, float]

KINDS: dict[str, type[PixelModel]] = {
    "PixelCNN": PixelCNN, "GatedPixelCNN": GatedPixelCNN, "RowLSTM": RowLSTM, "DiagonalBiLSTM": DiagonalBiLSTM,
}  # fmt: skip
"""Models of images, as their files name them."""

_GREY = (
    "grey floats from 0 to 1 are cut by --threshold X; levels are learned by --output categorical --levels N"
)


def _taker(output: str, levels: int, threshold: float | None) -> Take:
    """How such a model takes rows: 0 and 1, grey cut where a threshold is given; or levels, grey rounded to them."""
    if output != "bernoulli":
        if threshold is not None:
            raise ValueError(f"--threshold: expected none for a model of {output} output")
        return lambda op, name, rows, units: as_levels(op, name, rows, units, levels)

    def take(op: str, name: str, rows: Rows, units: int) -> Rows:
        if threshold is not None and rows.dtype.kind == "f":
            rows = as_states(op, name, rows, units, values="unit interval") >= threshold
        return as_states(op, name, rows, units, hint=_GREY)

    return take


# --- train --------------------------------------------------------------------------------------------------


def train(args: argparse.Namespace) -> int:
    """`gencore train` of a model of images."""
    if args.levels is not None and args.output == "bernoulli":
        raise ValueError(f"--levels: expected none with --output {args.output}")
    if args.mixtures is not None and args.output != "discretised_logistic":
        raise ValueError(f"--mixtures: expected none with --output {args.output}")
    exact.check_pictures(args)
    take = _taker(args.output, args.levels or 256, args.threshold)
    return training.run(
        args,
        lambda name, rows: take("train", name, rows, rows.shape[1]),
        lambda data, rows: _plan(args, data, rows, take),
    )


def _plan(args: argparse.Namespace, data: Data, rows: Rows, take: Take) -> training.Plan:
    height, width = image_shape(args.shape, rows.shape[1], of="a row of the data")
    labels = data.labels_of("train") if args.classes else None
    kind: Any = KINDS[args.kind]
    model: PixelModel = kind(
        height, width, n_features=args.features, n_hidden=args.hidden, output=args.output, levels=args.levels or 256,
        n_mixtures=args.mixtures or 10, n_classes=0 if labels is None else int(labels.max()) + 1, seed=args.seed,
        **{name: getattr(args, name) for name in args.own},
    )  # fmt: skip
    held_out = exact.held_out(args, data, take, rows.shape[1])
    picture = None
    if args.samples is not None:
        picture = exact.Picture(lambda m: _draw(m, args.samples, args.seed), args.samples_every or 1)

    def result(last: Record) -> str:
        if picture is not None:  # of the model that is kept: with --patience, the best
            picture.write(model)
        return exact.result(model, held_out, last, units=math.prod(model.shape), unit="pixel")

    return training.Plan(
        model,
        size=_size(model),
        learning=f"log-likelihood, {args.optimizer}",
        options={
            "optimizer": args.optimizer, "clip_norm": args.clip_norm, "patience": args.patience,
            "validation": held_out.get("valid"), "labels": labels,
        },
        figures=exact.figures,
        result=result,
        again="" if args.threshold is None else f" --threshold {args.threshold:g}",
        callbacks=() if picture is None else (picture,),
    )  # fmt: skip


def _draw(model: PixelModel, path: Path, seed: int) -> None:
    """A picture of samples: those of ``gencore sample`` by that seed; of classes, one after the other."""
    drawn = model.sample(exact.SHOWN, labels=exact.labels_of_samples(model, None, exact.SHOWN), key=seed)
    plot.samples(_shades(model, drawn), path, count=exact.SHOWN)


def _shades(model: PixelModel, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Levels as plots have them, from 0 to 1."""
    return images.astype(np.float32) / np.float32(model.levels - 1)


def _size(model: PixelModel) -> str:
    height, width, channels = model.shape
    n, h = model.config["n_blocks"], model.config["n_features"]
    images = f"{height}x{width} pixels" + ("" if channels == 1 else f" of {channels} colours")
    values = "binary" if model.output == "bernoulli" else f"{model.levels} levels"
    if model.n_mixtures:
        values += f" by {model.n_mixtures} logistics"
    if model.n_classes:
        values += f", {model.n_classes} classes"
    blocks = f"{n} block{'s' if n > 1 else ''} of h = {h}"
    return f"{type(model).__name__}, {images}, {values}, {blocks}, {model.n_parameters():,} parameters"


# --- sample -------------------------------------------------------------------------------------------------


def sample(args: argparse.Namespace) -> int:
    """`gencore sample` of a file that holds a model of images."""
    model = _load(args.model)
    height, width, channels = model.shape
    if args.shape not in (None, (height, width)):
        raise ValueError(
            f"--shape: expected {height}x{width}, the images of {args.model}, "
            f"received {args.shape[0]}x{args.shape[1]}"
        )
    args.shape = (height, width)
    sheet, n = Sheet(args, height * width), args.n or 64
    exact.check_completion(args)
    partial, note = None, ""
    if args.start is not None:
        partial, note = _partial(args, model, n)
    labels = exact.labels_of_samples(model, args.label, n)
    drawn = model.sample(n, labels=labels, partial=partial, temperature=args.temperature, key=args.seed)
    images = _shades(model, drawn) if sheet.is_picture else drawn
    sheet.write(images if sheet.is_picture and channels > 1 else images.reshape(n, -1))
    what = "samples" if partial is None else "completions"
    print(f"{n} {what}{note}: {sheet.path}")
    return 0


def _load(path: Path) -> PixelModel:
    return KINDS[io.load_model(path).kind].load(path)


def _partial(args: argparse.Namespace, model: PixelModel, n: int) -> tuple[NDArray[np.float64], str]:
    """Images whose pixels to be drawn are NaN, and what to know of them."""
    take = _taker(model.output, model.levels, args.threshold)
    units = math.prod(model.shape)
    start, keep = start_rows(args, args.threshold, n, units, take), clamp_rows(args, n, units) == 1
    later = (keep[:, 1:] > keep[:, :-1]).any()  # a kept pixel after one that is drawn
    note = ", each pixel given those before it (kept ones after it do not count)" if later else ""
    rows = np.where(keep, start.astype(np.float64), np.nan)
    return np.broadcast_to(rows, (n, units)).reshape(n, *model.shape), note


# --- evaluate -----------------------------------------------------------------------------------------------


def evaluate(args: argparse.Namespace) -> int:
    """`gencore evaluate` of a file that holds a model of images."""
    model = _load(args.model)
    units, take = math.prod(model.shape), _taker(model.output, model.levels, args.threshold)
    data, rows, places = judged_rows(args, args.threshold, units, take)
    log_prob = exact.judged_by(model, data, args.split, rows, places)
    say_judged(args, _size(model), data, rows)
    learned = None
    if model.levels == 2 and "train" in data.splits:
        learned = take("evaluate", f"{data.name} (train)", data.splits["train"], units)
    exact.judge(
        args, data, rows, log_prob, learned, at_a_time=250, units=units,
        unit="pixel" if model.shape[2] == 1 else "colour of a pixel",
    )  # fmt: skip
    return 0
