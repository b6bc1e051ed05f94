"""Every op of the grid, in every way that the house promises: see cases/case.py for the format of a row."""

import functools
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from cases import CASES, Bad
from cases.case import arrays_in, assert_agrees, expected_of

from gencore import _core

ROWS = [
    pytest.param(case, i, id=f"{case.name}-{i}") for case in CASES.values() for i in range(len(case.sizes))
]
every_row = pytest.mark.parametrize(("case", "i"), ROWS)
BATCHES = [row for row in ROWS if row.values[0].batch and row.values[0].sizes[row.values[1]]["n"] > 1]
every_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


@pytest.fixture
def threads():
    """Sets the number of threads, and puts it back."""
    before = _core.num_threads()
    yield _core.set_num_threads
    _core.set_num_threads(before)


def same_bits(a, b, what):
    assert a.keys() == b.keys()
    for name in a:
        assert a[name].tobytes() == b[name].tobytes(), f"{what}: {name} differs"


def test_every_function_has_a_case():
    families = {case.name.partition(".")[0] for case in CASES.values()}
    functions = {name for name in _core.signatures if name.partition("_")[0] in families}
    assert {case.name.replace(".", "_") for case in CASES.values()} == functions


def test_every_argument_is_exercised():
    """Each argument of each function is given by some size of its case."""
    for case in CASES.values():
        given = set(case.in_place)
        for size in case.sizes:
            given |= set(case.good_inputs(size)) | set(case.outputs(size))
        assert given == set(_core.signatures[case.name.replace(".", "_")]), case.name


@every_row
def test_forward(case, i):
    assert_agrees(case.run_size(case.sizes[i]), expected_of(case.name, i), case.name)


@pytest.mark.parametrize(("case", "i"), [row for row in ROWS if row.values[0].public])
def test_public_function_is_the_op(case, i):
    size = case.sizes[i]
    same_bits(
        case.public(case.good_inputs(size), size), case.run_size(size), f"{case.name} through gencore.kernels"
    )


@every_row
def test_same_bits_for_any_number_of_threads(case, i, threads):
    results = []
    for n in (1, 2, 3):
        threads(n)
        results.append(case.run_size(case.sizes[i]))
    same_bits(results[0], results[1], f"{case.name} on 1 and 2 threads")
    same_bits(results[0], results[2], f"{case.name} on 1 and 3 threads")


@pytest.mark.parametrize(("case", "i"), BATCHES)
def test_same_bits_for_any_split_of_the_batch(case, i):
    size = case.sizes[i]
    arguments, whole = case.good_inputs(size), case.run_size(size)
    cut = 1 + size["n"] // 3
    parts = [case.run_part(arguments, size, *ends) for ends in ((0, cut), (cut, size["n"]))]
    for name in set(case.batch) & set(whole):
        joined = np.concatenate([part[name] for part in parts])
        assert joined.tobytes() == whole[name].tobytes(), f"{case.name}: {name} shows where the batch was cut"


@every_row
def test_inputs_are_never_written(case, i):
    size = case.sizes[i]
    arguments, untouched = case.good_inputs(size), case.good_inputs(size)
    for name, array in arrays_in(arguments).items():
        array.flags.writeable = name.partition("[")[0] in case.in_place
    result = case.run(arguments, case.outputs(size))
    same_bits(arrays_in(arguments), arrays_in(untouched), f"{case.name} wrote an input, which")
    same_bits(result, case.run_size(size), f"{case.name} on read-only inputs")


@pytest.mark.parametrize(("case", "i"), [row for row in ROWS if row.values[0].optional])
def test_optional_outputs_do_not_change_the_others(case, i):
    size = case.sizes[i]
    shapes = case.outputs(size)
    wanted = {name: shape for name, shape in shapes.items() if name not in case.optional}
    expected = {k: a for k, a in case.run_size(size).items() if k not in shapes or k in wanted}
    same_bits(case.run(case.good_inputs(size), wanted), expected, case.name)


@pytest.fixture(scope="module")
def results_of_level(tmp_path_factory):
    """All outputs of all cases, from a process that runs another ISA level."""
    found = {}

    def results(level):
        if level not in found:
            path = tmp_path_factory.mktemp(level) / "results.npz"
            paths = os.pathsep.join([str(Path(__file__).parent), *filter(None, sys.path)])
            env = {**os.environ, "GENCORE_ISA": level, "PYTHONPATH": paths}
            subprocess.run([sys.executable, "-m", "cases", str(path)], env=env, check=True, timeout=300)
            with np.load(path) as stored:
                assert str(stored["isa"]) == level
                found[level] = dict(stored)
        return found[level]

    return results


@pytest.mark.parametrize("level", ["baseline", "avx2", "avx512"])
@every_case
def test_isa_level(case, level, results_of_level):
    """Each level meets the reference; integers and uniforms, whose bounds are 0, hence agree exactly."""
    if level not in _core.isa_levels():
        pytest.skip(f"this processor does not run {level}")
    results = results_of_level(level)
    for i in range(len(case.sizes)):
        head = f"{case.name}/{i}/"
        actual = {key.removeprefix(head): array for key, array in results.items() if key.startswith(head)}
        assert_agrees(actual, expected_of(case.name, i), f"{case.name} on {level}")


# --- wrong calls --------------------------------------------------------------------------------------------


@functools.cache
def fullest_size(name):
    """The size that gives as many arguments as any, and at least two examples."""
    case = CASES[name]
    return max(case.sizes, key=lambda s: (min(s.get("n", 2), 2), len(case.good_inputs(s))))


def good_call(case):
    """A call with every output and as many arguments as some size gives, and at least two examples."""
    size = fullest_size(case.name)
    arguments = case.good_inputs(size)
    arguments |= {name: np.zeros(shape, dtype) for name, (shape, dtype) in case.outputs(size).items()}
    return arguments


def strided(array):
    return np.repeat(array, 2, axis=-1)[..., ::2]


def misaligned(array):
    memory = np.empty(array.nbytes + 1, np.uint8)
    moved = memory[1:].view(array.dtype).reshape(array.shape)
    moved[...] = array
    return moved


def read_only(array):
    array = array.copy()
    array.flags.writeable = False
    return array


def wrong_arrays(case):
    """What is wrong with an array whatever the op, for each array argument."""
    call = good_call(case)
    written = {*case.in_place, *case.outputs(case.sizes[0])}
    for name, kind in _core.signatures[case.name.replace(".", "_")].items():
        if kind != "Array" or name not in call:
            continue
        array = call[name]
        other = np.float32 if array.dtype == np.float64 else np.float64
        for dtype in (other, np.int32, np.float16, np.complex64, array.dtype.newbyteorder(">")):
            if np.dtype(dtype) != array.dtype:
                yield Bad(name, array.astype(dtype), TypeError, ("dtype", str(np.dtype(dtype))))
        yield Bad(name, array[None], ValueError, ("dimension", str(array[None].shape)))
        yield Bad(name, np.zeros((), array.dtype), ValueError, ("dimension", "()"))
        yield Bad(name, array.tolist(), TypeError, ("array", "list"))
        yield Bad(name, "text", TypeError, ("array", "str"))
        if array.size > 1:
            yield Bad(name, strided(array), TypeError, ("contiguous", "strided"))
        if array.ndim > 1 and min(array.shape) > 1:
            yield Bad(name, np.asfortranarray(array), TypeError, ("contiguous", "Fortran"))
        if array.itemsize > 1:
            yield Bad(name, misaligned(array), TypeError, ("aligned",))
        if name in written:
            yield Bad(name, read_only(array), TypeError, ("writable", "read-only"))
        if name not in case.optional:
            yield Bad(name, None, ValueError, ("given", "nothing"))


def wrong_lists(case):
    """What is wrong with any list of arrays, or with an array in it."""
    call = good_call(case)
    for name, kind in _core.signatures[case.name.replace(".", "_")].items():
        if kind != "Arrays" or name not in call:
            continue
        good = call[name]
        k = max(range(len(good)), key=lambda k: good[k].size)
        here = f"{name}[{k}]"

        def with_element(element, good=good, k=k):
            return [*good[:k], element, *good[k + 1 :]]

        for dtype in (np.float64, np.int32, np.float16, good[k].dtype.newbyteorder(">")):
            wrong = with_element(good[k].astype(dtype))
            yield Bad(name, wrong, TypeError, (here, "dtype", str(np.dtype(dtype))))
        yield Bad(name, with_element(strided(good[k])), TypeError, (here, "contiguous", "strided"))
        yield Bad(name, with_element(misaligned(good[k])), TypeError, (here, "aligned"))
        yield Bad(name, with_element(None), TypeError, (here, "array", "NoneType"))
        if name in case.in_place:
            yield Bad(name, with_element(read_only(good[k])), TypeError, (here, "writable", "read-only"))
        yield Bad(name, good[k], TypeError, ("list or tuple", "ndarray"))
        yield Bad(name, iter(good), TypeError, ("list or tuple", "list_iterator"))
        if name not in case.optional:
            yield Bad(name, None, ValueError, ("given", "nothing"))


def all_bad(case):
    yield from wrong_arrays(case)
    yield from wrong_lists(case)
    yield from case.bad


def refuses(case, bad):
    call = good_call(case)
    wrong = bad.apply(call)
    with pytest.raises(bad.error) as caught:
        case.function(**wrong)
    assert type(caught.value) is bad.error
    for word in (f"{case.name}: expected ", ", received ", bad.argument, *bad.words):
        assert word in str(caught.value), f"{word!r} is missing in: {caught.value}"


@every_case
def test_wrong_calls(case):
    for bad in all_bad(case):
        try:
            refuses(case, bad)
        except BaseException as error:
            error.add_note(f"{case.name} with {bad}")
            raise


@every_case
def test_good_call_of_the_wrong_calls(case):
    """The call that wrong calls are made from is right, so that what they change is what is refused."""
    case.function(**good_call(case))


@every_case
def test_missing_and_unknown_arguments(case):
    call = good_call(case)
    with pytest.raises(TypeError, match=rf"{case.name}: has no argument temperatur"):
        case.function(**call, temperatur=1)
    with pytest.raises(TypeError):
        case.function(*call.values())
    for name, kind in _core.signatures[case.name.replace(".", "_")].items():
        if kind in ("Array", "Arrays") and name not in case.optional:
            without = {k: v for k, v in call.items() if k != name}
            with pytest.raises(
                ValueError, match=rf"{case.name}: expected .*{name}.* to be given, received nothing"
            ):
                case.function(**without)
