"""The way of a device array to its kernel: which devices, strides, streams and memory; and what is refused."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import types
from concurrent.futures import ThreadPoolExecutor

import cuda_emulation
import numpy as np
import pytest
import test_cuda
from build_tree import loaded_library
from cases import CASES
from cuda_emulation import DeviceArray
from test_cuda import matrix

import gencore as gc
from gencore import _core, _cuda_support, _info
from gencore.kernels import _arrays, autoregressive, sample


def test_cpu_and_device_do_not_mix(emulation):
    words = (
        r"sample.bernoulli: expected all arrays on one device, received out on the CPU and p on a CUDA device"
    )
    with pytest.raises(TypeError, match=words):
        sample.bernoulli(DeviceArray(matrix()), 1, out=np.zeros((2, 3), np.uint8))


def test_variates_beside_an_array(emulation, monkeypatch):
    """New arrays are made where they are asked for."""
    like = DeviceArray(matrix())
    for function in (sample.uniform, sample.normal, sample.exponential):
        made = function((5, 7), 3, device=like)
        assert isinstance(made, DeviceArray)
        assert np.array_equal(made.host, function((5, 7), 3))
        assert isinstance(function((5, 7), 3, device=matrix()), np.ndarray)
    monkeypatch.setitem(
        sys.modules,
        "cupy",
        types.SimpleNamespace(empty=lambda *a: DeviceArray(np.empty(*a)), ndarray=types.SimpleNamespace),
    )
    assert np.array_equal(sample.uniform(9, 3, device="cuda").host, sample.uniform(9, 3))
    monkeypatch.setitem(sys.modules, "cupy", None)
    with pytest.raises(ImportError, match=r"sample.uniform: device 'cuda' needs CuPy"):
        sample.uniform(9, 3, device="cuda")
    with pytest.raises(ValueError, match="expected device to be 'cpu', 'cuda' or an array, received 'tpu'"):
        sample.uniform(9, 3, device="tpu")


def test_two_devices_do_not_mix(emulation, monkeypatch):
    p, out = matrix(), np.zeros((2, 3), np.uint8)
    first = out.__array_interface__["data"][0]
    monkeypatch.setenv("GENCORE_EMULATION_DEVICE_1", f"{first}:{first + out.nbytes}")
    words = "expected out on CUDA device 0, as p, received an array on CUDA device 1"
    with pytest.raises(TypeError, match=words):
        sample.bernoulli(DeviceArray(p), 1, out=DeviceArray(out))


def test_kernels_run_on_the_device_of_the_arrays(emulation, monkeypatch):
    out = matrix()
    sample.uniform((2, 3), 1, out=DeviceArray(out))
    assert emulation.emulation_launch_device() == 0
    first = out.__array_interface__["data"][0]
    monkeypatch.setenv("GENCORE_EMULATION_DEVICE_1", f"{first}:{first + out.nbytes}")
    sample.uniform((2, 3), 1, out=DeviceArray(out))
    assert emulation.emulation_launch_device() == 1


def test_a_masked_array_is_refused(emulation):
    with pytest.raises(TypeError, match="expected out to be an array without a mask"):
        sample.uniform((2, 3), 1, out=DeviceArray(matrix(), mask=DeviceArray(matrix())))


@pytest.mark.parametrize(
    ("shape", "strides"), [((2, 3), (12, 4)), ((2, 3), None), ((1, 3), (4, 4)), ((3, 1), (4, 400))]
)
def test_strides_of_arrays_in_order(shape, strides, emulation):
    out = np.zeros(shape, np.float32)
    _core.sample_uniform(out=DeviceArray(out, strides=strides), key=1)
    assert np.array_equal(out, sample.uniform(shape, 1))


@pytest.mark.parametrize(("strides", "words"), [((4, 8), "Fortran order"), ((24, 8), "a strided array")])
def test_strides_of_other_arrays(strides, words, emulation):
    memory = DeviceArray(np.zeros((2, 6), np.float32)[:, :3].copy(), strides=strides)
    with pytest.raises(TypeError, match=f"out to be contiguous in C order .* received {words}"):
        _core.sample_uniform(out=memory, key=1)


def test_an_array_without_elements_has_no_memory(emulation):
    out = DeviceArray(np.zeros((0, 3), np.float32), data=(0, False))
    _core.sample_uniform(out=out, key=1)


def test_more_axes_than_two(emulation):
    p = np.full((2, 3, 5), 0.5, np.float32)
    assert np.array_equal(sample.bernoulli(DeviceArray(p), 1).host, sample.bernoulli(p, 1))
    with pytest.raises(TypeError, match=r"sample.bernoulli: expected p to be contiguous in C order"):
        sample.bernoulli(DeviceArray(np.zeros((2, 3, 10), np.float32)[:, :, ::2]), 1)


def test_an_op_without_a_cuda_kernel_says_so(emulation):
    """Every op has one: this table has none."""
    register = ctypes.CDLL(str(loaded_library()))._ZN7gencore7runtime19register_cuda_tableEPKNS0_5TableE
    without = (ctypes.c_void_p * 1000)()
    register(without)
    try:
        with pytest.raises(TypeError, match=r"sample.uniform: has no kernel for this device"):
            _core.sample_uniform(out=DeviceArray(np.zeros((0, 3), np.float32), data=(0, False)), key=1)
    finally:
        cuda_emulation.module().load()


def test_the_stream_reaches_the_launch(emulation):
    for stream, expected in ((None, None), (1, 1), (2, 2), (0xABC0, 0xABC0)):
        emulation.emulation_launch_stream.restype = ctypes.c_void_p
        sample.uniform((2, 3), 1, out=DeviceArray(matrix(), stream=stream))
        assert emulation.emulation_launch_stream() == expected


def test_which_stream(monkeypatch):
    """PyTorch's and CuPy's current one on the array's device for their own, else the interface's, else the default."""
    array = DeviceArray(matrix())
    monkeypatch.setitem(sys.modules, "cupy", None)
    monkeypatch.setitem(sys.modules, "torch", None)
    assert _cuda_support.stream_of(array, None) == 0
    assert _cuda_support.stream_of(array, 7) == 7

    class CupyArray:
        device = types.SimpleNamespace(id=1)

    of_devices = [types.SimpleNamespace(ptr=6), types.SimpleNamespace(ptr=8)]
    cupy = types.SimpleNamespace(
        ndarray=CupyArray, cuda=types.SimpleNamespace(get_current_stream=of_devices.__getitem__)
    )
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    assert _cuda_support.stream_of(CupyArray(), 7) == 8
    assert _cuda_support.stream_of(array, 7) == 7  # of another package
    assert _cuda_support.stream_of(array, None) == 0

    class Tensor:
        device = "cuda:0"

    streams = {"cuda:0": types.SimpleNamespace(cuda_stream=9)}
    torch = types.SimpleNamespace(
        Tensor=Tensor, cuda=types.SimpleNamespace(current_stream=streams.__getitem__)
    )
    monkeypatch.setitem(sys.modules, "torch", torch)
    assert _cuda_support.stream_of(Tensor(), None) == 9
    assert _cuda_support.stream_of(CupyArray(), None) == 8
    assert _cuda_support.stream_of(array, 7) == 7


def test_outputs_are_made_on_the_device_of_the_array(emulation):
    """As CuPy makes new arrays on its current device, so that is the array's meanwhile."""
    current = [0]

    class Device:
        id = 1

        def __enter__(self):
            current.append(self.id)

        def __exit__(self, *_):
            current.pop()

    made = []

    class Array(DeviceArray):
        device = Device()

        def __array_function__(self, function, *rest):
            if function is not np.shape:
                made.append((function.__name__, current[-1]))
            return super().__array_function__(function, *rest)

        def astype(self, dtype):
            made.append(("astype", current[-1]))
            return super().astype(dtype)

    sample.bernoulli(Array(matrix()), 1)
    _arrays.full(Array(matrix()), (2,), 1.0, np.float32)
    _arrays.placed(Array(matrix()), [1.0], np.float32)
    _arrays.cast(Array(matrix()), np.int64)
    assert made == [(name, 1) for name in ("empty_like", "full_like", "asarray", "astype")]
    assert current == [0]


# --- shared and scratch memory --------------------------------------------------------------------------------

MOST = 227 << 10  # bytes of a block
UNITS = (7000, 9000)  # hidden ones, that a block of NADE has 8 bytes for: more than 48 KB


def nade(hidden):
    w, v = (DeviceArray(np.ones((3, hidden), np.float32)) for _ in range(2))
    c, b = (DeviceArray(np.ones(n, np.float32)) for n in (hidden, 3))
    return autoregressive.nade_sample(w, c, v, b, 2, key=1).host


def test_kernels_may_always_have_the_most_shared_memory(emulation):
    """Not what a launch needs, which another thread's launch of the same kernel would find too little."""
    emulation.emulation_launch_allowed.restype = ctypes.c_size_t
    for hidden in UNITS:
        nade(hidden)
        assert emulation.emulation_launch_allowed() == MOST


def test_threads_launch_a_kernel_with_different_shared_memory(emulation):
    calls = UNITS * 10
    with ThreadPoolExecutor(4) as pool:
        assert all(drawn.all() for drawn in pool.map(nade, calls))


@pytest.mark.parametrize(
    "name",
    [
        "autoregressive.nade_log_prob", "autoregressive.nade_sample", "autoregressive.masked_sample",
        "rbm.gibbs_chain", "rbm.ais", "rbm.cd_gradient", "conv.pixel_sample", "recurrent.lstm",
        "recurrent.map_lstm", "recurrent.map_lstm_vjp",
    ],
)  # fmt: skip
def test_static_shared_memory_counts(name, emulation, monkeypatch):
    """What of a block's memory a kernel's own arrays take is not there for what it asks for."""
    case = test_cuda.on_device(CASES[name])
    sizes = case.sizes[12 % len(case.sizes)], case.sizes[-1]
    usual = [case.run_size(size) for size in sizes]
    room = 4000 if name == "conv.pixel_sample" else 100  # for its layers
    test_cuda.emulate(monkeypatch, 4, test_cuda.STATIC_SHARED + room)
    test_cuda.emulate_on_device_1(monkeypatch)
    for size, expected in zip(sizes, usual, strict=True):
        test_cuda.test_cases.same_bits(case.run_size(size), expected, name)


def test_scratch_memory_is_given_back(emulation):
    """`gencore.release_scratch` empties the pools of devices, which otherwise keep what calls have used."""
    emulation.emulation_pools_hold.restype = ctypes.c_size_t
    case = test_cuda.on_device(CASES["rbm.gibbs_chain"])
    for _ in range(2):
        case.run_size(case.sizes[-1])
        assert emulation.emulation_pools_hold() > 0
        gc.release_scratch()
        assert emulation.emulation_pools_hold() == 0


WITHOUT = """
import sys
sys.modules["gencore._cuda"] = None
import numpy as np
from cuda_emulation import DeviceArray
from device_array import DeviceArray as CupyArray
from gencore import _cuda_support
from gencore.kernels import sample

print(_cuda_support.describe())
try:
    sample.uniform((2, 3), 1, out=DeviceArray(np.zeros((2, 3), np.float32)))
except TypeError as error:
    print(error)
"""


def test_without_the_cuda_module():
    """One line that names the op, the argument and the cure."""
    path = os.pathsep.join([os.path.dirname(__file__), *filter(None, sys.path)])
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "not built (cure: GENCORE_CUDA=1 pip install .)",
        "sample.uniform: expected out to be on the CPU: the CUDA kernels are not built "
        "(cure: GENCORE_CUDA=1 pip install .), received DeviceArray on a CUDA device",
    ]


def test_the_configuration_has_a_line_on_cuda():
    assert _info.config()["cuda"] == _cuda_support.describe()
