"""The typed stub says what the compiled module is."""

import runpy
from pathlib import Path

import pytest

import gencore
from gencore import _core

ROOT = Path(__file__).parent.parent
STUB = Path(gencore.__file__).parent / "_core.pyi"


def test_stub_is_what_the_module_says():
    script = ROOT / "csrc" / "python" / "stub.py"
    expected = runpy.run_path(str(script))["stub"]()
    assert STUB.read_text() == expected, "run: python csrc/python/stub.py > gencore/_core.pyi"


def test_stub_names_every_public_attribute():
    text = STUB.read_text()
    names = [n for n in dir(_core) if not n.startswith("_")]
    told = ("def {}(", "\n{}:", "\nclass {}:")
    missing = [n for n in names if not any(form.format(n) in text for form in told)]
    assert not missing


@pytest.mark.parametrize("name", ["_core.pyi", "py.typed"])
def test_the_package_ships_its_types(name):
    assert (Path(gencore.__file__).parent / name).is_file()
