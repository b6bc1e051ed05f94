"""Restricted Boltzmann machines: Salakhutdinov & Murray 2008, and centred PCD."""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

import gencore as gc
from papers.common import report


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

    def run(self, name: str, work: Path, seed: int, so_far: bool) -> dict[str, Any]:
        """Train to the end (or on to it), evaluate on the test set, return the record."""
        if so_far:
            raise SystemExit(f"{name}: --so-far is for models that learn by gc.train.fit")
        data = gc.datasets.load(self.data)
        rows = np.concatenate([getattr(data, split) for split in self.splits])
        model = gc.models.RBM(rows.shape[1], self.n_hidden, seed=seed)
        work.mkdir(parents=True, exist_ok=True)

        history = model.fit(
            rows, epochs=self.epochs, lr=self.lr(), validation=data.valid, callbacks=[report], progress=False,
            checkpoint=work / f"{name}.safetensors", resume=True, **self.fit,
        )  # fmt: skip
        start = time.perf_counter()
        log_z = model.log_partition(**self.evaluation)
        seconds = time.perf_counter() - start
        print(log_z)
        mean = {
            split: float(-model.free_energy(getattr(data, split)).mean())
            for split in ("train", "valid", "test")
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
            "name": name, "title": self.title, "published_test_nll": self.published, **figures,
            "log_partition": partition, "evaluation_seconds": round(seconds, 2),
            "training": {
                "data": self.data, "splits": self.splits, "n_hidden": self.n_hidden,
                "epochs": self.epochs, "seed": seed,
                "lr": [self.lr()(x) for x in (0.0, 0.5, 1.0)], **self.fit,
                "seconds": history.records[-1]["seconds"], "updates": model.steps,
            },
            "curve": history.records,
        }  # fmt: skip


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
