#!/usr/bin/env python
"""RBMs and layers on a GPU beside PyTorch and JAX: `python bench/gpu_rbm.py [--out FILE] [NAME=RESULT...]`.

Gibbs chains of 784x500 (4,096 of them to 16), a CD-1 step, annealed importance sampling, a layer, an Adam step.
Peers: PyTorch call by call (eager), through torch.compile, captured in a CUDA graph, and JAX where it is installed with
a GPU. Peers may round products to TF32; ours are float32, those of chains TF32 and bfloat16 as well, by the way the
kernel chooses and by both. Figures are times per call, their share of the rate of products in that precision (or of the
copy bandwidth) measured in the same run, and the ratio to each peer. `--rehearse` checks all candidates against each
other on the CPU and times nothing. NAME=RESULT goes into the record.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parent))
from gpu_sample import copy_bandwidth, failure, machine, timed

from gencore.kernels import dense, optim, rbm

N_VISIBLE, N_HIDDEN = 784, 500
DENSITY = 0.13  # of MNIST's pixels
KEY = 7
Call = Callable[[], object]
os.environ.setdefault(
    "XLA_PYTHON_CLIENT_PREALLOCATE", "false"
)  # else JAX takes the memory that the others need


@dataclass
class Later:
    """A candidate that is made when its turn comes: compiling and capturing may fail."""

    make: Callable[[], Call]


@dataclass
class Work:
    """`units` is what a call does of what `per` names; `flops` and `moved` are the least that it must do."""

    name: str
    units: float
    per: str
    candidates: dict[str, Call | Later]
    flops: float = 0.0
    moved: float = 0.0
    results: dict[str, Callable[[], Any]] = field(
        default_factory=dict
    )  # means that all candidates must share
    tolerance: float = 0.01
    precision: str = "float32"  # of products whose rate is the limit


def parameters(device: str) -> list[torch.Tensor]:
    rng = np.random.default_rng(0)
    arrays = (
        rng.normal(0, 0.05, (N_VISIBLE, N_HIDDEN)), rng.normal(-1.5, 0.5, N_VISIBLE), rng.normal(-0.5, 0.5, N_HIDDEN),
    )  # fmt: skip
    return [torch.from_numpy(a.astype(np.float32)).to(device) for a in arrays]


def states(n: int, device: str) -> torch.Tensor:
    drawn = np.random.default_rng(1).random((n, N_VISIBLE)) < DENSITY
    return torch.from_numpy(drawn.astype(np.uint8)).to(device)


def draw(mean: torch.Tensor) -> torch.Tensor:
    return (torch.rand_like(mean) < mean).float()


def graph_of(call: Call) -> Call:
    """Replay what `call` queues; its results lie where the captured ones did."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            call()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()
    return graph.replay


def with_peers(
    ours: Call, eager: Call, step: Callable[..., Any], loop: Callable[[Any], Call], device: str
) -> dict[str, Call | Later]:
    """Ours, and PyTorch's three ways, of which a CPU has one. `loop` runs a step as often as needed."""
    candidates: dict[str, Call | Later] = {"gencore": ours, "eager": eager}
    if device != "cpu":
        candidates["compile"] = Later(lambda: loop(torch.compile(step)))
        candidates["graph"] = Later(lambda: graph_of(eager))
    return candidates


# --- works --------------------------------------------------------------------------------------------------


def gibbs(chains: int, steps: int, device: str, precision: str = "float32") -> Work:
    w, b, c = parameters(device)
    v = states(chains, device)
    out, held = torch.empty_like(v), {"v": v.float()}

    def step(x: torch.Tensor) -> torch.Tensor:
        h = draw(torch.sigmoid(torch.addmm(c, x, w)))
        return draw(torch.sigmoid(torch.addmm(b, h, w.t())))

    def loop(one: Callable[[torch.Tensor], torch.Tensor]) -> Call:
        def run() -> torch.Tensor:
            x = held["v"]
            for _ in range(steps):
                x = one(x)
            return x

        return run

    def ours() -> torch.Tensor:
        return rbm.gibbs_chain(  # type: ignore[return-value]
            w, b, c, v, steps=steps, key=KEY, precision=precision, out=out  # type: ignore[arg-type]
        )  # fmt: skip

    if device == "cpu":
        arrays = [x.numpy() for x in (w, b, c, v)]

        def ours() -> torch.Tensor:
            return torch.from_numpy(rbm.gibbs_chain(*arrays, steps=steps, key=KEY))

    eager = loop(step)
    candidates = with_peers(ours, eager, step, loop, device)
    if device != "cpu" and precision != "float32":
        candidates |= {
            f"in {name}": in_clusters(wanted, ours) for name, wanted in (("blocks", "0"), ("clusters", "1"))
        }
    if device != "cpu":
        candidates["jax"] = Later(lambda: jax_gibbs(w, b, c, v, steps))
    updates = chains * steps * (N_VISIBLE + N_HIDDEN)
    return Work(
        f"gibbs {N_VISIBLE}x{N_HIDDEN}, {chains} chains, {steps} steps, {precision}", updates, "unit update",
        candidates,
        flops=4.0 * chains * steps * N_VISIBLE * N_HIDDEN,
        results={"gencore": lambda: ours().float().mean(), "eager": lambda: eager().mean()},  # type: ignore[attr-defined]
        precision=precision,
    )  # fmt: skip


def in_clusters(wanted: str, call: Call) -> Call:
    """`call` by the way that its arithmetic may not have chosen; in blocks where the weights do not fit."""

    def run() -> object:
        os.environ["GENCORE_CUDA_CLUSTERS"] = wanted
        try:
            return call()
        finally:
            del os.environ["GENCORE_CUDA_CLUSTERS"]

    return run


def jax_gibbs(w: Any, b: Any, c: Any, v: Any, steps: int) -> Call:
    """The chain as one compiled loop."""
    import jax
    import jax.numpy as jnp

    if jax.default_backend() != "gpu":
        raise RuntimeError("JAX has no GPU here")
    w, b, c, v = (jnp.asarray(x.cpu().numpy(), jnp.float32) for x in (w, b, c, v))

    @jax.jit
    def chain(v: Any, key: Any) -> Any:
        def step(_: Any, state: Any) -> Any:
            v, key = state
            key, one, two = jax.random.split(key, 3)
            h = (jax.random.uniform(one, (v.shape[0], N_HIDDEN)) < jax.nn.sigmoid(v @ w + c)).astype(
                jnp.float32
            )
            v = (jax.random.uniform(two, v.shape) < jax.nn.sigmoid(h @ w.T + b)).astype(jnp.float32)
            return v, key

        return jax.lax.fori_loop(0, steps, step, (v, key))[0]

    key = jax.random.PRNGKey(0)
    return lambda: chain(v, key).block_until_ready()


def cd(batch: int, device: str) -> Work:
    w, b, c = parameters(device)
    v = states(batch, device)
    real = v.float()

    def step() -> tuple[torch.Tensor, ...]:
        data = torch.sigmoid(torch.addmm(c, real, w))
        model_v = draw(torch.sigmoid(torch.addmm(b, draw(data), w.t())))
        model = torch.sigmoid(torch.addmm(c, model_v, w))
        return (
            (real.t() @ data - model_v.t() @ model) / batch,
            (real - model_v).mean(0), (data - model).mean(0), data.mean(0),
        )  # fmt: skip

    place = (lambda x: x.numpy()) if device == "cpu" else (lambda x: x)
    arrays = [place(x) for x in (w, b, c, v)]
    buffers: dict[str, Any] = {"out": None}

    def ours() -> Any:
        buffers["out"] = rbm.cd_gradient(*arrays, key=KEY, out=buffers["out"])
        return buffers["out"]

    def mean(x: Any) -> Any:
        return torch.as_tensor(x).mean()

    return Work(
        f"CD-1 gradient, batch {batch}", 1, "step",
        with_peers(ours, step, step, lambda one: one, device), flops=10.0 * batch * N_VISIBLE * N_HIDDEN,
        results={"gencore": lambda: mean(ours().mean_h), "eager": lambda: mean(step()[3])},
    )  # fmt: skip


def ais(runs: int, temperatures: int, device: str) -> Work:
    """The peer does a tenth of the temperatures, and its time is taken tenfold."""
    w, b, c = parameters(device)
    betas = torch.linspace(0, 1, temperatures, dtype=torch.float64, device=device)
    base = torch.full((N_VISIBLE,), -1.0, device=device)
    place = (lambda x: x.numpy()) if device == "cpu" else (lambda x: x)
    arrays = [place(x) for x in (w, b, c)]

    def ours() -> Any:
        return rbm.ais(*arrays, betas=place(betas), base_bias=place(base), key=KEY, n_runs=runs)

    def path(
        now: torch.Tensor, after: torch.Tensor, v: torch.Tensor, log_w: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        field = torch.addmm(c, v, w)
        log_w = log_w + (after - now) * (v @ (b - base))
        log_w = log_w + (
            torch.nn.functional.softplus(after * field) - torch.nn.functional.softplus(now * field)
        ).sum(1)
        h = draw(torch.sigmoid(after * field))
        return draw(torch.sigmoid(after * torch.addmm(b, h, w.t()) + (1 - after) * base)), log_w

    def loop(one: Callable[..., Any], share: int) -> Call:
        levels = torch.linspace(0, 1, max(temperatures // share, 2), device=device)

        def run() -> torch.Tensor:
            v = draw(torch.sigmoid(base).expand(runs, -1))
            log_w = torch.zeros(runs, device=device)
            for k in range(1, len(levels)):
                v, log_w = one(levels[k - 1], levels[k], v, log_w)
            return log_w

        return run

    eager = loop(path, 10)
    candidates: dict[str, Call | Later] = {"gencore": ours, "eager/10": eager}
    if device != "cpu":
        candidates["compile/10"] = Later(lambda: loop(torch.compile(path), 10))
    whole = loop(path, 1)

    def log_mean(x: Any) -> torch.Tensor:
        x = torch.as_tensor(x).double()
        return torch.logsumexp(x, 0) - np.log(len(x))

    return Work(
        f"AIS {runs} x {temperatures}", runs * (temperatures - 1.0), "temperature of a run", candidates,
        flops=4.0 * runs * (temperatures - 1) * N_VISIBLE * N_HIDDEN,
        results={"gencore": lambda: log_mean(ours()[0]), "eager": lambda: log_mean(whole())} if device == "cpu" else {},
        tolerance=1.0,
    )  # fmt: skip


def layer(rows: int, device: str) -> Work:
    w, _, c = parameters(device)
    x = torch.rand((rows, N_VISIBLE), device=device)
    place = (lambda x: x.numpy()) if device == "cpu" else (lambda x: x)
    arrays = [place(a) for a in (x, w, c)]

    def ours() -> Any:
        return dense.linear(*arrays, activation="logistic")

    def step() -> torch.Tensor:
        return torch.sigmoid(torch.addmm(c, x, w))

    return Work(
        f"logistic layer, {rows} rows", 1, "layer", with_peers(ours, step, step, lambda one: one, device),
        flops=2.0 * rows * N_VISIBLE * N_HIDDEN,
        results={"gencore": lambda: torch.as_tensor(ours()).mean(), "eager": lambda: step().mean()},
    )  # fmt: skip


def adam(device: str) -> Work:
    shapes = ((784, 500), (500,), (500, 500), (500,), (500, 784), (784,))
    place = (lambda x: x.numpy()) if device == "cpu" else (lambda x: x)
    own = [[place(torch.rand(s, device=device)) for s in shapes] for _ in range(4)]
    theirs = [torch.rand(s, device=device, requires_grad=True) for s in shapes]
    for p in theirs:
        p.grad = torch.rand_like(p)
    optimizer = torch.optim.Adam(theirs, lr=1e-3, fused=device != "cpu")
    count = sum(p.numel() for p in theirs)

    def ours() -> None:
        optim.adam_step(own[0], own[1], exp_avgs=own[2], exp_avg_sqs=own[3], lr=1e-3, step=10)

    return Work(
        "Adam, 1.0 M parameters",
        count,
        "parameter",
        {"gencore": ours, "fused": optimizer.step},
        moved=28.0 * count,
    )


def all_works(device: str) -> list[partial[Work]]:
    """What makes each of them: their arrays are there one after the other."""
    if device == "cpu":
        return [
            partial(gibbs, 400, 20, device), partial(cd, 400, device), partial(ais, 100, 50, device),
            partial(layer, 100, device), partial(adam, device),
        ]  # fmt: skip
    return [
        *(
            partial(gibbs, chains, 20, device, precision)
            for chains in (4096, 2048, 256, 16) for precision in ("float32", "tf32", "bf16")
        ),
        partial(cd, 128, device), partial(ais, 100, 14_500, device), partial(layer, 4096, device),
        partial(adam, device),
    ]  # fmt: skip


# --- measuring ----------------------------------------------------------------------------------------------


def same_results(work: Work) -> None:
    """Chains are random: their means agree to the tolerance."""
    values = {name: float(result()) for name, result in work.results.items()}
    if len(values) > 1:
        spread = max(values.values()) - min(values.values())
        assert spread <= work.tolerance, f"{work.name}: {values}"


def product_rate(precision: str) -> float:
    """Operations a second of a large product."""
    n = 8192
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    a, b = (torch.randn((n, n), device="cuda").to(dtype) for _ in range(2))
    torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    return 2.0 * n**3 / min(timed({"product": lambda: a @ b})["product"])


def measure(work: Work, limits: dict[str, float]) -> dict[str, Any]:
    row: dict[str, Any] = {"work": work.name, "units": work.units, "per": work.per}
    same_results(work)
    usable = {}
    for name, candidate in work.candidates.items():
        try:
            call = candidate.make() if isinstance(candidate, Later) else candidate
            call()
            torch.cuda.synchronize()
            usable[name] = call
        except Exception as error:  # what a compiler may say has no end
            row[f"{name}_absent"] = failure(error)
    if "gencore" not in usable:
        raise RuntimeError(row["gencore_absent"])
    for name, seconds in timed(usable).items():
        low, median, high = statistics.quantiles(seconds, n=4)
        row[name] = {"min": min(seconds), "quartiles": [low, median, high]}
    best = row["gencore"]["min"]
    row["units_per_ns"] = work.units / best * 1e-9
    if work.flops:
        row[f"of_{work.precision}_products"] = work.flops / best / limits[work.precision]
    if work.moved:
        row["of_copy_bandwidth"] = work.moved / best / limits["copy"]
    row["ratios"] = {
        name: row[name]["min"] * int(name.partition("/")[2] or 1) / best
        for name in usable
        if name != "gencore"
    }
    return row


def shown(make: partial[Work]) -> str:
    return f"{make.func.__name__}({', '.join(map(repr, make.args))})"


def main(all_works: Callable[[str], list[partial[Work]]], doc: str, out: str) -> None:
    parser = argparse.ArgumentParser(description=doc.partition("\n")[0])
    parser.add_argument("--out", type=Path, default=Path(out), help="where the record goes")
    parser.add_argument("--rehearse", action="store_true", help="check the works on the CPU; time nothing")
    parser.add_argument("results", nargs="*", metavar="NAME=RESULT", help="goes into the record")
    options = parser.parse_args()
    if options.rehearse:
        for make in all_works("cpu"):
            work = make()
            same_results(work)
            for candidate in work.candidates.values():
                (candidate.make() if isinstance(candidate, Later) else candidate)()
            print(f"{work.name:<44} {', '.join(work.candidates)}: results agree")
        return
    limits = {"copy": copy_bandwidth(1 << 26)}
    limits |= {precision: product_rate(precision) for precision in ("float32", "bf16", "tf32")}  # peers: TF32
    record: dict[str, Any] = {"machine": machine(), "tests": dict(r.split("=", 1) for r in options.results)}
    record["limits"], record["works"] = limits, []
    print(
        f"{record['machine']['device']}: copies at {limits['copy'] / 1e12:.2f} TB/s, products at "
        f"{limits['float32'] / 1e12:.0f} (float32), {limits['tf32'] / 1e12:.0f} (TF32) and "
        f"{limits['bf16'] / 1e12:.0f} (bfloat16) TFLOP/s",
        flush=True,
    )
    begin, failed = time.perf_counter(), False
    for make in all_works("cuda"):
        try:
            work = make()
            row = measure(work, limits)
        except Exception as error:  # one work that fails is no reason to lose the others
            row = {"work": shown(make), "failed": failure(error)}
        record["works"].append(row)
        options.out.write_text(json.dumps(record, indent=1) + "\n")
        if "failed" in row:
            failed = True
            print(f"{row['work']:<46} {row['failed']}", flush=True)
            continue
        share = row.get(f"of_{work.precision}_products", row.get("of_copy_bandwidth", 0.0))
        ratios = "  ".join(f"{ratio:.1f} x {name}" for name, ratio in row["ratios"].items())
        print(
            f"{work.name:<46} {row['gencore']['min'] * 1e6:10.0f} us  {row['units_per_ns']:8.3g} {work.per}s/ns  "
            f"{share:.0%} of the limit  {ratios}",
            flush=True,
        )
    print(f"{options.out}, {time.perf_counter() - begin:.0f} s")
    if failed:
        raise SystemExit(1)


if __name__ == "__main__":
    main(all_works, __doc__ or "", "gpu-rbm.json")
