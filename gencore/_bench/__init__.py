"""Benchmarks: `gencore bench`, and the harness under `bench/run.py`.

`gencore bench` times the kernels beside tuned NumPy and the machine's limit, with nothing but gencore's own
dependencies. `bench/run.py` of the source tree adds the peers: PyTorch, JAX, numba, scikit-learn, rbms.

Each thread count runs in a process of its own, started without the variables that cripple a BLAS and with every
library held to the same number of threads; in it all candidates are checked, then timed round robin.
"""

from __future__ import annotations

import argparse
import datetime
import os
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from gencore import _core
from gencore._arguments import Parser

from . import machine, ours, report, tuned_numpy  # noqa: F401 - ours and tuned_numpy register themselves
from .measure import Absent, Candidate, Plan, interleave, peak_memory, time_once
from .reference import Disagreement, Rbm
from .registry import BUILTIN, PEERS, build
from .report import Record
from .works import WORKS, Work, select

__all__ = ["Entry", "main", "measure_work", "run"]

FULL = Plan()
QUICK = Plan("quick", False, ("compile",), sample_seconds=0.006, seconds=0.4, rounds=5, least_rounds=2)
TINY = Plan(
    "tiny", False, sample_seconds=1e-4, seconds=0.01, rounds=2, least_rounds=2, settle=0, limit_seconds=0
)


def measure_work(
    work: Work, peers: Sequence[str], limits: machine.Limits, plan: Plan, *, tiny: bool = False
) -> list[Record]:
    """Build, check and time all candidates for one work; one record for each peer, present or not."""
    problem = work.problem(tiny)
    set_blas_threads = machine.blas_controller()

    def enter(candidate: Candidate) -> None:
        set_blas_threads(candidate.blas_threads or limits.threads)

    candidates: dict[str, Candidate] = {}
    agreement: dict[str, str] = {}
    records: list[Record] = []
    for peer in peers:
        here = {"work": work.name, "threads": limits.threads, "peer": peer}
        try:
            if peer in plan.without:
                raise Absent(f"a {plan.name} run leaves out what compiles long", installed=False)
            candidate = build(work, peer, problem, limits.threads)
            enter(candidate)
            agreement[peer] = work.check(problem, candidate)
            candidates[peer] = candidate
        except Absent as absent:
            records.append({"record": "absent", **here, "reason": str(absent), "installed": absent.installed})
        except Disagreement as wrong:
            records.append({"record": "wrong", **here, "reason": str(wrong)})
        except Exception as fault:  # a peer that fails must not take the run with it
            records.append({"record": "wrong", **here, "reason": f"{type(fault).__name__}: {fault}"})
    rbm = problem if isinstance(problem, Rbm) else getattr(problem, "rbm", None)
    limits.measure(plan.limit_seconds)
    for peer, timing in interleave(candidates, plan, enter).items():
        candidate = candidates[peer]
        enter(candidate)
        more = {
            "peak_bytes": peak_memory(candidate, _core.release_scratch),
            "agrees": agreement[peer],
            "note": candidate.note,
            "density": rbm and rbm.density,
            "whole_seconds": time_once(candidate.whole) if plan.whole and candidate.whole else None,
        }
        records.append(report.result(work, peer, limits.threads, timing, work.cost(problem), limits, **more))
    report.add_ratios(records)
    return sorted(records, key=lambda r: PEERS.index(r["peer"]))


def run(
    works: Sequence[Work],
    peers: Sequence[str],
    threads: int,
    plan: Plan,
    *,
    tiny: bool = False,
    source: Path = Path(__file__),
) -> list[Record]:
    """Measure works in this process; the first record describes machine and build, the commit by `source`."""
    _core.set_num_threads(threads)
    limits = machine.Limits(threads)
    limits.measure()
    records: list[Record] = []
    for work in works:
        records += (found := measure_work(work, peers, limits, plan, tiny=tiny))
        present = (_brief(r) for r in found if r["record"] != "absent")
        _say(f"{threads:2} thr. {work.name:20} {' '.join(present)}")
    about = {
        "record": "machine",
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "threads": threads,
        "plan": plan.name,
        "fma_gflops": limits.flops / 1e9,
        "copy_gbytes": limits.bytes / 1e9,
        **machine.describe(source),
    }
    return [about, *records]


def _brief(r: Record) -> str:
    return f"{r['peer']} {report.duration(r['seconds']['min']) if r['record'] == 'result' else 'DISAGREES'}"


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def parser(prog: str, peers: Sequence[str]) -> argparse.ArgumentParser:
    """Command line of `gencore bench` and `bench/run.py`."""
    p = Parser(
        prog=prog,
        description="Time gencore's kernels beside what a user would otherwise run, and beside the machine's limit.",
        epilog="Works: " + ", ".join(WORKS),
    )
    p.add_argument("works", nargs="*", metavar="WORK", help="names, or how they begin (gemm, cd)")
    p.add_argument("--only", metavar="A,B", help="the same as a list")
    p.add_argument("--threads", default="1,all", metavar="N,M", help="thread counts")
    p.add_argument("--peers", default=",".join(peers[1:]), metavar="A,B", help="peers to run")
    p.add_argument("--quick", action="store_true", help="fewer, shorter rounds: coarse, in a minute or two")
    p.add_argument("--out", type=Path, metavar="FILE", help="append the records to this file as JSON lines")
    p.add_argument("--tiny", action="store_true", help=argparse.SUPPRESS)
    p.add_argument("--child", type=int, help=argparse.SUPPRESS)  # thread count of this process
    return p


@dataclass(frozen=True)
class Entry:
    """A command that benchmarks.

    Attributes
    ----------
    prog
        What the user types.
    start
        Arguments by which Python starts it again.
    source
        A file of the source tree whose commit the record names.
    peers
        The columns that it knows, ours first.
    load
        Registers the builders of the peers, in a process that measures.
    """

    prog: str = "gencore bench"
    start: tuple[str, ...] = ("-m", "gencore._bench")
    source: Path = Path(__file__)
    peers: tuple[str, ...] = BUILTIN
    load: Callable[[], object] = lambda: None


def main(argv: Sequence[str] | None = None, entry: Entry = Entry()) -> int:
    """Run the benchmark command line.

    Parameters
    ----------
    argv
        Arguments, those of the process if None.
    entry
        The command: `gencore bench`, or bench/run.py with its peers.

    Returns
    -------
    int
        Exit status: 1 if a candidate disagreed, 2 if an argument was wrong, 3 if a process failed, else 0.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    p = parser(entry.prog, entry.peers)
    args = p.parse_args(argv)
    try:
        works = select(args.works + (args.only.split(",") if args.only else []))
        peers = _peers(args.peers, entry.peers)
        counts = [args.child] if args.child else _threads(args.threads)
    except ValueError as error:
        p.error(str(error))
    if args.child:
        return _measure_here(args, works, peers, entry)
    return _start_processes(argv, args.out, counts, entry)


def _measure_here(args: argparse.Namespace, works: Sequence[Work], peers: Sequence[str], entry: Entry) -> int:
    threads = args.child
    machine.pin(threads)
    entry.load()
    plan = TINY if args.tiny else QUICK if args.quick else FULL
    if threads > 1 and not args.tiny:
        plan = replace(plan, settle=0.03)  # OpenBLAS' and OpenMP's threads spin for about that long
    report.write(args.out, run(works, peers, threads, plan, tiny=args.tiny, source=entry.source))
    return 0


def _start_processes(argv: list[str], out: Path | None, counts: Sequence[int], entry: Entry) -> int:
    began = time.perf_counter()
    command = f"{entry.prog} {shlex.join(argv)}".strip()
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    records: list[Record] = []
    for count in counts:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "records.jsonl"
            child = [sys.executable, *entry.start, *argv, "--child", str(count), "--out", str(file)]
            status = subprocess.run(child, env=machine.environment(count), check=False).returncode
            if status or not file.exists():
                _say(f"{entry.prog}: the process for {count} thread(s) failed with status {status}")
                return 3
            about, *results = report.read(file)
        removed = [name for name in machine.CRIPPLING if name in os.environ]
        about |= {"command": command, "removed_variables": removed, "load_before": load}
        records += [about, *results]
    print(report.tables(records))
    _say(f"{command}: {time.perf_counter() - began:.0f} s")
    if out:
        report.write(out, records)
    return int(any(r["record"] == "wrong" for r in records))


def _threads(text: str) -> list[int]:
    counts: list[int] = []
    for word in text.split(","):
        if word != "all" and not (word.isdigit() and int(word) > 0):
            raise ValueError(f"bench: --threads: expected counts such as 1,all, received {text!r}")
        count = machine.available_threads() if word == "all" else int(word)
        if count not in counts:
            counts.append(count)
    return counts


def _peers(text: str, known: Sequence[str]) -> list[str]:
    asked = [name for name in text.split(",") if name]
    unknown = [name for name in asked if name not in known]
    if unknown:
        there = ", ".join(known[1:])
        raise ValueError(f"bench: --peers: expected some of {there}, received {', '.join(unknown)}")
    return [name for name in known if name == known[0] or name in asked]
