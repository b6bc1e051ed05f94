"""The command line of variational autoencoders: values by quadrature in float64, what files hold, every error."""

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

import gencore
from gencore import datasets, io, train
from gencore.autograd import no_grad
from gencore.cli import main
from gencore.models import RBM, VAE

DIGITS = datasets.load("digits")
SMALL = "train vae --data digits --latent 1 --hidden 12 --epochs 8 --lr 0.01 --batch-size 32 --seed 3"


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def bytes_of_trained(tmp_path_factory):
    path = tmp_path_factory.mktemp("trained") / "vae.safetensors"
    assert run(f"{SMALL} --out {path}") == 0
    return path.read_bytes()


@pytest.fixture
def trained(bytes_of_trained):
    """model.safetensors: one latent unit, so that integrals over it can be done."""
    Path("model.safetensors").write_bytes(bytes_of_trained)
    return VAE.load("model.safetensors")


# --- train --------------------------------------------------------------------------------------------------

CALLS = [
    (
        "--latent 3 --hidden 20,10 --activation relu --epochs 2 --batch-size 50 --lr 0.01 --lr-end 0.001 "
        "--schedule exponential --kl-annealing 0.5 --kl-weight 0.8 --free-bits 0.1 --clip-norm 5 --seed 9",
        lambda: VAE(64, 3, hidden=(20, 10), activation="relu", seed=9),
        {"lr": train.exponential(0.01, 0.001), "batch_size": 50, "kl_weight": train.warmup(0.8, 0.5),
         "free_bits": 0.1, "clip_norm": 5.0},
    ),
    (
        "--latent 4,2 --hidden 10/5 --importance 3 --epochs 2 --schedule constant --optimizer rmsprop",
        lambda: VAE(64, (4, 2), hidden=((10,), (5,)), seed=0),
        {"lr": 0.001, "n_importance": 3, "optimizer": "rmsprop"},
    ),
    (
        "--latent 3 --latent-kind categorical --classes 4 --hidden 9 --temperature 0.9 --temperature-end 0.4 "
        "--straight-through --epochs 2 --kl-annealing 1 --schedule cosine",
        lambda: VAE(64, 3, hidden=(9,), latent="categorical", n_classes=4, seed=0),
        {"lr": train.cosine(0.001), "temperature": train.exponential(0.9, 0.4), "straight_through": True,
         "kl_weight": train.linear(0, 1)},
    ),
    (
        "--latent 5 --latent-kind bernoulli --hidden 9 --decoder-hidden none --estimator reinforce --epochs 2",
        lambda: VAE(64, 5, hidden=(9,), latent="bernoulli", decoder_hidden=(), seed=0),
        {"lr": train.linear(0.001), "estimator": "reinforce"},
    ),
    (
        "--latent 2 --hidden none --likelihood gaussian --epochs 2 --patience 1",
        lambda: VAE(64, 2, hidden=(), likelihood="gaussian", seed=0),
        {"lr": train.linear(0.001), "patience": 1},
    ),
]  # fmt: skip


@pytest.mark.parametrize(
    ("options", "make", "arguments"), CALLS, ids=[c[0].split(" --epochs")[0] for c in CALLS]
)
def test_train_is_fit_with_these_arguments(options, make, arguments):
    assert run(f"train vae --data digits --out a.safetensors {options}") == 0
    model = make()
    model.fit(DIGITS.train, epochs=2, validation=DIGITS.valid, progress=False, **arguments)
    assert_same_parameters("a.safetensors", model)


def test_each_epoch_and_the_result_are_told(capsys):
    assert run(f"{SMALL} --out told.safetensors") == 0
    out = capsys.readouterr().out
    history = io.load_model("told.safetensors").state["training"]["history"]
    for record in history:
        assert f"epoch {record['epoch']:4}  ELBO train {record['elbo']:.3f}" in out
        assert f"valid {record['validation_elbo']:.3f}, KL {record['kl']:.3f}" in out
    value, reconstruction, kl = map(
        float, re.search(r"^result.*test (\S+) = reconstruction (\S+) - KL (\S+)", out, re.MULTILINE).groups()
    )
    assert value == pytest.approx(reconstruction - kl, abs=0.0015)  # three roundings to 3 digits
    assert abs(value - Quadrature(VAE.load("told.safetensors"), DIGITS.test).elbo) < 0.2
    assert "\x1b" not in out
    assert "\r" not in out


def test_grey_levels_are_means_unless_cut(monkeypatch, capsys):
    grey = datasets.digits(threshold=None)
    monkeypatch.setattr(datasets, "load", lambda name, root: grey)
    for name, option, rows in (
        ("kept", "", grey.train / np.float32(16)),
        ("cut", "--threshold 0.25", (grey.train >= 4).astype(np.uint8)),
    ):
        command = f"train vae --data mnist --latent 2 --hidden 5 --epochs 1 --schedule constant {option}"
        assert run(f"{command} --out {name}.safetensors") == 0
        model = VAE(64, 2, hidden=(5,), seed=0)
        model.fit(rows, epochs=1, progress=False)
        assert_same_parameters(f"{name}.safetensors", model)
    assert "gencore evaluate cut.safetensors --data mnist --threshold 0.25" in capsys.readouterr().out
    assert run("evaluate cut.safetensors --data mnist --threshold 0.25 --samples 2 --json") == 0
    rates = (grey.train >= 4).mean(axis=0).clip(1e-4, 1 - 1e-4)
    expected = np.where(grey.test >= 4, np.log(rates), np.log1p(-rates)).sum(axis=1).mean()
    assert json.loads(capsys.readouterr().out)["independent_units"] == pytest.approx(expected, rel=1e-12)


def test_real_valued_files(capsys):
    rng = np.random.default_rng(4)
    rows = rng.normal(3.0, 2.0, (300, 6)).astype(np.float32)
    np.save("real.npy", rows)
    command = "train vae --data real.npy --likelihood gaussian --latent 2 --hidden 8 --epochs 1"
    assert run(f"{command} --out g.safetensors") == 0
    assert run("sample g.safetensors --no-means -n 500 --out drawn.npy") == 0
    drawn = np.load("drawn.npy")
    assert drawn.dtype == np.float32
    # The model starts at the data's mean and variance: 500 draws of deviation 2 have means of error 2 / sqrt(500).
    assert np.abs(drawn.mean(axis=0) - rows.mean(axis=0)).max() < 1.0
    capsys.readouterr()
    assert run("evaluate g.safetensors --data real.npy --samples 20 --json") == 0
    found = json.loads(capsys.readouterr().out)
    # Normal units of deviation 2 have an entropy of log(2 sqrt(2 pi e)) = 2.112 nats each.
    assert found["log_likelihood_bound"] == pytest.approx(-6 * 2.112, abs=1.0)
    assert found["independent_units"] is None


def test_resuming_after_kill_9_gives_the_bits_of_an_unbroken_run(tmp_path):
    long = shlex.split("train vae --data digits --latent 6,3 --hidden 60 --epochs 60 --checkpoint-every 30")
    killed = start_process(*long, "--out", "killed.safetensors")
    wait_for(tmp_path / "killed.safetensors", killed)
    killed.kill()
    killed.communicate()
    assert killed.returncode == -signal.SIGKILL
    assert 0 < VAE.load("killed.safetensors").steps < 60 * 11
    assert main([*long, "--out", "killed.safetensors", "--resume"]) == 0
    assert main([*long, "--out", "whole.safetensors", "--resume"]) == 0
    assert_same_training("killed.safetensors", "whole.safetensors")


def test_ctrl_c_says_what_was_kept(tmp_path):
    long = shlex.split("train vae --data digits --latent 3 --hidden 60 --epochs 500 --out kept.safetensors")
    process = start_process(*long)
    wait_for(tmp_path / "kept.safetensors", process)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate()
    assert process.returncode == 130, err
    assert len(err.strip().splitlines()) == 1
    assert f"holds the state after {VAE.load('kept.safetensors').steps:,} updates" in err


# --- evaluate -----------------------------------------------------------------------------------------------


class Quadrature:
    """Integrals over the single latent unit, in float64 on a grid so fine that their error does not show."""

    def __init__(self, model, rows):
        z = np.linspace(-9, 9, 3001)
        with no_grad():
            logits = np.asarray(model.decoders[0](z[:, None].astype(np.float32))[0]).astype(np.float64)
            mean, logvar = (np.asarray(p).astype(np.float64) for p in model.encoders[0](rows))
        step = z[1] - z[0]
        fit = rows @ logits.T - np.logaddexp(0, logits).sum(axis=1)  # log p(x | z): (n, grid)
        log_prior = -0.5 * (z**2 + np.log(2 * np.pi))
        log_q = -0.5 * ((z - mean) ** 2 / np.exp(logvar) + logvar + np.log(2 * np.pi))
        q = np.exp(log_q) * step
        assert np.abs(q.sum(axis=1) - 1).max() < 1e-9
        log_joint = fit + log_prior
        top = log_joint.max(axis=1, keepdims=True)
        each = top[:, 0] + np.log(np.exp(log_joint - top).sum(axis=1) * step)
        self.log_likelihood = each.mean()
        weights = np.exp(log_joint - log_q - each[:, None])  # of mean 1 under q
        self.variance_of_weights = (q * weights**2).sum(axis=1) - 1
        expected = (q * fit).sum(axis=1)
        self.kl = (0.5 * (mean**2 + np.exp(logvar) - 1 - logvar)).mean()
        self.reconstruction = expected.mean()
        self.elbo = self.reconstruction - self.kl
        self.variance_of_fit = (q * fit**2).sum(axis=1) - expected**2
        self.mean_of_z = mean


def test_evaluate_prints_what_quadrature_gives(trained, capsys):
    capsys.readouterr()
    draws, n = 200, len(DIGITS.test)
    assert run(f"evaluate model.safetensors --data digits --samples {draws} --json") == 0
    found = json.loads(capsys.readouterr().out)
    exact = Quadrature(trained, DIGITS.test)
    # Float32 fields leave 1e-4 of numbers near 25; the rest is the error of so many draws, taken five times.
    error = np.sqrt(exact.variance_of_fit.mean() / (found["elbo_samples"] * n))
    assert found["elbo_samples"] == 100
    assert found["kl"] == pytest.approx(exact.kl, abs=1e-4)
    assert found["reconstruction"] == pytest.approx(exact.reconstruction, abs=5 * error + 1e-4)
    assert found["elbo"] == pytest.approx(found["reconstruction"] - found["kl"], abs=1e-4)
    # log of a mean of K weights of mean 1: variance v / K, and v / 2 K below 0 on average.
    bias = exact.variance_of_weights.mean() / (2 * draws)
    error = np.sqrt(exact.variance_of_weights.mean() / (draws * n))
    assert found["log_likelihood_bound"] == pytest.approx(
        exact.log_likelihood - bias, abs=5 * error + bias + 1e-4
    )
    assert found["elbo"] < found["log_likelihood_bound"]
    assert found["active_units"] == [int(exact.mean_of_z.var() > 0.01)]
    assert (found["rows"], found["samples"], found["latent_units"]) == (n, draws, [1])


def test_evaluate_in_words_is_the_same(trained, capsys):
    assert run("evaluate model.safetensors --data digits --samples 30 --seed 5 --json") == 0
    found = json.loads(capsys.readouterr().out)
    assert run("evaluate model.safetensors --data digits --samples 30 --seed 5 --threads 2") == 0
    text = capsys.readouterr().out
    for name, key in (
        ("log-likelihood", "log_likelihood_bound"),
        ("ELBO", "elbo"),
        ("independent", "independent_units"),
    ):
        assert re.search(rf"^{name} +{found[key]:.4f}\b", text, re.MULTILINE), (name, text)
    assert f"reconstruction {found['reconstruction']:.4f} - KL {found['kl']:.4f}, 30 draws" in text
    each = trained.log_likelihood(DIGITS.test, 30, key=8)
    # The spread of the rows by other draws: weights of 30 draws move it by far less than a tenth.
    expected = each.std(ddof=1) / 16
    assert found["log_likelihood_bound_standard_error"] == pytest.approx(expected, rel=0.1)
    assert f"{found['active_units'][0]} of 1" in text
    assert max(map(len, text.splitlines())) <= 100


def test_rows_are_spread_over_a_sorted_file(trained, capsys):
    order = np.argsort(DIGITS.test_labels, kind="stable")
    np.savez("sorted.npz", test=DIGITS.test[order])
    np.savez("some.npz", test=DIGITS.test[order][[0, 51, 102, 153, 204]])  # 256 / 5 rows apart
    found = []
    for command in ("--data sorted.npz --rows 5", "--data some.npz"):
        assert run(f"evaluate model.safetensors --samples 4 --json {command}") == 0
        found.append(json.loads(capsys.readouterr().out))
    assert found[0]["rows"] == 5
    assert found[0]["elbo"] == found[1]["elbo"]
    assert found[0]["independent_units"] is None  # no training data to take rates from


# --- sample -------------------------------------------------------------------------------------------------


def test_samples_follow_from_the_seed(trained):
    for name, options in (("a", "--seed 5 --threads 1"), ("b", "--seed 5 --threads 2"), ("c", "--seed 6")):
        assert run(f"sample model.safetensors -n 20 {options} --out {name}.npz") == 0
    a, b, c = (np.load(f"{name}.npz")["samples"] for name in "abc")
    assert a.dtype == np.float32
    assert a.shape == (20, 64)
    assert np.array_equal(a, b)
    assert not np.array_equal(a, c)
    assert np.array_equal(a, trained.sample(20, key=5))
    assert run("sample model.safetensors -n 20 --no-means --seed 5 --out d.npy") == 0
    assert np.array_equal(np.load("d.npy"), trained.sample(20, key=5, means=False))


def test_pictures_of_samples_and_of_the_manifold(trained):
    assert run("sample model.safetensors -n 12 --out samples.png") == 0
    assert min(imread("samples.png").shape[:2]) > 100
    assert run("sample model.safetensors --manifold 5 --out manifold.png") == 0
    assert run("sample model.safetensors --manifold 5 --out manifold.npy") == 0
    png = np.rint(imread("manifold.png")[..., 0] * 255)
    inside = png[18:-18, 18:-18]  # within the margin
    zoom = len(inside) // 40
    assert inside.shape == (40 * zoom, 40 * zoom)
    expected = trained.manifold(5)
    assert np.array_equal(np.load("manifold.npy"), expected)
    tiled = expected.reshape(5, 5, 8, 8).transpose(0, 2, 1, 3).reshape(40, 40)
    np.testing.assert_allclose(inside[::zoom, ::zoom], tiled * 255, atol=0.501)


def test_interpolations_join_reconstructions(trained):
    assert run("sample model.safetensors -n 7 --interpolate 3,200 8,8 --data digits --out lines.npy") == 0
    lines = np.load("lines.npy").reshape(2, 7, 64)
    ends = trained.reconstruct(DIGITS.test[[3, 200, 8]])
    # The same rows through products of other sizes: rounding of float32.
    np.testing.assert_allclose(lines[0, [0, -1]], ends[:2], atol=1e-5)
    np.testing.assert_allclose(lines[1], np.repeat(ends[2:], 7, axis=0), atol=1e-5)
    assert np.abs(np.diff(lines[0], axis=0)).max(axis=1).min() > 0
    assert run("sample model.safetensors --interpolate 0,1 --data digits --out lines.png") == 0
    height, width = imread("lines.png").shape[:2]
    assert width > 5 * height  # ten images a line


def test_dimensions_of_the_manifold():
    model = VAE(9, 3, hidden=(4,), seed=1)
    model.save("three.safetensors")
    assert run("sample three.safetensors --manifold 3 --dimensions 2,0 --out m.npy") == 0
    assert np.array_equal(np.load("m.npy"), model.manifold(3, dimensions=(2, 0)))


# --- errors -------------------------------------------------------------------------------------------------


def files_for_errors():
    np.save("narrow.npy", np.zeros((4, 5), np.uint8))
    np.save("rows.npy", np.zeros((4, 64), np.uint8))
    np.save("real.npy", np.full((4, 64), -1.5))
    np.save("nan.npy", np.full((4, 64), np.nan))
    RBM(64, 4).save("rbm.safetensors")
    VAE(64, 2, hidden=(4,), latent="bernoulli").save("binary.safetensors")
    io.save_model("other.safetensors", kind="Sequential", config={}, state={}, tensors={})


ERRORS = [
    ("train vae --out m", "--data"),
    ("train vae --out m --data digits --latent 0", "--latent", "'0'"),
    ("train vae --out m --data digits --latent 3,2,1", "--latent", "100,50"),
    ("train vae --out m --data digits --hidden big", "--hidden", "'big'"),
    ("train vae --out m --data digits --hidden 5/5", "hidden", "1 stochastic"),
    ("train vae --out m --data digits --latent 2,2 --latent-kind bernoulli", "'gaussian'", "'bernoulli'"),
    ("train vae --out m --data digits --latent 2,2 --decoder-hidden 5", "decoder_hidden"),
    ("train vae --out m --data digits --latent-kind poisson", "--latent-kind", "'poisson'"),
    ("train vae --out m --data digits --classes 3", "--classes", "gaussian"),
    ("train vae --out m --data digits --latent-kind categorical --classes 1", "--classes", "at least 2"),
    ("train vae --out m --data digits --temperature 0.5", "--temperature", "concrete"),
    ("train vae --out m --data digits --latent-kind bernoulli --estimator reinforce --straight-through",
     "--straight-through", "concrete"),
    ("train vae --out m --data digits --estimator concrete", "'concrete'", "reparam"),
    ("train vae --out m --data digits --estimator guess", "--estimator", "'guess'"),
    ("train vae --out m --data digits --importance 0", "--importance", "at least 1"),
    ("train vae --out m --data digits --importance 5 --free-bits 1", "free_bits 0"),
    ("train vae --out m --data digits --free-bits -1", "--free-bits", "'-1'"),
    ("train vae --out m --data digits --kl-annealing 2", "--kl-annealing", "at most 1"),
    ("train vae --out m --data digits --lr 0", "--lr", "above 0"),
    ("train vae --out m --data digits --schedule constant --lr-end 1", "--lr-end"),
    ("train vae --out m --data digits --optimizer lion", "--optimizer", "'lion'"),
    ("train vae --out m --data rows.npy --patience 3", "--patience", "rows.npy", "'valid'"),
    ("train vae --out m --data real.npy", "real.npy", "-1.5 at (0, 0)"),
    ("train vae --out m --data nan.npy --likelihood gaussian", "nan.npy", "nan"),
    ("train vae --data digits", "--resume", "--overwrite"),
    ("train vae --data digits --overwrite --estimator concrete", "'concrete'"),  # the older file is kept
    ("train vae --data digits --overwrite --resume", "--resume", "--overwrite", "not both"),
    ("train vae --data digits --resume --latent 7", "model.safetensors"),
    (f"{SMALL} --resume --free-bits 0.5", "free_bits was 0.0, is 0.5"),
    ("train rbm --data digits --resume", "model.safetensors", "holds a VAE"),
    ("sample model.safetensors --steps 5", "--steps", "RBM", "model.safetensors is of kind VAE"),
    ("sample model.safetensors --start digits", "--start", "RBM", "of kind VAE"),
    ("sample rbm.safetensors --manifold 4", "--manifold", "VAE", "rbm.safetensors is of kind RBM"),
    ("sample rbm.safetensors --data digits", "--data", "VAE"),
    ("sample other.safetensors", "other.safetensors", "Sequential", "RBM, VAE"),
    ("sample model.safetensors --manifold 0", "--manifold", "at least 1"),
    ("sample model.safetensors --manifold 3 -n 9", "-n", "--manifold"),
    ("sample model.safetensors --manifold 3 --no-means", "--means", "--manifold"),
    ("sample model.safetensors --manifold 3 --dimensions 0,1", "--dimensions", "0 to 0"),
    ("sample model.safetensors --dimensions 0,1", "--dimensions", "--manifold"),
    ("sample model.safetensors --manifold 3 --interpolate 1,2 --data digits", "--interpolate", "--manifold"),
    ("sample binary.safetensors --manifold 3", "--manifold", "binary.safetensors has bernoulli"),
    ("sample model.safetensors --interpolate 3", "--interpolate", "'3'"),
    ("sample model.safetensors --interpolate 3,4", "--data"),
    ("sample model.safetensors --data digits", "--interpolate"),
    ("sample model.safetensors --interpolate 3,256 --data digits", "0 to 255", "256"),
    ("sample model.safetensors --interpolate 0,1 --data narrow.npy", "narrow.npy", "rows of 5", "64 visible"),
    ("sample model.safetensors --interpolate 0,1 --data real.npy", "real.npy", "-1.5"),
    ("sample model.safetensors --shape 8x9", "8x9", "64"),
    ("evaluate model.safetensors --data digits --method ais", "--method", "RBM", "of kind VAE"),
    ("evaluate model.safetensors --data digits --runs 100", "--runs", "RBM"),
    ("evaluate rbm.safetensors --data digits --samples 10", "--samples", "VAE", "of kind RBM"),
    ("evaluate model.safetensors --data digits --samples 0", "--samples", "at least 1"),
    ("evaluate model.safetensors --data digits --rows 0", "--rows", "at least 1"),
    ("evaluate model.safetensors --data narrow.npy", "narrow.npy", "rows of 5", "64 visible"),
    ("evaluate model.safetensors --data real.npy", "real.npy", "0 to 1"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("command", "words"), [(c, w) for c, *w in ERRORS], ids=lambda x: x if isinstance(x, str) else ""
)
def test_wrong_input_is_named_in_one_line(command, words, trained, capsys):
    files_for_errors()
    assert_refused(command, words, capsys)


def test_divergence_names_the_update_and_ends_with_status_1(capsys):
    assert_diverges("train vae --data digits --lr 1e30 --hidden 5 --epochs 1", capsys)


def test_a_training_that_diverges_leaves_the_older_file(trained, capsys):
    before = Path("model.safetensors").read_bytes()
    assert run("train vae --data digits --overwrite --lr 1e30 --hidden 5 --epochs 1") == 1
    assert "became" in capsys.readouterr().err
    assert Path("model.safetensors").read_bytes() == before


def test_an_rbm_keeps_its_defaults(capsys):
    model = RBM(64, 3, seed=2)
    model.save("rbm.safetensors")
    assert run("sample rbm.safetensors -n 4 --out r.npy") == 0
    assert np.array_equal(np.load("r.npy"), RBM.load("rbm.safetensors").sample(4, steps=1000, key=0))
    assert "1000 Gibbs steps" in capsys.readouterr().out
    assert gencore.io.load_model("rbm.safetensors").kind == "RBM"
