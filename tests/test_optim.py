"""What the grid of cases does not ask of the optim family: many steps, any shape, and what is refused."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import gencore as gc
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


# --- all parameters at once -----------------------------------------------------------------------------------


def lists(*names, shapes=((2, 3), (5,))):
    return {name: [np.ones(shape, np.float32) for shape in shapes] for name in names}


ADAM = ("params", "grads", "exp_avgs", "exp_avg_sqs")


@pytest.mark.parametrize("name", ADAM[1:])
def test_shapes_in_lists_are_named(name):
    """The kernel sees sizes; a transposed array of the right size must not pass."""
    arguments = lists(*ADAM)
    arguments[name][0] = np.ones((3, 2), np.float32)
    match = rf"optim.adam_step: expected {name}\[0\] of shape \(2, 3\), the shape of params\[0\], received \(3, 2\)"
    with pytest.raises(ValueError, match=match):
        optim.adam_step(**arguments, lr=0.1, step=1)
    with pytest.raises(ValueError, match=rf"expected {name} to hold 2 arrays, as many as params, received 1"):
        optim.adam_step(**{**lists(*ADAM), name: lists(name)[name][:1]}, lr=0.1, step=1)
    assert np.all(arguments["params"][1] == 1)


def test_tuples_are_lists_and_tensors_are_no_arrays():
    params = tuple(lists("params")["params"])
    optim.scale(params, 0.5)
    assert all(np.all(p == 0.5) for p in params)
    with pytest.raises(
        TypeError, match=r"optim.scale: expected arrays\[1\] to be an array .*, received Tensor"
    ):
        optim.scale([params[0], gc.tensor(params[1])], 0.5)


def test_momentum_needs_buffers():
    for step, more in ((optim.sgd_step, {}), (optim.rmsprop_step, lists("square_avgs"))):
        with pytest.raises(
            ValueError, match="momentum_buffers, which a momentum other than 0 needs, to be given"
        ):
            step(**lists("params", "grads"), **more, lr=0.1, momentum=0.5)


def test_nan_in_a_list_stays_where_it_is():
    for largest in ({}, lists("max_exp_avg_sqs")):
        arguments = lists(*ADAM) | largest
        arguments["grads"][0][1, 1] = np.nan
        optim.adam_step(**arguments, lr=0.1, step=1)
        assert np.array_equal(np.argwhere(np.isnan(arguments["params"][0])), [[1, 1]])
        assert np.isfinite(arguments["params"][1]).all()


def test_corrections_of_adam_are_float64():
    """1 - beta2 and 1 - beta2^step of a first step cancel; from beta2 in float32 the step would be off by 6e-6."""
    arguments = lists(*ADAM)
    for name in ADAM[2:]:
        for array in arguments[name]:
            array[...] = 0
    optim.adam_step(**arguments, lr=0.5, step=1, eps=0.0)
    for p in arguments["params"]:
        assert np.all(np.abs(p - 0.5) < 8 * 2.0**-24)  # lr m / sqrt(v) = lr, at 8 roundings


def documented_square_sum(arrays):
    """32 sums of each array's part of a block of 65,536 elements, added in order; then all parts."""
    blocks = {}
    at = 0
    for array in arrays:
        x = array.ravel().astype(np.float64)
        while x.size:
            part, x = np.split(x, [65_536 - at % 65_536])
            rows = np.pad(part, (0, -part.size % 32)).reshape(-1, 32)
            sums = np.zeros(32)
            for row in rows:
                sums = sums + row * row
            total = 0.0
            for s in sums:
                total += s
            blocks[at // 65_536] = blocks.get(at // 65_536, 0.0) + total
            at += part.size
    total = 0.0
    for block in blocks.values():
        total += block
    return total


def test_square_sum_has_one_order_of_additions():
    """So its bits are the same on every ISA level; run with GENCORE_ISA to see."""
    rng = np.random.default_rng(4)
    arrays = [rng.normal(size=n).astype(np.float32) for n in (5, 70_000, 0, 33, 65_536, 150_001)]
    assert optim.square_sum(arrays) == documented_square_sum(arrays)
    assert optim.square_sum([]) == 0
    assert optim.square_sum([np.full(4, 2.0**100, np.float32)]) == 2.0**202  # beyond float32


def test_steps_on_many_threads_at_once():
    """Calls from several Python threads share the pool, not their arrays."""
    expected = lists(*ADAM, shapes=((300, 200), (7,)))
    optim.adam_step(**expected, lr=0.1, step=1)

    def call(_):
        arguments = lists(*ADAM, shapes=((300, 200), (7,)))
        optim.adam_step(**arguments, lr=0.1, step=1)
        return [p.tobytes() for p in arguments["params"]]

    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(call, range(16)):
            assert found == [p.tobytes() for p in expected["params"]]
