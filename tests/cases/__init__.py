"""The grid: every op has one row, and test_cases.py runs each row in every way that the house promises.

A family's rows stand in cases/FAMILY.py as a tuple `CASES`; a new module is found by being there.
"""

import importlib
import pkgutil

from .case import Arguments, Bad, Case, Expected, Size, nan_at

CASES: dict[str, Case] = {}
for _module in pkgutil.iter_modules(__path__):
    if _module.name not in ("case", "__main__"):
        for _case in importlib.import_module(f"{__name__}.{_module.name}").CASES:
            CASES[_case.name] = _case

__all__ = ["CASES", "Arguments", "Bad", "Case", "Expected", "Size", "nan_at"]
