"""What people have (lists, integers, float64, sparse matrices) -> what kernels take, converted once, up front."""

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from gencore.kernels._arrays import cast, is_cuda_array


def as_states(
    op: str,
    name: str,
    value: Any,
    units: int,
    *,
    values: Literal["binary", "unit interval"] = "binary",
    hint: str = "",
) -> NDArray[Any]:
    """Return ``value`` as an (n, units) array that kernels take.

    Parameters
    ----------
    op, name : str
        The call and the argument, for errors.
    value : array_like, or a SciPy sparse matrix
        Rows of states. An array on a CUDA device of a dtype that kernels take stays there and its values are not
        looked at.
    units : int
        Columns expected.
    values : str
        "binary": 0 and 1 only, returned as uint8. "unit interval": anything from 0 to 1; returned as uint8 where
        it is binary, as float32 otherwise.
    hint : str
        What to do with values that are not binary.

    Raises
    ------
    ValueError, TypeError
        Another shape, something that is no number, or a value out of range, named with its place.
    """
    if is_cuda_array(value):
        return _on_device(op, name, value, units)
    array = _numbers(op, name, value, units)
    if array.dtype == np.bool_:
        return np.ascontiguousarray(array).view(np.uint8)
    binary = (array == 0) | (array == 1)
    if binary.all():
        return np.ascontiguousarray(array, np.uint8)
    if values == "unit interval":
        wrong = ~((array >= 0) & (array <= 1))
        if not wrong.any():
            return np.ascontiguousarray(array, np.float32)
        expected = "values from 0 to 1 (scale grey levels, e.g. divide by 255)"
    else:
        wrong, expected = ~binary, "0 and 1 only" + (f" ({hint})" if hint else "")
    row, column = (int(i[0]) for i in np.nonzero(wrong))
    raise ValueError(
        f"{op}: expected {name} to hold {expected}, received {array[row, column]} at ({row}, {column})"
    )


def _on_device(op: str, name: str, array: Any, units: int) -> NDArray[Any]:
    dtype = np.dtype(array.__cuda_array_interface__["typestr"])
    if dtype not in (np.bool_, np.uint8, np.float32):
        raise TypeError(f"{op}: expected {name} on a device to be bool, uint8 or float32, received {dtype}")
    if len(array.shape) != 2 or array.shape[1] != units:
        raise ValueError(f"{op}: expected {name} of shape (n, {units}), received {tuple(array.shape)}")
    return array  # type: ignore[no-any-return]


def as_rows(op: str, name: str, value: Any, columns: int) -> NDArray[np.float32]:
    """Return ``value``, as `as_states` takes it but of any finite numbers, as an (n, columns) float32 array."""
    if is_cuda_array(value):
        return cast(_on_device(op, name, value, columns), np.float32)  # type: ignore[no-any-return]
    array = _numbers(op, name, value, columns)
    with np.errstate(over="ignore"):
        rows = np.ascontiguousarray(array, np.float32)
    wrong = ~np.isfinite(rows)
    if wrong.any():
        raise ValueError(f"{op}: expected {name} to be finite in float32, received {array[wrong][0]}")
    return rows


def as_levels(op: str, name: str, value: Any, columns: int, levels: int) -> NDArray[np.uint8]:
    """Return rows of integers from 0 to ``levels - 1`` as they are, of floats from 0 to 1 as the nearest level."""
    array = _numbers(op, name, value, columns)
    top = levels - 1
    grey = array.dtype.kind == "f"
    wrong = ~((array >= 0) & (array <= (1 if grey else top)))
    if wrong.any():
        row, column = (int(i[0]) for i in np.nonzero(wrong))
        raise ValueError(
            f"{op}: expected {name} to hold integers from 0 to {top}, or floats from 0 to 1 (divide by white, "
            f"e.g. 255), received {array[row, column]} of dtype {array.dtype} at ({row}, {column})"
        )
    if grey:
        array = np.rint(array.astype(np.float64) * top)
    return np.ascontiguousarray(array, np.uint8)


def as_numbers(op: str, name: str, value: Any) -> NDArray[Any]:
    """Return what may be lists or a SciPy sparse matrix as an array of numbers, of whatever dtype they come in."""
    if hasattr(value, "toarray"):
        value = value.toarray()
    if np.ma.is_masked(value):  # an array would show what the mask hides
        count = int(np.ma.getmaskarray(value).sum())
        raise ValueError(f"{op}: expected {name} without masked elements, received {count} of them")
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise ValueError(f"{op}: expected {name} to be rows of equal length, received {error}") from error
    if array.dtype.kind not in "buif":
        raise TypeError(f"{op}: expected {name} to hold numbers, received dtype {array.dtype}")
    return array


def _numbers(op: str, name: str, value: Any, columns: int) -> NDArray[Any]:
    """Rows of so many numbers."""
    array = as_numbers(op, name, value)
    if array.ndim != 2 or array.shape[1] != columns:
        hint = f" (a single row: {name}[None])" if array.shape == (columns,) else ""
        raise ValueError(f"{op}: expected {name} of shape (n, {columns}){hint}, received {array.shape}")
    return array
