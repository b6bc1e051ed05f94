"""gencore: compiled kernels for deep generative models.

``gencore.kernels`` are the compiled operations on arrays, ``gencore.models`` the models made of them,
``gencore.evaluate`` says what a model is worth, ``gencore.datasets`` brings data and ``gencore.plot`` pictures. On the
command line: ``gencore --help``.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from gencore import _threadpool
from gencore._core import isa, isa_levels, num_threads, release_scratch, set_num_threads
from gencore._core import version as _version
from gencore._info import cmake_dir, show_config
from gencore.random import Generator, Key

if TYPE_CHECKING:
    from gencore import (
        autograd,
        datasets,
        distributions,
        evaluate,
        io,
        kernels,
        models,
        nn,
        optim,
        plot,
        sklearn,
        train,
    )
    from gencore._elementwise import elementwise
    from gencore.autograd import Tensor, defvjp, enable_grad, grad, no_grad, nondiff, primitive, tensor

__version__ = _version()
_MODULES = (
    "autograd",
    "datasets",
    "distributions",
    "evaluate",
    "io",
    "kernels",
    "models",
    "nn",
    "optim",
    "plot",
    "random",
    "sklearn",
    "train",
)
_AUTOGRAD = ("Tensor", "defvjp", "enable_grad", "grad", "no_grad", "nondiff", "primitive", "tensor")

__all__ = [
    "Generator",
    "Key",
    "Tensor",
    "__version__",
    "autograd",
    "cmake_dir",
    "datasets",
    "defvjp",
    "distributions",
    "elementwise",
    "enable_grad",
    "evaluate",
    "grad",
    "io",
    "isa",
    "isa_levels",
    "kernels",
    "models",
    "nn",
    "no_grad",
    "nondiff",
    "num_threads",
    "optim",
    "plot",
    "primitive",
    "release_scratch",
    "set_num_threads",
    "show_config",
    "sklearn",
    "tensor",
    "train",
]

_threadpool.register()


def __getattr__(name: str) -> Any:
    """Import a submodule on first use: ``import gencore`` costs milliseconds."""
    if name in _MODULES:
        return import_module(f"gencore.{name}")
    if name in _AUTOGRAD:
        return getattr(import_module("gencore.autograd"), name)
    if name == "elementwise":
        return import_module("gencore._elementwise").elementwise
    raise AttributeError(f"module 'gencore' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES, *_AUTOGRAD, "elementwise"})
