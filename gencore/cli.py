"""The command line: what can be asked, and how it is answered when something is wrong.

`gencore._commands` does the work. Wrong input gives one line on stderr and status 2, an interrupt one line and 130, a
training that diverged one line and 1. GENCORE_TRACEBACK=1 shows where an error came from.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from math import isfinite
from pathlib import Path
from typing import Any

from gencore import _commands, _core, datasets, train
from gencore._arguments import Parser

__all__ = ["main", "parser"]

_DATA_HELP = (
    "Data sets by name: "
    + ", ".join(datasets.names())
    + ". Or a file: .npy with one array, or .npz with arrays train, valid, test (or any one array); rows are examples."
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    argv
        Arguments, those of the process if None.

    Returns
    -------
    int
        Exit status. Arguments that cannot be read end the process with status 2 (SystemExit), as argparse does.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    if argv[:1] == ["bench"]:
        from gencore import _bench

        return _guarded("gencore bench", lambda: _bench.main(argv[1:]))
    args = parser().parse_args(argv)
    return _guarded(f"gencore {args.command}", lambda: args.run(args))


def _guarded(name: str, run: Callable[[], int]) -> int:
    try:
        status = run()
        sys.stdout.flush()
        return status
    except KeyboardInterrupt as interrupt:
        print(f"\n{name}: interrupted{f': {interrupt}' if interrupt.args else ''}", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader has gone, as in `gencore info | head -1`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except (ValueError, TypeError, OSError, ImportError, MemoryError, train.DivergenceError) as error:
        if os.environ.get("GENCORE_TRACEBACK"):
            raise
        print(f"{name}: error: {_in_one_line(error)}", file=sys.stderr)
        return 1 if isinstance(error, train.DivergenceError) else 2


def _in_one_line(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        return f"{error.strerror}: {os.fspath(error.filename)}"
    return " ".join(str(error).split()) or type(error).__name__


def parser() -> argparse.ArgumentParser:
    """Return the whole command line's parser, for its help and for the tests."""
    top = Parser(
        prog="gencore",
        description="Train, sample and evaluate deep generative models on compiled kernels.",
        epilog="""\
A first round, in under a minute:
  gencore demo

Data of your own, rows of 0 and 1:
  gencore train rbm --data mine.npy --hidden 200 --out mine.safetensors
  gencore evaluate mine.safetensors --data mine.npy
  gencore sample mine.safetensors -n 64 --out samples.png

`gencore COMMAND --help` explains each. The same in Python: import gencore.""",
    )
    top.add_argument("--version", action="version", version=f"gencore {_core.version()}")
    commands = top.add_subparsers(dest="command", metavar="COMMAND", help="what to do:", required=True)
    for add in (_add_demo, _add_train, _add_sample, _add_evaluate, _add_bench, _add_info):
        add(commands)
    return top


def _add_demo(commands: Any) -> None:
    p = commands.add_parser(
        "demo",
        help="learn handwritten digits in seconds, with pictures and figures",
        description="""\
Train a restricted Boltzmann machine on the bundled 8 x 8 digits, say how good
it is (log-likelihood of test images with its bracket) and how fast (beside the
machine's limit), and write pictures of samples, filters and learning curves.""",
        epilog="Example:\n  gencore demo --out /tmp/demo",
    )
    p.add_argument(
        "--out",
        type=Path,
        default=Path("gencore-demo"),
        metavar="DIR",
        help="folder for the files; made if missing",
    )
    p.add_argument(
        "--epochs", type=_count, default=200, metavar="N", help="passes over the 1,285 training images"
    )
    _add_common(p)
    p.set_defaults(run=_commands.demo)


def _add_train(commands: Any) -> None:
    p = commands.add_parser(
        "train",
        help="train a model and save it",
        description="Train a model and save it as a safetensors file.",
        epilog="Example:\n  gencore train rbm --data digits --hidden 128 --epochs 50 --lr 0.2",
    )
    models = p.add_subparsers(dest="model", metavar="MODEL", help="what to train:", required=True)
    rbm = models.add_parser(
        "rbm",
        help="restricted Boltzmann machine with binary units",
        description="""\
Train a restricted Boltzmann machine by (persistent) contrastive divergence. The
file that --out names is written after each epoch, or every --checkpoint-every
updates, and holds all that --resume needs to go on to the same bits.""",
        epilog=f"""\
Example: 500 hidden units on the static binarisation of MNIST
  gencore train rbm --data binarized_mnist --hidden 500 --epochs 100 \\
      --algorithm pcd --k 1 --lr 0.05 --schedule linear --batch-size 128 \\
      --out mnist.safetensors
  gencore evaluate mnist.safetensors --data binarized_mnist

{_DATA_HELP}""",
    )
    _add_data(rbm)
    rbm.add_argument(
        "--out",
        type=Path,
        default=Path("model.safetensors"),
        metavar="FILE",
        help="model file, and checkpoint",
    )
    rbm.add_argument("--hidden", type=_count, default=500, metavar="N", help="hidden units")
    learning = rbm.add_argument_group("learning")
    add = learning.add_argument
    add("--epochs", type=_count, default=20, metavar="N", help="passes over the training data")
    add("--batch-size", type=_count, default=128, metavar="N", help="rows of an update")
    add(
        "--algorithm",
        choices=("pcd", "cd"),
        default="pcd",
        help="chains that run on from update to update, or that start at each batch",
    )
    add("--k", type=_count, default=1, metavar="N", help="Gibbs steps an update")
    add("--chains", type=_count, metavar="N", help="persistent chains of pcd (default: the batch size)")
    add("--lr", type=_positive, default=0.05, metavar="X", help="learning rate, at the start")
    add(
        "--schedule",
        choices=("linear", "constant", "cosine", "exponential"),
        default="linear",
        help="how the learning rate goes from --lr to --lr-end over the training",
    )
    add(
        "--lr-end",
        type=_not_negative,
        metavar="X",
        help="learning rate at the end (default: 0; exponential: lr / 100)",
    )
    add(
        "--momentum",
        type=_below_one,
        default=0.0,
        metavar="X",
        help="what an update keeps of the last one, 0 to below 1",
    )
    add(
        "--weight-decay",
        type=_not_negative,
        default=0.0,
        metavar="X",
        help="L2 penalty: an update takes off this part of the weights, times the learning rate",
    )
    add("--no-centered", dest="centered", action="store_false", help="plain instead of centred gradient")
    run = rbm.add_argument_group("run")
    add = run.add_argument
    add(
        "--checkpoint-every",
        type=_count,
        metavar="N",
        help="updates between two writes of --out (default: an epoch)",
    )
    add(
        "--resume",
        action="store_true",
        help="go on from --out where that file exists, to the bits of an unbroken run",
    )
    add("--overwrite", action="store_true", help="start anew even where --out exists")
    _add_common(rbm)
    rbm.set_defaults(run=_commands.train_rbm)


def _add_sample(commands: Any) -> None:
    p = commands.add_parser(
        "sample",
        help="draw samples from a model: a picture or an array",
        description="""\
Draw samples by Gibbs chains. With --clamp and --start, samples of the rest
given the units that the mask marks: completions of images.""",
        epilog="""\
Examples:
  gencore sample model.safetensors -n 64 --steps 1000 --out samples.png
  gencore sample model.safetensors -n 10000 --out samples.npz
  gencore sample model.safetensors -n 10 --start binarized_mnist \\
      --clamp mask.npy --out completed.png   # first 10 test images""",
    )
    p.add_argument("model", type=Path, metavar="MODEL", help="file written by gencore train or RBM.save")
    p.add_argument(
        "--out",
        type=Path,
        default=Path("samples.png"),
        metavar="FILE",
        help=".png, .pdf or .svg for a picture, .npz or .npy for the array (n, units) of uint8",
    )
    p.add_argument("-n", type=_count, default=64, metavar="N", help="how many")
    p.add_argument("--steps", type=_count, default=1000, metavar="N", help="Gibbs steps of each chain")
    p.add_argument(
        "--start",
        metavar="DATA",
        help="where the chains start: .npy with one row or n of them, or a data set, its "
        "first n test rows (default: the model's own chains, else its data's means)",
    )
    p.add_argument(
        "--clamp",
        type=Path,
        metavar="FILE",
        help=".npy mask, one row or n of them: units marked 1 keep their value in --start",
    )
    p.add_argument(
        "--means", action="store_true", help="write each unit's probability in the last step, not its draw"
    )
    p.add_argument(
        "--shape", type=_shape, metavar="HxW", help="rows and columns of an image (default: square)"
    )
    p.add_argument("--root", type=Path, metavar="DIR", help=_ROOT_HELP)
    _add_common(p)
    p.set_defaults(run=_commands.sample)


def _add_evaluate(commands: Any) -> None:
    p = commands.add_parser(
        "evaluate",
        help="log-likelihood of data with its bracket",
        description="""\
Print the mean log-likelihood of data in nats a row (natural logarithm, higher
is better), the log of the partition function it rests on with both ends of its
bracket, the effective number of AIS runs, the pseudo-log-likelihood, and what
independent units would give.""",
        epilog=f"""\
Example:
  gencore evaluate model.safetensors --data binarized_mnist --method ais \\
      --runs 100 --temperatures 14500

The bracket of log Z: the forward estimate less 3 standard errors, and the
greater of the forward and the reverse estimate with 3 standard errors more.
Fewer than some ten effective runs, or a wide bracket: take more temperatures.

{_DATA_HELP}""",
    )
    p.add_argument("model", type=Path, metavar="MODEL", help="file written by gencore train or RBM.save")
    _add_data(p)
    p.add_argument("--split", choices=("train", "valid", "test"), default="test", help="part of the data")
    p.add_argument(
        "--method",
        choices=("auto", "exact", "ais"),
        default="auto",
        help="exact: enumerate the smaller side (up to 30 units); ais: annealed importance sampling; "
        "auto: exact up to 20 units",
    )
    p.add_argument("--runs", type=_count, default=100, metavar="N", help="AIS runs each way")
    p.add_argument(
        "--temperatures", type=_temperatures, default=14_500, metavar="N", help="AIS temperatures, at least 3"
    )
    p.add_argument("--json", action="store_true", help="print one JSON object instead")
    _add_common(p)
    p.set_defaults(run=_commands.evaluate)


def _add_bench(commands: Any) -> None:
    commands.add_parser(
        "bench", help="time the kernels beside tuned NumPy and the machine's limit", add_help=False
    )


def _add_info(commands: Any) -> None:
    p = commands.add_parser(
        "info",
        help="what is installed, and what this processor offers",
        description="Print versions, instruction-set level, threads, and where things lie.",
        epilog="""\
Example, a C++ program that uses gencore:
  cmake -S . -B build -Dgencore_DIR=$(gencore info --cmake-dir)""",
    )
    p.add_argument(
        "--cmake-dir", action="store_true", help="print only the folder of the CMake package config"
    )
    p.set_defaults(run=_commands.info)


_ROOT_HELP = "folder of the data sets' files (default: $GENCORE_DATA, then a cache that downloads go to)"


def _add_data(p: argparse.ArgumentParser) -> None:
    p.add_argument(
        "--data", required=True, metavar="DATA", help="name of a data set, or an .npy or .npz file; see below"
    )
    p.add_argument(
        "--threshold",
        type=_fraction,
        default=0.5,
        metavar="X",
        help="grey data sets (mnist) become 1 from this part of white up",
    )
    p.add_argument("--root", type=Path, metavar="DIR", help=_ROOT_HELP)


def _add_common(p: argparse.ArgumentParser) -> None:
    p.add_argument("--seed", type=_seed, default=0, metavar="N", help="all randomness follows from it")
    p.add_argument(
        "--threads", type=_count, metavar="N", help="results do not depend on it (default: all cores)"
    )


# --- types of arguments -------------------------------------------------------------------------------------


def _integer(text: str, least: int, most: int | None = None) -> int:
    try:
        value = int(text.replace("_", "").replace(",", ""))
    except ValueError:
        value = least - 1
    if value < least or (most is not None and value > most):
        limits = f"of at least {least}" if most is None else f"from {least} to {most}"
        raise argparse.ArgumentTypeError(f"expected an integer {limits}, received {text!r}")
    return value


def _count(text: str) -> int:
    return _integer(text, 1)


def _temperatures(text: str) -> int:
    return _integer(text, 3)


def _seed(text: str) -> int:
    return _integer(text, 0, 2**64 - 1)


def _number(text: str, holds: Callable[[float], bool], expected: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not (isfinite(value) and holds(value)):
        raise argparse.ArgumentTypeError(f"expected a number {expected}, received {text!r}")
    return value


def _positive(text: str) -> float:
    return _number(text, lambda x: x > 0, "above 0")


def _not_negative(text: str) -> float:
    return _number(text, lambda x: x >= 0, "of at least 0")


def _below_one(text: str) -> float:
    return _number(text, lambda x: 0 <= x < 1, "from 0 to below 1")


def _fraction(text: str) -> float:
    return _number(text, lambda x: 0 < x <= 1, "above 0, at most 1")


def _shape(text: str) -> tuple[int, int]:
    height, _, width = text.partition("x")
    if not (height.isdigit() and width.isdigit() and int(height) and int(width)):
        raise argparse.ArgumentTypeError(f"expected rows x columns such as 28x28, received {text!r}")
    return int(height), int(width)
