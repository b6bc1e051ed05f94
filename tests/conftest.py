"""Settings that all tests share."""

import ctypes
import os
from pathlib import Path

import pytest
from hypothesis import settings

# Small products of float64 references: on a busy machine, the threads of a BLAS wait for each other at each of them, up
# to a hundred times as long as one takes alone. Said before NumPy is loaded; programs that tests start inherit it.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import cuda_emulation

import gencore
from gencore import _core, _cuda_support

# The same examples in every run: a failure on one machine is a failure on all.
settings.register_profile("gencore", deadline=None, derandomize=True, max_examples=60)
settings.load_profile("gencore")

# Programs that tests start import the gencore under test, wherever they start: not the sources in the current folder,
# which have no compiled module, and the sources where they are what is tested (linked to a build tree).
os.environ["PYTHONSAFEPATH"] = "1"
if Path(gencore.__file__).parent == Path(_core.__file__).parent:
    paths = (str(Path(gencore.__file__).parents[1]), os.environ.get("PYTHONPATH"))
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, paths))


def pytest_collection_modifyitems(items):
    for item in items:
        if "torch" in item.fixturenames:
            item.add_marker("peers")


@pytest.fixture(scope="session")
def torch():
    """PyTorch, for a comparison."""
    return pytest.importorskip("torch", reason="torch is not installed")


@pytest.fixture
def emulation():
    """The emulated kernels serve arrays on CUDA devices; afterwards those of a real one, where there is one."""
    module = cuda_emulation.module()
    if isinstance(module, str):
        pytest.skip(f"no CUDA emulation: {module}")
    module.load()
    yield ctypes.CDLL(str(cuda_emulation.build()))
    if _cuda_support.describe().startswith("toolkit"):
        _cuda_support.load()
