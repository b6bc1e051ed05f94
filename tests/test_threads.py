"""The thread pool: several callers, forks, limits from outside, and settings that make no sense."""

import multiprocessing
import os
import subprocess
import sys
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

import gencore
from gencore.kernels import rbm

W = np.random.default_rng(0).normal(0, 0.1, (150, 140)).astype(np.float32)
B, C = np.zeros(150, np.float32), np.zeros(140, np.float32)


def work(seed):
    """A call of every shape of parallel loop: chains, a gradient, an enumeration."""
    v = np.random.default_rng(seed).integers(0, 2, (600, 150)).astype(np.uint8)
    chains = rbm.gibbs_chain(W, B, C, v, steps=3, key=seed)
    gradient = rbm.cd_gradient(W, B, C, v, k=1, key=seed)
    log_z = rbm.log_partition_exact(W[:12], B[:12], C)
    return chains.tobytes() + gradient.weight.tobytes() + np.float64(log_z).tobytes()


@pytest.fixture
def two_threads():
    before = gencore.num_threads()
    gencore.set_num_threads(2)
    yield
    gencore.set_num_threads(before)


def test_several_callers_at_once(two_threads):
    expected = [work(seed) for seed in range(6)]
    with ThreadPoolExecutor(6) as callers:
        for _ in range(5):
            assert list(callers.map(work, range(6))) == expected


def test_an_error_of_one_caller_leaves_the_others_alone(two_threads):
    expected = work(1)

    def mistake(_):
        with pytest.raises(ValueError, match="finite"):
            rbm.gibbs_chain(np.full_like(W, np.nan), B, C, np.zeros((600, 150), np.uint8), steps=1, key=0)
        return expected

    with ThreadPoolExecutor(4) as callers:
        calls = [callers.submit(mistake if i % 2 else work, 1) for i in range(20)]
        assert all(call.result() == expected for call in calls)


def test_changing_the_number_of_threads_while_kernels_run(two_threads):
    expected = work(2)
    with ThreadPoolExecutor(2) as callers:
        calls = [callers.submit(work, 2) for _ in range(10)]
        for n in [1, 2, 3, 4] * 20:
            gencore.set_num_threads(n)
        assert all(call.result() == expected for call in calls)


def in_child(connection, seed):
    connection.send_bytes(work(seed))
    connection.close()


def result_of_child(context, seed, timeout=60):
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=in_child, args=(sender, seed))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 warns of what is tested here
        child.start()
    sender.close()
    assert receiver.poll(timeout), "the child hangs"
    result = receiver.recv_bytes()
    child.join(timeout)
    assert child.exitcode == 0
    return result


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_multiprocessing(method, two_threads):
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"no {method} here")
    expected = work(3)  # the pool is up before the fork
    assert result_of_child(multiprocessing.get_context(method), 3) == expected
    assert work(3) == expected


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_fork_while_kernels_run(two_threads):
    """The child of a fork in the middle of another thread's call has a pool and scratch memory of its own."""
    expected, stop = work(4), threading.Event()

    def keep_busy():
        while not stop.is_set():
            work(5)

    busy = threading.Thread(target=keep_busy)
    busy.start()
    try:
        for _ in range(10):
            assert result_of_child(multiprocessing.get_context("fork"), 4) == expected
    finally:
        stop.set()
        busy.join()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_grandchildren(two_threads):
    expected = work(6)
    code = (
        "import os, sys, test_threads as t\n"
        "t.gencore.set_num_threads(2)\n"
        "expected = t.work(6)\n"
        "for generation in range(3):\n"
        "    child = os.fork()\n"
        "    if child:\n"
        "        sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n"
        "    assert t.work(6) == expected\n"
        "os._exit(7)\n"
    )
    assert python(code).returncode == 7
    assert work(6) == expected


# --- limits from outside -------------------------------------------------------------------------------------


def test_threadpoolctl(two_threads):
    pools = [pool for pool in threadpool_info() if pool["user_api"] == "gencore"]
    assert len(pools) == 1
    assert pools[0]["num_threads"] == 2
    assert pools[0]["version"] == gencore.__version__
    assert pools[0]["isa"] == gencore.isa()
    expected = work(7)
    with threadpool_limits(limits=1, user_api="gencore"):
        assert gencore.num_threads() == 1
        assert work(7) == expected
    assert gencore.num_threads() == 2
    with threadpool_limits(limits=1):
        assert gencore.num_threads() == 1
    assert gencore.num_threads() == 2


@pytest.mark.parametrize("n", [0, -1, 1025, 2**31 - 1])
def test_numbers_of_threads_that_cannot_be(n):
    before = gencore.num_threads()
    with pytest.raises(
        ValueError, match=rf"set_num_threads: expected n an integer from 1 to 1024, received {n}"
    ):
        gencore.set_num_threads(n)
    assert gencore.num_threads() == before


@pytest.mark.parametrize("n", ["2", 1.5, None])
def test_what_is_no_number_of_threads(n):
    with pytest.raises(TypeError):
        gencore.set_num_threads(n)


def python(code, **environment):
    """Runs code in a fresh process with these variables; None removes one."""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([os.path.dirname(__file__), *filter(None, sys.path)])}
    for name in ("GENCORE_NUM_THREADS", "OMP_NUM_THREADS", "GENCORE_ISA"):
        env.pop(name, None)
    env |= environment
    return subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("value", ["0", "-2", "two", "1.5", "1025", "99999999999999999999", "2 3", "4,2"])
def test_bad_number_of_threads_in_the_environment(value):
    result = python("import gencore", GENCORE_NUM_THREADS=value)
    assert result.returncode != 0
    expected = f"gencore: expected GENCORE_NUM_THREADS an integer from 1 to 1024, received '{value}'"
    assert expected in result.stderr


@pytest.mark.parametrize("value", ["sse9", "AVX2", "avx", " avx2"])
def test_bad_isa_in_the_environment(value):
    result = python("import gencore", GENCORE_ISA=value)
    assert result.returncode != 0
    assert f"gencore: expected GENCORE_ISA one of baseline, avx2, avx512, received '{value}'" in result.stderr


@pytest.mark.parametrize("level", gencore.isa_levels())
def test_isa_in_the_environment(level):
    assert python("import gencore; print(gencore.isa())", GENCORE_ISA=level).stdout.strip() == level


def test_unset_isa_is_the_best():
    assert python("import gencore; print(gencore.isa())").stdout.strip() == gencore.isa_levels()[-1]


ALL = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
PRINT = "import gencore; print(gencore.num_threads())"


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, ALL),
        ({"GENCORE_NUM_THREADS": "3"}, 3),
        ({"GENCORE_NUM_THREADS": " 1 "}, 1),
        ({"GENCORE_NUM_THREADS": "", "OMP_NUM_THREADS": "1"}, 1),
        ({"GENCORE_NUM_THREADS": "5", "OMP_NUM_THREADS": "1"}, 5),
        ({"OMP_NUM_THREADS": "1,2"}, 1),
        ({"OMP_NUM_THREADS": "1000"}, ALL),
        ({"OMP_NUM_THREADS": "many"}, ALL),
    ],
)
def test_threads_in_the_environment(environment, expected):
    assert int(python(PRINT, **environment).stdout) == expected


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinity masks here")
def test_affinity_mask():
    one = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); "
    assert int(python(one + PRINT).stdout) == 1
