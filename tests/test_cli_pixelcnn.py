"""The command line of PixelCNNs: trainings to the bit, figures by enumeration and by hand, pictures, every error."""

import itertools
import json
import re
import shlex
import signal
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread
from test_cli import (
    assert_diverges,
    assert_refused,
    assert_same_parameters,
    assert_same_training,
    run,
    start_process,
    wait_for,
)

from gencore import datasets, io, train
from gencore.cli import main
from gencore.models import RBM, VAE, DiagonalBiLSTM, GatedPixelCNN, PixelCNN, RowLSTM

DIGITS = datasets.load("digits")
TINY = "--features 2 --blocks 1 --hidden 4"
SMALL = f"train pixelcnn --data digits {TINY} --epochs 3 --lr 0.01 --batch-size 32 --seed 3"


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def bytes_of_trained(tmp_path_factory):
    path = tmp_path_factory.mktemp("trained") / "pixelcnn.safetensors"
    assert run(f"{SMALL} --out {path}") == 0
    return path.read_bytes()


@pytest.fixture
def trained(bytes_of_trained):
    """model.safetensors, a little trained."""
    Path("model.safetensors").write_bytes(bytes_of_trained)
    return PixelCNN.load("model.safetensors")


def images_of(path, lines, columns, pixels):
    """The images of a picture, each pixel once, as levels from 0 to 1."""
    sheet = imread(path)[18:-18, 18:-18, 0]  # within the margin
    zoom = (len(sheet) - 3) // lines - 3
    assert zoom % pixels == 0
    found = [
        sheet[3 + i * (zoom + 3) :, 3 + j * (zoom + 3) :][:zoom, :zoom][:: zoom // pixels, :: zoom // pixels]
        for i, j in itertools.product(range(lines), range(columns))
    ]
    return np.array(found)


# --- kinds, outputs, classes --------------------------------------------------------------------------------


def test_a_gated_model_of_greys_with_classes(capsys):
    """From the training on labelled data to samples of one class and the likelihood given the labels."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 60)
    rows = np.clip(rng.normal(0.2 + 0.3 * labels[:, None], 0.05, (60, 16)), 0, 1)
    np.savez("greys.npz", train=rows, train_labels=labels, test=rows[:20], test_labels=labels[:20])
    options = f"{TINY} --output discretised_logistic --levels 16 --mixtures 2 --classes --lr 0.01"
    assert (
        run(f"train gated-pixelcnn --data greys.npz {options} --epochs 8 --samples s.png --out g.safetensors")
        == 0
    )
    said = capsys.readouterr().out
    assert "GatedPixelCNN, 4x4 pixels, 16 levels by 2 logistics, 3 classes, 1 block of h = 2" in said
    assert imread("s.png").ndim == 3
    model = GatedPixelCNN.load("g.safetensors")
    assert run("evaluate g.safetensors --data greys.npz --json") == 0
    judged = json.loads(capsys.readouterr().out)
    levels = np.rint(rows[:20] * 15).astype(np.uint8)
    assert judged["log_likelihood"] == pytest.approx(model.log_prob(levels, labels[:20]).mean(), abs=1e-9)
    assert run("sample g.safetensors -n 5 --label 2 --seed 4 --out two.npy") == 0
    assert np.array_equal(np.load("two.npy"), model.sample(5, labels=2, key=4).reshape(5, -1))
    assert run("sample g.safetensors -n 5 --seed 4 --out all.npy") == 0
    each = model.sample(5, labels=np.arange(5) % 3, key=4).reshape(5, -1)
    assert np.array_equal(np.load("all.npy"), each)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("train pixelcnn --data digits --mixtures 3", "--mixtures: expected none with --output bernoulli"),
        (
            "train pixelcnn --data plain.npy --classes --out m",
            "plain.npy has no labels: expected an array 'train_labels'",
        ),
        (
            "train pixelcnn --data digits --kernel-size 4 --out m",
            "PixelCNN: expected kernel_size to be odd, received 4",
        ),
        (
            "train gated-pixelcnn --data digits --kernel-size 2 --out m",
            "GatedPixelCNN: expected kernel_size to be odd, received 2",
        ),
        (
            "sample model.safetensors --label 1",
            "--label: expected none, as the model was trained without --classes",
        ),
    ],
)
def test_wrong_uses_of_kinds_and_classes(line, words, trained, capsys):
    np.save("plain.npy", np.zeros((4, 16), np.uint8))
    assert_refused(line, (words,), capsys)


# --- train --------------------------------------------------------------------------------------------------

CALLS = [
    (
        f"{TINY} --batch-size 50 --lr 0.01 --lr-end 0.001 --schedule exponential --clip-norm 5 --seed 9",
        lambda: PixelCNN(8, 8, n_features=2, n_blocks=1, n_hidden=4, seed=9),
        {"lr": train.exponential(0.01, 0.001), "batch_size": 50, "clip_norm": 5.0},
    ),
    (
        "--features 3 --blocks 2 --hidden 5 --shape 4x16 --schedule constant --optimizer adam --patience 1",
        lambda: PixelCNN(4, 16, n_features=3, n_blocks=2, n_hidden=5, seed=0),
        {"lr": 0.001, "optimizer": "adam", "patience": 1},
    ),
    (
        f"{TINY} --output categorical --levels 5 --threads 1",
        lambda: PixelCNN(8, 8, n_features=2, n_blocks=1, n_hidden=4, output="categorical", levels=5, seed=0),
        {"lr": train.linear(0.001)},
    ),
]


@pytest.mark.parametrize(("options", "make", "arguments"), CALLS, ids=[c[0] for c in CALLS])
def test_train_is_fit_with_these_arguments(options, make, arguments):
    assert run(f"train pixelcnn --data digits --out a.safetensors --epochs 2 {options}") == 0
    model = make()
    model.fit(DIGITS.train, epochs=2, validation=DIGITS.valid, progress=False, **arguments)
    assert_same_parameters("a.safetensors", model)


def test_each_epoch_and_the_result_are_told(capsys):
    assert run(f"{SMALL} --out told.safetensors") == 0
    out = capsys.readouterr().out
    for record in io.load_model("told.safetensors").state["training"]["history"]:
        figures = f"train {record['log_prob']:.3f}, valid {record['validation_log_prob']:.3f}"
        assert f"epoch {record['epoch']:4}  log-likelihood {figures}" in out
    valid, test, bits = map(
        float, re.search(r"^result.* valid (\S+), test (\S+) nats; (\S+) bits", out, re.MULTILINE).groups()
    )
    model = PixelCNN.load("told.safetensors")
    assert valid == pytest.approx(model.log_prob(DIGITS.valid).mean(), abs=5e-4)
    assert test == pytest.approx(model.log_prob(DIGITS.test).mean(), abs=5e-4)
    assert bits == pytest.approx(-test / 64 / np.log(2), abs=1e-4)
    assert "Next: gencore evaluate told.safetensors --data digits\n" in out
    assert not re.search("[\x1b\r]", out)


def test_grey_levels_are_cut_or_learned(monkeypatch, capsys):
    grey = datasets.digits(threshold=None)  # 0 to 16
    monkeypatch.setattr(datasets, "load", lambda name, root: grey)
    np.savez("floats.npz", **{name: getattr(grey, name) / 16 for name in ("train", "valid", "test")})
    np.save("levels.npy", grey.train)
    train_ = f"train pixelcnn {TINY} --epochs 1 --schedule constant"
    cut = (grey.train >= 4).astype(np.uint8)
    # round(x (N - 1)) of x = g / 16 and N = 5: a quarter of g; halves go to the even one.
    fifths = np.array([0, 0, 0, 1, 1, 1, 2, 2, 2, 2, 2, 3, 3, 3, 4, 4, 4])[grey.train]
    categorical = {"output": "categorical"}
    for data, option, rows, model in (
        ("mnist", "--threshold 0.25", cut, {}),
        ("floats.npz", "--threshold 0.25", cut, {}),
        ("mnist", "--output categorical --levels 5", fifths, {"levels": 5, **categorical}),
        ("floats.npz", "--output categorical --levels 5", fifths, {"levels": 5, **categorical}),
        ("mnist", "--output categorical --levels 17", grey.train, {"levels": 17, **categorical}),
        ("levels.npy", "--output categorical --levels 17", grey.train, {"levels": 17, **categorical}),
    ):
        assert run(f"{train_} --data {data} {option} --overwrite") == 0
        expected = PixelCNN(8, 8, n_features=2, n_blocks=1, n_hidden=4, seed=0, **model)
        expected.fit(rows, epochs=1, progress=False)
        assert_same_parameters("model.safetensors", expected)
    for data in ("mnist", "floats.npz", "levels.npy"):  # of the model of 17 levels
        capsys.readouterr()
        assert run(f"evaluate model.safetensors --data {data} --split train --rows 100 --json") == 0
        found = json.loads(capsys.readouterr().out)
        rows = grey.train[np.arange(100) * len(grey.train) // 100]
        assert found["log_likelihood"] == expected.log_prob(rows).mean()
        assert found["independent_units"] is None
    assert run(f"{train_} --data mnist --threshold 0.25 --out cut.safetensors") == 0
    assert "gencore evaluate cut.safetensors --data mnist --threshold 0.25" in capsys.readouterr().out
    assert run("evaluate cut.safetensors --data floats.npz --threshold 0.25 --json") == 0
    rates = cut.mean(axis=0).clip(1e-4, 1 - 1e-4)
    independent = np.where(grey.test >= 4, np.log(rates), np.log1p(-rates)).sum(axis=1).mean()
    assert json.loads(capsys.readouterr().out)["independent_units"] == pytest.approx(independent, rel=1e-12)


@pytest.mark.parametrize("options", ["", "--patience 1 --lr 0.2"], ids=["to the end", "stopped early"])
def test_pictures_of_a_training_are_of_its_model_and_leave_its_bits_alone(options, monkeypatch):
    seen = []
    sample = PixelCNN.sample
    monkeypatch.setattr(
        PixelCNN, "sample", lambda self, *a, **k: seen.append(self.steps) or sample(self, *a, **k)
    )
    command = f"{SMALL} --epochs 6 {options}"
    assert run(f"{command} --out with.safetensors --samples shown.png --samples-every 2") == 0
    epochs = len(io.load_model("with.safetensors").state["training"]["history"])
    assert (epochs < 6) == bool(options)
    assert seen == [41 * e for e in range(2, epochs + 1, 2)] + [41 * epochs]  # and at the end
    assert run(f"{command} --out without.safetensors") == 0
    assert_same_training("with.safetensors", "without.safetensors")
    expected = PixelCNN.load("with.safetensors").sample(64, key=3)[..., 0]
    assert np.array_equal(images_of("shown.png", 8, 8, 8), expected)
    assert run("sample with.safetensors --seed 3") == 0  # the picture's are those of this command
    assert Path("samples.png").read_bytes() == Path("shown.png").read_bytes()


def test_resuming_after_kill_9_gives_the_bits_of_an_unbroken_run(tmp_path):
    """The killed run drew pictures, as does the one that goes on; the unbroken one draws none."""
    long = shlex.split(f"train pixelcnn --data digits {TINY} --epochs 40 --checkpoint-every 50")
    samples = ["--samples", "shown.png"]
    killed = start_process(*long, *samples, "--out", "killed.safetensors")
    wait_for(tmp_path / "killed.safetensors", killed)
    killed.kill()
    killed.communicate()
    assert killed.returncode == -signal.SIGKILL
    assert 0 < PixelCNN.load("killed.safetensors").steps < 40 * 81
    assert main([*long, *samples, "--out", "killed.safetensors", "--resume"]) == 0
    assert main([*long, "--out", "whole.safetensors", "--resume"]) == 0
    assert_same_training("killed.safetensors", "whole.safetensors")


# --- evaluate -----------------------------------------------------------------------------------------------


def test_evaluate_prints_what_enumeration_gives(capsys):
    """The model's log-probabilities less the log of their sum over all 512 images, which float32 leaves near 0."""
    model = PixelCNN(3, 3, n_features=4, n_blocks=1, n_hidden=6, seed=1)
    everything = np.array(list(itertools.product((0, 1), repeat=9)), np.uint8)
    rng = np.random.default_rng(0)
    rows = {name: everything[rng.integers(0, 512, 40)] for name in ("train", "test")}
    np.savez("rows.npz", **rows)
    model.fit(rows["train"], epochs=5, lr=0.01, progress=False)
    model.save("three.safetensors")
    assert run("evaluate three.safetensors --data rows.npz --json") == 0
    found = json.loads(capsys.readouterr().out)
    joint = model.log_prob(everything)
    place = rows["test"].astype(int) @ 2 ** np.arange(9)[::-1]
    each = joint[place] - np.log(np.exp(joint).sum())
    assert np.ptp(joint) > 1  # not uniform
    # Sums of 9 terms, each off by 1e-6: float32 logits of a few dozen products.
    assert found["log_likelihood"] == pytest.approx(each.mean(), abs=2e-5)
    assert found["row_standard_error"] == pytest.approx(each.std(ddof=1) / np.sqrt(40), abs=1e-5)
    assert found["bits_per_dimension"] == pytest.approx(-each.mean() / 9 / np.log(2), abs=4e-6)
    rates = rows["train"].mean(axis=0)
    independent = np.where(rows["test"], np.log(rates), np.log1p(-rates)).sum(axis=1).mean()
    assert found["independent_units"] == pytest.approx(independent, rel=1e-12)
    assert found["rows"] == 40


def test_evaluate_in_words_is_the_same(trained, capsys):
    assert run("evaluate model.safetensors --data digits --split valid --json") == 0
    found = json.loads(capsys.readouterr().out)
    assert run("evaluate model.safetensors --data digits --split valid --threads 2") == 0
    text = capsys.readouterr().out
    spread = f"{found['log_likelihood']:.4f} +- {found['row_standard_error']:.4f} (exact"
    assert re.search(rf"^log-likelihood +{re.escape(spread)}", text, re.MULTILINE), text
    assert f"{found['bits_per_dimension']:.5f} bits a pixel" in text
    assert re.search(rf"^independent +{found['independent_units']:.4f}\b", text, re.MULTILINE)
    assert max(map(len, text.splitlines())) <= 100


# --- sample -------------------------------------------------------------------------------------------------


def test_samples_follow_from_seed_and_temperature(trained):
    for name, options in (
        ("a", "--seed 5 --threads 1"), ("b", "--seed 5 --threads 2"), ("c", "--seed 6"),
        ("d", "--seed 5 --temperature 0.3"),
    ):  # fmt: skip
        assert run(f"sample model.safetensors -n 20 {options} --out {name}.npz") == 0
    a, b, c, d = (np.load(f"{name}.npz")["samples"] for name in "abcd")
    assert (a.dtype, a.shape) == (np.uint8, (20, 64))
    assert np.array_equal(a, b)
    assert not np.array_equal(a, c)
    assert np.array_equal(a, trained.sample(20, key=5).reshape(20, 64))
    assert np.array_equal(d, trained.sample(20, key=5, temperature=0.3).reshape(20, 64))
    assert not np.array_equal(a, d)


def test_pictures_of_levels_and_of_colours():
    levels = PixelCNN(6, 6, n_features=2, n_blocks=1, output="categorical", levels=5, seed=1)
    levels.save("levels.safetensors")
    assert run("sample levels.safetensors -n 12 --out levels.png") == 0
    drawn = levels.sample(12, key=0)[..., 0]
    assert len(np.unique(drawn)) == 5
    # Eight bits a pixel: off by half of 1/255.
    np.testing.assert_allclose(images_of("levels.png", 3, 4, 6), drawn / 4, atol=0.5 / 255 + 1e-6)
    colours = PixelCNN(5, 4, channels=3, n_features=3, n_blocks=1, n_hidden=3, seed=1)
    colours.save("colours.safetensors")
    assert run("sample colours.safetensors -n 9 --out colours.png") == 0
    assert len(np.unique(imread("colours.png")[..., :3].reshape(-1, 3), axis=0)) == 2**3 + 1  # and the frame
    assert run("sample colours.safetensors -n 9 --out colours.npy") == 0
    assert np.array_equal(np.load("colours.npy"), colours.sample(9, key=0).reshape(9, 60))


def test_completions_keep_what_the_mask_marks(trained, capsys):
    upper = np.arange(64) < 32
    np.save("upper.npy", upper)
    np.save("left.npy", np.arange(64) % 8 < 4)
    np.save("start.npy", DIGITS.test[7])
    capsys.readouterr()
    assert run("sample model.safetensors -n 6 --start digits --clamp upper.npy --seed 2 --out a.npy") == 0
    assert "do not count" not in capsys.readouterr().out
    assert run("sample model.safetensors -n 6 --start start.npy --clamp left.npy --out b.npy") == 0
    assert "kept ones after it do not count" in capsys.readouterr().out
    a, b = np.load("a.npy"), np.load("b.npy").reshape(6, 8, 8)
    partial = np.where(upper, DIGITS.test[:6], np.nan).reshape(6, 8, 8, 1)
    assert np.array_equal(a, trained.sample(6, partial=partial, key=2).reshape(6, 64))
    assert np.array_equal(a[:, upper], DIGITS.test[:6, upper])
    np.save("rows.npy", DIGITS.test)  # of a file, too, the first n rows
    np.save("masks.npy", np.broadcast_to(upper, (7, 64)))
    assert run("sample model.safetensors -n 6 --start rows.npy --clamp masks.npy --seed 2 --out c.npy") == 0
    assert np.array_equal(np.load("c.npy"), a)
    assert (a[:, ~upper] != DIGITS.test[:6, ~upper]).any()
    assert (b[:, :, :4] == DIGITS.test[7].reshape(8, 8)[:, :4]).all()
    assert (b[1:, :, 4:] != b[0, :, 4:]).any()
    assert run("sample model.safetensors -n 6 --start digits --clamp upper.npy --seed 2 --out a.png") == 0
    assert np.array_equal(images_of("a.png", 2, 3, 8), a.reshape(6, 8, 8))


# --- errors -------------------------------------------------------------------------------------------------


def files_for_errors():
    np.save("narrow.npy", np.zeros((4, 5), np.uint8))
    np.save("rows.npy", np.zeros((4, 64), np.uint8))
    np.save("grey.npy", np.full((4, 64), 0.25))
    np.save("white.npy", np.full((4, 64), 255))
    np.save("beyond.npy", np.full((4, 64), 1.5))
    np.save("nan.npy", np.full((4, 64), np.nan))
    np.save("mask.npy", np.arange(64) < 9)
    RBM(64, 4).save("rbm.safetensors")
    VAE(64, 2, hidden=(4,)).save("vae.safetensors")
    PixelCNN(8, 8, output="categorical", levels=4, n_features=2, n_blocks=1).save("levels.safetensors")


ERRORS = [
    ("train pixelcnn --out m", "--data"),
    ("train pixelcnn --out m --data digits --features 0", "--features", "at least 1"),
    ("train pixelcnn --out m --data digits --output gaussian", "--output", "'gaussian'"),
    ("train pixelcnn --out m --data digits --levels 4", "--levels", "bernoulli"),
    ("train pixelcnn --out m --data digits --output categorical --levels 257", "--levels", "2 to 256"),
    ("train pixelcnn --out m --data digits --output categorical --threshold 0.5", "--threshold", "categorical"),
    ("train pixelcnn --out m --data digits --shape 9x8", "--shape", "64 pixels", "9x8"),
    ("train pixelcnn --out m --data narrow.npy", "5 units", "--shape ROWSxCOLUMNS"),
    ("train pixelcnn --out m --data grey.npy", "grey.npy", "0 and 1 only", "--threshold X",
     "--output categorical --levels N", "0.25 at (0, 0)"),
    ("train pixelcnn --out m --data white.npy --threshold 0.5", "floats from 0 to 1 are cut", "255 at (0, 0)"),
    ("train pixelcnn --out m --data beyond.npy --threshold 0.5", "beyond.npy", "0 to 1", "1.5"),
    ("train pixelcnn --out m --data white.npy --output categorical --levels 4", "integers from 0 to 3", "255"),
    ("train pixelcnn --out m --data beyond.npy --output categorical", "floats from 0 to 1", "1.5", "float64"),
    ("train pixelcnn --out m --data nan.npy --output categorical", "floats from 0 to 1", "nan"),
    ("train pixelcnn --out m --data digits --samples-every 2", "--samples-every", "--samples"),
    ("train pixelcnn --out m --data digits --samples shown.npy", "--samples:", ".png", "shown.npy"),
    ("train pixelcnn --out m --data digits --samples nowhere/s.png", "--samples:", "nowhere"),
    ("train pixelcnn --out m --data digits --optimizer lion", "--optimizer", "'lion'"),
    ("train pixelcnn --out m --data rows.npy --patience 3", "--patience", "rows.npy", "'valid'"),
    ("train pixelcnn --data digits", "--resume", "--overwrite"),
    (f"{SMALL} --resume --blocks 2", "model.safetensors", "'n_blocks': 2"),
    (f"{SMALL} --resume --optimizer adam", "optimizer was 'RMSprop', is 'Adam'"),
    ("train vae --data digits --resume", "model.safetensors", "holds a PixelCNN"),
    ("sample model.safetensors --steps 5", "--steps", "RBM", "model.safetensors is of kind PixelCNN"),
    ("sample model.safetensors --means", "--means", "RBM or VAE", "of kind PixelCNN"),
    ("sample model.safetensors --manifold 5", "--manifold", "VAE", "of kind PixelCNN"),
    ("sample rbm.safetensors --temperature 0.5", "--temperature", "PixelCNN", "of kind RBM"),
    ("sample vae.safetensors --clamp mask.npy", "--clamp", "RBM or PixelCNN", "of kind VAE"),
    ("sample model.safetensors --temperature 0", "--temperature", "above 0"),
    ("sample model.safetensors --shape 4x16", "--shape", "8x8", "4x16"),
    ("sample model.safetensors --start digits", "--start", "--clamp"),
    ("sample model.safetensors --clamp mask.npy", "--clamp", "--start"),
    ("sample model.safetensors --start grey.npy --clamp mask.npy", "--start", "0 and 1 only", "--threshold X"),
    ("sample model.safetensors --start digits --clamp grey.npy", "--clamp", "0 and 1 only"),
    ("sample model.safetensors -n 300 --start digits --clamp mask.npy", "256"),
    ("sample model.safetensors -n 5 --start rows.npy --clamp mask.npy", "--start", "1 row, or at least 5", "4"),
    (f"{SMALL} --out m --hidden 5,5", "--hidden", "one number", "'5,5'"),
    (f"{SMALL} --out m --output discretised_logistic --mixtures 0", "--mixtures", "from 1 to 256", "'0'"),
    ("sample levels.safetensors --start white.npy --clamp mask.npy", "0 to 3", "255"),
    ("evaluate model.safetensors --data digits --runs 100", "--runs", "RBM", "of kind PixelCNN"),
    ("evaluate model.safetensors --data digits --samples 10", "--samples", "VAE", "of kind PixelCNN"),
    ("evaluate model.safetensors --data narrow.npy", "narrow.npy", "rows of 5", "64 visible"),
    ("evaluate model.safetensors --data grey.npy", "grey.npy", "0 and 1 only", "--threshold X"),
    ("evaluate levels.safetensors --data grey.npy --threshold 0.5", "--threshold", "categorical"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("command", "words"), [(c, w) for c, *w in ERRORS], ids=lambda x: x if isinstance(x, str) else ""
)
def test_wrong_input_is_named_in_one_line(command, words, trained, capsys):
    files_for_errors()
    assert_refused(command, words, capsys)


def test_divergence_names_the_update_and_ends_with_status_1(capsys):
    assert_diverges(f"train pixelcnn --data digits --lr 1e30 {TINY} --optimizer sgd --epochs 1", capsys)


@pytest.mark.parametrize(("command", "kind"), [("row-lstm", RowLSTM), ("diagonal-bilstm", DiagonalBiLSTM)])
def test_recurrent_models_of_images(command, kind, capsys):
    """The same parameters as from Python, samples and the exact likelihood of their file."""
    assert (
        run(f"train {command} --data digits {TINY} --epochs 1 --batch-size 50 --seed 3 --out m.safetensors")
        == 0
    )
    assert f"{kind.__name__}, 8x8 pixels, binary, 1 block of h = 2" in capsys.readouterr().out
    expected = kind(8, 8, n_features=2, n_blocks=1, n_hidden=4, seed=3)
    expected.fit(DIGITS.train, epochs=1, batch_size=50, lr=train.linear(0.001), progress=False)
    model = kind.load("m.safetensors")
    assert_same_parameters(Path("m.safetensors"), expected)
    assert run("evaluate m.safetensors --data digits --rows 9 --json") == 0
    rows = DIGITS.test[np.arange(9) * len(DIGITS.test) // 9]
    judged = json.loads(capsys.readouterr().out)["log_likelihood"]
    assert judged == pytest.approx(model.log_prob(rows).mean(), abs=1e-9)
    assert run("sample m.safetensors -n 3 --seed 1 --out three.npy") == 0
    assert np.array_equal(np.load("three.npy"), model.sample(3, key=1).reshape(3, -1))
