"""How every command line of gencore reads its arguments: errors in one line, help of 80 columns, types that say why."""

from __future__ import annotations

import argparse
import re
import textwrap
from collections.abc import Callable
from math import isfinite
from typing import Any, NoReturn


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line; defaults stand in the help."""

    def __init__(self, *, description: str = "", epilog: str = "", **options: Any) -> None:
        super().__init__(
            description=_folded(description),
            epilog=_folded(epilog),
            formatter_class=_Formatter,
            allow_abbrev=False,
            **options,
        )

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message} (see {self.prog} --help)\n")


def _folded(text: str) -> str:
    """Lines of 80 columns; those that are short enough stay as they are."""
    return "\n".join(textwrap.fill(line, 80) for line in text.splitlines())


class _Formatter(argparse.RawDescriptionHelpFormatter, argparse.ArgumentDefaultsHelpFormatter):
    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=26, width=80)

    def _get_help_string(self, action: argparse.Action) -> str | None:
        if action.default is None or action.nargs == 0 or not action.option_strings:
            return action.help
        return super()._get_help_string(action)


# --- options that only some kinds of model files have -------------------------------------------------------


class KindOptions:
    """A group of options of a command for files of some kinds; whoever gives one for another kind's file is told.

    Parameters
    ----------
    parser : Parser
        Of the command.
    *kinds : str
        As model files have them, for example "VAE".
    called : str, optional
        What the help calls them; by default their names.
    """

    def __init__(self, parser: argparse.ArgumentParser, *kinds: str, called: str | None = None) -> None:
        self.kinds = kinds
        named = [f"{'an' if kind[0] in 'AEIOR' else 'a'} {kind}" for kind in kinds]
        self._group = parser.add_argument_group(f"for {called or ' or '.join(named)}")
        self._parser = parser
        if parser.get_default("of_kinds") is None:
            parser.set_defaults(of_kinds=[])

    def add(self, *names: str, default: Any = None, exclusive: Any = None, **options: Any) -> None:
        """Add an argument as argparse does; `exclusive` is a group that `exclusively` made."""
        if default is not None:
            options["help"] = f"{options['help']} (default: {default})"
        action = (exclusive or self._group).add_argument(*names, default=None, **options)
        self._parser.get_default("of_kinds").append((self.kinds, action.dest, names[-1], default))

    def exclusively(self) -> Any:
        """Make a group of options of which one at most may be given."""
        return self._group.add_mutually_exclusive_group()


def resolve_kind(args: argparse.Namespace, kind: str, model: object) -> None:
    """Fill in the defaults of the options of this kind; raise ValueError if one of another kind was given."""
    for owners, name, option, default in args.of_kinds:
        given = getattr(args, name)
        if kind in owners and given is None:
            setattr(args, name, default)
        elif kind not in owners and given is not None:
            raise ValueError(
                f"{option} is for files of kind {' or '.join(owners)}; {model} is of kind {kind}"
            )


# --- types --------------------------------------------------------------------------------------------------


def _integer(text: str, least: int, most: int | None = None) -> int:
    thousands = re.fullmatch(r"[0-9]{1,3}(,[0-9]{3})+", text)  # 1,000 is a number, 5,5 are two
    try:
        value = int(text.replace(",", "") if thousands else text)
    except ValueError:
        value = least - 1
    if value < least or (most is not None and value > most):
        limits = f"of at least {least}" if most is None else f"from {least} to {most}"
        raise argparse.ArgumentTypeError(f"expected an integer {limits}, received {text!r}")
    return value


def count(text: str) -> int:
    """1, 2, ...; thousands may be set off by commas."""
    return _integer(text, 1)


def units(text: str) -> int:
    """1, 2, ... without commas, which other models' option of that name has between layers."""
    if "," in text:
        raise argparse.ArgumentTypeError(
            f"expected one number, as this model takes no list of layers, received {text!r}"
        )
    return count(text)


def index(text: str) -> int:
    """0, 1, 2, ..."""
    return _integer(text, 0)


def classes(text: str) -> int:
    """2, 3, ..."""
    return _integer(text, 2)


def levels(text: str) -> int:
    """2 to 256."""
    return _integer(text, 2, 256)


def mixtures(text: str) -> int:
    """1 to 256."""
    return _integer(text, 1, 256)


def temperatures(text: str) -> int:
    """3, 4, ..."""
    return _integer(text, 3)


def seed(text: str) -> int:
    """Unsigned, of 64 bits."""
    return _integer(text, 0, 2**64 - 1)


def _integers(text: str, least: int, expected: str) -> tuple[int, ...]:
    parts = text.split(",")
    if not all(part.isascii() and part.isdigit() and int(part) >= least for part in parts):
        raise argparse.ArgumentTypeError(f"expected {expected}, received {text!r}")
    return tuple(int(part) for part in parts)


def latent_sizes(text: str) -> tuple[int, ...]:
    """One number of latent units, or two."""
    expected = "units of one layer or of two, such as 20 or 100,50"
    sizes = _integers(text, 1, expected)
    if len(sizes) > 2:
        raise argparse.ArgumentTypeError(f"expected {expected}, received {text!r}")
    return sizes


def layer_sizes(text: str) -> tuple[int, ...]:
    """Sizes of a stack of layers; "none" is the empty stack."""
    return () if text == "none" else _integers(text, 1, "layers such as 500,500, or none")


def some_layers(text: str) -> tuple[int, ...]:
    """Sizes of a stack of layers that is not empty."""
    return _integers(text, 1, "layers such as 500,500")


def stacks(text: str) -> tuple[tuple[int, ...], ...]:
    """One stack of layers, or one for each stochastic layer: "500,500", "200,200/100,100"."""
    return tuple(layer_sizes(part) for part in text.split("/"))


def pair(text: str) -> tuple[int, int]:
    """Two numbers from 0 up."""
    expected = "two numbers from 0 up such as 3,7"
    numbers = _integers(text, 0, expected)
    if len(numbers) != 2:
        raise argparse.ArgumentTypeError(f"expected {expected}, received {text!r}")
    return numbers[0], numbers[1]


def _number(text: str, holds: Callable[[float], bool], expected: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not (isfinite(value) and holds(value)):
        raise argparse.ArgumentTypeError(f"expected a number {expected}, received {text!r}")
    return value


def positive(text: str) -> float:
    """Above 0."""
    return _number(text, lambda x: x > 0, "above 0")


def not_negative(text: str) -> float:
    """0 or more."""
    return _number(text, lambda x: x >= 0, "of at least 0")


def below_one(text: str) -> float:
    """From 0 to below 1."""
    return _number(text, lambda x: 0 <= x < 1, "from 0 to below 1")


def fraction(text: str) -> float:
    """Above 0, at most 1."""
    return _number(text, lambda x: 0 < x <= 1, "above 0, at most 1")


def shape(text: str) -> tuple[int, int]:
    """Rows and columns."""
    height, _, width = text.partition("x")
    if not (height.isdigit() and width.isdigit() and int(height) and int(width)):
        raise argparse.ArgumentTypeError(f"expected rows x columns such as 28x28, received {text!r}")
    return int(height), int(width)
