"""Variational autoencoders on an emulated device and, marked `gpu`, a real one: as on the CPU."""

import numpy as np
import pytest
from test_cuda_rbm import cupy

import gencore as gc

__all__ = ["cupy"]
RNG = np.random.default_rng(0)
BITS = (RNG.random((70, 13)) < 0.3).astype(np.uint8)
REALS = RNG.normal(1, 2, (70, 13)).astype(np.float32)


def vae(**more):
    return gc.models.VAE(13, **{"n_latent": 4, "hidden": (7,), "seed": 1, **more})


TWO = {"n_latent": (4, 2), "hidden": ((7,), (5,))}
MODELS = {
    "one layer": ({}, BITS, {}),
    "real units": ({"likelihood": "gaussian"}, REALS, {}),
    "two layers": (TWO, BITS, {}),
    "importance-weighted": ({}, BITS, {"n_importance": 3}),
    "two layers, importance-weighted": ({**TWO, "activation": "relu"}, REALS > 1, {"n_importance": 2}),
    "free bits and annealing": ({}, BITS, {"free_bits": 0.05, "kl_weight": gc.train.linear(0, 1)}),
    "reinforce": ({}, BITS, {"estimator": "reinforce"}),
    "wake-sleep": ({"likelihood": "gaussian"}, REALS, {"estimator": "wake-sleep"}),
    "wake-sleep of two layers": (TWO, BITS, {"estimator": "wake-sleep"}),
    "binary units": ({"latent": "bernoulli"}, BITS, {"temperature": 0.7}),
    "classes, straight through": (
        {"latent": "categorical", "n_classes": 3},
        BITS,
        {"straight_through": True},
    ),
    "classes by reinforce": (
        {"latent": "categorical", "n_classes": 3},
        BITS,
        {"estimator": "reinforce"},
    ),
}


@pytest.mark.parametrize(("config", "data", "fit"), MODELS.values(), ids=MODELS)
def test_autoencoders_learn_and_draw_the_same_on_a_device(config, data, fit, cupy, tmp_path):
    """Sums and normal variates have other last digits there; hard draws meet no tie here."""
    cpu, other = vae(**config), vae(**config).to("cuda")
    options = {"epochs": 2, "batch_size": 16, "progress": False, "validation": data[50:], **fit}
    histories = [m.fit(data[:50], **options) for m in (cpu, other)]
    for name in ("loss", "elbo", "validation_elbo"):
        assert np.allclose(*(h[name] for h in histories), rtol=1e-4)
    assert {p.device for p in other.parameters()} == {"cuda"}
    assert np.allclose(*(m.log_likelihood(data, 20, key=3) for m in (cpu, other)), rtol=1e-4)
    bounds = [m.elbo(data, key=4, n_samples=2) for m in (cpu, other)]
    for name in ("value", "reconstruction", "kl"):
        assert np.allclose(*(getattr(b, name).numpy() for b in bounds), rtol=1e-4, atol=1e-4)

    other.save(tmp_path / "model.safetensors")
    back = gc.models.VAE.load(tmp_path / "model.safetensors")
    calls = {
        "encode": lambda m, x: m.encode(x),
        "reconstruct": lambda m, x: m.reconstruct(x),
        "decode": lambda m, _: m.decode(np.full((3, cpu.latents[-1].width), 0.5), key=2),
        "sample": lambda m, _: m.sample(5, key=6),
        "draws": lambda m, _: m.sample(5, key=6, means=False),
        "interpolate": lambda m, x: m.interpolate(x[0], x[1], 4),
    }
    if config.get("latent", "gaussian") == "gaussian":
        calls["manifold"] = lambda m, _: m.manifold(3)
    for name, call in calls.items():
        found, expected = call(other, cupy.asarray(data) if name != "interpolate" else data), call(back, data)
        assert isinstance(found, cupy.ndarray), name
        assert found.dtype == expected.dtype, name
        assert np.allclose(found.get(), expected, rtol=1e-4, atol=1e-5), name
    for ours, theirs in zip(other.active_units(data), back.active_units(data), strict=True):
        assert np.array_equal(ours, theirs)


def test_training_resumes_on_a_device(cupy, tmp_path):
    """To the same bits, baselines and all; and data may lie there."""
    options = {"batch_size": 16, "progress": False, "estimator": "reinforce"}
    whole = vae().to("cuda")
    whole.fit(cupy.asarray(BITS), epochs=3, **options)
    path = tmp_path / "checkpoint.safetensors"
    vae().to("cuda").fit(BITS, epochs=2, checkpoint=path, **options)
    rest = vae().to("cuda")
    rest.fit(BITS, epochs=3, checkpoint=path, resume=True, **options)
    for (name, ours), (_, theirs) in zip(rest.state_dict().items(), whole.state_dict().items(), strict=True):
        assert np.array_equal(ours, theirs), name


def test_pictures_of_what_lies_on_a_device(cupy, tmp_path):
    pytest.importorskip("matplotlib")
    images = (RNG.random((4, 9)) < 0.5).astype(np.uint8)
    for name, data in (("host", images), ("device", cupy.asarray(images))):
        gc.plot.samples(data, tmp_path / f"{name}.png")
    assert (tmp_path / "host.png").read_bytes() == (tmp_path / "device.png").read_bytes()
