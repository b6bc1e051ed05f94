"""RBMs on a device: chains beside the CPU's, both ways of running them, statistics, and the model class.

On the emulated device of cuda_emulation/, and what is marked `gpu` on a real one.
"""

import sys
import types

import numpy as np
import pytest
import test_cuda
from cases import CASES
from device_array import DeviceArray
from reference import philox
from reference import rbm as reference
from scipy.special import expit

import gencore as gc
from gencore import _core
from gencore.kernels import rbm as kernels

device = test_cuda.device
fused = pytest.mark.skipif(_core.isa() == "baseline", reason="this level has no fused multiply-add")


def machine(rng, n_visible, n_hidden, scale=0.3):
    w = rng.normal(0, scale, (n_visible, n_hidden)).astype(np.float32)
    return (
        w,
        rng.normal(0, 0.5, n_visible).astype(np.float32),
        rng.normal(0, 0.5, n_hidden).astype(np.float32),
    )


# --- chains -------------------------------------------------------------------------------------------------------


def near_ties(states, w, bias, key, domain, step, row):
    """Units of a side whose uniform is so near its probability that the rounding of the field may decide."""
    p = expit(states.astype(np.float64) @ w + bias)
    u = philox.uniforms_of_32_bits(key, domain, step, np.array([row]), len(bias))[0]
    return np.abs(u - p) < 1e-5


def ties_of_chain(put, get, parameters, v, steps, key):
    """Run each step on both sides from the CPU's states: in how many rows they differ, each time by a near tie."""
    w, b, c = (p.astype(np.float64) for p in parameters)
    on_device = [put(p) for p in parameters]
    ties = 0
    for step in range(steps):
        cpu = kernels.gibbs_chain(*parameters, v, steps=1, key=key, first_step=step)
        other = get(kernels.gibbs_chain(*on_device, put(v), steps=1, key=key, first_step=step))
        for r in np.flatnonzero((cpu != other).any(axis=1)):
            h = kernels.hidden_sample(
                parameters[0], parameters[2], v[r : r + 1], key=key, step=step, first_row=int(r)
            )
            hidden = near_ties(v[r], w, c, key, philox.HIDDEN, step, r)  # one may change any visible unit
            visible = near_ties(h[0], w.T, b, key, philox.VISIBLE, step, r)
            assert hidden.any() or visible[cpu[r] != other[r]].all(), f"step {step}, row {r}"
            ties += 1
        v = cpu
    return ties


@fused
@pytest.mark.parametrize("chains", [3, 20, 70])
def test_chains_meet_no_tie(chains, emulation, record_property):
    """The same sums in the same order: every unit of every step is the CPU's."""
    rng = np.random.default_rng(chains)
    parameters = machine(rng, 90, 140)
    v = (rng.random((chains, 90)) < 0.5).astype(np.uint8)
    ties = ties_of_chain(DeviceArray, lambda a: a.get(), parameters, v, 6, 11)
    record_property("ties", ties)
    assert ties == 0


@fused
@pytest.mark.gpu
@pytest.mark.parametrize("chains", [64, 500, 4096])
def test_device_chains_meet_no_tie(chains, device, record_property):
    _, put, get = device
    rng = np.random.default_rng(chains)
    parameters = machine(rng, 784, 500, 0.05)
    v = (rng.random((chains, 784)) < 0.2).astype(np.uint8)
    ties = ties_of_chain(put, get, parameters, v, 20, 12)
    record_property("ties", ties)
    print(f"{chains} chains of 784x500, 20 steps: {ties} ties")
    assert ties == 0


# Chains that are alone, 8, 16 and 32 to a block: by few or many multiprocessors.
@pytest.mark.parametrize("multiprocessors", [1, 2, 3, 40])
@pytest.mark.parametrize("shared", [None, 600])
@pytest.mark.parametrize("name", ["rbm.gibbs_chain", "rbm.ais", "rbm.cd_gradient"])
def test_ways_give_the_same_bits(name, shared, multiprocessors, emulation, monkeypatch):
    """Whatever shares a block, and wherever its states lie: on chip, or where that is too small in device memory."""
    case = test_cuda.on_device(CASES[name])
    size = next(s for s in case.sizes if s["n"] == 33)
    usual = case.run_size(size)
    test_cuda.emulate(monkeypatch, multiprocessors, shared)
    test_cuda.test_cases.same_bits(case.run_size(size), usual, name)


# --- statistics ---------------------------------------------------------------------------------------------------


def stationary_chi(put, get, n, steps, seen=lambda w: w, **options):
    """Exact samples of a small machine, of the weights that chains see, after some steps: chi-squared of all states."""
    w, b, c = machine(np.random.default_rng(5), 6, 5, 0.7)
    states = ((np.arange(64)[:, None] >> np.arange(6)) & 1).astype(np.uint8)
    energy = -reference.free_energy(seen(w), b, c, states, 1.0)
    p = np.exp(energy - energy.max())
    p /= p.sum()
    start = states[np.random.default_rng(6).choice(64, n, p=p)]
    last = get(kernels.gibbs_chain(*map(put, (w, b, c)), put(start), steps=steps, key=3, **options))
    assert np.mean((last != start).any(axis=1)) > 0.5
    counts = np.bincount(last @ (1 << np.arange(6)), minlength=64)
    return ((counts - n * p) ** 2 / (n * p)).sum()


@pytest.mark.gpu
def test_device_chains_are_stationary(device):
    _, put, get = device
    assert stationary_chi(put, get, 400_000, 50) < 63 + 6 * np.sqrt(2 * 63)


@pytest.mark.gpu
def test_device_log_partition(device):
    """Enumeration agrees with the CPU's, and AIS with enumeration within its own error."""
    _, put, get = device
    w, b, c = machine(np.random.default_rng(7), 300, 16, 0.1)
    on_device = [put(p) for p in (w, b, c)]
    exact = kernels.log_partition_exact(w, b, c)
    assert float(kernels.log_partition_exact(*on_device)) == pytest.approx(exact, rel=1e-6)
    base = np.zeros(300, np.float32)
    betas = np.linspace(0, 1, 2001)
    log_weights = get(kernels.ais(*on_device, betas=put(betas), base_bias=put(base), key=1, n_runs=2000)[0])
    weights = np.exp(log_weights - log_weights.max())
    estimate = 316 * np.log(2) + log_weights.max() + np.log(weights.mean())
    assert abs(estimate - exact) < 6 * weights.std() / weights.mean() / np.sqrt(2000) + 1e-3


@pytest.mark.gpu
def test_device_ops_can_be_captured(device):
    """A stream that is being captured into a graph refuses every call that would wait for it."""
    package, put, get = device
    if package.__name__ != "torch":
        pytest.skip("captured through PyTorch")
    w, b, c = map(put, machine(np.random.default_rng(8), 784, 500, 0.05))
    v = put((np.random.default_rng(9).random((128, 784)) < 0.2).astype(np.uint8))
    betas, base = put(np.linspace(0, 1, 50)), put(np.zeros(784, np.float32))

    def calls():
        last = kernels.gibbs_chain(w, b, c, v, steps=3, key=1)
        return (
            *kernels.cd_gradient(w, b, c, v, key=1), kernels.free_energy(w, b, c, last),
            *kernels.ais(w, b, c, betas=betas, base_bias=base, key=1, n_runs=10),
        )  # fmt: skip

    expected = [get(x) for x in calls()]
    graph = package.cuda.CUDAGraph()
    with package.cuda.graph(graph):
        captured = calls()
    graph.replay()
    package.cuda.synchronize()
    for x, truth in zip(captured, expected, strict=True):
        assert get(x).tobytes() == truth.tobytes()


# --- the model ----------------------------------------------------------------------------------------------------


@pytest.fixture(params=["emulated", pytest.param("real", marks=pytest.mark.gpu)])
def cupy(request, monkeypatch):
    """CuPy on a real device, or a stand-in whose arrays are on the emulated one."""
    if request.param == "real":
        test_cuda.need_device()
        return pytest.importorskip("cupy")
    request.getfixturevalue("emulation")

    def asarray(array):
        return array if isinstance(array, DeviceArray) else DeviceArray(np.array(array))

    stream = types.SimpleNamespace(ptr=0)
    module = types.SimpleNamespace(
        asarray=asarray, ndarray=DeviceArray, cuda=types.SimpleNamespace(get_current_stream=lambda _: stream)
    )
    monkeypatch.setitem(sys.modules, "cupy", module)
    return module


DATA = (np.random.default_rng(0).random((150, 24)) < np.linspace(0.1, 0.9, 24)).astype(np.uint8)


@fused
def test_model_samples_the_same_on_a_device(cupy):
    cpu, other = gc.models.RBM(24, 10, seed=4), gc.models.RBM(24, 10, seed=4, device="cuda")
    assert isinstance(other.weight, cupy.ndarray)
    assert np.array_equal(other.weight.get(), cpu.weight)
    drawn = other.sample(30, steps=5, key=2)
    assert isinstance(drawn, cupy.ndarray)
    assert np.array_equal(drawn.get(), cpu.sample(30, steps=5, key=2))
    clamp = np.arange(24) < 12
    given = other.gibbs(DATA, 3, beta=np.linspace(0.5, 1, 150), clamp=clamp, key=5)
    assert np.array_equal(given.get(), cpu.gibbs(DATA, 3, beta=np.linspace(0.5, 1, 150), clamp=clamp, key=5))
    again = other.gibbs(cupy.asarray(DATA), 3, key=6)  # states that are there already
    assert np.array_equal(again.get(), cpu.gibbs(DATA, 3, key=6))


@pytest.mark.parametrize(("algorithm", "momentum"), [("pcd", 0.5), ("cd", 0.0)])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_model_learns_the_same_on_a_device(algorithm, momentum, dtype, cupy):
    """Gradients are sums in another order; chains part only at ties, of which so short a training has none."""
    data = DATA if dtype == np.uint8 else (DATA * np.float32(0.9) + np.float32(0.05))
    models = {}
    for place in ("cpu", "cuda"):
        models[place] = gc.models.RBM(24, 10, seed=1, device=place)
        history = models[place].fit(
            data, epochs=2, batch_size=64, lr=0.1, algorithm=algorithm, momentum=momentum, progress=False
        )
        models[place].error = history.records[-1]["reconstruction_error"]
    for ours, cpu in zip(models["cuda"].parameters, models["cpu"].parameters, strict=True):
        assert isinstance(ours, cupy.ndarray)
        assert np.allclose(ours.get(), cpu, rtol=1e-4, atol=1e-6)
    assert models["cuda"].error == pytest.approx(models["cpu"].error, rel=1e-4)


def test_model_goes_on_from_a_checkpoint_on_a_device(cupy, tmp_path):
    whole = gc.models.RBM(24, 10, seed=1, device="cuda")
    options = {"epochs": 2, "batch_size": 64, "momentum": 0.5, "progress": False}
    whole.fit(DATA, **options)
    first = gc.models.RBM(24, 10, seed=1, device="cuda")
    first.fit(DATA, **options, checkpoint=tmp_path / "m", callbacks=[lambda model, record: True])
    rest = gc.models.RBM(24, 10, seed=1, device="cuda")
    rest.fit(DATA, **options, checkpoint=tmp_path / "m", resume=True)
    assert all(
        a.get().tobytes() == b.get().tobytes() for a, b in zip(whole.parameters, rest.parameters, strict=True)
    )
    on_cpu = gc.models.RBM.load(tmp_path / "m")
    assert isinstance(on_cpu.chains, np.ndarray)
    assert np.array_equal(on_cpu.weight, rest.weight.get())
    assert isinstance(gc.models.RBM.load(tmp_path / "m", device="cuda").chains, cupy.ndarray)


def test_model_moves(cupy):
    model = gc.models.RBM(24, 10, seed=1)
    model.fit(DATA, epochs=1, progress=False)
    likelihood, chains = model.log_likelihood(DATA), model.chains.copy()
    assert model.to("cuda") is model
    assert model.device == "cuda"
    assert "device='cuda'" in repr(model)
    on_device = model.log_likelihood(DATA)
    assert isinstance(on_device, cupy.ndarray)
    assert np.allclose(on_device.get(), likelihood, rtol=1e-5)
    moved = model.advance_chains(2)
    assert isinstance(moved, cupy.ndarray)
    model.to("cpu")
    assert isinstance(model.chains, np.ndarray)
    assert not np.array_equal(model.chains, chains)
    model.fit(DATA, epochs=1, progress=False)  # the training's state came along


def test_model_estimates_its_partition_function_on_a_device(cupy):
    model = gc.models.RBM(24, 10, seed=1, device="cuda")
    model.weight = np.random.default_rng(3).normal(0, 0.4, (24, 10))
    exact = model.log_partition("exact").value
    assert isinstance(exact, float)
    estimate = model.log_partition("ais", betas=60, n_runs=40, key=1)
    assert estimate.lower - 0.5 < exact < estimate.upper + 0.5


def test_wrong_devices(monkeypatch):
    with pytest.raises(ValueError, match="RBM: expected device to be 'cpu' or 'cuda', received 'tpu'"):
        gc.models.RBM(3, 2, device="tpu")
    monkeypatch.setitem(sys.modules, "cupy", None)
    for call in (lambda: gc.models.RBM(3, 2, device="cuda"), lambda: gc.models.RBM(3, 2).to("cuda")):
        with pytest.raises(ImportError, match=r"device 'cuda' needs CuPy: pip install 'gencore\[cuda\]'"):
            call()
