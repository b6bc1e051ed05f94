"""The rows that a command reads: data sets by name, arrays from files, and what a model takes of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from gencore import datasets

PICTURES, ARRAYS = (".png", ".pdf", ".svg"), (".npz", ".npy")
_SPLITS = ("train", "valid", "test")


@dataclass(frozen=True)
class Data:
    """Rows of examples, as a command reads them."""

    name: str
    splits: Mapping[str, NDArray[Any]]
    note: str = ""
    labels: Mapping[str, NDArray[Any]] = field(default_factory=dict)

    def split(self, name: str) -> NDArray[Any]:
        """The rows of a split; a file with a single array is any split that is asked for."""
        rows = self.splits.get(name, self.splits.get("all"))
        if rows is None:
            raise ValueError(f"{self.name} has no array {name!r}, only {', '.join(self.splits)}")
        return rows

    def labels_of(self, name: str) -> NDArray[np.int64]:
        """The labels of a split's rows."""
        found, rows = self.labels.get(name), self.split(name)
        if found is None:
            raise ValueError(f"{self.name} has no labels: expected an array '{name}_labels' beside {name!r}")
        if found.shape != (len(rows),) or found.dtype.kind not in "ui":
            raise ValueError(
                f"{self.name}: expected {name}_labels to be {len(rows)} integers, "
                f"received {found.dtype} {found.shape}"
            )
        return found.astype(np.int64)


def read_data(name: str, root: Path | None, threshold: float | None = 0.5) -> Data:
    """Data set of that name, or the arrays of that file; without a threshold, grey levels become 0 to 1."""
    path = Path(name)
    if name not in datasets.names() and (path.suffix in ARRAYS or path.exists()):
        splits, labels = _read_arrays(path)
        return Data(path.name, splits, labels=labels)
    data = datasets.load(name, root)
    note, white = "", data.max_value
    if white > 1 and threshold is not None:
        data = data.binarized(threshold)
        note = f", grey levels cut at {threshold:g} of white"
    splits = {split: getattr(data, split) for split in _SPLITS}
    if white > 1 and threshold is None:
        splits = {split: rows / np.float32(white) for split, rows in splits.items()}
        note = ", grey levels from 0 to 1"
    labels = {split: found for split in _SPLITS if (found := getattr(data, f"{split}_labels")) is not None}
    return Data(name, splits, note, labels)


def load_arrays(path: Path, kinds: str) -> NDArray[Any] | dict[str, NDArray[Any]]:
    """The array of an .npy file, or those of an .npz archive by name."""
    if not path.is_file():
        raise FileNotFoundError(f"no such file: {path}")
    try:
        loaded = np.load(path, allow_pickle=False)
        return loaded if isinstance(loaded, np.ndarray) else {k: loaded[k] for k in loaded.files}
    except (ValueError, EOFError, OSError, BadZipFile) as error:
        raise ValueError(f"{path} is not an {kinds} file of numbers") from error


def _read_arrays(path: Path) -> tuple[dict[str, NDArray[Any]], dict[str, NDArray[Any]]]:
    """The splits of a file, and the labels of those that have some."""
    loaded = load_arrays(path, ".npy or .npz")
    arrays = {"all": loaded} if isinstance(loaded, np.ndarray) else loaded
    splits = {k: v for k, v in arrays.items() if k in (*_SPLITS, "all")}
    labels = {k: arrays[f"{k}_labels"] for k in splits if f"{k}_labels" in arrays}
    if not splits and len(arrays) == 1:
        splits = {"all": next(iter(arrays.values()))}
    if not splits:
        raise ValueError(
            f"{path}: expected an array train, valid or test, or just one, received {', '.join(arrays)}"
        )
    for key, array in splits.items():
        if array.ndim != 2 or array.dtype.kind not in "buif" or 0 in array.shape:
            raise ValueError(
                f"{path}: expected rows of numbers in {key}, received {array.dtype} {array.shape}"
            )
    return splits, labels
