"""gencore.optim: trajectories against the formulas and against torch.optim, groups, state, and what is refused."""

import copy
import inspect
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import optim as reference
from reference.rounding import Rounded

import gencore as gc
from gencore import optim

SHAPES = ((), (3,), (5, 7), (2, 3, 6))
STEPS = 50
BUFFERS = ("momentum_buffers",)
# Optimizer, its formula, the state that the formula keeps, options, and how the formula calls them where it differs.
TRAJECTORIES = [
    ("SGD", reference.sgd, (), {"lr": 0.1}),
    ("SGD", reference.sgd, (), {"lr": 0.1, "weight_decay": 0.1, "maximize": True}),
    ("SGD", reference.sgd, BUFFERS, {"lr": 0.1, "momentum": 0.9}),
    ("SGD", reference.sgd, BUFFERS, {"lr": 0.1, "momentum": 0.9, "dampening": 0.3, "weight_decay": 0.01}),
    ("SGD", reference.sgd, BUFFERS, {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01}),
    ("RMSprop", reference.rmsprop, ("square_avgs",), {}),
    ("RMSprop", reference.rmsprop, ("square_avgs",), {"alpha": 0.9, "eps": 1e-3, "weight_decay": 0.1}),
    ("RMSprop", reference.rmsprop, ("square_avgs", *BUFFERS), {"momentum": 0.9, "maximize": True}),
    ("RMSprop", reference.rmsprop, ("square_avgs", "grad_avgs"), {"centered": True, "eps": 1e-2}),
    (
        "RMSprop",
        reference.rmsprop,
        ("square_avgs", "grad_avgs", *BUFFERS),
        {"centered": True, "momentum": 0.5},
    ),
    ("Adagrad", reference.adagrad, ("state_sums",), {}),
    ("Adagrad", reference.adagrad, ("state_sums",), {"lr_decay": 0.1, "eps": 1e-2, "weight_decay": 0.1}),
    ("Adagrad", reference.adagrad, ("state_sums",), {"initial_accumulator_value": 0.5, "maximize": True}),
    ("Adadelta", reference.adadelta, ("square_avgs", "acc_deltas"), {}),
    (
        "Adadelta",
        reference.adadelta,
        ("square_avgs", "acc_deltas"),
        {"lr": 0.5, "rho": 0.95},
    ),
    (
        "Adadelta",
        reference.adadelta,
        ("square_avgs", "acc_deltas"),
        {"eps": 1e-2, "weight_decay": 0.01, "maximize": True},
    ),
    ("Adam", reference.adam, ("exp_avgs", "exp_avg_sqs"), {}),
    ("Adam", reference.adam, ("exp_avgs", "exp_avg_sqs"), {"betas": (0.3, 0.8), "weight_decay": 0.1}),
    (
        "Adam",
        reference.adam,
        ("exp_avgs", "exp_avg_sqs"),
        {"betas": (0.0, 0.99), "eps": 1e-2, "maximize": True},
    ),
    ("Adam", reference.adam, ("exp_avgs", "exp_avg_sqs", "max_exp_avg_sqs"), {"amsgrad": True}),
    ("AdamW", reference.adam, ("exp_avgs", "exp_avg_sqs"), {}),
    (
        "AdamW",
        reference.adam,
        ("exp_avgs", "exp_avg_sqs"),
        {"lr": 0.1, "weight_decay": 0.5, "maximize": True},
    ),
    (
        "AdamW",
        reference.adam,
        ("exp_avgs", "exp_avg_sqs", "max_exp_avg_sqs"),
        {"amsgrad": True, "weight_decay": 0.1},
    ),
]
IDS = [f"{name}-{'-'.join(options) or 'defaults'}" for name, _, _, options in TRAJECTORIES]
every_trajectory = pytest.mark.parametrize(("name", "formula", "states", "options"), TRAJECTORIES, ids=IDS)
# One of each kind, with all the state that it may keep.
VARIANTS = [TRAJECTORIES[i] for i in (0, 3, 9, 10, 13, 19, 20)]
every_variant = pytest.mark.parametrize(
    ("name", "options"), [(name, options) for name, _, _, options in VARIANTS], ids=lambda x: str(x)[:30]
)


def start(shapes=SHAPES, seed=0):
    rng = np.random.default_rng(seed)
    return [np.asarray(rng.normal(0, 1, shape), np.float32) for shape in shapes]


def gradients(step, shapes=SHAPES):
    return [g + np.float32(0.3) for g in start(shapes, seed=step)]


def tensors(arrays):
    return [gc.tensor(a, requires_grad=True) for a in arrays]


def give_gradients(params, grads):
    """By a backward pass: the gradient of sum(p g) is g."""
    total = sum((p * g).sum() for p, g in zip(params, grads, strict=True))
    total.backward()


def run(optimizer, params, steps):
    for step in steps:
        optimizer.zero_grad()
        give_gradients(params, gradients(step, [p.shape for p in params]))
        optimizer.step()
    return [p.numpy().copy() for p in params]


def make(name, params, options):
    return getattr(optim, name)(params, **options)


def same(a, b):
    return all(x.tobytes() == y.tobytes() for x, y in zip(a, b, strict=True))


def by_formula(name, formula, states, options):
    """The trajectory in float64, and the bound on what rounding adds up to: every operation rounds once."""
    defaults = inspect.signature(getattr(optim, name)).parameters
    options = {key: p.default for key, p in defaults.items() if key != "params"} | options
    first = options.pop("initial_accumulator_value", 0.0)
    if "betas" in options:
        options["beta1"], options["beta2"] = options.pop("betas")
    for switch in ("amsgrad", "centered"):
        options.pop(switch, None)
    if name == "AdamW":
        options["decoupled"] = True
    if name in ("Adam", "AdamW", "Adagrad"):
        options["step"] = 0
    params = [Rounded(p) for p in start()]
    kept = [{state: Rounded(np.full(p.value.shape, first)) for state in states} for p in params]
    for step in range(1, STEPS + 1):
        numbers = dict(options)
        if "step" in numbers:
            numbers["step"] = step
        if name == "SGD" and step == 1:
            numbers["dampening"] = 0.0  # the first gradient goes into the buffer whole
        params = [formula(p, g, s, **numbers) for p, g, s in zip(params, gradients(step), kept, strict=True)]
    return params


@every_trajectory
def test_follows_the_formulas(name, formula, states, options):
    truth = by_formula(name, formula, states, options)
    params = tensors(start())
    ours = run(make(name, params, options), params, range(1, STEPS + 1))
    moved = max(np.abs(x - x0).max() for x, x0 in zip(ours, start(), strict=True))
    for x, expected in zip(ours, truth, strict=True):
        assert np.all(np.abs(x - expected.value) <= expected.error)
        assert np.all(expected.error < 1e-3 * moved)  # a bound that means something


@every_trajectory
def test_follows_torch(name, formula, states, options, torch):
    """Both are within the bound of the formula in float64."""
    theirs = [torch.tensor(p).requires_grad_() for p in start()]
    optimizer = getattr(torch.optim, name)(theirs, **options, foreach=False)
    params = tensors(start())
    mine = make(name, params, options)
    for step in range(1, STEPS + 1):
        for p, g in zip(theirs, gradients(step), strict=True):
            p.grad = torch.tensor(g)
        optimizer.step()
        run(mine, params, [step])
    truth = by_formula(name, formula, states, options)
    for x, y, expected in zip(params, theirs, truth, strict=True):
        assert np.all(np.abs(x.numpy() - y.detach().numpy()) <= 2 * expected.error)


@pytest.mark.parametrize("name", ["SGD", "RMSprop", "Adagrad", "Adadelta", "Adam", "AdamW"])
def test_defaults_are_torchs(name, torch):
    ours = inspect.signature(getattr(optim, name)).parameters
    theirs = inspect.signature(getattr(torch.optim, name)).parameters
    for key, parameter in ours.items():
        assert parameter.default == theirs[key].default, key


def test_trains_through_autograd():
    """The minimum of a quadratic, in the least squares sense, by the optimizer and by linear algebra."""
    rng = np.random.default_rng(1)
    a, y = rng.normal(size=(40, 5)).astype(np.float32), rng.normal(size=40).astype(np.float32)
    w = gc.tensor(np.zeros(5, np.float32), requires_grad=True)
    optimizer = optim.Adam([w], lr=0.1)
    for i in range(400):
        optimizer.param_groups[0]["lr"] = 0.1 * 0.98**i
        optimizer.zero_grad()
        ((a @ w - y) ** 2).mean().backward()
        optimizer.step()
    assert np.allclose(w.numpy(), np.linalg.lstsq(a.astype(float), y, rcond=None)[0], atol=1e-3)


# --- groups, missing gradients, shapes ------------------------------------------------------------------------


def test_groups_have_options_of_their_own():
    together, apart = tensors(start()), tensors(start())
    groups = [{"params": together[:2], "lr": 0.5}, {"params": iter(together[2:]), "betas": (0.5, 0.5)}]
    run(optim.Adam(groups, lr=0.01), together, range(5))
    run(optim.Adam(apart[:2], lr=0.5), apart[:2], range(5))
    optimizer = optim.Adam(apart[2], lr=0.01, betas=(0.5, 0.5))
    optimizer.add_param_group({"params": apart[3], "betas": (0.5, 0.5)})
    for step in range(5):
        optimizer.zero_grad()
        give_gradients(apart[2:], gradients(step)[2:])
        optimizer.step()
    assert same([p.numpy() for p in together], [p.numpy() for p in apart])


def test_learning_rate_is_read_at_each_step():
    params, expected = tensors(start()), start()
    optimizer = optim.SGD(params, lr=1.0)
    for step, lr in enumerate((0.5, 0.25, 0.0)):
        optimizer.param_groups[0]["lr"] = lr
        run(optimizer, params, [step])
        expected = [p - np.float32(lr) * g for p, g in zip(expected, gradients(step), strict=True)]
    # Powers of 2: the products are exact, and each difference rounds as the kernel's does.
    assert same([p.numpy() for p in params], expected)


@every_variant
def test_parameters_without_gradient_are_skipped(name, options):
    """And count their own steps: each goes as it would alone."""
    params = tensors(start(((4,), (3, 2))))
    optimizer = make(name, params, options)
    alone = tensors(start(((4,), (3, 2))))
    others = [make(name, [p], options) for p in alone]
    for step in range(12):
        chosen = [i for i in range(2) if step % (i + 2) == 0]
        optimizer.zero_grad()
        before = [p.numpy().copy() for p in params]
        for i in chosen:
            give_gradients([params[i]], gradients(step, [params[i].shape]))
            others[i].zero_grad()
            give_gradients([alone[i]], gradients(step, [params[i].shape]))
            others[i].step()
        optimizer.step()
        assert all(same([before[i]], [params[i].numpy()]) for i in range(2) if i not in chosen)
    assert same([p.numpy() for p in params], [p.numpy() for p in alone])


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.lists(st.integers(0, 40), max_size=3), min_size=1, max_size=8),
    st.integers(0, len(VARIANTS) - 1),
)
def test_any_shapes_are_one_long_vector(shapes, variant):
    """The step is elementwise: many arrays and one with all their elements give the same bits."""
    name, _, _, options = VARIANTS[variant]
    many = tensors(start(shapes))
    run(make(name, many, options), many, [])
    grads = gradients(3, shapes)
    one = tensors([np.concatenate([p.numpy().ravel() for p in many])])
    for params, gs in ((many, grads), (one, [np.concatenate([g.ravel() for g in grads])])):
        optimizer = make(name, params, options)
        for _ in range(2):
            optimizer.zero_grad()
            give_gradients(params, gs)
            optimizer.step()
    assert same([np.concatenate([p.numpy().ravel() for p in many])], [p.numpy() for p in one])


def test_a_gradient_in_another_memory_order_is_taken():
    p, q = tensors(start(((4, 6), (4, 6))))
    q._data[...] = p._data
    g = start(((6, 4),))[0]
    (p * g.T).sum().backward()
    q.grad = gc.tensor(np.ascontiguousarray(g.T))
    assert np.array_equal(p.grad.numpy(), q.grad.numpy())
    p.grad._data = p.grad._data.T.copy().T
    assert not p.grad._data.flags.c_contiguous
    optim.SGD([p, q], lr=0.1).step()
    assert same([p.numpy()], [q.numpy()])


def test_a_step_is_an_edit_that_backward_notices():
    p = gc.tensor(np.ones(3, np.float32), requires_grad=True)
    loss = (p * p).sum()
    p.grad = gc.tensor(np.ones(3, np.float32))
    optim.SGD([p], lr=0.1).step()
    with pytest.raises(RuntimeError, match="edited in place"):
        loss.backward()


def test_centered_rmsprop_of_a_constant_gradient_stays_finite():
    """Its variance is 0 but for rounding, and no root is taken of what rounding leaves below 0."""
    p = gc.tensor(np.zeros(64, np.float32), requires_grad=True)
    optimizer = optim.RMSprop([p], alpha=0.5, centered=True, eps=1e-3)
    p.grad = gc.tensor(np.linspace(0.1, 3, 64).astype(np.float32))
    for _ in range(200):
        optimizer.step()
    assert np.isfinite(p.numpy()).all()
    p.grad = gc.tensor(np.full(64, np.nan, np.float32))
    optimizer.step()
    assert np.isnan(p.numpy()).all()


# --- state ----------------------------------------------------------------------------------------------------


@every_variant
@pytest.mark.parametrize("carry", [copy.deepcopy, lambda s: pickle.loads(pickle.dumps(s))])
def test_goes_on_from_a_state_dict_to_the_same_bits(name, options, carry):
    params = tensors(start())
    optimizer = make(name, params, options)
    run(optimizer, params, range(5))
    saved, at = carry(optimizer.state_dict()), [p.numpy().copy() for p in params]
    expected = run(optimizer, params, range(5, 10))
    resumed = tensors(at)
    other = make(name, resumed, {"lr": 123.0})
    other.load_state_dict(saved)
    assert same(run(other, resumed, range(5, 10)), expected)
    assert other.param_groups[0]["lr"] == optimizer.param_groups[0]["lr"]
    assert {k: v for k, v in saved["state"][0].items() if k == "step"} == {
        "step": 5
    }  # a copy: it did not go on


def adam_after_two_steps():
    params = tensors(start(((2,), (3, 2))))
    optimizer = optim.Adam(params)
    run(optimizer, params, range(2))
    return optimizer


def without(mapping, key):
    return {k: v for k, v in mapping.items() if k != key}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: without(s, "state"), "expected state_dict to hold param_groups, state; missing state"),
        (lambda s: {**s, "epoch": 3}, "unexpected epoch"),
        (lambda s: {**s, "param_groups": []}, "param_groups: expected 1 entries, received 0"),
        (
            lambda s: {**s, "param_groups": [without(s["param_groups"][0], "eps")]},
            r"param_groups\[0\].*missing eps",
        ),
        (
            lambda s: {**s, "param_groups": [{**s["param_groups"][0], "params": [0]}]},
            r"param_groups\[0\] params: expected 2 entries, received 1",
        ),
        (
            lambda s: {**s, "param_groups": [{**s["param_groups"][0], "lr": -1.0}]},
            "expected lr to be at least 0, received -1",
        ),
        (lambda s: {**s, "state": {7: {}}}, r"state of the parameters there are, received \[7\]"),
        (
            lambda s: {**s, "state": {1: without(s["state"][1], "exp_avg")}},
            r"expected state\[1\] to hold exp_avg, exp_avg_sq, step; missing exp_avg",
        ),
        (
            lambda s: {**s, "state": {1: {**s["state"][1], "exp_avg": np.zeros(6, np.float32)}}},
            r"state\[1\]\['exp_avg'\]: expected float32 of shape \(3, 2\), received float32 of shape \(6,\)",
        ),
        (
            lambda s: {**s, "state": {0: {**s["state"][0], "exp_avg": np.zeros(2)}}},
            r"state\[0\]\['exp_avg'\]: expected float32 of shape \(2,\), received float64",
        ),
    ],
)
def test_states_that_do_not_fit_are_refused_whole(change, message):
    optimizer = adam_after_two_steps()
    before = optimizer.state_dict()
    wrong = change({**adam_after_two_steps().state_dict()})
    with pytest.raises(
        ValueError, match=f"Adam(.load_state_dict)?: .*{message}|Adam.load_state_dict: {message}"
    ):
        optimizer.load_state_dict(wrong)
    assert pickle.dumps(optimizer.state_dict()) == pickle.dumps(before)


# --- what is refused ------------------------------------------------------------------------------------------


def param(shape=(2,), dtype=np.float32, requires_grad=True):
    return gc.tensor(np.ones(shape, dtype), requires_grad=requires_grad)


@pytest.mark.parametrize(
    ("params", "error", "message"),
    [
        (lambda: [], ValueError, "expected params to hold at least one Tensor, received none"),
        (
            lambda: [param(), np.ones(2)],
            TypeError,
            r"param_groups\[0\] params\[1\] to be a Tensor, received ndarray",
        ),
        (
            lambda: [param(dtype=np.float64)],
            TypeError,
            r"params\[0\] to be float32, received float64",
        ),
        (lambda: [param(requires_grad=False)], ValueError, "leaf .*received requires_grad=False"),
        (lambda: [param() * 2], ValueError, "leaf .*received the result of an op"),
        (lambda: [p := param(), p], ValueError, r"params\[1\] once, received it twice"),
        (
            lambda: [{"params": [param()]}, {"lr": 1}],
            TypeError,
            r'param_groups\[1\] to be a dict with "params"',
        ),
        (lambda: [{"params": param(), "beta": 1}], ValueError, "options among lr, .*, received beta"),
        (lambda: [{"params": param(), "lr": -1}], ValueError, "lr to be at least 0, received -1"),
    ],
)
def test_parameters_that_are_refused(params, error, message):
    with pytest.raises(error, match=f"Adam: .*{message}"):
        optim.Adam(params())


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        *((name, {"lr": -0.1}, "lr to be at least 0, received -0.1") for name in optim.__all__ if name in dir(optim)
          and inspect.isclass(getattr(optim, name)) and name not in ("Optimizer", "EMA")),
        ("SGD", {"momentum": -1}, "momentum to be at least 0"),
        ("SGD", {"nesterov": True}, "momentum above 0 and dampening 0 for nesterov, received 0"),
        ("SGD", {"nesterov": True, "momentum": 1, "dampening": 2}, "dampening 0 for nesterov, received 1 and 2"),
        ("RMSprop", {"alpha": -0.1}, "alpha to be at least 0"),
        ("Adagrad", {"initial_accumulator_value": -1}, "initial_accumulator_value to be at least 0"),
        ("Adagrad", {"lr_decay": np.nan}, "lr_decay to be at least 0, received nan"),
        ("Adadelta", {"rho": 1.1}, "rho to be from 0 to 1, received 1.1"),
        ("Adam", {"betas": (0.9, 1.0)}, r"betas\[1\] to be from 0 to below 1, received 1.0"),
        ("Adam", {"betas": (0.9,)}, "betas: expected 2 entries, received 1"),
        ("AdamW", {"weight_decay": -1}, "weight_decay to be at least 0"),
    ],
)  # fmt: skip
def test_options_that_are_refused(name, options, message):
    with pytest.raises(ValueError, match=f"{name}: .*{message}|{name}: {message}"):
        make(name, [param()], options)


def test_a_refused_step_changes_nothing():
    p = param()
    optimizer = optim.Adam([p])
    p.grad = gc.tensor(np.ones(2, np.float32))
    optimizer.step()
    before, state = p.numpy().copy(), pickle.dumps(optimizer.state_dict())
    p.grad = gc.tensor(np.ones(2))
    with pytest.raises(TypeError, match=r"optim.adam_step: expected grads\[0\] of dtype float32"):
        optimizer.step()
    assert same([p.numpy()], [before])
    assert pickle.dumps(optimizer.state_dict()) == state


# --- clipping -------------------------------------------------------------------------------------------------


def with_gradients(arrays):
    params = tensors([np.zeros_like(a) for a in arrays])
    for p, a in zip(params, arrays, strict=True):
        p.grad = gc.tensor(a)
    return params


def norm_of(arrays):
    return float(np.sqrt(sum(np.sum(a.astype(float) ** 2) for a in arrays)))


def test_clip_grad_norm():
    """The norm is float64; the factor rounds once, and each product once."""
    grads = start()
    params = [*with_gradients(grads), param()]
    norm = optim.clip_grad_norm(iter(params), 0.5)
    assert norm == pytest.approx(norm_of(grads), rel=1e-14)
    for p, g in zip(params, grads, strict=False):
        expected = Rounded(g) * (0.5 / (norm_of(grads) + 1e-6))
        assert np.all(np.abs(p.grad.numpy() - expected.value) <= expected.error)
    assert optim.clip_grad_norm(params, 0.5) == pytest.approx(0.5, rel=1e-5)
    assert params[-1].grad is None


def test_clip_grad_norm_follows_torch(torch):
    """torch sums squares in float32: an error of at most n roundings, halved by the root."""
    grads = start()
    params, theirs = with_gradients(grads), [torch.zeros(g.shape, requires_grad=True) for g in grads]
    for p, g in zip(theirs, grads, strict=True):
        p.grad = torch.tensor(g)
    torch.nn.utils.clip_grad_norm_(theirs, 0.7)
    optim.clip_grad_norm(params, 0.7)
    n = sum(g.size for g in grads)
    for p, q in zip(params, theirs, strict=True):
        assert np.allclose(p.grad.numpy(), q.grad.numpy(), rtol=(n / 2 + 4) * 2.0**-24, atol=0)


def test_small_gradients_are_not_clipped():
    grads = start()
    params = with_gradients(grads)
    optim.clip_grad_norm(params, norm_of(grads) + 1e-3)
    assert same([p.grad.numpy() for p in params], grads)
    assert optim.clip_grad_norm([], 1.0) == 0


def test_clipping_writes_to_gradients_of_any_layout_and_each_once():
    params = with_gradients([np.full((3, 4), 2.0, np.float32)])
    params[0].grad._data = np.broadcast_to(np.float32(2), (3, 4))
    assert optim.clip_grad_norm([params[0], params[0]], 1.0) == pytest.approx(np.sqrt(48))
    assert np.allclose(params[0].grad.numpy(), 2 / np.sqrt(48), rtol=1e-6)
    params[0].grad._data = np.asfortranarray(np.full((3, 4), 2.0, np.float32))
    optim.clip_grad_value(params[0], 0.5)
    assert np.all(params[0].grad.numpy() == 0.5)


def test_clip_grad_norm_of_what_is_not_finite():
    params = with_gradients([np.array([1, np.inf], np.float32), np.ones(2, np.float32)])
    with pytest.raises(FloatingPointError, match="finite norm, received inf"):
        optim.clip_grad_norm(params, 1.0, error_if_nonfinite=True)
    assert params[0].grad.numpy()[0] == 1
    assert optim.clip_grad_norm(params, 1.0) == np.inf
    assert np.array_equal(params[0].grad.numpy(), [0, np.nan], equal_nan=True)
    optim.clip_grad_norm(params, 1.0)
    assert np.isnan(params[1].grad.numpy()).all()
    for wrong in (-1.0, np.nan):
        with pytest.raises(ValueError, match="clip_grad_norm: expected max_norm to be at least 0, received"):
            optim.clip_grad_norm(params, wrong)


def test_clip_grad_value():
    grads = [np.array([-3, -0.5, 0, 0.25, 7, np.nan], np.float32)]
    params = [*with_gradients(grads), param()]
    optim.clip_grad_value(params, 0.5)
    assert np.array_equal(
        params[0].grad.numpy(), np.float32([-0.5, -0.5, 0, 0.25, 0.5, np.nan]), equal_nan=True
    )
    with pytest.raises(ValueError, match="clip_value to be at least 0, received -1"):
        optim.clip_grad_value(params, -1)


# --- averages -------------------------------------------------------------------------------------------------


def set_to(params, arrays):
    with gc.no_grad():
        for p, a in zip(params, arrays, strict=True):
            p._data[...] = a
            p._bump()


def test_ema_follows_the_formula():
    params = tensors(start())
    ema = optim.EMA(params, decay=0.9)
    expected = [Rounded(p) for p in start()]
    for step in range(1, 30):
        set_to(params, gradients(step))
        ema.update()
        expected = [a.lerp(g, 1 - 0.9) for a, g in zip(expected, gradients(step), strict=True)]
    for a, e in zip(ema.averages, expected, strict=True):
        assert np.all(np.abs(a - e.value) <= e.error)
        assert e.error.max() < 1e-5  # of averages around 1


def test_averages_stand_in_and_parameters_come_back():
    params = tensors(start())
    ema = optim.EMA(params, decay=0.5)
    set_to(params, gradients(1))
    ema.update()
    loss = sum((p * p).sum() for p in params)
    with ema.average_parameters():
        assert same([p.numpy() for p in params], ema.averages)
        with pytest.raises(RuntimeError, match=r"EMA.update: .* inside average_parameters"):
            ema.update()
        with pytest.raises(RuntimeError, match="in place already"), ema.average_parameters():
            pass
    assert same([p.numpy() for p in params], gradients(1))
    with pytest.raises(RuntimeError, match="edited in place"):
        loss.backward()
    with pytest.raises(KeyError), ema.average_parameters():
        raise KeyError
    assert same([p.numpy() for p in params], gradients(1))
    ema.update()


def test_ema_state_round_trip():
    params = tensors(start())
    ema = optim.EMA(params, decay=0.5)
    set_to(params, gradients(1))
    ema.update()
    saved = copy.deepcopy(ema.state_dict())
    ema.update()
    other = optim.EMA(params, decay=0.9)
    other.load_state_dict(saved)
    other.update()
    assert other.decay == 0.5
    assert same(other.averages, ema.averages)
    for wrong, message in (
        ({"decay": 0.5}, "missing averages"),
        ({**saved, "decay": 2.0}, "decay to be from 0 to 1, received 2.0"),
        ({**saved, "averages": saved["averages"][1:]}, "averages: expected 4 entries, received 3"),
        (
            {**saved, "averages": saved["averages"][::-1]},
            r"averages\[0\]: expected float32 of shape \(\), received",
        ),
    ):
        with pytest.raises(ValueError, match=f"EMA.load_state_dict: .*{message}"):
            other.load_state_dict(wrong)
    assert same(other.averages, ema.averages)


def test_ema_refuses():
    with pytest.raises(ValueError, match=r"EMA: expected decay to be from 0 to 1, received 1\.5"):
        optim.EMA([param()], decay=1.5)
    with pytest.raises(TypeError, match=r"EMA: expected params\[0\] to be a Tensor, received ndarray"):
        optim.EMA([np.ones(2, np.float32)], decay=0.5)
