"""What gencore.kernels.rbm adds to the compiled ops: keys, temperatures, masks, outputs, and its own errors."""

import inspect

import numpy as np
import pytest

import gencore
from gencore.kernels import rbm

RNG = np.random.default_rng(0)
W = RNG.normal(0, 0.5, (6, 5)).astype(np.float32)
B, C = RNG.normal(0, 1, 6).astype(np.float32), RNG.normal(0, 1, 5).astype(np.float32)
V = RNG.integers(0, 2, (9, 6)).astype(np.uint8)
BASE = np.zeros(6, np.float32)


def chain(v=V, **given):
    return rbm.gibbs_chain(W, B, C, v, **{"steps": 3, "key": 5, **given})


DRAWS = {
    "gibbs_chain": chain,
    "hidden_sample": lambda **given: rbm.hidden_sample(W, C, V, **given),
    "visible_sample": lambda **given: rbm.visible_sample(W, B, V[:, :5].copy(), **given),
    "cd_gradient": lambda **given: rbm.cd_gradient(W, B, C, V, **given).chains,
    "ais": lambda **given: rbm.ais(W, B, C, betas=[0, 0.5, 1], base_bias=BASE, n_runs=20, **given)[1],
    "stochastic_pseudo_log_likelihood": lambda **given: rbm.stochastic_pseudo_log_likelihood(
        W, B, C, V, **given
    ),
}
every_draw = pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS)


def test_every_function_that_draws_is_here():
    functions = [f for _, f in inspect.getmembers(rbm, inspect.isfunction) if f.__module__ == rbm.__name__]
    drawing = {
        f.__name__ for f in functions if "key" in inspect.signature(f).parameters and f.__name__[0] != "_"
    }
    assert drawing == set(DRAWS)


@every_draw
def test_kinds_of_keys(draw):
    """A Key, an int and NumPy's ints are the same number; a Generator gives its next key each time."""
    expected = draw(key=5)
    for key in (gencore.Key(5), np.uint64(5), np.int32(5)):
        np.testing.assert_array_equal(draw(key=key), expected)
    first, second = gencore.Generator(3), gencore.Generator(3)
    np.testing.assert_array_equal(draw(key=first), draw(key=second.key()))
    np.testing.assert_array_equal(draw(key=first), draw(key=second.key()))
    assert np.any(draw(key=5) != draw(key=6))


@every_draw
@pytest.mark.parametrize("key", [None, 1.0, "5", b"5", [5], True, np.float64(2), np.array([1, 2])], ids=repr)
def test_what_is_no_key(draw, key):
    with pytest.raises(TypeError, match=r"expected key to be a Key, an integer or a Generator, received"):
        draw(key=key)


@every_draw
@pytest.mark.parametrize("key", [-1, 2**64])
def test_keys_out_of_range(draw, key):
    with pytest.raises(ValueError, match=rf"expected key .*received {key}"):
        draw(key=key)


def test_one_temperature_is_that_temperature_in_every_row():
    expected = chain(beta=np.full(len(V), 0.5, np.float32))
    for beta in (0.5, np.float64(0.5), np.float32(0.5), np.array(0.5), np.array([0.5], np.float32)):
        np.testing.assert_array_equal(chain(beta=beta), expected)
    np.testing.assert_array_equal(chain(beta=2), chain(beta=2.0))


WRONG_BETAS = [None, "hot", [1.0, 2.0], np.ones(9), np.ones(8, np.float32), np.nan, np.inf]


@pytest.mark.parametrize("beta", WRONG_BETAS, ids=repr)
def test_wrong_temperatures(beta):
    with pytest.raises((TypeError, ValueError), match=r"rbm\.gibbs_chain: expected beta .*, received"):
        chain(beta=beta)


def test_masks():
    """One for all rows, with or without the axis; none at all; everything."""
    mask = np.array([1, 0, 0, 1, 0, 1], np.uint8)
    expected = chain(clamp=np.repeat(mask[None], len(V), axis=0))
    for clamp in (mask, mask[None], mask.astype(bool)):
        np.testing.assert_array_equal(chain(clamp=clamp), expected)
    np.testing.assert_array_equal(chain(clamp=np.zeros(6, bool)), chain())
    np.testing.assert_array_equal(chain(clamp=np.ones(6, bool)), V)


WRONG_MASKS = [[1, 0, 0, 1, 0, 1], np.ones(6), np.ones(5, bool), np.ones((2, 6), bool), "all"]


@pytest.mark.parametrize("clamp", WRONG_MASKS, ids=repr)
def test_wrong_masks(clamp):
    with pytest.raises((TypeError, ValueError), match=r"rbm\.gibbs_chain: expected clamp .*, received"):
        chain(clamp=clamp)


def test_outputs_that_are_given_are_returned():
    out = np.empty_like(V)
    assert chain(out=out) is out
    np.testing.assert_array_equal(out, chain())
    first = rbm.cd_gradient(W, B, C, V, key=1)
    again = rbm.cd_gradient(W, B, C, V, key=2, out=first)
    assert all(a is b for a, b in zip(first, again, strict=True))
    for a, b in zip(again, rbm.cd_gradient(W, B, C, V, key=2), strict=True):
        np.testing.assert_array_equal(a, b)


def test_persistent_chains_may_be_written_over():
    chains = V.copy()
    expected = rbm.cd_gradient(W, B, C, V, key=1, chains=chains)
    out = expected._replace(chains=chains)
    for a, b in zip(rbm.cd_gradient(W, B, C, V, key=1, chains=chains, out=out), expected, strict=True):
        np.testing.assert_array_equal(a, b)


def test_number_of_ais_runs():
    def runs(**given):
        return rbm.ais(W, B, C, betas=[0.0, 1.0], base_bias=BASE, key=1, **given)

    assert (
        runs(n_runs=4)[0].shape == runs(start=V[:4])[0].shape == runs(start=V[:4], n_runs=4)[0].shape == (4,)
    )
    for wrong in ({}, {"n_runs": 0}, {"n_runs": -1}, {"n_runs": 5, "start": V[:4]}):
        with pytest.raises(ValueError, match=r"rbm\.ais: expected n_runs .*, received"):
            runs(**wrong)


WRONG_WEIGHTS = [None, [[1.0]], np.zeros(6, np.float32), np.zeros((6, 5)), np.zeros((0, 5), np.float32)]
CALLS = {
    "hidden_mean": lambda w: rbm.hidden_mean(w, C, V),
    "hidden_sample": lambda w: rbm.hidden_sample(w, C, V, key=1),
    "cd_gradient": lambda w: rbm.cd_gradient(w, B, C, V, key=1),
    "gibbs_chain": lambda w: rbm.gibbs_chain(w, B, C, V, steps=1, key=1),
    "free_energy": lambda w: rbm.free_energy(w, B, C, V),
    "ais": lambda w: rbm.ais(w, B, C, betas=[0.0, 1.0], base_bias=BASE, key=1, n_runs=2),
}


@pytest.mark.parametrize("w", WRONG_WEIGHTS, ids=repr)
@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_wrong_weights(call, w):
    """Named before anything else goes wrong with them."""
    with pytest.raises((TypeError, ValueError), match=r"rbm\.\w+: expected .*, received"):
        call(w)


def test_other_libraries_arrays(torch):
    """Arrays that speak DLPack are read where they lie."""
    tensors = [torch.from_numpy(a) for a in (W, B, C, V)]
    np.testing.assert_array_equal(rbm.free_energy(*tensors), rbm.free_energy(W, B, C, V))
    out = torch.empty(V.shape, dtype=torch.uint8)
    rbm.gibbs_chain(*tensors, steps=3, key=5, out=out)
    np.testing.assert_array_equal(out.numpy(), chain())
    with pytest.raises(TypeError, match=r"rbm\.free_energy: expected w to be contiguous in C order"):
        rbm.free_energy(tensors[0].T.contiguous().T, *tensors[1:])


def test_precisions_of_the_cpu():
    np.testing.assert_array_equal(chain(precision="float32"), chain())
    for precision in ("tf32", "bf16"):
        with pytest.raises(ValueError, match=rf"precision to be float32 on the CPU, received {precision}"):
            chain(precision=precision)
    with pytest.raises(ValueError, match=r"precision to be 'float32', 'tf32' or 'bf16', received 'half'"):
        chain(precision="half")
