"""An array that stands in for CuPy's where there is no GPU: NumPy's protocols, and no way to become a NumPy array."""

from __future__ import annotations

from typing import Any

import numpy as np


class Device:
    """The one that there is; as CuPy's, it can be made the current one."""

    id = 0

    def __enter__(self) -> Device:
        return self

    def __exit__(self, *_: Any) -> None:
        pass


class DeviceArray(np.lib.mixins.NDArrayOperatorsMixin):
    """Wraps an array as a device would hold it.

    As CuPy does, it answers ``np`` functions with arrays of its own kind (also 0-d), refuses to be converted or to be
    mixed with NumPy's arrays, and gives its values away only by `get`.
    """

    def __init__(self, host: Any) -> None:
        self._host = np.asarray(host)

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        own = self._host.__array_interface__
        strides = None if self._host.flags.c_contiguous else own["strides"]
        keys = {key: own[key] for key in ("shape", "typestr", "data")}
        return {**keys, "strides": strides, "version": 3, "stream": None}

    def __array__(self, *_: Any, **__: Any) -> Any:
        raise TypeError("Implicit conversion to a NumPy array is not allowed")

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
        if method not in ("__call__", "at") or any(not known(x) for x in inputs):  # a tuple as an index, say
            return NotImplemented
        if method == "at":
            return ufunc.at(*map(on_host, inputs), **kwargs)
        out = kwargs.pop("out", None)
        if out is None:
            return on_device(ufunc(*map(on_host, inputs), **kwargs))
        ufunc(*map(on_host, inputs), out=on_host(out), **kwargs)
        return out[0]

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
        if any(not issubclass(t, DeviceArray) for t in types):
            return NotImplemented
        if function is np.asarray:  # like=: the one way from the host
            return DeviceArray(np.array(*args, **kwargs))
        return on_device(function(*on_host(args), **{k: on_host(v) for k, v in kwargs.items()}))

    def get(self) -> Any:
        return self._host.copy()

    def __getitem__(self, index: Any) -> DeviceArray:
        return DeviceArray(self._host[on_host(index)])

    def __setitem__(self, index: Any, value: Any) -> None:
        self._host[on_host(index)] = on_host(value)

    def __len__(self) -> int:
        return len(self._host)

    def __int__(self) -> int:
        return int(self._host)

    def __float__(self) -> float:
        return float(self._host)

    def __bool__(self) -> bool:
        return bool(self._host)

    @property
    def device(self) -> Device:
        return Device()

    @property
    def base(self) -> Any:
        return self._host.base

    @property
    def shape(self) -> tuple[int, ...]:
        return self._host.shape

    @property
    def dtype(self) -> Any:
        return self._host.dtype

    @property
    def ndim(self) -> int:
        return self._host.ndim

    @property
    def size(self) -> int:
        return self._host.size

    def astype(self, dtype: Any) -> DeviceArray:
        return DeviceArray(self._host.astype(dtype))

    def copy(self, order: Any = "C") -> DeviceArray:
        return DeviceArray(self._host.copy(order=order))

    def reshape(self, *shape: Any) -> DeviceArray:
        return DeviceArray(self._host.reshape(*shape))

    def mean(self, **kwargs: Any) -> DeviceArray:
        return DeviceArray(self._host.mean(**kwargs))

    def tobytes(self) -> bytes:
        return self._host.tobytes()

    def var(self, **kwargs: Any) -> DeviceArray:
        return DeviceArray(self._host.var(**kwargs))

    def sum(self, **kwargs: Any) -> DeviceArray:
        return DeviceArray(self._host.sum(**kwargs))

    def item(self) -> Any:
        return self._host.item()


def known(x: Any) -> bool:
    return isinstance(x, DeviceArray | int | float | np.generic)


def on_host(x: Any) -> Any:
    if isinstance(x, tuple | list):
        return type(x)(map(on_host, x))
    if isinstance(x, np.ndarray):
        raise TypeError(f"Unsupported type {type(x)}")
    return x._host if isinstance(x, DeviceArray) else x


def on_device(x: Any) -> Any:
    if isinstance(x, tuple | list):
        return type(x)(map(on_device, x))
    return DeviceArray(x) if isinstance(x, np.ndarray | np.generic) else x
