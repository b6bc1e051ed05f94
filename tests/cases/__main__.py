"""`python -m cases OUT.npz`: stores the outputs of every case, of a process with another GENCORE_ISA."""

import sys

import numpy as np

from gencore import _core

from . import CASES

results = {"isa": np.array(_core.isa())}
for case in CASES.values():
    for i, size in enumerate(case.sizes):
        for name, array in case.run_size(size).items():
            results[f"{case.name}/{i}/{name}"] = array
np.savez(sys.argv[1], **results)
