"""Data sets: known contents, every published file form, the search for files, downloads, helpful errors."""

import gzip
import hashlib
import http.server
import itertools
import math
import os
import struct
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gencore import _dataset_files as files
from gencore import datasets
from gencore._dataset_sources import SOURCES

SPLITS = ("train", "valid", "test")
DATA = os.environ.get("GENCORE_DATA")
needs_data = pytest.mark.skipif(
    not DATA, reason="GENCORE_DATA does not name a folder with the published files"
)


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch, tmp_path):
    """No test reads or writes the user's cache or data, or asks the network but on this machine."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("GENCORE_DATA", raising=False)
    monkeypatch.setenv("NO_PROXY", "*")


def entropy(rows):
    """Nats per row of the empirical distribution: the best mean negative log-likelihood."""
    p = np.unique(rows, axis=0, return_counts=True)[1] / len(rows)
    return -(p * np.log(p)).sum()


# --- computed and bundled -----------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_bars_and_stripes_are_all_images_of_constant_rows_or_columns(n):
    images = np.array(list(itertools.product((0, 1), repeat=n * n))).reshape(-1, n, n)
    bars = (images == images[:, :1, :]).all((1, 2))
    stripes = (images == images[:, :, :1]).all((1, 2))
    expected = {tuple(row) for row in images[bars | stripes].reshape(-1, n * n)}
    rows = [tuple(row) for row in datasets.bars_and_stripes(n).train]
    assert len(rows) == len(set(rows)) == 2 ** (n + 1) - 2
    assert set(rows) == expected
    double = datasets.bars_and_stripes(n, double_blank=True).train
    assert len(double) == 2 ** (n + 1)
    assert {tuple(row) for row in double} == expected


@pytest.mark.parametrize(
    ("n", "distinct", "double"), [(2, 6, 1.7328679514), (3, 14, 2.59930), (4, 30, 3.37909)]
)
def test_bars_and_stripes_best_likelihood(n, distinct, double):
    assert entropy(datasets.bars_and_stripes(n).test) == pytest.approx(math.log(distinct), rel=1e-12)
    assert entropy(datasets.bars_and_stripes(n, double_blank=True).test) == pytest.approx(double, abs=5e-6)


def test_labeled_shifter():
    data = datasets.labeled_shifter(8)
    assert data.train.shape == (768, 19)
    assert entropy(data.train) == pytest.approx(6.643790, abs=5e-7)
    for row, label in zip(data.train.tolist(), data.train_labels, strict=True):
        pattern, shifted, which = row[:8], row[8:16], row[16:]
        assert which == [[1, 0, 0], [0, 1, 0], [0, 0, 1]][label]
        assert shifted == [pattern[1:] + pattern[:1], pattern, pattern[-1:] + pattern[:-1]][label]


@pytest.mark.parametrize("make", [datasets.bars_and_stripes, datasets.labeled_shifter])
def test_sizes_out_of_range(make):
    for n in (0, 17, -1):
        with pytest.raises(ValueError, match=rf"{make.__name__}: expected n in 1..16, received {n}"):
            make(n)
    with pytest.raises(TypeError):
        make(2.5)


def test_digits_are_those_of_scikit_learn():
    source = pytest.importorskip("sklearn.datasets").load_digits()
    grey, binary = datasets.digits(threshold=None), datasets.load("digits")
    assert (grey.max_value, binary.max_value) == (16, 1)
    for data in (grey, binary):
        assert [len(getattr(data, split)) for split in SPLITS] == [1285, 256, 256]
    parts = {"valid": np.arange(5, 1797, 7), "test": np.arange(6, 1797, 7)}
    parts["train"] = np.setdiff1d(np.arange(1797), np.concatenate(list(parts.values())))
    for split, rows in parts.items():
        np.testing.assert_array_equal(getattr(grey, split), source.data[rows])
        np.testing.assert_array_equal(getattr(binary, split), source.data[rows] >= 8)
        np.testing.assert_array_equal(getattr(grey, f"{split}_labels"), source.target[rows])
        # No class is rare in any split: each has 0.6 to 1.4 times its share.
        share = np.bincount(getattr(binary, f"{split}_labels"), minlength=10) / len(rows)
        assert share.min() > 0.06
        assert share.max() < 0.14


@pytest.mark.parametrize("name", ["digits", "bars_and_stripes", "labeled_shifter"])
def test_loads_are_equal_and_independent(name):
    one, two = datasets.load(name), datasets.load(name)
    for split in SPLITS:
        a, b = getattr(one, split), getattr(two, split)
        assert a.dtype == np.uint8
        assert a.flags.c_contiguous
        np.testing.assert_array_equal(a, b)
    one.train[:] = 7
    assert two.train.max() == 1
    assert max(one.valid.max(), one.test.max(), datasets.load(name).train.max()) == 1


def test_binarized():
    grey = datasets.digits(threshold=None)
    for threshold, level in [(0.5, 8), (1.0, 16), (0.0625, 1)]:
        binary = grey.binarized(threshold)
        np.testing.assert_array_equal(binary.test, grey.test >= level)
        assert binary.max_value == 1
        assert f"at least {level} of 16" in binary.description
    for threshold in (0.0, 1.1, float("nan")):
        with pytest.raises(ValueError, match="0 < threshold <= 1"):
            grey.binarized(threshold)


def test_repr_tells_what_it_is():
    text = repr(datasets.load("digits"))
    for word in (
        "'digits'",
        "(1285, 64)",
        "(256, 64)",
        "0/1",
        "8 x 8",
        "labels 0..9",
        "Alpaydin",
        "CC BY 4.0",
    ):
        assert word in text
    assert "0..16" in repr(datasets.digits(None))


def test_unknown_name_lists_the_names():
    with pytest.raises(ValueError, match="did you mean 'binarized_mnist'") as caught:
        datasets.load("binarised_mnist")
    assert all(name in str(caught.value) for name in datasets.names())
    with pytest.raises(ValueError, match="'zzz', known: digits"):
        datasets.load("zzz")


# --- published files, written here by other means than the readers' -----------------------------------------


def small(monkeypatch, name, seed=0):
    """Shrink the set to a few rows and make up its contents."""
    rows = (7, 3, 4)
    source = replace(SOURCES[name], rows=rows)
    monkeypatch.setitem(SOURCES, name, source)
    rng = np.random.default_rng(seed)
    arrays = {}
    for split, n in zip(SPLITS, rows, strict=True):
        arrays[split] = rng.integers(0, source.max_value + 1, (n, source.columns), dtype=np.uint8)
        arrays[f"{split}_labels"] = rng.integers(1, 102 if name.startswith("caltech") else 3, n)
    return arrays


def idx(array):
    return (
        struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
        + array.astype(np.uint8).tobytes()
    )


def write_idx(folder, arrays, compress):
    folder.mkdir(parents=True, exist_ok=True)
    for stem, splits in (("train", ("train", "valid")), ("t10k", ("test",))):
        images = np.concatenate([arrays[s] for s in splits]).reshape(-1, 28, 28)
        labels = np.concatenate([arrays[f"{s}_labels"] for s in splits])
        for name, content in (("images-idx3", idx(images)), ("labels-idx1", idx(labels))):
            path = folder / f"{stem}-{name}-ubyte{'.gz' if compress else ''}"
            path.write_bytes(gzip.compress(content) if compress else content)


def write_npz(folder, arrays, file, labels):
    np.savez(folder / file, **{k: a for k, a in arrays.items() if labels or "labels" not in k})


def write_amat(folder, arrays, pattern):
    for split in SPLITS:
        np.savetxt(folder / pattern.format(split), arrays[split], fmt="%d")


def write_libsvm(folder, arrays, pattern):
    dump = pytest.importorskip("sklearn.datasets").dump_svmlight_file
    for split in SPLITS:
        dump(
            arrays[split].astype(float),
            arrays[f"{split}_labels"],
            str(folder / pattern.format(split)),
            zero_based=False,
        )


def write_mat(folder, arrays):
    content = {}
    for split, theirs in zip(SPLITS, ("train", "val", "test"), strict=True):
        content[f"{theirs}_data"] = arrays[split].astype(float)
        content[f"{theirs}_labels"] = arrays[f"{split}_labels"][None].astype(float)
    content["classnames"] = np.array(["anchor", "ant"], dtype=object)
    pytest.importorskip("scipy.io").savemat(folder / "caltech101_silhouettes_28_split1.mat", content)


FORMS = {
    "mnist gz": ("mnist", True, lambda f, a: write_idx(f / "mnist", a, True)),
    "mnist torchvision": ("mnist", True, lambda f, a: write_idx(f / "MNIST" / "raw", a, False)),
    "binarized_mnist npz": (
        "binarized_mnist",
        False,
        lambda f, a: write_npz(f, a, "binarized_mnist.npz", False),
    ),
    "binarized_mnist amat": (
        "binarized_mnist",
        False,
        lambda f, a: write_amat(f, a, "binarized_mnist_{}.amat"),
    ),
    "caltech npz": (
        "caltech101_silhouettes",
        True,
        lambda f, a: write_npz(f, a, "caltech101_silhouettes_28.npz", True),
    ),
    "caltech mat": ("caltech101_silhouettes", True, write_mat),
    "dna npz": ("dna", False, lambda f, a: write_npz(f, a, "dna.npz", False)),
    "dna libsvm": ("dna", True, lambda f, a: write_libsvm(f, a, "dna_scale_{}.libsvm")),
    "dna amat": ("dna", False, lambda f, a: write_amat(f, a, "dna_{}.amat")),
    "mushrooms npz": ("mushrooms", False, lambda f, a: write_npz(f, a, "mushrooms.npz", False)),
    "mushrooms libsvm": ("mushrooms", True, lambda f, a: write_libsvm(f, a, "mushrooms_{}.libsvm")),
    "mushrooms amat": ("mushrooms", False, lambda f, a: write_amat(f, a, "mushrooms_{}.amat")),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_published_form(monkeypatch, tmp_path, form):
    name, labels, write = FORMS[form]
    arrays = small(monkeypatch, name)
    write(tmp_path, arrays)
    data = datasets.load(name, root=tmp_path, download=False)
    assert data.name == name
    for split in SPLITS:
        got = getattr(data, split)
        assert (got.dtype, got.flags.c_contiguous, got.flags.writeable) == (np.uint8, True, True)
        np.testing.assert_array_equal(got, arrays[split])
        got = getattr(data, f"{split}_labels")
        if labels:
            assert got.dtype == np.int64
            np.testing.assert_array_equal(got, arrays[f"{split}_labels"])
        else:
            assert got is None


@pytest.mark.parametrize(
    "text", ["0 1 1\n1 0 0\n", "0 1 1\n1 0 0", "0\t1  1 \r\n1 0 0\r\n\r\n", "\n 0 1 1\n\n1 0 0\n\n"]
)
def test_amat_blanks(tmp_path, text):
    (tmp_path / "m").write_text(text, newline="")
    np.testing.assert_array_equal(files.read_amat(tmp_path / "m")[""], [[0, 1, 1], [1, 0, 0]])


@pytest.mark.parametrize(
    "text", ["0 1\n1\n", "0 2\n", "0 11\n", "0.5 1.0\n", "", "\n\n", "-1 0\n", "0 x", "0\n1", "\xff"]
)
def test_amat_refuses_other_text(monkeypatch, tmp_path, text):
    arrays = small(monkeypatch, "dna")
    monkeypatch.setitem(SOURCES, "dna", replace(SOURCES["dna"], rows=(1, 1, 1), columns=2))
    write_amat(tmp_path, {split: arrays[split][:1, :2] for split in SPLITS}, "dna_{}.amat")
    datasets.load("dna", root=tmp_path)
    path = tmp_path / "dna_valid.amat"
    path.write_text(text, encoding="latin1")
    with pytest.raises(ValueError, match=str(path)):
        datasets.load("dna", root=tmp_path)


@pytest.mark.parametrize("line", ["1 4:1", "1 0:1", "1 2:0.5", "1 2", "x 2:1", "1 a:1"])
def test_libsvm_refuses_other_lines(tmp_path, line):
    (tmp_path / "m").write_text(f"1 1:1 3:1.0\n\n{line}\n")
    with pytest.raises(ValueError, match="entry 2") as caught:
        files.read_libsvm(tmp_path / "m", 3)
    assert str(tmp_path / "m") in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0\0\x08",
        b"\0\0\x0d\x01\0\0\0\x01\0\0\0\0",
        idx(np.zeros((2, 3)))[:-1],
        idx(np.zeros((2, 3))) + b"\0",
        b"\0\0\x08\x03\0\0\0\x01",
        gzip.compress(idx(np.zeros((2, 3))))[:-9],
        gzip.compress(b"x" * 99)[:20],
    ],
)
def test_idx_refuses_other_bytes(tmp_path, content):
    (tmp_path / "m").write_bytes(content)
    with pytest.raises(ValueError, match=str(tmp_path / "m")):
        files.read_idx(tmp_path / "m")


def test_damaged_npz_is_named(tmp_path):
    good = tmp_path / "good.npz"
    np.savez_compressed(good, train=np.arange(5000) % 7)
    raw = good.read_bytes()
    changed = bytearray(raw)
    changed[len(raw) // 2] ^= 255
    np.savez(tmp_path / "pickled.npz", train=np.array([None]))
    (tmp_path / "array.npz").write_bytes(b"")
    with (tmp_path / "array.npz").open("wb") as file:
        np.save(file, np.zeros(3))
    (tmp_path / "short.npz").write_bytes(raw[:-30])
    (tmp_path / "empty.npz").write_bytes(b"")
    (tmp_path / "changed.npz").write_bytes(changed)
    for name in ("pickled", "array", "short", "empty", "changed"):
        path = tmp_path / f"{name}.npz"
        with pytest.raises(ValueError, match="not a readable npz file") as caught:
            files.read_npz(path)
        assert str(path) in str(caught.value)


def test_damaged_mat_and_absent_scipy_are_named(monkeypatch, tmp_path):
    pytest.importorskip("scipy.io")
    path = tmp_path / "caltech101_silhouettes_28_split1.mat"
    path.write_bytes(b"MATLAB 5.0 MAT-file" + bytes(200))
    with pytest.raises(ValueError, match="not a readable MATLAB file") as caught:
        datasets.load("caltech101_silhouettes", root=tmp_path)
    assert str(path) in str(caught.value)
    monkeypatch.setitem(__import__("sys").modules, "scipy.io", None)
    with pytest.raises(ImportError, match="pip install scipy"):
        datasets.load("caltech101_silhouettes", root=tmp_path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda a: a.pop("test"), "expected an array 'test', received train"),
        (lambda a: a.update(train=a["train"][1:]), r"train of shape \(7, 180\), received \(6, 180\)"),
        (lambda a: a.update(test=a["test"][:, 1:]), r"test of shape \(4, 180\), received \(4, 179\)"),
        (lambda a: a.update(train=np.array(1)), r"train of shape \(7, 180\), received \(1, 1\)"),
        (lambda a: a.update(train=a["train"][:0]), r"train of shape \(7, 180\), received \(0, 180\)"),
        (lambda a: a.update(valid=a["valid"] + 1), r"integers 0..1 in valid"),
        (lambda a: a.update(valid=a["valid"] * 0.5), r"integers 0..1 in valid"),
        (lambda a: a.update(valid=a["valid"] * np.nan), r"integers 0..1 in valid"),
        (lambda a: a.update(test_labels=np.zeros(3, int)), r"test_labels of shape \(4,\), received \(3,\)"),
    ],
)
def test_a_file_with_other_contents_is_named(monkeypatch, tmp_path, change, words):
    arrays = small(monkeypatch, "dna")
    change(arrays)
    write_npz(tmp_path, arrays, "dna.npz", True)
    with pytest.raises(ValueError, match=words) as caught:
        datasets.load("dna", root=tmp_path)
    assert str(tmp_path / "dna.npz") in str(caught.value)


# --- where files are looked for -----------------------------------------------------------------------------


def test_missing_files_name_every_path_and_the_cure(monkeypatch, tmp_path):
    monkeypatch.setenv("GENCORE_DATA", str(tmp_path / "mine"))
    (tmp_path / "mine" / "dna").mkdir(parents=True)
    (tmp_path / "mine" / "dna" / "dna_scale_valid.libsvm").touch()
    with pytest.raises(FileNotFoundError) as caught:
        datasets.load("dna")
    text = str(caught.value)
    for place in (tmp_path / "mine", tmp_path / "cache" / "gencore"):
        for folder in (place, place / "dna"):
            for file in ("dna.npz", "dna_scale_train.libsvm", "dna_train.amat"):
                assert f"  {folder / file}" in text
    assert "(dna_scale_train.libsvm, dna_scale_test.libsvm missing)" in text
    for word in ("http://www.cs.toronto.edu", "GENCORE_DATA", "root"):
        assert word in text
    assert "download=True" not in text  # no checksum of the remote files is known, so none is offered


def test_root_before_environment_before_cache(monkeypatch, tmp_path):
    places = {
        "root": tmp_path / "root",
        "environment": tmp_path / "env",
        "cache": tmp_path / "cache" / "gencore",
    }
    truth = {}
    for seed, (key, place) in enumerate(places.items()):
        place.mkdir(parents=True)
        arrays = small(monkeypatch, "dna", seed)
        truth[key] = arrays["train"]
        write_npz(place, arrays, "dna.npz", False)
    np.testing.assert_array_equal(datasets.load("dna").train, truth["cache"])
    monkeypatch.setenv("GENCORE_DATA", str(places["environment"]))
    np.testing.assert_array_equal(datasets.load("dna").train, truth["environment"])
    np.testing.assert_array_equal(datasets.load("dna", root=str(places["root"])).train, truth["root"])
    (places["environment"] / "dna.npz").unlink()
    np.testing.assert_array_equal(datasets.load("dna").train, truth["cache"])
    with pytest.raises(FileNotFoundError):
        datasets.load("dna", root=tmp_path / "empty")


# --- download -----------------------------------------------------------------------------------------------


@pytest.fixture
def web(tmp_path):
    """Serve a folder from this machine; yields it, its address and the requests made."""
    folder = tmp_path / "web"
    folder.mkdir()
    asked = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=folder)

        def log_message(self, *_):
            asked.append(self.path)

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield folder, f"http://127.0.0.1:{server.server_port}/", asked
        server.shutdown()
        thread.join()


def put_on_the_web(monkeypatch, folder, mirrors):
    arrays = small(monkeypatch, "mnist")
    write_idx(folder, arrays, True)
    sums = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}
    source = SOURCES["mnist"]
    assert sums.keys() == source.remote.sha256.keys()
    monkeypatch.setitem(
        SOURCES, "mnist", replace(source, remote=replace(source.remote, mirrors=mirrors, sha256=sums))
    )
    return arrays


@pytest.mark.parametrize("where", ["cache", "root"])
def test_download_from_the_mirror_that_works(monkeypatch, tmp_path, web, where):
    folder, address, asked = web
    arrays = put_on_the_web(monkeypatch, folder, (address + "gone/", address))
    root = tmp_path / "root" if where == "root" else None
    with pytest.raises(FileNotFoundError, match="download=True fetches it"):
        datasets.load("mnist", root=root, download=False)
    assert asked == []
    np.testing.assert_array_equal(datasets.load("mnist", root=root).valid, arrays["valid"])
    target = (root or tmp_path / "cache" / "gencore") / "mnist"
    assert sorted(p.name for p in target.iterdir()) == sorted(SOURCES["mnist"].remote.sha256)
    count = len(asked)
    np.testing.assert_array_equal(datasets.load("mnist", root=root).test_labels, arrays["test_labels"])
    assert len(asked) == count  # the second time it is there


def test_wrong_checksum_is_refused(monkeypatch, tmp_path, web):
    folder, address, _ = web
    put_on_the_web(monkeypatch, folder, (address,))
    bad = folder / "t10k-labels-idx1-ubyte.gz"
    bad.write_bytes(bad.read_bytes() + b"x")
    with pytest.raises(OSError, match="could not be downloaded") as caught:
        datasets.load("mnist", root=tmp_path)
    text = str(caught.value)
    for word in (
        address + bad.name,
        "SHA256",
        hashlib.sha256(bad.read_bytes()).hexdigest(),
        "by hand",
        "GENCORE_DATA",
    ):
        assert word in text
    assert not (tmp_path / "mnist" / bad.name).exists()


def test_no_server(monkeypatch, tmp_path, web):
    folder, address, _ = web
    put_on_the_web(monkeypatch, folder, (address + "gone/",))
    with pytest.raises(OSError, match="404") as caught:
        datasets.load("mnist", root=tmp_path)
    assert str(tmp_path / "mnist") in str(caught.value)


def test_every_offered_download_has_a_checksum_and_a_layout():
    for name, source in SOURCES.items():
        if source.remote is not None:
            assert all(len(bytes.fromhex(value)) == 32 for value in source.remote.sha256.values()), name
            assert any(
                set(layout.files.values()) == set(source.remote.sha256) for layout in source.layouts
            ), name


# --- the published files themselves -------------------------------------------------------------------------


@needs_data
@pytest.mark.parametrize("name", list(SOURCES))
def test_published_sets(name):
    try:
        data = datasets.load(name, root=DATA, download=False)
    except FileNotFoundError as error:
        pytest.skip(str(error).splitlines()[0])
    assert {split: getattr(data, split).shape for split in SPLITS} == {
        split: (rows, SOURCES[name].columns) for split, rows in zip(SPLITS, SOURCES[name].rows, strict=True)
    }
    if name == "mnist":  # images of each digit, as counted by many
        counts = np.bincount(np.concatenate([data.train_labels, data.valid_labels]))
        assert counts.tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
        assert np.bincount(data.test_labels).tolist() == [
            980,
            1135,
            1032,
            1010,
            982,
            892,
            958,
            1028,
            974,
            1009,
        ]
        assert data.train.max() == 255
    if name == "binarized_mnist":
        means = [getattr(data, split).mean() for split in SPLITS]
        np.testing.assert_allclose(means, [0.13056, 0.13113, 0.13251], atol=5e-6)


@needs_data
def test_checksums_of_binarized_mnist_are_those_of_its_text():
    """The table's SHA-256 are published by others; our arrays, written as the authors' text, have them."""
    path = Path(DATA) / "binarized_mnist.npz"
    if not path.is_file():
        pytest.skip(f"{path} is not there")
    data = datasets.load("binarized_mnist", root=DATA)
    for split in SPLITS:
        rows = getattr(data, split)
        text = np.full((len(rows), 2 * 784), ord(" "), np.uint8)
        text[:, ::2] = rows + ord("0")
        text[:, -1] = ord("\n")
        expected = SOURCES["binarized_mnist"].remote.sha256[f"binarized_mnist_{split}.amat"]
        assert hashlib.sha256(text).hexdigest() == expected
