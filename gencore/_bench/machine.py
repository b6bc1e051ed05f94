"""The machine under the benchmark: its limits, measured in the run, and what a reader needs to know of it."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from gencore import _core

CRIPPLING = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE", "NVPL_BLAS_DEBUG_CPU_TYPE")
"""Variables that make a peer's BLAS take the kernels of another processor."""


@dataclass
class Limits:
    """What `threads` cores can do; the best value seen since the run began.

    Attributes
    ----------
    flops
        float32 multiply-adds, two operations each, a second.
    bytes
        Bytes read plus bytes written a second by copying arrays that no cache holds.
    """

    threads: int
    flops: float = 0.0
    bytes: float = 0.0

    def measure(self, seconds: float = 0.1) -> None:
        """Measure again and keep the better values; not at all in no time."""
        if not seconds:
            return
        with ThreadPoolExecutor(self.threads) as pool:
            peaks = pool.map(lambda _: _core.measure_fma_peak(seconds), range(self.threads))
            self.flops = max(self.flops, 1e9 * sum(peaks))
            chunk = (64 << 20) // self.threads
            pairs = [(np.ones(chunk, np.uint8), np.ones(chunk, np.uint8)) for _ in range(self.threads)]
            for _ in range(4):
                start = time.perf_counter()
                list(pool.map(lambda pair: np.copyto(*pair), pairs))
                self.bytes = max(self.bytes, 2 * chunk * self.threads / (time.perf_counter() - start))

    def seconds(self, flops: float, bytes_moved: float) -> float:
        """Least time for so many operations and so many bytes, whichever takes longer."""
        return max(flops / self.flops, bytes_moved / self.bytes)


def environment(threads: int) -> dict[str, str]:
    """Return the environment for a process whose libraries shall use so many threads."""
    env = {k: v for k, v in os.environ.items() if k not in CRIPPLING}
    names = ("GENCORE", "OMP", "OPENBLAS", "MKL", "NUMBA")
    env |= {f"{name}_NUM_THREADS": str(threads) for name in names}
    if threads == 1:
        flags = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
        env["XLA_FLAGS"] = f"{env.get('XLA_FLAGS', '')} {flags}".strip()
    return env


def pin(threads: int) -> None:
    """Keep this process to so many cores, for libraries that ask the system alone (XLA)."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-threads:])


def available_threads() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)


def blas_controller() -> Callable[[int], bool]:
    """Return a function that sets the threads of NumPy's BLAS; False from it: threadpoolctl is not installed."""
    try:
        from threadpoolctl import ThreadpoolController
    except ImportError:
        return lambda _: False
    pools = [pool for pool in ThreadpoolController().lib_controllers if pool.user_api == "blas"]

    def set_threads(n: int) -> bool:
        for pool in pools:
            pool.set_num_threads(n)
        return bool(pools)

    return set_threads


def blas() -> list[dict[str, Any]]:
    """Return what each BLAS in this process reports of itself (empty without threadpoolctl)."""
    try:
        from threadpoolctl import threadpool_info
    except ImportError:
        return []
    keys = ("internal_api", "version", "architecture", "num_threads", "threading_layer")
    return [{k: pool.get(k) for k in keys} for pool in threadpool_info() if pool["user_api"] == "blas"]


def cpu() -> str:
    """Name of the processor with its family and model, since virtual machines shorten the name."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor() or platform.machine()
    fields = dict(re.findall(r"^([^\t:]+?)\s*: (.*)$", text.split("\n\n")[0], re.MULTILINE))
    name = fields.get("model name", platform.machine())
    family = " (family {cpu family} model {model})".format_map(fields) if "cpu family" in fields else ""
    return f"{name}{family}"


def compiler() -> str:
    """Name of the compiler that built the extension, as it signed it."""
    text = Path(str(_core.__file__)).read_bytes()
    found = re.search(rb"GCC: \([^)]*\) [\d.]+|clang version [\d.]+", text)
    return found.group().decode() if found else "unknown"


def commit(source: Path) -> str | None:
    """Commit of the source tree that the file `source` belongs to, '+' if it has changes; None outside a checkout."""

    def git(*args: str) -> str:
        done = subprocess.run(["git", *args], cwd=source.parent, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    try:
        # An installed copy may lie inside somebody else's repository.
        git("ls-files", "--error-unmatch", source.name)
        return git("rev-parse", "--short=12", "HEAD") + ("+" if git("status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def versions(packages: tuple[str, ...]) -> dict[str, str]:
    """Versions of the packages that are installed, and of Python."""
    found = {"python": platform.python_version()}
    for package in packages:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def describe(source: Path) -> dict[str, Any]:
    """Describe machine and build for the record of a run started from the file `source`."""
    return {
        "cpu": cpu(),
        "cores": os.cpu_count(),
        "nice": os.nice(0) if hasattr(os, "nice") else 0,
        "system": f"{platform.system()} {platform.machine()}",
        "gencore": _core.version(),
        "isa": _core.isa(),
        "compiler": compiler(),
        "commit": commit(source),
        "versions": versions(("numpy", "scipy", "torch", "jax", "numba", "scikit-learn", "rbms")),
        "blas": blas(),
    }
