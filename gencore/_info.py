"""What this installation is, and where its parts lie."""

import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from gencore import _core, _cuda_support


def cmake_dir() -> str:
    """Folder of the CMake package config, for C++ programs: ``cmake -Dgencore_DIR=$(gencore info --cmake-dir)``.

    Raises
    ------
    FileNotFoundError
        gencore runs from a build tree, without an installation.
    """
    folder = Path(_core.__file__).parent / "lib" / "cmake" / "gencore"
    if not (folder / "gencoreConfig.cmake").is_file():
        raise FileNotFoundError(
            f"cmake_dir: no gencoreConfig.cmake in {folder}: install gencore (pip install .)"
        )
    return str(folder)


def show_config() -> None:
    """Print what was built, what this processor offers and which versions are at hand."""
    for name, value in config().items():
        print(f"{name:<12} {value}")


def config() -> dict[str, str]:
    """What `show_config` prints, as names and texts."""
    try:
        cmake = cmake_dir()
    except FileNotFoundError:
        cmake = "not installed (running from a build tree)"
    data = os.environ.get("GENCORE_DATA", "not set")
    return {
        "gencore": f"{_core.version()} in {Path(__file__).parent}",
        "isa level": f"{_core.isa()} (this processor runs: {', '.join(_core.isa_levels())}; GENCORE_ISA overrides)",
        "threads": f"{_core.num_threads()} of {os.cpu_count()} cores (GENCORE_NUM_THREADS overrides)",
        "processor": _processor(),
        "cuda": _cuda_support.describe(),
        "cmake": cmake,
        "data": f"GENCORE_DATA {data}",
        "python": f"{sys.version.split()[0]}, {platform.platform()}",
        "packages": ", ".join(f"{name} {_version(name)}" for name in ("numpy", "safetensors", "matplotlib")),
    }


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "missing"
