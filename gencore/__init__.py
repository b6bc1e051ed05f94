"""gencore: compiled kernels for deep generative models.

``gencore.kernels`` are the compiled operations on arrays, ``gencore.models`` the models made of them,
``gencore.evaluate`` says what a model is worth, ``gencore.datasets`` brings data and ``gencore.plot`` pictures. On the
command line: ``gencore --help``.
"""

from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

from gencore import _threadpool
from gencore._core import isa, isa_levels, num_threads, release_scratch, set_num_threads
from gencore._core import version as _version
from gencore._info import cmake_dir, show_config
from gencore.random import Generator, Key

if TYPE_CHECKING:
    from gencore import datasets, evaluate, io, kernels, models, plot, sklearn, train

__version__ = _version()
_MODULES = ("datasets", "evaluate", "io", "kernels", "models", "plot", "random", "sklearn", "train")

__all__ = [
    "Generator",
    "Key",
    "__version__",
    "cmake_dir",
    "datasets",
    "evaluate",
    "io",
    "isa",
    "isa_levels",
    "kernels",
    "models",
    "num_threads",
    "plot",
    "release_scratch",
    "set_num_threads",
    "show_config",
    "sklearn",
    "train",
]

_threadpool.register()


def __getattr__(name: str) -> ModuleType:
    """Import a submodule on first use: ``import gencore`` costs milliseconds."""
    if name in _MODULES:
        return import_module(f"gencore.{name}")
    raise AttributeError(f"module 'gencore' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES})
