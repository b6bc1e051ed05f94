"""Trains a paper's setting and writes our figure beside the published one.

    python bench/reproduce.py --list
    python bench/reproduce.py rbm-500-pcd

Needs the data (GENCORE_DATA, or the cache folder of gencore.datasets). A run keeps checkpoints in --work and goes on
from them after an interruption, to the same bits; its record is bench/results/reproduce-NAME.json.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

import gencore as gc

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Setting:
    """One line of a paper's table. Training arguments are those of `RBM.fit`."""

    title: str
    published: str
    n_hidden: int
    epochs: int
    fit: dict[str, Any]
    lr: Callable[[], gc.train.Schedule]
    data: str = "binarized_mnist"
    splits: tuple[str, ...] = ("train",)  # what it learns from
    evaluation: dict[str, Any] = field(default_factory=dict)


def _rbm20(k: int, published: str) -> Setting:
    return Setting(
        f"RBM 784x20, CD-{k}, exact Z", f"{published} (Salakhutdinov & Murray 2008, quoted from memory)", 20, 50,
        {"algorithm": "cd", "k": k, "batch_size": 100}, lambda: gc.train.linear(0.05, 0.0),
    )  # fmt: skip


SETTINGS = {
    "rbm-20-cd1": _rbm20(1, "164.87"),
    "rbm-20-cd3": _rbm20(3, "152.68"),
    "rbm-20-cd25": _rbm20(25, "143.20"),
    "rbm-500-cd1": Setting(
        "RBM 784x500, CD-1", "125.53 (Salakhutdinov & Murray 2008, quoted from memory)", 500, 50,
        {"algorithm": "cd", "k": 1, "batch_size": 100}, lambda: gc.train.linear(0.05, 0.0),
    ),
    # The paper's training set is all 60,000 images: train and valid of the static split.
    "rbm-500-cd25": Setting(
        "RBM 784x500, CD-25", "86.34 (Salakhutdinov & Murray 2008)", 500, 80,
        {"algorithm": "cd", "k": 25, "batch_size": 100, "weight_decay": 1e-4},
        lambda: gc.train.linear(0.05, 0.0, hold=0.4), splits=("train", "valid"),
    ),
    "rbm-500-pcd": Setting(
        "RBM 784x500, PCD-5, 400 chains", "86.34 for CD-25; 84.86 for centred PCD-1 at threshold .5, reverse AIS 96.61",
        500, 80, {"algorithm": "pcd", "k": 5, "batch_size": 100, "n_chains": 400, "weight_decay": 5e-5},
        lambda: gc.train.linear(0.1, 0.0), splits=("train", "valid"),
    ),
}  # fmt: skip


def run(name: str, setting: Setting, work: Path, seed: int) -> dict[str, Any]:
    """Train to the end (or on to it), evaluate on the test set, return the record."""
    data = gc.datasets.load(setting.data)
    rows = np.concatenate([getattr(data, split) for split in setting.splits])
    model = gc.models.RBM(rows.shape[1], setting.n_hidden, seed=seed)
    work.mkdir(parents=True, exist_ok=True)

    def report(model: gc.models.RBM, record: Any) -> None:
        print(" ".join(f"{k}={v:.5g}" for k, v in record.items()), flush=True)

    history = model.fit(
        rows, epochs=setting.epochs, lr=setting.lr(), validation=data.valid, callbacks=[report], progress=False,
        checkpoint=work / f"{name}.safetensors", resume=True, **setting.fit,
    )  # fmt: skip
    start = time.perf_counter()
    log_z = model.log_partition(**setting.evaluation)
    seconds = time.perf_counter() - start
    print(log_z)
    mean = {
        split: float(-model.free_energy(getattr(data, split)).mean()) for split in ("train", "valid", "test")
    }
    figures = {
        "test_nll": log_z.value - mean["test"],
        "test_nll_bracket": [log_z.lower - mean["test"], log_z.upper - mean["test"]],
        "test_nll_reverse": None if log_z.method == "exact" else log_z.reverse - mean["test"],
        "train_nll": log_z.value - mean["train"],
        "valid_nll": log_z.value - mean["valid"],
    }
    partition = {
        k: (None if v != v or abs(v) == np.inf else v)
        for k, v in asdict(log_z).items()
        if isinstance(v, float)
    } | {"method": log_z.method}
    return {
        "name": name, "title": setting.title, "published_test_nll": setting.published, **figures,
        "log_partition": partition, "evaluation_seconds": round(seconds, 2),
        "training": {
            "data": setting.data, "splits": setting.splits, "n_hidden": setting.n_hidden,
            "epochs": setting.epochs, "seed": seed,
            "lr": [setting.lr()(x) for x in (0.0, 0.5, 1.0)], **setting.fit,
            "seconds": history.records[-1]["seconds"], "updates": model.steps,
        },
        "curve": history.records, "environment": environment(),
        "command": f"python bench/reproduce.py {name}" + (f" --seed {seed}" if seed else ""),
    }  # fmt: skip


def environment() -> dict[str, Any]:
    """Where the figure was made."""
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    return {
        "date": date.today().isoformat(), "commit": commit.stdout.strip(), "gencore": gc.__version__, "isa": gc.isa(),
        "threads": gc.num_threads(), "python": platform.python_version(), "numpy": np.__version__,
        "cores": os.cpu_count(),
    }  # fmt: skip


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
    options = parser.parse_args()
    if unknown := [name for name in options.names if name not in SETTINGS]:
        parser.error(f"expected names among {', '.join(SETTINGS)}, received {', '.join(unknown)}")
    if options.list or not options.names:
        for name, setting in SETTINGS.items():
            print(f"{name:<14} {setting.title:<34} published {setting.published}")
        return 0
    for name in options.names:
        record = run(name, SETTINGS[name], options.work, options.seed)
        options.results.mkdir(parents=True, exist_ok=True)
        path = options.results / f"reproduce-{name}.json"
        path.write_text(json.dumps(record, indent=1) + "\n")
        low, high = record["test_nll_bracket"]
        print(
            f"{record['title']}: test NLL {record['test_nll']:.2f}, bracket [{low:.2f}, {high:.2f}]; "
            f"published {record['published_test_nll']}; {path}"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
