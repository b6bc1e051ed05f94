"""Settings that all tests share."""

import os
from pathlib import Path

from hypothesis import settings

import gencore
from gencore import _core

# The same examples in every run: a failure on one machine is a failure on all.
settings.register_profile("gencore", deadline=None, derandomize=True, max_examples=60)
settings.load_profile("gencore")

# Programs that tests start import the gencore under test, wherever they start: not the sources in the current folder,
# which have no compiled module, and the sources where they are what is tested (linked to a build tree).
os.environ["PYTHONSAFEPATH"] = "1"
if Path(gencore.__file__).parent == Path(_core.__file__).parent:
    paths = (str(Path(gencore.__file__).parents[1]), os.environ.get("PYTHONPATH"))
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
