"""What every command does: names in a column, the threads asked for, files that can be written, images of units."""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gencore import _core, plot
from gencore._commands.data import ARRAYS, PICTURES, Data, read_data


def say(name: str, text: str) -> None:
    """Print a line of a table of names and texts."""
    print(f"{name:<15} {text}")


def set_threads(args: argparse.Namespace) -> None:
    """Take as many threads as ``--threads`` says."""
    if args.threads is not None:
        _core.set_num_threads(args.threads)


def writable(path: Path) -> Path:
    """Say at once, not after hours, that a file cannot be written."""
    if path.is_dir():
        raise IsADirectoryError(f"--out: expected a file, received the folder {path}")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"--out: no such folder: {path.parent}")
    try:
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise OSError(f"--out: cannot write {path}: {error.strerror}") from error
    return path


def image_shape(shape: tuple[int, int] | None, units: int) -> tuple[int, int]:
    """Rows and columns of the image that a model's visible units are; square unless ``--shape`` says otherwise."""
    side = math.isqrt(units)
    if shape is None and side * side != units:
        raise ValueError(
            f"--shape: {units} units are no square image: give --shape ROWSxCOLUMNS, or --out of .npz"
        )
    if shape is not None and shape[0] * shape[1] != units:
        raise ValueError(
            f"--shape: expected {units} pixels, the model's visible units, received {shape[0]}x{shape[1]}"
        )
    return shape or (side, side)


class Sheet:
    """Where samples go: a picture or an array, as the name of the file says, checked before any are drawn."""

    def __init__(self, args: argparse.Namespace, units: int) -> None:
        self.path = writable(args.out)
        if self.path.suffix not in PICTURES + ARRAYS:
            raise ValueError(
                f"--out: expected a name that ends in {', '.join(PICTURES + ARRAYS)}, received {self.path}"
            )
        self.is_picture = self.path.suffix in PICTURES
        self.shape = image_shape(args.shape, units) if self.is_picture else None

    def write(self, rows: NDArray[Any], *, columns: int | None = None, framed: bool = True) -> None:
        """Draw, or save, the rows."""
        if self.is_picture:
            plot.samples(rows, self.path, shape=self.shape, count=len(rows), columns=columns, framed=framed)
        elif self.path.suffix == ".npy":
            np.save(self.path, rows)
        else:
            np.savez_compressed(self.path, samples=rows)


def rows_of(data: Data, split: str, model: Path, units: int) -> NDArray[Any]:
    """The rows of a split, where they are as wide as the model of that file."""
    given = data.split(split)
    if given.shape[1] != units:
        raise ValueError(f"{data.name} has rows of {given.shape[1]}, {model} has {units} visible units")
    return given


def judged_rows(
    args: argparse.Namespace,
    threshold: float | None,
    units: int,
    take: Callable[[str, str, NDArray[Any], int], NDArray[Any]],
) -> tuple[Data, NDArray[Any]]:
    """The data of `gencore evaluate`, and the rows that the model of so many visible units is judged by."""
    data = read_data(args.data, args.root, threshold)
    given = rows_of(data, args.split, args.model, units)
    if args.rows is not None and args.rows < len(given):  # spread, as files are often in the order of classes
        given = given[np.arange(args.rows) * len(given) // args.rows]
    return data, take("evaluate", f"{data.name} ({args.split})", given, units)


def say_judged(args: argparse.Namespace, model: str, data: Data, rows: NDArray[Any]) -> None:
    """Say what is judged by what, before it takes its time."""
    if not args.json:
        say("model", f"{args.model}: {model}")
        say("data", f"{data.name}, {args.split}: {len(rows):,} rows of {rows.shape[1]}{data.note}")
        sys.stdout.flush()


def print_json(result: Mapping[str, Any]) -> None:
    """Print an object; numbers that are not finite become null."""
    finite = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in result.items()}
    print(json.dumps(finite, indent=2))


def mean_and_error(values: NDArray[np.float64]) -> tuple[float, float]:
    """Mean, and its standard error as far as it comes from the spread of the values."""
    error = float(values.std(ddof=1) / math.sqrt(len(values))) if len(values) > 1 else math.inf
    return float(values.mean()), error


def independent_log_likelihood(rates: NDArray[np.float32] | None, rows: NDArray[Any]) -> float | None:
    """Mean log-likelihood of the rows where each unit is on at its rate, kept off 0 and 1 by 1e-4."""
    if rates is None:
        return None
    p = np.clip(rates.astype(np.float64), 1e-4, 1 - 1e-4)
    return float((rows @ np.log(p) + (1 - rows) @ np.log1p(-p)).mean())
