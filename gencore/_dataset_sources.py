"""Where published data sets lie: the table of sources, the search for their files, and the download.

A source lists layouts: sets of files, as its authors publish it or packed into one npz, any of which will do.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from gencore._dataset_files import Arrays, read_amat, read_idx, read_libsvm, read_mat, read_npz

SPLITS = ("train", "valid", "test")


@dataclass(frozen=True)
class Layout:
    """Files that together hold a data set: file name by part; one file with all parts is named ''."""

    files: Mapping[str, str]
    read: Callable[[Path], Arrays]


@dataclass(frozen=True)
class Remote:
    """Files on the web: base addresses to try in turn, SHA-256 by file name."""

    mirrors: tuple[str, ...]
    sha256: Mapping[str, str]


@dataclass(frozen=True)
class Source:
    """A published data set: what it is, its true sizes, and the layouts and addresses it may come from."""

    description: str
    source: str
    licence: str
    address: str
    rows: tuple[int, int, int]
    columns: int
    layouts: tuple[Layout, ...]
    max_value: int = 1
    has_valid: bool = True  # else it is cut from the end of train
    image_shape: tuple[int, int] | None = None
    folders: tuple[str, ...] = ()
    remote: Remote | None = None


def _one_per_split(pattern: str, read: Callable[[Path], Arrays]) -> Layout:
    return Layout({split: pattern.format(split) for split in SPLITS}, read)


def _mnist_files(suffix: str) -> Layout:
    parts = {"train": "train-images-idx3", "train_labels": "train-labels-idx1"}
    parts |= {"test": "t10k-images-idx3", "test_labels": "t10k-labels-idx1"}
    return Layout({part: f"{stem}-ubyte{suffix}" for part, stem in parts.items()}, read_idx)


def _read_silhouettes(path: Path) -> Arrays:
    """Use our names for the splits; labels come as matrices of one row."""
    arrays = {name.replace("val_", "valid_").replace("_data", ""): a for name, a in read_mat(path).items()}
    return {name: a.ravel() if name.endswith("_labels") else a for name, a in arrays.items()}


_MNIST_SHA256 = {
    "train-images-idx3-ubyte.gz": "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
    "train-labels-idx1-ubyte.gz": "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
    "t10k-images-idx3-ubyte.gz": "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
    "t10k-labels-idx1-ubyte.gz": "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
}
_BINARIZED_MNIST_SHA256 = {
    "binarized_mnist_train.amat": "ad693b29f94c14277b095f5238ddefbbdaaae0939789dd2f4f0205278cee3e4d",
    "binarized_mnist_valid.amat": "1de3d397c40fe8eeb33dafd4099a1f665ec01e96d9be234aaeeac8a34930e2e2",
    "binarized_mnist_test.amat": "e6687bfea3f820c174f33b7865140b2a2dd2930ef786f35d45795fc193b5ab2c",
}
_TORONTO = "http://www.cs.toronto.edu/~larocheh/public/datasets/"

SOURCES: dict[str, Source] = {
    "mnist": Source(
        description="MNIST: handwritten digits of 28 x 28 grey levels. valid is the last 10,000 rows of the "
        "60,000 training images",
        source="Y. LeCun, C. Cortes and C. J. C. Burges, The MNIST database of handwritten digits",
        licence="CC BY-SA 3.0",
        address="https://storage.googleapis.com/cvdf-datasets/mnist/",
        rows=(50_000, 10_000, 10_000),
        columns=784,
        max_value=255,
        has_valid=False,
        image_shape=(28, 28),
        layouts=(_mnist_files(".gz"), _mnist_files("")),
        folders=("MNIST/raw",),
        remote=Remote(
            mirrors=(
                "https://storage.googleapis.com/cvdf-datasets/mnist/",
                "https://ossci-datasets.s3.amazonaws.com/mnist/",
            ),
            sha256=_MNIST_SHA256,
        ),
    ),
    "binarized_mnist": Source(
        description="MNIST, each pixel drawn once with probability grey level / 255 (the static "
        "binarisation: likelihoods do not compare with those of a threshold or of fresh draws). "
        "test is in the order of the digits, train and valid are mixed",
        source="R. Salakhutdinov and I. Murray, On the quantitative analysis of deep belief networks, 2008; "
        "file by H. Larochelle",
        licence="derived from MNIST, CC BY-SA 3.0",
        address=_TORONTO + "binarized_mnist/",
        rows=(50_000, 10_000, 10_000),
        columns=784,
        image_shape=(28, 28),
        layouts=(
            Layout({"": "binarized_mnist.npz"}, read_npz),
            _one_per_split("binarized_mnist_{}.amat", read_amat),
        ),
        remote=Remote(
            mirrors=(_TORONTO + "binarized_mnist/",),
            sha256=_BINARIZED_MNIST_SHA256,
        ),
    ),
    "caltech101_silhouettes": Source(
        description="Outlines of the Caltech 101 objects, 28 x 28, as published: the object is 0, the ground "
        "1, and pixels run column by column (transpose an image to see it upright). Labels 1..101",
        source="B. Marlin, K. Swersky, B. Chen and N. de Freitas, Inductive principles for restricted "
        "Boltzmann machine learning, 2010",
        licence="none stated; derived from Caltech 101 (CC BY 4.0)",
        address="https://people.cs.umass.edu/~marlin/data/caltech101_silhouettes_28_split1.mat",
        rows=(4_100, 2_264, 2_307),
        columns=784,
        image_shape=(28, 28),
        layouts=(
            Layout({"": "caltech101_silhouettes_28.npz"}, read_npz),
            Layout({"": "caltech101_silhouettes_28_split1.mat"}, _read_silhouettes),
        ),
    ),
    "dna": Source(
        description="Splice junctions of DNA: 60 nucleotides in 3 bits each",
        source="UCI Statlog (Molecular Biology, splice-junction gene sequences); splits of H. Larochelle, "
        "Y. Bengio and J. Turian, Tractable multivariate binary density estimation, 2010",
        licence="CC BY 4.0",
        address=_TORONTO + "dna/dna_scale_{train,valid,test}.libsvm",
        rows=(1_400, 600, 1_186),
        columns=180,
        layouts=(
            Layout({"": "dna.npz"}, read_npz),
            _one_per_split("dna_scale_{}.libsvm", partial(read_libsvm, n_columns=180)),
            _one_per_split("dna_{}.amat", read_amat),
        ),
    ),
    "mushrooms": Source(
        description="Mushrooms: 22 properties, one bit for each value",
        source="UCI Mushroom; splits of H. Larochelle, Y. Bengio and J. Turian, Tractable multivariate "
        "binary density estimation, 2010",
        licence="CC BY 4.0",
        address=_TORONTO + "mushrooms/mushrooms_{train,valid,test}.libsvm",
        rows=(2_000, 500, 5_624),
        columns=112,
        layouts=(
            Layout({"": "mushrooms.npz"}, read_npz),
            _one_per_split("mushrooms_{}.libsvm", partial(read_libsvm, n_columns=112)),
            _one_per_split("mushrooms_{}.amat", read_amat),
        ),
    ),
}


def read_source(
    name: str, root: str | os.PathLike[str] | None, download: bool
) -> tuple[Arrays, dict[str, Path]]:
    """Find, or fetch, and read a data set; arrays by name, and the file that each came from."""
    source = SOURCES[name]
    cache = Path(_pooch().os_cache("gencore"))
    environment = os.environ.get("GENCORE_DATA")
    places = [Path(root)] if root is not None else [*([Path(environment)] if environment else []), cache]
    found = _find(name, source, places)
    if found is None and download and source.remote is not None:
        _download(name, source, places[-1] / name)
        found = _find(name, source, places)
    if found is None:
        raise FileNotFoundError(_how_to_get(name, source, places))
    layout, folder = found
    arrays: Arrays = {}
    origin: dict[str, Path] = {}
    for prefix, file in layout.files.items():
        for suffix, array in layout.read(folder / file).items():
            part = "_".join(filter(None, (prefix, suffix)))
            arrays[part], origin[part] = array, folder / file
    return arrays, origin


def _pooch() -> Any:
    """Import pooch only now: it takes as long as NumPy, and most programs read a local file or none."""
    return importlib.import_module("pooch")


def _candidates(name: str, source: Source, places: list[Path]) -> list[tuple[Layout, Path]]:
    folders = ("", name, *source.folders)
    return [(layout, place / folder) for place in places for layout in source.layouts for folder in folders]


def _find(name: str, source: Source, places: list[Path]) -> tuple[Layout, Path] | None:
    for layout, folder in _candidates(name, source, places):
        if all((folder / file).is_file() for file in layout.files.values()):
            return layout, folder
    return None


def _download(name: str, source: Source, folder: Path) -> None:
    assert source.remote is not None
    for file, sha256 in source.remote.sha256.items():
        failures = []
        for mirror in source.remote.mirrors:
            try:
                _pooch().retrieve(
                    mirror + file,
                    f"sha256:{sha256}",
                    fname=file,
                    path=folder,
                    progressbar=sys.stderr.isatty(),
                )
                break
            except (OSError, ValueError) as error:  # no network, no such page; a wrong checksum
                failures.append(f"  {mirror}{file}: {error}")
        else:
            reasons = "\n".join(failures)
            raise OSError(
                f"data set {name!r} could not be downloaded:\n{reasons}\n"
                f"Get it by hand from {source.address} and {_put_it(folder)}"
            )


def _put_it(folder: Path) -> str:
    return f"put it into {folder}, or name its folder by the argument root or by GENCORE_DATA"


def _how_to_get(name: str, source: Source, places: list[Path]) -> str:
    lines = [f"data set {name!r} was not found. Looked for"]
    for layout, folder in _candidates(name, source, places):
        files = list(layout.files.values())
        lacking = [file for file in files if not (folder / file).is_file()]
        there = f" ({', '.join(lacking)} missing)" if len(lacking) < len(files) else ""
        lines.append(f"  {folder / files[0]}" + (f" and {', '.join(files[1:])}" if files[1:] else "") + there)
    lines.append(f"Get it from {source.address} and {_put_it(places[-1])}")
    if source.remote is not None:
        lines.append("download=True fetches it")
    return "\n".join(lines)
