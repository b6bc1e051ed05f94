"""Trains a paper's setting and writes our figure beside the published one.

    python bench/reproduce.py --list
    python bench/reproduce.py rbm-500-pcd

Needs the data (GENCORE_DATA, or the cache folder of gencore.datasets). A run keeps checkpoints in --work and goes on
from them after an interruption, to the same bits; its record is bench/results/reproduce-NAME.json.
"""

import argparse
import json
import sys
from pathlib import Path

from papers import autoregressive, rbm, vae
from papers.common import ROOT, environment

SETTINGS = {**rbm.SETTINGS, **vae.SETTINGS, **autoregressive.SETTINGS}


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="settings to run")
    parser.add_argument("--list", action="store_true", help="print the settings and their published figures")
    parser.add_argument(
        "--work", type=Path, default=ROOT / "out" / "reproduce", help="folder of the checkpoints"
    )
    parser.add_argument(
        "--results", type=Path, default=ROOT / "bench" / "results", help="folder of the records"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--so-far",
        action="store_true",
        help="evaluate what the checkpoint of an unfinished run holds (not rbm)",
    )
    options = parser.parse_args()
    if unknown := [name for name in options.names if name not in SETTINGS]:
        parser.error(f"expected names among {', '.join(SETTINGS)}, received {', '.join(unknown)}")
    if options.list or not options.names:
        for name, setting in SETTINGS.items():
            print(f"{name:<28} {setting.title:<58} published {setting.published}")
        return 0
    for name in options.names:
        record = SETTINGS[name].run(name, options.work, options.seed, options.so_far)
        record["unfinished"] = options.so_far
        record["environment"] = environment()
        record["command"] = f"python bench/reproduce.py {name}" + (
            f" --seed {options.seed}" if options.seed else ""
        )
        options.results.mkdir(parents=True, exist_ok=True)
        path = options.results / f"reproduce-{name}.json"
        path.write_text(json.dumps(record, indent=1) + "\n")
        ends = record.get("test_nll_bracket")
        bracket = f", bracket [{ends[0]:.2f}, {ends[1]:.2f}]" if ends else ""
        print(
            f"{record['title']}: test NLL {record['test_nll']:.2f}{bracket}; "
            f"published {record['published_test_nll']}; {path}"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
