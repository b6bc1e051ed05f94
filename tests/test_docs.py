"""Code that the documentation quotes is code of this tree, and examples print what they say."""

import doctest
import importlib
import pkgutil
import re
from pathlib import Path

import pytest

import gencore

ROOT = Path(__file__).resolve().parents[1]
QUOTE = re.compile(r"<!-- from (\S+) -->\n```\w+\n(.*?)```", re.DOTALL)
QUOTES = [(doc.name, *match) for doc in ROOT.glob("*.md") for match in QUOTE.findall(doc.read_text())]


def without_layout(code: str) -> str:
    return "".join(code.split())


@pytest.mark.parametrize(("document", "source", "code"), QUOTES, ids=lambda value: str(value)[:40])
def test_quoted_code_is_in_the_file_it_is_quoted_from(document: str, source: str, code: str) -> None:
    assert without_layout(code) in without_layout((ROOT / source).read_text()), (
        f"{document} quotes what {source} no longer says"
    )


def test_contributing_quotes_every_file_that_an_op_touches() -> None:
    quoted = {source for document, source, _ in QUOTES if document == "CONTRIBUTING.md"}
    assert quoted >= {
        "csrc/include/gencore/rbm.h",
        "csrc/cpu/rbm.cpp",
        "gencore/kernels/rbm.py",
        "tests/cases/rbm.py",
    }


def test_files_that_contributing_names_exist() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text()
    names = {n for n in re.findall(r"`([\w./]+/[\w./]+)`", text) if "FAMILY" not in n and "cuda" not in n}
    assert len(names) > 5
    assert [n for n in sorted(names) if not (ROOT / n).exists()] == []


MODULES = [
    m.name
    for m in pkgutil.walk_packages(gencore.__path__, "gencore.")
    if not m.name.startswith(
        (
            "gencore._bench",
            "gencore._cuda",
            "gencore._core",
            "gencore.__main__",
            "gencore.sklearn",
            "gencore._elementwise",
        )
    )
]


@pytest.mark.parametrize("name", MODULES)
def test_examples_print_what_they_say(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    try:
        module = importlib.import_module(name)
    except ImportError as missing:
        pytest.skip(str(missing))
    assert doctest.testmod(module).failed == 0
