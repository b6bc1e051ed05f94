"""Records of a run (JSON lines) and the tables made of them."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from .machine import Limits
from .measure import Timing
from .registry import PEERS
from .works import WORKS, Cost, Work

Record = dict[str, Any]
UNITS = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns"))


def result(
    work: Work, peer: str, threads: int, timing: Timing, cost: Cost, limits: Limits, **more: Any
) -> Record:
    """Make the record of one candidate; seconds are those of the whole work, `work.units` units."""
    low, middle, high = (q * work.units for q in timing.quartiles)
    floor = limits.seconds(cost.flops, cost.bytes) * work.units
    least = timing.minimum * work.units
    return {
        "record": "result",
        "work": work.name,
        "threads": threads,
        "peer": peer,
        "seconds": {"min": least, "q1": low, "median": middle, "q3": high},
        "rounds": len(timing.seconds),
        "calls": timing.calls,
        "cores_used": {
            "at_min": timing.cores[int(np.argmin(timing.seconds))] if timing.cores else None,
            "median": float(np.median(timing.cores)) if timing.cores else None,
        },
        "flops": cost.flops * work.units,
        "bytes": cost.bytes * work.units,
        "basis": cost.basis,
        "limit_seconds": floor,
        "fraction_of_limit": floor / least,
    } | more


def add_ratios(results: list[Record]) -> None:
    """Give each of our results of one work and thread count its best peer and the ratio of the minima."""
    peers = [r for r in results if r["record"] == "result" and r["peer"] != "gencore"]
    best = min(peers, key=lambda r: r["seconds"]["min"], default=None)
    for r in results:
        if r["record"] == "result" and r["peer"] == "gencore" and best:
            r["best_peer"] = best["peer"]
            r["ratio_to_best_peer"] = best["seconds"]["min"] / r["seconds"]["min"]


def write(path: Path, records: Iterable[Record]) -> None:
    """Append records to a file, one JSON object a line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        for record in records:
            file.write(json.dumps(record, ensure_ascii=False) + "\n")


def read(path: Path) -> list[Record]:
    """Read the records of a file."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines if line.strip()]


def duration(seconds: float) -> str:
    """Three digits and the unit that suits: '4.61 ms'."""
    unit, name = next((u for u in UNITS if seconds >= u[0] * 0.9995), UNITS[-1])
    value = seconds / unit
    digits = 0 if value >= 99.95 else 1 if value >= 9.995 else 2
    return f"{value:.{digits}f} {name}"


def size(count: float | None) -> str:
    """Bytes for the eye: '3.1 MB'."""
    if count is None:
        return "?"
    return f"{count / 1e6:.1f} MB" if count >= 1e5 else f"{count / 1e3:.0f} kB"


def tables(records: list[Record]) -> str:
    """Lay out a run in 100 columns: ours beside the best peer, then all peers, then what the figures do not say."""
    lines: list[str] = []
    for machine in (r for r in records if r["record"] == "machine"):
        threads = machine["threads"]
        here = [r for r in records if r.get("threads") == threads and r["record"] != "machine"]
        for part in (_headline(machine), _against_best(here), _all_peers(here), _footnotes(here)):
            lines += [*part, ""]
    return "\n".join(lines).rstrip()


def _headline(machine: Record) -> list[str]:
    threads = machine["threads"]
    limits = f"{machine['fma_gflops']:.0f} GFLOP/s multiply-add, {machine['copy_gbytes']:.0f} GB/s copy"
    blas = ", ".join(f"{b['internal_api']} {b['version']} {b['architecture']}" for b in machine["blas"])
    blas = blas or "not reported (threadpoolctl is not installed)"
    busy = " (BUSY: other processes ran)" if machine["load_before"] > 0.25 * machine["cores"] else ""
    plan = "" if machine["plan"] == "full" else f"; {machine['plan'].upper()} run"
    paragraphs = (
        f"{threads} thread{'s' if threads > 1 else ''} of {machine['cpu']}, {machine['isa']}; limit {limits}",
        f"{machine['date']}; load before the run {machine['load_before']:.1f}{busy}{plan}",
        f"gencore {machine['gencore']} ({machine['compiler']}); BLAS: {blas}",
    )
    return [line for text in paragraphs for line in textwrap.wrap(text, width=100, subsequent_indent="  ")]


def _works(records: list[Record]) -> list[str]:
    present = {r["work"] for r in records}
    return [name for name in WORKS if name in present]


def _find(records: list[Record], work: str, peer: str) -> Record | None:
    return next((r for r in records if r["work"] == work and r["peer"] == peer), None)


def _against_best(records: list[Record]) -> list[str]:
    lines = [f"{'':34}{'ours':>10}{'best peer':>20}{'ratio':>10}{'of limit':>12}{'peak memory':>14}"]
    for name in _works(records):
        ours = _find(records, name, "gencore")
        if ours is None or ours["record"] != "result":
            reason = ours["reason"] if ours else "not run"
            lines.append(f"{WORKS[name].title:34}{reason}")
            continue
        best = _find(records, name, ours["best_peer"]) if "best_peer" in ours else None
        peer = f"{duration(best['seconds']['min'])} {best['peer']:>8}" if best else "-"
        ratio = f"{ours['ratio_to_best_peer']:.2f}x" if best else "-"
        lines.append(
            f"{WORKS[name].title:34}{duration(ours['seconds']['min']):>10}{peer:>20}{ratio:>10}"
            f"{ours['fraction_of_limit']:>12.0%}{size(ours['peak_bytes']):>14}"
        )
    return lines


def _all_peers(records: list[Record]) -> list[str]:
    peers = [p for p in PEERS if any(r["peer"] == p and r["record"] == "result" for r in records)]
    lines = [f"{'minima':19}" + "".join(f"{p:>9}" for p in peers)]
    for name in _works(records):
        cells = []
        for peer in peers:
            r = _find(records, name, peer)
            if r is None or r["record"] == "absent":
                cells.append("-")
            else:
                cells.append(duration(r["seconds"]["min"]) if r["record"] == "result" else "wrong")
        lines.append(f"{name:19}" + "".join(f"{cell:>9}" for cell in cells))
    return lines


def _footnotes(records: list[Record]) -> list[str]:
    """What a reader must know, each once with the works it holds for. A blank cell's reason is in the records."""
    notes: dict[str, list[str]] = {}

    def note(text: str, work: str) -> None:
        notes.setdefault(text, []).append(work)

    for r in records:
        if r["record"] == "wrong":
            note(f"{r['peer']} DISAGREES, not timed: {r['reason']}", r["work"])
        elif r["record"] == "absent" and not r["installed"]:
            note(f"{r['peer']} absent: {r['reason']}", r["work"])
        elif r["record"] == "result" and r["note"]:
            note(f"{r['peer']}: {r['note']}", r["work"])
        if r.get("whole_seconds"):
            note(
                f"{r['peer']}: the whole work once, unscaled, took {duration(r['whole_seconds'])}", r["work"]
            )
    for r in records:
        if r["record"] == "result" and r["peer"] == "gencore":
            note(f"limit: {r['basis']}", r["work"])
            if r["density"]:
                note(
                    "states on: {:.3f} of the visible, {:.3f} of the hidden units".format(*r["density"]),
                    r["work"],
                )
    everything = len(_works(records))
    lines = []
    for text, works in notes.items():
        kinds = dict.fromkeys(WORKS[work].kind for work in works)
        where = "" if len(works) == everything > 1 else f" [{', '.join(kinds)}]"
        lines += textwrap.wrap(text + where, 100, initial_indent="  ", subsequent_indent="    ")
    return lines
