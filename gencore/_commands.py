"""What the commands of the command line do: arguments that `gencore.cli` has read in, lines on stdout and files out."""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from gencore import _core, _info, datasets, plot, train
from gencore._states import as_states
from gencore.evaluate import LogPartition
from gencore.models import RBM

PICTURES, ARRAYS = (".png", ".pdf", ".svg"), (".npz", ".npy")


@dataclass(frozen=True)
class Data:
    """Rows of examples, as a command reads them."""

    name: str
    splits: Mapping[str, NDArray[Any]]
    note: str = ""

    def split(self, name: str) -> NDArray[Any]:
        """The rows of a split; a file with a single array is any split that is asked for."""
        rows = self.splits.get(name, self.splits.get("all"))
        if rows is None:
            raise ValueError(f"{self.name} has no array {name!r}, only {', '.join(self.splits)}")
        return rows


def read_data(name: str, root: Path | None, threshold: float = 0.5) -> Data:
    """Data set of that name, or the arrays of that file."""
    path = Path(name)
    if name not in datasets.names() and (path.suffix in ARRAYS or path.exists()):
        return Data(path.name, _read_arrays(path))
    data = datasets.load(name, root)
    note = ""
    if data.max_value > 1:
        data = data.binarized(threshold)
        note = f", grey levels cut at {threshold:g} of white"
    return Data(name, {split: getattr(data, split) for split in ("train", "valid", "test")}, note)


def _load(path: Path, kinds: str) -> NDArray[Any] | dict[str, NDArray[Any]]:
    """The array of an .npy file, or those of an .npz archive by name."""
    if not path.is_file():
        raise FileNotFoundError(f"no such file: {path}")
    try:
        loaded = np.load(path, allow_pickle=False)
        return loaded if isinstance(loaded, np.ndarray) else {k: loaded[k] for k in loaded.files}
    except (ValueError, EOFError, OSError, BadZipFile) as error:
        raise ValueError(f"{path} is not an {kinds} file of numbers") from error


def _read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    loaded = _load(path, ".npy or .npz")
    arrays = {"all": loaded} if isinstance(loaded, np.ndarray) else loaded
    splits = {k: v for k, v in arrays.items() if k in ("train", "valid", "test", "all")}
    if not splits and len(arrays) == 1:
        splits = {"all": next(iter(arrays.values()))}
    if not splits:
        raise ValueError(
            f"{path}: expected an array train, valid or test, or just one, received {', '.join(arrays)}"
        )
    for key, array in splits.items():
        if array.ndim != 2 or array.dtype.kind not in "buif" or 0 in array.shape:
            raise ValueError(
                f"{path}: expected rows of numbers in {key}, received {array.dtype} {array.shape}"
            )
    return splits


# --- train --------------------------------------------------------------------------------------------------


def train_rbm(args: argparse.Namespace) -> int:
    """`gencore train rbm`."""
    _set_threads(args)
    out = _writable(args.out)
    if out.exists() and not (args.resume or args.overwrite):
        raise FileExistsError(f"{out} exists: --resume goes on with it, --overwrite starts anew")
    data = read_data(args.data, args.root, args.threshold)
    rows, valid = _training_rows(data)
    if not args.resume:
        out.unlink(missing_ok=True)  # so that what lies there after an interrupt is this training's
    model = RBM(rows.shape[1], args.hidden, seed=args.seed)
    per_epoch = math.ceil(len(rows) / args.batch_size)
    schedule, lr_text = _schedule(args)
    _say("data", f"{data.name}: {len(rows):,} rows of {rows.shape[1]}{data.note}")
    _say("model", f"RBM, {model.n_visible} visible and {model.n_hidden} hidden units")
    _say(
        "learning",
        f"{args.algorithm.upper()}-{args.k}, {args.epochs} x {per_epoch} updates, lr {lr_text}",
    )
    if args.resume and out.exists():
        _say("resume", f"{out}, after {RBM.load(out).steps:,} updates")
    bar = sys.stderr.isatty()
    try:
        history = model.fit(
            rows, epochs=args.epochs, batch_size=args.batch_size, lr=schedule, algorithm=args.algorithm, k=args.k,
            centered=args.centered, momentum=args.momentum, weight_decay=args.weight_decay, n_chains=args.chains,
            validation=valid, callbacks=() if bar else (_print_epoch,), progress=bar,
            checkpoint=out, checkpoint_every=args.checkpoint_every, resume=args.resume,
        )  # fmt: skip
    except KeyboardInterrupt:
        raise KeyboardInterrupt(_kept(out)) from None
    last = history.records[-1]
    _say("trained", f"{model.steps:,} updates in {last['seconds']:.1f} s")
    _say("result", ", ".join(_likelihoods(last)))
    _say("saved", f"{out}")
    print(f"\nNext: gencore evaluate {out} --data {args.data}\n      gencore sample {out} --out samples.png")
    return 0


def _training_rows(data: Data) -> tuple[NDArray[Any], NDArray[Any] | None]:
    """Rows to learn from and, where they are binary, as a likelihood needs them, rows to watch."""
    train_rows = data.split("train")
    n_visible = train_rows.shape[1]
    rows = as_states("train", f"{data.name} (train)", train_rows, n_visible, values="unit interval")
    if "valid" not in data.splits:
        return rows, None
    valid = as_states(
        "train", f"{data.name} (valid)", data.splits["valid"], n_visible, values="unit interval"
    )
    return rows, valid if valid.dtype == np.uint8 else None


def _schedule(args: argparse.Namespace) -> tuple[train.Schedule | float, str]:
    start, end = args.lr, args.lr_end
    if args.schedule == "constant":
        if end is not None:
            raise ValueError("--lr-end: expected none with --schedule constant")
        return start, f"{start:g}"
    if end is None:
        end = start / 100 if args.schedule == "exponential" else 0.0
    make = {"linear": train.linear, "cosine": train.cosine, "exponential": train.exponential}[args.schedule]
    return make(start, end), f"{start:g} to {end:g} ({args.schedule})"


def _print_epoch(model: RBM, record: Mapping[str, float]) -> None:
    print(
        f"epoch {record['epoch']:4}  {', '.join(_likelihoods(record))}, {record['seconds']:.1f} s", flush=True
    )


def _likelihoods(record: Mapping[str, float]) -> list[str]:
    names = {"pseudo_log_likelihood": "train", "validation_pseudo_log_likelihood": "valid"}
    texts = [f"{text} {record[name]:.6g}" for name, text in names.items() if name in record]
    error = f"reconstruction error {record['reconstruction_error']:.5f}"
    return [f"pseudo-log-likelihood {texts[0]}", *texts[1:]] if texts else [error]


def _kept(out: Path) -> str:
    if not out.exists():
        return "no checkpoint had been written yet"
    return (
        f"{out} holds the state after {RBM.load(out).steps:,} updates; the same command with --resume goes on"
    )


# --- sample -------------------------------------------------------------------------------------------------


def sample(args: argparse.Namespace) -> int:
    """`gencore sample`."""
    _set_threads(args)
    out = _writable(args.out)
    if out.suffix not in PICTURES + ARRAYS:
        raise ValueError(
            f"--out: expected a name that ends in {', '.join(PICTURES + ARRAYS)}, received {out}"
        )
    model = RBM.load(args.model)
    shape = args.shape
    if out.suffix in PICTURES:
        shape = _image_shape(args.shape, model.n_visible)
    start = None if args.start is None else _start(args, model.n_visible)
    clamp = None
    if args.clamp is not None:
        clamp = _rows("--clamp", _read_rows(args.clamp), args.n, model.n_visible)
    drawn = model.sample(args.n, steps=args.steps, start=start, clamp=clamp, key=args.seed)
    result: NDArray[Any] = drawn
    if args.means:
        result = model.reconstruct(drawn)
        if clamp is not None:
            result = np.where(clamp == 1, drawn, result).astype(np.float32)
    if out.suffix in PICTURES:
        plot.samples(result, out, shape=shape, count=args.n)
    elif out.suffix == ".npy":
        np.save(out, result)
    else:
        np.savez_compressed(out, samples=result)
    print(f"{args.n} samples after {args.steps} Gibbs steps: {out}")
    return 0


def _start(args: argparse.Namespace, n_visible: int) -> NDArray[np.uint8]:
    if args.start in datasets.names():
        rows = read_data(args.start, args.root).split("test")
        if len(rows) < args.n:
            raise ValueError(f"--start: expected n of at most {len(rows)}, the test rows of {args.start}")
        return _rows("--start", rows[: args.n], args.n, n_visible)
    return _rows("--start", _read_rows(Path(args.start)), args.n, n_visible)


def _read_rows(path: Path) -> NDArray[Any]:
    loaded = _load(path, ".npy")
    if not isinstance(loaded, np.ndarray):
        raise ValueError(f"{path}: expected an .npy file, one array, received an .npz archive")
    return loaded


def _rows(option: str, rows: NDArray[Any], n: int, units: int) -> NDArray[np.uint8]:
    states = as_states(option, "values", np.atleast_2d(rows), units)
    if len(states) not in (1, n):
        raise ValueError(f"{option}: expected 1 row, or {n} as -n says, received {len(states)}")
    return states


def _image_shape(shape: tuple[int, int] | None, units: int) -> tuple[int, int]:
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


# --- evaluate -----------------------------------------------------------------------------------------------


def evaluate(args: argparse.Namespace) -> int:
    """`gencore evaluate`."""
    _set_threads(args)
    model = RBM.load(args.model)
    data = read_data(args.data, args.root, args.threshold)
    given = data.split(args.split)
    if given.shape[1] != model.n_visible:
        raise ValueError(
            f"{data.name} has rows of {given.shape[1]}, {args.model} has {model.n_visible} visible units"
        )
    rows = as_states("evaluate", f"{data.name} ({args.split})", given, model.n_visible)
    if not args.json:
        _say("model", f"{args.model}: {model!r}")
        _say("data", f"{data.name}, {args.split}: {len(rows):,} rows of {rows.shape[1]}{data.note}")
        sys.stdout.flush()
    options = {"n_runs": args.runs, "betas": args.temperatures, "key": args.seed}
    log_z = model.log_partition(args.method, **options)
    each = model.log_likelihood(rows)
    mean = float(each.mean())
    error = float(each.std(ddof=1) / math.sqrt(len(each))) if len(each) > 1 else math.inf
    result = {
        "model": str(args.model),
        "data": data.name,
        "split": args.split,
        "rows": len(rows),
        "log_likelihood": mean,
        "log_likelihood_lower": mean + log_z.value - log_z.upper,
        "log_likelihood_upper": mean + log_z.value - log_z.lower,
        "row_standard_error": error,
        "log_partition": log_z.value,
        "log_partition_lower": log_z.lower,
        "log_partition_upper": log_z.upper,
        "log_partition_reverse": log_z.reverse,
        "method": log_z.method,
        "runs": args.runs if log_z.method == "ais" else None,
        "temperatures": args.temperatures if log_z.method == "ais" else None,
        "ess": log_z.ess,
        "reverse_ess": log_z.reverse_ess,
        "pseudo_log_likelihood": float(model.pseudo_log_likelihood(rows).mean()),
        "independent_units": independent_log_likelihood(model.data_mean, rows),
    }
    if args.json:
        finite = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in result.items()}
        print(json.dumps(finite, indent=2))
    else:
        _print_evaluation(result, log_z)
    return 0


def _print_evaluation(result: Mapping[str, Any], log_z: LogPartition) -> None:
    exact = log_z.method == "exact"
    how = (
        "exact, by enumeration"
        if exact
        else f"AIS, {result['runs']} runs, {result['temperatures']:,} temperatures"
    )
    _say("log Z", f"{log_z.value:.4f} ({how})")
    if not exact:
        _say("", f"bracket {log_z.lower:.3f} to {log_z.upper:.3f}; reverse runs {log_z.reverse:.3f}")
        _say("", f"effective runs: {log_z.ess:.1f} forward, {log_z.reverse_ess:.1f} reverse")
    print("\nnats a row, higher is better")
    _say(
        "log-likelihood",
        f"{result['log_likelihood']:.4f} +- {result['row_standard_error']:.4f} (spread of the rows)",
    )
    if not exact:
        lower, upper = result["log_likelihood_lower"], result["log_likelihood_upper"]
        _say("", f"bracket {lower:.3f} to {upper:.3f} (log Z)")
    _say("pseudo", f"{result['pseudo_log_likelihood']:.4f} (pseudo-log-likelihood)")
    if result["independent_units"] is not None:
        _say(
            "independent",
            f"{result['independent_units']:.4f} (units of the training data's means, nothing learned)",
        )


def independent_log_likelihood(rates: NDArray[np.float32] | None, rows: NDArray[np.uint8]) -> float | None:
    """Mean log-likelihood of the rows where each unit is on at its rate, kept off 0 and 1 by 1e-4."""
    if rates is None:
        return None
    p = np.clip(rates.astype(np.float64), 1e-4, 1 - 1e-4)
    return float((rows @ np.log(p) + (1 - rows) @ np.log1p(-p)).mean())


# --- demo, info ---------------------------------------------------------------------------------------------


def demo(args: argparse.Namespace) -> int:
    """`gencore demo`."""
    from gencore import _demo

    _set_threads(args)
    _demo.run(args.out, epochs=args.epochs, seed=args.seed)
    return 0


def info(args: argparse.Namespace) -> int:
    """`gencore info`."""
    print(_info.cmake_dir()) if args.cmake_dir else _info.show_config()
    return 0


# --- shared -------------------------------------------------------------------------------------------------


def _set_threads(args: argparse.Namespace) -> None:
    if args.threads is not None:
        _core.set_num_threads(args.threads)


def _writable(path: Path) -> Path:
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


def _say(name: str, text: str) -> None:
    print(f"{name:<15} {text}")
