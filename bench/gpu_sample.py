#!/usr/bin/env python
"""The sample family on a GPU beside PyTorch: `python bench/gpu_sample.py [--out FILE] [--elements N] [NAME=RESULT...]`.

A figure is a time per call, the bytes that the work must move over that time, and that as a share of the copy bandwidth
measured in the same run. Calls of all candidates are taken in turn and timed by device events; outputs exist before the
call for gencore, and come from PyTorch's caching allocator for PyTorch. NAME=RESULT goes into the record: bench/gpu.sh
puts the outcomes of its tests there. `--rehearse` goes through the motions on the CPU, without timing anything.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from gencore import _core, _cuda_support

ROUNDS, ROUND_SECONDS = 25, 2e-3
KEY = 7


@dataclass
class Work:
    """`ours` writes `outs`; `peer` returns the same things, of the same distribution. `moved`: bytes, at least."""

    name: str
    shape: tuple[int, ...]
    moved: int
    outs: list[torch.Tensor]
    ours: Callable[[], object]
    peer: Callable[[], Any]
    blocks: int = 0  # of Philox, where their arithmetic is the limit


def variates(name: str, peer: Callable[[torch.Tensor], torch.Tensor], n: int, device: str) -> Work:
    out, theirs = (torch.empty((n // 1024, 1024), device=device) for _ in range(2))
    function = getattr(_core, f"sample_{name}")
    return Work(
        name, tuple(out.shape), 4 * n, [out], lambda: function(out=out, key=KEY), lambda: peer(theirs)
    )


def draws(n: int, device: str) -> list[Work]:
    p = torch.rand((n // 1024, 1024), device=device)
    bits = torch.empty(p.shape, dtype=torch.uint8, device=device)
    logits = torch.randn((n // 10, 10), device=device)
    categories = torch.empty(len(logits), dtype=torch.int64, device=device)
    y = torch.empty_like(logits)
    odds, relaxed = (
        torch.randn((n // 1024, 1024), device=device),
        torch.empty((n // 1024, 1024), device=device),
    )

    def relaxed_peer() -> torch.Tensor:
        u = torch.rand_like(odds).clamp_(6e-8, 1 - 6e-8)
        return torch.sigmoid((odds + torch.log(u) - torch.log1p(-u)) / 0.5)

    return [
        Work(
            "bernoulli", tuple(p.shape), 5 * n, [bits],
            lambda: _core.sample_bernoulli(p=p, out=bits, key=KEY),
            lambda: (torch.rand_like(p) < p).to(torch.uint8),
        ),
        Work(
            "categorical", tuple(logits.shape), 4 * logits.numel() + 8 * len(logits), [categories],
            lambda: _core.sample_categorical(logits=logits, out=categories, key=KEY),
            lambda: (logits - torch.log(-torch.log(torch.rand_like(logits).clamp_min_(6e-8)))).argmax(-1),
        ),
        Work(
            "gumbel_softmax", tuple(logits.shape), 8 * logits.numel(), [y],
            lambda: _core.sample_gumbel_softmax(logits=logits, y=y, tau=0.5, key=KEY),
            lambda: F.gumbel_softmax(logits, tau=0.5),
        ),
        Work(
            "relaxed_bernoulli", tuple(odds.shape), 8 * n, [relaxed],
            lambda: _core.sample_relaxed_bernoulli(logits=odds, y=relaxed, tau=0.5, key=KEY),
            relaxed_peer,
        ),
    ]  # fmt: skip


class Words:
    """The memory of an int64 tensor as uint64, which not every PyTorch offers."""

    def __init__(self, tensor: torch.Tensor):
        own = tensor.__cuda_array_interface__
        self.tensor, self.__cuda_array_interface__ = tensor, {**own, "typestr": "<u8"}


def packed_draws(n: int, device: str) -> list[Work]:
    """Bits of one row of probabilities for all rows, whose limit is Philox, and of a probability each."""
    p = torch.rand((n // 1024, 1024), device=device)
    out = torch.zeros((len(p), 16), dtype=torch.int64, device=device)
    words: Any = out.numpy().view(np.uint64) if device == "cpu" else Words(out)
    places = torch.arange(64, device=device)

    def work(name: str, given: torch.Tensor) -> Work:
        def peer() -> torch.Tensor:
            drawn = torch.rand(p.shape, device=device) < given
            return (drawn.view(len(p), 16, 64).long() << places).sum(-1)

        return Work(
            name, tuple(p.shape), 4 * given.numel() + n // 8, [out],
            lambda: _core.sample_bernoulli_bits(p=given, out=words, key=KEY), peer, blocks=n // 8,
        )  # fmt: skip

    return [work("bernoulli_bits", p[:1].clone()), work("bernoulli_bits, own p", p)]


def gaussians(n: int, units: int, device: str) -> list[Work]:
    """A draw with its divergence; and that with the gradients of both, from given gradients."""
    rows = n // units
    mu, logvar, grad_z = (0.5 * torch.randn((rows, units), device=device) for _ in range(3))
    grad_kl = torch.ones(rows, device=device)
    z, grad_mu, grad_logvar = (torch.empty_like(mu) for _ in range(3))
    kl = torch.empty(rows, device=device)

    def forward() -> None:
        _core.sample_gaussian_reparam(mu=mu, logvar=logvar, samples=1, z=z, kl=kl, key=KEY)

    def both() -> None:
        forward()
        _core.sample_gaussian_reparam_vjp(
            mu=mu, logvar=logvar, samples=1, grad_z=grad_z, grad_kl=grad_kl, grad_mu=grad_mu,
            grad_logvar=grad_logvar, key=KEY,
        )  # fmt: skip

    def draw(m: torch.Tensor, v: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return m + torch.exp(0.5 * v) * torch.randn_like(m), 0.5 * (m * m + torch.exp(v) - 1 - v).sum(-1)

    def peer_both() -> tuple[torch.Tensor, ...]:
        m, v = mu.detach().requires_grad_(), logvar.detach().requires_grad_()
        results = draw(m, v)
        return (*(r.detach() for r in results), *torch.autograd.grad(results, (m, v), (grad_z, grad_kl)))

    size = mu.numel()
    shape = tuple(mu.shape)
    return [
        Work("gaussian_reparam", shape, 12 * size, [z, kl], forward, lambda: draw(mu, logvar)),
        Work("gaussian_reparam+vjp", shape, 32 * size, [z, kl, grad_mu, grad_logvar], both, peer_both),
    ]


def all_works(n: int, device: str) -> list[Work]:
    return [
        variates("uniform", lambda t: t.uniform_(), n, device),
        variates("normal", lambda t: t.normal_(), n, device),
        variates("exponential", lambda t: t.exponential_(), n, device),
        *draws(n, device),
        *packed_draws(n, device),
        *gaussians(n, 20, device),
        *gaussians(n, 100, device),
    ]


def same_moments(work: Work) -> None:
    """Both sides draw from one distribution: two moments within 6 standard errors, rows being independent."""
    work.ours()
    theirs = work.peer()
    theirs = theirs if isinstance(theirs, tuple) else (theirs,)
    for ours, peer in zip(work.outs, theirs, strict=True):
        for power in (1, 2):
            a, b = ((t.double() ** power).reshape(len(t), -1).mean(1) for t in (ours, peer))
            error = 6 * float((a.var() + b.var()) / len(a)) ** 0.5 + 1e-6
            difference = abs(float(a.mean() - b.mean()))
            assert difference <= error, (
                f"{work.name}: moments {power} differ by {difference:.3g}, more than {error:.3g}"
            )


# --- timing -------------------------------------------------------------------------------------------------


def events(call: Callable[[], object], calls: int) -> float:
    """Seconds a call, by device events around so many."""
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    for _ in range(calls):
        call()
    end.record()
    end.synchronize()
    return float(begin.elapsed_time(end)) * 1e-3 / calls


def timed(candidates: dict[str, Callable[[], object]]) -> dict[str, list[float]]:
    """Rounds of each candidate, taken in turn."""
    calls = {}
    for name, call in candidates.items():
        events(call, 3)  # compiles
        calls[name] = max(int(ROUND_SECONDS / events(call, 3)), 1)
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(ROUNDS):
        for name, call in candidates.items():
            seconds[name].append(events(call, calls[name]))
    return seconds


def copy_bandwidth(n: int) -> float:
    """Bytes a second, read and written, of a copy on the device."""
    a = torch.randn(n, device="cuda")
    b = torch.empty_like(a)
    return 8 * n / min(timed({"copy": lambda: b.copy_(a)})["copy"])


def philox_rate() -> float:
    """Blocks a second that integer arithmetic allows, at the highest clock that the device reports.

    A block is ten rounds of two products of 32 bits, both halves of each, and two xors of three words, the keys of the
    rounds being the same for all: 60 operations, of which a multiprocessor does 64 a cycle.
    """
    query = ["nvidia-smi", "--id=0", "--query-gpu=clocks.max.sm", "--format=csv,noheader,nounits"]
    megahertz = float(subprocess.run(query, capture_output=True, text=True, check=True).stdout)
    return torch.cuda.get_device_properties(0).multi_processor_count * megahertz * 1e6 * 64 / 60


def failure(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[:300]


def measure(work: Work, bandwidth: float) -> dict[str, Any]:
    same_moments(work)
    candidates = {"gencore": work.ours, "torch": work.peer}
    row: dict[str, Any] = {"work": work.name, "shape": work.shape, "bytes": work.moved}
    try:
        compiled = torch.compile(work.peer)
        compiled()
        candidates["compile"] = compiled
    except Exception as error:  # what a compiler may say has no end
        row["compile_absent"] = failure(error)
    for name, seconds in timed(candidates).items():
        low, median, high = statistics.quantiles(seconds, n=4)
        row[name] = {"min": min(seconds), "quartiles": [low, median, high]}
    best = row["gencore"]["min"]
    row["of_copy_bandwidth"] = work.moved / best / bandwidth
    if work.blocks:
        try:
            row["of_philox"] = work.blocks / best / philox_rate()
        except (OSError, subprocess.CalledProcessError, ValueError) as error:  # nvidia-smi may not say
            row["of_philox_absent"] = failure(error)
    row["ratio_to_best_peer"] = min(row[name]["min"] for name in candidates if name != "gencore") / best
    return row


def machine() -> dict[str, Any]:
    git = ["git", "rev-parse", "HEAD"]
    try:
        commit = subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip()
    except OSError:  # there is none
        commit = ""
    return {
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
        "cuda": _cuda_support.describe(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "commit": commit,
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("gpu-sample.json"), help="where the record goes")
    parser.add_argument("--elements", type=int, default=1 << 26, help="elements of each work")
    parser.add_argument("--rehearse", action="store_true", help="check the works on the CPU; time nothing")
    parser.add_argument("results", nargs="*", metavar="NAME=RESULT", help="goes into the record")
    options = parser.parse_args()
    if options.rehearse:
        for work in all_works(min(options.elements, 1 << 20), "cpu"):
            same_moments(work)
            print(f"{work.name:<22} {work.shape!s:<16} moments agree")
        return
    bandwidth = copy_bandwidth(options.elements)
    record = {"machine": machine(), "tests": dict(r.split("=", 1) for r in options.results)}
    record["copy_bandwidth"], record["works"] = bandwidth, []
    print(f"{record['machine']['device']}: copies at {bandwidth / 1e12:.2f} TB/s")
    failed = False
    for work in all_works(options.elements, "cuda"):
        try:
            row = measure(work, bandwidth)
        except Exception as error:  # one work that fails is no reason to lose the others
            row = {"work": work.name, "shape": work.shape, "failed": failure(error)}
        record["works"].append(row)
        options.out.write_text(json.dumps(record, indent=1) + "\n")
        if "failed" in row:
            failed = True
            print(f"{work.name:<22} {work.shape!s:<16} {row['failed']}", flush=True)
            continue
        peers = "  ".join(f"{p} {row[p]['min'] * 1e6:.0f} us" for p in ("torch", "compile") if p in row)
        philox = f"{row['of_philox']:.0%} of Philox  " if "of_philox" in row else ""
        print(
            f"{work.name:<22} {work.shape!s:<16} {row['gencore']['min'] * 1e6:8.0f} us  "
            f"{row['of_copy_bandwidth']:.0%} of copy bandwidth  {philox}{row['ratio_to_best_peer']:.2f} x  ({peers})",
            flush=True,
        )
    print(options.out)
    if failed:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
