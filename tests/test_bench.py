"""The benchmark harness: its arithmetic, its checks of candidates, its records, and every work in miniature.

No test looks at how long anything takes.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import gencore as gc
from gencore import _bench
from gencore._bench import machine, measure, ours, reference, registry, report, works
from gencore._bench.measure import Candidate, Plan, Timing

ROOT = Path(__file__).resolve().parents[1]


def limits(flops: float = 1e9, bytes_per_second: float = 1e9, threads: int = 1) -> machine.Limits:
    return machine.Limits(threads, flops, bytes_per_second)


# --- arithmetic -------------------------------------------------------------------------------------------------


def test_minimum_and_quartiles() -> None:
    timing = Timing([4.0, 1.0, 3.0, 2.0, 5.0])
    assert timing.minimum == 1
    assert timing.quartiles == (2, 3, 4)
    assert Timing([1.0, 2.0]).quartiles == (1.25, 1.5, 1.75)


@pytest.mark.parametrize(("flops", "moved", "seconds"), [(2e9, 1e9, 2.0), (1e9, 5e9, 5.0), (0, 1e9, 1.0)])
def test_limit_is_the_slower_of_arithmetic_and_memory(flops: float, moved: float, seconds: float) -> None:
    assert limits().seconds(flops, moved) == seconds


def test_result_speaks_of_the_whole_work() -> None:
    work = works.WORKS["ais"]
    cost = works.Cost(2e6, 0, "basis")
    record = report.result(work, "gencore", 1, Timing([4e-3, 2e-3, 3e-3], 7), cost, limits(), note="n")
    assert record["seconds"] == pytest.approx({"min": 29.0, "q1": 36.25, "median": 43.5, "q3": 50.75})
    assert record["limit_seconds"] == pytest.approx(14_500 * 2e-3)
    assert record["fraction_of_limit"] == pytest.approx(1.0)
    assert (record["rounds"], record["calls"], record["note"]) == (3, 7, "n")


def row(peer: str, seconds: float, work: str = "gibbs", threads: int = 1) -> dict[str, Any]:
    return {
        **{"record": "result", "peer": peer, "work": work, "threads": threads, "fraction_of_limit": 0.5},
        **{"seconds": {"min": seconds}, "peak_bytes": 1e6, "note": "", "basis": "b", "density": None},
    }


def test_ratio_is_to_the_best_peer_by_minima() -> None:
    rows = [row("gencore", 2.0), row("numpy", 8.0), row("torch", 5.0), {"record": "absent", "peer": "jax"}]
    report.add_ratios(rows)
    assert rows[0]["best_peer"] == "torch"
    assert rows[0]["ratio_to_best_peer"] == 2.5
    assert "best_peer" not in rows[1]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(12.34, "12.3 s"), (0.9999, "1.00 s"), (4.612e-3, "4.61 ms"), (123e-6, "123 µs"), (0.93e-9, "0.93 ns")],
)
def test_durations_have_three_digits(seconds: float, text: str) -> None:
    assert report.duration(seconds) == text


class Clock:
    """A clock that calls set forward."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        monkeypatch.setattr(measure.time, "perf_counter", lambda: self.now)
        monkeypatch.setattr(measure.time, "sleep", lambda _: None)

    def takes(self, seconds: float) -> Any:
        def call() -> None:
            self.now += seconds

        return call


def test_interleaving_counts_time_a_unit_and_takes_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, order = Clock(monkeypatch), []
    candidates = {
        name: Candidate(clock.takes(s), lambda: None, units, lambda name=name: order.append(name))
        for name, s, units in (("slow", 0.5, 5), ("fast", 2.0**-10, 1))
    }
    timings = measure.interleave(candidates, Plan(sample_seconds=2.0**-6, seconds=100, rounds=4))
    assert timings["slow"].seconds == pytest.approx([0.1] * 4)
    assert timings["fast"].seconds == pytest.approx([2.0**-10] * 4)
    assert (timings["slow"].calls, timings["fast"].calls) == (1, 16)
    assert order[2:] == ["slow", "fast", "fast", "slow"] * 2  # each round starts with the next candidate


def test_rounds_keep_to_the_time_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    plan = Plan(sample_seconds=0.02, seconds=10, rounds=100, least_rounds=3, settle=0)
    middling = measure.interleave({"x": Candidate(clock.takes(1.0), lambda: None)}, plan)["x"]
    slow = measure.interleave({"x": Candidate(clock.takes(50.0), lambda: None)}, plan)["x"]
    assert len(middling.seconds) == 10
    assert len(slow.seconds) == 3


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="no high-water mark to reset here")
def test_peak_memory_sees_what_is_freed_again() -> None:
    size = 64 << 20
    candidate = Candidate(lambda: np.ones(size, np.uint8).sum(), lambda: None, workspace=1000)
    peak = measure.peak_memory(candidate)
    assert peak is not None
    assert 0.98 * size < peak < 1.2 * size  # the system counts pages in batches, a processor each


# --- candidates that do something else are found out -----------------------------------------------------------


RNG = np.random.default_rng(0)


def wrong_gibbs(p: works.rbm_chains.Gibbs, start: Any) -> Any:
    """The mean of h in place of a draw: every conditional is right, the step is not."""
    w, b, c = p.rbm[:3]
    h = reference.logistic(c + start @ w)
    return RNG.random(start.shape) < reference.logistic(b + h @ w.T)


def wrong_variates(p: works.sample.Variates) -> Any:
    """The same uniforms in each pair of rows."""
    return np.repeat(RNG.random((len(p.p) // 2, p.p.shape[1])), 2, axis=0) < p.p


def wrong_cd(p: works.rbm_chains.Cd) -> Any:
    """The hidden means are not computed again for the model's v."""
    w, b, c, x, _ = p.rbm
    y, _ = reference.gibbs_step(w, b, c, x, RNG)
    h = reference.logistic(c + x @ w)
    return p.lr * (x - 1.0 * y).T @ h / len(x), p.lr * (x - 1.0 * y).mean(0), 0 * c


def wrong_ais(p: works.rbm_likelihood.Ais) -> Any:
    """The last temperature is left out."""
    return reference.ais_log_weights(p.rbm, p.betas[:-1], p.n_runs, RNG)


def wrong_nade(p: works.nade.Nade) -> Any:
    """One dimension is left out of what the later ones see."""
    w = p.params.w.copy()
    w[p.x.sum(0).argmax()] = 0
    weights = np.full(len(p.x), 1 / len(p.x))
    return works.nade.gradients(p.params._replace(w=w), p.x, weights)[:2]


def wrong_nade_sample(p: works.nade.Nade) -> Any:
    """The same random numbers in every row."""
    return np.repeat(works.nade.draw(p.params, 1, RNG), len(p.x), axis=0)


def wrong_lstm(p: works.recurrent.Lstm) -> Any:
    """The right states; one of the gradients is a hundredth too small."""
    good = gradients_of_lstm(p)
    good[3] = good[3] * 0.99
    return good


def gradients_of_lstm(p: works.recurrent.Lstm) -> Any:
    """States and gradients, by our kernel."""
    leaves: Any = [gc.tensor(a, requires_grad=True) for a in p[:4]]
    h: Any = gc.kernels.recurrent.lstm(*leaves)[0]
    h.backward(p.grad)
    return [h.numpy(), *(leaf.grad.numpy() for leaf in leaves)]


def wrong_made(p: works.made.Made) -> Any:
    """One dimension is left out of what the hidden units see."""
    w = p.params.w.copy()
    w[p.x.sum(0).argmax()] = 0
    return p.gradients(p.params._replace(w=w))[:2]


def wrong_made_gradient(p: works.made.Made) -> Any:
    """Right but where weights are masked."""
    log_prob, by, _ = p.gradients(p.params)
    by[2] = by[2] + np.where(p.masks[1], 0, 1e-9)
    return log_prob, by


def wrong_made_sample(p: works.made.Made) -> Any:
    """The same random numbers in every row."""
    return np.repeat(p.samples(1, RNG), len(p.x), axis=0)


def wrong_adam(p: works.optim.Adam) -> Any:
    """Without the corrections of the first steps."""
    m = [p.beta1 * m + (1 - p.beta1) * g for m, g in zip(p.means, p.grads, strict=True)]
    v = [p.beta2 * v + (1 - p.beta2) * g * g for v, g in zip(p.squares, p.grads, strict=True)]
    return [x - p.lr * m / (np.sqrt(v) + p.eps) for x, m, v in zip(p.params, m, v, strict=True)]


def vae_step(p: works.vae.VaeStep, logvar_factor: float = 1.0, noise_factor: float = 1.0) -> Any:
    """A step by the reference, and what makes it wrong."""
    layers = works.vae.Layers.of(p.adam.params).precise()
    layers.logvar[0][...] *= logvar_factor
    layers.logvar[1][...] *= logvar_factor
    noise = noise_factor * RNG.standard_normal((len(p.x), len(layers.mean[1])))
    loss, grads = works.vae.gradients(layers, p.x.astype(float), noise)
    return loss, p.adam.after(grads)


def vae_step_without_kl(p: works.vae.VaeStep) -> Any:
    """The likelihood alone moves the posterior: the gradient of its log-variance lacks what narrowness costs."""
    loss, _ = vae_step(p)
    layers = works.vae.Layers.of(p.adam.params).precise()
    grads = works.vae.gradients(layers, p.x.astype(float), RNG.standard_normal((len(p.x), 5)))[1]
    grads[7] = grads[7] - 0.5 * (np.exp(layers.encode(p.x.astype(float))[3]) - 1).mean(0)
    return loss, p.adam.after(grads)


def wrong_iwae(p: works.vae.Iwae, n_samples: int) -> Any:
    """The evidence lower bound, the mean of log-weights in place of the log of the mean weight."""
    return works.vae.log_weights(p.layers.precise(), p.x, n_samples, RNG).mean(0)


@pytest.mark.parametrize(
    ("name", "sample"),
    [
        ("vae_step", lambda p: vae_step(p, logvar_factor=2)),
        ("vae_step", lambda p: vae_step(p, noise_factor=0)),
        ("vae_step", vae_step_without_kl),
        ("iwae", wrong_iwae),
        ("iwae", lambda p, n: -reference.free_energy(reference.synthetic_rbm(36, 20, 30), p.x)),
        ("adam", wrong_adam),
        ("nade", wrong_nade),
        ("nade_sample", wrong_nade_sample),
        ("lstm", wrong_lstm),
        ("made", wrong_made),
        ("made", wrong_made_gradient),
        ("made_sample", wrong_made_sample),
        ("philox", wrong_variates),
        ("cd1", wrong_cd),
        ("ais", wrong_ais),
        ("gemm_64x256x256", lambda p: p.a @ p.b * (1 + 1e-3)),
        (
            "free_energy",
            lambda r: (reference.free_energy(r, r.v) + r.v @ r.b, -works.rbm_likelihood.LOG_PARTITION),
        ),
        ("log_z", lambda p: reference.log_partition(p.rbm, p.short) + 1e-3),
        ("pseudo", lambda r: -reference.free_energy(r, r.v)),
    ],
)
def test_a_wrong_candidate_is_refused(name: str, sample: Any) -> None:
    work = works.WORKS[name]
    problem = work.problem(True)
    with pytest.raises(reference.Disagreement):
        work.check(problem, Candidate(lambda: None, lambda *args: sample(problem, *args)))


def test_a_mean_in_place_of_a_hidden_draw_is_refused() -> None:
    """At full size, where the check runs; few small units show too little of it."""
    p = works.WORKS["gibbs"].problem(False)
    check = works.WORKS["gibbs"].check
    rng = np.random.default_rng(1)
    good = Candidate(lambda: None, lambda v: reference.gibbs_step(*p.rbm[:3], v, rng)[0])
    check(p, good)
    with pytest.raises(reference.Disagreement, match="distribution"):
        check(p, Candidate(lambda: None, lambda v: wrong_gibbs(p, v)))


def test_hidden_units_that_see_nothing_are_refused() -> None:
    """At full size: their samples have the right rates, nearly, and too small a log-probability."""
    p = works.WORKS["nade_sample"].problem(False)
    rng = np.random.default_rng(6)

    def sampler(params: works.nade.Parameters) -> Candidate:
        return Candidate(lambda: None, lambda: works.nade.draw(params, len(p.x), rng))

    p.check_sample(sampler(p.params))
    seen = reference.logistic(p.params.c + p.x.mean(0) @ p.params.w)
    blind = p.params._replace(w=np.zeros_like(p.params.w), c=np.log(seen / (1 - seen)))
    with pytest.raises(reference.Disagreement, match="distribution"):
        p.check_sample(sampler(blind))


def test_the_reference_passes_its_own_check() -> None:
    """The two-sample test accepts independent draws of the same law (30 seeds, none refused)."""
    rbm = reference.synthetic_rbm(36, 20, 30)

    def draws(seed: int) -> Any:
        rng = np.random.default_rng(seed)
        return np.stack([reference.cd_update(rbm, rbm.v, 1, rng)[1] for _ in range(20)])

    for seed in range(0, 60, 2):
        reference.same_distribution("update", draws(seed), draws(seed + 1))


def test_synthetic_rbm_has_the_densities_of_a_trained_one() -> None:
    rbm = reference.synthetic_rbm(784, 500, 200)
    assert rbm.density == pytest.approx((0.14, 0.21), abs=0.02)
    assert not rbm.w.flags.writeable  # shared by all candidates


def test_known_values_of_the_reference() -> None:
    """log Z by enumerating both sides at once, and log p(v) that sums to one."""
    rbm = reference.synthetic_rbm(6, 4, 10)
    v, h = (np.arange(2**n)[:, None] >> np.arange(n) & 1 for n in (6, 4))
    joint = (v @ rbm.b)[:, None] + h @ rbm.c + v @ rbm.w @ h.T
    log_z = float(np.log(np.exp(joint.astype(float)).sum()))
    assert reference.log_partition(rbm, 4) == pytest.approx(log_z, rel=1e-6)
    assert np.exp(-reference.free_energy(rbm, v) - log_z).sum() == pytest.approx(1, rel=1e-5)


def test_gradients_of_the_reference_vae() -> None:
    """Against central differences along random directions, by all parameters at once and by each array."""
    p = works.WORKS["vae_step"].problem(True)
    x, start = p.x.astype(float), [a.astype(float) for a in p.adam.params]
    rng = np.random.default_rng(2)
    noise = rng.standard_normal((len(x), len(start[5])))
    _, grads = works.vae.gradients(works.vae.Layers.of(start), x, noise)
    directions = [rng.standard_normal(a.shape) for a in start]

    def loss(t: float, only: int | None) -> float:
        moved = [
            a + t * d if only in (None, i) else a
            for i, (a, d) in enumerate(zip(start, directions, strict=True))
        ]
        return works.vae.gradients(works.vae.Layers.of(moved), x, noise)[0]

    for only in (None, *range(len(start))):
        chosen = [only] if only is not None else range(len(start))
        want = sum(float((grads[i] * directions[i]).sum()) for i in chosen)
        # Step 1e-4: the third derivative leaves 1e-8 of some hundreds, rounding 1e-16 / 1e-4 of 15.
        assert (loss(1e-4, only) - loss(-1e-4, only)) / 2e-4 == pytest.approx(want, rel=1e-5, abs=1e-6), only


def test_gradients_of_the_reference_nade() -> None:
    """Against central differences, and states of four dimensions have probabilities that sum to one."""
    rng = np.random.default_rng(5)
    params = works.nade.Parameters(*(rng.normal(0, 1, shape) for shape in ((4, 3), (3,), (4, 3), (4,))))
    x = np.arange(16)[:, None] >> np.arange(4) & 1
    weights, directions = rng.standard_normal(16), [rng.standard_normal(a.shape) for a in params]
    log_prob, grads, magnitudes = works.nade.gradients(params, x, weights)
    assert np.exp(log_prob).sum() == pytest.approx(1)

    def value(t: float) -> float:
        moved = works.nade.Parameters(*(a + t * d for a, d in zip(params, directions, strict=True)))
        return float(weights @ works.nade.gradients(moved, x, weights)[0])

    want = sum(float((g * d).sum()) for g, d in zip(grads, directions, strict=True))
    assert (value(1e-5) - value(-1e-5)) / 2e-5 == pytest.approx(want, rel=1e-7)
    assert all(np.all(np.abs(g) <= m + 1e-12) for g, m in zip(grads, magnitudes, strict=True))


def test_gradients_of_the_reference_made() -> None:
    """Against central differences; states of four dimensions have probabilities that sum to one."""
    rng = np.random.default_rng(6)
    params = works.made.Parameters(*(rng.normal(0, 1, shape) for shape in ((4, 3), (3,), (3, 4), (4,))))
    x = (np.arange(16)[:, None] >> np.arange(4) & 1).astype(np.uint8)
    p, directions = (
        works.made.Made(x, params, np.array([0, 1, 2])),
        [rng.standard_normal(a.shape) for a in params],
    )
    log_prob, grads, magnitudes = p.gradients(params)
    assert np.exp(log_prob).sum() == pytest.approx(1)

    def value(t: float) -> float:
        moved = works.made.Parameters(*(a + t * d for a, d in zip(params, directions, strict=True)))
        return float(p.gradients(moved)[0].mean())

    want = sum(float((g * d).sum()) for g, d in zip(grads, directions, strict=True))
    assert (value(1e-6) - value(-1e-6)) / 2e-6 == pytest.approx(want, rel=1e-6)
    assert all(np.all(np.abs(g) <= m + 1e-12) for g, m in zip(grads, magnitudes, strict=True))


def test_reference_vae_likelihood_is_that_of_quadrature() -> None:
    """With one latent unit, log p(x) by Gauss-Hermite quadrature of the prior."""
    x = reference.synthetic_rbm(36, 20, 30).v
    layers = works.vae.initial((36, 20, 1), x, np.random.default_rng(3), spread=0.9).precise()
    nodes, masses = np.polynomial.hermite_e.hermegauss(60)
    logits = layers.decode(nodes[:, None])[-1]
    fit = logits @ x[:4].T.astype(float) - reference.softplus(logits).sum(1)[:, None]
    exact = np.logaddexp.reduce(fit + np.log(masses / masses.sum())[:, None])
    weights = works.vae.log_weights(layers, x[:4], 100_000, np.random.default_rng(4))
    estimate = np.logaddexp.reduce(weights) - np.log(len(weights))
    error = np.exp(weights - estimate).std(0) / len(weights) ** 0.5
    assert np.abs(estimate - exact) == pytest.approx(0, abs=5 * error.max())


# --- the command ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["gibs"], "no work is called gibs; there are gibbs, cd1"),
        (["--peers", "numpy,tensorflow"], "expected some of numpy, received tensorflow"),
        (["--threads", "two"], "expected counts such as 1,all, received 'two'"),
    ],
)
def test_wrong_arguments_are_named(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        _bench.main(arguments)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def test_selection_by_beginnings() -> None:
    assert [w.name for w in works.select(["cd", "log"])] == ["cd1", "cd10", "log_z"]
    assert len(works.select(None)) == len(works.WORKS)


def test_environment_frees_blas_and_sets_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Haswell")
    environment = machine.environment(1)
    assert "OPENBLAS_CORETYPE" not in environment
    assert environment["OPENBLAS_NUM_THREADS"] == environment["GENCORE_NUM_THREADS"] == "1"
    assert "intra_op_parallelism_threads=1" in environment["XLA_FLAGS"]


def test_missing_and_failing_peers_are_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(problem: Any, threads: int) -> Candidate:
        raise ImportError("No module named 'torch'")

    def failing(problem: Any, threads: int) -> Candidate:
        raise RuntimeError("out of order")

    builders = {**registry._builders, ("gibbs", "torch"): missing, ("gibbs", "jax"): failing}
    monkeypatch.setattr(registry, "_builders", builders)
    names = ["gencore", "torch", "jax", "rbms"]
    records = _bench.measure_work(works.WORKS["gibbs"], names, limits(), _bench.TINY, tiny=True)
    by_peer = {r["peer"]: r for r in records}
    assert list(by_peer) == names
    assert by_peer["torch"]["record"] == "absent"
    assert not by_peer["torch"]["installed"]
    assert by_peer["rbms"]["installed"]
    assert by_peer["jax"]["reason"] == "RuntimeError: out of order"
    text = "\n".join(report._footnotes(records))
    assert "torch absent: not installed (No module named 'torch')" in text
    assert "jax DISAGREES, not timed: RuntimeError: out of order" in text


SCHEMA = {
    "machine": {
        **{"date": str, "threads": int, "plan": str, "fma_gflops": float, "copy_gbytes": float, "cpu": str},
        **{"cores": int, "system": str, "gencore": str, "isa": str, "compiler": str, "versions": dict},
        **{"blas": list, "command": str, "removed_variables": list, "load_before": float},
    },
    "result": {
        **{"work": str, "threads": int, "peer": str, "seconds": dict, "rounds": int, "calls": int},
        **{"flops": float, "basis": str, "limit_seconds": float, "fraction_of_limit": float},
        **{"agrees": str, "note": str},
    },
    "absent": {"work": str, "threads": int, "peer": str, "reason": str, "installed": bool},
}


def bench(arguments: list[str], folder: Path) -> tuple[list[dict[str, Any]], str]:
    """Run a bench command on tiny sizes in its own process; its records and its table."""
    out = folder / "out.jsonl"
    command = [sys.executable, *arguments, "--tiny", "--out", str(out)]
    # `bench` is found in the tree, gencore where the gencore under test is.
    path = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), str(ROOT)]))
    done = subprocess.run(
        command, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return [json.loads(line) for line in out.read_text().splitlines()], done.stdout


def test_the_heading_keeps_to_its_columns_whatever_the_machine_is_called() -> None:
    cpu = "Intel(R) Xeon(R) Platinum 8481C CPU @ 2.70GHz, of a virtual machine (family 6 model 167)"
    blas = [{"internal_api": "openblas", "version": "0.3.31.188.0", "architecture": "SkylakeX"}] * 4
    record = {
        "record": "machine", "threads": 64, "cpu": cpu, "isa": "avx512", "fma_gflops": 12345.0, "copy_gbytes": 1234.0,
        "date": "2026-11-29", "load_before": 0.0, "cores": 64, "plan": "full", "gencore": "0.1.0",
        "compiler": "GNU 14.2.0, -O3 -march=x86-64-v4", "blas": blas,
    }  # fmt: skip
    heading = report.tables([record])
    assert max(map(len, heading.splitlines())) <= 100
    words = heading.split()
    assert " ".join(words).startswith(
        f"64 threads of {cpu}, avx512; limit 12345 GFLOP/s multiply-add, 1234 GB/s copy"
    )
    assert words.count("SkylakeX") + words.count("SkylakeX,") == 4


def test_every_work_runs_and_keeps_the_schema(tmp_path: Path) -> None:
    records, table = bench(["-m", "gencore._bench", "--threads", "1,2"], tmp_path)
    for record in records:
        for key, kind in SCHEMA[record["record"]].items():
            assert isinstance(record[key], kind | int if kind is float else kind), (record["record"], key)
    done = {(r["work"], r["peer"], r["threads"]) for r in records if r["record"] == "result"}
    left_out = {"pixelcnn_step", "pixelcnn_sample", "bilstm"}  # by NumPy, which has no gradients
    assert {r["work"] for r in records if r["record"] == "absent"} == left_out
    assert done == {
        (w, p, t) for w in works.WORKS for p in ("gencore", "numpy") for t in (1, 2)
        if not (p == "numpy" and w in left_out)
    }  # fmt: skip
    for r in records:
        if r["record"] == "result":
            seconds = r["seconds"]
            assert 0 < seconds["min"] <= seconds["q1"] <= seconds["median"] <= seconds["q3"]
            assert ("ratio_to_best_peer" in r) == (r["peer"] == "gencore" and r["work"] not in left_out)
    assert max(map(len, table.splitlines())) <= 100
    for name, work in works.WORKS.items():
        assert f"\n{work.title} " in table
        assert f"\n{name} " in table


LIBRARIES = {"torch": "torch", "onednn": "torch", "sklearn": "sklearn", "rbms": "rbms"}
COMPILING = {"compile": "torch", "jax": "jax", "numba": "numba"}


def run_peers(names: list[str], folder: Path) -> dict[str, list[dict[str, Any]]]:
    records, _ = bench([str(ROOT / "bench/run.py"), "--threads", "1", "--peers", ",".join(names)], folder)
    return {name: [r for r in records if r.get("peer") == name] for name in names}


def assert_takes_part(records: list[dict[str, Any]]) -> None:
    assert {r["work"] for r in records} == set(works.WORKS)
    assert {r["record"] for r in records} <= {"result", "absent"}
    assert any(r["record"] == "result" for r in records)
    assert all(r["installed"] for r in records if r["record"] == "absent")


def need(library: str) -> None:
    if importlib.util.find_spec(library) is None:
        pytest.skip(f"{library} is not installed")


@pytest.fixture(scope="module")
def quick_peers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, Any]]]:
    return run_peers(list(LIBRARIES), tmp_path_factory.mktemp("peers"))


@pytest.mark.peers
@pytest.mark.parametrize("peer", LIBRARIES)
def test_each_installed_peer_agrees(peer: str, quick_peers: dict[str, list[dict[str, Any]]]) -> None:
    need(LIBRARIES[peer])
    assert_takes_part(quick_peers[peer])


@pytest.mark.slow
@pytest.mark.peers
@pytest.mark.parametrize("peer", COMPILING)
def test_each_installed_compiling_peer_agrees(peer: str, tmp_path: Path) -> None:
    need(COMPILING[peer])
    assert_takes_part(run_peers([peer], tmp_path)[peer])


def compare_module() -> ModuleType:
    spec = importlib.util.spec_from_file_location("bench_compare", ROOT / "bench" / "compare.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_compare_sets_runs_side_by_side(tmp_path: Path) -> None:
    compare = compare_module()
    before = [row("gencore", 2e-3), row("numpy", 5e-3), row("gencore", 1.0, "cd1")]
    after = [row("gencore", 1e-3), row("numpy", 5e-3), row("gencore", 1.0, "ais", threads=2)]
    for name, rows in (("before", before), ("after", after)):
        report.add_ratios([r for r in rows if r["work"] == "gibbs"])
        report.write(tmp_path / f"{name}.jsonl", rows)
    runs = [compare.results(tmp_path / f"{name}.jsonl", "gencore") for name in ("before", "after")]
    lines = compare.compare(*runs)
    assert lines[1].split() == ["1", "gibbs", "2.00", "ms", "1.00", "ms", "0.50x", "2.50x", "5.00x"]
    assert lines[2:] == ["only in the first: cd1 (1)", "only in the second: ais (2)"]


def test_our_chain_keeps_its_densities() -> None:
    """The chain that is timed stays in the state whose densities the record states."""
    p = works.WORKS["gibbs"].problem(False)
    candidate = ours.rbm_chains.gibbs(p, 1)
    for _ in range(5):
        state = candidate.call()
    assert np.mean(state) == pytest.approx(p.rbm.density[0], abs=0.01)  # type: ignore[arg-type]
