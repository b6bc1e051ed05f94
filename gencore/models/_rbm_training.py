"""Learning of a restricted Boltzmann machine: the loop of `RBM.fit`, and what a checkpoint keeps of it."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from gencore._checks import count, is_number, number
from gencore.kernels import optim, sample
from gencore.kernels import rbm as kernels
from gencore.train.history import Callback, History
from gencore.train.loop import Loop, Position, checksum, schedule_json
from gencore.train.schedules import Schedule

if TYPE_CHECKING:
    from gencore.models.rbm import RBM

Float32Array = NDArray[np.float32]

MONITORED_TERMS = 60_000_000  # softplus terms of one record: some 50 ms of one core
OFFSET_RATE = np.float32(0.01)  # of the moving average that centres the hidden units
SHOWN = {"pll": "pseudo_log_likelihood", "valid": "validation_pseudo_log_likelihood"}  # in the progress bar
PARAMETERS = ("weight", "visible_bias", "hidden_bias")


@dataclass(frozen=True)
class Options:
    """Arguments of a training."""

    epochs: int
    batch_size: int
    lr: float | Schedule
    algorithm: str
    k: int
    centered: bool
    momentum: float
    weight_decay: float
    n_chains: int

    def check(self) -> None:
        """Name the first argument that is wrong."""
        for name in ("epochs", "batch_size", "k", "n_chains"):
            value = getattr(self, name)
            count("RBM.fit", name, value)
        if self.algorithm not in ("pcd", "cd"):
            raise ValueError(f"RBM.fit: expected algorithm to be 'pcd' or 'cd', received {self.algorithm!r}")
        if not (is_number(self.momentum) and 0 <= self.momentum < 1):
            raise ValueError(f"RBM.fit: expected momentum from 0 to below 1, received {self.momentum!r}")
        number("RBM.fit", "weight_decay", self.weight_decay)
        if not callable(self.lr):
            number("RBM.fit", "lr", self.lr, positive=True)

    def to_json(self) -> dict[str, Any]:
        """As a checkpoint keeps them."""
        named = {**self.__dict__, "lr": schedule_json(self.lr)}
        return {k: v.item() if isinstance(v, np.generic) else v for k, v in named.items()}


@dataclass
class State(Position):
    """What an unfinished training needs to go on to the same bits, besides the model itself."""

    velocity: dict[str, Float32Array] = field(default_factory=dict)
    hidden_offset: Float32Array | None = None

    tensor_names: ClassVar[tuple[str, ...]] = (*(f"velocity.{name}" for name in PARAMETERS), "offset_hidden")

    def tensors(self) -> dict[str, Float32Array]:
        """The part that goes into a file as arrays."""
        named = {f"velocity.{name}": v for name, v in self.velocity.items()}
        return named if self.hidden_offset is None else named | {"offset_hidden": self.hidden_offset}

    def place(self, move: Callable[[Any], Any]) -> None:
        """Replace each array by what `move` makes of it."""
        self.velocity = {name: move(v) for name, v in self.velocity.items()}
        self.hidden_offset = None if self.hidden_offset is None else move(self.hidden_offset)

    @classmethod
    def from_file(cls, state: dict[str, Any], tensors: dict[str, NDArray[Any]]) -> "State":
        """Undo `tensors` and `to_json`."""
        velocity = {n.removeprefix("velocity."): t for n, t in tensors.items() if n.startswith("velocity.")}
        history = History(state["history"])
        return cls(
            **(state | {"history": history}), velocity=velocity, hidden_offset=tensors.get("offset_hidden")
        )


class Training(Loop):
    """One call of `RBM.fit`, which documents the arguments. Changes the model in place."""

    shown = SHOWN

    def __init__(
        self,
        model: "RBM",
        data: NDArray[Any],
        held_out: NDArray[Any] | None,
        options: Options,
        *,
        callbacks: Sequence[Callback],
        checkpoint: str | Path | None,
        checkpoint_every: int | None,
        resume: bool,
    ) -> None:
        super().__init__(
            "RBM.fit", len(data), None if held_out is None else len(held_out), epochs=options.epochs,
            batch_size=options.batch_size, lr=options.lr, seed=model.seed, callbacks=callbacks, checkpoint=checkpoint,
            checkpoint_every=checkpoint_every, resume=resume,
        )  # fmt: skip
        self._model, self.held_out, self.options = model, held_out, options
        self.host_data, self.data = data, model._place(data)
        self.recorded = {**options.to_json(), "X": checksum(data)}
        self.buffers: dict[int, kernels.CdGradient] = {}
        if resume and self.checkpoints.path is not None and self.checkpoints.path.exists():
            self._resume(self.checkpoints.path)
        else:
            self._begin()

    @property
    def model(self) -> "RBM":
        """The machine that learns."""
        return self._model

    @property
    def position(self) -> State:
        """What the model keeps of this training."""
        return self._model._training

    def steps(self) -> int:
        """Updates that the machine has seen."""
        return self._model.steps

    def parameters(self) -> Iterable[tuple[str, Float32Array]]:
        """Weights and biases."""
        return zip(PARAMETERS, self._model.parameters, strict=True)

    def save(self, path: Path) -> None:
        """Write the model, which holds the training's state."""
        self._model.save(path)

    def _begin(self) -> None:
        """From the model's parameters as they are; a model without any history starts at the data's rates."""
        model, options = self.model, self.options
        mean = self.host_data.mean(axis=0, dtype=np.float64)
        rates = mean.astype(np.float32)
        model.data_mean = model._place(rates)
        if model.steps == 0 and not np.any(model.visible_bias):
            # As if one row more of 0 and one of 1 had been seen: units that never change get a finite bias.
            smoothed = (mean * len(self.data) + 1) / (len(self.data) + 2)
            model.visible_bias = np.log(smoothed / (1 - smoothed))
        if options.algorithm == "pcd" and (model.chains is None or len(model.chains) != options.n_chains):
            model.chains = sample.bernoulli(
                model._place(np.tile(rates, (options.n_chains, 1))), model.generator.key()
            )
        named = zip(PARAMETERS, model.parameters, strict=True)
        model._training = State(
            options=self.recorded,
            velocity={name: np.zeros_like(p) for name, p in named} if options.momentum else {},
            hidden_offset=model._place(np.full(model.n_hidden, 0.5, np.float32))
            if options.centered
            else None,
        )

    def _resume(self, path: Path) -> None:
        model = self.model
        stored = type(model).load(path, device=model.device)
        if (stored.n_visible, stored.n_hidden, stored.seed) != (model.n_visible, model.n_hidden, model.seed):
            raise ValueError(f"RBM.fit: expected {path} to hold a state of {model!r}, received {stored!r}")
        self.check_same(path, stored._training.options, self.recorded)
        vars(model).update(vars(stored))

    def update(self, rows: NDArray[np.int64], lr: float) -> None:
        """One step of (persistent) contrastive divergence."""
        model, options, state, batch = (
            self.model,
            self.options,
            self.position,
            self.data[self.model._place(rows)],
        )
        persistent = options.algorithm == "pcd"
        try:
            gradient = kernels.cd_gradient(
                *model.parameters, batch, key=model.chain_key, k=options.k, first_step=model.chain_step,
                chains=model.chains if persistent else None,
                offset_v=model.data_mean if options.centered else None, offset_h=state.hidden_offset,
                out=self.buffers.get(len(batch)),
            )  # fmt: skip
        except ValueError:
            self.check_finite()
            raise
        self.buffers[len(batch)] = gradient
        if persistent:
            model.chains = gradient.chains
        if state.hidden_offset is not None:
            state.hidden_offset += OFFSET_RATE * (gradient.mean_h - state.hidden_offset)
        for name, parameter in zip(PARAMETERS, model.parameters, strict=True):
            optim.sgd(
                parameter, getattr(gradient, name), lr=lr, momentum=options.momentum,
                weight_decay=options.weight_decay if name == "weight" else 0.0, velocity=state.velocity.get(name),
            )  # fmt: skip
        model.steps += 1
        model.chain_step += options.k

    def measure(self) -> dict[str, float]:
        """Pseudo-log-likelihoods and the reconstruction error."""
        model, record = self.model, {}
        rows = model._place(self._monitored(self.host_data))
        if rows.dtype == np.uint8:
            record["pseudo_log_likelihood"] = float(model.pseudo_log_likelihood(rows).mean())
        if self.held_out is not None:
            held_out = model.pseudo_log_likelihood(self._monitored(self.held_out))
            record["validation_pseudo_log_likelihood"] = float(held_out.mean())
        record["reconstruction_error"] = float(np.mean(np.square(rows - model.reconstruct(rows))))
        return record

    def _monitored(self, data: NDArray[Any]) -> NDArray[Any]:
        """The same rows each time, spread over the data: as many as an exact pseudo-likelihood can afford an epoch."""
        affordable = MONITORED_TERMS // (self.model.n_visible * self.model.n_hidden)
        count = min(len(data), max(100, affordable))
        return np.ascontiguousarray(data[:: len(data) // count][:count])
