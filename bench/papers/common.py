"""What all settings share."""

import os
import platform
import subprocess
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

import gencore as gc

ROOT = Path(__file__).resolve().parents[2]


def report(model: Any, record: Mapping[str, float]) -> None:
    """Print an epoch's record, as a callback."""
    print(" ".join(f"{k}={v:.5g}" for k, v in record.items()), flush=True)


def checkpoint(kind: Any, path: Path) -> tuple[Any, list[dict[str, float]]]:
    """A model as a training has left it so far, and the records of its epochs."""
    stored = gc.io.load_model(path, kind.__name__)
    return kind.load(path), list(stored.state["training"]["history"])


def environment() -> dict[str, Any]:
    """Where the figure was made."""
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    return {
        "date": date.today().isoformat(), "commit": commit.stdout.strip(), "gencore": gc.__version__, "isa": gc.isa(),
        "threads": gc.num_threads(), "python": platform.python_version(), "numpy": np.__version__,
        "cores": os.cpu_count(),
    }  # fmt: skip
