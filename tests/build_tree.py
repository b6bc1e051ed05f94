"""Where the compiled parts of the gencore under test lie."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from gencore import _core

ROOT = Path(__file__).resolve().parents[1]


def build_tree() -> Path | None:
    """The CMake build that gencore came from: GENCORE_BUILD_DIR, or one that this source tree holds."""
    candidates = [os.environ.get("GENCORE_BUILD_DIR", ""), Path(_core.__file__).resolve().parent]
    candidates += sorted((ROOT / "build").glob(f"cp{sys.version_info[0]}{sys.version_info[1]}-*"))
    for folder in map(Path, filter(None, candidates)):
        cache = folder / "CMakeCache.txt"
        if cache.is_file() and f"CMAKE_HOME_DIRECTORY:INTERNAL={ROOT}\n" in cache.read_text():
            return folder
    return None


def loaded_library() -> Path | None:
    """The libgencore that this process runs."""
    maps = Path("/proc/self/maps")
    lines = maps.read_text().splitlines() if maps.exists() else []
    paths = {Path(line.split(maxsplit=5)[5]) for line in lines if "libgencore.so" in line}
    return paths.pop() if len(paths) == 1 else None
