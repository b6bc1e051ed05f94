"""The CUDA column: its kernels on an emulated device and, marked `gpu`, a real one.

The emulation (cuda_emulation/) compiles csrc/cuda as C++ and registers it as the CUDA kernels; its arrays are host
memory that is offered as a device's. So every row of the grid that has a CUDA kernel takes the whole way that a CuPy
array takes. Where that way may end otherwise: test_cuda_boundary.py.
"""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
import subprocess
import sys

import cuda_emulation
import numpy as np
import pytest
import test_cases
from cases import CASES
from cases.case import Case, assert_agrees, expected_of
from cuda_emulation import DeviceArray
from device_array import DeviceArray as CupyArray

import gencore as gc
from gencore import _core, _cuda_support
from gencore.kernels import autoregressive, conv, dense, rbm, sample


def matrix(rows=2, columns=3):
    return np.zeros((rows, columns), np.float32)


# --- the grid on an emulated device ---------------------------------------------------------------------------


def wrapped(value):
    if isinstance(value, list | tuple):
        return type(value)(map(wrapped, value))
    return DeviceArray(value) if isinstance(value, np.ndarray) else value


def wrapped_call(case, arguments):
    """Every array on the device but those that stay on the host."""
    return {name: v if name in case.host else wrapped(v) for name, v in arguments.items()}


def unwrapped(value):
    return value.host if isinstance(value, DeviceArray) else value


def emulate(monkeypatch, multiprocessors, shared=None, order="ascending"):
    """A device of so many multiprocessors (else: 4), of so many bytes of shared memory; the order of its threads."""
    monkeypatch.setenv("GENCORE_EMULATION_MULTIPROCESSORS", str(multiprocessors))
    monkeypatch.setenv("GENCORE_EMULATION_ORDER", order)
    if shared is not None:
        monkeypatch.setenv("GENCORE_EMULATION_SHARED", str(shared))


STATIC_SHARED = 20_000  # bytes that each kernel has on the second emulated device


def emulate_on_device_1(monkeypatch):
    """All arrays lie there."""
    monkeypatch.setenv("GENCORE_EMULATION_DEVICE_1", f"0:{2**64 - 1}")


class OnDevice(Case):
    """A row of the grid whose arrays are on the emulated device."""

    @property
    def function(self):
        compiled = super().function
        return lambda **arguments: compiled(**wrapped_call(self, arguments))


def on_device(case):
    return OnDevice(**{field.name: getattr(case, field.name) for field in dataclasses.fields(case)})


DEVICE_CASES = {name: on_device(case) for name, case in CASES.items()}
EVERY = int(
    os.environ.get("GENCORE_EVERY_SIZE", "1")
)  # 4: each fourth size, where a sanitizer makes all slow
ROWS = [
    pytest.param(c, i, id=f"{name}-{i}")
    for name, c in DEVICE_CASES.items()
    for i in range(0, len(c.sizes), EVERY)
]
# Fibers are slow: what does not change with the numbers is asked of a part of the sizes.
HALF, THIRD = ROWS[::2], ROWS[::3]
every_row = pytest.mark.parametrize(("case", "i"), ROWS)
every_case = pytest.mark.parametrize("case", DEVICE_CASES.values(), ids=DEVICE_CASES)


@every_row
def test_forward(case, i, emulation):
    """Within the bounds of the reference; uniforms and draws, whose bound is 0, are hence the CPU's bits."""
    assert_agrees(case.run_size(case.sizes[i]), expected_of(case.name, i), f"{case.name} on a device")


@pytest.mark.parametrize(("case", "i"), [row for row in THIRD if row.values[0].public])
def test_public_function(case, i, emulation):
    """Results are arrays of the kind that came in, with the op's bits."""
    size = case.sizes[i]
    arguments = wrapped_call(case, case.good_inputs(size))
    results = case.public(arguments, size)
    if any(isinstance(value, DeviceArray) for value in arguments.values()):
        assert all(isinstance(value, DeviceArray) for value in results.values())
    results = {name: unwrapped(value) for name, value in results.items()}
    assert_agrees(results, expected_of(case.name, i), f"{case.name} through gencore.kernels")


@pytest.mark.parametrize(("case", "i"), HALF)
def test_order_of_threads_does_not_show(case, i, emulation, monkeypatch):
    """Where a barrier is missing, threads that run first in one order run last in the other."""
    ascending = case.run_size(case.sizes[i])
    monkeypatch.setenv("GENCORE_EMULATION_ORDER", "descending")
    test_cases.same_bits(ascending, case.run_size(case.sizes[i]), case.name)


@pytest.mark.parametrize(
    ("case", "i"), [r for r in THIRD if r.values[0].batch and r.values[0].sizes[r.values[1]]["n"] > 1]
)
def test_same_bits_for_any_split_of_the_batch(case, i, emulation):
    test_cases.test_same_bits_for_any_split_of_the_batch(case, i)


@pytest.mark.parametrize(("case", "i"), THIRD)
def test_inputs_are_never_written(case, i, emulation):
    test_cases.test_inputs_are_never_written(case, i)


@pytest.mark.parametrize(("case", "i"), [row for row in THIRD if row.values[0].optional])
def test_optional_outputs_do_not_change_the_others(case, i, emulation):
    test_cases.test_optional_outputs_do_not_change_the_others(case, i)


# Ops whose elements are noise and elementary functions: of sums, the order may differ from the CPU's.
OF_SUMS = re.compile(
    "gumbel_softmax|gaussian|log_prob$|log_sum_exp|cross_entropy|free_energy|cd_gradient|log_partition|ais|pseudo"
    "|square_sum|nade_log_prob|mixture|conv2d_input|conv2d_weight|recurrent.lstm$|lstm_vjp|stack_vjp|stack_log"
)
SAME_BITS = [row for row in ROWS if not OF_SUMS.search(row.values[0].name)]


@pytest.mark.parametrize(("case", "i"), SAME_BITS)
@pytest.mark.skipif(_core.isa() == "baseline", reason="this level has no fused multiply-add")
def test_same_bits_as_the_cpu(case, i, emulation):
    """The elementary functions are the CPU's polynomials, step by step."""
    size = case.sizes[i]
    test_cases.same_bits(case.run_size(size), CASES[case.name].run_size(size), case.name)


def in_child(script, *arguments):
    """Run a script of cuda_emulation/ on the emulated kernels of this process."""
    path = os.pathsep.join([os.path.dirname(__file__), *filter(None, sys.path)])
    return subprocess.run(
        [sys.executable, cuda_emulation.HERE / script, *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": path, "GENCORE_EMULATION_MODULE": str(cuda_emulation.build())},
    )


def test_no_op_touches_device_memory_from_the_host(emulation):
    """Where that would be a wait for the device, or a crash."""
    done = in_child("untouched.py")
    assert done.returncode == 0, done.stdout.splitlines()[-1:] + done.stderr.splitlines()[-40:]
    assert done.stdout.splitlines()[-1] == f"{len(DEVICE_CASES)} ops"


def test_touching_device_memory_from_the_host_is_noticed(emulation):
    assert in_child("untouched.py", "planted").returncode != 0


# --- wrong calls ----------------------------------------------------------------------------------------------


ABOUT_VALUES = {
    "0 and 1",
    "0 and 1 only",
    "values from 0 to 1",
    "finite",
    "rise or to fall",
    "from 0 to 1",
    "labels",
}


def only_values_differ(bad, right, wrong):
    """An array, or a list of them, that only a look at elements tells from a good one."""
    if isinstance(wrong, list):
        return not ABOUT_VALUES.isdisjoint(bad.words)
    if not isinstance(wrong, np.ndarray):
        return "levels from 0 to" in bad.words  # of x, which another number of levels makes wrong
    same = isinstance(right, np.ndarray) and right.shape == wrong.shape and right.dtype == wrong.dtype
    return same or not ABOUT_VALUES.isdisjoint(bad.words)


@every_case
def test_wrong_calls(case, emulation):
    """What the CPU refuses, but for values of elements, which a device would have to be waited for to know."""
    call = test_cases.good_call(case)
    case.function(**call)
    for bad in test_cases.all_bad(case):
        right, wrong = call.get(bad.argument), bad.apply(call)[bad.argument]
        if any(bad is own for own in case.bad) and only_values_differ(bad, right, wrong):
            continue
        if "ndarray" in bad.words:  # the name of what was received, which is another here
            continue
        try:
            test_cases.refuses(case, bad)
        except BaseException as error:
            error.add_note(f"{case.name} with {bad}")
            raise


def test_wrong_values_show_in_the_results(emulation):
    """As the docstrings say: nothing is checked, and nothing but the row concerned is touched."""
    p = np.float32([[0.5, np.nan, 1.5, -0.5, np.inf, -np.inf]])
    drawn = sample.bernoulli(DeviceArray(p), 1).host
    assert drawn[0, 1:].tolist() == [0, 1, 0, 1, 0]
    assert drawn[0, 0] == sample.bernoulli(np.full((1, 6), np.float32(0.5)), 1)[0, 0]
    bits = sample.bernoulli_bits(DeviceArray(p), 1).host
    assert np.array_equal(np.unpackbits(bits.view(np.uint8), bitorder="little", count=6), drawn[0])
    logits = np.zeros((4, 3), np.float32)
    logits[0, 1], logits[1, 2], logits[2] = np.nan, np.inf, -np.inf
    drawn = sample.categorical(DeviceArray(logits), 1).host
    assert drawn[:3].tolist() == [-1, -1, -1]
    assert drawn[3] == sample.categorical(np.zeros((4, 3), np.float32), 1)[3]


def test_wrong_values_of_machines_and_layers(emulation):
    """The same for RBMs and dense layers, as their modules' docstrings say."""
    w, b, c = matrix(4, 3), np.zeros(4, np.float32), np.float32([0, np.nan, 0])
    v = np.uint8([[0, 2, 255, 1], [0, 0, 0, 0]])
    ones = np.minimum(v, 1)
    w[:] = np.arange(12).reshape(4, 3)

    def on_device(function, *arrays, **options):
        return function(*map(DeviceArray, arrays), **options).host

    mean, drawn = on_device(rbm.hidden_mean, w, c, v), on_device(rbm.hidden_sample, w, c, v, key=1)
    assert np.isnan(mean[:, 1]).all()
    assert not drawn[:, 1].any()
    finite = np.zeros(3, np.float32)
    assert np.array_equal(mean[:, [0, 2]], rbm.hidden_mean(w, finite, ones)[:, [0, 2]])
    chain = on_device(rbm.gibbs_chain, w, b, finite, v, steps=1, key=1)
    assert np.array_equal(chain > 0, rbm.gibbs_chain(w, b, finite, ones, steps=1, key=1) > 0)
    product = on_device(dense.matmul, v, w)
    assert np.array_equal(product, dense.matmul(ones, w))
    losses = on_device(dense.softmax_cross_entropy, w, np.int64([0, 3, -1, 2]))
    assert np.isnan(losses).tolist() == [False, True, True, False]


def test_wrong_states_and_levels_show_in_their_rows(emulation):
    """What is not 0 counts as 1; a level that there is not makes NaN."""
    rng = np.random.default_rng(3)
    w, v = rng.normal(0, 1, (2, 4, 3)).astype(np.float32)
    c, b = np.zeros(3, np.float32), np.ones(4, np.float32)
    x = np.array([[1, 0, 1, 0], [0, 1, 1, 0]], np.uint8)
    expected = autoregressive.nade_log_prob(*map(DeviceArray, (x, w, c, v, b))).host
    assert np.array_equal(autoregressive.nade_log_prob(*map(DeviceArray, (7 * x, w, c, v, b))).host, expected)
    params = rng.normal(0, 1, (3, 2 * 3 * 5)).astype(np.float32)
    levels = np.array([[0, 3], [4, 1], [2, 2]], np.uint8)
    found = dense.logistic_mixture_log_prob(
        DeviceArray(params), DeviceArray(levels), levels=4, n_mixtures=5
    ).host
    assert np.isnan(found).tolist() == [False, True, False]


@pytest.mark.parametrize("categories", [3, 40, 700])
@pytest.mark.parametrize("hard", [False, True])
def test_nan_stays_in_its_row(categories, hard, emulation):
    logits = np.zeros((5, categories), np.float32)
    whole = sample.gumbel_softmax(DeviceArray(logits.copy()), 0.5, 1, hard).host
    logits[1, 0], logits[2, 1], logits[3] = np.nan, np.inf, -np.inf
    y = sample.gumbel_softmax(DeviceArray(logits), 0.5, 1, hard).host
    assert np.isnan(y[1:4]).any(axis=1).all()
    assert y[[0, 4]].tobytes() == whole[[0, 4]].tobytes()


def test_gradients_stay_on_the_device(emulation):
    """A layer and a loss, traced on a device: the gradients are the CPU's, and nothing leaves it."""
    rng = np.random.default_rng(0)
    x, w, b = (rng.normal(0, 1, s).astype(np.float32) for s in ((9, 13), (13, 5), (5,)))
    labels = rng.integers(0, 5, 9)

    def gradients(put):
        weight, bias = gc.tensor(put(w), requires_grad=True), gc.tensor(put(b), requires_grad=True)
        logits = dense.linear(gc.tensor(put(x)), weight, bias, activation="tanh")
        dense.softmax_cross_entropy(logits, put(labels)).sum().backward()
        return weight.grad, bias.grad

    for ours, cpu in zip(gradients(CupyArray), gradients(lambda a: a), strict=True):
        assert ours.device == "cuda"
        assert np.allclose(ours.numpy(), cpu.numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "make", [lambda p: gc.optim.Adam(p, lr=0.1), lambda p: gc.optim.SGD(p, lr=0.1, momentum=0.9)]
)
def test_optimizers_on_a_device(make, emulation, monkeypatch):
    """Steps, clipping, averages and saved states, beside the CPU's."""
    rng = np.random.default_rng(1)
    start, grads = rng.normal(0, 1, (5, 3)).astype(np.float32), rng.normal(0, 3, (4, 5, 3)).astype(np.float32)

    def train(put):
        p = gc.tensor(put(start.copy()), requires_grad=True)
        optimizer, average = make([p]), gc.optim.EMA([p], 0.9)
        norms = []
        for i, g in enumerate(grads):
            p.grad = gc.tensor(put(g.copy()))
            norms.append(gc.optim.clip_grad_norm(p, 1.0))
            optimizer.step()
            average.update()
            if i == 1:  # as from a file
                state, optimizer = optimizer.state_dict(), make([p])
                optimizer.load_state_dict(state)
        return p, norms, average.state_dict()["averages"]

    ours, cpu = train(CupyArray), train(lambda a: a)
    assert ours[0].device == "cuda"
    assert np.allclose(ours[0].numpy(), cpu[0].numpy(), rtol=1e-6)
    assert np.allclose(ours[1], cpu[1])
    assert np.allclose(ours[2], cpu[2], rtol=1e-6)


def test_gradients_of_other_families_stay_on_the_device(emulation):
    """NADE, a masked convolution, a masked layer: the gradients are the CPU's, and nothing leaves the device."""
    rng = np.random.default_rng(0)
    w, c, v, b, image, taps, dims, weights = (
        rng.normal(0, 1, s).astype(np.float32)
        for s in ((6, 5), (5,), (6, 5), (6,), (2, 5, 4, 3), (3, 3, 3, 9), (7, 6), (6, 8))
    )
    x, degree = (rng.random((7, 6)) < 0.5).astype(np.uint8), np.arange(8)

    def gradients(put):
        found = [gc.tensor(put(a), requires_grad=True) for a in (w, c, v, b, image, taps, dims, weights)]
        autoregressive.nade_log_prob(put(x), *found[:4]).sum().backward()
        conv.masked_conv2d(*found[4:6], mask="B", channel_groups=3, activation="tanh").sum().backward()
        degrees = {"in_degree": put(degree[:6]), "out_degree": put(degree), "strict": True}
        autoregressive.masked_linear(*found[6:], **degrees, activation="tanh").sum().backward()
        return [a.grad for a in found]

    for ours, cpu in zip(gradients(CupyArray), gradients(lambda a: a), strict=True):
        assert ours.device == "cuda"
        assert np.allclose(ours.numpy(), cpu.numpy(), rtol=1e-5, atol=1e-5)


# --- the emulation itself -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def misuse(tmp_path_factory):
    """A program of kernels that are wrong on purpose."""
    compiler = shutil.which(os.environ.get("CXX", "g++"))
    if compiler is None:
        pytest.skip("no C++ compiler")
    program = tmp_path_factory.mktemp("misuse") / "misuse"
    source = cuda_emulation.HERE / "misuse.cu"
    subprocess.run(
        [compiler, "-std=c++20", f"-I{cuda_emulation.HERE}", "-x", "c++", source, "-o", program], check=True
    )

    def run(kind, order="ascending"):
        environment = {**os.environ, "GENCORE_EMULATION_ORDER": order}
        done = subprocess.run([program, kind], capture_output=True, text=True, env=environment)
        return done.returncode, done.stderr if done.returncode < 0 else done.stdout

    return run


def test_emulation_runs_a_right_kernel(misuse):
    for order in ("ascending", "descending"):
        assert misuse("sums", order) == (0, "right\n")
        assert misuse("dynamic_sums", order) == (0, "right\n")
        assert misuse("cluster_sums", order) == (0, "right\n")


@pytest.mark.parametrize("kind", ["without_barrier", "without_cluster_barrier"])
def test_emulation_shows_a_missing_barrier(kind, misuse):
    assert "wrong\n" in [misuse(kind, order)[1] for order in ("ascending", "descending")]


@pytest.mark.parametrize("kind", ["barrier_of_some", "shuffle_of_some", "cluster_barrier_of_some"])
def test_emulation_stops_at_a_barrier_that_not_all_reach(kind, misuse):
    status, text = misuse(kind)
    assert status < 0
    assert "cuda emulation: threads" in text


def test_emulation_stops_at_what_is_written_beyond_shared_memory(misuse):
    status, text = misuse("beyond_shared")
    assert status < 0
    assert "beyond its dynamic shared memory" in text


@pytest.mark.parametrize("kind", ["before_others_begin", "after_others_ended"])
def test_emulation_stops_where_a_block_of_the_cluster_is_not_running(kind, misuse):
    status, text = misuse(kind)
    assert status < 0
    assert "shared memory of a block that is not running" in text


@pytest.mark.parametrize(
    "kind", ["too_many_threads", "too_much_shared", "too_large_a_cluster", "half_a_cluster"]
)
def test_emulation_refuses_a_launch_that_no_device_takes(kind, misuse):
    assert misuse(kind) == (2, "invalid configuration argument\n")


# --- a real device --------------------------------------------------------------------------------------------


def need_device():
    """A real one, whose kernels serve from now on."""
    text = _cuda_support.describe()
    if not text.startswith("toolkit"):
        pytest.skip(f"CUDA kernels: {text}")
    from gencore import _cuda

    if _cuda.device_count() == 0:
        pytest.skip(f"CUDA: {text}")
    _cuda_support.load()


@pytest.fixture(params=["cupy", "torch"])
def device(request):
    """Arrays on a real device, by the package that makes them: (to the device, back, current stream)."""
    need_device()
    package = pytest.importorskip(request.param)
    if request.param == "cupy":
        return package, package.asarray, package.asnumpy
    return package, lambda a: package.from_numpy(np.array(a)).cuda(), lambda t: t.cpu().numpy()


def run_on(device, case, size):
    _, put, get = device

    def placed(value):
        if isinstance(value, list | tuple):
            return type(value)(map(placed, value))
        return put(value) if isinstance(value, np.ndarray) else value

    arguments = {name: v if name in case.host else placed(v) for name, v in case.good_inputs(size).items()}
    results = {name: put(np.full(shape, 77, dtype)) for name, (shape, dtype) in case.outputs(size).items()}
    CASES[case.name].function(**arguments, **results)
    for name in case.in_place:
        changed = arguments.get(name)
        if isinstance(changed, list):
            results |= {f"{name}[{k}]": array for k, array in enumerate(changed)}
        elif changed is not None:
            results[name] = changed
    return {name: get(array) for name, array in results.items()}


@pytest.mark.gpu
@every_row
def test_device_forward(case, i, device):
    assert_agrees(run_on(device, case, case.sizes[i]), expected_of(case.name, i), f"{case.name} on a GPU")


@pytest.mark.gpu
@every_case
def test_device_repeats_its_bits(case, device):
    size = max(case.sizes, key=lambda s: sum(int(np.prod(shape)) for shape, _ in case.outputs(s).values()))
    test_cases.same_bits(run_on(device, case, size), run_on(device, case, size), case.name)


@pytest.mark.gpu
@pytest.mark.parametrize(("case", "i"), SAME_BITS)
@pytest.mark.skipif(_core.isa() == "baseline", reason="this level has no fused multiply-add")
def test_device_has_the_bits_of_the_cpu(case, i, device):
    size = case.sizes[i]
    test_cases.same_bits(run_on(device, case, size), CASES[case.name].run_size(size), case.name)


@pytest.mark.gpu
def test_device_public_functions_stay_on_the_device(device):
    package, put, get = device
    mu, logvar = np.full((70, 90), 0.5, np.float32), np.full((70, 90), -1, np.float32)
    on_gpu = sample.gaussian_reparam(put(mu), put(logvar), 5)
    kind = package.ndarray if package.__name__ == "cupy" else package.Tensor
    assert all(isinstance(array, kind) for array in on_gpu)
    for ours, cpu in zip(on_gpu, sample.gaussian_reparam(mu, logvar, 5), strict=True):
        assert np.allclose(get(ours), cpu, rtol=1e-6, atol=1e-6)


@pytest.mark.gpu
def test_device_never_waits(device):
    """A stream that is being captured into a graph refuses every call that would wait for it."""
    package, put, get = device
    out = put(np.zeros((100, 130), np.float32))
    sample.uniform((100, 130), 3, out=out)  # a kernel is loaded at its first launch, which is a wait
    out[...] = 0
    if package.__name__ == "cupy":
        package.cuda.runtime.deviceSynchronize()
        stream = package.cuda.Stream(non_blocking=True)
        with stream:
            stream.begin_capture()
            sample.uniform((100, 130), 3, out=out)
            graph = stream.end_capture()
            assert not get(out).any()  # captured, not run
            graph.launch()
            stream.synchronize()
    else:
        graph = package.cuda.CUDAGraph()
        with package.cuda.graph(graph):
            sample.uniform((100, 130), 3, out=out)
        assert not get(out).any()
        graph.replay()
        package.cuda.synchronize()
    assert np.array_equal(get(out), sample.uniform((100, 130), 3))
