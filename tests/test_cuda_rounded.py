"""Gibbs chains whose weights are rounded for tensor cores, `precision="tf32"` and `"bf16"`.

The truth is the machine whose weights were rounded beforehand: its chains on the CPU, its probabilities in float64, its
distribution by enumeration. On the emulated device of cuda_emulation/, and what is marked `gpu` on a real one.
"""

import numpy as np
import pytest
import test_cuda
from cases import CASES
from device_array import DeviceArray as CupyArray
from reference import philox
from reference.rounding import U
from scipy.special import expit
from test_cuda_products import BITS, rounded
from test_cuda_rbm import DATA, cupy, fused, machine, stationary_chi

import gencore as gc
from gencore.kernels import rbm as kernels

__all__ = ["cupy"]
device = test_cuda.device
every_precision = pytest.mark.parametrize("precision", BITS)
every_way = pytest.mark.parametrize("clusters", [False, True], ids=["blocks", "clusters"])
PRECISIONS = ("float32", "tf32", "bf16")
CASE = CASES["rbm.gibbs_chain"]
DEVICE_CASE = test_cuda.on_device(CASE)


def rounded_weights(w, precision):
    return rounded(w, BITS[precision], ties_to_even=precision == "bf16").astype(np.float32)


def arguments_of(i, precision):
    """Row i of the grid, on a device and with rounded weights; and as the CPU takes it, weights rounded beforehand."""
    given = CASE.good_inputs(CASE.sizes[i])
    return {**given, "precision": PRECISIONS.index(precision)}, {
        **given,
        "w": rounded_weights(given["w"], precision),
    }


@pytest.fixture
def way(clusters, monkeypatch):
    """Chains in blocks, or wherever the weights fit in clusters."""
    monkeypatch.setenv("GENCORE_CUDA_CLUSTERS", str(int(clusters)))


def run(case, arguments, size):
    out = np.full((size["n"], size["n_visible"]), 77, size.get("dtype", "uint8"))
    case.function(**arguments, v_out=out)
    return out


# --- the chain of the machine with rounded weights ----------------------------------------------------------------


@fused
@every_way
@every_precision
@pytest.mark.parametrize("i", range(0, len(CASE.sizes), test_cuda.EVERY))
def test_chains_of_rounded_weights(i, precision, way, emulation):
    """All sizes, temperatures, masks, dtypes and coordinates of the grid. With these keys, no tie: the CPU's bits."""
    ours, truth = arguments_of(i, precision)
    size = CASE.sizes[i]
    found = run(DEVICE_CASE, ours, size)
    assert found.tobytes() == run(CASE, truth, size).tobytes()


def margins(states, w, bias, key, domain, step, rows):
    """Draws by probabilities in float64, |u - p|, and how far a kernel's p may stray: each of its sums by a unit in the
    last place, as tensor cores cut off what does not fit, in any order."""
    field = states.astype(np.float64) @ w + bias
    strays = 2 * (len(w) + 3) * U * (states.astype(np.float64) @ np.abs(w) + np.abs(bias)) / 4 + 6 * U
    u = philox.uniforms_of_32_bits(key, domain, step, rows, len(bias))
    return (u < expit(field)).astype(np.uint8), np.abs(u - expit(field)), strays


def check_steps(put, get, parameters, v, steps, precision, key):
    """Each step from one state on both sides: all bits follow from float64 but ties, which are as rare as expected."""
    w = rounded_weights(parameters[0], precision).astype(np.float64)
    b, c = (x.astype(np.float64) for x in parameters[1:])
    on_device, rows, ties, expected = [put(p) for p in parameters], np.arange(len(v)), 0, 0.0
    for step in range(steps):
        options = {"steps": 1, "key": key, "first_step": step, "precision": precision}
        found = get(kernels.gibbs_chain(*on_device, put(v), **options))
        h, distance, hidden_strays = margins(v, w, c, key, philox.HIDDEN, step, rows)
        hidden_tie = distance <= hidden_strays
        drawn, distance, visible_strays = margins(h, w.T, b, key, philox.VISIBLE, step, rows)
        sure = distance > visible_strays
        sure[hidden_tie.any(axis=1)] = False  # one hidden unit may change any visible one
        assert np.array_equal(found[sure], drawn[sure])
        ties += int(hidden_tie.sum() + (distance <= visible_strays).sum())
        expected += 2 * (hidden_strays.sum() + visible_strays.sum())
        v = found
    assert ties <= expected + 6 * np.sqrt(expected) + 1
    return ties


@every_way
@every_precision
@pytest.mark.parametrize("chains", [1, 50])
def test_draws_follow_float64_probabilities(chains, precision, way, emulation, record_property):
    rng = np.random.default_rng(chains)
    v = (rng.random((chains, 150)) < 0.5).astype(np.uint8)
    ties = check_steps(CupyArray, lambda a: a.get(), machine(rng, 150, 135), v, 2, precision, 11)
    record_property("ties", ties)


def test_precisions_differ(emulation):
    """Rounding shows: by 2^-12 or 2^-9 of a weight, in some of 80,000 draws."""
    rng = np.random.default_rng(1)
    parameters = machine(rng, 100, 100, 1.0)
    v = (rng.random((400, 100)) < 0.5).astype(np.uint8)
    drawn = {
        p: kernels.gibbs_chain(*map(CupyArray, (*parameters, v)), steps=1, key=1, precision=p).get()
        for p in PRECISIONS
    }
    changed = {p: np.mean(drawn[p] != drawn["float32"]) for p in BITS}
    assert 0 < changed["tf32"] < changed["bf16"] < 0.1


# --- how chains share the device ----------------------------------------------------------------------------------


@every_precision
@pytest.mark.parametrize("shared", [None, 100])
@pytest.mark.parametrize("multiprocessors", [1, 2, 40])
def test_ways_give_the_same_bits(multiprocessors, shared, precision, emulation, monkeypatch):
    """16, 32 and 64 chains to a block, states on chip and in device memory, threads in either order."""
    i = next(i for i, s in enumerate(CASE.sizes) if s["n"] == 33)
    arguments, _ = arguments_of(i, precision)
    usual = run(DEVICE_CASE, arguments, CASE.sizes[i])
    test_cuda.emulate(monkeypatch, multiprocessors, shared, "descending")
    assert np.array_equal(run(DEVICE_CASE, arguments, CASE.sizes[i]), usual)


CLUSTER_SIZES = [
    (1, 260, 200), (17, 260, 200), (40, 130, 290), (16, 600, 9), (33, 8, 129), (150, 130, 65),
]  # fmt: skip


@every_precision
@pytest.mark.parametrize("order", ["ascending", "descending"])
@pytest.mark.parametrize(("n", "n_visible", "n_hidden"), CLUSTER_SIZES)
def test_clusters_give_the_same_bits(n, n_visible, n_hidden, order, precision, emulation, monkeypatch):
    """Several and no pieces to a block, 1 to 4 sets of chains, clusters that follow each other; chains and units that
    there are not; temperatures and units that are held."""
    rng = np.random.default_rng(n)
    parameters = [CupyArray(p) for p in machine(rng, n_visible, n_hidden, 0.3)]
    v = CupyArray((rng.random((n, n_visible)) < 0.5).astype(np.uint8))
    held = {
        "beta": CupyArray(np.linspace(0.5, 1, n, dtype=np.float32)),
        "clamp": CupyArray(rng.random((n, n_visible)) < 0.2),
    }

    def drawn(clusters, multiprocessors, **given):
        monkeypatch.setenv("GENCORE_CUDA_CLUSTERS", clusters)
        test_cuda.emulate(monkeypatch, multiprocessors, order=order)
        found = kernels.gibbs_chain(*parameters, v, steps=3, key=7, first_row=5, precision=precision, **given)
        assert emulation.emulation_launch_cluster() == (8 if clusters == "1" else 1)
        return found.get()

    for given in ({}, held):
        of_blocks = drawn("0", 4, **given)
        for multiprocessors in (4, 16):
            assert np.array_equal(drawn("1", multiprocessors, **given), of_blocks)


@every_precision
@pytest.mark.parametrize("static", [False, True])
def test_fewer_chains_to_a_cluster_where_the_chip_has_room_for_fewer(
    static, precision, emulation, monkeypatch
):
    """96, 64 and 32 of 70 chains; and no clusters where the weights leave no room beside what the kernel has itself."""
    rng = np.random.default_rng(6)
    parameters = [CupyArray(p) for p in machine(rng, 200, 150)]
    v = CupyArray((rng.random((70, 200)) < 0.5).astype(np.uint8))
    monkeypatch.setenv("GENCORE_CUDA_CLUSTERS", "1")
    weights = (
        4 * (7 + 5) * 512 * (2 if precision == "tf32" else 1)
    )  # 4 fragments of 7 and of 5 words of units
    a_set = 32 * (7 + 5) * 4
    usual, launches = None, []
    own = test_cuda.STATIC_SHARED if static else 0
    if static:
        test_cuda.emulate_on_device_1(monkeypatch)
    for shared in (227 << 10, weights + 2 * a_set, weights + a_set, weights + a_set - 16):
        test_cuda.emulate(monkeypatch, 8, shared + own)
        found = kernels.gibbs_chain(*parameters, v, steps=2, key=1, precision=precision).get()
        usual = found if usual is None else usual
        assert np.array_equal(found, usual)
        launches.append((emulation.emulation_launch_cluster(), emulation.emulation_launch_clusters()))
    assert launches == [(8, 1), (8, 2), (8, 3), (1, 5)]


@pytest.mark.parametrize(
    ("at_once", "launches"), [(None, (8, 2)), (4, (8, 3)), (2, (8, 2)), (1, (8, 1)), (0, (1, 3))]
)
def test_clusters_are_as_many_as_run_at_once(at_once, launches, emulation, monkeypatch):
    """40 chains: 16 to a cluster where four run, 32 where two do, 64 where one does; in blocks where none does."""
    parameters = [CupyArray(p) for p in machine(np.random.default_rng(6), 200, 150)]
    v = CupyArray((np.random.default_rng(7).random((40, 200)) < 0.5).astype(np.uint8))
    test_cuda.emulate(monkeypatch, 16)
    monkeypatch.setenv("GENCORE_CUDA_CLUSTERS", "0")
    of_blocks = kernels.gibbs_chain(*parameters, v, steps=2, key=1, precision="bf16").get()
    monkeypatch.setenv("GENCORE_CUDA_CLUSTERS", "1")
    if at_once is not None:
        monkeypatch.setenv("GENCORE_EMULATION_CLUSTERS", str(at_once))
    found = kernels.gibbs_chain(*parameters, v, steps=2, key=1, precision="bf16").get()
    assert np.array_equal(found, of_blocks)
    assert (emulation.emulation_launch_cluster(), emulation.emulation_launch_clusters()) == launches


@pytest.mark.parametrize(("at_once", "cluster"), [(4, 8), (3, 8), (1, 1), (0, 1)])
def test_few_clusters_at_once_are_slower_than_blocks(at_once, cluster, emulation, monkeypatch):
    """512 chains of 784x500 on a quarter of an H100: four or six rounds of 128 chains, or one of blocks of 16."""
    test_cuda.emulate(monkeypatch, 32)
    monkeypatch.setenv("GENCORE_EMULATION_CLUSTERS", str(at_once))
    parameters = [CupyArray(p) for p in machine(np.random.default_rng(0), 784, 500)]
    v = CupyArray(np.ones((512, 784), np.uint8))
    out = kernels.gibbs_chain(*parameters, v, steps=0, key=1, precision="bf16")
    assert np.array_equal(out.get(), v.get())
    assert emulation.emulation_launch_cluster() == cluster


@pytest.mark.parametrize(
    ("chains", "precision", "cluster"),
    [(1, "bf16", 8), (128, "bf16", 8), (256, "bf16", 8), (64 * 13, "bf16", 1), (1, "tf32", 1)],
)
def test_choice_of_the_way(chains, precision, cluster, emulation, monkeypatch):
    """For 784x500 on a tenth of an H100, as the comments of the kernels say; TF32 does not fit."""
    test_cuda.emulate(monkeypatch, 13)
    parameters = [CupyArray(p) for p in machine(np.random.default_rng(0), 784, 500)]
    v = CupyArray(np.ones((chains, 784), np.uint8))
    out = kernels.gibbs_chain(*parameters, v, steps=0, key=1, precision=precision)
    assert np.array_equal(out.get(), v.get())
    assert emulation.emulation_launch_cluster() == cluster


def test_small_machines_stay_in_blocks(emulation, monkeypatch):
    test_cuda.emulate(monkeypatch, 132)
    parameters = [CupyArray(p) for p in machine(np.random.default_rng(0), 40, 30)]
    kernels.gibbs_chain(
        *parameters, CupyArray(np.ones((100, 40), np.uint8)), steps=1, key=1, precision="bf16"
    )
    assert emulation.emulation_launch_cluster() == 1


def test_what_asks_for_clusters_is_read(emulation, monkeypatch):
    parameters = [CupyArray(p) for p in machine(np.random.default_rng(0), 4, 3)]
    monkeypatch.setenv("GENCORE_CUDA_CLUSTERS", "yes")
    with pytest.raises(ValueError, match="GENCORE_CUDA_CLUSTERS to be 0 or 1, received 'yes'"):
        kernels.gibbs_chain(
            *parameters, CupyArray(np.ones((2, 4), np.uint8)), steps=1, key=1, precision="bf16"
        )


@every_precision
def test_chains_can_be_cut(precision, emulation):
    """By rows and by steps, into the array that they start from."""
    rng = np.random.default_rng(4)
    parameters = [CupyArray(p) for p in machine(rng, 40, 21)]
    v = (rng.random((37, 40)) < 0.5).astype(np.uint8)

    def chain(v, **given):
        return kernels.gibbs_chain(*parameters, v, key=3, precision=precision, **given)

    whole = chain(CupyArray(v), steps=4).get()
    for rows in (slice(0, 5), slice(5, 37)):
        part = CupyArray(v[rows].copy())
        assert chain(part, steps=1, first_row=rows.start, out=part) is part
        last = chain(part, steps=3, first_step=1, first_row=rows.start)
        assert np.array_equal(last.get(), whole[rows])


def test_weights_that_are_not_finite(emulation):
    """As the docstring says: the draws of their units are 0, and no others change."""
    w, b, c = machine(np.random.default_rng(5), 20, 33)
    b[:], c[:] = 3, 3
    v = np.zeros((18, 20), np.uint8)
    usual = kernels.gibbs_chain(*map(CupyArray, (w, b, c, v)), steps=0, key=1, precision="bf16").get()
    assert np.array_equal(usual, v)
    for value in (np.nan, np.inf, 3.4e38):
        w[7] = value
        drawn = kernels.gibbs_chain(*map(CupyArray, (w, b, c, v)), steps=1, key=1, precision="bf16").get()
        assert not drawn[:, 7].any()


# --- statistics ---------------------------------------------------------------------------------------------------


def rounded_chi(put, get, n, steps, precision):
    return stationary_chi(put, get, n, steps, lambda w: rounded_weights(w, precision), precision=precision)


@every_way
@every_precision
def test_chains_are_stationary(precision, way, emulation):
    assert rounded_chi(CupyArray, lambda a: a.get(), 3000, 4, precision) < 63 + 5 * np.sqrt(2 * 63)


# --- the model ----------------------------------------------------------------------------------------------------


@fused
@every_precision
def test_model_samples(precision, cupy):
    """`RBM.sample` and `RBM.gibbs` pass it on: the samples of the CPU's model with rounded weights."""
    other = gc.models.RBM(24, 10, seed=4, device="cuda")
    other.weight = np.random.default_rng(3).normal(0, 0.4, (24, 10))
    cpu = gc.models.RBM(24, 10, seed=4)
    cpu.weight = rounded_weights(other.weight.get(), precision)
    drawn = other.sample(30, steps=5, key=2, precision=precision)
    assert np.array_equal(drawn.get(), cpu.sample(30, steps=5, key=2))
    given = {"beta": np.linspace(0.5, 1, 150), "clamp": np.arange(24) < 12, "key": 5}
    assert np.array_equal(
        other.gibbs(DATA, 3, **given, precision=precision).get(), cpu.gibbs(DATA, 3, **given)
    )
    with pytest.raises(ValueError, match=f"precision to be float32 on the CPU, received {precision}"):
        cpu.sample(30, steps=5, precision=precision)


# --- a real device ------------------------------------------------------------------------------------------------


@pytest.mark.gpu
@every_way
@every_precision
@pytest.mark.parametrize("chains", [64, 500, 4096, 9000])
def test_device_draws_follow_float64_probabilities(chains, precision, way, device, record_property):
    _, put, get = device
    rng = np.random.default_rng(chains)
    v = (rng.random((chains, 784)) < 0.2).astype(np.uint8)
    ties = check_steps(put, get, machine(rng, 784, 500, 0.05), v, 3, precision, 12)
    record_property("ties", ties)
    print(f"{precision}, {chains} chains of 784x500, 3 steps: {ties} ties")


@pytest.mark.gpu
@every_way
@every_precision
def test_device_chains_are_stationary(precision, way, device):
    _, put, get = device
    assert rounded_chi(put, get, 400_000, 50, precision) < 63 + 6 * np.sqrt(2 * 63)


@pytest.mark.gpu
@every_way
@every_precision
@pytest.mark.parametrize("i", range(0, len(CASE.sizes), test_cuda.EVERY))
def test_device_chains_of_the_grid(i, precision, way, device):
    """Small machines: ties are rare, so that all but a few rows are the CPU's."""
    _, put, get = device
    ours, truth = arguments_of(i, precision)
    size = CASE.sizes[i]
    out = put(np.zeros((size["n"], size["n_visible"]), size.get("dtype", "uint8")))
    CASE.function(**{name: put(x) if isinstance(x, np.ndarray) else x for name, x in ours.items()}, v_out=out)
    differ = (get(out) != run(CASE, truth, size)).any(axis=1).sum() if size["n"] else 0
    assert differ <= size["n"] // 100
