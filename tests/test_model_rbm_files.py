"""models.RBM in files: interrupted trainings that go on to the same bits, copies, and what is refused."""

import copy
import os
import pickle
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from model_checks import assert_same, without_times

import gencore as gc
from gencore.models import RBM
from gencore.train import DivergenceError, linear

DIGITS = gc.datasets.load("digits")


TRAINING = {
    "epochs": 6, "batch_size": 100, "lr": linear(0.2), "momentum": 0.6, "weight_decay": 1e-3, "n_chains": 30,
    "validation": DIGITS.valid,
}  # fmt: skip


class StoppedError(Exception):
    pass


def stop_at(epoch):
    def callback(model, record):
        if record["epoch"] == epoch:
            raise StoppedError

    return callback


@pytest.mark.parametrize(
    "options", [{}, {"algorithm": "cd", "k": 2}, {"centered": False, "momentum": 0.0}], ids=str
)
@pytest.mark.parametrize("every", [None, 10])  # an epoch has 13 updates; each write waits for the disk
def test_resuming_gives_the_bits_of_an_unbroken_run(tmp_path, options, every):
    path = tmp_path / "model.safetensors"
    whole = RBM(64, 14, seed=8)
    expected = whole.fit(DIGITS.train, **TRAINING | options)
    for epoch in (2, 3, 5):
        with pytest.raises(StoppedError):
            RBM(64, 14, seed=8).fit(
                DIGITS.train, **TRAINING | options, checkpoint=path, checkpoint_every=every, resume=True,
                callbacks=[stop_at(epoch)],
            )  # fmt: skip
        assert RBM.load(path).steps == (13 * epoch if every is None else 13 * epoch // every * every)
    model = RBM(64, 14, seed=8)
    history = model.fit(
        DIGITS.train, **TRAINING | options, checkpoint=path, checkpoint_every=every, resume=True
    )
    assert without_times(history.records) == without_times(expected.records)
    assert_same(model, whole)
    stored = RBM.load(path)
    assert np.array_equal(stored.weight, whole.weight), "the end is saved, too"
    again = model.fit(
        DIGITS.train, **TRAINING | options, checkpoint=path, checkpoint_every=every, resume=True
    )
    assert len(again) == 6, "nothing was left to do"


def test_resuming_after_kill_9(tmp_path):
    path = tmp_path / "model.safetensors"
    code = f"""
        import os, signal
        import gencore as gc

        def lr(done):
            if 0.6 < done < 1 and done * 256 % 1:  # a training asks for the rates at each 1/256 when it begins
                os.kill(os.getpid(), signal.SIGKILL)
            return 0.1 * (1 - done)

        data = gc.datasets.load("digits")
        gc.models.RBM(64, 9, seed=1).fit(
            data.train, epochs=5, batch_size=64, lr=lr, checkpoint={str(path)!r}, checkpoint_every=10
        )
    """
    environment = {**os.environ, "PYTHONPATH": str(Path(gc.__file__).parents[1])}
    command = [sys.executable, "-P", "-c", textwrap.dedent(code)]
    done = subprocess.run(command, capture_output=True, check=False, env=environment)
    assert done.returncode == -9, done.stderr.decode()
    assert RBM.load(path).steps == 60  # of 64 when it died; an epoch has 21
    arguments = {"epochs": 5, "batch_size": 64, "lr": lambda done: 0.1 * (1 - done)}
    resumed, whole = RBM(64, 9, seed=1), RBM(64, 9, seed=1)
    history = resumed.fit(DIGITS.train, **arguments, checkpoint=path, checkpoint_every=10, resume=True)
    expected = whole.fit(DIGITS.train, **arguments)
    assert without_times(history.records) == without_times(expected.records)
    assert_same(resumed, whole)


def test_resuming_with_other_arguments_or_data_is_refused(tmp_path):
    path = tmp_path / "model.safetensors"
    RBM(64, 4).fit(DIGITS.train[:30], epochs=2, lr=np.float32(0.5), batch_size=np.int64(16), checkpoint=path)
    before = path.read_bytes()
    same = {"epochs": 2, "lr": 0.5, "batch_size": 16, "checkpoint": path, "resume": True}
    RBM(64, 4).fit(DIGITS.train[:30], **same)
    for changes, named in (
        ({"epochs": 3}, "epochs was 2, is 3"),
        ({"lr": linear(0.5)}, "lr was 0.5"),
        ({"k": 2}, "k was 1"),
    ):
        with pytest.raises(ValueError, match=named):
            RBM(64, 4).fit(DIGITS.train[:30], **same | changes)
    for rows in (DIGITS.train[:29], DIGITS.train[1:31]):
        with pytest.raises(ValueError, match="X was '30 rows"):
            RBM(64, 4).fit(rows, **same)
    with pytest.raises(ValueError, match=r"RBM\(64, 5"):
        RBM(64, 5).fit(DIGITS.train[:30], **same)
    with pytest.raises(ValueError, match="name the file to resume from"):
        RBM(64, 4).fit(DIGITS.train[:30], epochs=1, resume=True)
    assert path.read_bytes() == before
    RBM(64, 4).save(path)
    with pytest.raises(ValueError, match="never trained"):
        RBM(64, 4).fit(DIGITS.train[:30], **same)


def test_divergence_is_reported_and_the_checkpoint_kept(tmp_path):
    path = tmp_path / "model.safetensors"
    explode = {"epochs": 4, "batch_size": 100, "lr": lambda done: 0.1 if done < 0.5 else 1e38}
    model = RBM(64, 6)
    with pytest.raises(
        DivergenceError,
        match=r"became -?(inf|nan) at .* (2[7-9]|3\d) \(epoch 3\).*smaller",
    ) as caught:
        model.fit(DIGITS.train, checkpoint=path, checkpoint_every=13, **explode)  # from update 27 on
    assert str(path) in str(caught.value)
    kept = RBM.load(path)
    assert kept.steps == 26
    assert all(np.isfinite(p).all() for p in kept.parameters)
    with pytest.raises(DivergenceError, match="no checkpoint was asked for"):
        RBM(64, 6).fit(DIGITS.train, **explode)
    with pytest.raises(DivergenceError, match="no checkpoint was written yet"):
        RBM(64, 6).fit(DIGITS.train, epochs=1, lr=1e38, checkpoint=tmp_path / "other", batch_size=100)


# --- files and copies ---------------------------------------------------------------------------------------


def test_saved_pickled_and_copied_models_go_on_as_the_original(tmp_path):
    model = RBM(64, 9, seed=4)
    model.fit(DIGITS.train[:200], epochs=2, momentum=0.5, n_chains=12)
    model.sample(3, steps=2)
    model.save(tmp_path / "a")
    copies = [RBM.load(tmp_path / "a"), pickle.loads(pickle.dumps(model)), copy.deepcopy(model)]
    chains = model.advance_chains(4)
    for other in copies:
        assert np.array_equal(other.advance_chains(4), chains)
        assert other.chain_step == model.chain_step
    originals = [copy.deepcopy(model) for _ in copies]
    for other, original in zip(copies, originals, strict=True):
        assert_same(other, original)
    untouched = copies[2].weight.copy()
    model.weight[:] = 0
    assert np.array_equal(copies[2].weight, untouched)
    RBM(5, 3).save(tmp_path / "b")
    assert RBM.load(tmp_path / "b").chains is None


def test_loading_is_strict(tmp_path):
    model = RBM(6, 4)
    model.fit(np.eye(6), epochs=1)
    model.save(tmp_path / "good")
    stored = gc.io.load_model(tmp_path / "good")

    def write(kind="RBM", **changes):
        tensors = {name: array for name, array in (stored.tensors | changes).items() if array is not None}
        gc.io.save_model(
            tmp_path / "bad", kind=kind, config=stored.config, state=stored.state, tensors=tensors
        )
        return tmp_path / "bad"

    for changes, words in (
        ({"weight": None}, "missing weight"),
        ({"wieght": np.zeros(3)}, "unexpected wieght"),
        ({"weight": np.zeros((4, 6), np.float32)}, r"weight of shape \(6, 4\)"),
        ({"hidden_bias": np.full(4, np.nan, np.float32)}, "hidden_bias to be finite"),
        ({"chains": np.zeros((3, 5), np.uint8)}, r"chains of shape \(n, 6\)"),
        ({"data_mean": np.zeros(5, np.float32)}, r"data_mean of shape \(6,\)"),
        ({"kind": "VAE"}, "holds a VAE"),
    ):
        with pytest.raises(ValueError, match=words):
            RBM.load(write(**changes))
    with pytest.raises(FileNotFoundError):
        RBM.load(tmp_path / "nothing")
