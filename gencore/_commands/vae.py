"""`gencore train vae`, and what `gencore sample` and `gencore evaluate` do with a variational autoencoder."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gencore import train as schedules
from gencore._commands import training
from gencore._commands.data import Data, read_data
from gencore._commands.shared import (
    Sheet,
    independent_log_likelihood,
    judged_rows,
    mean_and_error,
    print_json,
    rows_of,
    say,
    say_judged,
)
from gencore._states import as_rows, as_states
from gencore.autograd import no_grad
from gencore.models import VAE
from gencore.models._neural import chunks
from gencore.random import Generator
from gencore.train.history import Progress

Rows = NDArray[Any]
Record = Mapping[str, float]

_DRAWS = 100  # of the posterior, a row, for the bound of one draw: the mean over them


# --- train --------------------------------------------------------------------------------------------------


def train(args: argparse.Namespace) -> int:
    """`gencore train vae`."""
    return training.run(
        args,
        lambda name, rows: _take(args.likelihood, "train", name, rows, rows.shape[1]),
        lambda data, rows: _plan(args, data, rows),
    )


def _take(likelihood: str, op: str, name: str, rows: Rows, units: int) -> Rows:
    """Rows as such a model takes them."""
    if likelihood == "gaussian":
        return as_rows(op, name, rows, units)
    return as_states(op, name, rows, units, values="unit interval")


def _plan(args: argparse.Namespace, data: Data, rows: Rows) -> training.Plan:
    _check_applicable(args)
    model = VAE(
        rows.shape[1], args.latent if len(args.latent) > 1 else args.latent[0],
        hidden=args.hidden[0] if len(args.hidden) == 1 else args.hidden, activation=args.activation,
        likelihood=args.likelihood, latent=args.latent_kind, n_classes=args.classes or 10,
        decoder_hidden=args.decoder_hidden, seed=args.seed,
    )  # fmt: skip
    held_out = training.held_out(
        args, data, lambda op, name, r, units: _take(args.likelihood, op, name, r, units), model.n_visible
    )
    options = {
        "n_importance": args.importance, "estimator": args.estimator, "kl_weight": _kl_weight(args),
        "free_bits": args.free_bits, "temperature": _temperature(args), "clip_norm": args.clip_norm,
        "straight_through": args.straight_through, "optimizer": args.optimizer, "patience": args.patience,
        "validation": held_out.get("valid"),
    }  # fmt: skip
    return training.Plan(
        model,
        size=_size(model),
        learning=_learning(args),
        options=options,
        figures=lambda record: _figures(record, args.importance),
        result=lambda last: _result(model, held_out, last, args),
        again="" if args.threshold is None else f" --threshold {args.threshold:g}",
    )


def _check_applicable(args: argparse.Namespace) -> None:
    """Name an option that this model or estimator has no use for."""
    if args.classes is not None and args.latent_kind != "categorical":
        raise ValueError(f"--classes: expected none with --latent-kind {args.latent_kind}")
    concrete = args.latent_kind != "gaussian" and args.estimator in ("auto", "concrete")
    for option in ("temperature", "temperature_end", "straight_through"):
        if not concrete and getattr(args, option):
            name = "--" + option.replace("_", "-")
            raise ValueError(f"{name}: expected discrete latent units and the estimator concrete with it")


def _kl_weight(args: argparse.Namespace) -> float | schedules.Schedule:
    if args.kl_annealing is None:
        return float(args.kl_weight)
    if args.kl_annealing == 1:
        return schedules.linear(0.0, args.kl_weight)
    return schedules.warmup(args.kl_weight, args.kl_annealing)


def _temperature(args: argparse.Namespace) -> float | schedules.Schedule:
    start = args.temperature or 1.0
    return start if args.temperature_end is None else schedules.exponential(start, args.temperature_end)


def _size(model: VAE) -> str:
    config = model.config
    sizes = " and ".join(f"{z.n:,}" for z in model.latents)
    kind = {"gaussian": "Gaussian", "bernoulli": "binary"}.get(config["latent"], config["latent"])
    classes = f" of {config['n_classes']} classes" if config["latent"] == "categorical" else ""
    units = f"{model.n_visible} visible and {sizes} {kind} latent units{classes}"
    return f"VAE, {units}, {model.n_parameters():,} parameters"


def _learning(args: argparse.Namespace) -> str:
    by = "" if args.estimator == "auto" else f" by {args.estimator}"
    return f"{_name(args.importance)}{by}, {args.optimizer}"


def _name(importance: int) -> str:
    return f"bound of {importance} draws" if importance > 1 else "ELBO"


def _figures(record: Record, importance: int) -> str:
    valid = [f"valid {record['validation_elbo']:.3f}"] if "validation_elbo" in record else []
    kl = [f"KL {record['kl']:.3f}"] if "kl" in record else []
    return ", ".join([f"{_name(importance)} train {record['elbo']:.3f}", *valid, *kl])


def _result(model: VAE, held_out: Mapping[str, Rows], last: Record, args: argparse.Namespace) -> str:
    """Bounds of held-out data by the model as it is now, those of the test data last."""
    if not held_out:
        return _figures(last, args.importance)
    if args.importance > 1:
        key = args.seed
        means = {
            name: model.log_likelihood(r, args.importance, key=key).mean() for name, r in held_out.items()
        }
        return f"{_name(args.importance)} {', '.join(f'{name} {mean:.3f}' for name, mean in means.items())}"
    bounds = {name: bound(model, rows, 1, args.seed) for name, rows in held_out.items()}
    texts = [f"{name} {b.value.mean():.3f}" for name, b in bounds.items()]
    b = list(bounds.values())[-1]
    parts = f"reconstruction {b.reconstruction.mean():.3f} - KL {b.kl.mean():.3f}"
    return f"ELBO {', '.join(texts)} = {parts}"


@dataclass(frozen=True)
class Bound:
    """Evidence lower bound of each row, nats: float64 arrays (n,)."""

    value: NDArray[np.float64]
    reconstruction: NDArray[np.float64]
    kl: NDArray[np.float64]


def bound(model: VAE, rows: Rows, draws: int, seed: int) -> Bound:
    """`VAE.elbo` of any number of rows, some thousand decoded at a time."""
    keys, parts = Generator(seed), []
    with no_grad():
        for batch in chunks(len(rows), max(4000 // draws, 1)):
            found = model.elbo(rows[batch], n_samples=draws, key=keys.key())
            parts.append([np.asarray(x) for x in (found.value, found.reconstruction, found.kl)])
    return Bound(*(np.concatenate(columns).astype(np.float64) for columns in zip(*parts, strict=True)))


# --- sample -------------------------------------------------------------------------------------------------


def sample(args: argparse.Namespace) -> int:
    """`gencore sample` of a file that holds a VAE."""
    model = VAE.load(args.model)
    sheet = Sheet(args, model.n_visible)
    if args.interpolate is None and args.data is not None:
        raise ValueError("--data: expected --interpolate with it")
    if args.manifold is not None:
        return _manifold(args, model, sheet)
    if args.dimensions is not None:
        raise ValueError("--dimensions: expected --manifold with it")
    if args.interpolate is not None:
        return _interpolation(args, model, sheet)
    n = args.n or 64
    sheet.write(model.sample(n, key=args.seed, means=args.means is not False))
    print(f"{n} samples{' (means)' if args.means is not False else ''}: {sheet.path}")
    return 0


def _manifold(args: argparse.Namespace, model: VAE, sheet: Sheet) -> int:
    top = model.latents[-1]
    if args.n is not None or args.means is not None:
        raise ValueError(f"{'-n' if args.n else '--means'}: expected it without --manifold")
    if top.kind != "gaussian":
        raise ValueError(f"--manifold: expected Gaussian latent units, {args.model} has {top.kind} ones")
    dimensions = args.dimensions or (0, 1)
    if args.dimensions and (max(dimensions) >= top.width or dimensions[0] == dimensions[1]):
        raise ValueError(
            f"--dimensions: expected two of 0 to {top.width - 1}, received {','.join(map(str, dimensions))}"
        )
    sheet.write(model.manifold(args.manifold, dimensions=dimensions), columns=args.manifold, framed=False)
    units = "the latent unit" if top.width == 1 else f"latent units {dimensions[0]} and {dimensions[1]}"
    print(f"{args.manifold} x {args.manifold} points of {units}: {sheet.path}")
    return 0


def _interpolation(args: argparse.Namespace, model: VAE, sheet: Sheet) -> int:
    if args.data is None:
        raise ValueError("--interpolate: expected --data, whose test rows these numbers are of")
    if args.means is not None:
        raise ValueError("--means: expected it without --interpolate")
    data = read_data(args.data, args.root, args.threshold)
    given = rows_of(data, "test", args.model, model.n_visible)
    if beyond := [i for pair in args.interpolate for i in pair if i >= len(given)]:
        raise ValueError(
            f"--interpolate: expected rows 0 to {len(given) - 1} of {data.name} (test), received {beyond[0]}"
        )
    ends = given[np.array(args.interpolate).reshape(-1)]
    ends = _take(model.likelihood.kind, "sample", f"{data.name} (test)", ends, model.n_visible)
    n = args.n or 10
    lines = [model.interpolate(start, end, n) for start, end in zip(ends[::2], ends[1::2], strict=True)]
    sheet.write(np.concatenate(lines), columns=n)
    print(f"{len(lines)} x {n} points between test rows of {data.name}: {sheet.path}")
    return 0


# --- evaluate -----------------------------------------------------------------------------------------------


def evaluate(args: argparse.Namespace) -> int:
    """`gencore evaluate` of a file that holds a VAE."""
    model = VAE.load(args.model)
    kind, draws = model.likelihood.kind, min(args.samples, _DRAWS)
    data, rows, _ = judged_rows(
        args, args.threshold, model.n_visible, lambda op, name, r, units: _take(kind, op, name, r, units)
    )
    say_judged(args, _size(model), data, rows)
    elbo = bound(model, rows, draws, args.seed)
    value, error = mean_and_error(elbo.value)
    weighted, weighted_error = mean_and_error(_log_likelihood(model, rows, args))
    active = [int(units.sum()) for units in model.active_units(rows)]
    rates = None
    if kind == "bernoulli" and "train" in data.splits:
        rates = data.splits["train"].mean(axis=0, dtype=np.float64)
    result = {
        "model": str(args.model),
        "data": data.name,
        "split": args.split,
        "rows": len(rows),
        "elbo": value,
        "elbo_standard_error": error,
        "reconstruction": float(elbo.reconstruction.mean()),
        "kl": float(elbo.kl.mean()),
        "elbo_samples": draws,
        "log_likelihood_bound": weighted,
        "log_likelihood_bound_standard_error": weighted_error,
        "samples": args.samples,
        "active_units": active,
        "latent_units": [z.width for z in model.latents],
        "independent_units": independent_log_likelihood(rates, rows),
    }
    if args.json:
        print_json(result)
    else:
        _print_evaluation(result)
    return 0


def _log_likelihood(model: VAE, rows: Rows, args: argparse.Namespace) -> NDArray[np.float64]:
    """`VAE.log_likelihood`, with a bar: many draws of many rows take minutes."""
    keys, parts = Generator(args.seed), []
    steps = chunks(len(rows), 100)
    with Progress("evaluate", total=len(steps), done=0, enabled=not args.json) as bar:
        for batch in steps:
            parts.append(model.log_likelihood(rows[batch], args.samples, key=keys.key()))
            bar.step()
    return np.concatenate(parts)


def _print_evaluation(result: Mapping[str, Any]) -> None:
    counts = zip(result["active_units"], result["latent_units"], strict=True)
    say("active units", ", ".join(f"{active} of {units}" for active, units in counts))
    print("\nnats a row, higher is better")
    say(
        "log-likelihood",
        f"{result['log_likelihood_bound']:.4f} +- {result['log_likelihood_bound_standard_error']:.4f} "
        "(spread of the rows)",
    )
    say("", f"a lower bound: importance-weighted, {result['samples']:,} draws a row")
    say("ELBO", f"{result['elbo']:.4f} +- {result['elbo_standard_error']:.4f}")
    say(
        "",
        f"reconstruction {result['reconstruction']:.4f} - KL {result['kl']:.4f}, {result['elbo_samples']} draws a row",
    )
    if result["independent_units"] is not None:
        say(
            "independent",
            f"{result['independent_units']:.4f} (units of the training data's means, nothing learned)",
        )
