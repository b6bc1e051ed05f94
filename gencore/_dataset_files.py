"""Readers of the file formats in which data sets are published: IDX, npz, amat, libsvm and MATLAB files.

Each takes a path and returns named arrays; what cannot be read is a ValueError that names the file. An
array's name is '' (or 'labels') where the file is about one split alone.
"""

from __future__ import annotations

import gzip
import importlib
import warnings
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Arrays = dict[str, NDArray[Any]]

_IDX_UINT8 = 0x08


def read_idx(path: Path) -> Arrays:
    """Read an IDX file of bytes (MNIST's format), gzipped or not: big-endian sizes, then the bytes."""
    raw = path.read_bytes()
    if raw[:2] == b"\x1f\x8b":
        try:
            raw = gzip.decompress(raw)
        except (OSError, EOFError, zlib.error) as error:
            raise ValueError(f"{path}: damaged gzip file: {error}") from error
    if len(raw) < 4 or raw[:2] != b"\0\0" or raw[2] != _IDX_UINT8 or len(raw) < 4 + 4 * raw[3]:
        raise ValueError(f"{path}: not an IDX file of bytes")
    shape = np.frombuffer(raw, ">u4", count=raw[3], offset=4).astype(np.int64)
    data = np.frombuffer(raw, np.uint8, offset=4 + 4 * raw[3])
    if data.size != shape.prod():
        raise ValueError(f"{path}: expected {shape.prod()} bytes after the header, received {data.size}")
    return {"": data.reshape(shape).copy()}


def read_npz(path: Path) -> Arrays:
    """Read all arrays of a NumPy archive; pickled objects are refused."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (zipfile.BadZipFile, ValueError, EOFError, OSError, zlib.error, TypeError) as error:
        raise ValueError(f"{path}: not a readable npz file: {error}") from error


def read_amat(path: Path) -> Arrays:
    """Read a matrix of small whole numbers as text, one row a line."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # an empty file has a wrong shape, which is reported
            return {"": np.loadtxt(path, dtype=np.uint8, ndmin=2, comments=None)}
    except ValueError as error:
        raise ValueError(f"{path}: not a matrix of whole numbers: {error}") from error


def read_libsvm(path: Path, n_columns: int) -> Arrays:
    """Read lines 'label index:value ...' with indices from 1; columns not named are 0."""
    lines = [line.split() for line in path.read_text().splitlines() if line.strip()]
    data = np.zeros((len(lines), n_columns), np.uint8)
    labels = np.zeros(len(lines), np.int64)
    for row, tokens in enumerate(lines):
        try:
            labels[row] = int(tokens[0])
            for index, value in (token.split(":") for token in tokens[1:]):
                column = int(index) - 1
                if not 0 <= column < n_columns or float(value) not in (0.0, 1.0):
                    raise ValueError(f"expected 0 or 1 in columns 1..{n_columns}, received {index}:{value}")
                data[row, column] = float(value)
        except ValueError as error:
            raise ValueError(f"{path}: entry {row + 1} is not 'label index:value ...': {error}") from error
    return {"": data, "labels": labels}


def read_mat(path: Path) -> Arrays:
    """Read the numeric arrays of a MATLAB file (needs scipy)."""
    try:
        scipy_io = importlib.import_module("scipy.io")
    except ImportError as error:
        raise ImportError(f"{path}: MATLAB files are read by scipy: pip install scipy") from error
    try:
        content = scipy_io.loadmat(path)
    except Exception as error:  # scipy raises many kinds on damaged files
        raise ValueError(f"{path}: not a readable MATLAB file: {error}") from error
    return {name: a for name, a in content.items() if isinstance(a, np.ndarray) and a.dtype.kind in "buif"}
