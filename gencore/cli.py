"""The command line: what can be asked, and how it is answered when something is wrong.

`gencore._commands` does the work. Wrong input gives one line on stderr and status 2, an interrupt one line and 130, a
training that diverged one line and 1. GENCORE_TRACEBACK=1 shows where an error came from.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from gencore import _arguments as types
from gencore import _commands, _core, _train_options, _train_vectors, train
from gencore._arguments import KindOptions, Parser
from gencore._commands import pixels, vectors

__all__ = ["main", "parser"]

_MODEL_HELP = "file written by gencore train, or by a model's save"
_PIXEL_KINDS, _VECTOR_KINDS = tuple(pixels.KINDS), tuple(vectors.KINDS)
_OF_KIND = (
    "0.5; a VAE takes them as they are, from 0 to 1; a PixelCNN as it was trained: "
    "give it again, or none where it has learned levels"
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
        "--epochs", type=types.count, default=200, metavar="N", help="passes over the 1,285 training images"
    )
    _train_options.add_common(p)
    p.set_defaults(run=_commands.demo)


def _add_train(commands: Any) -> None:
    p = commands.add_parser(
        "train",
        help="train a model and save it",
        description="Train a model and save it as a safetensors file.",
        epilog="""\
Examples:
  gencore train rbm --data digits --hidden 128 --epochs 50 --lr 0.2
  gencore train vae --data digits --latent 8 --hidden 200 --epochs 50
  gencore train pixelcnn --data digits --blocks 3 --epochs 20
  gencore train made --data digits --hidden 100 --epochs 50""",
    )
    models = p.add_subparsers(dest="model", metavar="MODEL", help="what to train:", required=True)
    _train_options.add_rbm(models)
    _train_options.add_vae(models)
    _train_options.add_pixelcnn(models)
    _train_options.add_gated_pixelcnn(models)
    _train_options.add_pixelrnn(models)
    _train_vectors.add_vectors(models)


def _add_sample(commands: Any) -> None:
    p = commands.add_parser(
        "sample",
        help="draw samples from a model: a picture or an array",
        description="""\
Draw samples. An RBM draws by Gibbs chains; a model of images (PixelCNN,
GatedPixelCNN, RowLSTM, DiagonalBiLSTM) each pixel given those before it, row by
row; NADE, MADE and FVBN each unit given those before it. With --start and
--clamp, they draw the rest given the units that the mask marks: completions.
Those of images are exact where the kept pixels come first (the upper rows), as
kept ones do not count for pixels before them; so are those of the models of
vectors, but for EoNADE, which draws what is kept first, whatever it is. A VAE
decodes draws of its prior, a grid of two latent units (--manifold), or the line
from one example to another (--interpolate).""",
        epilog="""\
Examples:
  gencore sample model.safetensors -n 64 --out samples.png
  gencore sample model.safetensors -n 10000 --out samples.npz
  gencore sample rbm.safetensors -n 10 --start binarized_mnist \\
      --clamp mask.npy --out completed.png   # first 10 test images
  gencore sample pixelcnn.safetensors --temperature 0.9
  gencore sample vae.safetensors --manifold 20 --out manifold.png
  gencore sample vae.safetensors --data binarized_mnist \\
      --interpolate 3,7 0,1 --out lines.png   # by their test rows' numbers""",
    )
    p.add_argument("model", type=Path, metavar="MODEL", help=_MODEL_HELP)
    p.add_argument(
        "--out",
        type=Path,
        default=Path("samples.png"),
        metavar="FILE",
        help=".png, .pdf or .svg for a picture, .npz or .npy for the array (n, units)",
    )
    p.add_argument(
        "-n", type=types.count, metavar="N", help="how many (default: 64; of each interpolation 10)"
    )
    _train_options.add_shape(p.add_argument, "square; of a PixelCNN its own")
    _train_options.add_threshold(p, _OF_KIND)
    _train_options.add_root(p)
    KindOptions(p, "RBM", "VAE").add(
        "--means",
        action=argparse.BooleanOptionalAction,
        help="write each unit's mean given the other layer, not its draw (default: a VAE's means, an RBM's draws)",
    )
    rbm = KindOptions(p, "RBM")
    rbm.add("--steps", type=types.count, default=1000, metavar="N", help="Gibbs steps of each chain")
    drawn_in_order = (*_PIXEL_KINDS, *_VECTOR_KINDS)
    completed = KindOptions(p, "RBM", *drawn_in_order, called="an RBM, or a model that draws in order")
    completed.add(
        "--start",
        metavar="DATA",
        help="what --clamp keeps values of, and where an RBM's chains start: .npy with one row or more, of which "
        "the first n are taken, or a data set's test rows (default: the RBM's own chains, else its data's means)",
    )
    completed.add(
        "--clamp",
        type=Path,
        metavar="FILE",
        help=".npy mask, one row or more, as --start: units marked 1 keep their value there",
    )
    KindOptions(p, *drawn_in_order, called="a model that draws in order").add(
        "--temperature",
        type=types.positive,
        default=1.0,
        metavar="X",
        help="logits are divided by it: below 1 the likelier values are drawn more often",
    )
    KindOptions(p, *drawn_in_order, called="a model that draws in order").add(
        "--label",
        type=types.index,
        metavar="N",
        help="class of all samples of a model of classes (default: each in turn)",
    )
    vae = KindOptions(p, "VAE")
    either = vae.exclusively()
    vae.add(
        "--manifold",
        type=types.count,
        exclusive=either,
        metavar="N",
        help="N x N points of two latent units, even in their prior's probability, the others at 0",
    )
    vae.add(
        "--interpolate",
        type=types.pair,
        nargs="+",
        exclusive=either,
        metavar="I,J",
        help="n points from one test row of --data to another, a line for each pair of numbers from 0",
    )
    vae.add("--dimensions", type=types.pair, metavar="I,J", help="latent units of --manifold (default: 0,1)")
    vae.add("--data", metavar="DATA", help="name of a data set, or an .npy or .npz file")
    _train_options.add_common(p)
    p.set_defaults(run=_commands.sample)


def _add_evaluate(commands: Any) -> None:
    p = commands.add_parser(
        "evaluate",
        help="log-likelihood of data: with its bracket, or its bounds",
        description="""\
Print the mean log-likelihood of data in nats a row (natural logarithm, higher
is better). Of an RBM: the log of the partition function it rests on with both
ends of its bracket, the effective number of AIS runs, and the pseudo-log-
likelihood. Of a VAE: the importance-weighted bound, the evidence lower bound
(ELBO) with its reconstruction and KL, and how many latent units are active. Of
a PixelCNN, NADE, MADE, FVBN or EoNADE: the exact value, and bits a pixel. And,
where data are binary, what independent units would give.""",
        epilog=f"""\
Examples:
  gencore evaluate rbm.safetensors --data binarized_mnist --method ais \\
      --runs 100 --temperatures 14500
  gencore evaluate vae.safetensors --data binarized_mnist --samples 5000
  gencore evaluate pixelcnn.safetensors --data mnist --threshold 0.5

The bracket of log Z: the forward estimate less 3 standard errors, and the
greater of the forward and the reverse estimate with 3 standard errors more.
Fewer than some ten effective runs, or a wide bracket: take more temperatures.
The bounds of a VAE lie below the log-likelihood on average, the closer the more
draws a row. A unit is active where its posterior mean varies by more than 0.01.

{_train_options.DATA_HELP}""",
    )
    p.add_argument("model", type=Path, metavar="MODEL", help=_MODEL_HELP)
    _train_options.add_data(p, _OF_KIND)
    p.add_argument("--split", choices=("train", "valid", "test"), default="test", help="part of the data")
    p.add_argument("--rows", type=types.count, metavar="N", help="only N rows, evenly spread (default: all)")
    p.add_argument("--json", action="store_true", help="print one JSON object instead")
    rbm = KindOptions(p, "RBM")
    rbm.add(
        "--method",
        choices=("auto", "exact", "ais"),
        default="auto",
        help="exact: enumerate the smaller side (up to 30 units); ais: annealed importance sampling; "
        "auto: exact up to 20 units",
    )
    rbm.add("--runs", type=types.count, default=100, metavar="N", help="AIS runs each way")
    rbm.add(
        "--temperatures",
        type=types.temperatures,
        default=14_500,
        metavar="N",
        help="AIS temperatures, at least 3",
    )
    vae = KindOptions(p, "VAE")
    vae.add(
        "--samples", type=types.count, default=5000, metavar="N", help="draws a row of the weighted bound"
    )
    _train_options.add_common(p)
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
