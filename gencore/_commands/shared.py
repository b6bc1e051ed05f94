"""What every command does: names in a column, the threads asked for, files that can be written, images of units."""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from gencore import _core, datasets, plot
from gencore._commands.data import ARRAYS, PICTURES, Data, load_arrays, read_data
from gencore._states import as_states

Take: TypeAlias = Callable[[str, str, NDArray[Any], int], NDArray[Any]]
"""``take(op, name, rows, units)``: rows as a model of so many units takes them; op and name are for errors."""


def say(name: str, text: str) -> None:
    """Print a line of a table of names and texts."""
    print(f"{name:<15} {text}")


def set_threads(args: argparse.Namespace) -> None:
    """Take as many threads as ``--threads`` says."""
    if args.threads is not None:
        _core.set_num_threads(args.threads)


def writable(path: Path, option: str = "--out", suffixes: Sequence[str] = ()) -> Path:
    """Say at once, not after hours, that a file cannot be written, or has no name that ends as it should."""
    if path.is_dir():
        raise IsADirectoryError(f"{option}: expected a file, received the folder {path}")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{option}: no such folder: {path.parent}")
    if suffixes and path.suffix not in suffixes:
        raise ValueError(f"{option}: expected a name that ends in {', '.join(suffixes)}, received {path}")
    try:
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise OSError(f"{option}: cannot write {path}: {error.strerror}") from error
    return path


def image_shape(
    shape: tuple[int, int] | None, units: int, *, of: str = "the model's visible units", otherwise: str = ""
) -> tuple[int, int]:
    """Rows and columns of the image that so many units are; square unless ``--shape`` says otherwise."""
    side = math.isqrt(units)
    if shape is None and side * side != units:
        raise ValueError(f"--shape: {units} units are no square image: give --shape ROWSxCOLUMNS{otherwise}")
    if shape is not None and shape[0] * shape[1] != units:
        raise ValueError(f"--shape: expected {units} pixels, {of}, received {shape[0]}x{shape[1]}")
    return shape or (side, side)


class Sheet:
    """Where samples go: a picture or an array, as the name of the file says, checked before any are drawn."""

    def __init__(self, args: argparse.Namespace, units: int) -> None:
        self.path = writable(args.out, suffixes=PICTURES + ARRAYS)
        self.is_picture = self.path.suffix in PICTURES
        otherwise = ", or --out of .npz"
        self.shape = image_shape(args.shape, units, otherwise=otherwise) if self.is_picture else None

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
    args: argparse.Namespace, threshold: float | None, units: int, take: Take
) -> tuple[Data, NDArray[Any], NDArray[np.int64]]:
    """The data of `gencore evaluate`, the rows that the model of so many visible units is judged by, their places."""
    data = read_data(args.data, args.root, threshold)
    given = rows_of(data, args.split, args.model, units)
    places = np.arange(len(given))
    if args.rows is not None and args.rows < len(given):  # spread, as files are often in the order of classes
        places = np.arange(args.rows) * len(given) // args.rows
    return data, take("evaluate", f"{data.name} ({args.split})", given[places], units), places


def start_rows(
    args: argparse.Namespace, threshold: float | None, n: int, units: int, take: Take
) -> NDArray[Any]:
    """One row or n of them that ``--start`` names: of an .npy file, or test rows of a data set."""
    if args.start in datasets.names():
        rows = read_data(args.start, args.root, threshold).split("test")
    else:
        rows = _one_array(Path(args.start))
    return _one_or_n("--start", rows, n, units, take)


def clamp_rows(args: argparse.Namespace, n: int, units: int) -> NDArray[np.uint8]:
    """One row or n of them, of the mask that ``--clamp`` names."""
    return _one_or_n("--clamp", _one_array(args.clamp), n, units, as_states)


def _one_array(path: Path) -> NDArray[Any]:
    loaded = load_arrays(path, ".npy")
    if not isinstance(loaded, np.ndarray):
        raise ValueError(f"{path}: expected an .npy file, one array, received an .npz archive")
    return loaded


def _one_or_n(option: str, rows: NDArray[Any], n: int, units: int, take: Take) -> NDArray[Any]:
    """The only row, or the first n."""
    taken = take(option, "values", np.atleast_2d(rows)[:n], units)
    if len(taken) not in (1, n):
        raise ValueError(f"{option}: expected 1 row, or at least {n} as -n says, received {len(taken)}")
    return taken


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
