"""What every work consists of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from ..measure import Candidate

EPS = float(np.finfo(np.float32).eps)


class Cost(NamedTuple):
    """What one unit of work asks of the machine at least, done the plain way."""

    flops: float
    bytes: float
    basis: str


@dataclass(frozen=True)
class Work:
    """One line of the table.

    Attributes
    ----------
    name, title
        Short name and what it is.
    kind
        Key of the builders: works of one kind differ in size only.
    units
        Units of work that the reported time stands for.
    problem
        Makes what all candidates share; True asks for a tiny one, for tests.
    cost
        Cost of one unit.
    check
        Raises `reference.Disagreement`, or says what agrees.
    """

    name: str
    title: str
    kind: str
    problem: Callable[[bool], Any]
    cost: Callable[[Any], Cost]
    check: Callable[[Any, Candidate], str]
    units: float = 1
