"""What a training records, and what it shows while it runs."""

import sys
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from tqdm import tqdm

__all__ = ["Callback", "History", "Progress"]

Callback: TypeAlias = Callable[[Any, Mapping[str, float]], bool | None]
"""``callback(model, record)`` after each epoch; True ends the training, and nothing else that it returns does."""


class History:
    """What a training recorded: one mapping an epoch.

    ``history["name"]`` is the column of that name, ``history.records`` the rows.
    """

    def __init__(self, records: list[dict[str, float]] | None = None) -> None:
        self.records: list[dict[str, float]] = [] if records is None else records

    def __getitem__(self, name: str) -> list[float]:
        if not any(name in record for record in self.records):
            raise KeyError(f"history: expected one of {', '.join(self.names())}, received {name!r}")
        return [record[name] for record in self.records if name in record]

    def __len__(self) -> int:
        return len(self.records)

    def names(self) -> list[str]:
        """Names of the columns, in the order of their first appearance."""
        return list(dict.fromkeys(name for record in self.records for name in record))

    def __repr__(self) -> str:
        last = ", ".join(f"{k}={v:.6g}" for k, v in self.records[-1].items()) if self.records else "empty"
        return f"History({len(self)} epochs; last: {last})"


class Progress:
    """A progress bar over the updates of a training; silent where the output is no terminal."""

    def __init__(self, label: str, *, total: int, done: int, enabled: bool) -> None:
        self._bar = tqdm(
            total=total, initial=done, desc=label, disable=not (enabled and sys.stderr.isatty()), mininterval=0.2,
            bar_format="{desc} {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} {elapsed}<{remaining}{postfix}",
            dynamic_ncols=True,
        )  # fmt: skip

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *exc: object) -> None:
        self._bar.close()

    def step(self) -> None:
        """One update is done."""
        self._bar.update()

    def show(self, record: Mapping[str, float], names: Mapping[str, str]) -> None:
        """Show these figures at the bar's end, by their short names: ``{"pll": "pseudo_log_likelihood"}``."""
        self._bar.set_postfix({short: f"{record[n]:.4g}" for short, n in names.items() if n in record})
