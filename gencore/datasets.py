"""Data sets: bundled digits, enumerable toy sets, and the published binary sets from a folder or by download.

>>> import gencore as gc
>>> data = gc.datasets.load("digits")
>>> data.train.shape
(1285, 64)
"""

from __future__ import annotations

import difflib
import math
import operator
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any, SupportsIndex

import numpy as np
from numpy.typing import NDArray

from gencore._dataset_files import read_npz
from gencore._dataset_sources import SOURCES, SPLITS, read_source

__all__ = ["Dataset", "bars_and_stripes", "digits", "labeled_shifter", "load", "names"]


@dataclass(frozen=True, repr=False, eq=False)
class Dataset:
    """A data set in fixed splits.

    Attributes
    ----------
    name : str
        Name for `load`.
    train, valid, test : ndarray of uint8, shape (n, n_columns)
        Values 0..`max_value`; writable, private to this object.
    description, source, licence : str
        What it is, who made it, on what terms it may be used.
    max_value : int
        Largest value: 1 for binary sets, the white of grey levels otherwise.
    image_shape : (int, int) or None
        Rows and columns of pixels, where a row of the data is an image.
    train_labels, valid_labels, test_labels : ndarray of int64, shape (n,), or None
        Class of each row, as published.
    """

    name: str
    train: NDArray[np.uint8]
    valid: NDArray[np.uint8]
    test: NDArray[np.uint8]
    description: str
    source: str
    licence: str
    max_value: int = 1
    image_shape: tuple[int, int] | None = None
    train_labels: NDArray[np.int64] | None = None
    valid_labels: NDArray[np.int64] | None = None
    test_labels: NDArray[np.int64] | None = None

    def binarized(self, threshold: float = 0.5) -> Dataset:
        """Return the data set with each value replaced by 1 if it is at least `threshold` times `max_value`.

        Parameters
        ----------
        threshold : float
            Above 0, at most 1. 0.5 is one of the conventions of 'binary MNIST' (grey level 128 and up).

        Returns
        -------
        Dataset
            Values 0 and 1; the description says how they came about.

        Raises
        ------
        ValueError
            The threshold is out of range.
        """
        if not 0.0 < threshold <= 1.0:
            raise ValueError(f"binarized: expected 0 < threshold <= 1, received {threshold}")
        level = threshold * self.max_value
        splits: dict[str, Any] = {split: (getattr(self, split) >= level).astype(np.uint8) for split in SPLITS}
        text = f"{self.description}; 1 where the value is at least {level:g} of {self.max_value}"
        return replace(self, **splits, description=text, max_value=1)

    def __repr__(self) -> str:
        sizes = ", ".join(f"{split} {getattr(self, split).shape}" for split in SPLITS)
        facts = ["0/1" if self.max_value == 1 else f"0..{self.max_value}"]
        if self.image_shape is not None:
            facts.append("images {} x {}".format(*self.image_shape))
        if self.train_labels is not None:
            facts.append(f"labels {self.train_labels.min()}..{self.train_labels.max()}")
        return (
            f"Dataset {self.name!r}: {sizes}; {', '.join(facts)}\n"
            f"  {self.description}\n  source: {self.source}\n  licence: {self.licence}"
        )


def names() -> list[str]:
    """Return the names that `load` knows."""
    return [*_BUILT_IN, *SOURCES]


def load(name: str, root: str | os.PathLike[str] | None = None, download: bool = True) -> Dataset:
    """Load a data set by name.

    Parameters
    ----------
    name : str
        One of `names`. Bundled or computed: ``digits``, ``bars_and_stripes`` (4 x 4), ``labeled_shifter``
        (8 bits). Read from files: ``mnist`` (grey), ``binarized_mnist``, ``caltech101_silhouettes``, ``dna``,
        ``mushrooms``.
    root : path-like, optional
        The only folder to look in, and to download to. Without it: the folder that the environment variable
        ``GENCORE_DATA`` names, then gencore's cache folder, which downloads go to. Files may lie in the
        folder itself or in one of the data set's name, in the form their authors publish or as one npz.
    download : bool
        Fetch files that are not there, where the data set has a public address with a known SHA-256 (mnist,
        binarized_mnist).

    Returns
    -------
    Dataset
        The same arrays whatever the files' form.

    Raises
    ------
    ValueError
        Unknown name; or a file that is damaged or holds something else, which the message names.
    FileNotFoundError
        Not there; the message lists every path looked at and says where to get the files.
    OSError
        The download failed or brought a wrong checksum.
    ImportError
        A MATLAB file is all there is and scipy is not installed.
    """
    if name in _BUILT_IN:
        return _BUILT_IN[name]()
    if name not in SOURCES:
        close = difflib.get_close_matches(name, names(), n=1)
        hint = f" (did you mean {close[0]!r}?)" if close else ""
        raise ValueError(f"load: unknown data set {name!r}{hint}, known: {', '.join(names())}")
    return _published(name, root, download)


def digits(threshold: float | None = 0.5) -> Dataset:
    """Return the bundled 8 x 8 handwritten digits, 1,285 / 256 / 256 images.

    Rows of the source whose number leaves 5 on division by 7 are valid, those that leave 6 are test.

    Parameters
    ----------
    threshold : float or None
        Grey levels 0..16 become 1 from ``threshold * 16`` up (0.5: from level 8); None keeps the grey levels.

    Returns
    -------
    Dataset
        With labels 0..9.
    """
    with as_file(files("gencore") / "data" / "digits.npz") as path:
        arrays = read_npz(path)
    group = np.maximum(np.arange(len(arrays["images"])) % 7, 4) - 4  # 0: train, 1: valid, 2: test
    parts: dict[str, Any] = {split: arrays["images"][group == g] for g, split in enumerate(SPLITS)}
    parts |= {
        f"{split}_labels": arrays["labels"][group == g].astype(np.int64) for g, split in enumerate(SPLITS)
    }
    grey = Dataset(
        name="digits",
        description="Optical recognition of handwritten digits, the 1,797 images of the test part, 8 x 8",
        source="E. Alpaydin and C. Kaynak, UCI Machine Learning Repository, 1998, doi 10.24432/C50P49",
        licence="CC BY 4.0",
        max_value=16,
        image_shape=(8, 8),
        **parts,
    )
    return grey if threshold is None else grey.binarized(threshold)


def bars_and_stripes(n: SupportsIndex = 4, *, double_blank: bool = False) -> Dataset:
    """Return all n x n images whose columns are constant (bars) or whose rows are (stripes).

    Parameters
    ----------
    n : int
        Pixels a side, 1..16.
    double_blank : bool
        The empty and the full image are both bars and stripes. False: the 2^(n+1) - 2 distinct patterns, and
        the best mean negative log-likelihood is ln(2^(n+1) - 2) nats. True: those two come twice, 2^(n+1)
        rows, as where one first draws bars or stripes and then the lines: (n+1) ln 2 - ln(2) / 2^(n-1) nats.

    Returns
    -------
    Dataset
        Bars come first. train, valid and test are all of the patterns, each of its own: the set is the whole
        distribution, and nothing is left to hold out.
    """
    n = _side("bars_and_stripes", n)
    lines = _all_states(n)
    bars = np.tile(lines, (1, n))
    stripes = np.repeat(lines, n, axis=1)
    rows = np.concatenate([bars, stripes if double_blank else stripes[1:-1]])
    convention = "the blank and the full image twice" if double_blank else "distinct patterns"
    return _enumerated(
        "bars_and_stripes",
        rows,
        description=f"Bars and stripes {n} x {n}, all {len(rows)} rows, {convention}",
        source="D. MacKay, Information Theory, Inference, and Learning Algorithms, 2003",
        image_shape=(n, n),
    )


def labeled_shifter(n: SupportsIndex = 8) -> Dataset:
    """Return the labeled shifter ensemble: n bits, the same shifted around by -1, 0 or 1, and which of these.

    Parameters
    ----------
    n : int
        Bits of the pattern, 1..16.

    Returns
    -------
    Dataset
        3 * 2^n distinct rows of 2 n + 3 bits: pattern, shifted pattern, one of three bits (left, none,
        right). Labels 0 (left), 1 (none), 2 (right). The best mean negative log-likelihood is ln(3 * 2^n)
        nats: 6.643790 for n = 8. train, valid and test are all of the rows, each of its own.
    """
    n = _side("labeled_shifter", n)
    pattern = _all_states(n)
    shifted = np.concatenate([np.roll(pattern, step, axis=1) for step in (-1, 0, 1)])
    labels = np.repeat(np.arange(3), len(pattern))
    rows = np.hstack([np.tile(pattern, (3, 1)), shifted, np.eye(3, dtype=np.uint8)[labels]])
    return _enumerated(
        "labeled_shifter",
        rows,
        labels,
        description=f"Labeled shifter, {n} bits, all {len(rows)} rows: pattern, cyclic shift, which shift",
        source="A. Fischer and C. Igel, Empirical analysis of the divergence of Gibbs sampling based "
        "learning algorithms for restricted Boltzmann machines, 2010",
    )


_BUILT_IN: dict[str, Callable[[], Dataset]] = {
    "digits": digits,
    "bars_and_stripes": bars_and_stripes,
    "labeled_shifter": labeled_shifter,
}


def _side(function: str, n: SupportsIndex) -> int:
    size = operator.index(n)
    if not 1 <= size <= 16:
        raise ValueError(f"{function}: expected n in 1..16, received {size}")
    return size


def _all_states(n: int) -> NDArray[np.uint8]:
    """All states of n bits, counting up, the first bit the highest."""
    return ((np.arange(2**n)[:, None] >> np.arange(n)[::-1]) & 1).astype(np.uint8)


def _enumerated(
    name: str,
    rows: NDArray[np.uint8],
    labels: NDArray[np.int64] | None = None,
    *,
    description: str,
    source: str,
    image_shape: tuple[int, int] | None = None,
) -> Dataset:
    parts: dict[str, Any] = {split: rows.copy() for split in SPLITS}
    if labels is not None:
        parts |= {f"{split}_labels": labels.copy() for split in SPLITS}
    return Dataset(
        name, description=description, source=source, licence="computed", image_shape=image_shape, **parts
    )


def _published(name: str, root: str | os.PathLike[str] | None, download: bool) -> Dataset:
    """Read a source's files, hold them to its sizes and values, and put them into splits."""
    source = SOURCES[name]
    arrays, origin = read_source(name, root, download)
    sizes = dict(zip(SPLITS, source.rows, strict=True))
    if not source.has_valid:
        sizes = {"train": sizes["train"] + sizes["valid"], "test": sizes["test"]}
    parts: dict[str, Any] = {}
    for split, n in sizes.items():
        if split not in arrays:
            holds = ", ".join(arrays)
            raise ValueError(f"{next(iter(origin.values()))}: expected an array {split!r}, received {holds}")
        data = np.atleast_1d(arrays[split])
        rows = data.reshape(len(data), math.prod(data.shape[1:]))
        checked = _integers(origin[split], split, rows, (n, source.columns), source.max_value)
        parts[split] = checked.astype(np.uint8, order="C")
        labels = f"{split}_labels"
        if labels in arrays:
            parts[labels] = _integers(origin[labels], labels, arrays[labels], (n,), 255).astype(np.int64)
    if not source.has_valid:
        for part in [part for part in parts if part.startswith("train")]:
            parts[part], parts[part.replace("train", "valid")] = np.split(parts[part], [source.rows[0]])
    return Dataset(
        name,
        description=source.description,
        source=source.source,
        licence=source.licence,
        max_value=source.max_value,
        image_shape=source.image_shape,
        **parts,
    )


def _integers(
    path: Path, what: str, array: NDArray[Any], shape: tuple[int, ...], max_value: int
) -> NDArray[Any]:
    """Return the array if it has this shape and holds integers 0..max_value; else name the file."""
    if array.shape != shape:
        raise ValueError(f"{path}: expected {what} of shape {shape}, received {array.shape}")
    if array.dtype.kind not in "buif" or not ((array >= 0) & (array <= max_value) & (array % 1 == 0)).all():
        raise ValueError(f"{path}: expected integers 0..{max_value} in {what}, received other values")
    return array
