"""The command line of NADE, MADE, FVBN and EoNADE: trainings to the bit, figures, completions, pictures, errors."""

import itertools
import json
import re
from pathlib import Path

import numpy as np
import pytest
from test_cli import assert_diverges, assert_refused, assert_same_parameters, assert_same_training, run
from test_cli_pixelcnn import images_of

from gencore import datasets, io, train
from gencore.models import FVBN, MADE, NADE, RBM, EoNADE

DIGITS = datasets.load("digits")
KINDS = {"nade": NADE, "made": MADE, "fvbn": FVBN, "eonade": EoNADE}
FAST = "--data digits --epochs 2 --batch-size 64 --seed 3"
CALLS = {
    "nade --hidden 20 --weight-decay 0.01": lambda: NADE(64, 20, seed=3),
    "made --hidden 30,20 --masks 3 --order random --direct --activation tanh": lambda: MADE(
        64, (30, 20), n_masks=3, order="random", direct=True, activation="tanh", seed=3
    ),
    "made --hidden 20": lambda: MADE(64, (20,), seed=3),
    "fvbn": lambda: FVBN(64, seed=3),
    "fvbn --hidden 2 --activation relu": lambda: FVBN(64, hidden=(2,), activation="relu", seed=3),
    "eonade --hidden 20 --orderings 2 --activation softplus": lambda: EoNADE(
        64, (20,), n_orderings=2, activation="softplus", seed=3
    ),
}


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("call", CALLS)
def test_train_is_fit_with_these_arguments(call, capsys):
    decay = {"weight_decay": 0.01} if "decay" in call else {}
    assert run(f"train {call} {FAST} --out a.safetensors --lr 0.01 --clip-norm 5 --patience 9") == 0
    out = capsys.readouterr().out
    model = CALLS[call]()
    history = model.fit(
        DIGITS.train, epochs=2, batch_size=64, lr=train.linear(0.01), clip_norm=5.0, patience=9,
        validation=DIGITS.valid, progress=False, **decay,
    )  # fmt: skip
    assert_same_parameters("a.safetensors", model)
    for record in history.records:
        figures = f"train {record['log_prob']:.3f}, valid {record['validation_log_prob']:.3f}"
        assert f"epoch {record['epoch']:4}  log-likelihood {figures}" in out
    assert f"test {model.log_prob(DIGITS.test).mean():.3f} nats" in out
    assert f"{model.n_parameters():,} parameters" in out
    assert "Next: gencore evaluate a.safetensors --data digits\n" in out


@pytest.mark.parametrize("call", ["made --hidden 20 --masks 3", "eonade --hidden 20 --orderings 1"])
def test_resuming_gives_the_bits_of_an_unbroken_run(call, monkeypatch):
    command = f"train {call} {FAST} --epochs 4"

    class Stopped(Exception):
        pass

    kind = {"made": MADE, "eonade": EoNADE}[call.split()[0]]
    fit = kind.fit

    def stop(_model, record):
        if record["epoch"] == 2:
            raise Stopped

    monkeypatch.setattr(kind, "fit", lambda *a, **k: fit(*a, **{**k, "callbacks": [stop]}))
    with pytest.raises(Stopped):
        run(f"{command} --out stopped.safetensors")
    monkeypatch.setattr(kind, "fit", fit)
    assert 0 < kind.load("stopped.safetensors").steps < 4 * 21
    assert run(f"{command} --out stopped.safetensors --resume") == 0
    assert run(f"{command} --out whole.safetensors") == 0
    assert_same_training("stopped.safetensors", "whole.safetensors")


@pytest.mark.parametrize("call", ["nade --hidden 20", "fvbn"])
def test_pictures_of_a_training_leave_its_bits_alone(call):
    name = call.split()[0]
    command = f"train {call} {FAST} --epochs 3"
    assert run(f"{command} --out with.safetensors --samples shown.png --samples-every 2 --shape 4x16") == 0
    assert run(f"{command} --out without.safetensors") == 0
    assert_same_training("with.safetensors", "without.safetensors")
    model = {"nade": NADE, "fvbn": FVBN}[name].load("with.safetensors")
    assert (
        run("sample with.safetensors --seed 3 --shape 4x16") == 0
    )  # the picture's are those of this command
    assert Path("samples.png").read_bytes() == Path("shown.png").read_bytes()
    assert run("sample with.safetensors --seed 3 -n 9 --out square.png") == 0
    assert np.array_equal(images_of("square.png", 3, 3, 8), model.sample(9, key=3).reshape(9, 8, 8))


MODELS = {
    "nade": lambda: NADE(6, 5, seed=1),
    "made": lambda: MADE(6, (7,), n_masks=2, seed=1),
    "fvbn": lambda: FVBN(6, hidden=(2,), seed=1),
    "eonade": lambda: EoNADE(6, (7,), n_orderings=2, seed=1),
}


@pytest.mark.parametrize("name", MODELS)
def test_evaluate_prints_what_enumeration_gives(name, capsys):
    """The model's log-probabilities less the log of their sum over all 64 states, which float32 leaves near 0."""
    model = MODELS[name]()
    everything = np.array(list(itertools.product((0, 1), repeat=6)), np.uint8)
    rng = np.random.default_rng(0)
    rows = {split: everything[rng.integers(0, 64, 40)] for split in ("train", "test")}
    np.savez("rows.npz", **rows)
    model.fit(rows["train"], epochs=20, lr=0.02, batch_size=10, progress=False)
    model.save("six.safetensors")
    assert run("evaluate six.safetensors --data rows.npz --json") == 0
    found = json.loads(capsys.readouterr().out)
    joint = model.log_prob(everything)
    each = joint[rows["test"].astype(int) @ 2 ** np.arange(6)[::-1]] - np.log(np.exp(joint).sum())
    assert np.ptp(joint) > 1  # not uniform
    assert found["log_likelihood"] == pytest.approx(each.mean(), abs=2e-5)
    assert found["row_standard_error"] == pytest.approx(each.std(ddof=1) / np.sqrt(40), abs=1e-5)
    assert found["bits_per_dimension"] == pytest.approx(-each.mean() / 6 / np.log(2), abs=6e-6)
    rates = rows["train"].mean(axis=0)
    independent = np.where(rows["test"], np.log(rates), np.log1p(-rates)).sum(axis=1).mean()
    assert found["independent_units"] == pytest.approx(independent, rel=1e-12)
    assert run("evaluate six.safetensors --data rows.npz") == 0
    text = capsys.readouterr().out
    spread = f"{found['log_likelihood']:.4f} +- {found['row_standard_error']:.4f} (exact"
    assert re.search(rf"^log-likelihood +{re.escape(spread)}", text, re.MULTILINE), text
    assert f"{found['bits_per_dimension']:.5f} bits a dimension" in text


@pytest.mark.parametrize("name", MODELS)
def test_samples_and_completions(name, capsys):
    model = MODELS[name]()
    model.save("m.safetensors")
    for out, options in (
        ("a", "--seed 5 --threads 1"), ("b", "--seed 5 --threads 2"), ("c", "--seed 5 --temperature 0.3"),
    ):  # fmt: skip
        assert run(f"sample m.safetensors -n 40 {options} --out {out}.npz") == 0
    a, b, c = (np.load(f"{out}.npz")["samples"] for out in "abc")
    assert np.array_equal(a, b)
    assert np.array_equal(a, model.sample(40, key=5))
    assert np.array_equal(c, model.sample(40, key=5, temperature=0.3))
    np.save("start.npy", np.array([1, 1, 0, 0, 1, 0], np.uint8))
    np.save("mask.npy", np.array([0, 1, 0, 0, 1, 1], bool))
    capsys.readouterr()
    assert run("sample m.safetensors -n 40 --start start.npy --clamp mask.npy --seed 2 --out d.npy") == 0
    assert ("do not count" in capsys.readouterr().out) == (name != "eonade")
    partial = np.array([np.nan, 1, np.nan, np.nan, 1, 0])
    assert np.array_equal(np.load("d.npy"), model.sample(40, partial=partial, key=2))


def files_for_errors():
    np.save("narrow.npy", np.zeros((4, 5), np.uint8))
    np.save("rows.npy", np.zeros((4, 64), np.uint8))
    np.save("grey.npy", np.full((4, 64), 0.25))
    np.save("mask.npy", np.arange(64) < 9)
    RBM(64, 4).save("rbm.safetensors")
    MADE(64, (4,)).save("model.safetensors")


ERRORS = [
    ("train made --out m", "--data"),
    ("train nade --out m --data digits --hidden 0", "--hidden", "at least 1"),
    ("train made --out m --data digits --hidden none", "--hidden", "layers such as 500,500", "'none'"),
    ("train fvbn --out m --data digits --hidden 3,x", "--hidden", "or none"),
    ("train made --out m --data digits --order given", "--order", "'given'"),
    ("train made --out m --data digits --activation identity", "--activation", "'identity'"),
    ("train eonade --out m --data digits --orderings 0", "--orderings", "at least 1"),
    ("train nade --out m --data digits --weight-decay -1", "--weight-decay", "at least 0"),
    ("train nade --out m --data digits --hidden 5,5", "--hidden", "one number", "'5,5'"),
    ("train nade --out m --data digits --hidden 500,500", "--hidden", "one number", "'500,500'"),
    ("train made --out m --data digits --hidden 1,000", "--hidden", "layers such as 500,500", "'1,000'"),
    ("train nade --out m --data digits --epochs 1,0", "--epochs", "an integer of at least 1", "'1,0'"),
    ("train fvbn --out m --data grey.npy", "grey.npy", "0 and 1 only", "0.25 at (0, 0)"),
    ("train fvbn --out m --data digits --samples-every 2", "--samples-every", "--samples"),
    ("train fvbn --out m --data digits --shape 8x8", "--shape", "--samples"),
    ("train fvbn --out m --data digits --samples s.png --shape 9x8", "--shape", "64 pixels", "9x8"),
    ("train fvbn --out m --data narrow.npy --samples s.png", "5 units", "--shape ROWSxCOLUMNS"),
    ("train nade --out m --data rows.npy --patience 3", "--patience", "rows.npy", "'valid'"),
    ("train made --data digits", "--resume", "--overwrite"),
    ("train made --data digits --resume", "model.safetensors", "'hidden': [500]"),
    ("train nade --data digits --resume", "model.safetensors", "holds a MADE"),
    ("sample model.safetensors --steps 5", "--steps", "RBM", "model.safetensors is of kind MADE"),
    ("sample rbm.safetensors --temperature 0.5", "--temperature", "MADE", "of kind RBM"),
    ("sample model.safetensors --start digits", "--start", "--clamp"),
    ("sample model.safetensors --start grey.npy --clamp mask.npy", "--start", "0 and 1 only"),
    ("evaluate model.safetensors --data digits --runs 100", "--runs", "RBM", "of kind MADE"),
    ("evaluate model.safetensors --data narrow.npy", "narrow.npy", "rows of 5", "64 visible"),
]


@pytest.mark.parametrize(
    ("command", "words"), [(c, w) for c, *w in ERRORS], ids=lambda x: x if isinstance(x, str) else ""
)
def test_wrong_input_is_named_in_one_line(command, words, capsys):
    files_for_errors()
    assert_refused(command, words, capsys)


def test_divergence_names_the_update_and_ends_with_status_1(capsys):
    assert_diverges("train made --data digits --lr 1e30 --optimizer sgd --epochs 1", capsys)


def test_a_file_tells_its_kind():
    for name, make in MODELS.items():
        make().save(f"{name}.safetensors")
        assert io.load_model(f"{name}.safetensors").kind.lower() == name


# --- classes ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "call", ["nade --hidden 6", "made --hidden 9", "fvbn", "eonade --hidden 6 --orderings 2"]
)
def test_classes_from_training_to_samples_of_one(call, capsys):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 60)
    rows = (rng.random((60, 16)) < 0.2 + 0.3 * labels[:, None]).astype(np.uint8)
    np.savez("rows.npz", train=rows, train_labels=labels, test=rows[:20], test_labels=labels[:20])
    options = "--data rows.npz --classes --epochs 3 --shape 4x4 --samples s.png --out model.safetensors"
    assert run(f"train {call} {options}") == 0
    assert ", 3 classes, " in capsys.readouterr().out
    model = KINDS[call.split()[0]].load("model.safetensors")
    assert run("evaluate model.safetensors --data rows.npz --json") == 0
    judged = json.loads(capsys.readouterr().out)
    assert judged["log_likelihood"] == pytest.approx(model.log_prob(rows[:20], labels[:20]).mean(), abs=1e-9)
    assert run("sample model.safetensors -n 5 --label 2 --seed 4 --out two.npy") == 0
    assert np.array_equal(np.load("two.npy"), model.sample(5, labels=2, key=4))
    assert run("sample model.safetensors -n 5 --seed 4 --out all.npy") == 0
    assert np.array_equal(np.load("all.npy"), model.sample(5, labels=np.arange(5) % 3, key=4))
    assert_refused(
        "sample model.safetensors --label 3", ("--label: expected a class from 0 to 2, received 3",), capsys
    )
