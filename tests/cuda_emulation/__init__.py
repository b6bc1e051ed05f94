"""The CUDA kernels on the CPU: built as a `gencore._cuda` for memory of this process, and arrays that lead to it."""

from __future__ import annotations

import functools
import importlib.util
import os
import shlex
import shutil
import subprocess
import sysconfig
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from build_tree import ROOT, loaded_library

import gencore

HERE = Path(__file__).parent
SOURCES = ROOT / "csrc" / "cuda"


@functools.cache
def build() -> Path | str:
    """The module, or the reason why there is none. CXXFLAGS (sanitizers) count. Child processes take their parent's."""
    if "GENCORE_EMULATION_MODULE" in os.environ:
        return Path(os.environ["GENCORE_EMULATION_MODULE"])
    compiler = shutil.which(os.environ.get("CXX", "g++"))
    library = loaded_library()
    if compiler is None or library is None:
        return "no C++ compiler, or no libgencore loaded"
    if not (Path(sysconfig.get_paths()["include"]) / "Python.h").is_file():
        return "no Python.h"
    folder = Path(tempfile.mkdtemp(prefix="gencore-cuda-emulation-"))
    flags = [
        *("-std=c++20", "-O1", "-g1", "-fPIC", "-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas"),
        *("-ffp-contract=off", "-fno-strict-aliasing", "-fno-sanitize-recover=all"),
        *shlex.split(os.environ.get("CXXFLAGS", "")),
        *(f"-I{HERE}", f"-I{ROOT / 'csrc' / 'include'}", f"-I{sysconfig.get_paths()['include']}"),
        f'-DGENCORE_VERSION="{gencore.__version__}"',
    ]

    def compile_one(source: Path) -> int:
        command = [compiler, *flags, "-x", "c++", "-c", source, "-o", folder / f"{source.stem}.o"]
        return subprocess.run(command, check=False, timeout=600).returncode

    sources = sorted([*SOURCES.glob("*.cu"), SOURCES / "module.cpp"])
    with ThreadPoolExecutor(os.cpu_count()) as compilers:
        assert not any(compilers.map(compile_one, sources)), "the kernels do not compile as C++"
    module = folder / "_cuda.so"
    objects = sorted(folder.glob("*.o"))
    subprocess.run([compiler, *flags, "-shared", *objects, library, "-o", module], check=True, timeout=300)
    return module


@functools.cache
def module() -> ModuleType | str:
    """What `gencore._cuda` is, for emulated devices, imported but not loaded; or the reason why there is none."""
    path = build()
    if isinstance(path, str):
        return path
    spec = importlib.util.spec_from_file_location(f"{__name__}._cuda", path)
    assert spec is not None
    assert spec.loader is not None
    emulated = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(emulated)
    return emulated


class DeviceArray:
    """A NumPy array's memory, offered as a CUDA device's and in no other way."""

    def __init__(self, array: np.ndarray, **interface: Any):
        self.host = array
        self.changes = interface

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        own = self.host.__array_interface__
        keys = {key: own[key] for key in ("shape", "typestr", "data", "strides")}
        return {**keys, "version": 3, "stream": None, **self.changes}

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
        """What CuPy's arrays do with the NumPy functions that gencore calls on them."""
        if function is np.shape:
            return self.shape
        if function in (np.empty_like, np.full_like):
            host, *rest = (x.host if isinstance(x, DeviceArray) else x for x in args)
            return DeviceArray(function(host, *rest, **kwargs))
        if function is np.reshape:
            return args[0].reshape(*args[1:])
        if function is np.asarray:  # NumPy has taken `like` away
            return DeviceArray(np.array(*args, **kwargs))
        return NotImplemented

    @property
    def shape(self) -> tuple[int, ...]:
        return self.host.shape

    @property
    def ndim(self) -> int:
        return self.host.ndim

    @property
    def dtype(self) -> Any:
        return self.host.dtype

    def __getitem__(self, index: Any) -> DeviceArray:
        return DeviceArray(self.host[index])

    def astype(self, dtype: Any) -> DeviceArray:
        return DeviceArray(self.host.astype(dtype))

    def copy(self) -> DeviceArray:
        return DeviceArray(self.host.copy())

    def tobytes(self) -> bytes:
        return self.host.tobytes()

    def reshape(self, *shape: Any) -> DeviceArray:
        return DeviceArray(self.host.reshape(*shape))
