"""Errors of arguments that the families' Python sides find, and those of compiled functions in their callers' words."""

import re
from typing import Any

__all__ = ["renamed", "shaped", "strided"]


def shaped(op: str, name: str, array: Any, *axes: int | str) -> tuple[int, ...]:
    """The shape of an array with these axes, of which letters stand for any length; raises ValueError otherwise."""
    shape = getattr(array, "shape", None)
    if (
        shape is None
        or len(shape) != len(axes)
        or any(isinstance(a, int) and a != n for a, n in zip(axes, shape, strict=True))
    ):
        expected = ", ".join(map(str, axes)) + ("," if len(axes) == 1 else "")
        received = type(array).__name__ if shape is None else f"shape {tuple(shape)}"
        raise ValueError(f"{op}: expected {name} of shape ({expected}), received {received}")
    return tuple(shape)


def strided(op: str, name: str) -> TypeError:
    """Say that an array does not lie in C order."""
    return TypeError(
        f"{op}: expected {name} to be contiguous in C order (cure: numpy.ascontiguousarray), "
        "received a strided array"
    )


def renamed(error: Exception, op: str, **names: str) -> Exception:
    """The error of a function that `op` calls, in the name of `op` and with its names of arguments."""
    text = re.sub(r"^[a-z_]+\.[a-z0-9_]+: ", "", str(error))
    expected, *received = text.split(", received ", 1)
    if names:
        words = rf"\b({'|'.join(names)})\b"
        expected = re.sub(words, lambda found: names[found[0]], expected)
    kind = TypeError if isinstance(error, TypeError) else ValueError
    return kind(f"{op}: {', received '.join([expected, *received])}")
