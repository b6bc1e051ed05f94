"""Timing and memory of several ways to do the same work: interleaved rounds, minima and quartiles, peak memory.

A timed sample is a number of calls long enough for the clock; the samples of all candidates are taken in turn, so that
a noisy moment of the machine meets all of them. Ratios are of minima.
"""

from __future__ import annotations

import ctypes
import gc
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np


@dataclass
class Candidate:
    """One way to do a work.

    Parameters
    ----------
    call
        Does `units` units of the work (Gibbs steps, temperatures, variates, ...). This is what is timed.
    sample
        What the work's check looks at; its arguments and result are stated by the work (`works`).
    prepare
        Brings the state back before each timed sample, untimed.
    workspace
        Bytes held between calls beside the problem's own arrays.
    blas_threads
        Threads to give NumPy's BLAS while this candidate runs, if not all.
    note
        What a reader must know: another schedule, another algorithm of equal cost, a private function.
    whole
        Does the whole work, where `call` does a part that is scaled; timed once in a full run.
    """

    call: Callable[[], object]
    sample: Callable[..., Any]
    units: float = 1
    prepare: Callable[[], object] | None = None
    workspace: int = 0
    blas_threads: int | None = None
    note: str = ""
    whole: Callable[[], object] | None = None


class Absent(Exception):
    """The peer cannot take part; the message says why: its library is not `installed`, or cannot do this work."""

    def __init__(self, reason: str, installed: bool = True) -> None:
        super().__init__(reason)
        self.installed = installed


@dataclass
class Timing:
    """Seconds a unit of work, one entry a round; `cores` is CPU time over wall time, all threads together."""

    seconds: list[float] = field(default_factory=list)
    calls: int = 1
    cores: list[float] = field(default_factory=list)

    @property
    def minimum(self) -> float:
        """The fastest round."""
        return min(self.seconds)

    @property
    def quartiles(self) -> tuple[float, float, float]:
        """First quartile, median, third quartile (linear interpolation)."""
        low, middle, high = np.quantile(self.seconds, [0.25, 0.5, 0.75])
        return float(low), float(middle), float(high)


@dataclass(frozen=True)
class Plan:
    """How long to measure.

    Parameters
    ----------
    sample_seconds
        Least duration of one timed sample.
    seconds
        About how long all rounds of one work may take.
    rounds
        At most so many rounds (and at least `least_rounds`).
    settle
        Pause before a sample, in which the thread pools of the candidate before go to sleep.
    limit_seconds
        Duration of a new measurement of the machine's limits beside each work; none if 0.
    name
        What the record calls it.
    without
        Peers that take longer to compile than the run may take.
    whole
        Whether to time `Candidate.whole`.
    """

    name: str = "full"
    whole: bool = True
    without: tuple[str, ...] = ()
    sample_seconds: float = 0.03
    seconds: float = 15.0
    rounds: int = 40
    least_rounds: int = 3
    settle: float = 0.002
    limit_seconds: float = 0.05


def time_once(call: Callable[[], object]) -> float:
    """Seconds of one call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def _once(candidate: Candidate, calls: int) -> float:
    start = time.perf_counter()
    for _ in range(calls):
        candidate.call()
    return time.perf_counter() - start


def interleave(
    candidates: Mapping[str, Candidate], plan: Plan, enter: Callable[[Candidate], object] = lambda _: None
) -> dict[str, Timing]:
    """Time all candidates round robin.

    Parameters
    ----------
    candidates
        By name.
    plan
        Durations and rounds.
    enter
        Called before each sample, e.g. to set the threads of BLAS.

    Returns
    -------
    dict
        A `Timing` for each candidate, in seconds a unit.
    """
    timings = {name: Timing() for name in candidates}
    estimate: dict[str, float] = {}
    for name, candidate in candidates.items():
        enter(candidate)
        if candidate.prepare:
            candidate.prepare()
        _once(candidate, 1)  # compiles, fills caches
        estimate[name] = max(_once(candidate, 1), 1e-7)
        if estimate[name] < plan.sample_seconds / 10:  # one call is too short to set the number of calls by
            estimate[name] = _once(candidate, 10) / 10
        timings[name].calls = max(1, math.ceil(plan.sample_seconds / estimate[name]))
    # An untimed call wakes the threads and brings the data back into the caches; long calls see to that themselves.
    warm = {name: int(seconds < 0.02) for name, seconds in estimate.items()}
    round_seconds = sum(
        (timings[name].calls + warm[name]) * estimate[name] + plan.settle for name in candidates
    )
    rounds = min(plan.rounds, max(plan.least_rounds, int(plan.seconds / max(round_seconds, 1e-9))))

    names = list(candidates)
    for r in range(rounds):
        for name in names[r % len(names) :] + names[: r % len(names)]:
            candidate, timing = candidates[name], timings[name]
            time.sleep(plan.settle)
            enter(candidate)
            if candidate.prepare:
                candidate.prepare()
            _once(candidate, warm[name])
            busy = time.process_time()
            elapsed = _once(candidate, timing.calls)
            timing.seconds.append(elapsed / (timing.calls * candidate.units))
            timing.cores.append((time.process_time() - busy) / elapsed)
    return timings


def _resident(what: str) -> int | None:
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return None
    for line in status.splitlines():
        if line.startswith(what):
            return int(line.split()[1]) * 1024
    return None


def peak_memory(candidate: Candidate, release: Callable[[], object] = lambda: None) -> int | None:
    """Bytes that one call needs beside its inputs and outputs.

    The workspace that the candidate holds, plus the growth of the resident set during one call: free heap pages go back
    to the system, the kernel's high-water mark is reset (`/proc/self/clear_refs`), and the mark is read after the call.
    None where the system offers no such thing.
    """
    if candidate.prepare:
        candidate.prepare()
    gc.collect()
    release()
    try:
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")
    except (OSError, AttributeError):
        return None
    before = _resident("VmRSS:")
    candidate.call()
    after = _resident("VmHWM:")
    return None if before is None or after is None else candidate.workspace + max(0, after - before)
