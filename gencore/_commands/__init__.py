"""What the commands of the command line do: arguments that `gencore.cli` has read in, lines on stdout and files out.

A model's part is a module, with `train`, `sample` and `evaluate`; what all share stands beside them.
"""

from __future__ import annotations

import argparse
from typing import Any

from gencore import _info, io
from gencore._arguments import resolve_kind
from gencore._commands import pixels, rbm, vae, vectors
from gencore._commands.data import Data, read_data
from gencore._commands.shared import set_threads

__all__ = [
    "Data",
    "demo",
    "evaluate",
    "info",
    "read_data",
    "sample",
    "train_eonade",
    "train_fvbn",
    "train_made",
    "train_nade",
    "train_pixels",
    "train_rbm",
    "train_vae",
]

_KINDS = {
    "RBM": rbm,
    "VAE": vae,
    **dict.fromkeys(pixels.KINDS, pixels),
    **dict.fromkeys(vectors.KINDS, vectors),
}

train_eonade = vectors.train_eonade
train_fvbn = vectors.train_fvbn
train_made = vectors.train_made
train_nade = vectors.train_nade
train_pixels = pixels.train
train_rbm = rbm.train
train_vae = vae.train


def sample(args: argparse.Namespace) -> int:
    """`gencore sample`."""
    set_threads(args)
    status: int = _of_kind(args).sample(args)
    return status


def evaluate(args: argparse.Namespace) -> int:
    """`gencore evaluate`."""
    set_threads(args)
    status: int = _of_kind(args).evaluate(args)
    return status


def _of_kind(args: argparse.Namespace) -> Any:
    """The module for the kind of model that the file holds; the options of that kind are filled in."""
    kind = io.load_model(args.model).kind
    if kind not in _KINDS:
        raise ValueError(f"{args.model} holds a {kind}, expected one of {', '.join(_KINDS)}")
    resolve_kind(args, kind, args.model)
    return _KINDS[kind]


def demo(args: argparse.Namespace) -> int:
    """`gencore demo`."""
    from gencore import _demo

    set_threads(args)
    _demo.run(args.out, epochs=args.epochs, seed=args.seed)
    return 0


def info(args: argparse.Namespace) -> int:
    """`gencore info`."""
    print(_info.cmake_dir()) if args.cmake_dir else _info.show_config()
    return 0
