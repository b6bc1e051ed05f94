#!/usr/bin/env python
"""Benchmarks with every peer: `python bench/run.py [--quick] [--only gibbs,gemm] [--threads 1,all] [--out FILE]`.

The harness and our side are `gencore bench`'s (gencore/_bench). This adds PyTorch (eager, its private oneDNN
product, torch.compile), JAX jit, numba, scikit-learn and the package rbms: `pip install '.[bench]'`. A peer that is
not installed is reported as absent.

Each thread count runs in a new process, without OPENBLAS_CORETYPE, OPENBLAS_L2_SIZE and NVPL_BLAS_DEBUG_CPU_TYPE, which
make BLAS take another processor's kernels; the record holds what BLAS then says of itself.
"""

import importlib
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

from gencore._bench import Entry, main  # noqa: E402
from gencore._bench.registry import PEERS  # noqa: E402

MODULES = (
    "dense",
    "sample",
    "rbm_chains",
    "rbm_likelihood",
    "optim",
    "autograd",
    "vae",
    "pixels",
    "nade",
    "recurrent",
    "made",
)


def load_peers() -> None:
    """Import what registers the peers; the libraries themselves are imported when a candidate is built."""
    for name in MODULES:
        importlib.import_module(f"peers.{name}")


if __name__ == "__main__":
    file = Path(__file__).resolve()
    raise SystemExit(main(entry=Entry("python bench/run.py", (str(file),), file, PEERS, load_peers)))
