"""Exact models on an emulated device and, marked `gpu`, a real one: they learn, judge and draw as on the CPU."""

import numpy as np
import pytest
from test_cuda_rbm import cupy

import gencore as gc

__all__ = ["cupy"]
RNG = np.random.default_rng(0)
BITS, LEVELS = (RNG.random((60, 5, 6)) < 0.3).astype(np.uint8), RNG.integers(0, 5, (60, 4, 3, 2))
SMALL = BITS[:, :, :4]
VECTORS = (RNG.random((60, 23)) < 0.4).astype(np.uint8)
LABELS = RNG.integers(0, 3, 60)
OF_COLOURS = {"channels": 2, "n_features": 4, "n_hidden": 4, "levels": 5}
OF_CLASSES = {**OF_COLOURS, "output": "categorical", "n_classes": 3}

MODELS = {
    "NADE": (lambda: gc.models.NADE(23, 9, seed=1), VECTORS, None),
    "NADE of another order": (
        lambda: gc.models.NADE(23, 9, order=np.arange(23)[::-1], seed=1),
        VECTORS,
        None,
    ),
    "MADE": (lambda: gc.models.MADE(23, (12, 7), seed=1), VECTORS, None),
    "MADE of three masks": (lambda: gc.models.MADE(23, 9, n_masks=3, direct=True, seed=1), VECTORS, None),
    "logistic FVBN": (lambda: gc.models.FVBN(23, seed=1), VECTORS, None),
    "deep FVBN": (
        lambda: gc.models.FVBN(23, hidden=(2, 3), order=np.arange(23)[::-1], seed=1),
        VECTORS,
        None,
    ),
    "EoNADE": (lambda: gc.models.EoNADE(23, (9, 7), n_orderings=3, seed=1), VECTORS, None),
    "NADE of classes": (lambda: gc.models.NADE(23, 9, n_classes=3, seed=1), VECTORS, LABELS),
    "MADE of classes": (
        lambda: gc.models.MADE(23, (12, 7), n_masks=2, direct=True, n_classes=3, seed=1),
        VECTORS,
        LABELS,
    ),
    "EoNADE of classes": (
        lambda: gc.models.EoNADE(23, (9, 7), n_orderings=2, n_classes=3, seed=1),
        VECTORS,
        LABELS,
    ),
    "PixelCNN": (lambda: gc.models.PixelCNN(5, 6, n_features=4, n_blocks=1, n_hidden=6, seed=1), BITS, None),
    "PixelCNN of levels and classes": (
        lambda: gc.models.PixelCNN(4, 3, n_blocks=1, **OF_CLASSES),
        LEVELS,
        LABELS,
    ),
    "GatedPixelCNN": (
        lambda: gc.models.GatedPixelCNN(
            4, 3, n_blocks=1, output="discretised_logistic", n_mixtures=2, **OF_COLOURS
        ),
        LEVELS,
        None,
    ),
    "RowLSTM": (lambda: gc.models.RowLSTM(5, 4, n_features=4, n_blocks=1, n_hidden=4, seed=1), SMALL, None),
    "DiagonalBiLSTM of levels and classes": (
        lambda: gc.models.DiagonalBiLSTM(4, 3, n_blocks=2, **OF_CLASSES, seed=1),
        LEVELS,
        LABELS,
    ),
}


def given(labels, rows=slice(None)):
    return {} if labels is None else {"labels": labels[rows]}


@pytest.mark.parametrize(("make", "data", "labels"), MODELS.values(), ids=MODELS)
def test_models_learn_and_draw_the_same_on_a_device(make, data, labels, cupy, tmp_path):
    """Sums of gradients have another order, and so the parameters another last digit."""
    cpu, other = make(), make().to("cuda")
    options = {"epochs": 2, "batch_size": 16, "progress": False, "clip_norm": 5.0, "patience": 2}
    held_out = data[50:] if labels is None else (data[50:], labels[50:])
    histories = [
        m.fit(put(data[:50]), **given(labels, slice(50)), validation=held_out, **options)
        for m, put in ((cpu, np.asarray), (other, cupy.asarray))
    ]
    for name in ("loss", "validation_log_prob"):
        assert np.allclose(*(h[name] for h in histories), rtol=1e-4)
    assert {p.device for p in other.parameters()} == {"cuda"}
    log_probs = [m.log_prob(x, **given(labels)) for m, x in ((cpu, data), (other, cupy.asarray(data)))]
    assert isinstance(log_probs[1], np.ndarray)
    assert np.allclose(*log_probs, rtol=1e-4)

    other.save(tmp_path / "model.safetensors")
    back = type(other).load(tmp_path / "model.safetensors")
    assert np.allclose(back.log_prob(data, **given(labels)), log_probs[1], rtol=1e-6)

    partial = data[:4].astype(float)
    partial[:, 2:] = np.nan
    partial = partial.reshape(4, *getattr(back, "shape", (23,)))
    on_device = other.sample(4, **given(labels, slice(4)), key=5, partial=cupy.asarray(partial))
    on_host = other.sample(4, **given(labels, slice(4)), key=5, partial=partial)
    assert np.array_equal(on_device.get(), on_host.get())
    for more in ({}, {"partial": partial, "temperature": 0.7}):
        drawn = other.sample(4, **given(labels, slice(4)), key=5, **more)
        assert isinstance(drawn, cupy.ndarray)
        naive = other.sample(4, **given(labels, slice(4)), key=5, method="naive", **more)
        assert np.array_equal(drawn.get(), naive.get())
        assert np.array_equal(drawn.get(), back.sample(4, **given(labels, slice(4)), key=5, **more))


def test_what_is_no_device_is_refused(cupy):
    with pytest.raises(ValueError, match=r"NADE.to: expected device to be 'cpu' or 'cuda', received 'gpu'"):
        gc.models.NADE(5, 4).to("gpu")
