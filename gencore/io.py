"""Model files: safetensors with the model's kind, config and state in the header.

A model is one safetensors file whose ``__metadata__`` holds, as strings: ``format`` ("gencore"),
``format_version``, ``kind`` (the model class), ``config`` and ``state`` (JSON objects), and each string,
integer or float of ``state`` once more under its own name, for readers without a JSON parser
(``gencore::ModelFile`` in C++).
"""

from __future__ import annotations

import fcntl
import glob
import json
import os
import secrets
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

FORMAT_VERSION = 1
_RESERVED = frozenset({"format", "format_version", "kind", "config", "state"})


@dataclass(frozen=True)
class StoredModel:
    """What a model file holds.

    Attributes
    ----------
    kind : str
        Name of the model class, e.g. ``"RBM"``.
    config : dict
        What the constructor needs to build the model again.
    state : dict
        JSON-able state of training and sampling (keys, counters, generator).
    tensors : dict of str to ndarray
        Named arrays in the shapes and dtypes they were saved in; writable, private to this object.
    path : Path
        The file they came from.
    """

    kind: str
    config: dict[str, Any]
    state: dict[str, Any]
    tensors: dict[str, NDArray[Any]]
    path: Path

    def take(self, names: Iterable[str], optional: Iterable[str] = ()) -> dict[str, NDArray[Any]]:
        """Return the tensors if they are exactly those expected.

        Parameters
        ----------
        names : iterable of str
            Tensors that the file must hold.
        optional : iterable of str
            Tensors that it may hold besides.

        Returns
        -------
        dict of str to ndarray
            All tensors of the file.

        Raises
        ------
        ValueError
            Lists the names that are missing and those that nobody expects.
        """
        required = set(names)
        missing = sorted(required - self.tensors.keys())
        unexpected = sorted(self.tensors.keys() - required - set(optional))
        if missing or unexpected:
            parts = [f"missing {', '.join(missing)}"] if missing else []
            parts += [f"unexpected {', '.join(unexpected)}"] if unexpected else []
            raise ValueError(f"load_model: {self.path} does not fit a {self.kind}: {'; '.join(parts)}")
        return dict(self.tensors)


def save_model(
    path: str | os.PathLike[str],
    *,
    kind: str,
    config: Mapping[str, Any],
    state: Mapping[str, Any],
    tensors: Mapping[str, NDArray[Any]],
) -> None:
    """Write a model file; an older file of that name stays whole until the new one is.

    The bytes go to a temporary file in the same folder, are flushed to disk, and take the name in one step.
    Equal arguments give equal bytes.

    Parameters
    ----------
    path : path-like
        File to write; its folder must exist. The suffix ``.safetensors`` is customary, not required.
    kind : str
        Name of the model class.
    config, state : mapping
        JSON-able: strings, finite numbers, booleans, None, lists and dicts with string keys. Numbers of 64
        bits that other programs must read exactly (keys of random numbers) belong in decimal strings.
    tensors : mapping of str to ndarray
        Boolean, integer or float arrays of any shape.

    Raises
    ------
    ValueError, TypeError
        An argument cannot be stored; nothing is written.
    OSError
        The file cannot be written; an older one is untouched.

    Notes
    -----
    Extra memory: one copy of the tensors.
    """
    for name, array in tensors.items():
        if not isinstance(array, np.ndarray) or array.dtype.kind not in "biuf":
            what = array.dtype if isinstance(array, np.ndarray) else type(array).__name__
            raise TypeError(
                f"save_model: expected a boolean, integer or float array as tensor {name!r}, received {what}"
            )
    metadata = {"format": "gencore", "format_version": str(FORMAT_VERSION), "kind": kind}
    metadata["config"] = _to_json("config", config)
    metadata["state"] = _to_json("state", state)
    scalars = {
        k: str(v) for k, v in state.items() if isinstance(v, str | int | float) and not isinstance(v, bool)
    }
    if clash := sorted(_RESERVED & scalars.keys()):
        raise ValueError(f"save_model: state may not use the file's own names, received {', '.join(clash)}")
    raw = save({name: np.asarray(a, order="C") for name, a in tensors.items()}, metadata | scalars)
    _replace_file(path, _in_fixed_order(raw))


def load_model(path: str | os.PathLike[str], kind: str | None = None) -> StoredModel:
    """Read a file written by `save_model`.

    Parameters
    ----------
    path : path-like
        File to read.
    kind : str, optional
        The model class expected; None takes any.

    Returns
    -------
    StoredModel
        Use its `take` to check the tensors' names.

    Raises
    ------
    FileNotFoundError
        No such file.
    ValueError
        The file is damaged, was not written by gencore, is newer than this gencore or holds another kind of
        model; the message says which.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"load_model: no such file: {path}")
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    except SafetensorError as error:
        raise ValueError(
            f"load_model: {path} is not a whole safetensors file (cut short?): {error}"
        ) from error
    if metadata.get("format") != "gencore":
        raise ValueError(f"load_model: {path} is a safetensors file, but not a model saved by gencore")
    version = metadata.get("format_version")
    if version != str(FORMAT_VERSION):
        raise ValueError(
            f"load_model: {path} has format version {version}, this gencore reads {FORMAT_VERSION}: update it"
        )
    try:
        stored = StoredModel(
            metadata["kind"], json.loads(metadata["config"]), json.loads(metadata["state"]), tensors, path
        )
    except (KeyError, json.JSONDecodeError) as error:
        raise ValueError(f"load_model: {path} has a damaged header: {error!r}") from error
    if kind is not None and stored.kind != kind:
        raise ValueError(f"load_model: {path} holds a {stored.kind}, expected a {kind}")
    return stored


def split_state(state: Any, prefix: str) -> tuple[Any, dict[str, NDArray[Any]]]:
    """Split nested dicts and lists of numbers, strings and arrays into a JSON-able part and named arrays.

    Parameters
    ----------
    state : dict, list, number, string, None or ndarray, nested
        For instance an optimizer's ``state_dict()``.
    prefix : str
        What the arrays' names start with.

    Returns
    -------
    (json, tensors)
        The state with each array replaced by ``{"tensor": name}``, and the arrays. `join_state` undoes it.
    """
    if isinstance(state, np.ndarray):
        return {"tensor": prefix}, {prefix: state}
    tensors: dict[str, NDArray[Any]] = {}
    if isinstance(state, Mapping):
        parts: dict[str, Any] = {}
        for name, value in state.items():
            parts[str(name)], more = split_state(value, f"{prefix}.{name}")
            tensors |= more
        return parts, tensors
    if isinstance(state, list | tuple):
        items = []
        for i, value in enumerate(state):
            item, more = split_state(value, f"{prefix}.{i}")
            items.append(item)
            tensors |= more
        return items, tensors
    return (state.item() if isinstance(state, np.generic) else state), tensors


def join_state(state: Any, tensors: Mapping[str, NDArray[Any]]) -> Any:
    """Undo `split_state`; keys of dicts come back as strings."""
    if isinstance(state, Mapping):
        if set(state) == {"tensor"}:
            return tensors[state["tensor"]]
        return {name: join_state(value, tensors) for name, value in state.items()}
    return [join_state(value, tensors) for value in state] if isinstance(state, list) else state


def _to_json(name: str, value: Mapping[str, Any]) -> str:
    try:
        return json.dumps(dict(value), allow_nan=False, sort_keys=True)
    except (TypeError, ValueError) as error:
        raise type(error)(f"save_model: {name} cannot be written as JSON: {error}") from error


def _in_fixed_order(raw: bytes) -> bytes:
    """Sort the header's metadata, which safetensors writes in an order that changes from run to run."""
    data_start = 8 + int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8:data_start])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the data stay aligned
    return len(text).to_bytes(8, "little") + text + raw[data_start:]


def _replace_file(path: str | os.PathLike[str], content: bytes) -> None:
    target = Path(os.path.realpath(path))  # through a symbolic link, not over it
    if not target.parent.is_dir():
        raise FileNotFoundError(f"save_model: no such folder: {target.parent}")
    _remove_stale(target)
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
    try:
        with temporary.open("xb") as file:
            _lock(file)  # until it has its name: who holds it lives
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
            os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def _lock(file: IO[bytes]) -> bool:
    """Take a file if nobody has it. Where files cannot be locked, nobody does."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _remove_stale(target: Path) -> None:
    """Remove what writers of the same file left that were killed. An empty one may be about to be locked."""
    for left in target.parent.glob(f".{glob.escape(target.name)}.????????.tmp"):
        with suppress(OSError), left.open("rb") as file:
            if os.fstat(file.fileno()).st_size and _lock(file):
                left.unlink()
