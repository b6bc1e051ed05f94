#!/usr/bin/env python
"""Two runs side by side: `python bench/compare.py BEFORE.jsonl AFTER.jsonl [--peer gencore]`.

Times are minima. `change` is the second time over the first: fair only if the machine was the same and idle. `ratio`
is each run's own ratio to its best peer, which machine and load touch far less.
"""

import argparse
from pathlib import Path

from gencore._bench.report import Record, duration, read
from gencore._bench.works import WORKS

Key = tuple[int, str]


def results(path: Path, peer: str) -> dict[Key, Record]:
    """The last result of each work and thread count."""
    return {(r["threads"], r["work"]): r for r in read(path) if r["record"] == "result" and r["peer"] == peer}


def compare(before: dict[Key, Record], after: dict[Key, Record]) -> list[str]:
    """Lines of the table; what only one run has is named below it."""
    lines = [
        f"{'threads  work':32}{'before':>10}{'after':>10}{'change':>9}{'ratio before':>15}{'ratio after':>14}"
    ]
    order = list(WORKS)
    for key in sorted(before.keys() & after.keys(), key=lambda k: (k[0], order.index(k[1]))):
        old, new = before[key], after[key]
        ratios = [f"{r['ratio_to_best_peer']:.2f}x" if "ratio_to_best_peer" in r else "-" for r in (old, new)]
        seconds = [r["seconds"]["min"] for r in (old, new)]
        lines.append(
            f"{key[0]:7}  {key[1]:23}{duration(seconds[0]):>10}{duration(seconds[1]):>10}"
            f"{seconds[1] / seconds[0]:>8.2f}x{ratios[0]:>15}{ratios[1]:>14}"
        )
    for name, here, there in (("first", before, after), ("second", after, before)):
        if alone := here.keys() - there.keys():
            lines.append(
                f"only in the {name}: " + ", ".join(f"{work} ({threads})" for threads, work in sorted(alone))
            )
    return lines


def describe(name: str, path: Path) -> list[str]:
    """Say where and from what a run came."""
    machines = [r for r in read(path) if r["record"] == "machine"]
    return [
        f"{name}: {m['threads']} thr. {m['date']} {m['commit']} {m['cpu']} {m['isa']} load {m['load_before']:.1f}"
        for m in machines
    ]


def main() -> int:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("before", type=Path)
    p.add_argument("after", type=Path)
    p.add_argument("--peer", default="gencore", help="whose times to compare (default: %(default)s)")
    args = p.parse_args()
    for path in (args.before, args.after):
        if not path.is_file():
            p.error(f"no file {path}")
    runs = [results(path, args.peer) for path in (args.before, args.after)]
    print("\n".join(describe("before", args.before) + describe("after ", args.after) + ["", *compare(*runs)]))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
