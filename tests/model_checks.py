"""What several tests of models ask of two models or trainings."""

import pickle

import numpy as np
import pytest


def without_times(records):
    return [{name: value for name, value in record.items() if name != "seconds"} for record in records]


def assert_same(a, b):
    """Two models, to the bit, with all that continues: chains, generator, training."""
    for name in ("weight", "visible_bias", "hidden_bias", "chains", "data_mean"):
        assert np.array_equal(getattr(a, name), getattr(b, name)), name
    for name in ("n_visible", "n_hidden", "seed", "steps", "chain_key", "chain_step"):
        assert getattr(a, name) == getattr(b, name), name
    assert a.generator.state == b.generator.state
    assert np.array_equal(a.sample(5, steps=3, key=1), b.sample(5, steps=3, key=1))


def assert_resumes_to_the_same_bits(make, data, path):
    """Exact models of one seed: trained at once, or stopped and resumed; in a file; as a pickle."""
    options = {"epochs": 3, "lr": 1e-3, "progress": False}
    whole, cut, again = (make() for _ in range(3))
    whole.fit(data, **options)

    class StopError(Exception):
        pass

    def stop(training, record):
        if record["epoch"] == 2:
            raise StopError

    with pytest.raises(StopError):
        cut.fit(data, **options, checkpoint=path, callbacks=[stop])
    again.fit(data, **options, checkpoint=path, resume=True)
    for a, b in zip(whole.parameters(), again.parameters(), strict=True):
        assert np.array_equal(a.numpy(), b.numpy())
    loaded = type(whole).load(path)
    assert np.array_equal(loaded.sample(3, key=1), whole.sample(3, key=1))
    copy = pickle.loads(pickle.dumps(whole))
    assert np.array_equal(copy.log_prob(data[:5]), whole.log_prob(data[:5]))
