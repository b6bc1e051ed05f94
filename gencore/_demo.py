"""`gencore demo`: digits learned in seconds, what the result is worth, how fast it came, and pictures of it."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from gencore import _core, _info, datasets, plot, train
from gencore._bench.machine import Limits
from gencore._commands.shared import independent_log_likelihood
from gencore.evaluate import LogPartition
from gencore.kernels import rbm as kernels
from gencore.models import RBM

N_HIDDEN, BATCH, CHAINS, LR, WEIGHT_DECAY = 128, 32, 500, 0.5, 1e-3
TEMPERATURES = 14_500


def run(folder: Path, *, epochs: int, seed: int) -> None:
    """Train, evaluate, measure and draw; prints as it goes and writes four files to `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    data = datasets.load("digits")
    model = RBM(data.train.shape[1], N_HIDDEN, seed=seed)
    _print_setting(data, model, epochs, seed)
    start = time.perf_counter()
    history = model.fit(
        data.train, epochs=epochs, lr=train.linear(LR, hold=0.3), batch_size=BATCH, n_chains=CHAINS,
        weight_decay=WEIGHT_DECAY, validation=data.valid, callbacks=() if _terminal() else (_Lines(epochs),),
    )  # fmt: skip
    print(f"  {model.steps:,} updates in {time.perf_counter() - start:.1f} s\n")
    _print_worth(model, data)
    _print_speed(model)
    _write(folder, model, data, history)
    _print_next(folder)


def _terminal() -> bool:
    return sys.stderr.isatty()


class _Lines:
    """What stands for the progress bar where the output is no terminal: five lines."""

    def __init__(self, epochs: int) -> None:
        self.due = {round(epochs * part / 5) for part in range(1, 6)}

    def __call__(self, model: RBM, record: Mapping[str, float]) -> None:
        if record["epoch"] in self.due:
            pseudo = record["validation_pseudo_log_likelihood"]
            print(f"  epoch {record['epoch']:4}: pseudo-log-likelihood {pseudo:.2f} (validation)", flush=True)


def _print_setting(data: datasets.Dataset, model: RBM, epochs: int, seed: int) -> None:
    sizes = f"{len(data.train):,} / {len(data.valid)} / {len(data.test)}"
    parameters = sum(p.size for p in model.parameters)
    print(
        f"""A restricted Boltzmann machine learns handwritten digits.

  data      digits (UCI, bundled): {sizes} images of 8 x 8, binarised
  model     {model.n_visible} visible and {model.n_hidden} hidden units, {parameters:,} parameters
  learning  PCD-1, centred; {epochs} epochs, batches of {BATCH}, {CHAINS} chains, seed {seed}
  machine   {_info.config()["processor"]}
            {_core.isa()} kernels, {_core.num_threads()} threads
""",
        flush=True,
    )


def _print_worth(model: RBM, data: datasets.Dataset) -> None:
    start = time.perf_counter()
    log_z = model.log_partition("ais", betas=TEMPERATURES)
    seconds = time.perf_counter() - start
    test, learned = (float(model.log_likelihood(rows).mean()) for rows in (data.test, data.train))
    independent = independent_log_likelihood(model.data_mean, data.test)
    print(
        f"""How good is it? Mean log-likelihood, nats an image, higher is better:

  {independent:9.2f}  independent pixels: the training images' rates, nothing learned
  {test:9.2f}  this model, on test images
             bracket {_bracket(test, log_z)}
  {learned:9.2f}  this model, on its training images

  log Z by annealed importance sampling: {len(log_z.log_weights)} runs forward, {len(log_z.reverse_log_weights)} back,
  {TEMPERATURES:,} temperatures, {log_z.ess:.0f} effective runs, {seconds:.1f} s
""",
        flush=True,
    )


def _bracket(likelihood: float, log_z: LogPartition) -> str:
    """Ends of the mean likelihood: log Z at the other end."""
    return f"{likelihood + log_z.value - log_z.upper:.2f} to {likelihood + log_z.value - log_z.lower:.2f}"


def _print_speed(model: RBM) -> None:
    threads = _core.num_threads()
    limits = Limits(threads)
    limits.measure()
    seconds = _gibbs_step_seconds(model)
    units = CHAINS * (model.n_visible + model.n_hidden)
    flops = (
        4 * CHAINS * model.n_visible * model.n_hidden
    )  # two products, a multiplication and an addition a weight
    print(
        f"""How fast is it? Gibbs sampling, {CHAINS} chains, best of a second:

  {1 / seconds:9,.0f}  Gibbs steps a second (v to h to v, all chains)
  {units / seconds / 1e9:9.2f}  billion units drawn a second
  {100 * flops / seconds / limits.flops:8.0f}%  of the machine's limit for the same step by dense products: these
             are {flops / 1e6:.1f} MFLOP, in this time {flops / seconds / 1e9:.0f} GFLOP/s; {threads} threads reach
             {limits.flops / 1e9:.0f} in float32 multiply-adds, measured just now. (The kernel
             skips units that are off, so that more than 100% is possible.)
""",
        flush=True,
    )


def _gibbs_step_seconds(model: RBM, budget: float = 1.0) -> float:
    """Least time of a step, over calls so short that another process seldom comes between."""
    v, steps = model.sample(CHAINS, steps=1), 10
    best, end = np.inf, time.perf_counter() + budget
    while (start := time.perf_counter()) < end:
        kernels.gibbs_chain(*model.parameters, v, steps=steps, key=1, out=v)
        best = min(best, (time.perf_counter() - start) / steps)
    return float(best)


def _write(folder: Path, model: RBM, data: datasets.Dataset, history: train.History) -> None:
    pixels = model.reconstruct(model.sample(80, steps=1000))
    plot.samples(
        np.concatenate([data.test[:20], pixels]),
        folder / "samples.png",
        shape=data.image_shape,
        columns=10,
        title="Upper two rows: test images. Below: samples of the model, as probabilities",
    )
    plot.filters(model.weight, folder / "filters.png", shape=data.image_shape)
    plot.curves(history, folder / "curves.png")
    model.save(folder / "model.safetensors")


def _print_next(folder: Path) -> None:
    print(
        f"""Written to {folder}:

  samples.png        two rows of test images, eight of samples
  filters.png        the weights of each hidden unit
  curves.png         how the training went
  model.safetensors  the model

Go on in Python:

  import gencore as gc
  model = gc.models.RBM.load("{folder / "model.safetensors"}")
  gc.plot.samples(model.sample(100), "more.png")

or here:

  gencore sample {folder / "model.safetensors"} -n 100 --out more.png
  gencore train rbm --data binarized_mnist --out mnist.safetensors
  gencore bench --quick"""
    )
