"""Schedules that are made of pieces."""

import pytest

from gencore.train import cosine, step, warmup


def test_step_is_constant_between_its_boundaries():
    schedule = step([1.0, 0.1, 0.01], [0.5, 0.75])
    assert [schedule(done) for done in (0, 0.49, 0.5, 0.74, 0.75, 1)] == [1.0, 1.0, 0.1, 0.1, 0.01, 0.01]
    assert step([3.0], [])(0.5) == 3.0


@pytest.mark.parametrize(("values", "boundaries"), [([1.0], [0.5]), ([1.0, 2.0, 3.0], [0.5, 0.4]), ([], [])])
def test_step_refuses(values, boundaries):
    with pytest.raises(ValueError, match="step: expected one value more than boundaries"):
        step(values, boundaries)


def test_warmup_meets_what_comes_after():
    then = cosine(2.0, 0.5)
    schedule = warmup(then, 0.2)
    assert schedule(0.0) == 0
    assert schedule(0.1) == pytest.approx(1.0)
    assert schedule(0.2) == then(0.0) == 2.0
    assert schedule(0.6) == pytest.approx(then(0.5))
    assert schedule(1.0) == pytest.approx(0.5)
    assert [warmup(0.4, 0.5, start=0.2)(done) for done in (0.0, 0.25, 0.9)] == pytest.approx([0.2, 0.3, 0.4])


@pytest.mark.parametrize("fraction", [0, 1, -0.5, float("nan")])
def test_warmup_refuses(fraction):
    with pytest.raises(ValueError, match="warmup: expected fraction to be above 0 and below 1"):
        warmup(0.1, fraction)
