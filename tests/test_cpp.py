"""gencore in C++: headers, the CMake package, and a program that goes on where Python stopped.

The programs in tests/cpp/consumer are built as a user builds them, by ``find_package(gencore)``, against
``cmake --install`` of a build tree and against the installed Python package.
"""

from __future__ import annotations

import atexit
import functools
import os
import shutil
import struct
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import pytest
from build_tree import ROOT, build_tree
from safetensors import deserialize

import gencore
from gencore import cmake_dir
from gencore.io import save_model
from gencore.models import RBM

CONSUMER = ROOT / "tests" / "cpp" / "consumer"
INCLUDE = ROOT / "csrc" / "include"
COMPILERS = [c for c in ("g++", "clang++") if shutil.which(c)]


def run(*command: object, **options: object) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, timeout=300, **options)
    assert done.returncode == 0, f"{command}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


@functools.cache
def build(kind: str) -> Path | str:
    """Folder of the consumer's programs, or the reason why there is none."""
    if not shutil.which("cmake") or not COMPILERS:
        return "needs cmake and a C++ compiler"
    tmp = Path(tempfile.mkdtemp(prefix=f"gencore-{kind}-"))
    atexit.register(shutil.rmtree, tmp, ignore_errors=True)
    if kind == "package":
        try:
            config = cmake_dir()
        except FileNotFoundError as error:
            return str(error)
    else:
        tree = build_tree()
        if tree is None:
            return "no build tree to install from (set GENCORE_BUILD_DIR)"
        run("cmake", "--install", tree, "--prefix", tmp / "prefix")
        [config] = {str(p.parent) for p in (tmp / "prefix").rglob("gencoreConfig.cmake")}
    run("cmake", "-S", CONSUMER, "-B", tmp / "build", f"-Dgencore_DIR={config}")
    run("cmake", "--build", tmp / "build")
    return tmp / "build"


def require(*kinds: str) -> Path:
    """Programs of the first kind that can be built here."""
    reasons = []
    for kind in kinds:
        if isinstance(folder := build(kind), Path):
            return folder
        reasons.append(folder)
    pytest.skip("; ".join(reasons))


@pytest.fixture(params=["install", "package"])
def programs(request: pytest.FixtureRequest) -> Path:
    """Folder of the consumer's programs, built in both ways."""
    return require(request.param)


@pytest.fixture
def reader() -> Path:
    return require("install", "package") / "model_file_dump"


@pytest.mark.parametrize("compiler", ["g++", "clang++"])
def test_headers_compile_alone_as_cpp17(compiler: str) -> None:
    if compiler not in COMPILERS:
        pytest.skip(f"{compiler} is not installed")
    flags = ["-std=c++17", "-Wall", "-Wextra", "-Wpedantic", "-Wshadow", "-Werror", f"-I{INCLUDE}"]
    headers = sorted(header.relative_to(INCLUDE) for header in INCLUDE.rglob("*.h"))
    assert headers
    for header in headers:
        run(compiler, *flags, "-fsyntax-only", "-x", "c++", "-", input=f'#include "{header}"\n')


def test_cpp_continues_the_chains_of_a_trained_rbm(programs: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    model = RBM(37, 19, seed=1)
    model.fit(rng.random((50, 37)) < 0.3, epochs=2, batch_size=11, progress=False)
    # Neither number fits a signed 64-bit or an unsigned 32-bit integer.
    model.chain_key, model.chain_step = 2**64 - 59, 2**40 + 7
    path, steps = tmp_path / "rbm model.safetensors", 23
    model.save(path)
    assert model.chains is not None
    before = model.chains.copy()
    environment = {**os.environ, "GENCORE_ISA": gencore.isa()}
    done = run(programs / "rbm_continue", path, steps, tmp_path / "states", env=environment)
    states = np.fromfile(tmp_path / "states", np.uint8).reshape(before.shape)

    expected = RBM.load(path).advance_chains(steps)
    np.testing.assert_array_equal(states, expected)
    energies = [float(line) for line in done.stdout.split()]  # 17 digits: the same float64
    assert energies == model.free_energy(expected).tolist()
    assert (states != before).any()


@pytest.fixture
def on_device() -> Path:
    program = require("install", "package") / "chains_on_device"
    if not program.exists():
        pytest.skip("gencore was built without its CUDA kernels")
    return program


def test_cpp_on_a_machine_without_a_device_says_so(on_device: Path) -> None:
    done = subprocess.run([on_device, "model", "1", "states"], capture_output=True, text=True)
    if done.returncode == 1:
        pytest.skip("there is a device")
    assert done.returncode == 77
    assert done.stderr.startswith("chains_on_device: toolkit ")
    assert "no device visible" in done.stderr


@pytest.mark.gpu
def test_cpp_continues_chains_on_a_device(on_device: Path, tmp_path: Path) -> None:
    """The bits of the CPU, from the library alone."""
    trained = RBM(37, 19, seed=1)
    trained.fit(np.random.default_rng(3).random((50, 37)) < 0.3, epochs=2, batch_size=11, progress=False)
    path = tmp_path / "rbm.safetensors"
    trained.save(path)
    assert trained.chains is not None
    done = subprocess.run([on_device, path, "23", tmp_path / "states"], capture_output=True, text=True)
    if done.returncode == 77:
        pytest.skip(done.stderr)
    assert done.returncode == 0, done.stderr
    states = np.fromfile(tmp_path / "states", np.uint8).reshape(trained.chains.shape)
    np.testing.assert_array_equal(states, trained.advance_chains(23))


def test_cpp_reports_a_wrong_file_as_an_error(programs: Path, tmp_path: Path) -> None:
    path = tmp_path / "vae.safetensors"
    save_model(path, kind="VAE", config={}, state={}, tensors={})
    done = subprocess.run(
        [programs / "rbm_continue", path, "1", tmp_path / "out"], capture_output=True, text=True
    )
    assert (done.returncode, done.stderr.strip()) == (1, f"rbm_continue: {path} holds no RBM")


# --- the reader of model files: what it accepts, safetensors accepts, and nothing ends the program ----


def read_all(reader: Path, folder: Path, files: list[bytes]) -> list[str]:
    """What gencore::ModelFile says to each of these files."""
    paths = [folder / f"{i}.safetensors" for i in range(len(files))]
    for path, content in zip(paths, files, strict=True):
        path.write_bytes(content)
    lines = run(reader, input="".join(f"{p}\n" for p in paths)).stdout.splitlines()
    assert len(lines) == len(files)
    return lines


def with_header(header: str | bytes, data: bytes = b"") -> bytes:
    text = header.encode() if isinstance(header, str) else header
    return struct.pack("<Q", len(text)) + text + data


META = '"__metadata__":{"format":"gencore","format_version":"1"}'


def tensor(name: str = "a", dtype: str = "U8", shape: str = "1,2", offsets: str = "0,2") -> str:
    return f'"{name}":{{"dtype":"{dtype}","shape":[{shape}],"data_offsets":[{offsets}]}}'


def model(*tensors: str | bytes, data: bytes = b"12") -> bytes:
    members = [m.encode() if isinstance(m, str) else m for m in (META, *tensors)]
    return with_header(b"{" + b",".join(members) + b"}", data)


MALFORMED = [
    (b"", "is not a safetensors file: it has 0 bytes"),
    (struct.pack("<Q", 2**64 - 1), "announces a header of 18446744073709551615"),
    (struct.pack("<Q", 2**63) + b"{}", "announces a header of 9223372036854775808"),
    (with_header("[]"), "does not begin with '{'"),
    (with_header("{}"), "gencore did not write it as a model (its metadata: none)"),
    (
        with_header('{"__metadata__":{"format":"pt"}}'),
        "gencore did not write it as a model",
    ),
    (with_header('{"__metadata__":{"format":"gencore","format_version":"2"}}'), "has format version '2'"),
    (with_header('{"__metadata__":{"format":"gencore"}}'), "has no metadata 'format_version'"),
    (with_header('{"__metadata__":{"format":1}}'), "malformed header: expected '\"'"),
    (with_header("{" + META), "malformed header: expected '}'"),
    (with_header("{" + META + "}x"), "text after the header's closing brace"),
    (with_header("{" + META + ',"a":' + "[" * 100_000), "malformed header: expected '{'"),
    (model(), "2 bytes of data belong to no tensor"),
    (model(tensor(), data=b"1"), "lies outside the 1 bytes of data"),
    (model(tensor(), tensor()), "a second 'a' in the header"),
    (model(tensor(), tensor("b")), "tensor 'b' (bytes 0 to 2) overlaps another"),
    (model(tensor(offsets="1,3"), data=b"123"), "tensor 'a' (bytes 1 to 3) leaves a gap before it"),
    (model(tensor(offsets="2,0")), "tensor 'a' (bytes 2 to 0) lies outside"),
    (model(tensor(offsets="0,1,2")), "data_offsets of tensor 'a' are not two numbers"),
    (model(tensor(dtype="F32")), "tensor 'a' (bytes 0 to 2) is not as large as F32 of shape (1, 2)"),
    (model(tensor(dtype="Q7")), "unknown dtype 'Q7'"),
    (model(tensor(shape="4294967296,4294967296,2")), "is not as large as U8"),
    (model(tensor(shape="-1,-2")), "expected a non-negative integer"),
    (model(tensor(shape="1.0,2")), "a number that is not an integer"),
    (model(tensor(shape="01,2")), "a number that begins with 0"),
    (model(tensor(shape="9223372036854775808,2")), "a number that is too large"),
    (model(tensor(shape="18446744073709551617,2")), "a number that is too large"),
    (model(tensor(shape="1," * 64 + "2")), "an array of more than 64 numbers"),
    (model('"a":{"dtype":"U8","shape":[2]}'), "tensor 'a' has no data_offsets"),
    (model('"a":{"dtype":"U8","shape":[2],"x":1}'), "unknown field 'x' of tensor 'a'"),
    (model(tensor(r"\ud800")), "half of a surrogate pair"),
    (model(tensor(r"\ud800\u0041")), "half of a surrogate pair"),
    (model(tensor(r"\udc00")), "half of a surrogate pair"),
    (model(tensor(r"\x")), "an unknown escape"),
    (model(tensor(r"\u12g4")), "four hexadecimal digits"),
    (model(tensor("\n")), "a control character in a string"),
    (model(tensor("?").encode().replace(b"?", b"\xc0\xaf")), "a string that is not UTF-8"),  # overlong
    (model(tensor("?").encode().replace(b"?", b"\xed\xa0\x80")), "a string that is not UTF-8"),  # a surrogate
    (
        model(tensor("?").encode().replace(b"?", b"\xf4\x90\x80\x80")),
        "a string that is not UTF-8",
    ),
    (model(tensor("?").encode().replace(b"?", b"\xff")), "a string that is not UTF-8"),
]


def test_malformed_file_is_named(reader: Path, tmp_path: Path) -> None:
    lines = read_all(reader, tmp_path, [content for content, _ in MALFORMED])
    for i, (line, (_, says)) in enumerate(zip(lines, MALFORMED, strict=True)):
        assert line.startswith(f"error ModelFile: {tmp_path}/{i}.safetensors: ")
        assert says in line


def test_truncated_and_altered_files_never_read_as_what_they_are_not(reader: Path, tmp_path: Path) -> None:
    tensors = {
        "w": np.arange(6, dtype=np.float32).reshape(2, 3),
        "v": np.eye(2, dtype=np.uint8),
        "n": np.arange(2),
    }
    save_model(tmp_path / "good", kind="K\u00e4se \U0001f9c0", config={}, state={"a": 1}, tensors=tensors)
    good = (tmp_path / "good").read_bytes()
    truncated = [good[:n] for n in range(len(good))]
    header = 8 + struct.unpack("<Q", good[:8])[0]
    altered = [
        good[:i] + bytes([good[i] ^ 1 << bit]) + good[i + 1 :] for i in range(header) for bit in range(8)
    ]
    lines = read_all(reader, tmp_path, [good, *truncated, *altered])
    assert lines[0].startswith("ok ")
    assert all(line.startswith("error ") for line in lines[1 : 1 + len(truncated)])
    accepted = 0
    for content, line in zip(altered, lines[1 + len(truncated) :], strict=True):
        if line.startswith("error "):
            assert f"{tmp_path}/" in line
            continue
        accepted += 1
        read = dict(deserialize(content))  # raises where safetensors' own reader would not accept the file
        assert len(read) == line.count("=")
    assert accepted > 0  # an altered letter in a name leaves a valid file


def test_names_are_read_as_json_means_them(reader: Path, tmp_path: Path) -> None:
    header = "{ " + META + " , " + tensor(r"\u0061\ud83e\uddc0\"\\\/\t" + "ä€") + " }  \n"
    [line] = read_all(reader, tmp_path, [with_header(header, b"\x00\x01")])
    assert line == 'ok a\U0001f9c0"\\/\tä€=1x2:0001'


def test_accessors_take_their_own_type_and_rank_only(reader: Path, tmp_path: Path) -> None:
    tensors = {
        "bias": np.float32([1.5]),
        "cube": np.zeros((1, 1, 1), np.float32),
        "double": np.zeros((1, 1)),
        "empty": np.zeros((0, 3), np.float32),
        "flags": np.ones((1, 2), np.bool_),
        "states": np.uint8([[1, 0]]),
    }
    save_model(tmp_path / "m", kind="RBM", config={}, state={}, tensors=tensors)
    [line] = read_all(reader, tmp_path, [(tmp_path / "m").read_bytes()])
    assert line == "ok bias=1:0000c03f cube=- double=- empty=0x3: flags=- states=1x2:0100"


def test_what_is_no_file_is_named(reader: Path, tmp_path: Path) -> None:
    done = run(reader, input=f"{tmp_path}\n{tmp_path}/absent\n")
    directory, absent = done.stdout.splitlines()
    assert directory == f"error ModelFile: {tmp_path}: is not a file"
    assert absent == f"error ModelFile: {tmp_path}/absent: cannot be read: No such file or directory"
