"""What `gencore train` can be asked, a parser for each model, and the options that commands have in common."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gencore import _arguments as types
from gencore import _commands, datasets

DATA_HELP = (
    "Data sets by name: "
    + ", ".join(datasets.names())
    + ". Or a file: .npy with one array, or .npz with arrays train, valid, test (or any one array); rows are examples."
)


def add_rbm(models: Any) -> None:
    """`gencore train rbm`."""
    p = models.add_parser(
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

{DATA_HELP}""",
    )
    add_data(p)
    _add_out(p)
    p.add_argument("--hidden", type=types.units, default=500, metavar="N", help="hidden units")
    learning = p.add_argument_group("learning")
    _add_passes(learning, epochs=20)
    add = learning.add_argument
    add(
        "--algorithm",
        choices=("pcd", "cd"),
        default="pcd",
        help="chains that run on from update to update, or that start at each batch",
    )
    add("--k", type=types.count, default=1, metavar="N", help="Gibbs steps an update")
    add("--chains", type=types.count, metavar="N", help="persistent chains of pcd (default: the batch size)")
    _add_learning_rate(learning, lr=0.05)
    add(
        "--momentum",
        type=types.below_one,
        default=0.0,
        metavar="X",
        help="what an update keeps of the last one, 0 to below 1",
    )
    add(
        "--weight-decay",
        type=types.not_negative,
        default=0.0,
        metavar="X",
        help="L2 penalty: an update takes off this part of the weights, times the learning rate",
    )
    add("--no-centered", dest="centered", action="store_false", help="plain instead of centred gradient")
    _add_run(p)
    p.set_defaults(run=_commands.train_rbm)


def add_vae(models: Any) -> None:
    """`gencore train vae`."""
    p = models.add_parser(
        "vae",
        help="variational autoencoder",
        description="""\
Train a variational autoencoder by ascent of the evidence lower bound, or of the
importance-weighted one. The file that --out names is written after each epoch,
or every --checkpoint-every updates, and holds all that --resume needs to go on
to the same bits.""",
        epilog=f"""\
Examples: 20 latent units on the static binarisation of MNIST; two stochastic
layers by 50 importance samples; binary latent units; real-valued data
  gencore train vae --data binarized_mnist --latent 20 --hidden 500,500 \\
      --epochs 50 --out vae.safetensors
  gencore train vae --data binarized_mnist --latent 100,50 \\
      --hidden 200,200/100,100 --importance 50
  gencore train vae --data mnist --threshold 0.5 --latent 200 \\
      --latent-kind bernoulli --temperature 1 --temperature-end 0.5
  gencore train vae --data mine.npy --likelihood gaussian --latent 5
  gencore evaluate vae.safetensors --data binarized_mnist

{DATA_HELP}""",
    )
    add_data(p, "none: levels from 0 to 1 are taken as means")
    _add_out(p)
    _add_vae_model(p.add_argument_group("model"))
    learning = p.add_argument_group("learning")
    _add_passes(learning, epochs=50)
    _add_learning_rate(learning, lr=0.001)
    _add_optimizer(learning, "adam", watched="bound")
    _add_bound(p.add_argument_group("bound"))
    _add_run(p)
    p.set_defaults(run=_commands.train_vae)


def add_pixelcnn(models: Any) -> None:
    """`gencore train pixelcnn`."""
    p = _add_pixel_model(
        models, "pixelcnn", "PixelCNN", "images drawn pixel by pixel, by masked convolutions"
    )
    model = p.add_argument_group("model").add_argument
    _add_blocks(
        model, 7, "h: a block's convolutions take 2 h features to h, h to h (wider kernel) and back to 2 h"
    )
    _add_kernel_size(model, "rows and columns")
    _add_pixels(p, model, own=("n_blocks", "kernel_size"))


def add_gated_pixelcnn(models: Any) -> None:
    """`gencore train gated-pixelcnn`."""
    p = _add_pixel_model(models, "gated-pixelcnn", "GatedPixelCNN", "the same by gated convolutions")
    model = p.add_argument_group("model").add_argument
    _add_blocks(model, 6, "channels of either stack")
    _add_kernel_size(model, "columns")
    _add_pixels(p, model, own=("n_blocks", "kernel_size"))


def add_pixelrnn(models: Any) -> None:
    """`gencore train row-lstm` and `gencore train diagonal-bilstm`."""
    for command, kind, what in (
        ("row-lstm", "RowLSTM", "images drawn pixel by pixel, by LSTMs that go down the rows"),
        ("diagonal-bilstm", "DiagonalBiLSTM", "the same by LSTMs that go along diagonals, both ways"),
    ):
        p = _add_pixel_model(models, command, kind, what)
        model = p.add_argument_group("model").add_argument
        _add_blocks(model, 7, "h: cells of an LSTM; maps have 2 h features")
        _add_pixels(p, model, own=("n_blocks",))


def _add_blocks(model: Any, blocks: int, features: str) -> None:
    model("--features", type=types.count, default=16, metavar="N", help=features)
    model("--blocks", dest="n_blocks", type=types.count, default=blocks, metavar="N", help="blocks of layers")


def _add_kernel_size(model: Any, of: str) -> None:
    model("--kernel-size", type=types.count, default=3, metavar="N", help=f"{of} of the blocks' kernels, odd")


def _add_pixel_model(models: Any, command: str, kind: str, what: str) -> Any:
    """Make the parser of `gencore train` for a model of images."""
    p = models.add_parser(
        command,
        help=what,
        description=f"""\
Train a {kind} by maximum likelihood, which it computes exactly: each pixel
given those before it in raster order. The file that --out names is written
after each epoch, or every --checkpoint-every updates, and holds all that
--resume needs to go on to the same bits.

Pixels are 0 and 1 (--output bernoulli), or one of N levels, each with a
probability of its own (--output categorical --levels N) or under a mixture of
logistics (--output discretised_logistic). Grey floats from 0 to 1, as those of
mnist, are cut by --threshold X for the first, and become the level nearest to
x (N - 1) for the others, which take integers from 0 to N - 1 as they are.""",
        epilog=f"""\
Examples: the static binarisation of MNIST; MNIST cut at half of white; in four
levels of grey
  gencore train {command} --data binarized_mnist --epochs 20 \\
      --samples samples.png --out pixels.safetensors
  gencore train {command} --data mnist --threshold 0.5
  gencore train {command} --data mnist --output categorical --levels 4
  gencore evaluate pixels.safetensors --data binarized_mnist

{DATA_HELP} They are images, row by row of pixels.""",
    )
    add_data(p, "none: pixels must be 0 and 1, or --output categorical")
    _add_out(p)
    p.set_defaults(kind=kind)
    return p


def _add_pixels(p: Any, model: Any, *, own: tuple[str, ...]) -> None:
    """Add what models of images share; `own` names arguments of the model's own."""
    model("--hidden", type=types.units, default=32, metavar="N", help="features of the two layers on top")
    add_shape(model)
    model(
        "--output",
        choices=("bernoulli", "categorical", "discretised_logistic"),
        default="bernoulli",
        metavar="KIND",
        help="what a pixel is: bernoulli, 0 or 1; categorical or discretised_logistic, one of --levels",
    )
    model(
        "--levels",
        type=types.levels,
        metavar="N",
        help="of a pixel that is not 0 or 1, 2 to 256 (default: 256)",
    )
    model("--mixtures", type=types.mixtures, metavar="N", help="logistics of a pixel, 1 to 256 (default: 10)")
    model("--classes", action="store_true", help="learn the images of each class; the data must have labels")
    learning = p.add_argument_group("learning")
    _add_passes(learning, epochs=20, batch_size=16)
    _add_learning_rate(learning, lr=0.001)
    _add_optimizer(learning, "rmsprop", watched="log-likelihood")
    _add_pictures(p)
    _add_run(p)
    p.set_defaults(run=_commands.train_pixels, own=own)


def _add_pictures(p: Any) -> Any:
    """Add samples that are drawn while a model learns; what adds more such options comes back."""
    pictures = p.add_argument_group("pictures while it learns").add_argument
    pictures(
        "--samples",
        type=Path,
        metavar="FILE",
        help=".png, .pdf or .svg of 64 samples, written anew as the training goes, and at its end; "
        "what is learned does not depend on it",
    )
    pictures("--samples-every", type=types.count, metavar="N", help="epochs between two of them (default: 1)")
    return pictures


def _add_vae_model(group: Any) -> None:
    add = group.add_argument
    add(
        "--latent",
        type=types.latent_sizes,
        default="20",
        metavar="N[,N]",
        help="latent units; two numbers give two stochastic layers, the one next to the data first",
    )
    add(
        "--hidden",
        type=types.stacks,
        default="500,500",
        metavar="N,N",
        help="deterministic layers of the encoder, reversed those of the decoder; for two "
        "stochastic layers also a stack each, as in 200,200/100,100; or none",
    )
    add(
        "--decoder-hidden",
        type=types.layer_sizes,
        metavar="N,N",
        help="the decoder's, from latent to visible units (default: as --hidden says)",
    )
    add(
        "--activation",
        choices=("tanh", "relu", "logistic", "softplus"),
        default="tanh",
        help="of the deterministic layers",
    )
    add(
        "--likelihood",
        choices=("bernoulli", "gaussian"),
        default="bernoulli",
        help="data from 0 to 1, or real numbers with a mean and a variance each",
    )
    add(
        "--latent-kind",
        choices=("gaussian", "bernoulli", "categorical"),
        default="gaussian",
        help="standard normal, fair coins, or groups of --classes each",
    )
    add("--classes", type=types.classes, metavar="N", help="of a categorical latent unit (default: 10)")


def _add_bound(group: Any) -> None:
    add = group.add_argument
    add(
        "--importance",
        type=types.count,
        default=1,
        metavar="N",
        help="draws of the importance-weighted bound; 1 is the ELBO",
    )
    add(
        "--estimator",
        choices=("auto", "reparam", "reinforce", "wake-sleep", "concrete"),
        default="auto",
        metavar="NAME",
        help="of the encoder's gradient: reparam (for Gaussian latent units), concrete (for discrete ones), "
        "reinforce, wake-sleep; auto: one of the first two",
    )
    add(
        "--kl-weight",
        type=types.not_negative,
        default=1.0,
        metavar="X",
        help="of the divergence in what is maximised",
    )
    add(
        "--kl-annealing",
        type=types.fraction,
        metavar="X",
        help="that weight rises from 0 over this part of the training (default: it does not)",
    )
    add(
        "--free-bits",
        type=types.not_negative,
        default=0.0,
        metavar="X",
        help="nats of divergence of each latent unit that cost nothing",
    )
    add("--temperature", type=types.positive, metavar="X", help="of concrete, at the start (default: 1.0)")
    add(
        "--temperature-end",
        type=types.positive,
        metavar="X",
        help="at the end, by a constant factor an update (default: the same)",
    )
    add("--straight-through", action="store_true", help="concrete with hard draws and the relaxed gradient")


# --- in common ----------------------------------------------------------------------------------------------


def add_data(p: argparse.ArgumentParser, otherwise: str | None = None) -> None:
    """``--data``, and how it is read."""
    p.add_argument(
        "--data", required=True, metavar="DATA", help="name of a data set, or an .npy or .npz file; see below"
    )
    add_threshold(p, otherwise)
    add_root(p)


def add_threshold(p: argparse.ArgumentParser, otherwise: str | None = None) -> None:
    """``--threshold``: 0.5, or what happens otherwise."""
    text = "grey data sets (mnist) become 1 from this part of white up"
    p.add_argument(
        "--threshold",
        type=types.fraction,
        default=0.5 if otherwise is None else None,
        metavar="X",
        help=text if otherwise is None else f"{text} (default: {otherwise})",
    )


def add_root(p: argparse.ArgumentParser) -> None:
    """``--root``."""
    p.add_argument(
        "--root",
        type=Path,
        metavar="DIR",
        help="folder of the data sets' files (default: $GENCORE_DATA, then a cache that downloads go to)",
    )


def add_shape(add: Callable[..., Any], default: str = "square") -> None:
    """``--shape``."""
    add("--shape", type=types.shape, metavar="HxW", help=f"rows and columns of an image (default: {default})")


def add_common(p: argparse.ArgumentParser) -> None:
    """``--seed`` and ``--threads``."""
    p.add_argument("--seed", type=types.seed, default=0, metavar="N", help="all randomness follows from it")
    p.add_argument(
        "--threads", type=types.count, metavar="N", help="results do not depend on it (default: all cores)"
    )


def _add_out(p: argparse.ArgumentParser) -> None:
    p.add_argument(
        "--out",
        type=Path,
        default=Path("model.safetensors"),
        metavar="FILE",
        help="model file, and checkpoint",
    )


def _add_passes(group: Any, *, epochs: int, batch_size: int = 128) -> None:
    group.add_argument(
        "--epochs", type=types.count, default=epochs, metavar="N", help="passes over the training data"
    )
    group.add_argument(
        "--batch-size", type=types.count, default=batch_size, metavar="N", help="rows of an update"
    )


def _add_learning_rate(group: Any, *, lr: float) -> None:
    group.add_argument(
        "--lr", type=types.positive, default=lr, metavar="X", help="learning rate, at the start"
    )
    group.add_argument(
        "--schedule",
        choices=("linear", "constant", "cosine", "exponential"),
        default="linear",
        metavar="NAME",
        help="how the learning rate goes from --lr to --lr-end: linear, constant, cosine or exponential",
    )
    group.add_argument(
        "--lr-end",
        type=types.not_negative,
        metavar="X",
        help="learning rate at the end (default: 0; exponential: lr / 100)",
    )


def _add_optimizer(group: Any, default: str, *, watched: str) -> None:
    group.add_argument(
        "--optimizer",
        choices=("adam", "adamw", "rmsprop", "sgd", "adagrad", "adadelta"),
        default=default,
        metavar="NAME",
        help="rule of an update: adam, adamw, rmsprop, sgd, adagrad or adadelta",
    )
    group.add_argument(
        "--clip-norm",
        type=types.positive,
        metavar="X",
        help="longest gradient, of all parameters together (default: any)",
    )
    group.add_argument(
        "--patience",
        type=types.count,
        metavar="N",
        help=f"end when the validation {watched} has not risen for N epochs, and go back to its best (default: never)",
    )


def _add_run(p: argparse.ArgumentParser) -> None:
    add = p.add_argument_group("run").add_argument
    add(
        "--checkpoint-every",
        type=types.count,
        metavar="N",
        help="updates between two writes of --out (default: an epoch)",
    )
    add(
        "--resume",
        action="store_true",
        help="go on from --out where that file exists, to the bits of an unbroken run",
    )
    add("--overwrite", action="store_true", help="start anew even where --out exists")
    add_common(p)
