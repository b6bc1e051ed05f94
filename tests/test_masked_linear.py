"""Masked layers: derivatives against float64 differences, what masks keep apart, bits."""

import numpy as np
import pytest
from cases.dense import ACTIVATIONS, TRUTH
from cases.masked_linear import degrees, mask_of, size
from reference.differences import curvature, derivatives, dot, slope
from reference.rounding import U
from test_dense_grad import layer_scale, loss

import gencore as gc
from gencore.kernels import autoregressive, dense


def layer(kind, strict, m=5, n=9, k=8, seed=0):
    rng = np.random.default_rng([seed, strict])
    found = degrees(rng, size(m, n, k, kind, strict)) | {"strict": strict}
    arrays = [rng.normal(0, 1, shape).astype(np.float32) for shape in ((m, k), (k, n), (n,))]
    return found, mask_of(found), arrays


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("kind", ["sorted", "any"])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_first_and_second_derivatives(activation, kind, strict):
    """As of a dense layer whose masked weights are 0, which bounds what rounding may do."""
    for seed in range(100):  # until no unit is near the kink of relu
        options, mask, (x, w, bias) = layer(kind, strict, seed=seed)
        if activation != "relu" or np.abs(x.astype(float) @ (w * mask) + bias).min() > 0.05:
            break
    (m, k), n = x.shape, len(bias)
    rng = np.random.default_rng(ACTIVATIONS.index(activation))
    c = rng.normal(0, 1, (m, n)).astype(np.float32)
    d, e = (
        [rng.normal(0, 1, a.shape).astype(np.float32).astype(np.float64) for a in (x, w, bias)] for _ in "de"
    )

    def f(x, w, bias):
        return loss(TRUTH[activation](x @ (w * mask) + bias), c)

    def op(x, w, bias):
        return loss(autoregressive.masked_linear(x, w, bias, activation=activation, **options), c)

    first, second = derivatives(op, [x, w, bias], d)
    y = TRUTH[activation](x.astype(np.float64) @ (w * mask) + bias)
    roundings, seen = (m + n + k + 30) * U, [[a[0], a[1] * mask, a[2]] for a in ((x, w, bias), d, e)]
    assert abs(dot(first, d) - slope(f, (x, w, bias), d)) <= roundings * layer_scale(*seen[0], c, y, seen[1])
    expected = curvature(f, (x, w, bias), d, e)
    assert expected != 0
    assert abs(dot(second, e) - expected) <= roundings * layer_scale(*seen[0], c, y, *seen[1:])
    for found in (first, second):
        assert not found[1].numpy()[~mask].any()


@pytest.mark.parametrize("dtype", [np.float32, np.uint8])
@pytest.mark.parametrize("kind", ["sorted", "inputs", "units", "any"])
def test_nothing_comes_of_masked_weights(kind, dtype):
    """NaN in them reaches neither results nor gradients, and their own gradient is 0, to the bit."""
    options, mask, (x, w, bias) = layer(kind, True, m=70, n=130, k=90)
    x = (x > 1).astype(dtype) if dtype == np.uint8 else x

    def results(w):
        leaves = [gc.tensor(a, requires_grad=True) for a in (w, bias)]
        inputs = gc.tensor(x, requires_grad=True) if dtype == np.float32 else x
        y = autoregressive.masked_linear(inputs, *leaves, activation="tanh", **options)
        wanted = [inputs, *leaves] if dtype == np.float32 else leaves
        return [y.numpy()] + [g.numpy() for g in gc.grad(np.sum(y * y), wanted)]

    clean, dirty = results(np.where(mask, w, np.float32(0))), results(np.where(mask, w, np.float32(np.nan)))
    for a, b in zip(clean, dirty, strict=True):
        assert a.tobytes() == b.tobytes()
    by_w = clean[-2]
    assert by_w[~mask].tobytes() == bytes(4 * (~mask).sum())
    assert by_w[mask].any()


@pytest.mark.parametrize("dtype", [np.float32, np.uint8])
def test_ascending_degrees_have_the_bits_of_the_dense_product(dtype):
    options, mask, (x, w, bias) = layer("sorted", False, m=70, n=133, k=300)
    x = (x > 1).astype(dtype) if dtype == np.uint8 else x
    found = autoregressive.masked_linear(x, w, bias, activation="softplus", **options)
    assert (
        found.tobytes()
        == dense.linear(x, np.where(mask, w, np.float32(0)), bias, activation="softplus").tobytes()
    )


@pytest.mark.parametrize("kind", ["sorted", "any"])
def test_bytes_have_the_bits_of_the_same_floats(kind):
    options, mask, (x, w, bias) = layer(kind, True, m=130, n=70, k=300)
    ones, grad = (x > 1).astype(np.uint8), autoregressive.masked_linear(x, w, bias, **options)
    found = []
    for inputs in (ones, ones.astype(np.float32)):
        leaf = gc.tensor(w, requires_grad=True)
        y = autoregressive.masked_linear(inputs, leaf, bias, **options)
        found.append((y.numpy().tobytes(), gc.grad(np.sum(y * grad), [leaf])[0].numpy()[mask].tobytes()))
    assert found[0] == found[1]


def test_an_unknown_activation():
    options, _, arrays = layer("any", False)
    with pytest.raises(ValueError, match=r"autoregressive\.masked_linear: expected activation to be one of"):
        autoregressive.masked_linear(*arrays, activation="step", **options)
