"""The tape: how gradients accumulate, what is kept and freed, which edits are caught, and ops that users add."""

from __future__ import annotations

import copy
import gc as collector
import operator
import pickle
import threading
import tracemalloc
import warnings
import weakref
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import numpy as np
import pytest
from device_array import DeviceArray
from hypothesis import given

import gencore as gc
from gencore.autograd import is_grad_enabled, log_sum_exp, logistic, relu, softplus
from gencore.autograd.tape import Node

EPS = float(np.finfo(np.float64).eps)


def leaf(x: Any, dtype: Any = np.float64) -> gc.Tensor:
    return gc.tensor(np.asarray(x, dtype), requires_grad=True)


def values(*tensors: gc.Tensor | None) -> list[Any]:
    assert all(t is not None for t in tensors)
    return [t.numpy().tolist() for t in tensors if t is not None]


# --- derivatives known in closed form ---------------------------------------------------------------------------


def test_hessian_of_a_quartic_form_is_the_closed_form() -> None:
    rng = np.random.default_rng(1)
    a = rng.standard_normal((4, 4))
    x = leaf(rng.standard_normal(4))
    q = x @ (a @ x)
    (g,) = gc.grad(q * q, [x], create_graph=True)
    hessian = np.stack([gc.grad(g[i], x, retain_graph=True).numpy() for i in range(4)])
    s, v = a + a.T, x.detach().numpy()
    first = s @ v
    want = 2 * np.outer(first, first) + 2 * (v @ a @ v) * s
    # Sums of at most 16 products of three factors each, some 4 operations deep.
    size = 2 * np.outer(np.abs(s) @ np.abs(v), np.abs(s) @ np.abs(v)) + 2 * (
        np.abs(v) @ np.abs(a) @ np.abs(v)
    ) * abs(s)
    assert np.all(np.abs(hessian - want) <= 64 * EPS * size)
    np.testing.assert_allclose(hessian, hessian.T, atol=float(64 * EPS * size.max()), rtol=0)


def test_derivatives_of_order_one_to_five() -> None:
    x = leaf([0.3, -1.1])
    y = np.exp(2 * x) * 1.0
    for order in range(1, 6):
        y = gc.grad(y.sum(), x, create_graph=True)
        np.testing.assert_allclose(y.numpy(), 2.0**order * np.exp(2 * x.numpy()), rtol=16 * order * EPS)


def test_gradient_penalty_reaches_the_weights() -> None:
    """Of (|d/dx (x w)| - 1)^2 the derivative by w is 2 (|w| - 1) w / |w|."""
    w, x = leaf([3.0, 4.0]), leaf([[0.1, 0.2], [0.3, 0.4]])
    (g,) = gc.grad((x @ w).sum(), [x], create_graph=True)
    ((np.sqrt((g * g).sum(1)) - 1) ** 2).mean().backward()
    np.testing.assert_allclose(w.grad.numpy(), 2 * 4 * np.array([0.6, 0.8]), rtol=32 * EPS)


@pytest.mark.parametrize(
    ("f", "x", "slope"),
    [
        (lambda x: x**2, 0.0, 0.0),
        (lambda x: x**0, 0.0, 0.0),
        (lambda x: x**1, 0.0, 1.0),
        (lambda x: x ** np.zeros(()), 0.0, 0.0),
        (lambda x: 0.0**x, 2.0, 0.0),
        (relu, 0.0, 0.0),
        (np.abs, 0.0, 0.0),
        (lambda x: np.maximum(x, 1.0), 1.0, 0.5),
        (lambda x: np.clip(x, 0, 1), 1.0, 1.0),
        (lambda x: np.max(np.stack([x, x, x * 0])), 1.0, 1.0),
        (softplus, 800.0, 1.0),
        (softplus, -800.0, 0.0),
        (logistic, -800.0, 0.0),
        (lambda x: np.logaddexp(x, -np.inf), 2.0, 1.0),
        (lambda x: np.where(x > 0, x, np.log(-np.abs(x) - 1)), 2.0, 1.0),
        (lambda x: x * (x % 1.0), 1.25, 1.5),
        (lambda x: x * (x % 1.0), -1.25, -0.5),
        (lambda x: -7.5 % x, 2.0, 4.0),
        (lambda x: np.fmod(-7.5, x), 2.0, 3.0),
    ],
)
def test_slopes_at_the_edges(f: Callable[[Any], Any], x: float, slope: float) -> None:
    t = leaf(x)
    with np.errstate(invalid="ignore"):
        f(t).backward()
    assert t.grad.item() == slope


def test_log_sum_exp_of_rows_without_weight() -> None:
    x = leaf([[-np.inf, -np.inf], [0.0, -np.inf]])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        y = log_sum_exp(x, 1)
        gc.grad(y, x, [1.0, 1.0], create_graph=True)
        y.backward([1.0, 1.0])
    assert values(y, x.grad) == [[-np.inf, 0.0], [[0.0, 0.0], [1.0, 0.0]]]


def test_power_has_a_mixed_derivative_at_exponent_zero() -> None:
    """d/dx d/dy x^y = x^(y-1) (1 + y log x), which is 1/x at y = 0."""
    x, y = leaf(2.0), leaf(0.0)
    (gy,) = gc.grad(x**y, [y], create_graph=True)
    (gx,) = gc.grad(x**y, [x], create_graph=True)
    assert gc.grad(gy, x).item() == pytest.approx(0.5, rel=4 * EPS)
    assert gc.grad(gx, y).item() == pytest.approx(0.5, rel=4 * EPS)


# --- shapes, axes and indices -------------------------------------------------------------------------------------


def scattered(places: Any, weights: Any, size: int) -> Any:
    """Independent gradient of a gather: add up by position."""
    return np.bincount(np.ravel(places), np.ravel(weights), size)


def tolerance(places: Any, weights: Any, size: int) -> Any:
    """Sums in another order differ by a rounding for each of their terms."""
    terms = np.bincount(np.ravel(places), minlength=size)
    return EPS * (1 + terms) * (1e-300 + scattered(places, np.abs(weights), size))


@given(
    hnp.mutually_broadcastable_shapes(num_shapes=2, max_dims=4, min_side=0, max_side=4), st.integers(0, 99)
)
def test_broadcasting_is_undone(shapes: Any, seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = (rng.standard_normal(s) for s in shapes.input_shapes)
    u = rng.standard_normal(shapes.result_shape)
    x, y = leaf(a), leaf(b)
    (x * y).backward(u)
    for t, mine, other in ((x, a, b), (y, b, a)):
        places = np.broadcast_to(np.arange(mine.size).reshape(mine.shape), shapes.result_shape)
        w = u * other
        assert t.grad.shape == mine.shape
        error = np.abs(t.grad.numpy().ravel() - scattered(places, w, mine.size))
        assert np.all(error <= tolerance(places, w, mine.size))


SHAPES = hnp.array_shapes(min_dims=1, max_dims=3, min_side=1, max_side=5)


@given(st.data())
def test_any_index_scatters_back(data: st.DataObject) -> None:
    shape = data.draw(SHAPES)
    kinds = [
        hnp.basic_indices(shape, allow_newaxis=True),
        hnp.integer_array_indices(shape),
        hnp.arrays(np.bool_, shape),
    ]
    index = data.draw(st.one_of(kinds))
    x = leaf(np.arange(np.prod(shape)).reshape(shape))
    picked = x[index]
    u = np.random.default_rng(1).standard_normal(picked.shape)
    picked.backward(u)
    places = np.arange(x.size).reshape(shape)[index]
    error = np.abs(x.grad.numpy().ravel() - scattered(places, u, x.size))
    assert np.all(error <= tolerance(places, u, x.size))


@given(st.data())
def test_sums_over_any_axes_spread_back(data: st.DataObject) -> None:
    shape = data.draw(SHAPES)
    axes = data.draw(st.none() | st.integers(-len(shape), len(shape) - 1) | hnp.valid_tuple_axes(len(shape)))
    keepdims = data.draw(st.booleans())
    x = leaf(np.ones(shape))
    total = np.sum(x, axis=axes, keepdims=keepdims)
    places = np.sum(np.ones(shape), axis=axes, keepdims=True)
    u = np.random.default_rng(2).standard_normal(places.shape)
    total.backward(u.reshape(total.shape))
    np.testing.assert_array_equal(x.grad.numpy(), np.broadcast_to(u, shape))


@given(
    hnp.array_shapes(min_dims=1, max_dims=4, max_side=4).flatmap(
        lambda s: st.tuples(st.just(s), st.permutations(range(len(s))))
    )
)
def test_transposing_is_undone(drawn: Any) -> None:
    shape, axes = drawn
    u = np.random.default_rng(3).standard_normal(np.transpose(np.empty(shape), axes).shape)
    x = leaf(np.zeros(shape))
    np.transpose(x, axes).backward(u)
    back = np.empty(shape)
    np.transpose(back, axes)[...] = u
    np.testing.assert_array_equal(x.grad.numpy(), back)


# --- accumulation -------------------------------------------------------------------------------------------------


def test_fan_out_diamonds_and_repeated_leaves_add_up() -> None:
    x = leaf(3.0)
    a, b = x * 2, x * x
    (a * b + a + x).backward()  # 2 x^3 + 3 x
    assert x.grad.item() == 6 * 9 + 3
    (x + x + x).backward()
    assert x.grad.item() == 6 * 9 + 3 + 3


def test_grad_of_sums_of_outputs_and_of_intermediates() -> None:
    x = leaf([1.0, 2.0])
    h = x * 3
    y = h * h
    gh, gx = gc.grad([y, h], [h, x], [np.ones(2), np.ones(2)], retain_graph=True)
    assert values(gh, gx) == [[7.0, 13.0], [21.0, 39.0]]
    assert x.grad is None
    assert values(gc.grad(y, y, np.full(2, 5.0))) == [[5.0, 5.0]]


def test_outputs_that_do_not_matter_are_left_alone() -> None:
    x, z = leaf(2.0), leaf(3.0)
    y, other = x * x, z * z
    gx, gz = gc.grad([y], [x, z], allow_unused=True)
    assert (gx.item(), gz) == (4.0, None)
    assert values(*gc.grad([other, leaf(1.0) * x], [x])) == [1.0]
    other.backward()  # what did not lead to x was not freed
    assert z.grad.item() == 6


def memory(t: gc.Tensor | None) -> Any:
    assert t is not None
    return t._data


@pytest.mark.parametrize("create_graph", [False, True])
def test_gradients_share_memory_with_nothing(create_graph: bool) -> None:
    x, y, u = leaf(np.ones(4)), leaf(np.ones(4)), np.ones(4)
    (x + y).backward(u, create_graph=create_graph)
    found = [*gc.grad(x + y, [x, y, x], u, create_graph=create_graph), x.grad, y.grad]
    sums = gc.grad((x + y).sum(), [x, y], create_graph=create_graph)
    views = gc.grad(np.concatenate([x, y]), [x, y], np.ones(8), create_graph=create_graph)
    everything = [memory(g) for g in (*found, *sums, *views)] + [u, x._data, y._data]
    for i, a in enumerate(everything):
        assert a.flags.writeable
        assert not any(np.shares_memory(a, b) for b in everything[:i])


def test_gradients_of_numbers_are_arrays_that_can_be_edited() -> None:
    x = leaf(2.0, np.float32)
    (x * np.ones(3, np.float32)).sum().backward()
    x.grad *= 2
    x.grad[()] += 1
    assert x.grad.item() == 7
    (x * 1).backward()
    assert type(memory(x.grad)) is np.ndarray
    assert type(memory(gc.grad(x * 3, x))) is np.ndarray


def test_backward_adds_to_grad_and_leaves_the_old_array_alone() -> None:
    x = leaf([1.0])
    (x * 2).sum().backward()
    before = x.grad
    (x * 2).sum().backward()
    assert values(before, x.grad) == [[2.0], [4.0]]
    x.grad = None
    assert x.grad is None


def test_chains_of_five_thousand_ops_need_no_deep_stack() -> None:
    x = leaf(1.0)
    y = x
    for _ in range(5000):
        y = y + 1e-3 * x
    g = gc.grad(y, x, create_graph=True)
    assert g.item() == pytest.approx(6.0, rel=5000 * EPS)
    y.backward()
    z = x * 1
    for _ in range(100_000):
        z = z * 1.0
    del z  # and to die, neither


# --- modes --------------------------------------------------------------------------------------------------------


def test_no_grad_as_context_and_decorator() -> None:
    x = leaf(2.0)

    @gc.no_grad()
    def frozen() -> tuple[gc.Tensor, bool]:
        with gc.enable_grad():
            inside = x * x
        return inside, (x * x).requires_grad

    for _ in range(2):
        inside, outside = frozen()
        assert inside.requires_grad
        assert not outside
    with pytest.raises(KeyError), gc.no_grad():
        raise KeyError
    assert is_grad_enabled()


def test_detach_shares_memory_without_history() -> None:
    x = leaf([1.0, 2.0])
    d = (x * x).detach()
    assert not d.requires_grad
    (x * d).sum().backward()
    assert values(x.grad) == [[1.0, 4.0]]
    assert np.shares_memory(x.detach()._data, x._data)


def test_threads_differentiate_on_their_own() -> None:
    barrier = threading.Barrier(2)
    found: dict[str, Any] = {}

    def work(name: str, scale: float, frozen: bool) -> None:
        x = leaf(np.full(3, scale))
        barrier.wait()
        if frozen:
            with gc.no_grad():
                barrier.wait()
                found["frozen"] = (x * x).requires_grad
                barrier.wait()
        else:
            barrier.wait()
            found["free"] = (x * x).requires_grad
            barrier.wait()
        for _ in range(50):
            y = x
            for _ in range(20):
                y = y * 1.5
            y.sum().backward()
        found[name] = x.grad.numpy()

    threads = [threading.Thread(target=work, args=a) for a in (("a", 1.0, True), ("b", 2.0, False))]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert (found["frozen"], found["free"]) == (False, True)
    for name in "ab":
        np.testing.assert_allclose(found[name], 50 * 1.5**20, rtol=70 * EPS)


# --- what is kept and freed ---------------------------------------------------------------------------------------


def test_backward_twice_needs_retain_graph() -> None:
    x = leaf(2.0)
    y = np.exp(x)
    y.backward(retain_graph=True)
    y.backward()
    assert x.grad.item() == 2 * np.exp(2.0)
    with pytest.raises(RuntimeError, match=r"what exp kept .* was freed .* retain_graph=True"):
        y.backward()
    z = x * x
    gc.grad(z, x, create_graph=True)
    gc.grad(z, x)
    with pytest.raises(RuntimeError, match="multiply kept"):
        gc.grad(z, x)


@pytest.fixture
def without_collector() -> Iterator[None]:
    collector.collect()
    collector.disable()
    yield
    collector.enable()


@pytest.mark.usefixtures("without_collector")
@pytest.mark.parametrize("order", [0, 1, 2])
def test_a_dropped_graph_dies_at_once(order: int) -> None:
    """No reference cycle: counting references is enough."""
    x = leaf(np.ones(3))
    h = np.tanh(x * 2) @ np.ones((3, 3))
    parts = np.split(h, 3)
    y = (np.concatenate(parts) * h[[0, 0, 1]]).sum()
    if order == 1:
        y.backward(retain_graph=True)
    if order == 2:
        (g,) = gc.grad(y, [x], create_graph=True)
        (g * g).sum().backward()
        del g
    refs = [weakref.ref(t) for t in (y, h, *parts)] + [weakref.ref(h._data)]
    del y, h, parts
    assert [r() for r in refs] == [None] * len(refs)


@pytest.mark.usefixtures("without_collector")
def test_only_what_rules_read_is_kept() -> None:
    x = leaf(np.ones(3))
    a, b, c = np.exp(x), np.sin(x), x * 2
    total = a + b  # reads neither
    product = b * c  # reads both
    data = {name: weakref.ref(t._data) for name, t in {"a": a, "b": b, "c": c, "total": total}.items()}
    root = (total - 1) * 3 + product
    del a, b, c, total, product
    assert data["total"]() is None
    assert all(data[name]() is not None for name in "abc")  # exp reads its result
    root.sum().backward()
    assert [r() for r in data.values()] == [None] * 4


@pytest.mark.usefixtures("without_collector")
def test_arguments_without_history_are_kept_only_if_read() -> None:
    x = leaf(np.ones(3))
    raw, plain = np.full(3, 2.0), gc.tensor(np.full(3, 2.0))
    refs = [weakref.ref(raw), weakref.ref(plain._data)]
    y = x + raw - plain
    del raw, plain
    assert [r() for r in refs] == [None, None]
    y.sum().backward()
    assert values(x.grad) == [[1.0] * 3]


def test_backward_frees_on_its_way() -> None:
    """200 layers of 1 MB each: the pass must never hold more than it started with and a few."""
    n, layers = 1 << 17, 200
    x = leaf(np.zeros(n))
    tracemalloc.start()
    try:
        y = x
        for _ in range(layers):
            y = np.sin(y)
        root = y.sum()
        del y
        held = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        root.backward()
        left, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held > (layers - 1) * 8 * n
    assert peak - held < 6 * 8 * n  # gradients and temporaries of one layer
    assert left < 4 * 8 * n


# --- edits in place -----------------------------------------------------------------------------------------------


def edit_tensor(x: gc.Tensor) -> None:
    with gc.no_grad():
        x += 1.0


def edit_item(x: gc.Tensor) -> None:
    with gc.no_grad():
        x[0] = 7.0


def edit_data(x: gc.Tensor) -> None:
    x.data[1] = 7.0


def edit_numpy(x: gc.Tensor) -> None:
    np.add(x.detach().numpy(), 1, out=x.detach().numpy())


def edit_view(x: gc.Tensor) -> None:
    with gc.no_grad():
        v = x.reshape(2, 2).T[1:]
        v *= 2.0


def edit_data_after_a_view(x: gc.Tensor) -> None:
    assert x[:1].data.size  # handing out a part must not hide the rest
    x.data[-1] = 7.0


EDITS = [edit_tensor, edit_item, edit_data, edit_numpy, edit_view, edit_data_after_a_view]


@pytest.mark.parametrize("edit", EDITS)
def test_an_edit_of_what_was_kept_is_caught(edit: Callable[[gc.Tensor], None]) -> None:
    x = leaf(np.arange(4.0))
    y = (x * x).sum()
    edit(x)
    with pytest.raises(RuntimeError, match=r"array that multiply kept .* edited in place"):
        y.backward()


@pytest.mark.parametrize("edit", EDITS)
def test_an_edit_of_a_view_is_caught_in_what_it_views(edit: Callable[[gc.Tensor], None]) -> None:
    x = leaf(np.arange(4.0))
    view = x.reshape(2, 2).T.ravel() if edit is edit_view else x[::-1]
    y = (view * view).sum()
    edit(x if edit is not edit_view else view.detach())
    with pytest.raises(RuntimeError, match="edited in place"):
        y.backward()


@pytest.mark.parametrize("edit", EDITS)
def test_edits_before_the_op_and_edits_that_no_rule_sees_are_fine(edit: Callable[[gc.Tensor], None]) -> None:
    x = leaf(np.arange(4.0))
    edit(x)
    y = (x * x).sum()
    z = (x + 1.0).sum()
    y.backward()
    assert values(x.grad) == [(2 * x.detach().numpy()).tolist()]
    edit(x)
    z.backward()  # adding reads nothing
    assert x.grad.requires_grad is False


def test_an_edit_of_a_result_that_its_rule_reads_is_caught() -> None:
    y = np.exp(leaf(np.ones(3)))
    y.detach().numpy()[0] = 3
    with pytest.raises(RuntimeError, match="exp kept"):
        y.sum().backward()


@pytest.mark.parametrize(
    "op",
    [
        lambda x, a: x * a,
        lambda x, a: a.T @ x,
        lambda x, a: np.where(a, x, 0),
        lambda x, a: x[a],
        lambda x, a: x[None, a],
        lambda x, a: np.take(x, a, axis=0),
        lambda x, a: masked(x, mask=a),
    ],
)
def test_an_edit_of_an_array_given_to_an_op_is_caught(op: Callable[[gc.Tensor, Any], gc.Tensor]) -> None:
    x, array = leaf(np.ones(3)), np.array([0, 1, 2])
    y = op(x, array).sum()
    array[0] = 1
    op(x, array).sum().backward()  # edited before
    with pytest.raises(RuntimeError, match="edited in place"):
        y.backward()


@pytest.mark.parametrize(
    "op",
    [
        lambda x, w: x * w,
        lambda x, w: w - x,
        lambda x, w: x**w,
        lambda x, w: np.arctan2(x, w),
        lambda x, w: np.maximum(w, x),
        lambda x, w: x @ w,
        lambda x, w: w @ x,
        lambda x, w: np.dot(w, x),
        lambda x, w: np.where(w, x, 0),
        lambda x, w: np.concatenate([x, w]) ** 2,
        lambda x, w: np.clip(x, w, 2),
        lambda x, w: np.einsum("i,i->", x, w),
        lambda x, w: x[w],
        lambda x, w: x[None, w],
        lambda x, w: x[w[:0]],
        lambda x, w: np.take(x, w),
        lambda x, w: np.take_along_axis(x, w, 0),
    ],
)
def test_lists_are_arrays_as_they_were_then(op: Callable[[gc.Tensor, Any], gc.Tensor]) -> None:
    found = []
    for values in ([0, 1, 2], np.array([0, 1, 2])):
        x = leaf([0.5, 1.5, 2.5])
        y = op(x, values)
        if isinstance(values, list):
            values[:] = [2, 0, 0]
        y.sum().backward()
        found.append((y.detach().numpy(), x.grad.numpy()))
    np.testing.assert_array_equal(found[0][0], found[1][0])
    np.testing.assert_array_equal(found[0][1], found[1][1])


@gc.primitive
def masked(x: Any, *, mask: Any) -> Any:
    return x * mask


gc.defvjp(masked, lambda g, _ans, _x, *, mask: g * mask)


@pytest.mark.parametrize("name", ["add", "sub", "mul", "truediv", "floordiv", "mod", "pow"])
def test_every_operator_edits_a_parameter_in_place(name: str) -> None:
    x, other = leaf([1.5, 2.5]), 2.0
    memory, y = x.detach().numpy(), (x * x).sum()
    want = getattr(operator, name)(memory, other)
    with gc.no_grad():
        edited = getattr(operator, f"i{name}")(x, other)
    assert edited is x
    np.testing.assert_array_equal(memory, want)
    with pytest.raises(RuntimeError, match="edited in place"):
        y.backward()
    with pytest.raises(RuntimeError, match=r"in-place .* not edited in place"):
        getattr(operator, f"i{name}")(x, other)


@pytest.mark.parametrize("name", ["iand", "ior", "ixor"])
def test_operators_of_bits_edit_in_place(name: str) -> None:
    x = gc.tensor([True, False])
    memory, want = x.numpy(), getattr(operator, name[1:] + "_" * (name != "ixor"))(x.numpy(), True)
    assert getattr(operator, name)(x, True) is x
    np.testing.assert_array_equal(memory, want)


CONSTANT = np.ones(3)


@pytest.mark.parametrize(
    "rule",
    [
        lambda g, ans, x: x,
        lambda g, ans, x: ans,
        lambda g, ans, x: CONSTANT,
        lambda g, ans, x: [1.0, 1.0, 1.0],
        lambda g, ans, x: g,
    ],
)
@pytest.mark.parametrize("create_graph", [False, True])
def test_what_a_rule_returns_is_not_what_becomes_the_gradient(rule: Any, create_graph: bool) -> None:
    @gc.primitive
    def op(x: Any) -> Any:
        return x * 1.0

    gc.defvjp(op, rule)
    x = leaf([1.0, 1.0, 1.0])
    y = op(x)
    (y + 0.0).sum().backward(create_graph=create_graph)
    x.grad.detach().data[...] = 7.0
    for mine in (x.detach().numpy(), y.detach().numpy(), CONSTANT):
        np.testing.assert_array_equal(mine, 1)


def test_a_rule_may_return_a_number() -> None:
    @gc.primitive
    def double(x: Any) -> Any:
        return 2 * x

    gc.defvjp(double, lambda g, _ans, _x: 2.0 * float(np.sum(g)))
    x = leaf(3.0)
    double(x).backward()
    assert x.grad.item() == 2
    with pytest.raises(ValueError, match=r"double: expected the gradient of argument 0 to have shape \(3,\)"):
        double(leaf(np.ones(3))).sum().backward()


def test_history_is_not_edited_in_place() -> None:
    x = leaf(np.ones(3))
    with pytest.raises(RuntimeError, match=r"setitem: .* not edited in place"):
        x[0] = 2.0
    with pytest.raises(RuntimeError, match=r"in-place add: .* not edited in place"):
        x += 1.0
    h = before = x * 2
    h += 1.0  # of a result: a new value under the old name
    assert h is not before
    (h * before).sum().backward()
    assert values(x.grad) == [[10.0] * 3]


# --- ops that users add -----------------------------------------------------------------------------------------------


def test_one_rule_an_argument_and_tensors_by_keyword() -> None:
    @gc.primitive
    def scaled(x: Any, offset: Any = 0.0, scale: Any = 2.0, *, power: int = 1) -> Any:
        return (x + offset) * scale**power

    gc.defvjp(
        scaled,
        lambda g, _ans, _x, _offset, scale, *, power=1: g * scale**power,
        lambda g, _ans, _x, _offset, scale, *, power=1: g * scale**power,
        lambda g, _ans, x, offset, scale, *, power=1: g * (x + offset) * power * scale ** (power - 1),
    )
    x, s = leaf([1.0, 2.0]), leaf(3.0)
    scaled(x, scale=s, power=2).sum().backward()
    assert values(x.grad, s.grad) == [[9.0, 9.0], 18.0]
    scaled(1.0, offset=x).sum().backward()
    assert values(x.grad) == [[11.0, 11.0]]
    np.testing.assert_array_equal(scaled(np.ones(2), power=2), [4.0, 4.0])
    with pytest.raises(
        TypeError, match="scaled: expected power to be an array or a number, received a Tensor"
    ):
        scaled(x, power=s)


class Parts(NamedTuple):
    low: Any
    high: Any


def split_op() -> Any:
    @gc.primitive
    def parts(x: Any, y: Any) -> Parts:
        return Parts(x * y, np.sum(x + y))

    def rule(needs: Any, g: Any, ans: Any, x: Any, y: Any) -> Any:
        assert isinstance(g, tuple)
        low = 0.0 if g[0] is None else g[0]
        high = 0.0 if g[1] is None else g[1]
        return tuple(low * other + high if need else None for need, other in zip(needs, (y, x), strict=True))

    gc.defvjp(parts, joint=rule)
    return parts


def test_several_results_and_joint_rules() -> None:
    x, y = leaf([1.0, 2.0]), leaf([3.0, 4.0])
    low, high = found = split_op()(x, y)
    assert isinstance(found, Parts)
    assert found.high.shape == ()
    (low.sum() + 10 * high).backward()
    assert values(x.grad, y.grad) == [[13.0, 14.0], [11.0, 12.0]]
    low, _ = split_op()(x, np.array([3.0, 4.0]))  # one argument, one result
    assert values(gc.grad(low.sum(), x)) == [[3.0, 4.0]]


def test_several_results_have_second_derivatives_also_by_a_result() -> None:
    x, y = leaf([1.0, 2.0]), leaf([3.0, 4.0])
    (g,) = gc.grad((split_op()(x, y).low ** 2).sum(), [x], create_graph=True)  # 2 x y^2
    assert values(*gc.grad(g.sum(), [x, y])) == [[18.0, 32.0], [12.0, 32.0]]

    @gc.primitive
    def both(x: Any) -> tuple[Any, Any]:
        return x * x, x * 1

    gc.defvjp(both, lambda g, ans, _x: g[0] * 2 * ans[1])
    square, same = both(x)
    (g,) = gc.grad(square.sum(), [x], create_graph=True)
    assert values(gc.grad(g.sum(), same)) == [[2.0, 2.0]]  # ans in a recorded rule is the result itself


@pytest.mark.parametrize("n", [1, 59, 60, 61, 64, 200])
def test_any_number_of_arguments(n: int) -> None:
    xs = [leaf([float(i)]) for i in range(n)]
    y = np.concatenate(xs)
    assert y.shape == (n,)
    (y * np.arange(n)).sum().backward()
    assert [x.grad.item() for x in xs] == list(range(n))

    @gc.primitive
    def product(*xs: Any) -> Any:
        return np.prod(np.stack(xs), axis=0)

    gc.defvjp(product, joint=lambda needs, g, ans, *xs: tuple(g * ans / x for x in xs))
    last = leaf([2.0])
    ones = [leaf([1.0]) for _ in range(n)]
    product(*ones, last).backward()
    assert {x.grad.item() for x in ones} == {2.0}
    last.grad = None
    product(*np.ones((n, 1)), last).backward()
    assert last.grad.item() == 1
    kept = np.ones(1)
    y = product(*[kept] * n, last)
    kept[0] = 3
    with pytest.raises(RuntimeError, match="product kept"):
        y.backward()


def test_rules_know_the_shape_of_what_is_not_kept() -> None:
    @gc.primitive
    def join(x: Any, y: Any, n: int) -> Any:
        return np.concatenate([x, y][:n])

    gc.defvjp(
        join,
        lambda g, _ans, _x, _y, _n: g[: _x.shape[0]],
        lambda g, _ans, _x, _y, _n: g[-_y.shape[0] * (_n - 1) :],
    )
    for y in (np.ones(3, np.float32), gc.tensor(np.ones(3)), leaf(np.ones(3))):
        x = leaf(np.ones(2))
        join(x, y, 2).backward(np.arange(5.0))
        assert values(x.grad) == [[0.0, 1.0]]
    assert values(y.grad) == [[2.0, 3.0, 4.0]]


def test_missing_and_refused_gradients_name_op_and_argument() -> None:
    @gc.primitive
    def cut(x: Any, y: Any) -> Any:
        return x * y

    x = leaf(1.0)
    with pytest.raises(
        TypeError, match=r"cut: has no gradient rule for argument 0; declare it with gc\.defvjp"
    ):
        cut(x, 2.0).backward()
    gc.defvjp(cut, lambda g, _ans, _x, y: g * y, None)
    cut(x, 2.0).backward()
    with pytest.raises(TypeError, match="cut: has no gradient rule for argument 1"):
        cut(2.0, x).backward()
    later = cut(x, 2.0)
    gc.nondiff(cut)
    assert not cut(x, 2.0).requires_grad
    later.backward()
    with pytest.raises(TypeError, match="clip: has no gradient rule for argument 1"):
        np.clip(leaf(1.0), x, 2.0).backward()


def test_wrong_rules_are_named() -> None:
    @gc.primitive
    def same(x: Any) -> Any:
        return x * 1

    x = leaf(np.ones((2, 3)))
    gc.defvjp(same, lambda g, _ans, _x: g[:1])
    with pytest.raises(
        ValueError, match=r"same: expected the gradient of argument 0 to have shape \(2, 3\).*\(1, 3\)"
    ):
        same(x).backward(np.ones((2, 3)))
    gc.defvjp(same, joint=lambda needs, g, _ans, _x: (g, g))
    with pytest.raises(TypeError, match="same: expected its joint rule to return 1 gradients, received 2"):
        same(x).backward(np.ones((2, 3)))
    gc.defvjp(same, joint=lambda needs, g, _ans, _x: g)
    with pytest.raises(
        TypeError, match="same: expected its joint rule to return 1 gradients, received ndarray"
    ):
        same(x).backward(np.ones((2, 3)))
    with pytest.raises(TypeError, match="received both or neither"):
        gc.defvjp(same)
    with pytest.raises(TypeError, match=r"expected a function made by gc\.primitive, received"):
        gc.defvjp(len, lambda g, _ans, _x: g)

    @gc.primitive
    def listed(x: Any) -> Any:
        return [x]

    with pytest.raises(
        TypeError, match="listed: expected the result to be an array or a tuple of arrays, received list"
    ):
        listed(x)


# --- Tensors ----------------------------------------------------------------------------------------------------------


def test_wrong_calls_say_what_was_expected_and_received() -> None:
    x, z = leaf([1.0, 2.0]), leaf(1.0)
    y = x * 2
    cases: list[tuple[Callable[[], Any], type[Exception], str]] = [
        (y.backward, ValueError, r"backward: expected a gradient, since the result has shape \(2,\), received None"),
        (lambda: y.backward(np.ones(3)), ValueError, r"expected gradient of shape \(2,\), received \(3,\)"),
        (lambda: gc.tensor(1.0).backward(), ValueError, "expected a Tensor that depends on one with requires_grad"),
        (lambda: gc.grad(1.0, x), TypeError, "grad: expected a Tensor to differentiate, received float"),
        (lambda: gc.grad(y.sum(), 1.0), ValueError, "grad: expected input 0 to be a Tensor .* received 1.0"),
        (lambda: gc.grad([1.0], x), TypeError, "grad: expected a Tensor to differentiate, received float"),
        (lambda: gc.grad(y.sum(), [x, 3]), ValueError, "expected input 1 to be a Tensor .* received 3"),
        (lambda: gc.grad(y.sum(), z), ValueError, "do not depend on input 0; give allow_unused=True"),
        (lambda: gc.grad([z, z], z, [1.0]), ValueError, "expected 2 grad_outputs, one for each output, received 1"),
        (lambda: gc.tensor([1], requires_grad=True), TypeError, "expected a floating-point dtype .* received int64"),
        (lambda: gc.tensor([1j]), TypeError, "expected numbers, received dtype complex"),
        (lambda: gc.Tensor(1), TypeError, "make Tensors with gencore.tensor"),
        (lambda: np.asarray(x), TypeError, "received a Tensor that requires gradients"),
        (lambda: setattr(y, "grad", None), ValueError, "grad: expected a leaf"),
        (lambda: setattr(x, "grad", z), ValueError, r"grad: expected a Tensor of shape \(2,\)"),
        (lambda: np.add(x, 1, out=np.ones(2)), TypeError, "numpy.add, out=: is not defined on Tensors"),
        (lambda: np.add.reduce(x), TypeError, "numpy.add.reduce: is not defined on Tensors"),
        (lambda: np.linalg.inv(x), TypeError, "numpy.inv: is not defined on Tensors"),
        (lambda: np.nextafter(x, 1), TypeError, "numpy.nextafter: is not defined"),
        (lambda: np.einsum("ii->i", x), ValueError, "einsum: expected subscripts such as"),
        (lambda: np.split(x, 3), ValueError, "split: expected an axis that 3 divides, received length 2"),
        (lambda: np.dot(np.ones((1, 1, 2)), x), ValueError, "dot: expected at most 2 axes"),
        (lambda: pickle.dumps(y), TypeError, "expected a Tensor without history"),
    ]  # fmt: skip
    for call, error, message in cases:
        with pytest.raises(error, match=message):
            call()


def test_tensors_are_copies_and_keep_dtypes() -> None:
    a = np.ones(3)
    t = gc.tensor(a)
    a[0] = 5
    assert values(t) == [[1.0] * 3]
    assert [gc.tensor(x).dtype for x in (1.5, [1, 2], True, np.float64(1))] == [
        np.float32,
        np.int64,
        np.bool_,
        np.float64,
    ]
    x = leaf([1.0])
    for twin in (pickle.loads(pickle.dumps(x)), copy.deepcopy(x), copy.copy(x)):
        assert twin.requires_grad
        assert twin.is_leaf
        assert not np.shares_memory(twin._data, x._data)


def test_gradients_take_the_dtype_of_what_they_belong_to() -> None:
    x = leaf([1.0], np.float32)
    (x * np.ones(1)).sum().backward()  # in float64 from here on
    assert x.grad.dtype == np.float32
    x.backward(np.ones(1))
    assert x.grad.dtype == np.float32
    x.astype(np.float64).sum().backward()
    assert x.grad.dtype == np.float32


def test_arrays_on_the_left_give_tensors() -> None:
    x = leaf([1.0, 2.0])
    for y in (np.ones(2) * x, np.ones(2) - x, np.float64(2) ** x, np.eye(2) @ x, np.ones(2) > x, 2.0 / x):
        assert isinstance(y, gc.Tensor)
    for y in (
        DeviceArray(np.ones(2)) * gc.tensor(DeviceArray(np.ones(2))),
        np.exp(gc.tensor(DeviceArray(np.ones(2)))),
    ):
        assert isinstance(y._data, DeviceArray)


def test_a_tensor_on_a_device_shows_and_gives_its_values() -> None:
    x = gc.tensor(DeviceArray(np.array([1.0, 2.0])), requires_grad=True)
    assert repr(x) == "tensor([1., 2.], dtype=float64, requires_grad=True)"
    assert x.detach().numpy().tolist() == [1.0, 2.0]
    (x * x).backward([1.0, 2.0])
    assert x.grad.numpy().tolist() == [2.0, 8.0]


def test_what_needs_no_gradient_leaves_no_nodes() -> None:
    assert type(softplus(np.ones(2))) is np.ndarray
    assert (softplus(gc.tensor([1.0])) * 2)._node is None
    with gc.no_grad():
        assert (leaf(1.0) * 2)._node is None
    assert isinstance((leaf(1.0) * 2)._node, Node)
