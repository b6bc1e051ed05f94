"""The README's programs run as they stand there, and say what is true."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from test_cpp import require

import gencore
from gencore import datasets
from gencore.cli import parser
from gencore.models import RBM, VAE

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    """The programs in that language, in order."""
    return [str(code) for code in re.findall(rf"```{language}\n(.*?)```", TEXT, re.DOTALL)]


RBM_PROGRAM, VAE_PROGRAM, PIXEL_PROGRAM, OWN_PROGRAM = blocks("python")


def run_python(code: str, folder: Path) -> str:
    environment = {**os.environ, "PYTHONPATH": str(Path(gencore.__file__).parents[1])}
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_python_program_then_the_cpp_program(tmp_path: Path) -> None:
    printed = run_python(RBM_PROGRAM, tmp_path)
    # An image takes 25 nats where nothing is learned; a program that shows learning shows less.
    assert float(re.search(r"test log-likelihood (-[\d.]+)", printed).group(1)) > -18
    assert re.search(r"log Z = [\d.]+ .*bracket", printed)
    assert {"samples.png", "digits.safetensors"} <= {p.name for p in tmp_path.iterdir()}

    done = subprocess.run(
        [require("install", "package") / "readme"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    image = np.array([list(line) for line in done.stdout.split()]) == "#"
    model = RBM.load(tmp_path / "digits.safetensors")
    assert np.array_equal(image.ravel(), model.gibbs(model.chains, 1000, key=7)[0])


def test_the_program_of_the_vae(tmp_path: Path) -> None:
    printed = run_python(VAE_PROGRAM, tmp_path)
    bound = float(re.search(r"at least (-[\d.]+)", printed).group(1))
    assert bound > -20  # independent pixels have -24.96
    assert {"manifold.png", "line.png", "curves.png"} <= {p.name for p in tmp_path.iterdir()}
    model = VAE.load(tmp_path / "vae.safetensors")
    one, other = (model.log_likelihood(datasets.load("digits").test, 500, key=key) for key in (3, 4))
    # Two estimates by other draws differ by as much again, but for chance: five standard errors of the mean.
    assert abs(one.mean() - bound) < 5 * (one - other).std() / np.sqrt(len(one))


def test_the_program_of_the_pixelcnn(tmp_path: Path) -> None:
    printed = run_python(PIXEL_PROGRAM, tmp_path)
    assert float(re.search(r"test log-likelihood (-[\d.]+) nats, exact", printed).group(1)) > -20.5
    assert (tmp_path / "pixels.png").exists()


def test_the_program_that_is_ones_own(tmp_path: Path) -> None:
    printed = run_python(OWN_PROGRAM, tmp_path)
    assert float(re.search(r"right: ([\d.]+)", printed).group(1)) > 0.85  # one in ten by chance


def test_the_programs_are_as_long_as_promised() -> None:
    for code in (*blocks("python"), *blocks("cpp")):
        lines = [line for line in code.splitlines() if line.strip()]
        assert len(lines) <= 24
        assert max(map(len, lines)) <= 110


def test_every_command_line_is_understood() -> None:
    commands = re.findall(r"^ {4}gencore (.*)$", TEXT.replace("\\\n", ""), re.MULTILINE)
    assert {command.split()[0] for command in commands} >= {"demo", "train", "sample", "evaluate", "info"}
    for command in commands:
        words = command.partition("  #")[0].split()
        if words[0] != "bench":  # it reads its own arguments
            parser().parse_args(words)


def test_links_lead_somewhere() -> None:
    targets = re.findall(r"\]\((?!http)([^)#]+)\)", TEXT)
    assert len(targets) >= 3
    assert [t for t in targets if not (ROOT / t).exists()] == []


TABLES = re.findall(r"<!-- (python bench/table.py (\S+)) -->", TEXT)


@pytest.mark.parametrize(("command", "record"), TABLES)
def test_a_table_is_its_record(command: str, record: str) -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(gencore.__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, "bench/table.py", record],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert f"<!-- {command} -->\n{done.stdout}" in TEXT


def test_figures_of_papers_are_those_of_the_records() -> None:
    """Every record's figure stands in the README, to its digits."""
    figures = [
        json.loads(path.read_text())["test_nll"] for path in (ROOT / "bench/results").glob("reproduce-*.json")
    ]
    stated = re.findall(r"\b(\d{1,3}\.\d\d)\b", TEXT[TEXT.index("## How right") :])
    ours = {f"{figure:.2f}" for figure in figures}
    assert ours <= set(stated)
