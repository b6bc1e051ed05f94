"""Gradients of the dense family: through the tape against differences of float64, at the ends, against PyTorch."""

from functools import partial

import numpy as np
import pytest
from cases.dense import ACTIVATIONS, TRUTH, layer, linear_vjp_inputs, linear_vjp_reference
from hypothesis import given
from hypothesis import strategies as st
from reference.differences import curvature, derivatives, dot, slope
from reference.rounding import U

import gencore as gc
from gencore import _core
from gencore.kernels import dense

INF = np.float32(np.inf)
TARGETS = ("bool", "uint8", "real")


def float32(rng, *shape, scale=1.0):
    return rng.normal(0, scale, shape).astype(np.float32)


# --- layers -------------------------------------------------------------------------------------------------


def loss(y, c):
    """Its gradient c + y moves with y, so that second derivatives go through the gradient as well."""
    return np.sum(c * y + 0.5 * y * y)


def layer_scale(x, w, bias, c, y, d, e=None):
    """The sum of the magnitudes of all terms of the derivative along d (and e).

    |A|: how far the field x w + bias moves. Slopes of activations are at most 1, their slopes at most 1, and theirs
    at most 2; they come from a field whose error is that of its magnitude P, hence the factors 2 and 1 + P.
    """
    x, w, bias, c, y = (np.abs(a).astype(np.float64) for a in (x, w, bias, c, y))

    def moves(d):
        dx, dw, db = (np.abs(a) for a in d)
        return dx @ w + x @ dw + db

    cotangent, p = c + y + 1, x @ w + bias
    if e is None:
        return float(np.sum(2 * cotangent * moves(d) * (1 + p)))
    both = np.abs(d[0]) @ np.abs(e[1]) + np.abs(e[0]) @ np.abs(d[1])
    return float(np.sum(2 * cotangent * (moves(d) * moves(e) + both) * (1 + p)))


def away_from_kinks(rng, activation, m, n, k):
    while True:
        x, w, bias = float32(rng, m, k), float32(rng, k, n), float32(rng, n)
        if activation != "relu" or np.abs(x.astype(float) @ w + bias).min() > 0.05:
            return x, w, bias


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize(
    ("name", "transpose_a", "transpose_b"),
    [("linear", False, False), *(("matmul", a, b) for a in (False, True) for b in (False, True))],
)
def test_first_and_second_derivatives_of_a_layer(name, activation, transpose_a, transpose_b):
    """m + n + k roundings of sums, and less than 30 of element by element."""
    m, n, k = 5, 4, 3
    rng = np.random.default_rng([transpose_a, transpose_b, ACTIVATIONS.index(activation)])
    x, w, bias = away_from_kinks(rng, activation, m, n, k)
    c = float32(rng, m, n)
    d, e = (
        [rng.normal(0, 1, a.shape).astype(np.float32).astype(np.float64) for a in (x, w, bias)] for _ in "de"
    )

    def f(x, w, bias):
        return loss(TRUTH[activation](x @ w + bias), c)

    def op(a, b, bias):
        if name == "linear":
            return loss(dense.linear(a, b, bias, activation=activation), c)
        options = {"transpose_a": transpose_a, "transpose_b": transpose_b, "activation": activation}
        return loss(dense.matmul(a, b, bias, **options), c)

    def stored(x, w, bias):
        return [x.T.copy() if transpose_a else x, w.T.copy() if transpose_b else w, bias]

    first, second = derivatives(op, stored(x, w, bias), stored(*d))
    y = TRUTH[activation](x.astype(np.float64) @ w + bias)
    roundings = (m + n + k + 30) * U
    assert abs(dot(first, stored(*d)) - slope(f, (x, w, bias), d)) <= roundings * layer_scale(
        x, w, bias, c, y, d
    )
    expected = curvature(f, (x, w, bias), d, e)
    assert expected != 0
    assert abs(dot(second, stored(*e)) - expected) <= roundings * layer_scale(x, w, bias, c, y, d, e)


def test_gradients_of_a_layer_without_bias_and_of_some_arguments():
    rng = np.random.default_rng(1)
    x, w, g = float32(rng, 6, 5), float32(rng, 5, 3), float32(rng, 6, 3)
    whole = dense.linear_vjp(g, x, w, dense.linear(x, w, activation="tanh"), activation="tanh")
    for needs in ((True, True), (True, False), (False, True)):
        leaves = [gc.tensor(a, requires_grad=need) for a, need in zip((x, w), needs, strict=True)]
        dense.linear(*leaves, activation="tanh").backward(g)
        for leaf, need, expected in zip(leaves, needs, whole, strict=False):
            assert (leaf.grad is None) == (not need)
            if need:
                assert leaf.grad.numpy().tobytes() == expected.tobytes()


def bits_of_derivatives(function, left, *leaves):
    """Of a sum of squares, first and second, with respect to the leaves."""
    leaves = [gc.tensor(v, requires_grad=True) for v in leaves]
    first = gc.grad(np.sum(np.square(function(left, *leaves))), leaves, create_graph=True)
    second = gc.grad(np.sum(np.square(first[0])) + np.sum(np.square(first[1])), leaves)
    return [g.numpy().tobytes() for g in (*first, *second)]


@pytest.mark.parametrize("transpose_a", [False, True])
@pytest.mark.parametrize("transpose_b", [False, True])
def test_bytes_have_the_derivatives_of_the_same_floats(transpose_a, transpose_b):
    rng = np.random.default_rng(7)
    a = (rng.random((70, 9) if transpose_a else (9, 70)) < 0.4).astype(np.uint8)
    b, bias = float32(rng, *((21, 70) if transpose_b else (70, 21))), float32(rng, 21)
    function = partial(dense.matmul, transpose_a=transpose_a, transpose_b=transpose_b, activation="tanh")
    assert bits_of_derivatives(function, a, b, bias) == bits_of_derivatives(
        function, a.astype(np.float32), b, bias
    )


@pytest.mark.parametrize("dtype", [np.uint8, np.bool_])
def test_a_layer_of_bytes_has_the_derivatives_of_a_layer_of_floats(dtype):
    rng = np.random.default_rng(8)
    x = rng.random((3, 5, 70)) < 0.4
    w, bias = float32(rng, 70, 21), float32(rng, 21)
    function = partial(dense.linear, activation="logistic")
    floats = bits_of_derivatives(function, x.astype(np.float32), w, bias)
    assert bits_of_derivatives(function, x.astype(dtype), w, bias) == floats


def test_leading_axes_are_rows():
    rng = np.random.default_rng(2)
    x, w, bias, g = float32(rng, 2, 3, 5), float32(rng, 5, 4), float32(rng, 4), float32(rng, 2, 3, 4)
    y = dense.linear(x, w, bias, activation="logistic")
    flat = dense.linear(x.reshape(6, 5), w, bias, activation="logistic")
    assert y.shape == (2, 3, 4)
    assert y.tobytes() == flat.tobytes()
    grads = dense.linear_vjp(g, x, w, y, activation="logistic")
    flat_grads = dense.linear_vjp(g.reshape(6, 4), x.reshape(6, 5), w, flat, activation="logistic")
    assert [a.shape for a in grads] == [(2, 3, 5), (5, 4), (4,)]
    assert [a.tobytes() for a in grads] == [a.tobytes() for a in flat_grads]
    alone = dense.linear_vjp(g, None, w, y, activation="logistic", needs=(True, False, False))
    assert alone[0].shape == (2, 3, 5)
    assert dense.linear(x[0, 0], w).shape == (4,)
    leaf = gc.tensor(x, requires_grad=True)
    (first,) = gc.grad(np.sum(np.square(dense.linear(leaf, w, bias))), [leaf], create_graph=True)
    second = gc.grad(np.sum(np.square(first)), leaf)
    assert first.shape == second.shape == x.shape
    # 2 (x w + bias) w', and the gradient of its square: 8 (x w + bias) w' w w'. Sums of at most 6, 4, 5 and 4 terms.
    field, w64 = x.astype(np.float64) @ w + bias, w.astype(np.float64)
    magnitude = (np.abs(x).astype(float) @ np.abs(w) + np.abs(bias)) @ np.abs(w.T) @ np.abs(w) @ np.abs(w.T)
    assert np.all(np.abs(second.numpy() - 8 * field @ w64.T @ w64 @ w64.T) <= 8 * 25 * U * magnitude)


@given(
    st.integers(0, 40),
    st.integers(0, 40),
    st.integers(0, 40),
    st.sampled_from(ACTIVATIONS),
    st.integers(0, 2**32),
)
def test_layer_gradients_of_any_shape(m, n, k, activation, seed):
    size = layer(m, n, k, activation)
    a = linear_vjp_inputs(np.random.default_rng(seed), size)
    expected = linear_vjp_reference(a, size)
    whole = dense.linear_vjp(a["grad"], a["x"], a["w"], a["y"], activation=activation)
    for i, name in enumerate(("grad_x", "grad_w", "grad_bias")):
        assert np.all(np.abs(whole[i] - expected[name].value) <= expected[name].bound), name
        needs = tuple(j == i for j in range(3))
        alone = dense.linear_vjp(a["grad"], a["x"], a["w"], a["y"], activation=activation, needs=needs)
        assert alone[i].tobytes() == whole[i].tobytes()


def test_sum_of_a_long_batch_keeps_its_digits():
    """33 roundings at most, where one chain would take a million and lose what is left after the large rows."""
    rows = 2**20
    grad = np.full((rows, 3), 0.1, np.float32)
    grad[: rows // 2, 1] = 1e4
    exact = grad.astype(np.float64).sum(0)
    (_, _, total) = dense.linear_vjp(grad, None, None, None, needs=(False, False, True))
    assert np.all(np.abs(total - exact) <= 33 * U * exact)


def test_slopes_at_the_ends():
    """1 - exp(-y) of softplus and (1 - y) (1 + y) of tanh keep their digits where they are small; relu's is 0 at 0."""
    y = np.array([[0, 1e-30, 1e-7, 1, 80, np.inf]], np.float32)
    ones = np.ones_like(y)
    eye = np.eye(6, dtype=np.float32)
    (got, _, _) = dense.linear_vjp(ones, None, eye, y, activation="softplus", needs=(True, False, False))
    truth = -np.expm1(-y.astype(np.float64))
    assert np.all(np.abs(got - truth) <= 4 * U * truth)
    near = np.nextafter(ones, 0)
    (got, _, _) = dense.linear_vjp(ones, None, eye, near, activation="tanh", needs=(True, False, False))
    truth = 1 - near.astype(np.float64) ** 2
    assert np.all(np.abs(got - truth) <= 4 * U * truth)
    y = np.array([[0, -0.0, 1e-45, np.inf, 1, 2]], np.float32)
    (got, _, _) = dense.linear_vjp(ones, None, eye, y, activation="relu", needs=(True, False, False))
    np.testing.assert_array_equal(got, [[0, 0, 1, 1, 1, 1]])


# --- losses -------------------------------------------------------------------------------------------------


def softmax(x):
    e = np.exp(x - x.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def targets_of(kind, rng, n, units):
    t = rng.random((n, units))
    return t.astype(np.float32) if kind == "real" else (t < 0.5).astype(kind)


def check_loss(f, op, args, scales):
    """First and second derivatives; `scales(d)` and `scales(d, e)` sum the magnitudes of their terms.

    Under 40 roundings: sums of 5 and 7 terms, and element by element.
    """
    rng = np.random.default_rng(3)
    d, e = ([rng.normal(0, 1, a.shape).astype(np.float32).astype(np.float64) for a in args] for _ in "de")
    first, second = derivatives(op, args, d)
    assert abs(dot(first, d) - slope(f, args, d)) <= 40 * U * scales(d)
    expected = curvature(f, args, d, e)
    assert expected != 0
    assert abs(dot(second, e) - expected) <= 40 * U * scales(d, e)


def row_scales(c, out, move, curve):
    """Terms (c + y) y'' and y' y', where |y'| along d is at most move(d) and |y''| at most curve(d, e)."""
    cotangent = np.abs(c) + np.abs(out) + 1

    def scales(d, e=None):
        if e is None:
            return float(np.sum(cotangent * move(d)))
        return float(np.sum(cotangent * (curve(d, e) + move(d) * move(e))))

    return scales


@pytest.mark.parametrize("kind", TARGETS)
@pytest.mark.parametrize("samples", [1, 3])
def test_first_and_second_derivatives_of_bernoulli(kind, samples):
    rng = np.random.default_rng(4)
    x, t = float32(rng, samples * 5, 7, scale=2), targets_of(kind, rng, 5, 7)
    c = float32(rng, len(x))
    tiled = np.tile(t, (samples, 1)).astype(np.float64)

    def log_prob(x):
        return np.sum(tiled * x - np.logaddexp(0, x), axis=1)

    scales = row_scales(
        c, log_prob(x.astype(float)), lambda d: np.abs(d[0]).sum(1), lambda d, e: np.abs(d[0] * e[0]).sum(1)
    )
    check_loss(lambda x: loss(log_prob(x), c), lambda x: loss(dense.bernoulli_log_prob(x, t), c), [x], scales)
    y = dense.bernoulli_log_prob(x, t)
    assert dense.binary_cross_entropy_with_logits(x, t).tobytes() == (-y).tobytes()
    leaf, again = gc.tensor(x, requires_grad=True), gc.tensor(x, requires_grad=True)
    dense.binary_cross_entropy_with_logits(leaf, t).backward(c)
    dense.bernoulli_log_prob(again, t).backward(-c)
    assert leaf.grad.numpy().tobytes() == again.grad.numpy().tobytes()


@pytest.mark.parametrize("samples", [1, 3])
def test_targets_have_gradients_too(samples):
    rng = np.random.default_rng(5)
    x, t = float32(rng, samples * 5, 7, scale=2), targets_of("real", rng, 5, 7)
    c = float32(rng, len(x))
    t = (0.1 + 0.8 * t).astype(np.float32)  # differences stay within [0, 1]

    def log_prob(x, t):
        return np.sum(np.tile(t, (samples, 1)) * x - np.logaddexp(0, x), axis=1)

    def over_samples(d):
        return np.abs(np.tile(d, (samples, 1)))

    magnitude = np.abs(x.astype(float))
    scales = row_scales(
        c,
        log_prob(x.astype(float), t.astype(float)),
        lambda d: (np.abs(d[0]) + magnitude * over_samples(d[1])).sum(1),
        lambda d, e: (
            np.abs(d[0] * e[0]) + np.abs(d[0]) * over_samples(e[1]) + np.abs(e[0]) * over_samples(d[1])
        ).sum(1),
    )
    check_loss(
        lambda x, t: loss(log_prob(x, t), c),
        lambda x, t: loss(dense.bernoulli_log_prob(x, t), c),
        [x, t],
        scales,
    )


def softmax_scales(x, c, out):
    """The slopes of log sum exp are shares below 1; theirs, s (d - s.d) (e - s.e), too. x - max adds its magnitude."""
    spread = 1 + np.ptp(x.astype(float), axis=1, keepdims=True)

    def curve(d, e):
        s = softmax(x.astype(float))
        size = [np.abs(a[0]) + (s * np.abs(a[0])).sum(1, keepdims=True) for a in (d, e)]
        return (spread * s * size[0] * size[1]).sum(1)

    return row_scales(c, out, lambda d: (spread * np.abs(d[0])).sum(1), curve)


def test_first_and_second_derivatives_of_log_sum_exp():
    rng = np.random.default_rng(6)
    x, c = float32(rng, 5, 7, scale=2), float32(rng, 5)
    scales = softmax_scales(x, c, np.logaddexp.reduce(x.astype(float), 1))
    check_loss(
        lambda x: loss(np.logaddexp.reduce(x, 1), c), lambda x: loss(dense.log_sum_exp(x), c), [x], scales
    )


def test_first_and_second_derivatives_of_softmax_cross_entropy():
    rng = np.random.default_rng(7)
    x, c, labels = float32(rng, 5, 7, scale=2), float32(rng, 5), rng.integers(0, 7, 5)

    def entropy(x):
        return np.logaddexp.reduce(x, 1) - x[np.arange(5), labels]

    scales = softmax_scales(x, c, entropy(x.astype(float)))
    check_loss(
        lambda x: loss(entropy(x), c), lambda x: loss(dense.softmax_cross_entropy(x, labels), c), [x], scales
    )


# --- the ends -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_certain_hits_and_misses(dtype):
    logits = np.array([INF, INF, -INF, -INF, 1e4, 1e4, -1e4, -1e4, 30, -30], np.float32)[:, None]
    targets = np.array([1, 0, 1, 0, 1, 0, 1, 0, 1, 0], dtype)[:, None]
    tail = np.log1p(np.exp(-30.0))
    expected = [0, -INF, -INF, 0, 0, -1e4, -1e4, 0, -tail, -tail]
    got = dense.bernoulli_log_prob(logits, targets)
    np.testing.assert_allclose(got, np.array(expected), rtol=5 * U)
    slope = dense.bernoulli_log_prob_vjp(np.ones(10, np.float32), logits, targets)[:, 0]
    q = np.exp(-30.0) / (1 + np.exp(-30.0))
    np.testing.assert_allclose(slope, [0, -1, 1, 0, 0, -1, 1, 0, q, -q], rtol=7 * U)


def test_a_target_between_costs_inf_at_either_end():
    targets = np.full((2, 1), 0.25, np.float32)
    logits = np.array([[INF], [-INF]], np.float32)
    np.testing.assert_array_equal(dense.bernoulli_log_prob(logits, targets), [-INF, -INF])
    slope = dense.bernoulli_log_prob_vjp(np.ones(2, np.float32), logits, targets)
    np.testing.assert_array_equal(slope, [[-0.75], [0.25]])


def test_log_sum_exp_at_the_ends():
    rows = [[-INF] * 3, [INF, 0, -INF], [INF, INF, 0], [-INF, 5, -INF], [1e4, 1e4, -1e4], [3e38, 3e38, 3e38]]
    x = np.array(rows, np.float32)
    expected = np.array([-INF, INF, INF, 5, 1e4 + np.log(2), 3e38])
    np.testing.assert_allclose(dense.log_sum_exp(x), expected, rtol=2 * U)
    share = dense.log_sum_exp_vjp(np.ones(6, np.float32), x)
    thirds = np.full(3, np.float32(1) / 3)
    np.testing.assert_array_equal(share, [thirds, [1, 0, 0], [0.5, 0.5, 0], [0, 1, 0], [0.5, 0.5, 0], thirds])
    assert dense.log_sum_exp(np.empty((2, 0), np.float32)).tolist() == [-np.inf, -np.inf]


def test_cross_entropy_near_certainty_and_of_the_impossible():
    x = np.array([[40, 0, 0], [40, 0, 0], [-INF, 0, 0], [INF, 0, 0], [INF, 0, 0], [1e4, -1e4, 0]], np.float32)
    labels = np.array([0, 1, 0, 0, 1, 1])
    tail = np.log1p(2 * np.exp(-40.0))
    np.testing.assert_allclose(
        dense.softmax_cross_entropy(x, labels), [tail, 40 + tail, INF, 0, INF, 2e4], rtol=5 * U
    )
    slope = dense.softmax_cross_entropy_vjp(np.ones(6, np.float32), x, labels)
    e = np.exp(-40.0)
    expected = [[-2 * e, e, e], [1, -1, e], [-1, 0.5, 0.5], [0, 0, 0], [1, -1, 0], [1, -1, 0]]
    np.testing.assert_allclose(slope, np.array(expected), rtol=8 * U)


@pytest.mark.parametrize("width", [1, 5, 16, 40, 1000])
def test_nan_stays_in_its_row(width):
    rng = np.random.default_rng(width)
    for place in {0, width // 2, width - 1}:
        x, t, labels = float32(rng, 3, width), targets_of("uint8", rng, 3, width), rng.integers(0, width, 3)
        x[1, place] = np.nan
        for out in (
            dense.bernoulli_log_prob(x, t),
            dense.log_sum_exp(x),
            dense.softmax_cross_entropy(x, labels),
        ):
            np.testing.assert_array_equal(np.isnan(out), [False, True, False])


@pytest.mark.parametrize("width", [1, 5, 16, 40, 1000])
def test_gradients_may_be_written_over_the_logits(width):
    rng = np.random.default_rng(width)
    x, t, g = float32(rng, 3, width), targets_of("real", rng, 3, width), float32(rng, 3)
    labels = rng.integers(0, width, 3)
    for name, function, others in (
        ("logits", "bernoulli_log_prob_vjp", {"targets": t}),
        ("logits", "softmax_cross_entropy_vjp", {"labels": labels}),
        ("x", "log_sum_exp_vjp", {}),
    ):
        apart, memory = getattr(dense, function)(g, x, *others.values()), x.copy()
        getattr(_core, f"dense_{function}")(grad=g, **{name: memory, f"grad_{name}": memory}, **others)
        assert memory.tobytes() == apart.tobytes()


# --- wrong calls, and what the tape hands over --------------------------------------------------------------


def test_float64_tensors_are_refused_not_cast():
    x, w = (
        gc.tensor(np.ones((2, 3)), requires_grad=True),
        gc.tensor(np.ones((3, 4), np.float32), requires_grad=True),
    )
    assert x.dtype == np.float64
    labels, targets = np.zeros(2, np.int64), np.ones((2, 3), np.uint8)
    for call, words in (
        (lambda: dense.linear(x, w), r"dense\.linear: expected x of dtype .*numpy\.float32.*received float64"),
        (lambda: dense.matmul(x, w), r"dense\.matmul: expected a of dtype .*float32 .*received float64"),
        (lambda: dense.bernoulli_log_prob(x, targets), r"bernoulli_log_prob: expected logits of dtype float32"),
        (lambda: dense.softmax_cross_entropy(x, labels), r"softmax_cross_entropy: expected logits of dtype float32"),
        (lambda: dense.log_sum_exp(x), r"dense\.log_sum_exp: expected x of dtype float32"),
    ):  # fmt: skip
        with pytest.raises(TypeError, match=words):
            call()


def test_linear_names_its_own_arguments():
    x, w, bias = np.ones((2, 3), np.float32), np.ones((3, 4), np.float32), np.ones(4, np.float32)
    for call, error, words in (
        (lambda: dense.linear(x, w[1:]), ValueError, r"dense\.linear: expected w of shape \(3, 4\).* x has"),
        (lambda: dense.linear(x, w, bias[1:]), ValueError, r"dense\.linear: expected bias of shape \(4,\).* w,"),
        (lambda: dense.linear(x, w, activation="gelu"), ValueError, r"dense\.linear: .*one of identity.*'gelu'"),
        (lambda: dense.linear(x.T, w), TypeError, r"dense\.linear: expected x to be contiguous"),
        (lambda: dense.linear(np.ones((2, 2, 6), np.float32)[..., ::2], w), TypeError, r"expected x .*strided"),
        (lambda: dense.linear(np.float32(1), w), (TypeError, ValueError), r"dense\.linear: expected x "),
        (lambda: dense.linear_vjp(x, x, None, None), ValueError, r"linear_vjp: expected w, which grad_x needs"),
        (lambda: dense.linear_vjp(x, x, w, None, activation="tanh"), ValueError, r"linear_vjp: expected y"),
    ):  # fmt: skip
        with pytest.raises(error, match=words):
            call()


def test_matmul_into_an_array_takes_arrays_only():
    a = np.ones((2, 2), np.float32)
    with pytest.raises(TypeError, match=r"dense\.matmul: expected a to be an array .*received Tensor"):
        dense.matmul(gc.tensor(a, requires_grad=True), a, out=np.empty_like(a))


def test_broadcast_gradients_come_through():
    """np.sum hands back one number for all elements, which kernels cannot read as it is."""
    rng = np.random.default_rng(8)
    x, w = float32(rng, 5, 4), float32(rng, 4, 3)
    for op in (
        lambda x: dense.linear(x, w, activation="tanh"),
        lambda x: dense.matmul(x, w),
        lambda x: dense.bernoulli_log_prob(x, np.ones((5, 4), np.uint8)),
        lambda x: dense.softmax_cross_entropy(x, np.zeros(5, np.int64)),
        lambda x: dense.log_sum_exp(x),
    ):
        by_sum, by_ones = gc.tensor(x, requires_grad=True), gc.tensor(x, requires_grad=True)
        np.sum(op(by_sum)).backward()
        y = op(by_ones)
        y.backward(np.ones(y.shape, np.float32))
        assert by_sum.grad.numpy().tobytes() == by_ones.grad.numpy().tobytes()


# --- PyTorch, in float64 ------------------------------------------------------------------------------------


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_torch_agrees_on_a_layer(activation, torch):
    """k, m and n + 8 roundings of the sums; see layer_scale for what the slope adds."""
    rng = np.random.default_rng(9)
    m, n, k = 33, 20, 17
    x, w, bias, g = float32(rng, m, k), float32(rng, k, n), float32(rng, n), float32(rng, m, n)
    ours = [gc.tensor(a, requires_grad=True) for a in (x, w, bias)]
    dense.linear(*ours, activation=activation).backward(g)
    with torch.enable_grad():
        theirs = [torch.tensor(a, dtype=torch.float64, requires_grad=True) for a in (x, w, bias)]
        field = torch.nn.functional.linear(theirs[0], theirs[1].T, theirs[2])
        functions = {
            "identity": lambda x: x,
            "logistic": torch.sigmoid,
            "softplus": torch.nn.functional.softplus,
        }
        functions |= {"tanh": torch.tanh, "relu": torch.relu}
        functions[activation](field).backward(torch.tensor(g, dtype=torch.float64))
    x, w, bias, g = (np.abs(a).astype(np.float64) for a in (x, w, bias, g))
    steep = g * (1 + x @ w + bias)
    magnitudes = (steep @ w.T, x.T @ steep, steep.sum(0))
    for mine, their, magnitude in zip(ours, theirs, magnitudes, strict=True):
        error = np.abs(mine.grad.numpy() - their.grad.numpy())
        assert np.all(error <= (m + n + k + 8) * U * magnitude)


def test_torch_agrees_on_losses(torch):
    """Bounds as in cases/dense_loss.py, rounded up: 8 U of each term and of the result."""
    functional = torch.nn.functional
    rng = np.random.default_rng(10)
    x, t, labels, g = (
        float32(rng, 9, 21, scale=3),
        targets_of("real", rng, 9, 21),
        rng.integers(0, 21, 9),
        float32(rng, 9),
    )
    real = torch.tensor(t, dtype=torch.float64)

    def bernoulli(x):
        return functional.binary_cross_entropy_with_logits(x, real, reduction="none").sum(1)

    def entropy(x):
        return functional.cross_entropy(x, torch.tensor(labels), reduction="none")

    with torch.enable_grad():
        for ours, theirs in (
            (lambda x: dense.binary_cross_entropy_with_logits(x, t), bernoulli),
            (lambda x: dense.softmax_cross_entropy(x, labels), entropy),
            (dense.log_sum_exp, lambda x: torch.logsumexp(x, 1)),
        ):  # fmt: skip
            mine, their = (
                gc.tensor(x, requires_grad=True),
                torch.tensor(x, dtype=torch.float64, requires_grad=True),
            )
            y, z = ours(mine), theirs(their)
            y.backward(g)
            z.backward(torch.tensor(g, dtype=torch.float64))
            spread = 8 + np.ptp(x, axis=1)
            assert np.all(
                np.abs(y.numpy() - z.detach().numpy()) <= U * spread * (1 + np.abs(z.detach().numpy()))
            )
            assert np.all(
                np.abs(mine.grad.numpy() - their.grad.numpy()) <= (U * spread * np.abs(g))[:, None] * 2
            )
