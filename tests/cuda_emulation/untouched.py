"""Calls ops on memory that only kernels may touch: `python untouched.py [planted]`. Whoever else does ends the process.

Prints the op that is running, and at the end how many have run. Results must be those of an ordinary call.
"""

import ctypes
import faulthandler
import mmap
import sys

import numpy as np
import test_cuda
from cases import CASES

import cuda_emulation

SIZE = 1 << 24


class Placed:
    """Arrays in one stretch of memory, by address alone."""

    def __init__(self):
        self.memory = mmap.mmap(-1, SIZE)
        self.first = ctypes.addressof(ctypes.c_char.from_buffer(self.memory))
        self.used = 0

    def take(self, array):
        begin = (self.used + 255) // 256 * 256
        self.used = begin + array.nbytes
        assert self.used <= SIZE, "a larger stretch, please"
        place = np.frombuffer(self.memory, array.dtype, array.size, begin).reshape(array.shape)
        place[...] = array
        return place

    def of(self, value):
        if isinstance(value, list | tuple):
            return type(value)(map(self.of, value))
        return self.take(value) if isinstance(value, np.ndarray) else value


def run(emulation, case, size, planted):
    placed = Placed()
    arguments = {
        name: value if name in case.host else placed.of(value)
        for name, value in case.good_inputs(size).items()
    }
    outputs = {
        name: placed.take(np.full(shape, 77, dtype)) for name, (shape, dtype) in case.outputs(size).items()
    }
    call = test_cuda.wrapped_call(case, arguments | outputs)
    emulation.emulation_guard(ctypes.c_void_p(placed.first), ctypes.c_size_t(SIZE))
    if planted:
        print(next(iter(outputs.values())).sum())
    CASES[case.name].function(**call)
    emulation.emulation_guard(None, ctypes.c_size_t(0))
    ordinary = test_cuda.on_device(CASES[case.name]).run_size(size)
    for name, value in outputs.items():
        assert value.tobytes() == ordinary[name].tobytes(), f"{case.name}: {name}"


def main():
    faulthandler.enable()
    module = cuda_emulation.module()
    assert not isinstance(module, str), module
    module.load()
    emulation = ctypes.CDLL(str(cuda_emulation.build()))
    count = 0
    for name, case in test_cuda.DEVICE_CASES.items():
        print(name, flush=True)
        sizes = [size for size in case.sizes if size.get("n", 1) > 0]
        for size in {min(3, len(sizes) - 1), len(sizes) - 1}:
            run(emulation, case, sizes[size], sys.argv[1:] == ["planted"])
        count += 1
    print(f"{count} ops")


if __name__ == "__main__":
    main()
