"""Model files: what was saved comes back, a failed write harms nothing, a wrong file is named."""

import errno
import fcntl
import json
import os
import struct
import subprocess
import sys

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from gencore.io import StoredModel, load_model, save_model

TENSORS = {
    "weight": np.arange(6, dtype=np.float32).reshape(3, 2) / 7,
    "visible_bias": np.array([np.nan, -0.0, np.inf], np.float32),
    "chains": np.array([[0, 1, 1], [1, 0, 0]], np.uint8),
    "mask": np.array([True, False]),
    "log_weights": np.array([0.1, 1e300]),
    "count": np.array(2**63 - 1, np.int64),
    "empty": np.zeros((0, 4), np.float32),
}
CONFIG = {"n_visible": 3, "n_hidden": 2, "seed": 2**64 - 1, "name": 'ünïcode "quoted"\n'}
STATE = {
    "chain_key": str(2**64 - 1),
    "chain_step": 2**40,
    "rate": 0.1,
    "centered": True,
    "generator": {"seed": "7", "count": 3},
    "history": [1.5, None],
}


def save(path, **change):
    save_model(path, **({"kind": "RBM", "config": CONFIG, "state": STATE, "tensors": TENSORS} | change))


def metadata_of(path):
    """Read the header by the format's definition: u64 length, then JSON."""
    raw = path.read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    assert length % 8 == 0
    return json.loads(raw[8 : 8 + length])["__metadata__"]


def test_round_trip(tmp_path):
    path = tmp_path / "m.safetensors"
    save(path)
    stored = load_model(path, "RBM")
    assert (stored.kind, stored.config, stored.state, stored.path) == ("RBM", CONFIG, STATE, path)
    assert stored.tensors.keys() == TENSORS.keys()
    for name, array in TENSORS.items():
        got = stored.tensors[name]
        assert (got.dtype, got.shape, got.tobytes()) == (array.dtype, array.shape, array.tobytes()), name
        assert got.flags.writeable
    assert os.listdir(tmp_path) == ["m.safetensors"]


def test_any_memory_layout(tmp_path):
    big = np.arange(24, dtype=np.float32).reshape(4, 6)
    layouts = {"f": np.asfortranarray(big), "t": big.T, "s": big[::2, ::-3], "e": big.astype(">f4")}
    save(tmp_path / "m", tensors=layouts)
    for name, array in load_model(tmp_path / "m").tensors.items():
        np.testing.assert_array_equal(array, layouts[name])


def test_it_is_a_plain_safetensors_file(tmp_path):
    save(tmp_path / "m")
    np.testing.assert_array_equal(load_file(tmp_path / "m")["chains"], TENSORS["chains"])


def test_metadata_repeats_scalars_for_readers_without_json(tmp_path):
    save(tmp_path / "m")
    assert {k: v for k, v in metadata_of(tmp_path / "m").items() if k not in ("config", "state")} == {
        "format": "gencore",
        "format_version": "1",
        "kind": "RBM",
        "chain_key": "18446744073709551615",
        "chain_step": "1099511627776",
        "rate": "0.1",
    }


def test_equal_models_are_equal_files(tmp_path):
    """Also from another process: hash seeds and insertion order must not show."""
    save(tmp_path / "a", state={"y": 1, "x": "2", "z": 0.5})
    program = (
        "import sys; sys.path.insert(0, sys.argv[1]); import test_io as t; from pathlib import Path\n"
        "t.save(Path(sys.argv[2]), state={'z': 0.5, 'x': '2', 'y': 1})"
    )
    for name in "bc":
        here = os.path.dirname(__file__)
        subprocess.run([sys.executable, "-c", program, here, str(tmp_path / name)], check=True)
        assert (tmp_path / name).read_bytes() == (tmp_path / "a").read_bytes()


@pytest.mark.parametrize("call", ["write", "fsync", "replace"])
def test_failed_write_leaves_the_old_file(tmp_path, monkeypatch, call):
    path = tmp_path / "m"
    save(path)
    before = path.read_bytes()

    def fail(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        if call == "write":
            # A limit on file size makes the kernel itself stop the write half way.
            resource = pytest.importorskip("resource")
            signal = pytest.importorskip("signal")
            old = resource.getrlimit(resource.RLIMIT_FSIZE)
            handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, old[1]))
        else:
            patch.setattr(os, call, fail)
        try:
            with pytest.raises(OSError):
                save(path, config={"n_visible": 4})
        finally:
            if call == "write":
                resource.setrlimit(resource.RLIMIT_FSIZE, old)
                signal.signal(signal.SIGXFSZ, handler)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["m"]
    save(path, config={"n_visible": 4})
    assert load_model(path).config == {"n_visible": 4}


def test_saving_through_a_symbolic_link(tmp_path):
    (tmp_path / "runs").mkdir()
    (tmp_path / "latest").symlink_to(tmp_path / "runs" / "m")
    save(tmp_path / "latest")
    assert (tmp_path / "latest").is_symlink()
    assert load_model(tmp_path / "runs" / "m").kind == "RBM"


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"tensors": {"w": [1.0]}}, TypeError, ["'w'", "list"]),
        ({"tensors": {"w": np.zeros(2, complex)}}, TypeError, ["'w'", "complex128"]),
        ({"tensors": {"w": np.array(["a"])}}, TypeError, ["'w'", "<U1"]),
        ({"config": {"n": np.int64(3)}}, TypeError, ["config", "int64"]),
        ({"state": {"loss": float("nan")}}, ValueError, ["state", "JSON"]),
        ({"state": {"kind": "x"}}, ValueError, ["state", "kind"]),
    ],
)
def test_what_cannot_be_stored_is_named(tmp_path, change, error, words):
    with pytest.raises(error) as caught:
        save(tmp_path / "m", **change)
    assert all(word in str(caught.value) for word in words), caught.value
    assert os.listdir(tmp_path) == []


def test_missing_folder_and_file_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no such folder: .*nowhere"):
        save(tmp_path / "nowhere" / "m")
    for path in (tmp_path / "nothing", tmp_path):
        with pytest.raises(FileNotFoundError, match=f"no such file: {path}"):
            load_model(path)


@pytest.mark.parametrize("keep", [0, 5, 100, -1])
def test_truncated_file(tmp_path, keep):
    path = tmp_path / "m"
    save(path)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ValueError, match="not a whole safetensors file") as caught:
        load_model(path)
    assert str(path) in str(caught.value)


def rewrite(path, **metadata):
    save_file({"weight": np.zeros(2, np.float32)}, path, metadata)


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        ({}, "not a model saved by gencore"),
        ({"format": "pt"}, "not a model saved by gencore"),
        ({"format": "gencore", "format_version": "2"}, "format version 2, .* reads 1: update it"),
        (
            {"format": "gencore", "format_version": "1", "kind": "RBM", "state": "{}"},
            "damaged header.*config",
        ),
        (
            {"format": "gencore", "format_version": "1", "kind": "RBM", "state": "{}", "config": "{"},
            "damaged header",
        ),
        (
            {"format": "gencore", "format_version": "1", "kind": "VAE", "state": "{}", "config": "{}"},
            "VAE.*an? RBM",
        ),
    ],
)
def test_wrong_file_says_what_is_wrong(tmp_path, metadata, words):
    path = tmp_path / "m"
    rewrite(path, **metadata)
    with pytest.raises(ValueError, match=words) as caught:
        load_model(path, "RBM")
    assert str(path) in str(caught.value)


def test_take_is_strict(tmp_path):
    stored = StoredModel(
        "RBM", {}, {}, {"weight": np.zeros(1), "chains": np.zeros(1), "extra": np.zeros(1)}, tmp_path
    )
    assert stored.take(["weight", "extra"], optional=["chains", "velocity"]).keys() == stored.tensors.keys()
    with pytest.raises(ValueError, match=r"RBM: missing hidden_bias, visible_bias; unexpected extra$"):
        stored.take(["weight", "visible_bias", "hidden_bias"], optional=["chains"])
    with pytest.raises(ValueError, match=r"RBM: unexpected chains, extra$"):
        stored.take(["weight"])


def test_what_killed_writers_left_is_removed(tmp_path):
    """Of the same file, and of no writer that lives."""
    path = tmp_path / "m.safetensors"
    stale, living, other = (
        tmp_path / name
        for name in (".m.safetensors.0123abcd.tmp", ".m.safetensors.89ab4567.tmp", ".n.0123abcd.tmp")
    )
    for file in (stale, living, other):
        file.write_bytes(b"half")
    with living.open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        save_model(path, kind="Net", config={}, state={}, tensors={"a": np.zeros(3)})
        assert sorted(tmp_path.iterdir()) == sorted([living, other, path])
