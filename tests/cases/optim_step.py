"""Rows of the optim family: updates of all parameters at once."""

import numpy as np
from reference import optim as reference
from reference.rounding import Rounded

from gencore.kernels import optim as kernels

from .case import Bad, Case, Expected
from .optim import number_bad

# Around 4, 8 and 16 lanes, a scalar, nothing at all, and arrays that meet inside a block of 65,536 or span several.
LANES = ((7,), (0,), (), (1,), (3, 1), (8,), (9,), (15,), (2, 8), (17,), (31,), (32,), (33,), (64,), (5, 13))
BLOCKS = ((65_536,), (3,), (140_001,), (0,), (200, 101), (65_530,))
BENCH = tuple(
    s for a, b in ((784, 500), (500, 500), (500, 20), (20, 500), (500, 784)) for s in ((a, b), (b,))
)


def sizes(*options):
    """All shapes with the first options, which are the most; few of them with the others."""
    return (
        *(
            {"shapes": shapes, **options[0]}
            for shapes in (LANES, BLOCKS, (), ((0,),), ((1,),), ((17,), (2, 3)))
        ),
        *({"shapes": ((33,), (), (7, 3)), **more} for more in options[1:]),
    )


def float32_arrays(rng, shapes, draw):
    return [np.asarray(draw(shape), np.float32) for shape in shapes]


def step_inputs(rng, size, state):
    """Parameters, gradients and state: squares from 1 to 2, the rest of both signs and under 1/2."""
    shapes = size["shapes"]
    numbers = {name: value for name, value in size.items() if name not in ("shapes", "with")}
    lists = {
        "params": float32_arrays(rng, shapes, lambda shape: rng.normal(0, 1, shape)),
        "grads": float32_arrays(rng, shapes, lambda shape: rng.normal(0, 2, shape)),
    }
    for name in (*state, *size.get("with", ())):
        if name in ("momentum_buffers", "grad_avgs", "exp_avgs"):
            lists[name] = float32_arrays(rng, shapes, lambda shape: rng.uniform(-0.5, 0.5, shape))
        else:
            lists[name] = float32_arrays(rng, shapes, lambda shape: rng.uniform(1, 2, shape))
    return lists | numbers


def step_reference(formula, states):
    def expected(a, size):
        """Every operation of the formula rounds once."""
        lists = [name for name in states if name in a]
        numbers = {k: v for k, v in a.items() if k not in ("params", "grads", *states)}
        truth = {}
        for k, (param, grad) in enumerate(zip(a["params"], a["grads"], strict=True)):
            state = {name: Rounded(a[name][k]) for name in lists}
            param = formula(Rounded(param), grad, state, **numbers)
            results = {"params": param, **state}
            truth |= {f"{name}[{k}]": Expected(x.value, x.error) for name, x in results.items()}
        return truth

    return expected


def public(function, changed):
    """The documented function on copies; what it changed, by name."""

    def call(a, size):
        copies = {name: [x.copy() for x in a[name]] for name in changed if name in a}
        function(**{**a, **copies})
        return {f"{name}[{k}]": x for name, arrays in copies.items() for k, x in enumerate(arrays)}

    return call


def list_bad(name, like, words=()):
    def shorter(a):
        k = max(range(len(a[name])), key=lambda k: a[name][k].size)
        return [*a[name][:k], a[name][k].ravel()[1:].copy(), *a[name][k + 1 :]]

    return (
        Bad(name, lambda a: a[name][1:], ValueError, ("arrays, as many as", like)),
        Bad(name, lambda a: (), ValueError, ("arrays, as many as", like)),
        Bad(name, shorter, ValueError, ("elements, as many as", f"{like}[", f"{name}[")),
    )


def step_case(formula, sizes, state=(), optional=(), numbers=(), bad=()):
    """One optimizer; `state` lists are needed, `optional` ones switch a variant on."""
    name = formula.__name__
    states = (*state, *optional)
    return Case(
        name=f"optim.{name}_step",
        sizes=sizes,
        bench={**sizes[0], "shapes": BENCH},
        inputs=lambda rng, size: step_inputs(rng, size, state),
        outputs=lambda size: {},
        reference=step_reference(formula, states),
        public=public(getattr(kernels, f"{name}_step"), ("params", *states)),
        optional=frozenset(optional),
        in_place=("params", *states),
        bad=(
            *(b for listed in ("grads", *states) for b in list_bad(listed, "params")),
            *(b for number in ("lr", "weight_decay", *numbers) for b in number_bad(number)),
            Bad("maximize", "up", TypeError, ("True or False", "'up'")),
            *bad,
        ),
    )


BUFFERS = {"with": ("momentum_buffers",), "momentum": 0.9}
NEEDS_BUFFERS = Bad("momentum_buffers", None, ValueError, ("momentum", "nothing"))
NO_STEP = Bad("step", 0, ValueError, ("at least 1", "0"))

SGD = step_case(
    reference.sgd,
    sizes(
        {"lr": 0.1, **BUFFERS, "dampening": 0.2, "weight_decay": 0.01},
        {"lr": 0.1},
        {"lr": 0.1, **BUFFERS, "nesterov": True},
        {"lr": 0.1, "maximize": True, "weight_decay": 0.1},
    ),
    optional=("momentum_buffers",),
    numbers=("momentum", "dampening"),
    bad=(NEEDS_BUFFERS,),
)
RMSPROP = step_case(
    reference.rmsprop,
    sizes(
        {"lr": 0.01, "with": ("grad_avgs", "momentum_buffers"), "momentum": 0.9, "weight_decay": 0.01},
        {"lr": 0.01, "alpha": 0.5, "eps": 1e-4},
        {"lr": 0.01, **BUFFERS, "maximize": True},
        {"lr": 0.01, "with": ("grad_avgs",), "alpha": 0.9},
    ),
    state=("square_avgs",),
    optional=("grad_avgs", "momentum_buffers"),
    numbers=("alpha", "eps", "momentum"),
    bad=(NEEDS_BUFFERS,),
)
ADAGRAD = step_case(
    reference.adagrad,
    sizes(
        {"lr": 0.01, "step": 7, "lr_decay": 0.1, "weight_decay": 0.01},
        {"lr": 0.01, "step": 1, "eps": 1e-3, "maximize": True},
    ),
    state=("state_sums",),
    numbers=("lr_decay", "eps"),
    bad=(NO_STEP,),
)
ADADELTA = step_case(
    reference.adadelta,
    sizes({"lr": 1.0, "weight_decay": 0.01}, {"lr": 0.5, "rho": 0.5, "eps": 1e-3, "maximize": True}),
    state=("square_avgs", "acc_deltas"),
    numbers=("rho", "eps"),
)
ADAM = step_case(
    reference.adam,
    sizes(
        {
            **{"lr": 1e-2, "step": 3, "weight_decay": 0.01, "with": ("max_exp_avg_sqs",)},
            **{"beta1": 0.9, "beta2": 0.99, "eps": 1e-6},
        },
        {"lr": 1e-2, "step": 1},
        {"lr": 1e-2, "step": 1000, "beta1": 0.3, "beta2": 0.9, "eps": 1e-3},
        {"lr": 1e-2, "step": 2, "beta1": 0.0, "beta2": 0.5, "maximize": True},
        {"lr": 1e-2, "step": 20, "weight_decay": 0.1, "decoupled": True},
    ),
    state=("exp_avgs", "exp_avg_sqs"),
    optional=("max_exp_avg_sqs",),
    numbers=("beta1", "beta2", "eps"),
    bad=(NO_STEP, Bad("decoupled", "yes", TypeError, ("True or False", "'yes'"))),
)


def ema_inputs(rng, size):
    draw = {name: step_inputs(rng, size, ())["params"] for name in ("averages", "params")}
    return draw | {"decay": size["decay"]}


def ema_reference(a, size):
    """Every operation of the formula rounds once."""
    pairs = zip(a["averages"], a["params"], strict=True)
    means = [Rounded(x).lerp(y, 1 - a["decay"]) for x, y in pairs]
    return {f"averages[{k}]": Expected(mean.value, mean.error) for k, mean in enumerate(means)}


EMA = Case(
    name="optim.ema_update",
    sizes=sizes({"decay": 0.999}, {"decay": 0.0}, {"decay": 1.0}, {"decay": 0.3}),
    bench={"shapes": BENCH, "decay": 0.999},
    inputs=ema_inputs,
    outputs=lambda size: {},
    reference=ema_reference,
    public=public(kernels.ema_update, ("averages",)),
    in_place=("averages",),
    bad=(*list_bad("params", "averages"), *number_bad("decay")),
)


def square_sum_reference(a, size):
    """Squares of float32 are exact in float64; n additions of at most the sum itself."""
    parts = [array.astype(np.longdouble).ravel() for array in a["arrays"]]
    exact = sum((np.sum(part * part) for part in parts), np.longdouble(0))
    n = sum(part.size for part in parts)
    return {"out": Expected(np.array([float(exact)]), 2.0**-53 * (n + 1) * float(exact))}


SQUARE_SUM = Case(
    name="optim.square_sum",
    sizes=sizes({}),
    bench={"shapes": BENCH},
    inputs=lambda rng, size: {"arrays": step_inputs(rng, size, ())["grads"]},
    outputs=lambda size: {"out": ((1,), np.float64)},
    reference=square_sum_reference,
    public=lambda a, size: {"out": np.reshape(kernels.square_sum(a["arrays"]), (1,))},
    bad=(Bad("out", np.empty(2), ValueError, ("one sum", "(2,)")),),
)


def scale_reference(a, size):
    """One rounding of the factor, one of the product."""
    scaled = [Rounded(array) * a["factor"] for array in a["arrays"]]
    return {f"arrays[{k}]": Expected(x.value, x.error) for k, x in enumerate(scaled)}


SCALE = Case(
    name="optim.scale",
    sizes=sizes({"factor": 0.3}, {"factor": 0.0}, {"factor": -2.5}),
    bench={"shapes": BENCH, "factor": 0.3},
    inputs=lambda rng, size: {"arrays": step_inputs(rng, size, ())["grads"], "factor": size["factor"]},
    outputs=lambda size: {},
    reference=scale_reference,
    public=public(lambda arrays, factor: kernels.scale(arrays, factor), ("arrays",)),
    in_place=("arrays",),
    bad=(Bad("factor", "half", TypeError, ("number", "'half'")),),
)

CASES = (SGD, RMSPROP, ADAGRAD, ADADELTA, ADAM, EMA, SQUARE_SUM, SCALE)
