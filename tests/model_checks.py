"""What several tests of models ask of two models or trainings."""

import numpy as np


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
