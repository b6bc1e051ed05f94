"""Where the parts of an installed gencore lie that are not Python."""

from __future__ import annotations

from pathlib import Path

from gencore import _core


def cmake_dir() -> str:
    """Folder of gencore's CMake package, for C++ programs.

    ``cmake -Dgencore_DIR=$(python -c 'import gencore; print(gencore.cmake_dir())')`` lets
    ``find_package(gencore)`` find the library and the headers inside the installed Python package.

    Returns
    -------
    str
        Absolute path of the folder that holds ``gencoreConfig.cmake``.

    Raises
    ------
    FileNotFoundError
        gencore runs from a source tree and is not installed. ``cmake --install`` puts the library elsewhere.
    """
    package = Path(_core.__file__).parent / "lib" / "cmake" / "gencore"
    if not (package / "gencoreConfig.cmake").is_file():
        raise FileNotFoundError(
            f"cmake_dir: no CMake package at {package}: this gencore is not installed "
            "(cure: pip install ., or cmake --install BUILD --prefix PREFIX)"
        )
    return str(package)
