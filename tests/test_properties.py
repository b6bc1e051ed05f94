"""Properties that hold for every machine, batch and way to cut the work: hypothesis looks for one where they do not."""

import numpy as np
import pytest
from cases.rbm import free_energy_error
from hypothesis import given
from hypothesis import strategies as st
from reference import rbm as exact

from gencore.kernels import rbm

keys = st.integers(0, 2**64 - 1)
steps_to_start = st.sampled_from([0, 1, 2**31, 2**32 - 2, 2**55])


@st.composite
def machines(draw):
    """Parameters and states: 1 to 40 units a side, 0 to 20 rows, any density, each dtype."""
    n_visible, n_hidden, n = draw(st.integers(1, 40)), draw(st.integers(1, 40)), draw(st.integers(0, 20))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    scale, density = draw(st.sampled_from([0.0, 0.1, 1.0, 30.0])), draw(st.floats(0, 1))
    w, b, c = (
        rng.normal(0, scale, shape).astype(np.float32)
        for shape in ((n_visible, n_hidden), n_visible, n_hidden)
    )
    v = (rng.random((n, n_visible)) < density).astype(draw(st.sampled_from([np.bool_, np.uint8, np.float32])))
    return w, b, c, v


@given(
    machines(), keys, steps_to_start, st.integers(0, 4), st.integers(0, 4), st.integers(0, 20), st.booleans()
)
def test_a_chain_may_be_cut_anywhere(model, key, first_step, before, after, row, clamped):
    """By steps and by rows: the parts, with their coordinates, are the whole."""
    w, b, c, v = model
    rng = np.random.default_rng(key % 2**32)
    row = min(row, len(v))
    beta = rng.random(len(v)).astype(np.float32)
    clamp = (rng.random(v.shape) < 0.3) if clamped else None

    def chain(v, rows, **given):
        given = {"beta": beta[rows], "clamp": None if clamp is None else clamp[rows], "key": key, **given}
        return rbm.gibbs_chain(w, b, c, v[rows], **given)

    everything = slice(0, len(v))
    if len(v) == 1:
        beta = beta[:1]
    whole = chain(v, everything, steps=before + after, first_step=first_step)
    first = chain(v, everything, steps=before, first_step=first_step)
    np.testing.assert_array_equal(
        chain(first, everything, steps=after, first_step=first_step + before), whole
    )
    for rows in (slice(0, row), slice(row, len(v))):
        part = chain(v, rows, steps=before + after, first_step=first_step, first_row=rows.start)
        np.testing.assert_array_equal(part, whole[rows])
    assert whole.dtype == v.dtype
    if clamped:
        np.testing.assert_array_equal(whole[clamp], v[clamp])


@given(machines(), keys)
def test_no_steps_is_the_identity(model, key):
    w, b, c, v = model
    np.testing.assert_array_equal(rbm.gibbs_chain(w, b, c, v, steps=0, key=key), v)


@given(machines(), keys, steps_to_start)
def test_a_step_is_its_two_halves(model, key, step):
    """gibbs_chain is hidden_sample, then visible_sample, and the dtype of states says nothing."""
    w, b, c, v = model
    whole = rbm.gibbs_chain(w, b, c, v, steps=1, key=key, first_step=step)
    for dtype in (np.bool_, np.uint8, np.float32):
        h = rbm.hidden_sample(w, c, v.astype(dtype), key=key, step=step)
        again = rbm.visible_sample(w, b, h.astype(dtype), key=key, step=step)
        np.testing.assert_array_equal(again, whole.astype(np.uint8))


@given(machines(), keys, steps_to_start)
def test_written_in_place(model, key, step):
    w, b, c, v = model
    expected = rbm.gibbs_chain(w, b, c, v, steps=2, key=key, first_step=step)
    same = rbm.gibbs_chain(w, b, c, v, steps=2, key=key, first_step=step, out=v)
    assert same is v
    np.testing.assert_array_equal(v, expected)


@given(machines(), st.sampled_from([0.0, 0.5, 1.0, 3.0]))
def test_free_energy(model, beta):
    w, b, c, v = model
    bound = free_energy_error(w, c, v, beta) + 1e-12 * np.abs(b).sum()
    error = np.abs(rbm.free_energy(w, b, c, v, beta=beta) - exact.free_energy(w, b, c, v, beta))
    assert np.all(error <= bound), f"{error.max()} over {bound[np.argmax(error)]}"


@given(machines())
def test_free_energy_is_symmetric_under_flips(model):
    """Flipping the meaning of a visible unit moves its weights into the hidden biases, and F by a constant."""
    w, b, c, v = model
    flip = np.arange(len(b)) % 3 == 1
    flipped = np.where(flip, 1 - v.astype(np.uint8), v.astype(np.uint8))
    sign = np.where(flip, -1, 1).astype(np.float32)
    model = sign[:, None] * w, sign * b, (c + w[flip].sum(axis=0, dtype=np.float64)).astype(np.float32)
    moved = rbm.free_energy(*model, flipped) - b[flip].sum(dtype=np.float64)
    scale = 1 + np.abs(w).sum() + np.abs(b).sum() + np.abs(c).sum()
    np.testing.assert_allclose(rbm.free_energy(w, b, c, v), moved, atol=2e-6 * scale)


@given(machines(), keys, steps_to_start, st.integers(1, 3), st.booleans())
def test_chains_of_the_gradient_are_gibbs_chains(model, key, first_step, k, persistent):
    w, b, c, v = model
    if len(v) == 0:
        with pytest.raises(ValueError, match="batch"):
            rbm.cd_gradient(w, b, c, v, key=key)
        return
    chains = np.random.default_rng(k).integers(0, 2, (7, len(b))).astype(np.uint8) if persistent else None
    start = v.astype(np.uint8) if chains is None else chains
    found = rbm.cd_gradient(w, b, c, v, k=k, key=key, first_step=first_step, chains=chains)
    expected = rbm.gibbs_chain(w, b, c, start, steps=k, key=key, first_step=first_step)
    np.testing.assert_array_equal(found.chains, expected)
    # Where the chains end as the data lie, nothing is left to learn but rounding.
    itself = rbm.cd_gradient(w, b, c, found.chains, k=k, key=key, first_step=first_step, chains=start)
    for gradient in itself[:3]:
        np.testing.assert_allclose(gradient, 0, atol=1e-6)


@given(machines())
def test_transposing_the_machine_transposes_everything(model):
    """The two sides are alike: swapping them leaves log Z alone and swaps the conditional means."""
    w, b, c, v = model
    t = np.ascontiguousarray(w.T)
    np.testing.assert_array_equal(rbm.hidden_mean(w, c, v), rbm.visible_mean(t, c, v))
    if min(w.shape) <= 12:
        scale = 1 + np.abs(w).sum() + np.abs(b).sum() + np.abs(c).sum()
        assert rbm.log_partition_exact(w, b, c) == pytest.approx(
            rbm.log_partition_exact(t, c, b), abs=1e-6 * float(scale)
        )
