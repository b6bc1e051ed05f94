"""Learning of a restricted Boltzmann machine: the loop of `RBM.fit`, and what a checkpoint keeps of it."""

import time
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from gencore.kernels import optim, sample
from gencore.kernels import rbm as kernels
from gencore.train import (
    Callback,
    Checkpoints,
    DivergenceError,
    History,
    Progress,
    Schedule,
    as_schedule,
    batches,
)

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
            if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
                raise ValueError(
                    f"RBM.fit: expected {name} to be an integer of at least 1, received {value!r}"
                )
        if self.algorithm not in ("pcd", "cd"):
            raise ValueError(f"RBM.fit: expected algorithm to be 'pcd' or 'cd', received {self.algorithm!r}")
        if not 0 <= self.momentum < 1:
            raise ValueError(f"RBM.fit: expected momentum from 0 to below 1, received {self.momentum}")
        if not (np.isfinite(self.weight_decay) and self.weight_decay >= 0):
            raise ValueError(f"RBM.fit: expected weight_decay to be at least 0, received {self.weight_decay}")
        if not callable(self.lr) and not (np.isfinite(self.lr) and self.lr > 0):
            raise ValueError(f"RBM.fit: expected lr to be above 0, received {self.lr}")

    def to_json(self) -> dict[str, Any]:
        """As a checkpoint keeps them. A schedule is a function: what it gives at three points stands for it."""
        lr = [float(self.lr(x)) for x in (0.0, 0.5, 1.0)] if callable(self.lr) else self.lr
        named = {**self.__dict__, "lr": lr}
        return {k: v.item() if isinstance(v, np.generic) else v for k, v in named.items()}


@dataclass
class State:
    """What an unfinished training needs to go on to the same bits, besides the model itself."""

    epoch: int = 0
    batch: int = 0  # the next one of the epoch
    seconds: float = 0.0
    options: dict[str, Any] = field(default_factory=dict)  # as recorded: a resumed call must have the same
    history: History = field(default_factory=History)
    velocity: dict[str, Float32Array] = field(default_factory=dict)
    hidden_offset: Float32Array | None = None

    tensor_names: ClassVar[tuple[str, ...]] = (*(f"velocity.{name}" for name in PARAMETERS), "offset_hidden")

    def tensors(self) -> dict[str, Float32Array]:
        """The part that goes into a file as arrays."""
        named = {f"velocity.{name}": v for name, v in self.velocity.items()}
        return named if self.hidden_offset is None else named | {"offset_hidden": self.hidden_offset}

    def to_json(self) -> dict[str, Any]:
        """The rest."""
        scalars = {name: getattr(self, name) for name in ("epoch", "batch", "seconds", "options")}
        return scalars | {"history": self.history.records}

    @classmethod
    def from_file(cls, state: dict[str, Any], tensors: dict[str, NDArray[Any]]) -> "State":
        """Undo `tensors` and `to_json`."""
        velocity = {n.removeprefix("velocity."): t for n, t in tensors.items() if n.startswith("velocity.")}
        history = History(state["history"])
        return cls(
            **(state | {"history": history}), velocity=velocity, hidden_offset=tensors.get("offset_hidden")
        )


class Training:
    """One call of `RBM.fit`, which documents the arguments. Changes the model in place."""

    def __init__(
        self,
        model: "RBM",
        data: NDArray[Any],
        held_out: NDArray[Any] | None,
        options: Options,
        *,
        checkpoint: str | Path | None,
        checkpoint_every: int | None,
        resume: bool,
    ) -> None:
        if len(data) == 0:
            raise ValueError("RBM.fit: expected X to have at least 1 row, received 0")
        if resume and checkpoint is None:
            raise ValueError("RBM.fit: expected checkpoint to name the file to resume from, received None")
        self.model, self.data, self.held_out, self.options = model, data, held_out, options
        self.recorded = {
            **options.to_json(),
            "X": f"{len(data)} rows of checksum {zlib.crc32(data.data):08x}",
        }
        self.steps_per_epoch = -(-len(data) // options.batch_size)
        self.checkpoints = Checkpoints(checkpoint, checkpoint_every, self.steps_per_epoch)
        self.schedule = as_schedule(options.lr)
        self.buffers: dict[int, kernels.CdGradient] = {}
        if resume and self.checkpoints.path is not None and self.checkpoints.path.exists():
            self._resume(self.checkpoints.path)
        else:
            self._begin()

    def run(self, callbacks: Sequence[Callback], progress: bool) -> History:
        """Train to the end, or until a callback says so."""
        state, total = self.state, self.options.epochs * self.steps_per_epoch
        start = time.perf_counter() - state.seconds
        with Progress("RBM", total=total, done=self._done(), enabled=progress) as bar:
            while state.epoch < self.options.epochs:
                order = batches(
                    len(self.data),
                    self.options.batch_size,
                    seed=self.model.seed,
                    epoch=self.model.steps - state.batch,
                )
                while state.batch < self.steps_per_epoch:
                    lr = self.schedule(self._done() / total)
                    self._update(self.data[order[state.batch]], lr)
                    state.batch += 1
                    state.seconds = time.perf_counter() - start
                    bar.step()
                    if state.batch < self.steps_per_epoch:
                        self._save_if_due()
                state.epoch, state.batch = state.epoch + 1, 0
                record = self._record(lr)
                self._save_if_due()
                bar.show(record, SHOWN)
                if any([callback(self.model, record) for callback in callbacks]):  # noqa: C419 (call every one)
                    break
        if self.checkpoints.path is not None and not self.checkpoints.due(self._done()):
            self.model.save(self.checkpoints.path)
        return state.history

    @property
    def state(self) -> State:
        """What the model keeps of this training."""
        return self.model._training

    def _done(self) -> int:
        return self.state.epoch * self.steps_per_epoch + self.state.batch

    def _begin(self) -> None:
        """From the model's parameters as they are; a model without any history starts at the data's rates."""
        model, options = self.model, self.options
        mean = self.data.mean(axis=0, dtype=np.float64)
        model.data_mean = mean.astype(np.float32)
        if model.steps == 0 and not model.visible_bias.any():
            # As if one row more of 0 and one of 1 had been seen: units that never change get a finite bias.
            smoothed = (mean * len(self.data) + 1) / (len(self.data) + 2)
            model.visible_bias = np.log(smoothed / (1 - smoothed))
        if options.algorithm == "pcd" and (model.chains is None or len(model.chains) != options.n_chains):
            model.chains = sample.bernoulli(
                np.tile(model.data_mean, (options.n_chains, 1)), model.generator.key()
            )
        named = zip(PARAMETERS, model.parameters, strict=True)
        model._training = State(
            options=self.recorded,
            velocity={name: np.zeros_like(p) for name, p in named} if options.momentum else {},
            hidden_offset=np.full(model.n_hidden, 0.5, np.float32) if options.centered else None,
        )

    def _resume(self, path: Path) -> None:
        model = self.model
        stored = type(model).load(path)
        if (stored.n_visible, stored.n_hidden, stored.seed) != (model.n_visible, model.n_hidden, model.seed):
            raise ValueError(f"RBM.fit: expected {path} to hold a state of {model!r}, received {stored!r}")
        before, now = stored._training.options, self.recorded
        if not before:
            raise ValueError(
                f"RBM.fit: expected {path} to be a checkpoint of a training, received a model never trained"
            )
        changed = [f"{n} was {before[n]!r}, is {now.get(n)!r}" for n in before if before[n] != now.get(n)]
        if changed:
            raise ValueError(
                f"RBM.fit: expected the arguments of the training in {path}, received others: {'; '.join(changed)}"
            )
        vars(model).update(vars(stored))

    def _update(self, batch: NDArray[Any], lr: float) -> None:
        model, options, state = self.model, self.options, self.state
        persistent = options.algorithm == "pcd"
        try:
            gradient = kernels.cd_gradient(
                *model.parameters, batch, key=model.chain_key, k=options.k, first_step=model.chain_step,
                chains=model.chains if persistent else None,
                offset_v=model.data_mean if options.centered else None, offset_h=state.hidden_offset,
                out=self.buffers.get(len(batch)),
            )  # fmt: skip
        except ValueError:
            self._check_finite()
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

    def _check_finite(self) -> None:
        for name, parameter in zip(PARAMETERS, self.model.parameters, strict=True):
            wrong = parameter[~np.isfinite(parameter)]
            if len(wrong):
                raise self._divergence(name, wrong[0])

    def _divergence(self, name: str, value: float) -> DivergenceError:
        epoch = -(-self._done() // self.steps_per_epoch)
        return DivergenceError(
            f"RBM.fit: {name} became {value} at update {self.model.steps} (epoch {epoch}): "
            f"use a smaller learning rate; {self.checkpoints.advice()}"
        )

    def _save_if_due(self) -> None:
        if self.checkpoints.path is not None and self.checkpoints.due(self._done()):
            self._check_finite()
            self.model.save(self.checkpoints.path)

    def _record(self, lr: float) -> dict[str, float]:
        """Take down what an epoch has brought; draws nothing, so that watching changes nothing."""
        model, state = self.model, self.state
        self._check_finite()
        record = {
            "epoch": state.epoch,
            "step": model.steps,
            "seconds": round(state.seconds, 3),
            "lr": float(lr),
        }
        rows = self._monitored(self.data)
        if rows.dtype == np.uint8:
            record["pseudo_log_likelihood"] = float(model.pseudo_log_likelihood(rows).mean())
        if self.held_out is not None:
            held_out = model.pseudo_log_likelihood(self._monitored(self.held_out))
            record["validation_pseudo_log_likelihood"] = float(held_out.mean())
        record["reconstruction_error"] = float(np.mean(np.square(rows - model.reconstruct(rows))))
        for name, value in record.items():
            if not np.isfinite(value):  # finite parameters, too large to compute with
                raise self._divergence(name, value)
        state.history.records.append(record)
        return record

    def _monitored(self, data: NDArray[Any]) -> NDArray[Any]:
        """The same rows each time, spread over the data: as many as an exact pseudo-likelihood can afford an epoch."""
        affordable = MONITORED_TERMS // (self.model.n_visible * self.model.n_hidden)
        count = min(len(data), max(100, affordable))
        return np.ascontiguousarray(data[:: len(data) // count][:count])
