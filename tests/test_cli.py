"""The command line, end to end on small data: values checked independently, every error one line and its status."""

import argparse
import json
import os
import re
import shlex
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from reference import rbm as reference

import gencore
from gencore import _arguments, _bench, _commands, datasets
from gencore.cli import main, parser
from gencore.models import RBM

DIGITS = datasets.load("digits")
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(gencore.__file__).parents[1])}
COMMAND = [sys.executable, "-m", "gencore"]


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def trained():
    """model.safetensors: 64 x 12 units, a little trained."""
    assert run("train rbm --data digits --hidden 12 --epochs 6 --lr 0.5 --batch-size 32 --seed 3") == 0
    return RBM.load("model.safetensors")


def machine(model):
    return model.weight, model.visible_bias, model.hidden_bias


def run(command):
    return main(shlex.split(command))


def start_process(*args):
    def ctrl_c_as_in_a_terminal():
        signal.signal(
            signal.SIGINT, signal.SIG_DFL
        )  # a test run in the background ignores it, and so would a child

    return subprocess.Popen(
        [*COMMAND, *args], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT,
        preexec_fn=ctrl_c_as_in_a_terminal,
    )  # fmt: skip


def wait_for(path, process):
    limit = time.monotonic() + 120
    while not path.exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < limit
        time.sleep(0.01)


# --- train --------------------------------------------------------------------------------------------------


def test_train_is_fit_with_these_arguments(capsys):
    options = "--epochs 2 --batch-size 50 --algorithm cd --k 2 --lr 0.1 --lr-end 0.01 --schedule exponential"
    options += " --momentum 0.5 --weight-decay 0.002 --no-centered --seed 9 --hidden 7"
    assert run(f"train rbm --data digits {options} --out a.safetensors") == 0
    model = RBM(64, 7, seed=9)
    history = model.fit(
        DIGITS.train, epochs=2, batch_size=50, algorithm="cd", k=2, lr=gencore.train.exponential(0.1, 0.01),
        momentum=0.5, weight_decay=0.002, centered=False, validation=DIGITS.valid,
    )  # fmt: skip
    loaded = RBM.load("a.safetensors")
    assert all(map(np.array_equal, loaded.parameters, model.parameters))
    out = capsys.readouterr().out
    assert f"valid {history['validation_pseudo_log_likelihood'][-1]:.6g}" in out
    assert "\x1b" not in out
    assert "\r" not in out


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine"])
def test_schedules_and_chains(schedule):
    assert run(f"train rbm --data digits --hidden 3 --epochs 1 --schedule {schedule} --chains 17") == 0
    model = RBM(64, 3, seed=0)
    lr = 0.05 if schedule == "constant" else getattr(gencore.train, schedule)(0.05)
    model.fit(DIGITS.train, epochs=1, lr=lr, n_chains=17)
    assert np.array_equal(RBM.load("model.safetensors").weight, model.weight)


def test_data_from_files():
    np.save("rows.npy", DIGITS.train.astype(bool))
    np.savez("sets.npz", train=DIGITS.train, valid=DIGITS.valid, test=DIGITS.test, other=np.zeros(3))
    np.savez("grey.npz", train=DIGITS.train * 0.5, valid=DIGITS.valid * 0.5)
    weights = []
    for name in ("rows.npy", "sets.npz", "digits", "grey.npz"):
        assert run(f"train rbm --data {name} --hidden 3 --epochs 1 --overwrite") == 0
        weights.append(RBM.load("model.safetensors").weight)
    assert np.array_equal(weights[0], weights[1])
    assert np.array_equal(weights[0], weights[2])
    assert not np.array_equal(weights[0], weights[3])


def test_grey_data_sets_are_cut_at_the_threshold(monkeypatch):
    monkeypatch.setattr(datasets, "load", lambda name, root: datasets.digits(threshold=None))
    data = _commands.read_data("mnist", None, threshold=0.25)
    assert np.array_equal(data.split("test"), datasets.digits(threshold=None).test >= 4)
    assert "0.25 of white" in data.note


LONG = shlex.split(
    "train rbm --data digits --hidden 300 --epochs 40 --momentum 0.3 --checkpoint-every 40"
)  # of 440 updates


def assert_same_parameters(path, model):
    """A file's, and those of a model, to the bit."""
    loaded, expected = type(model).load(path).state_dict(), model.state_dict()
    assert loaded.keys() == expected.keys()
    assert all(np.array_equal(loaded[name], expected[name]) for name in expected)


def assert_refused(command, words, capsys):
    """Status 2 and one line that holds the words; model.safetensors stays, and no file m is left."""
    before = Path("model.safetensors").read_bytes()
    try:
        status = run(command)
    except SystemExit as end:
        status = end.code
    err = capsys.readouterr().err
    assert status == 2, err
    assert len(err.strip().splitlines()) == 1, err
    assert all(word in err for word in words), err
    assert Path("model.safetensors").read_bytes() == before
    assert not Path("m").exists()


def assert_diverges(command, capsys):
    """Status 1 and one line that names the update."""
    assert run(command) == 1
    err = capsys.readouterr().err
    assert re.search(r"became -?(inf|nan) at (update|one of the updates \d+ to) \d+ \(epoch 1\)", err)
    assert len(err.splitlines()) == 1


def assert_same_training(path, other):
    a, b = gencore.io.load_model(path), gencore.io.load_model(other)
    assert a.tensors.keys() == b.tensors.keys()
    assert all(np.array_equal(a.tensors[name], b.tensors[name]) for name in a.tensors)
    for stored in (a, b):
        stored.state["training"].pop("seconds")
        for record in stored.state["training"]["history"]:
            record.pop("seconds")
    assert a.state == b.state


def test_resuming_after_kill_9_gives_the_bits_of_an_unbroken_run(tmp_path):
    killed = start_process(*LONG, "--out", "killed.safetensors")
    wait_for(tmp_path / "killed.safetensors", killed)
    killed.kill()
    killed.communicate()
    assert killed.returncode == -signal.SIGKILL
    assert 0 < RBM.load("killed.safetensors").steps < 40 * 11
    assert main([*LONG, "--out", "killed.safetensors", "--resume"]) == 0
    assert main([*LONG, "--out", "whole.safetensors", "--resume"]) == 0  # nothing there to resume
    assert_same_training("killed.safetensors", "whole.safetensors")


def test_ctrl_c_says_what_was_kept(tmp_path):
    process = start_process(*LONG, "--out", "kept.safetensors")
    wait_for(tmp_path / "kept.safetensors", process)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate()
    assert process.returncode == 130, err
    assert len(err.strip().splitlines()) == 1
    steps = RBM.load("kept.safetensors").steps
    assert f"kept.safetensors holds the state after {steps:,} updates" in err
    assert "--resume" in err


def test_divergence_names_the_update_and_ends_with_status_1(capsys):
    assert run("train rbm --data digits --lr 1e38 --hidden 5 --epochs 1") == 1
    err = capsys.readouterr().err
    assert re.search(r"became -?(inf|nan) at (update|one of the updates \d+ to) \d+ \(epoch 1\)", err)
    assert "no checkpoint was written yet" in err
    assert len(err.splitlines()) == 1


# --- evaluate -----------------------------------------------------------------------------------------------


def test_evaluate_prints_what_enumeration_gives(trained, capsys):
    capsys.readouterr()
    assert run("evaluate model.safetensors --data digits --split valid") == 0
    text = capsys.readouterr().out
    log_z = reference.log_partition(*machine(trained))
    each = -reference.free_energy(*machine(trained), DIGITS.valid) - log_z
    pseudo = reference.log_conditionals(*machine(trained), DIGITS.valid).sum(axis=1).mean()
    rates = DIGITS.train.mean(axis=0).clip(1e-4, 1 - 1e-4)
    independent = np.where(DIGITS.valid, np.log(rates), np.log1p(-rates)).sum(axis=1).mean()

    def printed(name):
        return float(re.search(rf"^{name} +(-?[\d.]+)", text, re.MULTILINE).group(1))

    # Fields and parameters of float32: about 1e-6 relative, of numbers below 100; printed to 4 digits.
    assert printed("log Z") == pytest.approx(log_z, abs=5e-4)
    assert printed("log-likelihood") == pytest.approx(each.mean(), abs=5e-4)
    assert printed("pseudo") == pytest.approx(pseudo, abs=5e-4)
    assert printed("independent") == pytest.approx(independent, abs=5e-4)
    assert f"+- {each.std(ddof=1) / 16:.4f}" in text


def test_evaluate_by_ais_brackets_the_exact_value(trained, capsys):
    capsys.readouterr()
    assert (
        run("evaluate model.safetensors --data digits --method ais --runs 50 --temperatures 1000 --json") == 0
    )
    found = json.loads(capsys.readouterr().out)
    log_z = reference.log_partition(*machine(trained))
    exact = (-reference.free_energy(*machine(trained), DIGITS.test) - log_z).mean()
    assert found["log_partition_lower"] <= log_z <= found["log_partition_upper"]
    assert found["log_likelihood_lower"] <= exact <= found["log_likelihood_upper"]
    assert found["log_partition_upper"] - found["log_partition_lower"] < 0.5
    assert 25 < found["ess"] <= 50
    assert (found["method"], found["runs"], found["temperatures"], found["rows"]) == ("ais", 50, 1000, 256)
    assert run("evaluate model.safetensors --data digits --json") == 0
    assert json.loads(capsys.readouterr().out)["ess"] is None  # exact


# --- sample -------------------------------------------------------------------------------------------------


def test_samples_follow_from_the_seed(trained):
    for name, seed, threads in (("a.npz", 5, 1), ("b.npz", 5, 2), ("c.npz", 6, 2)):
        assert (
            run(f"sample model.safetensors -n 20 --steps 30 --seed {seed} --threads {threads} --out {name}")
            == 0
        )
    a, b, c = (np.load(f"{name}.npz")["samples"] for name in "abc")
    assert a.dtype == np.uint8
    assert a.shape == (20, 64)
    assert np.array_equal(a, b)
    assert not np.array_equal(a, c)
    assert np.array_equal(a, trained.sample(20, steps=30, key=5))


def test_completions_keep_what_the_mask_marks(trained):
    mask = np.zeros(64, np.uint8)
    mask[:32] = 1
    np.save("mask.npy", mask)
    np.save("start.npy", DIGITS.test[7])
    assert run("sample model.safetensors -n 6 --start digits --clamp mask.npy --steps 50 --out a.npy") == 0
    assert run("sample model.safetensors -n 6 --start start.npy --clamp mask.npy --means --out b.npy") == 0
    a, b = np.load("a.npy"), np.load("b.npy")
    assert np.array_equal(a[:, :32], DIGITS.test[:6, :32])
    assert (a[:, 32:] != DIGITS.test[:6, 32:]).any()
    assert (b[:, :32] == DIGITS.test[7, :32]).all()
    assert ((b[:, 32:] > 0) & (b[:, 32:] < 1)).all()


def test_pictures(trained, capsys):
    assert run("sample model.safetensors -n 12 --steps 5") == 0
    assert run("sample model.safetensors -n 12 --steps 5 --means --shape 4x16 --out wide.png") == 0
    sizes = []
    for name in ("samples.png", "wide.png"):
        header = Path(name).read_bytes()[:24]
        assert header[:8] == b"\x89PNG\r\n\x1a\n"
        sizes.append(struct.unpack(">II", header[16:24]))
    assert min(min(sizes)) > 100
    assert "samples.png" in capsys.readouterr().out


# --- demo, info, bench --------------------------------------------------------------------------------------


def test_demo(capsys):
    assert run("demo --out shown --epochs 3 --seed 1") == 0
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 80
    assert not re.search(r"[^\n -~]", out), "plain ASCII, no control characters"
    for name in ("samples.png", "filters.png", "curves.png"):
        assert Path("shown", name).read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    model = RBM.load("shown/model.safetensors")
    independent, test, learned = (float(x) for x in re.findall(r"^ +(-\d+\.\d+)  ", out, re.MULTILINE))
    rates = DIGITS.train.mean(axis=0).clip(1e-4, 1 - 1e-4)
    expected = np.where(DIGITS.test, np.log(rates), np.log1p(-rates)).sum(axis=1).mean()
    assert independent == pytest.approx(expected, abs=0.006)
    log_z = model.log_partition("ais", key=77, betas=4000)  # other runs than the demo's
    for rows, printed in ((DIGITS.test, test), (DIGITS.train, learned)):
        energy = reference.free_energy(*machine(model), rows).mean()
        assert printed == pytest.approx(-energy - log_z.value, abs=0.05)
    assert test > independent + 2
    lower, upper = map(float, re.search(r"bracket (\S+) to (\S+)", out).groups())
    assert lower <= test <= upper
    assert re.search(r"\d%  of the machine's limit", out)


def test_info_and_version():
    def process(*args):
        return subprocess.run([*COMMAND, *args], capture_output=True, text=True, env=ENVIRONMENT, check=False)

    shown = process("info")
    assert shown.returncode == 0
    assert gencore.isa() in shown.stdout
    assert process("--version").stdout == f"gencore {gencore.__version__}\n"
    folder = process("info", "--cmake-dir")
    if folder.returncode == 0:  # installed
        assert Path(folder.stdout.strip(), "gencoreConfig.cmake").is_file()
    else:  # a build tree
        assert folder.returncode == 2
        assert "pip install" in folder.stderr


def test_a_reader_that_goes_away_is_no_error():
    process = start_process("info")
    process.stdout.close()
    assert process.wait() == 141
    assert process.stderr.read() == ""
    process.stderr.close()


def test_bench_is_handed_over():
    args = shlex.split("bench philox --threads 1 --peers= --tiny --out records.jsonl")
    done = subprocess.run([*COMMAND, *args], capture_output=True, text=True, env=ENVIRONMENT, check=False)
    assert done.returncode == 0, done.stderr
    records = [json.loads(line) for line in Path("records.jsonl").read_text().splitlines()]
    assert any(r["record"] == "result" and r["work"] == "philox" for r in records)


# --- help and errors ----------------------------------------------------------------------------------------


def every_parser(top):
    yield top
    for action in top._actions:
        for child in (getattr(action, "choices", None) or {}) if action.nargs == "A..." else ():
            yield from every_parser(action.choices[child])


PARSERS = [p for p in every_parser(parser()) if p.prog != "gencore bench"]
PARSERS.append(_bench.parser("gencore bench", _bench.BUILTIN))


@pytest.mark.parametrize("p", PARSERS, ids=lambda p: p.prog)
def test_help_explains_every_argument_with_an_example(p):
    text = p.format_help()
    assert max(map(len, text.splitlines())) <= 80
    assert "Example" in text or p.prog in ("gencore", "gencore bench")
    for action in [a for a in p._actions if a.help != argparse.SUPPRESS]:
        assert action.help, action
        assert all(option in text for option in action.option_strings)


@pytest.mark.parametrize("p", PARSERS, ids=lambda p: p.prog)
def test_commands_of_the_help_can_be_given(p):
    """Lines that end in a backslash go on, the others are whole: read as a shell does."""
    text = p.format_help().partition("Example")[2].replace("\\\n", "")
    commands = [
        shlex.split(line, comments=True) for line in re.findall(r"^ +(gencore .*)$", text, re.MULTILINE)
    ]
    for _, command, *rest in commands:
        if command != "bench":
            parser().parse_args([command, *rest])
    for line in text.splitlines():  # what is left of a command that was folded begins like an option
        assert not re.match(r" *-", line), line


@pytest.mark.parametrize(
    ("text", "number"), [("12", 12), ("1,000", 1000), ("12,000,000", 12_000_000), ("1_000", 1000)]
)
def test_thousands_may_be_set_off(text, number):
    assert _arguments.count(text) == number


@pytest.mark.parametrize("text", ["5,5", "1,0", "1000,000", ",5", "1,00", "500,500,5", "1.5", ""])
def test_commas_elsewhere_are_no_number(text):
    with pytest.raises(
        argparse.ArgumentTypeError, match=f"expected an integer of at least 1, received '{text}'"
    ):
        _arguments.count(text)


def test_the_options_that_the_documentation_names():
    texts = {p.prog: p.format_help() for p in PARSERS}
    named = {
        "gencore train rbm": "--data --hidden --epochs --algorithm --k --lr --schedule --batch-size --out "
        "--resume --seed --checkpoint-every --root --threads --momentum --weight-decay --no-centered",
        "gencore train vae": "--data --latent --hidden --epochs --lr --schedule --batch-size --out --resume --seed "
        "--likelihood --latent-kind --classes --importance --estimator --kl-annealing --free-bits --patience "
        "--checkpoint-every --overwrite --threads",
        "gencore train pixelcnn": "--data --shape --features --blocks --hidden --output --levels --epochs --lr "
        "--batch-size --optimizer --patience --samples --samples-every --checkpoint-every --resume --overwrite",
        "gencore sample": "-n --temperature --steps --out --clamp --start --manifold --interpolate",
        "gencore evaluate": "--data --method --runs --temperatures --samples --json",
        "gencore info": "--cmake-dir",
        "gencore demo": "--out",
    }
    for prog, options in named.items():
        for option in options.split():
            assert re.search(rf"^ +{option}\b", texts[prog], re.MULTILINE), (prog, option)


def files_for_errors():
    np.save("narrow.npy", np.zeros((4, 5), np.uint8))
    np.save("grey.npy", np.full((4, 64), 7))
    np.save("words.npy", np.full((4, 64), "a"))
    np.save("nan.npy", np.full((4, 64), np.nan))
    np.save("cube.npy", np.zeros((4, 8, 8)))
    np.savez("many.npz", a=np.zeros((2, 64)), b=np.zeros((2, 64)))
    np.save("mask3.npy", np.zeros((3, 64)))
    Path("text.npy").write_text("no array")
    Path("text.safetensors").write_text("no model")
    Path("folder.npy").mkdir()
    RBM(64, 40).save("big.safetensors")
    RBM(10, 3).save("ten.safetensors")


ERRORS = [
    ("train rbm --out m --data digts", "'digts'", "digits"),
    ("train rbm --out m --data missing.npy", "missing.npy"),
    ("train rbm --out m --data text.npy", "text.npy", "not an .npy"),
    ("train rbm --out m --data folder.npy", "folder.npy"),
    ("train rbm --out m --data words.npy", "words.npy", "numbers"),
    ("train rbm --out m --data cube.npy", "cube.npy", "(4, 8, 8)"),
    ("train rbm --out m --data many.npz", "many.npz", "a, b"),
    ("train rbm --out m --data grey.npy", "grey.npy", "7 at (0, 0)", "divide by 255"),
    ("train rbm --out m --data nan.npy", "nan.npy", "nan"),
    ("train rbm --out m --data dna --root empty", "dna"),
    ("train rbm --data digits --out nowhere/m.safetensors", "nowhere"),
    ("train rbm --data digits --out folder.npy", "folder.npy"),
    ("train rbm --data digits --out /proc/m.safetensors", "/proc/m.safetensors"),
    ("train rbm --data digits --out model.safetensors", "--resume", "--overwrite"),
    ("train rbm --data digits --resume --seed 5", "model.safetensors"),
    ("train rbm --data digits --resume --hidden 12 --seed 3 --epochs 7 --lr 0.5 --batch-size 32", "epochs was 6, is 7"),
    ("train rbm --data narrow.npy --resume", "model.safetensors"),
    ("train rbm --data digits --out text.safetensors --resume", "text.safetensors"),
    ("train rbm --data digits --lr 0 --out m", "--lr", "above 0", "'0'"),
    ("train rbm --data digits --lr nan --out m", "--lr", "'nan'"),
    ("train rbm --data digits --epochs 0 --out m", "--epochs", "at least 1"),
    ("train rbm --data digits --hidden 5,5 --out m", "--hidden", "one number", "'5,5'"),
    ("train rbm --data digits --momentum 1 --out m", "--momentum", "below 1"),
    ("train rbm --data digits --schedule constant --lr-end 1 --out m", "--lr-end"),
    ("train rbm --data digits --schedule exponential --lr-end 0 --out m", "above 0"),
    ("train rbm --data digits --algorithm sgd --out m", "--algorithm", "'sgd'"),
    ("train rbm --data digits --threads 0", "--threads"),
    ("train rbm --data digits --seed -1", "--seed"),
    ("train rbm --hidden 5", "--data"),
    ("train gan --data digits", "'gan'"),
    ("sample missing.safetensors", "missing.safetensors"),
    ("sample text.safetensors", "text.safetensors", "not a whole safetensors file"),
    ("sample model.safetensors -n 0", "-n", "at least 1"),
    ("sample model.safetensors -n many", "'many'"),
    ("sample model.safetensors --out samples.gif", ".png", "samples.gif"),
    ("sample model.safetensors --out nowhere/s.png", "nowhere"),
    ("sample model.safetensors --shape 8x9", "8x9", "64"),
    ("sample model.safetensors --shape 8", "'8'"),
    ("sample ten.safetensors", "--shape", "10 units"),
    ("sample model.safetensors --clamp mask3.npy", "--clamp", "3"),
    ("sample model.safetensors -n 3 --clamp mask3.npy", "start"),
    ("sample model.safetensors --start narrow.npy", "--start", "64"),
    ("sample model.safetensors --start many.npz", "many.npz"),
    ("sample model.safetensors --start missing.npy", "missing.npy"),
    ("sample model.safetensors -n 300 --start digits", "256"),
    ("evaluate model.safetensors --data narrow.npy", "narrow.npy", "rows of 5", "64 visible"),
    ("evaluate model.safetensors --data grey.npy", "grey.npy", "0 and 1 only"),
    ("evaluate model.safetensors --data digits --split all", "'all'"),
    ("evaluate model.safetensors --data digits --temperatures 2", "--temperatures"),
    ("evaluate big.safetensors --data digits --method exact", "30 units"),
    ("evaluate model.safetensors", "--data"),
    ("demo --epochs none", "--epochs"),
    ("demo --out text.npy", "text.npy"),
    ("bench dancing", "dancing", "gibbs"),
    ("bench --peers nobody", "nobody"),
    ("bench --threads 0", "--threads"),
    ("paint", "'paint'"),
    ("", "COMMAND"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("command", "words"), [(c, w) for c, *w in ERRORS], ids=lambda x: x if isinstance(x, str) else ""
)
def test_wrong_input_is_named_in_one_line(command, words, trained, capsys):
    files_for_errors()
    capsys.readouterr()
    assert_refused(command, words, capsys)


def test_a_traceback_on_demand(monkeypatch):
    monkeypatch.setenv("GENCORE_TRACEBACK", "1")
    with pytest.raises(FileNotFoundError):
        main(["sample", "missing.safetensors"])
