"""The restricted Boltzmann machine with binary units."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gencore import evaluate, io
from gencore._checks import count
from gencore._devices import check_device, from_device, place, to_host
from gencore._states import as_states
from gencore.kernels import rbm as kernels
from gencore.kernels import sample
from gencore.kernels._arrays import is_cuda_array
from gencore.models import _rbm_training as training
from gencore.random import Generator, KeyLike, as_key
from gencore.train import Callback, History, Schedule

Float32Array = NDArray[np.float32]
ByteArray = NDArray[np.uint8]


class RBM:
    """Restricted Boltzmann machine: ``p(v, h) = exp(b.v + c.h + v' W h) / Z``, v and h binary.

    Parameters
    ----------
    n_visible, n_hidden : int
        Units of the two sides.
    seed : int
        All randomness of the model (initial weights, order of the data, chains, samples) follows from it.
    device : "cpu" or "cuda"
        Where parameters, chains and the state of a training lie and where everything is computed. On "cuda" (which
        needs CuPy) they are CuPy's arrays, as results are; data and states may be on either side. The same seed gives
        the same chains there, but for ties of rounding.

    Attributes
    ----------
    device : str
        As given; `to` changes it.
    weight : (n_visible, n_hidden) float32
        ``W``. Assignable; initially normal with standard deviation 0.01.
    visible_bias, hidden_bias : (n_visible,), (n_hidden,) float32
        ``b`` and ``c``. Assignable; initially 0.
    data_mean : (n_visible,) float32 or None
        Mean of the data of the last `fit`: where samplers and AIS start.
    chains : (n_chains, n_visible) uint8 or None
        Persistent chains, left by ``fit(algorithm="pcd")``; `advance_chains` moves them on.
    generator : Generator
        Gives the keys of `sample` and `gibbs`.
    steps : int
        Parameter updates done so far.

    Examples
    --------
    >>> import gencore as gc
    >>> data = gc.datasets.load("digits")
    >>> model = gc.models.RBM(64, 32, seed=0)
    >>> history = model.fit(data.train, epochs=2, lr=0.05, progress=False)
    >>> model.sample(4).shape
    (4, 64)
    """

    def __init__(
        self, n_visible: int, n_hidden: int, *, seed: int = 0, device: Literal["cpu", "cuda"] = "cpu"
    ) -> None:
        self.device: Literal["cpu", "cuda"] = check_device("RBM", device)
        for name, units in (("n_visible", n_visible), ("n_hidden", n_hidden)):
            count("RBM", name, units)
        self.generator = Generator(seed)
        self.n_visible, self.n_hidden, self.seed = int(n_visible), int(n_hidden), int(seed)
        self.chain_key = int(self.generator.key())
        self.chain_step = 0
        self.chains: ByteArray | None = None
        self.data_mean: Float32Array | None = None
        self.steps = 0
        weight = sample.normal((self.n_visible, self.n_hidden), self.generator.key())
        weight *= np.float32(0.01)
        self._weight: Float32Array = self._place(weight)
        self._visible_bias: Float32Array = self._place(np.zeros(self.n_visible, np.float32))
        self._hidden_bias: Float32Array = self._place(np.zeros(self.n_hidden, np.float32))
        self._training = training.State()
        self._log_partition: tuple[int, evaluate.LogPartition] | None = None

    def __repr__(self) -> str:
        where = "" if self.device == "cpu" else f", device={self.device!r}"
        return f"RBM({self.n_visible}, {self.n_hidden}, seed={self.seed}{where}) after {self.steps} updates"

    @property
    def weight(self) -> Float32Array:
        """``W``, (n_visible, n_hidden) float32."""
        return self._weight

    @weight.setter
    def weight(self, value: ArrayLike) -> None:
        self._weight = self._place(_parameter("weight", value, (self.n_visible, self.n_hidden)))

    @property
    def visible_bias(self) -> Float32Array:
        """``b``, (n_visible,) float32."""
        return self._visible_bias

    @visible_bias.setter
    def visible_bias(self, value: ArrayLike) -> None:
        self._visible_bias = self._place(_parameter("visible_bias", value, (self.n_visible,)))

    @property
    def hidden_bias(self) -> Float32Array:
        """``c``, (n_hidden,) float32."""
        return self._hidden_bias

    @hidden_bias.setter
    def hidden_bias(self, value: ArrayLike) -> None:
        self._hidden_bias = self._place(_parameter("hidden_bias", value, (self.n_hidden,)))

    @property
    def parameters(self) -> tuple[Float32Array, Float32Array, Float32Array]:
        """``(weight, visible_bias, hidden_bias)``, as the kernels of `gencore.kernels.rbm` take them."""
        return self._weight, self._visible_bias, self._hidden_bias

    def to(self, device: Literal["cpu", "cuda"]) -> Self:
        """Move the model to "cpu" or "cuda", chains and training included. Returns the model.

        Raises
        ------
        ValueError, ImportError
            Another name; CuPy is not installed.
        """
        self.device = check_device("RBM.to", device)
        for name in ("_weight", "_visible_bias", "_hidden_bias", "chains", "data_mean"):
            if getattr(self, name) is not None:
                setattr(self, name, self._place(getattr(self, name)))
        self._training.place(self._place)
        return self

    # --- learning ---------------------------------------------------------------------------------------------

    def fit(
        self,
        X: Any,
        *,
        epochs: int,
        batch_size: int = 128,
        lr: float | Schedule = 0.05,
        algorithm: str = "pcd",
        k: int = 1,
        centered: bool = True,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        n_chains: int | None = None,
        validation: Any = None,
        callbacks: Sequence[Callback] = (),
        progress: bool = True,
        checkpoint: str | Path | None = None,
        checkpoint_every: int | None = None,
        resume: bool = False,
    ) -> History:
        """Learn by contrastive divergence, from the parameters as they are.

        Parameters
        ----------
        X : (n, n_visible) array_like or SciPy sparse matrix
            Data of 0 and 1, or real values from 0 to 1 (read as means).
        epochs : int
            Passes over the data.
        batch_size : int
            Rows of an update; the last batch of an epoch may be short, and divides by its own count.
        lr : float or Schedule
            Learning rate, or a function from the fraction of the training done (0 to 1) to one: `gencore.train` has
            ``linear``, ``exponential`` and ``cosine``.
        algorithm : "pcd" or "cd"
            Persistent chains that run on from update to update, or chains that start at each batch.
        k : int
            Gibbs steps an update.
        centered : bool
            Centred gradient: the same maximum, better conditioned (Melchior et al. 2016). The offsets are the
            data's means and a moving average of the hidden units'.
        momentum : float
            Of the updates, 0 to below 1.
        weight_decay : float
            L2 penalty on the weights: each update subtracts ``lr * weight_decay * weight``.
        n_chains : int, optional
            Persistent chains; default ``batch_size``.
        validation : array_like, optional
            Data whose pseudo-log-likelihood is recorded beside that of ``X``.
        callbacks : sequence of callables
            ``callback(model, record)`` after each epoch; returning True ends the training.
        progress : bool
            Show a progress bar, where the output is a terminal.
        checkpoint : path, optional
            File for the whole state (model, optimizer, chains, history), written at the end of each epoch or every
            ``checkpoint_every`` updates. `RBM.load` reads it.
        checkpoint_every : int, optional
            Updates between two checkpoints.
        resume : bool
            Go on from ``checkpoint`` if that file exists: the rest of the training gives the bits that the
            uninterrupted one would have given. The other arguments must be those of the interrupted call.

        Returns
        -------
        History
            One record an epoch: ``epoch``, ``step``, ``seconds``, ``lr``, ``pseudo_log_likelihood`` (exact, nats a row,
            over rows spread through the data: all if they are few, some 150 for 784x500),
            ``validation_pseudo_log_likelihood`` and ``reconstruction_error`` (mean squared, over the same rows).

        Raises
        ------
        ValueError, TypeError
            A wrong argument; nothing has changed then.
        DivergenceError
            A parameter is no longer finite: says which, and at which update. The last checkpoint is untouched.
        """
        options = training.Options(
            epochs, batch_size, lr, algorithm, k, centered, momentum, weight_decay,
            batch_size if n_chains is None else n_chains,
        )  # fmt: skip
        options.check()
        data = as_states("RBM.fit", "X", from_device(X), self.n_visible, values="unit interval")
        held_out = None
        if validation is not None:
            held_out = as_states("RBM.fit", "validation", from_device(validation), self.n_visible)
        return training.Training(
            self,
            data,
            held_out,
            options,
            callbacks=callbacks,
            checkpoint=checkpoint,
            checkpoint_every=checkpoint_every,
            resume=resume,
        ).run(progress)

    # --- sampling ---------------------------------------------------------------------------------------------

    def gibbs(
        self,
        v: Any,
        steps: int,
        *,
        beta: Any = 1.0,
        clamp: Any = None,
        key: KeyLike | None = None,
        precision: kernels.Precision = "float32",
    ) -> ByteArray:
        """Run Gibbs chains from ``v``.

        Parameters
        ----------
        v : (n, n_visible) array_like of 0 and 1
            Where the chains start; not changed.
        steps : int
            v-h-v steps.
        beta : float or (n,) array_like
            Inverse temperature, for all rows or for each.
        clamp : (n_visible,) or (n, n_visible) array_like of 0 and 1, optional
            Units marked 1 keep their value: conditional samples of the others.
        key : Key, int or Generator, optional
            Random numbers; by default the next key of ``generator``.
        precision : {"float32", "tf32", "bf16"}
            Of the weights in products, as in `gencore.kernels.rbm.gibbs_chain`; on the CPU "float32" alone.

        Returns
        -------
        (n, n_visible) uint8
        """
        states = self._states("RBM.gibbs", "v", v, self.n_visible)
        if clamp is not None:
            clamp = self._states("RBM.gibbs", "clamp", _rows_of(clamp), self.n_visible)
        single = np.ndim(beta) == 0
        temperatures = (
            float(beta) if single else self._place(np.ascontiguousarray(from_device(beta), np.float32))
        )
        return kernels.gibbs_chain(
            *self.parameters, states, steps=steps, key=self._key(key), beta=temperatures, clamp=clamp,
            precision=precision,
        )  # fmt: skip

    def sample(
        self,
        n: int,
        *,
        steps: int = 1000,
        start: Any = None,
        clamp: Any = None,
        key: KeyLike | None = None,
        precision: kernels.Precision = "float32",
    ) -> ByteArray:
        """Draw approximate samples: Gibbs chains of ``steps`` steps.

        Parameters
        ----------
        n : int
            How many.
        steps : int
            v-h-v steps of each chain. How many are enough is a property of the machine: multimodal ones mix slowly.
        start : (n, n_visible) or (n_visible,) array_like of 0 and 1, optional
            Where the chains start. By default at the persistent chains, if there are any, else at independent draws
            of the data's means. Required with ``clamp``.
        clamp : (n_visible,) or (n, n_visible) array_like of 0 and 1, optional
            Units marked 1 keep their value in ``start``.
        key : Key, int or Generator, optional
            Random numbers; by default the next key of ``generator``.
        precision : {"float32", "tf32", "bf16"}
            As in `gibbs`.

        Returns
        -------
        (n, n_visible) uint8
        """
        if n < 1:
            raise ValueError(f"RBM.sample: expected n to be at least 1, received {n}")
        keys = Generator(int(as_key(self._key(key))))
        if start is not None:
            states = np.atleast_2d(from_device(start))
            if len(states) not in (1, n):
                raise ValueError(f"RBM.sample: expected start to have n = {n} rows, received {len(states)}")
            states = np.repeat(states, n // len(states), axis=0)
        elif clamp is not None:
            raise ValueError(
                "RBM.sample: expected start beside clamp (what the clamped units hold), received None"
            )
        elif self.chains is not None:
            states = self.chains[self._place(np.arange(n) % len(self.chains))]
        else:
            states = sample.bernoulli(self._place(np.tile(self._base_rates(), (n, 1))), keys.key())
        return self.gibbs(states, steps, clamp=clamp, key=keys, precision=precision)

    def advance_chains(self, steps: int) -> ByteArray:
        """Move the persistent chains on by ``steps`` Gibbs steps and return them.

        They draw from ``chain_key``, from step ``chain_step`` on: a model that was saved and loaded, here or in C++,
        goes on with the same bits.
        """
        if self.chains is None:
            raise ValueError("RBM.advance_chains: expected chains (fit with algorithm='pcd'), received None")
        kernels.gibbs_chain(
            *self.parameters, self.chains, steps=steps, key=self.chain_key, first_step=self.chain_step,
            out=self.chains,
        )  # fmt: skip
        self.chain_step += steps
        return self.chains

    def hidden_mean(self, v: Any) -> Float32Array:
        """``p(h = 1 | v)``: (n, n_visible) of 0 to 1 -> (n, n_hidden) float32."""
        states = self._states("RBM.hidden_mean", "v", v, self.n_visible, values="unit interval")
        return kernels.hidden_mean(self._weight, self._hidden_bias, states)

    def visible_mean(self, h: Any) -> Float32Array:
        """``p(v = 1 | h)``: (n, n_hidden) of 0 to 1 -> (n, n_visible) float32."""
        states = self._states("RBM.visible_mean", "h", h, self.n_hidden, values="unit interval")
        return kernels.visible_mean(self._weight, self._visible_bias, states)

    def reconstruct(self, v: Any) -> Float32Array:
        """Visible means given the hidden means given ``v``: (n, n_visible) -> (n, n_visible) float32."""
        return self.visible_mean(self.hidden_mean(v))

    # --- likelihood -------------------------------------------------------------------------------------------

    def free_energy(self, v: Any) -> NDArray[np.float64]:
        """``F(v) = -b.v - sum_j softplus(c_j + (v W)_j)``, in nats: (n, n_visible) -> (n,). ``p(v) = exp(-F) / Z``."""
        states = self._states("RBM.free_energy", "v", v, self.n_visible, values="unit interval")
        return kernels.free_energy(*self.parameters, states)

    def log_partition(self, method: str = "auto", **options: Any) -> evaluate.LogPartition:
        """Log of the partition function with its bracket: see `gencore.evaluate.log_partition`."""
        result = evaluate.log_partition(self, method, **options)
        self._log_partition = self._fingerprint(), result
        return result

    def log_likelihood(self, X: Any) -> NDArray[np.float64]:
        """Log-likelihood of each row, ``-F(v) - log Z``, in nats: (n, n_visible) of 0 and 1 -> (n,).

        Uses the last `log_partition` of these parameters, or calls it. Where log Z comes from AIS it lies in a
        bracket, and the mean likelihood in the same: look at it before you quote a figure.
        """
        states = self._states("RBM.log_likelihood", "X", X, self.n_visible)
        known = self._log_partition
        current = known is not None and known[0] == self._fingerprint()
        log_z = known[1] if known is not None and current else self.log_partition()
        return -kernels.free_energy(*self.parameters, states) - log_z.value

    def pseudo_log_likelihood(self, v: Any, *, key: KeyLike | None = None) -> NDArray[np.float64]:
        """Pseudo-log-likelihood ``sum_i log p(v_i | v without i)``, in nats: (n, n_visible) of 0 and 1 -> (n,).

        Exact; with a ``key``, the unbiased estimate from one random unit a row, at 1 / n_visible of the cost.
        """
        states = self._states("RBM.pseudo_log_likelihood", "v", v, self.n_visible)
        if key is None:
            return kernels.pseudo_log_likelihood(*self.parameters, states)
        return kernels.stochastic_pseudo_log_likelihood(*self.parameters, states, key=key)

    # --- files ------------------------------------------------------------------------------------------------

    def save(self, path: str | Path) -> None:
        """Write a safetensors file: parameters, chains, generator, and the state of an unfinished training."""
        tensors: dict[str, NDArray[Any]] = {
            "weight": self._weight,
            "visible_bias": self._visible_bias,
            "hidden_bias": self._hidden_bias,
        }
        if self.chains is not None:
            tensors["chains"] = self.chains
        if self.data_mean is not None:
            tensors["data_mean"] = self.data_mean
        state = {
            "steps": self.steps,
            "chain_key": str(self.chain_key),
            "chain_step": self.chain_step,
            "generator": self.generator.state,
            "training": self._training.to_json(),
        }
        config = {"n_visible": self.n_visible, "n_hidden": self.n_hidden, "seed": self.seed}
        tensors = {name: to_host(array) for name, array in (tensors | self._training.tensors()).items()}
        io.save_model(path, kind="RBM", config=config, state=state, tensors=tensors)

    @classmethod
    def load(cls, path: str | Path, *, device: Literal["cpu", "cuda"] = "cpu") -> "RBM":
        """Read a model written by `save` or by a checkpoint, to "cpu" or "cuda". Names and shapes are checked.

        Raises
        ------
        FileNotFoundError, ValueError
            No such file; not a gencore file; another kind of model; tensors missing, unexpected or of a wrong shape.
        """
        stored = io.load_model(path, "RBM")
        tensors = stored.take(
            ("weight", "visible_bias", "hidden_bias"), ("chains", "data_mean", *training.State.tensor_names)
        )
        model = cls(**stored.config)
        model.weight, model.visible_bias = tensors["weight"], tensors["visible_bias"]
        model.hidden_bias = tensors["hidden_bias"]
        model.chains, model.data_mean = tensors.get("chains"), tensors.get("data_mean")
        for name, array, form in (
            ("chains", model.chains, "(n, {})"),
            ("data_mean", model.data_mean, "({},)"),
        ):
            if array is not None and array.shape[-1:] != (model.n_visible,):
                expected = form.format(model.n_visible)
                raise ValueError(
                    f"RBM.load: expected {name} of shape {expected} in {path}, received {array.shape}"
                )
        model.steps, model.chain_step = int(stored.state["steps"]), int(stored.state["chain_step"])
        model.chain_key = int(stored.state["chain_key"])
        model.generator.state = stored.state["generator"]
        model._training = training.State.from_file(stored.state["training"], tensors)
        return model if device == "cpu" else model.to(device)

    # --- internals --------------------------------------------------------------------------------------------

    def _key(self, key: KeyLike | None) -> KeyLike:
        return self.generator.key() if key is None else key

    def _place(self, array: Any) -> Any:
        return place("RBM", array, self.device)

    def _states(self, *args: Any, **kwargs: Any) -> Any:
        """`as_states`, on the model's device."""
        return self._place(as_states(*args, **kwargs))

    def _base_rates(self) -> Float32Array:
        return np.full(self.n_visible, 0.5, np.float32) if self.data_mean is None else to_host(self.data_mean)

    def _fingerprint(self) -> int:
        return hash(tuple(to_host(p).tobytes() for p in self.parameters))


def _rows_of(mask: Any) -> Any:
    return mask.reshape(1, -1) if is_cuda_array(mask) and len(mask.shape) == 1 else np.atleast_2d(mask)


def _parameter(name: str, value: ArrayLike, shape: tuple[int, ...]) -> Float32Array:
    array = np.array(from_device(value), np.float32, order="C")
    if array.shape != shape:
        raise ValueError(f"RBM: expected {name} of shape {shape}, received {array.shape}")
    if not np.isfinite(array).all():
        raise ValueError(f"RBM: expected {name} to be finite, received {array[~np.isfinite(array)][0]}")
    return array
