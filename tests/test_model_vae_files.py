"""models.VAE in files: every latent and estimator goes on to the same bits; copies; what is refused."""

import copy
import os
import pickle
import subprocess
import sys
import textwrap

import numpy as np
import pytest
from model_checks import without_times

import gencore as gc
from gencore.models import VAE
from gencore.train import DivergenceError, linear

DIGITS = gc.datasets.load("digits")
X, VALID = DIGITS.train[:250], DIGITS.valid[:60]
KINDS = {
    "reparam": ({"n_latent": 4}, {}),
    "importance": ({"n_latent": 4}, {"n_importance": 3}),
    "free bits": ({"n_latent": 4}, {"free_bits": 0.2, "kl_weight": linear(0, 1), "optimizer": "rmsprop"}),
    "gaussian reinforce": ({"n_latent": 4}, {"estimator": "reinforce"}),
    "gaussian wake-sleep": ({"n_latent": 4}, {"estimator": "wake-sleep"}),
    "real data": ({"n_latent": 4, "likelihood": "gaussian"}, {}),
    "bernoulli": ({"n_latent": 5, "latent": "bernoulli"}, {"temperature": linear(1, 0.5)}),
    "bernoulli reinforce": ({"n_latent": 5, "latent": "bernoulli"}, {"estimator": "reinforce", "clip_norm": 5.0}),
    "bernoulli wake-sleep": ({"n_latent": 5, "latent": "bernoulli"}, {"estimator": "wake-sleep"}),
    "categorical": ({"n_latent": 3, "latent": "categorical", "n_classes": 4}, {"straight_through": True}),
    "categorical reinforce": ({"n_latent": 3, "latent": "categorical", "n_classes": 4}, {"estimator": "reinforce"}),
    "two layers": ({"n_latent": (4, 2), "hidden": ((8,), (6,))}, {}),
    "two layers reinforce": ({"n_latent": (4, 2)}, {"estimator": "reinforce"}),
    "two layers wake-sleep": ({"n_latent": (4, 2)}, {"estimator": "wake-sleep"}),
    "decoder of its own": ({"n_latent": 4, "decoder_hidden": (5,), "activation": "relu"}, {"lr": linear(3e-3)}),
}  # fmt: skip


def make(options):
    return VAE(64, **{"hidden": (8,), "seed": 3, **options})


def fit(vae, arguments, **more):
    common = {
        "epochs": 5,
        "batch_size": 80,
        "lr": 3e-3,
        "validation": VALID,
        "patience": 4,
        "progress": False,
    }
    return vae.fit(X, **{**common, **arguments, **more})


class StoppedError(Exception):
    pass


def stop_at(epoch):
    def callback(model, record):
        if record["epoch"] == epoch:
            raise StoppedError

    return callback


def assert_same(a, b):
    assert a.config == b.config
    assert a.steps == b.steps
    first, second = a.state_dict(), b.state_dict()
    assert first.keys() == second.keys()
    for name, value in first.items():
        np.testing.assert_array_equal(value, second[name], err_msg=name)
    np.testing.assert_array_equal(a.sample(4, key=1), b.sample(4, key=1))


@pytest.mark.parametrize(("options", "arguments"), KINDS.values(), ids=KINDS)
def test_resuming_gives_the_bits_of_an_unbroken_run(tmp_path, options, arguments):
    path = tmp_path / "vae.safetensors"
    whole = make(options)
    expected = fit(whole, arguments)
    for epoch in (1, 3):  # 4 updates each; checkpoints after 3, 6 and 9
        with pytest.raises(StoppedError):
            fit(
                make(options),
                arguments,
                checkpoint=path,
                checkpoint_every=3,
                resume=True,
                callbacks=[stop_at(epoch)],
            )
        assert VAE.load(path).steps == 4 * epoch // 3 * 3
    resumed = make(options)
    history = fit(resumed, arguments, checkpoint=path, checkpoint_every=3, resume=True)
    assert without_times(history.records) == without_times(expected.records)
    assert_same(resumed, whole)
    assert resumed.generator.state == whole.generator.state
    loaded = VAE.load(path)
    assert_same(loaded, whole)
    assert not loaded.training
    # A second training of the model that was loaded is that of the model in memory.
    again = (fit(model, arguments, epochs=2).records for model in (loaded, whole))
    assert without_times(next(again)) == without_times(next(again))
    assert_same(loaded, whole)


def test_resuming_after_kill_9(tmp_path):
    path = tmp_path / "vae.safetensors"
    code = f"""
        import os, signal
        import gencore as gc

        def lr(done):
            if 0.6 < done < 1 and done * 256 % 1:  # a training asks for the rates at each 1/256 when it begins
                os.kill(os.getpid(), signal.SIGKILL)
            return 0.01 * (1 - done)

        data = gc.datasets.load("digits")
        gc.models.VAE(64, 3, hidden=(8,), seed=1).fit(
            data.train[:250], epochs=5, batch_size=80, lr=lr, checkpoint={str(path)!r}, checkpoint_every=5
        )
    """
    command = [sys.executable, "-P", "-c", textwrap.dedent(code)]
    done = subprocess.run(command, capture_output=True, check=False, env=os.environ.copy())
    assert done.returncode == -9, done.stderr.decode()
    assert VAE.load(path).steps == 10  # of 13 when it died
    arguments = {"epochs": 5, "batch_size": 80, "lr": lambda done: 0.01 * (1 - done), "progress": False}
    resumed, whole = (VAE(64, 3, hidden=(8,), seed=1) for _ in range(2))
    history = resumed.fit(X, **arguments, checkpoint=path, checkpoint_every=5, resume=True)
    assert without_times(history.records) == without_times(whole.fit(X, **arguments).records)
    assert_same(resumed, whole)


def test_resuming_with_other_arguments_is_refused(tmp_path):
    path = tmp_path / "vae.safetensors"
    fit(make({"n_latent": np.int64(4)}), {"n_importance": np.int64(2)}, epochs=1, checkpoint=path)
    before = path.read_bytes()
    for options, arguments, named in (
        ({}, {"n_importance": 3}, "n_importance was 2, is 3"),
        ({}, {"n_importance": 1}, "n_importance was 2, is 1"),
        ({}, {"n_importance": 2, "optimizer": "sgd"}, "optimizer was 'Adam', is 'SGD'"),
        ({"n_latent": 5}, {"n_importance": 2}, "'n_latent': 5"),
        ({"seed": 4}, {"n_importance": 2}, "'seed': 4"),
    ):
        with pytest.raises(ValueError, match=named):
            fit(make({"n_latent": 4, **options}), arguments, epochs=1, checkpoint=path, resume=True)
    assert path.read_bytes() == before
    # Without any schedule, more epochs are the same training; with one they are another.
    assert len(fit(make({"n_latent": 4}), {"n_importance": 2}, epochs=2, checkpoint=path, resume=True)) == 2
    arguments = {"kl_weight": linear(0, 1)}
    fit(make({"n_latent": 4}), arguments, epochs=1, checkpoint=path)
    with pytest.raises(ValueError, match="epochs was 1, is 2"):
        fit(make({"n_latent": 4}), arguments, epochs=2, checkpoint=path, resume=True)


def test_divergence_is_reported_and_the_checkpoint_kept(tmp_path):
    path = tmp_path / "vae.safetensors"
    vae = make({"n_latent": 4})
    with pytest.raises(DivergenceError, match=r"became -?(nan|inf) at .* (9|10) \(epoch 3\)") as error:
        fit(vae, {}, lr=lambda done: 1e-3 if done < 0.4 else 1e38, optimizer="sgd", checkpoint=path)
    assert str(path) in str(error.value)
    kept = VAE.load(path)
    assert kept.steps == 8
    assert np.isfinite(kept.log_likelihood(VALID, 10)).all()


@pytest.mark.parametrize("name", ["reparam", "real data", "bernoulli", "categorical", "two layers"])
def test_saved_pickled_and_copied_models_go_on_as_the_original(tmp_path, name):
    options, arguments = KINDS[name]
    vae = make(options)
    fit(vae, arguments, epochs=1)
    vae.sample(2)  # moves the generator
    vae.save(tmp_path / "a")
    copies = [VAE.load(tmp_path / "a"), pickle.loads(pickle.dumps(vae)), copy.deepcopy(vae)]
    drawn = vae.sample(5)
    for other in copies:
        np.testing.assert_array_equal(other.sample(5), drawn)
        fit(other, arguments, epochs=1)
    fit(vae, arguments, epochs=1)
    for other in copies:
        assert_same(other, vae)


def test_loading_is_strict(tmp_path):
    vae = make({"n_latent": 4})
    vae.save(tmp_path / "good")
    stored = gc.io.load_model(tmp_path / "good")

    def write(kind="VAE", **changes):
        tensors = {name: array for name, array in (stored.tensors | changes).items() if array is not None}
        gc.io.save_model(
            tmp_path / "bad", kind=kind, config=stored.config, state=stored.state, tensors=tensors
        )
        return tmp_path / "bad"

    for changes, words in (
        ({"encoders.0.heads.1.bias": None}, r"missing encoders\.0\.heads\.1\.bias"),
        ({"wieght": np.zeros(3)}, "unexpected wieght"),
        ({"encoders.0.heads.1.bias": np.zeros(5, np.float32)}, r"heads\.1\.bias of shape \(4,\)"),
        ({"kind": "RBM"}, "holds a RBM"),
    ):
        with pytest.raises(ValueError, match=words):
            VAE.load(write(**changes))
    with pytest.raises(FileNotFoundError):
        VAE.load(tmp_path / "nothing")
