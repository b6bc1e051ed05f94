"""Checks of arguments that models, layers and trainings share."""

import math
from collections.abc import Mapping
from typing import Any, TypeVar

import numpy as np

Value = TypeVar("Value")


def is_count(value: Any, least: int = 1) -> bool:
    """Whether a value is an integer of at least `least`; True and False are none."""
    return not isinstance(value, bool) and isinstance(value, int | np.integer) and bool(value >= least)


def entry(table: Mapping[Any, Value], key: Any) -> Value | None:
    """What a table has for a key; None for one that it has not, be it a list, which no table can have."""
    try:
        return table.get(key)
    except TypeError:
        return None


def is_number(value: Any) -> bool:
    """Whether a value is a real number; True and False are none."""
    return not isinstance(value, bool) and isinstance(value, int | float | np.integer | np.floating)


def count(op: str, name: str, value: Any, *, least: int = 1) -> int:
    """Return an integer of at least `least`, or raise ValueError that names call and argument."""
    if not is_count(value, least):
        raise ValueError(f"{op}: expected {name} to be an integer of at least {least}, received {value!r}")
    return int(value)


def number(op: str, name: str, value: Any, *, positive: bool = False) -> float:
    """Return a finite number of at least 0, or above it, or raise ValueError that names call and argument."""
    if not (is_number(value) and 0 <= value < math.inf and (value > 0 or not positive)):
        limit = "above 0" if positive else "at least 0"
        raise ValueError(f"{op}: expected {name} to be {limit}, received {value!r}")
    return float(value)


def temperature(op: str, value: Any) -> float:
    """Return what logits are divided by, of a size that float32 logits and noise stay finite with."""
    if not (is_number(value) and 1e-30 <= value <= 1e30):
        raise ValueError(f"{op}: expected temperature to be a number from 1e-30 to 1e30, received {value!r}")
    return float(value)


def flag(op: str, name: str, value: Any) -> bool:
    """Return True or False, or raise ValueError that names call and argument."""
    if not isinstance(value, bool | np.bool_):
        raise ValueError(f"{op}: expected {name} to be True or False, received {value!r}")
    return bool(value)
