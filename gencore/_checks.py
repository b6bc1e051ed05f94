"""Checks of arguments that models, layers and trainings share."""

from typing import Any

import numpy as np


def is_count(value: Any) -> bool:
    """Whether a value is an integer of at least 1; True and False are none."""
    return not isinstance(value, bool) and isinstance(value, int | np.integer) and bool(value >= 1)


def count(op: str, name: str, value: Any) -> int:
    """Return an integer of at least 1, or raise ValueError that names call and argument."""
    if not is_count(value):
        raise ValueError(f"{op}: expected {name} to be an integer of at least 1, received {value!r}")
    return int(value)
