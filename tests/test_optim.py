"""What the grid of cases does not ask of the optim family: many steps, any shape, and what is refused."""

import numpy as np
import pytest

from gencore.kernels import optim


def trajectory(steps, **numbers):
    """Steps up the log-density of a correlated Gaussian, ours in float32 beside the formula in float64."""
    rng = np.random.default_rng(1)
    root = rng.normal(size=(20, 20)) / np.sqrt(20)
    precision = root @ root.T + 0.1 * np.eye(20)
    param = rng.normal(size=20)
    ours, velocity = param.astype(np.float32), np.zeros(20, np.float32)
    last = np.zeros(20)
    for _ in range(steps):
        grad = (-precision @ ours).astype(np.float32)
        optim.sgd(ours, grad, velocity=velocity, **numbers)
        last = numbers["momentum"] * last + numbers["lr"] * (grad - numbers["weight_decay"] * param)
        param = param + last
    return ours, velocity, param, last


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_follows_the_formula_for_many_steps(momentum, weight_decay):
    """Each step adds at most 7 roundings, of 2^-24 times numbers under 4 here; momentum keeps 10 of them."""
    steps = 50
    ours, velocity, param, last = trajectory(steps, lr=0.05, momentum=momentum, weight_decay=weight_decay)
    bound = steps * 7 * 2.0**-24 * 4 / (1 - momentum)
    assert np.abs(ours - param).max() < bound
    assert np.abs(velocity - last).max() < bound
    assert np.abs(ours).max() > 100 * bound


def test_goes_uphill():
    ours, *_ = trajectory(2000, lr=0.05, momentum=0.9, weight_decay=0.0)
    assert np.abs(ours).max() < 1e-3  # the maximum of that density is at 0


def test_any_shape_in_place():
    rng = np.random.default_rng(2)
    param, grad, velocity = (rng.normal(size=(5, 6, 7)).astype(np.float32) for _ in range(3))
    flat = [a.ravel().copy() for a in (param, grad, velocity)]
    memory = param.ctypes.data
    assert optim.sgd(param, grad, lr=0.1, momentum=0.5, velocity=velocity) is None
    optim.sgd(flat[0], flat[1], lr=0.1, momentum=0.5, velocity=flat[2])
    assert param.ctypes.data == memory
    assert np.array_equal(param.ravel(), flat[0])
    assert np.array_equal(velocity.ravel(), flat[2])


def test_scalar_and_empty_parameters():
    param = np.array(1.0, np.float32)
    optim.sgd(param, np.array(2.0, np.float32), lr=0.25)
    assert param == 1.5
    optim.sgd(np.empty((0, 3), np.float32), np.empty((0, 3), np.float32), lr=0.1)


def test_nan_stays_where_it_is():
    param, grad = np.zeros(40, np.float32), np.ones(40, np.float32)
    grad[17] = np.nan
    optim.sgd(param, grad, lr=1.0)
    assert np.array_equal(np.flatnonzero(np.isnan(param)), [17])
    assert np.all(np.delete(param, 17) == 1)


def test_without_velocity_is_with_no_momentum():
    rng = np.random.default_rng(3)
    grad = rng.normal(size=100).astype(np.float32)
    with_velocity, without = (np.ones(100, np.float32) for _ in range(2))
    optim.sgd(with_velocity, grad, lr=0.1, weight_decay=0.2, velocity=np.zeros(100, np.float32))
    optim.sgd(without, grad, lr=0.1, weight_decay=0.2)
    assert np.array_equal(with_velocity, without)


def refused(error, match, *, shape=(4, 6), **changes):
    arguments = {name: np.ones(shape, np.float32) for name in ("param", "grad", "velocity")}
    arguments |= {"lr": 0.1, "momentum": 0.9} | changes
    before = {name: np.array(a, copy=True) for name, a in arguments.items() if isinstance(a, np.ndarray)}
    with pytest.raises(error, match=match):
        optim.sgd(arguments.pop("param"), arguments.pop("grad"), **arguments)
    for name, array in before.items():
        assert np.array_equal(array, changes.get(name, np.ones(shape, np.float32)), equal_nan=True)


@pytest.mark.parametrize("name", ["param", "grad", "velocity"])
def test_arrays_that_are_refused(name):
    expected = rf"optim.sgd: expected {name} "
    refused(TypeError, expected + "of dtype float32 .*received float64", **{name: np.ones((4, 6))})
    strided = np.ones((4, 12), np.float32)[:, ::2]
    refused(TypeError, expected + "to be contiguous in C order", **{name: strided})
    refused(TypeError, expected + "to be contiguous in C order", **{name: np.ones((6, 4), np.float32).T})
    if name != "grad":
        locked = np.ones((4, 6), np.float32)
        locked.flags.writeable = False
        refused(TypeError, expected + "to be writable, received a read-only array", **{name: locked})
    if name != "param":
        match = expected + r"of shape \(4, 6\), the shape of param, received \(24,\)"
        refused(ValueError, match, **{name: np.ones(24, np.float32)})


def test_momentum_needs_a_velocity():
    refused(ValueError, "velocity, which a momentum other than 0 needs, to be given", velocity=None)
    refused(ValueError, "momentum to be finite, received nan", momentum=np.nan)
    refused(ValueError, "lr to be finite, received inf", lr=np.inf)
