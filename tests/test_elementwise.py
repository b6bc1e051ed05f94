"""User-written elementwise ops: values, gradients, layouts, threads, errors, and the CUDA path in numba's simulator."""

import doctest
import math
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

numba = pytest.importorskip("numba", reason="numba is not installed")

import gencore as gc  # noqa: E402
from gencore._elementwise import cpu, cuda, op  # noqa: E402

EPS = float(np.finfo(np.float32).eps)
pytestmark = pytest.mark.peers
SLOPE = 0.1  # a global that ops read: it takes their dtype


@gc.elementwise(derivative=lambda x, a: (math.cos(x) * a, math.sin(x)))
def scaled_sine(x, a):
    return math.sin(x) * a


@gc.elementwise(derivative=lambda _x, y: y * (1.0 - y))
def sigmoid(x):
    return 1.0 / (1.0 + math.exp(-x))


@gc.elementwise(derivative=(lambda x, a: 1.0 if x > 0 else a, lambda x, _a: min(x, 0.0)))
def leaky(x, a):
    return x if x > 0 else a * x


@gc.elementwise(derivative=lambda x: 6.0 * x)
def cube_slope(x):
    return 3.0 * x * x


@gc.elementwise(derivative=cube_slope)
def cube(x):
    return x * x * x


@gc.elementwise(derivative=(lambda _x, y: 0.0, lambda _x, _y: 1.0))
def result_itself(x, y):
    """The result of the op that it is the slope of."""
    return y


@gc.elementwise(derivative=result_itself)
def exponential(x):
    return math.exp(x)


@gc.elementwise(derivative=(lambda x, y: 2.0 * y, lambda x, y: 2.0 * x))
def by_x(x, y):
    return 2.0 * x * y


@gc.elementwise(derivative=lambda x, y: (2.0 * x, 0.0))
def by_y(x, y):
    return x * x


@gc.elementwise(derivative=(by_x, by_y))
def square_times(x, y):
    return x * x * y


def normal(*shape, dtype=np.float32):
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(dtype)


# --- values -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n", [0, 1, 2, 7, 65, 8191, 3 * cpu.BLOCK + 5])
def test_values_and_dtype(n, dtype):
    x, a = normal(n, dtype=dtype), normal(n + 1, dtype=dtype)[1:]
    y = scaled_sine(x, a)
    assert y.dtype == dtype
    # A sine within an ulp, and one product.
    exact = np.sin(x.astype(np.longdouble)) * a
    assert np.all(np.abs(y - exact) <= 2 * np.finfo(dtype).eps * np.abs(exact))


LAYOUTS = {
    "transposed": lambda x: x.T.copy().T,
    "every second": lambda x: np.repeat(x, 2, axis=-1)[..., ::2],
    "backwards": lambda x: x[::-1].copy()[::-1],
    "row": lambda x: x[:1],
    "column": lambda x: x[:, :1],
    "vector": lambda x: x[0],
    "0-d": lambda x: x[0, 0],
    "number": lambda x: float(x.flat[0]),
    "unaligned": lambda x: np.frombuffer(b"x" + x.tobytes(), np.uint8)[1:].view(x.dtype).reshape(x.shape),
}


@pytest.mark.parametrize("shape", [(3, 5), (129, 257), (2, 3, 5), (1, 1), (700, 300)])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_any_layout_and_broadcast_gives_the_bits_of_contiguous_copies(layout, shape):
    x, a = normal(*shape), LAYOUTS[layout](normal(*shape) + 1)
    before = np.array(a)
    for first, other in ((x, a), (a, x)):
        copies = [np.ascontiguousarray(np.broadcast_to(v, shape), np.float32) for v in (first, other)]
        y = scaled_sine(first, other)
        assert y.flags.c_contiguous
        assert np.array_equal(y, scaled_sine(*copies))
    assert np.array_equal(before, a)


def test_both_sides_broadcast_and_read_only_inputs_are_taken():
    x, a = normal(4, 1), normal(5)
    x.flags.writeable = False
    y = scaled_sine(x, a)
    assert y.shape == (4, 5)
    assert np.array_equal(y, scaled_sine(*map(np.ascontiguousarray, np.broadcast_arrays(x, a))))


def test_numbers_alone_give_float64():
    assert scaled_sine(1, a=2.0).dtype == np.float64
    assert scaled_sine(1, 2) == pytest.approx(2 * math.sin(1), rel=1e-15)


def test_arguments_go_by_name_too():
    x = normal(3)
    assert np.array_equal(scaled_sine(a=x, x=2.0), scaled_sine(np.float32(2), x))


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_the_bits_do_not_depend_on_threads(threads):
    x = normal(5 * cpu.BLOCK + 17)
    strided = np.repeat(x, 2)[::2]
    want = sigmoid(x)
    before = gc.num_threads()
    gc.set_num_threads(threads)
    try:
        assert np.array_equal(sigmoid(x), want)
        assert np.array_equal(sigmoid(strided), want)
    finally:
        gc.set_num_threads(before)


def test_several_threads_may_call_at_once():
    x = normal(3 * cpu.BLOCK)
    want, got = sigmoid(x), []
    callers = [threading.Thread(target=lambda: got.append(sigmoid(x))) for _ in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert len(got) == 4
    assert all(np.array_equal(y, want) for y in got)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_computes():
    program = """
import math, os, numpy as np, gencore as gc
gc.set_num_threads(2)
f = gc.elementwise(lambda x: x * x)
x = np.ones(1 << 20, np.float32)
f(x)
child = os.fork()
if child == 0:
    os._exit(int(f(x).sum() != x.size))
raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)


def scaled(x):
    return SLOPE * x + 0.3


def test_floats_take_the_dtype_of_the_arguments():
    bias = 0.7  # in a closure

    @gc.elementwise
    def f(x):
        return scaled(x) + bias

    x = normal(1000)
    f32 = np.float32
    assert np.array_equal(f(x), (f32(SLOPE) * x + f32(0.3)) + f32(bias))
    assert np.array_equal(f(x.astype(float)), (SLOPE * x.astype(float) + 0.3) + bias)


def test_ops_and_functions_may_be_called_inside():
    @gc.elementwise
    def silu(x):
        return x * sigmoid(x)

    @gc.elementwise
    def tan(x):  # the name of an attribute that it reads
        return math.tan(x)

    x = normal(100)
    assert np.array_equal(silu(x), x * sigmoid(x))
    assert np.allclose(tan(x), np.tan(x), rtol=4 * EPS)  # an ulp or two each


ENDS = [
    0.0,
    -0.0,
    np.inf,
    -np.inf,
    np.nan,
    -1.0,
    1.0,
    88.72,
    88.73,
    -103.9,
    -104.1,
    1e-45,
    3e38,
    5e-5,
    0.1,
    -0.1,
]


@pytest.mark.parametrize("name", ["exp", "expm1", "tanh", "log", "log1p"])
@pytest.mark.parametrize("module", [math, np])
def test_stand_ins_for_functions_of_float32_are_right_to_their_last_place(name, module):
    function = getattr(module, name)

    @gc.elementwise
    def f(x):
        return function(x)

    bits = np.random.default_rng(1).integers(0, 1 << 32, 200_000, dtype=np.uint32)
    x = np.concatenate(
        [
            bits.view(np.float32),
            10 * normal(100_000),
            np.linspace(-0.2, 0.2, 100_001, dtype=np.float32),
            np.float32(ENDS),
        ]
    )
    with np.errstate(all="ignore"):
        exact = getattr(np, name)(x.astype(np.float64))
        want, got = exact.astype(np.float32), f(x)
        assert np.array_equal(np.isfinite(got), np.isfinite(want))
        assert np.array_equal(got[~np.isfinite(want)], want[~np.isfinite(want)], equal_nan=True)
        number = ~np.isnan(want)
        assert np.array_equal(np.signbit(got[number]), np.signbit(want[number]))
    finite = np.isfinite(want)
    # Half a unit for the rounding to float32; the polynomials add less than 0.02.
    unit = np.spacing(np.abs(want[finite])).astype(float)
    assert np.all(np.abs(got[finite] - exact[finite]) <= 0.52 * unit)
    # float64 has no stand-ins.
    y = np.abs(normal(100, dtype=np.float64))
    assert np.allclose(f(y), getattr(np, name)(y), rtol=1e-15)


def test_division_by_zero_does_not_raise():
    inverse = gc.elementwise(lambda x: 1.0 / x)
    assert inverse(np.zeros(1, np.float32))[0] == np.inf


# --- gradients ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("f", "points"),
    [
        (scaled_sine, ([0.3, -2.0, 5.0], 1.5)),
        (sigmoid, ([-30.0, -1.0, 0.0, 2.0],)),
        (leaky, ([-3.0, 2.0], [0.1, 0.2])),
        (cube, ([-1.0, 0.0, 2.0],)),
        (exponential, ([-1.0, 0.5],)),
        (square_times, ([1.0, -2.0], [3.0, 0.5])),
    ],
    ids=lambda v: getattr(v, "__name__", ""),
)
def test_declared_derivatives_hold(f, points):
    f.check(*points)


def test_gradients_of_broadcast_arguments_are_summed():
    x, a, weight = normal(4, 3), normal(3), normal(4, 3) + 2
    tx, ta = gc.tensor(x, requires_grad=True), gc.tensor(a, requires_grad=True)
    scaled_sine(tx, ta).backward(weight.astype(np.float64))  # weights of another dtype
    assert (tx.grad.dtype, ta.grad.dtype) == (np.float32, np.float32)
    exact_x = weight * np.cos(x.astype(float)) * a
    exact_a = weight * np.sin(x.astype(float))
    # Three roundings and a cosine; then a sum of four.
    assert np.all(np.abs(tx.grad.numpy() - exact_x) <= 4 * EPS * np.abs(exact_x))
    assert np.all(np.abs(ta.grad.numpy() - exact_a.sum(0)) <= 8 * EPS * np.abs(exact_a).sum(0))


def test_only_gradients_that_are_needed_are_computed():
    x, a = gc.tensor(normal(5), requires_grad=True), normal(5)
    scaled_sine(x, a).sum().backward()
    y = scaled_sine(gc.tensor(a), x.detach())
    assert y.requires_grad is False
    assert np.array_equal(
        x.grad.numpy(), np.float32(1) * gc.elementwise(lambda x, a: math.cos(x) * a)(x.numpy(), a)
    )


def test_what_no_derivative_mentions_is_not_kept():
    x = gc.tensor(normal(5), requires_grad=True)
    y = sigmoid(x)  # reads its result only
    x.data[:] = 0
    y.sum().backward()
    y = y.numpy()
    assert np.array_equal(x.grad.numpy(), y * (1 - y))
    z = gc.tensor(normal(5), requires_grad=True)
    u = scaled_sine(z, 1.0)
    z.data[:] = 0
    with pytest.raises(RuntimeError, match="edited in place"):
        u.sum().backward()


@pytest.mark.parametrize(
    ("f", "slopes"),
    [
        (cube, (lambda x: 3 * x**2, lambda x: 6 * x)),
        (exponential, (np.exp, np.exp)),
    ],
    ids=["cube", "exponential"],
)
def test_second_derivatives(f, slopes):
    x = gc.tensor(normal(7, dtype=np.float64), requires_grad=True)
    (first,) = gc.grad(f(x).sum(), [x], create_graph=True)
    (second,) = gc.grad(first.sum(), [x])
    for got, slope in zip((first, second), slopes, strict=True):
        assert np.allclose(
            got.detach().numpy(), slope(x.detach().numpy()), rtol=8e-16
        )  # a few roundings in float64


def test_a_third_derivative_where_all_are_declared():
    constant = gc.elementwise(derivative=lambda x: 0.0)(lambda x: 6.0)
    linear = gc.elementwise(derivative=constant)(lambda x: 6.0 * x)
    quadratic = gc.elementwise(derivative=linear)(lambda x: 3.0 * x * x)
    f = gc.elementwise(derivative=quadratic)(lambda x: x * x * x)
    x = gc.tensor(normal(5), requires_grad=True)
    g = f(x)
    for _ in range(3):
        (g,) = gc.grad(g.sum(), [x], create_graph=True)
    assert np.array_equal(g.detach().numpy(), np.full(5, 6, np.float32))


def test_mixed_second_derivatives():
    x = gc.tensor(normal(6, dtype=np.float64), requires_grad=True)
    y = gc.tensor(normal(1, 6, dtype=np.float64), requires_grad=True)
    gx, gy = gc.grad((3 * square_times(x, y)).sum(), [x, y], create_graph=True)
    hx, hy = gc.grad((gx * x).sum() + 2 * gy.sum(), [x, y])
    # 3 x^2 y has gx = 6 x y, gy = 3 x^2: by x 12 (x y + x), by y 6 x^2, each a few roundings of its terms.
    a, b = x.detach().numpy(), y.detach().numpy()
    assert np.all(np.abs(hx.numpy() - 12 * (a * b + a)[0]) <= 2e-15 * 12 * (np.abs(a * b) + np.abs(a))[0])
    assert np.allclose(hy.numpy(), 6 * a * a, rtol=2e-15)


def test_a_plain_derivative_says_why_it_cannot_be_differentiated():
    x = gc.tensor(normal(3), requires_grad=True)
    (first,) = gc.grad(scaled_sine(x, 2.0).sum(), [x], create_graph=True)
    with pytest.raises(TypeError, match=r"scaled_sine: cannot be differentiated twice.*gc\.elementwise ops"):
        gc.grad(first.sum(), [x])


def test_the_gradient_is_differentiable_by_its_weights_all_the_same():
    x, v = gc.tensor(normal(3), requires_grad=True), gc.tensor(np.ones(3, np.float32), requires_grad=True)
    (first,) = gc.grad(scaled_sine(x, 2.0), [x], v, create_graph=True)
    (slope,) = gc.grad(first.sum(), [v])
    assert np.allclose(slope.numpy(), 2 * np.cos(x.detach().numpy()), rtol=3 * EPS)


def test_without_a_derivative():
    f = gc.elementwise(lambda x: 2.0 * x)
    x = gc.tensor(normal(3), requires_grad=True)
    with pytest.raises(TypeError, match="has no derivative; declare it"):
        f(x).sum().backward()
    gc.defvjp(f, lambda g, _ans, _x: 2 * g)
    f(x).sum().backward()
    assert np.array_equal(x.grad.numpy(), [2, 2, 2])
    assert not gc.nondiff(gc.elementwise(lambda x: x))(x).requires_grad


# --- errors -------------------------------------------------------------------------------------------------------


def made(derivative=None, function=lambda x, a: x * a):
    return gc.elementwise(derivative=derivative)(function)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: made((math.sin, math.sin, math.sin)), ("expected 2 derivatives", "received 3")),
        (lambda: made(lambda x: x), ("derivative", "take x, a", "received a function of (x)")),
        (lambda: made((lambda x, a: a, lambda x: x)), ("derivative for a", "received a function of (x)")),
        (lambda: made((np.cos, np.cos)), ("derivative for x", "Python function", "ufunc 'cos'")),
        (lambda: made(function=math.sin), ("expected a Python function", "sin")),
        (lambda: made(function=lambda: 1.0), ("1 to 4 arguments", "received 0")),
        (lambda: made(function=lambda x, y=1.0: x), ("without defaults", "y=1.0")),
        (lambda: made(function=lambda *xs: xs[0]), ("plain arguments", "*xs")),
    ],
)
def test_wrong_declarations(make, words):
    with pytest.raises(TypeError) as raised:
        make()
    assert all(word in str(raised.value) for word in words), raised.value


X = np.ones(3, np.float32)


@pytest.mark.parametrize(
    ("call", "kind", "words"),
    [
        (lambda: scaled_sine(X, X.astype(np.int64)), TypeError, ("scaled_sine", "a", "float32", "int64", "astype")),
        (lambda: scaled_sine(X, X.astype(float)), TypeError, ("a to be float32 as x is", "float64")),
        (lambda: scaled_sine(X.astype(np.float16), 1), TypeError, ("x", "float16")),
        (lambda: scaled_sine(X.astype(">f4"), 1), TypeError, ("x", ">f4")),
        (lambda: scaled_sine([1.0], 1), TypeError, ("x", "array", "list")),
        (lambda: scaled_sine(X, np.ones(4, np.float32)), ValueError, ("broadcast", "x (3,)", "a (4,)")),
        (lambda: scaled_sine(X), TypeError, ("expected x, a", "received 1")),
        (lambda: scaled_sine(X, b=2), TypeError, ("expected x, a", "b")),
        (lambda: scaled_sine.check(1.0), TypeError, ("expected 2 points", "received 1")),
        (lambda: made(function=lambda x: (x, x))(X), TypeError, ("return a number", "Tuple", "float32")),
        (lambda: made(function=lambda x: None)(X), TypeError, ("return a number", "none")),
        (lambda: made(function=lambda x: x.shape)(X), TypeError, ("numba cannot compile it for float32", "shape")),
        (lambda: made(function=lambda x: unknown(x))(X), TypeError, ("numba cannot compile", "unknown")),  # noqa: F821
        (lambda: made(lambda x, a: (a, x, x)).check(1.0, 2.0), TypeError, ("tuple of 2 numbers", "Tuple")),
        (lambda: made(lambda x, a: a).check(1.0, 2.0), TypeError, ("tuple of 2 numbers", "float64")),
        (lambda: made(lambda x, a: (a, 2.0 * x)).check(1.0, 2.0), ValueError, ("for a to be 1", "x=1, a=2", "2")),
        (lambda: made().check(1.0, 2.0), TypeError, ("no derivative",)),
    ],
)  # fmt: skip
def test_wrong_calls(call, kind, words):
    with pytest.raises(kind) as raised:
        call()
    assert all(word in str(raised.value) for word in words), raised.value


def test_recursion_is_refused():
    def f(x):
        return f(x - 1.0) if x > 0 else x

    with pytest.raises(TypeError, match="no recursion"):
        gc.elementwise(f)(X)


def test_check_sees_a_small_mistake_and_a_wrong_slope():
    wrong = gc.elementwise(derivative=lambda x: math.cos(x) * 1.00001)(lambda x: math.sin(x))
    with pytest.raises(ValueError, match="central difference"):
        wrong.check(1.0)
    wrong.check(1.0, rtol=2e-5)
    slope = gc.elementwise(derivative=lambda x: math.sin(x))(lambda x: math.cos(x))  # a sign is missing
    with pytest.raises(ValueError, match=r"for x to be -0\.84"):
        gc.elementwise(derivative=slope)(lambda x: math.sin(x)).check(1.0)


def test_without_numba_the_error_names_the_extra():
    program = """
import sys
sys.modules["numba"] = None
import gencore as gc, numpy as np
f = gc.elementwise(lambda x: x)
try:
    f(np.ones(3))
except ImportError as error:
    assert "gencore[numba]" in str(error), error
else:
    raise SystemExit(1)
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)


def test_importing_gencore_does_not_import_numba():
    program = "import sys, gencore as gc; gc.elementwise(lambda x: x); assert 'numba' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)


def test_docstring():
    assert doctest.testmod(op).failed == 0


# --- CUDA ---------------------------------------------------------------------------------------------------------


def test_the_cuda_path_in_the_simulator():
    """In a program of its own: numba chooses its simulator when it is imported."""
    program = Path(__file__).with_name("elementwise_simulator.py")
    done = subprocess.run(
        [sys.executable, program],
        env={**os.environ, "NUMBA_ENABLE_CUDASIM": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "launches" in done.stdout


@pytest.mark.parametrize("n", [1, 33, 4096, 4097, 10_000, 32_768, 32_769, 10**6, 10**9])
def test_blocks_are_never_so_few_that_numba_warns(n):
    """Whole warps, as many as there are elements but for the most that are launched."""
    blocks, threads = cuda.grid(n)
    assert 128 <= blocks <= cuda.MOST_BLOCKS
    assert threads % 32 == 0
    assert threads <= 256
    assert blocks * threads >= min(n, cuda.MOST_BLOCKS * 256)
    assert blocks == 128 or (blocks - 1) * threads < n


@pytest.mark.gpu
def test_on_a_device_as_on_the_host():
    cupy = pytest.importorskip("cupy", reason="CuPy is not installed")
    try:
        cupy.cuda.runtime.getDeviceCount()
    except cupy.cuda.runtime.CUDARuntimeError as error:
        pytest.skip(f"no CUDA device: {error}")
    x, a = normal(513, 77), normal(77)
    tx, ta = (gc.tensor(cupy.asarray(v), requires_grad=True) for v in (x, a))
    stream = cupy.cuda.Stream(non_blocking=True)
    with stream:
        y = scaled_sine(tx, ta)
        y.sum().backward()
    stream.synchronize()
    # A sine within 2 ulp there and 1 here, and a product.
    assert np.allclose(cupy.asnumpy(y.data), scaled_sine(x, a), rtol=4 * EPS, atol=0)
    assert np.allclose(cupy.asnumpy(tx.grad.data), np.cos(x.astype(float)) * a, rtol=6 * EPS, atol=0)
