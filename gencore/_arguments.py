"""How every command line of gencore reads its arguments: errors in one line, help of 80 columns with defaults."""

from __future__ import annotations

import argparse
import textwrap
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
