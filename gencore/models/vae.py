"""Variational autoencoders (Kingma & Welling 2014; Rezende, Mohamed & Wierstra 2014)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from gencore import optim
from gencore._checks import count, is_count
from gencore._devices import from_device, to_host
from gencore._states import as_rows, as_states
from gencore.autograd import Tensor, log_sum_exp, no_grad
from gencore.autograd.tensors import plain
from gencore.kernels import dense, sample
from gencore.kernels._arrays import empty, placed
from gencore.models import _vae_objectives as objectives
from gencore.models._neural import NeuralModel, chunks, make_optimizer
from gencore.models._vae_nets import Heads, Latent, make_latent, make_likelihood
from gencore.random import Generator, Key, KeyLike, as_key
from gencore.train import Callback, History, Schedule
from gencore.train.fit import ModuleTraining, Options

__all__ = ["VAE", "Elbo"]

Float32Array = NDArray[np.float32]
Estimator = Literal["auto", "reparam", "reinforce", "wake-sleep", "concrete"]

_ROWS = 4000  # decoded at a time by evaluations


@dataclass(frozen=True)
class Elbo:
    """Evidence lower bound of each example, nats: ``value = reconstruction - kl``.

    Attributes
    ----------
    value, reconstruction, kl : (n,) Tensor
        The bound; ``E_q log p(x | z)``; the divergence of the posterior from the prior, exact where it has a closed
        form (one layer, and the top one of two), else from the same draws.
    """

    value: Tensor
    reconstruction: Tensor
    kl: Tensor


def _over_draws(values: Any, n: int) -> Any:
    """Means over the draws of n rows, which lie draw after draw; sums over many of them need float64."""
    if len(values) == n:
        return values
    return np.mean(values.reshape(-1, n).astype(np.float64), axis=0).astype(np.float32)


class VAE(NeuralModel):
    """Variational autoencoder: latent z, decoder p(x | z), encoder q(z | x), learned by a lower bound of log p(x).

    Parameters
    ----------
    n_visible : int
        Columns of the data.
    n_latent : int, or pair of int
        Latent units; a pair gives two stochastic layers, the one next to the data first.
    hidden : sequence of int, or pair of sequences
        Deterministic layers of the encoder, and reversed of the decoder; for two stochastic layers a pair of them.
    activation : {"tanh", "relu", "logistic", "softplus"}
        Of the deterministic layers.
    likelihood : {"bernoulli", "gaussian"}
        p(x | z): independent Bernoulli units, or normal ones with a mean and a variance each that depend on z.
    latent : {"gaussian", "bernoulli", "categorical"}
        z: standard normal; binary units of probability 1/2; groups of `n_classes` equally likely classes. The latter
        two are relaxed to Concrete variables while learning by "concrete".
    n_classes : int
        Classes of a categorical latent.
    decoder_hidden : sequence of int, optional
        Deterministic layers of the decoder, from z to x, where they are not those of the encoder reversed.
    seed : int
        All randomness follows from it.

    Notes
    -----
    The first ``fit`` starts the decoder's last biases at the data's rates (or means and variances), unless they were
    loaded or learned before: learning begins where independent units end. The log-variances that nets give are kept
    from -12 to 8 (the gradient is 0 beyond): a unit that never changes would otherwise drive its likelihood to
    infinity.

    Examples
    --------
    >>> import gencore as gc
    >>> data = gc.datasets.load("digits")
    >>> vae = gc.models.VAE(64, 8, hidden=(100,), seed=0)
    >>> history = vae.fit(data.train, epochs=2, progress=False)
    >>> vae.elbo(data.test[:5]).value.shape
    (5,)
    """

    def __init__(
        self,
        n_visible: int,
        n_latent: int | tuple[int, int],
        *,
        hidden: Sequence[int] | Sequence[Sequence[int]] = (500, 500),
        activation: dense.Activation = "tanh",
        likelihood: Literal["bernoulli", "gaussian"] = "bernoulli",
        latent: Latent = "gaussian",
        n_classes: int = 10,
        decoder_hidden: Sequence[int] | None = None,
        seed: int = 0,
    ) -> None:
        sizes = _sizes("n_latent", n_latent, (1, 2))
        if not isinstance(hidden, Sequence | np.ndarray):
            raise TypeError(f"VAE: expected hidden to be a sequence of integers, received {hidden!r}")
        if any(isinstance(h, Sequence) for h in hidden) or (len(sizes) == 2 and not hidden):
            stacks = [_sizes(f"hidden[{i}]", h) for i, h in enumerate(hidden)]
        else:
            stacks = [_sizes("hidden", hidden)] * len(sizes)
        if len(stacks) != len(sizes):
            raise ValueError(
                f"VAE: expected hidden for each of {len(sizes)} stochastic layers, received {hidden!r}"
            )
        if len(sizes) == 2 and latent != "gaussian":
            raise ValueError(
                f"VAE: expected latent to be 'gaussian' for two stochastic layers, received {latent!r}"
            )
        if decoder_hidden is not None and len(sizes) == 2:
            raise ValueError(
                "VAE: expected decoder_hidden to be None for two stochastic layers, received sizes"
            )
        _sizes("n_visible", n_visible)
        dense.activation_code("VAE", activation)  # also where no layer has it
        back = None if decoder_hidden is None else _sizes("decoder_hidden", decoder_hidden)
        super().__init__(
            seed, n_visible=int(n_visible), n_latent=sizes[0] if len(sizes) == 1 else sizes,
            hidden=stacks[0] if len(sizes) == 1 else stacks, activation=activation, likelihood=likelihood,
            latent=latent, n_classes=n_classes, decoder_hidden=back,
        )  # fmt: skip
        self.n_visible, self.n_latent = int(n_visible), sizes[-1]
        self.likelihood = make_likelihood(likelihood)
        self.latents = [make_latent(latent, n, n_classes) for n in sizes]
        keys = Generator(int(self.generator.key()))
        inputs = [self.n_visible, *(z.width for z in self.latents[:-1])]
        self.encoders: list[Heads] = []
        self.decoders: list[Heads] = []
        for i, (n_in, z, layers) in enumerate(zip(inputs, self.latents, stacks, strict=True)):
            self.encoders.append(Heads((n_in, *layers), z.parameter_widths, activation, keys))
            out = self.likelihood.parameter_widths(self.n_visible) if i == 0 else (n_in, n_in)
            self.decoders.append(
                Heads((z.width, *(layers[::-1] if back is None else back)), out, activation, keys)
            )
        self.eval()

    # --- learning ---------------------------------------------------------------------------------------------

    def fit(
        self,
        X: Any,
        *,
        epochs: int,
        batch_size: int = 128,
        lr: float | Schedule = 1e-3,
        n_importance: int = 1,
        estimator: Estimator = "auto",
        kl_weight: float | Schedule = 1.0,
        free_bits: float = 0.0,
        temperature: float | Schedule = 1.0,
        straight_through: bool = False,
        optimizer: str | Callable[[list[Tensor]], optim.Optimizer] = "adam",
        clip_norm: float | None = None,
        validation: Any = None,
        patience: int | None = None,
        callbacks: Sequence[Callback] = (),
        progress: bool = True,
        checkpoint: str | Path | None = None,
        checkpoint_every: int | None = None,
        resume: bool = False,
    ) -> History:
        """Learn by ascent of the bound, from the parameters as they are.

        Parameters
        ----------
        X : (n, n_visible) array_like
            Data: from 0 to 1 for Bernoulli units, real for Gaussian ones.
        epochs, batch_size : int
            Passes over the data, rows of an update.
        lr : float or Schedule
            Learning rate, or a function from the fraction of the training done to one (`gencore.train`).
        n_importance : int
            Draws of the importance-weighted bound, ``log mean_k p(x, z_k) / q(z_k | x)`` (Burda et al. 2016); 1 is
            the ELBO.
        estimator : {"auto", "reparam", "reinforce", "wake-sleep", "concrete"}
            Where the encoder's gradient comes from: through the draw ("reparam", Gaussian latents), through a draw at a
            temperature ("concrete", discrete latents), from the score function with learned baselines ("reinforce",
            NVIL; any latent), or by the wake-sleep algorithm (any latent). "auto": "reparam" or "concrete".
        kl_weight : float or Schedule
            Weight of the divergence in the objective; a schedule anneals it: ``gc.train.linear(0, 1)``.
        free_bits : float
            Nats of divergence, of each latent unit, mean over the batch, that cost nothing. One Gaussian layer.
        temperature : float or Schedule
            Of "concrete".
        straight_through : bool
            "concrete" with hard draws forward and the relaxed gradient.
        optimizer : {"adam", "adamw", "rmsprop", "sgd", "adagrad", "adadelta"}, or callable
            Of `gencore.optim`, with its defaults; or a function from a list of parameters to an optimizer.
        clip_norm, patience, callbacks, progress, checkpoint, checkpoint_every, resume
            As in `gencore.train.fit`; patience watches ``validation_elbo``.
        validation : array_like, optional
            Held-out data, whose bound is recorded as ``validation_elbo`` and so on.

        Returns
        -------
        History
            One record an epoch: ``epoch``, ``step``, ``seconds``, ``lr``, ``loss`` (what was minimised), ``elbo`` (of
            `n_importance` draws, without `kl_weight` and `free_bits`) and, for one draw by "reparam" or "concrete",
            ``reconstruction`` and ``kl``: means over the epoch's batches in nats; and those of the validation data.

        Raises
        ------
        ValueError, TypeError
            A wrong argument; an estimator that does not go with the latents.
        DivergenceError
            The loss or a parameter is no longer finite; the last good checkpoint is untouched.
        """
        settings = objectives.Settings(
            n_importance, estimator, kl_weight, free_bits, temperature, straight_through
        )
        settings = settings.checked(self)
        data = self._as_data("VAE.fit", "X", from_device(X))
        held_out = None
        if validation is not None:
            held_out = self._as_data("VAE.fit", "validation", from_device(validation))
        objective = objectives.make(self, settings)
        learned = [*self.parameters(), *(objective.extra.parameters() if objective.extra else ())]
        options = Options(
            epochs,
            batch_size,
            lr,
            clip_norm,
            patience,
            "validation_elbo",
            checkpoint,
            checkpoint_every,
            resume,
            callbacks,
        )
        options.check("VAE.fit")

        def here(batch: Any, key: Key, done: float) -> objectives.Result:
            return objective(self._here(batch), key, done)

        training = ModuleTraining(
            "VAE.fit", self, here, data, held_out, make_optimizer("VAE.fit", optimizer, learned, lr), options,
            generator=self.generator, seed=self.seed, recorded=settings.to_json(),
            extra=objective.extra, shown={"elbo": "elbo", "valid": "validation_elbo", "kl": "kl"},
        )  # fmt: skip
        if self.steps == 0:  # after all arguments were looked at, and not where a checkpoint goes on
            self.likelihood.start_at(self.decoders[0].heads, data)
        return training.run(progress)

    # --- bounds -----------------------------------------------------------------------------------------------

    def elbo(
        self, x: Any, *, n_samples: int = 1, key: KeyLike | None = None, temperature: float | None = None
    ) -> Elbo:
        """Evidence lower bound of each row, by `n_samples` draws: an unbiased estimate of the bound.

        Parameters
        ----------
        x : (n, n_visible) array_like
            Data.
        n_samples : int
            Draws a row; the mean over them is returned.
        key : Key, int or Generator, optional
            Random numbers; default: the model's own next key.
        temperature : float, optional
            Relax the draws of discrete latents to Concrete variables, as learning by "concrete" does. What it then
            maximises is no bound of log p(x): relaxed units tell the decoder more than their divergence counts.

        Returns
        -------
        Elbo
            Three Tensors (n,), differentiable with respect to the parameters unless under `no_grad`. Discrete latents
            are drawn as they are unless there is a `temperature`.

        Raises
        ------
        ValueError, TypeError
            A wrong argument; a temperature for Gaussian latents.
        """
        data = self._here(self._as_data("VAE.elbo", "x", x))
        n_samples = count("VAE.elbo", "n_samples", n_samples)
        number = int(as_key(self.key(key)))
        if temperature is None:
            reconstruction, kl = self.bound(data, number, n_samples)
        else:
            if self.latents[0].kind == "gaussian":
                raise ValueError(
                    f"VAE.elbo: expected temperature to be None for Gaussian latents, received {temperature!r}"
                )
            reconstruction, kl = self.relaxed_bound(data, number, temperature, n_samples=n_samples)
        return Elbo(reconstruction - kl, reconstruction, kl)

    def relaxed_bound(
        self, x: Any, key: KeyLike, temperature: float, *, straight_through: bool = False, n_samples: int = 1
    ) -> tuple[Any, Any]:
        """`bound` with relaxed draws; the divergence is that of the discrete units."""
        latent, q = self.latents[0], self.encoders[0](x)
        repeated = q if n_samples == 1 else tuple(np.tile(part, (n_samples, 1)) for part in q)
        z = latent.relaxed(repeated, temperature, key, straight_through)
        fit = self.likelihood.log_prob(self.decoders[0](z), x)
        return _over_draws(fit, len(x)), latent.divergence(q)

    def bound(self, x: Any, key: int, n_samples: int = 1) -> tuple[Any, Any]:
        """Reconstruction and divergence, as in `Elbo`, of rows that kernels take as they are."""
        n, keys = len(x), Generator(key)
        z, repeats = x, n_samples
        kl: Any = None
        for i, (latent, encoder) in enumerate(zip(self.latents, self.encoders, strict=True)):
            q = encoder(z)
            top = i + 1 == len(self.latents)
            above, divergence = latent.draw(q, keys.key(), repeats, closed_form=top)
            repeats = 1
            if not top:  # log q(z | x) here; log p(z | the layer above) follows when that is drawn
                divergence = latent.log_density(above, q)
            part = _over_draws(divergence, n)
            if i == 0:
                first = above
            else:
                mean, logvar = self.decoders[i](above)
                part = part - _over_draws(sample.gaussian_log_prob(z, mean, logvar), n)
            kl = part if kl is None else part + kl
            z = above
        return _over_draws(self.likelihood.log_prob(self.decoders[0](first), x), n), kl

    def log_weights(self, x: Any, key: int, n_samples: int, posterior: tuple[Any, ...] | None = None) -> Any:
        """``log p(x, z) - log q(z | x)`` of draws of q: (n_samples, n), rows that kernels take as they are.

        `posterior` is what the first encoder makes of `x`, where that is known.
        """
        keys = Generator(key)
        z, repeats = x, n_samples
        total: Any = 0.0
        for i, (latent, encoder) in enumerate(zip(self.latents, self.encoders, strict=True)):
            q = posterior if i == 0 and posterior is not None else encoder(z)
            above, ratio = latent.draw(q, keys.key(), repeats, closed_form=False)
            part = -ratio if i + 1 == len(self.latents) else -latent.log_density(above, q)
            if i == 0:
                first = above
            else:
                mean, logvar = self.decoders[i](above)
                part = part + sample.gaussian_log_prob(z, mean, logvar)
            total = part + total
            z, repeats = above, 1
        total = total + self.likelihood.log_prob(self.decoders[0](first), x)
        return total.reshape(n_samples, -1)

    def log_likelihood(
        self, X: Any, n_samples: int = 5000, *, key: KeyLike | None = None
    ) -> NDArray[np.float64]:
        """Importance-weighted lower bound of log p(x) of each row, nats: (n, n_visible) -> (n,) float64.

        ``log mean_k p(x, z_k) / q(z_k | x)`` over `n_samples` draws of q: below log p(x) on average, and closer the
        more draws there are (Burda, Grosse & Salakhutdinov 2016). Weights are summed in float64. Extra memory: some
        4,000 rows of the widest layer and of the data.
        """
        data = self._as_data("VAE.log_likelihood", "X", X)
        n_samples = count("VAE.log_likelihood", "n_samples", n_samples)
        keys = Generator(int(as_key(self.key(key))))
        out = np.empty(len(data))
        block = min(n_samples, 500)
        with no_grad():
            for rows in chunks(len(data), max(_ROWS // block, 1)):
                batch = self._here(data[rows])
                posterior, total = self.encoders[0](batch), np.full(len(batch), -np.inf)
                for part in chunks(n_samples, block):
                    w = self.log_weights(batch, int(keys.key()), part.stop - part.start, posterior)
                    weights = to_host(plain(w)).astype(np.float64)
                    total = np.logaddexp(total, log_sum_exp(weights, 0))  # -inf of no weight at all
                out[rows] = total - math.log(n_samples)
        return out

    # --- what it knows ----------------------------------------------------------------------------------------

    def encode(self, X: Any, *, key: KeyLike | None = None) -> Float32Array:
        """Mean of the posterior q(z | x), of the top layer: (n, n_visible) -> (n, latent columns).

        Gaussian: the mean. Bernoulli: the probabilities. Categorical: those of each class, groups one after the other.
        With two stochastic layers the lower one is drawn, by `key` (default: 0, so that it is a function of `X`).
        """
        return self._posterior("VAE.encode", X, key)[-1]

    def _posterior(self, op: str, X: Any, key: KeyLike | None) -> list[Float32Array]:
        data = self._as_data(op, "X", X)
        keys = Generator(int(as_key(0 if key is None else key)))
        means: list[list[Float32Array]] = [[] for _ in self.latents]
        with no_grad():
            for rows in chunks(len(data), _ROWS):
                z: Any = self._here(data[rows])
                for i, (latent, encoder) in enumerate(zip(self.latents, self.encoders, strict=True)):
                    q = encoder(z)
                    means[i].append(plain(latent.mean(q)))
                    if i + 1 < len(self.latents):
                        z, _ = latent.draw(q, keys.key(), 1, closed_form=False)
        like = self.like()
        nothing = [empty(like, (0, z.width), np.float32) for z in self.latents]
        return [np.concatenate(m) if m else e for m, e in zip(means, nothing, strict=True)]

    def decode(self, z: Any, *, key: KeyLike | None = None) -> Float32Array:
        """Mean of x given the top latent: (n, latent columns) -> (n, n_visible) float32.

        With two stochastic layers the lower one is drawn, by `key` (default: 0).
        """
        latent = as_rows("VAE.decode", "z", z, self.latents[-1].width)
        keys = Generator(int(as_key(0 if key is None else key)))
        out: Float32Array = empty(self.like(), (len(latent), self.n_visible), np.float32)
        with no_grad():
            for rows in chunks(len(latent), _ROWS):
                out[rows] = plain(self.likelihood.mean(self._decoded(self._here(latent[rows]), keys)))
        return out

    def _decoded(self, z: Any, keys: Generator) -> tuple[Any, ...]:
        """Parameters of p(x | z), lower layers drawn."""
        for decoder, below in zip(self.decoders[:0:-1], self.latents[-2::-1], strict=True):
            z, _ = below.draw(decoder(z), keys.key(), 1, closed_form=False)
        parameters: tuple[Any, ...] = self.decoders[0](z)
        return parameters

    def reconstruct(self, X: Any) -> Float32Array:
        """Mean of x given the posterior's mean: (n, n_visible) -> (n, n_visible) float32."""
        return self.decode(self.encode(X))

    def sample(self, n: int, *, key: KeyLike | None = None, means: bool = True) -> NDArray[Any]:
        """Draw from the model: z from the prior, then x.

        Parameters
        ----------
        n : int
            How many.
        key : Key, int or Generator, optional
            Random numbers; default: the model's own next key.
        means : bool
            Return the mean of each unit given z, which pictures are commonly made of, instead of a draw.

        Returns
        -------
        (n, n_visible) array
            float32; for draws of Bernoulli units uint8.
        """
        count("VAE.sample", "n", n)
        keys = Generator(int(as_key(self.key(key))))
        z = self.latents[-1].prior(n, keys.key(), self.like())
        with no_grad():
            parts = [self._decoded(z[rows], keys) for rows in chunks(n, _ROWS)]
            turn = self.likelihood.mean if means else (lambda p: self.likelihood.draw_plain(p, keys.key()))
            return np.concatenate([plain(turn(p)) for p in parts])

    def interpolate(self, start: Any, end: Any, n: int = 10) -> Float32Array:
        """Decode `n` points on the line between the posterior means of two examples: (n, n_visible) float32."""
        count("VAE.interpolate", "n", n)
        z = self.encode(np.stack([to_host(start), to_host(end)]))
        t: Any = placed(z, np.linspace(0, 1, n)[:, None], np.float32)
        return self.decode((1 - t) * z[:1] + t * z[1:])

    def manifold(self, n: int = 20, *, dimensions: tuple[int, int] = (0, 1)) -> Float32Array:
        """Decode an n x n grid of two latent dimensions, the others at 0: (n n, n_visible) float32.

        The grid is even in the probability of a standard normal (Kingma & Welling 2014, figure 4), rows downwards:
        ``gc.plot.samples(vae.manifold(20), "manifold.png", columns=20)``.
        """
        if self.latents[-1].kind != "gaussian":
            raise ValueError("VAE.manifold: expected a Gaussian latent, received a discrete one")
        count("VAE.manifold", "n", n)
        width = self.latents[-1].width
        if width > 1 and (len(set(dimensions)) != 2 or not all(0 <= d < width for d in dimensions)):
            raise ValueError(
                f"VAE.manifold: expected dimensions to be two of the {width} latent units, received {dimensions}"
            )
        z = np.zeros((n, n, width), np.float32)
        line = [NormalDist().inv_cdf((i + 0.5) / n) for i in range(n)]
        z[:, :, dimensions[0] if width > 1 else 0] = np.array(line)[None, :]
        if width > 1:
            z[:, :, dimensions[1]] = np.array(line)[::-1, None]
        return self.decode(z.reshape(n * n, -1))

    def active_units(self, X: Any, *, threshold: float = 1e-2) -> list[NDArray[np.bool_]]:
        """Which latent units carry information: the variance of E_q[z | x] over the data is above `threshold`.

        Returns
        -------
        list of (n_latent,) bool arrays
            One for each stochastic layer (Burda et al. 2016).
        """
        return [
            to_host(m).astype(np.float64).var(axis=0) > threshold
            for m in self._posterior("VAE.active_units", X, None)
        ]

    # --- internals --------------------------------------------------------------------------------------------

    def _as_data(self, op: str, name: str, X: Any) -> NDArray[Any]:
        if self.likelihood.kind == "bernoulli":
            return as_states(op, name, X, self.n_visible, values="unit interval")
        return as_rows(op, name, X, self.n_visible)


def _sizes(name: str, value: Any, counts: tuple[int, ...] | None = None) -> tuple[int, ...]:
    sizes = tuple(value) if isinstance(value, Sequence | np.ndarray) else (value,)
    for n in sizes:
        if not is_count(n):
            raise ValueError(f"VAE: expected {name} to be integers of at least 1, received {value!r}")
    if counts is not None and len(sizes) not in counts:
        raise ValueError(f"VAE: expected {name} to be one integer or two, received {value!r}")
    return tuple(int(n) for n in sizes)
