"""Checks of arguments that models, layers and trainings share."""

from typing import Any

import numpy as np


def is_count(value: Any, least: int = 1) -> bool:
    """Whether a value is an integer of at least `least`; True and False are none."""
    return not isinstance(value, bool) and isinstance(value, int | np.integer) and bool(value >= least)


def count(op: str, name: str, value: Any, *, least: int = 1) -> int:
    """Return an integer of at least `least`, or raise ValueError that names call and argument."""
    if not is_count(value, least):
        raise ValueError(f"{op}: expected {name} to be an integer of at least {least}, received {value!r}")
    return int(value)
