"""Writes gencore/_core.pyi, the typed stub of the compiled module, from what that module says of itself.

python csrc/python/stub.py > gencore/_core.pyi   (tests/test_stub.py fails where the two differ)
"""

from gencore import _core

HEAD = '''"""Compiled kernels. Written by csrc/python/stub.py; do not edit."""

from collections.abc import Sequence
from typing import Any, TypeAlias

from numpy.typing import DTypeLike, NDArray

Array: TypeAlias = Any
"""A NumPy array, or one that speaks DLPack."""

Arrays: TypeAlias = list[Any] | tuple[Any, ...]
"""Several of them."""

signatures: dict[str, dict[str, str]]

def version() -> str: ...
def isa() -> str: ...
def isa_levels() -> list[str]: ...
def num_threads() -> int: ...
def set_num_threads(n: int) -> None: ...
def release_scratch() -> None: ...
def measure_fma_peak(seconds: float) -> float: ...
def philox(key: int, counter: Sequence[int]) -> list[int]: ...
def fingerprint(array: Array) -> int: ...

class Memory: ...

def empty(shape: Sequence[int], dtype: DTypeLike) -> NDArray[Any]: ...
'''


def stub() -> str:
    """The text of the stub."""
    text = HEAD
    for name, arguments in _core.signatures.items():
        text += f"def {name}(\n    *,\n"
        text += "".join(f"    {arg}: {kind} | None = None,\n" for arg, kind in arguments.items())
        text += ") -> None: ...\n"
    return text


if __name__ == "__main__":
    print(stub(), end="")
