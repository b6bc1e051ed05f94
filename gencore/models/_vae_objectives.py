"""How a variational autoencoder learns: the bound, and the ways to the encoder's gradient.

``reparam`` differentiates through the draw; ``concrete`` through a draw at a temperature; ``reinforce`` weighs the
score ``grad log q(z | x)`` by what the draw was worth, less a learned baseline; ``wake-sleep`` teaches the encoder by
the decoder's own dreams. All of them are objectives ``(batch, key, done) -> (loss, figures)`` of `gencore.train`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gencore._checks import count
from gencore.autograd import Tensor, no_grad, tensor
from gencore.autograd.tensors import plain
from gencore.nn import Module, mlp
from gencore.random import Generator, Key
from gencore.train.loop import schedule_json
from gencore.train.schedules import Schedule, as_schedule

if TYPE_CHECKING:
    from gencore.models.vae import VAE

ESTIMATORS = ("reparam", "reinforce", "wake-sleep", "concrete")
Result = tuple[Tensor, Mapping[str, float]]


@dataclass(frozen=True)
class Settings:
    """Arguments of `VAE.fit` that say what is maximised, and how."""

    n_importance: int = 1
    estimator: str = "auto"
    kl_weight: float | Schedule = 1.0
    free_bits: float = 0.0
    temperature: float | Schedule = 1.0
    straight_through: bool = False

    def checked(self, model: VAE) -> Settings:
        """With the estimator named, if the model allows it; names the first argument that is wrong."""
        gaussian = model.latents[0].kind == "gaussian"
        name = ("reparam" if gaussian else "concrete") if self.estimator == "auto" else self.estimator
        if name not in ESTIMATORS:
            raise ValueError(
                f"VAE.fit: expected estimator to be auto, {', '.join(ESTIMATORS)}, received {name!r}"
            )
        if name == "reparam" and not gaussian:
            raise ValueError("VAE.fit: expected an estimator for discrete latents (concrete, reinforce, wake-sleep), "
                             "received 'reparam'")  # fmt: skip
        if name == "concrete" and gaussian:
            raise ValueError("VAE.fit: expected an estimator for Gaussian latents (reparam, reinforce, wake-sleep), "
                             "received 'concrete'")  # fmt: skip
        self._check_schedules()
        if self.straight_through and name != "concrete":
            raise ValueError(
                f"VAE.fit: expected straight_through only with estimator 'concrete', received {name!r}"
            )
        n = count("VAE.fit", "n_importance", self.n_importance)
        if n > 1 and name != "reparam":
            raise ValueError(f"VAE.fit: expected n_importance to be 1 with estimator {name!r}, received {n}")
        if not (math.isfinite(self.free_bits) and self.free_bits >= 0):
            raise ValueError(f"VAE.fit: expected free_bits to be at least 0, received {self.free_bits!r}")
        plain = self.kl_weight == 1.0 and self.free_bits == 0
        if not plain and (n > 1 or name not in ("reparam", "concrete")):
            raise ValueError("VAE.fit: expected kl_weight 1 and free_bits 0 with n_importance above 1, reinforce or "
                             "wake-sleep, received others")  # fmt: skip
        if self.free_bits > 0 and (len(model.latents) > 1 or not gaussian):
            raise ValueError("VAE.fit: expected free_bits 0 unless there is one Gaussian layer, received "
                             f"{self.free_bits}")  # fmt: skip
        return replace(self, estimator=name, n_importance=n)

    def _check_schedules(self) -> None:
        """At the ends and in the middle of the training, whether the estimator uses them or not."""
        for name, least in (("kl_weight", "at least 0"), ("temperature", "above 0")):
            schedule = as_schedule(getattr(self, name))
            for value in map(schedule, (0.0, 0.5, 0.999)):
                if not (math.isfinite(value) and (value > 0 or (value == 0 and name == "kl_weight"))):
                    raise ValueError(f"VAE.fit: expected {name} to be {least} and finite, received {value!r}")

    def to_json(self) -> dict[str, Any]:
        """As a checkpoint keeps them."""
        schedules = {n: schedule_json(getattr(self, n)) for n in ("kl_weight", "temperature")}
        return {**self.__dict__, "free_bits": float(self.free_bits), **schedules}


def make(model: VAE, settings: Settings) -> Objective:
    """Objective by the name of its estimator."""
    kinds: dict[str, type[Objective]] = {
        "reparam": Reparam,
        "concrete": Concrete,
        "reinforce": Reinforce,
        "wake-sleep": WakeSleep,
    }
    return kinds[settings.estimator](model, settings)


class Objective(ABC):
    """The bound of a model under some settings."""

    def __init__(self, model: VAE, settings: Settings) -> None:
        self.model, self.settings = model, settings
        self.extra: Module | None = None  # what is learned beside the model
        self.kl_weight, self.temperature = as_schedule(settings.kl_weight), as_schedule(settings.temperature)

    @abstractmethod
    def __call__(self, batch: NDArray[Any], key: Key, done: float) -> Result:
        """Loss and figures of a batch."""

    def scale(self) -> float:
        """What the encoder's gradient will be divided by in the next call."""
        return 1.0

    def weighted(self, reconstruction: Any, kl: Any, done: float) -> Result:
        """Minus the bound, means over the batch, with the weight that the divergence has by now."""
        fit, divergence = np.mean(reconstruction), np.mean(kl)
        weight = self.kl_weight(done)
        loss = divergence - fit if weight == 1 else weight * divergence - fit
        value, distance = float(fit), float(divergence)
        return loss, {"elbo": value - distance, "reconstruction": value, "kl": distance}


class Reparam(Objective):
    """Through the draw z = mean + std noise."""

    def __call__(self, batch: NDArray[Any], key: Key, done: float) -> Result:
        """Minus the bound, of one draw or importance-weighted."""
        model, k = self.model, self.settings.n_importance
        if k > 1:
            weights = model.log_weights(batch, int(key), k)
            bound = np.mean(weights.log_sum_exp(axis=0)) - math.log(k)
            return -bound, {"elbo": float(bound)}
        if self.settings.free_bits > 0:
            return self._with_free_bits(batch, key, done)
        return self.weighted(*model.bound(batch, int(key)), done)

    def _with_free_bits(self, batch: NDArray[Any], key: Key, done: float) -> Result:
        """The divergence of a unit counts from `free_bits` on (Kingma et al. 2016)."""
        model = self.model
        latent, q = model.latents[0], model.encoders[0](batch)
        z, kl = latent.draw(q, Generator(int(key)).key(), 1, closed_form=True)
        fit = model.likelihood.log_prob(model.decoders[0](z), batch)
        of_units = np.mean(latent.divergence_of_units(q), axis=0)
        counted = np.sum(np.maximum(of_units, np.float32(self.settings.free_bits)))
        _, figures = self.weighted(fit.detach(), kl.detach(), done)
        return self.kl_weight(done) * counted - np.mean(fit), figures


class Concrete(Objective):
    """Through a relaxed draw (Jang et al. 2017; Maddison et al. 2017); the divergence is that of the discrete units."""

    def __call__(self, batch: NDArray[Any], key: Key, done: float) -> Result:
        """Minus the bound at the temperature of now; in evaluation, of draws as they are."""
        model = self.model
        if not model.training:
            return self.weighted(*model.bound(batch, int(key)), done)
        temperature, hard = self.temperature(done), self.settings.straight_through
        return self.weighted(*model.relaxed_bound(batch, key, temperature, straight_through=hard), done)


@dataclass(frozen=True)
class Draw:
    """A draw of q without gradient: ``log p(x, z)``, a function of the decoders; ``log q(z | x)``, of the encoders."""

    log_joint: Any
    log_posterior: Any


def detached_draw(model: VAE, batch: NDArray[Any], key: Key, *, learn_encoder: bool) -> Draw:
    """Draw all layers, and judge the draw."""
    keys, x = Generator(int(key)), batch
    log_joint: Any = 0.0
    log_posterior: Any = 0.0
    for i, (latent, encoder) in enumerate(zip(model.latents, model.encoders, strict=True)):
        if learn_encoder:
            q = encoder(x)
        else:
            with no_grad():
                q = encoder(x)
        with no_grad():
            z, _ = latent.draw(tuple(map(plain, q)), keys.key(), 1, closed_form=True)
        log_posterior = log_posterior + latent.log_density(z, q)
        p = model.decoders[i](z)
        below = model.likelihood.log_prob(p, batch) if i == 0 else model.latents[i - 1].log_density(x, p)
        log_joint = log_joint + below
        x = z
    return Draw(log_joint + model.latents[-1].log_prior(x), log_posterior)


DECAY = 0.8  # of the baseline's running mean and variance


class Baseline(Module):
    """What a draw for x is worth, as far as x alone tells; and the running mean and variance of what remains."""

    def __init__(self, n_visible: int, key: Key) -> None:
        super().__init__()
        self.net = mlp((n_visible, 100, 1), "tanh", key=key)
        self.mean = tensor(np.zeros((), np.float32))
        self.variance = tensor(np.zeros((), np.float32))
        self.batches = tensor(np.zeros((), np.int64))

    def follow(self, signal: Any) -> None:
        """Move the running mean and variance; the first batch sets them."""
        rate = 1 - DECAY if int(self.batches) else 1.0
        self.mean += (float(signal.mean(dtype=np.float64)) - float(self.mean)) * rate
        self.variance += (float(signal.var(dtype=np.float64)) - float(self.variance)) * rate
        self.batches += 1

    def scale(self) -> float:
        """Standard deviation of what remains, at least 1."""
        return max(1.0, math.sqrt(float(self.variance)))

    def forward(self, x: Any) -> Any:
        """(n, n_visible) -> (n,)."""
        return self.net(x.astype(np.float32)).reshape(-1)


class Reinforce(Objective):
    """The score function with NVIL's baselines and normalisation (Mnih & Gregor 2014).

    The running mean and variance are those of the batches before (after the first), so that the estimate stays unbiased
    up to its scale.
    """

    def __init__(self, model: VAE, settings: Settings) -> None:
        super().__init__(model, settings)
        self.extra = self.baseline = Baseline(model.n_visible, Key(model.seed)).to(
            next(model.parameters()).device
        )

    def scale(self) -> float:
        """The baseline's."""
        return self.baseline.scale()

    def __call__(self, batch: NDArray[Any], key: Key, done: float) -> Result:
        """A loss whose gradients are the estimate, and the baseline's squared error."""
        draw = detached_draw(self.model, batch, key, learn_encoder=True)
        worth = plain(draw.log_joint) - plain(draw.log_posterior)
        expected = self.baseline(batch)
        remains = worth - plain(expected)
        if self.model.training and not int(self.baseline.batches):
            self.baseline.follow(remains)
        mean, scale = float(self.baseline.mean), self.baseline.scale()
        score = np.mean(draw.log_posterior * ((remains - mean) / scale).astype(np.float32))
        miss = np.mean(np.square(expected - (worth - mean)))
        if self.model.training:
            self.baseline.follow(remains)
        loss = miss - np.mean(draw.log_joint) - score
        elbo = float(worth.mean(dtype=np.float64))
        return loss, {"elbo": elbo}


class WakeSleep(Objective):
    """Wake: the decoder learns from the encoder's draws. Sleep: the encoder from the decoder's dreams (Hinton 1995)."""

    def __call__(self, batch: NDArray[Any], key: Key, done: float) -> Result:
        """Minus the wake phase's ``log p(x, z)`` and the sleep phase's ``log q(z | x)``."""
        keys = Generator(int(key))
        draw = detached_draw(self.model, batch, keys.key(), learn_encoder=False)
        loss = -np.mean(draw.log_joint) - np.mean(self.dream(len(batch), keys))
        elbo = float(np.mean(plain(draw.log_joint) - plain(draw.log_posterior), dtype=np.float64))
        return loss, {"elbo": elbo}

    def dream(self, n: int, keys: Generator) -> Any:
        """``log q(z | x)`` of n draws of the model, (n,)."""
        model = self.model
        z = model.latents[-1].prior(n, keys.key(), model.like())
        log_posterior: Any = 0.0
        for i in reversed(range(len(model.latents))):
            with no_grad():
                p = tuple(map(plain, model.decoders[i](z)))
                draws = model.likelihood if i == 0 else model.latents[i - 1]
                x = draws.draw_plain(p, keys.key())
            log_posterior = log_posterior + model.latents[i].log_density(z, model.encoders[i](x))
            z = x
        return log_posterior
