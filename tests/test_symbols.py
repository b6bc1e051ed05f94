"""What kernel objects and the library may define, so that no processor meets code of a level above its own.

The linker keeps one copy of each weak symbol. If an object compiled for AVX-512 holds such a copy of, say,
``std::vector::push_back``, a processor without AVX-512 may run it. Hence kernel objects define nothing weak
outside their level's namespace, nothing of ``std``, and nothing that runs at load time.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from build_tree import build_tree, loaded_library

pytestmark = pytest.mark.skipif(shutil.which("nm") is None, reason="nm is not installed")

LEVELS = ("baseline", "avx2", "avx512")
# The reference to the exception handler's address, which gcc keeps once per program: data, not code.
PERSONALITY = "DW.ref.__gxx_personality_v0"


def defined(file: Path, *options: str) -> list[tuple[str, str]]:
    """(mangled name, type letter) of each symbol that the file defines."""
    command = ["nm", "-f", "posix", "--defined-only", *options, str(file)]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    return [(line.split()[0], line.split()[1]) for line in lines]


def namespace(*names: str) -> str:
    """Start of the mangled names of what is declared in a namespace, local classes and guards included."""
    return r"_Z(?:GVZ?|Z|TV|TS|TI)*N[VKRO]*" + "".join(f"{len(name)}{name}" for name in names)


@pytest.fixture(scope="module")
def objects() -> dict[str, list[Path]]:
    """Kernel objects of each ISA level in the build that gencore came from."""
    tree = build_tree()
    if tree is None:
        pytest.skip("no build tree (set GENCORE_BUILD_DIR)")
    if re.search("^GENCORE_SANITIZE:.*=.+$", (tree / "CMakeCache.txt").read_text(), re.MULTILINE):
        pytest.skip("a sanitizer adds symbols and initialisers of its own")
    found = {level: sorted((tree / f"CMakeFiles/gencore_{level}.dir").rglob("*.o")) for level in LEVELS}
    found = {level: files for level, files in found.items() if files}
    assert "baseline" in found
    return found


def test_each_level_compiles_the_same_sources(objects: dict[str, list[Path]]) -> None:
    names = {level: [file.name for file in files] for level, files in objects.items()}
    assert all(files == names["baseline"] for files in names.values())


def test_weak_symbols_stay_in_their_levels_namespace(objects: dict[str, list[Path]]) -> None:
    strangers = [
        (level, file.name, name)
        for level, files in objects.items()
        for file in files
        for name, kind in defined(file)
        if kind in "WVu" and name != PERSONALITY and not re.match(namespace("gencore", level), name)
    ]
    assert strangers == []


def test_strong_symbols_stay_in_their_levels_namespace(objects: dict[str, list[Path]]) -> None:
    strangers = [
        (level, file.name, name)
        for level, files in objects.items()
        for file in files
        for name, kind in defined(file, "--extern-only")
        if kind not in "WVu" and not re.match(namespace("gencore", level), name)
    ]
    assert strangers == []


def test_no_standard_library_code_is_compiled_for_a_level(objects: dict[str, list[Path]]) -> None:
    standard = re.compile(r"_Z(?:GVZ?|Z|TV|TS|TI)*(?:N[VKRO]*)?(?:S[tabsiod]|9__gnu_cxx|10__cxxabiv1)")
    instances = [
        (level, file.name, name)
        for level, files in objects.items()
        for file in files
        for name, _ in defined(file)
        if standard.match(name)
    ]
    assert instances == []


def test_nothing_runs_at_load_time(objects: dict[str, list[Path]]) -> None:
    for files in objects.values():
        for file in files:
            command = ["objdump", "--section-headers", str(file)]
            sections = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            assert not re.search(r"\.(init_array|ctors|preinit_array)\b", sections), file
            assert not [name for name, _ in defined(file) if "_GLOBAL__sub" in name], file


def test_library_exports_its_interface_only() -> None:
    library = loaded_library()
    if library is None:
        pytest.skip("no loaded library to look at")
    names = [name for name, _ in defined(library, "--dynamic")]
    foreign = [n for n in names if not re.match(rf"gencore_|{namespace('gencore')}", n)]
    internal = [n for n in names if re.match("|".join(namespace("gencore", level) for level in LEVELS), n)]
    runtime = [n for n in names if re.match(namespace("gencore", "runtime"), n)]
    assert names
    assert foreign == []
    assert internal == []
    assert [n for n in runtime if "register_cuda_table" not in n] == []  # the one door for the CUDA module
