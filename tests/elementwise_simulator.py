"""Run by test_elementwise: the CUDA path in numba's simulator, with NumPy's memory as that of a device.

The simulator lacks streams of others and zero-copy views, and there is no CuPy: what is needed of both stands here. It
notes on which stream and device a kernel was launched.
"""

import contextlib
import math
import sys
from types import ModuleType

import numpy as np
import pytest
from numba import cuda

STREAM = 1234
launched, entered = [], []


class Device:
    id = 0

    def __enter__(self):
        entered.append(self.id)

    def __exit__(self, *_):
        pass


class DeviceArray:
    """As much of cupy.ndarray as gencore uses here."""

    base = None

    def __init__(self, host):
        self.host = host
        self.shape, self.dtype, self.size, self.ndim = host.shape, host.dtype, host.size, host.ndim
        self.device = Device()
        self.__cuda_array_interface__ = {"shape": host.shape, "typestr": host.dtype.str, "version": 3}

    def __array__(self, *_, **__):
        raise TypeError("implicit copy from the device")

    def reshape(self, *shape):
        return DeviceArray(self.host.reshape(*shape))

    def copy(self):
        return DeviceArray(self.host.copy())

    def astype(self, dtype):
        return DeviceArray(self.host.astype(dtype))

    def __array_function__(self, function, _types, args, kwargs):
        return DeviceArray(function(*(a.host if isinstance(a, DeviceArray) else a for a in args), **kwargs))


cupy = ModuleType("cupy")
cupy.asarray = lambda x: x if isinstance(x, DeviceArray) else DeviceArray(np.asarray(x))
cupy.empty = lambda shape, dtype: DeviceArray(np.full(shape, np.nan, dtype))
cupy.broadcast_to = lambda x, shape: DeviceArray(np.broadcast_to(x.host, shape))
cupy.ascontiguousarray = lambda x: DeviceArray(np.ascontiguousarray(x.host).reshape(x.shape))
cupy.cuda = ModuleType("cupy.cuda")
cupy.cuda.get_current_stream = lambda: type("Stream", (), {"ptr": STREAM})
sys.modules.update({"cupy": cupy, "cupy.cuda": cupy.cuda})


def as_cuda_array(x, sync=True):
    assert sync is False  # else the host would wait
    return x.host


def external_stream(pointer):
    launched.append(pointer)
    return pointer


cuda.as_cuda_array, cuda.external_stream = as_cuda_array, external_stream
cuda.gpus = type("Gpus", (), {"__getitem__": lambda self, i: contextlib.nullcontext()})()

import gencore as gc  # noqa: E402 (after the stand-ins)


def sine(x):
    return math.sin(x)


@gc.elementwise(derivative=lambda x, a, b: (math.cos(x) * a, sine(x), 1.0))
def f(x, a, b):
    return sine(x) * a + b


@gc.elementwise(derivative=lambda _x, y: y)
def growth(x):
    return math.exp(x)


def main():
    rng = np.random.default_rng(1)
    eps = float(np.finfo(np.float32).eps)
    for shape in ((5,), (3, 1000), (0, 4)):  # less than a block, several, none
        x, a = (
            rng.standard_normal(shape).astype(np.float32),
            rng.standard_normal(shape[-1:]).astype(np.float32),
        )
        y = f(DeviceArray(x), DeviceArray(a), 0.5)
        assert y.host.dtype == np.float32
        exact = np.sin(x.astype(float)) * a + 0.5
        assert np.all(np.abs(y.host - exact) <= 4 * eps * (np.abs(exact) + 0.5)), shape
    # Gradients: of every argument, in one launch, and by the result.
    x, a = rng.standard_normal((3, 4)).astype(np.float32), rng.standard_normal(4).astype(np.float32)
    tx, ta = (
        gc.autograd.tensors.wrap(DeviceArray(v), gc.autograd.tape.Leaf(v.shape, v.dtype)) for v in (x, a)
    )
    before = len(launched)
    gx, ga = gc.grad(f(tx, ta, 1.0), [tx, ta], gc.autograd.tensors.wrap(DeviceArray(np.ones_like(x))))
    assert len(launched) == before + 2
    assert np.allclose(gx._data.host, np.cos(x) * a, rtol=4 * eps)
    assert np.allclose(ga._data.host, np.sin(x).sum(0), rtol=0, atol=16 * eps)
    (g,) = gc.grad(growth(tx), [tx], gc.autograd.tensors.wrap(DeviceArray(np.ones_like(x))))
    assert np.allclose(g._data.host, np.exp(x), rtol=2 * eps)
    with pytest.raises(TypeError, match="a on the host, x on CUDA"):
        f(DeviceArray(x), x, 1.0)
    assert set(launched) == {STREAM}
    assert set(entered) == {0}
    print(len(launched), "launches")


main()
