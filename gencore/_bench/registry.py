"""Who can do what: builders of candidates by kind of work and by peer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .measure import Absent, Candidate
from .works.common import Work

Builder = Callable[[Any, int], Candidate]
"""Takes a work's problem and the number of threads."""

PEERS = ("gencore", "numpy", "torch", "onednn", "compile", "jax", "numba", "sklearn", "rbms")
"""All columns of the table, in its order; `gencore` and `numpy` are built in, the rest register from bench/peers."""

BUILTIN = PEERS[:2]

_builders: dict[tuple[str, str], Builder] = {}
_reasons: dict[tuple[str, str], str] = {}


def does(kind: str, peer: str) -> Callable[[Builder], Builder]:
    """Register the decorated function as the way in which a peer does works of this kind."""

    def register(builder: Builder) -> Builder:
        _builders[kind, peer] = builder
        return builder

    return register


def lacks(kind: str, peer: str, reason: str) -> None:
    """State why a peer has no way to do works of this kind."""
    _reasons[kind, peer] = reason


def build(work: Work, peer: str, problem: Any, threads: int) -> Candidate:
    """Build the candidate, or raise `Absent` with the reason."""
    builder = _builders.get((work.kind, peer))
    if builder is None:
        raise Absent(_reasons.get((work.kind, peer), "has no such operation"))
    try:
        return builder(problem, threads)
    except ImportError as error:
        raise Absent(f"not installed ({error})", installed=False) from None
