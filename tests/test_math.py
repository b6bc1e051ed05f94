"""The elementary functions of csrc/cpu/math.h: the errors that its comments state, and both ends of each."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from gencore import _core

ROOT = Path(__file__).resolve().parents[1]
COMPILER = os.environ.get("CXX") or shutil.which("c++") or shutil.which("g++")
FLAGS = {"baseline": [], "avx2": ["-mavx2", "-mfma", "-mbmi", "-mbmi2", "-mlzcnt", "-mpopcnt"]}
FLAGS["avx512"] = FLAGS["avx2"] + ["-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq"]

# In units in the last place, as the comments in math.h have them.
BOUNDS = {
    "exp": 1.1,
    "exp_minus_abs": 1.1,
    "one_minus_exp_minus": 1.4,
    "log": 0.9,
    "logistic": 2.5,
    "logistic_from_87": 6.1,
    "log1p_unit": 2.5,
    "softplus": 2.9,
    "tanh": 1.6,
    "cos_turn": 2.2,
    "sin_turn": 2.2,
}
STRIDE = 1021  # every 1021st float32; math_driver 1 sweeps all, in minutes

# input:output, as printf spells them: zeros with their sign, subnormals, infinities, NaN, and what models rely on.
ENDS = {
    "exp": "-inf:0 -1000:0 -0:1 0:1 1.40129846e-45:1 1000:inf inf:inf nan:nan",
    "exp_minus_abs": "-inf:0 -1000:0 -0:1 0:1 1.40129846e-45:1 1000:0 inf:0 nan:nan",
    "one_minus_exp_minus": "0:0 1.40129846e-45:1.40129846e-45 1000:1 inf:1 nan:nan",
    "log": "-inf:-inf -1000:-inf -0:-inf 0:-inf 1:0 inf:inf nan:nan",
    "logistic": "-inf:0 -1000:0 -0:0.5 0:0.5 1000:1 inf:1 nan:nan",
    "logistic_from_87": "-0:0.5 0:0.5 1000:1 inf:1 nan:nan",
    "log1p_unit": "-0:-0 0:0 1.40129846e-45:1.40129846e-45 nan:nan",
    "softplus": "-inf:0 -1000:0 1000:1000 inf:inf nan:nan",
    "tanh": "-inf:-1 -1000:-1 -0:-0 0:0 1.40129846e-45:1.40129846e-45 1000:1 inf:1 nan:nan",
    "cos_turn": "0:1 0.5:-1 1:1 nan:nan",
    "sin_turn": "0:0 0.25:1 0.75:-1 nan:nan",
}


@pytest.fixture(scope="module", params=FLAGS)
def driver(request, tmp_path_factory):
    """Runs tests/cpp/math_driver.cpp, compiled for one level; gives its lines as lists of words."""
    level = request.param
    if level not in _core.isa_levels():
        pytest.skip(f"this processor does not run {level}")
    if COMPILER is None:
        pytest.skip("no C++ compiler on PATH, and CXX is not set")
    program = tmp_path_factory.mktemp(level) / "math_driver"
    source = Path(__file__).parent / "cpp" / "math_driver.cpp"
    flags = ["-std=c++20", "-O2", "-ffp-contract=off", "-fno-math-errno", "-Wno-psabi", *FLAGS[level]]
    flags += [f"-DGENCORE_LEVEL={level}", f"-I{ROOT / 'csrc/include'}"]
    command = [COMPILER, *flags, source, "-o", program]
    subprocess.run(command, check=True, timeout=300)

    def run(argument):
        lines = subprocess.run([program, argument], capture_output=True, text=True, check=True, timeout=300)
        return [line.split() for line in lines.stdout.splitlines()]

    return run


def test_errors_stay_in_their_bounds(driver):
    errors = {name: (float(ulp), x) for name, ulp, x in driver(str(STRIDE))}
    assert errors.keys() == BOUNDS.keys()
    assert {n: error for n, error in errors.items() if not error[0] <= BOUNDS[n]} == {}
    # A sweep that measured nothing would pass, too: no float32 function of this kind is correctly rounded.
    assert all(ulp > 0.5 for ulp, _ in errors.values())


def test_ends(driver):
    found = {(name, x): y.removeprefix("-") if y == "-nan" else y for name, x, y in driver("values")}
    pairs = ((name, *pair.split(":")) for name, ends in ENDS.items() for pair in ends.split())
    expected = {(name, x): y for name, x, y in pairs}
    assert {at: found[at] for at in expected} == expected
