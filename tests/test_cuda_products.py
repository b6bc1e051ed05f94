"""Products on emulated tensor cores: mma.cuh and its rounding, by one warp, beside products in float64.

The emulation's lanes hold what the PTX manual says that they hold; that a device agrees, the chains of test_cuda_rbm.py
show, marked `gpu`.
"""

from __future__ import annotations

import os
import shutil
import subprocess

import cuda_emulation
import numpy as np
import pytest
from build_tree import ROOT, loaded_library

BITS = {"bf16": 8, "tf32": 11}  # significant ones
U = 2.0**-24


@pytest.fixture(scope="module")
def products(tmp_path_factory):
    """multiply(kind, a, b, d) -> d + a b, with a and b rounded."""
    compiler, library = shutil.which(os.environ.get("CXX", "g++")), loaded_library()
    if compiler is None or library is None:
        pytest.skip("no C++ compiler, or no libgencore loaded")
    program = tmp_path_factory.mktemp("products") / "products"
    folders = [cuda_emulation.HERE, cuda_emulation.SOURCES, ROOT / "csrc" / "include"]
    flags = ["-std=c++20", "-ffp-contract=off", "-Wno-unknown-pragmas", *(f"-I{f}" for f in folders)]
    source, linked = cuda_emulation.HERE / "products.cu", [library, f"-Wl,-rpath,{library.parent}"]
    subprocess.run([compiler, *flags, "-x", "c++", source, "-x", "none", *linked, "-o", program], check=True)

    def multiply(kind, a, b, d):
        given = b"".join(x.astype(np.float32).tobytes() for x in (a, b, d))
        done = subprocess.run([program, kind], input=given, capture_output=True, check=True)
        return np.frombuffer(done.stdout, np.float32).reshape(16, 8)

    return multiply


def rounded(x, bits, ties_to_even):
    """To so many significant bits, in float64."""
    mantissa, exponent = np.frexp(x.astype(np.float64))
    scaled = mantissa * 2.0**bits
    whole = np.rint(scaled) if ties_to_even else np.sign(scaled) * np.floor(np.abs(scaled) + 0.5)
    return np.ldexp(whole, exponent - bits)


def matrices(rng):
    return (rng.normal(0, 10.0 ** rng.uniform(-3, 3), s) for s in ((16, 16), (16, 8), (16, 8)))


@pytest.mark.parametrize("kind", BITS)
@pytest.mark.parametrize("seed", range(5))
def test_product_of_rounded_matrices(kind, seed, products):
    """Within the bound of sums of 17 in any order."""
    a, b, d = (x.astype(np.float32) for x in matrices(np.random.default_rng(seed)))
    exact_a, exact_b = (rounded(x, BITS[kind], kind == "bf16") for x in (a, b))
    bound = 17 * U * (np.abs(d) + np.abs(exact_a) @ np.abs(exact_b))
    assert np.all(np.abs(products(kind, a, b, d) - (d + exact_a @ exact_b)) <= bound)


@pytest.mark.parametrize("kind", BITS)
def test_each_element_meets_its_own(kind, products):
    """One element of a at a time, of whole numbers, which are exact: a wrong lane or register shows."""
    b = np.arange(128.0).reshape(16, 8) + 1
    for i, k in np.ndindex(16, 16):
        a = np.zeros((16, 16))
        a[i, k] = 1
        assert np.array_equal(products(kind, a, b, np.zeros((16, 8))), a @ b)


@pytest.mark.parametrize("kind", BITS)
def test_ties_signs_and_what_is_not_finite(kind, products):
    """bfloat16: ties to even; TF32: away from 0. Infinity and NaN stay; so do the least numbers of either sign."""
    unit = 2.0 ** (1 - BITS[kind])
    values = np.float32(
        [1 + unit / 2, 1 + 3 * unit / 2, -1 - unit / 2, 1 + unit * 0.4999, 2 - unit / 8, 2.0**-126, -(2.0**-126), 0.0]
    )  # fmt: skip
    even = kind == "bf16"
    expected = [
        1 if even else 1 + unit,
        1 + 2 * unit,
        -1 if even else -1 - unit,
        1,
        2,
        2.0**-126,
        -(2.0**-126),
        0,
    ]
    b = np.zeros((16, 8), np.float32)
    b[0] = values
    found = products(kind, np.eye(16), b, np.zeros((16, 8)))[0]
    assert found.tolist() == expected
    b[0, :3] = np.nan, np.inf, -np.inf
    a = np.zeros((16, 16))
    a[3, 0] = 1
    found = products(kind, a, b, np.zeros((16, 8)))[3]
    assert np.isnan(found[0])
    assert found[1:3].tolist() == [np.inf, -np.inf]
