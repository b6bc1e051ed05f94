"""`gencore train rbm`, and what `gencore sample` and `gencore evaluate` do with a restricted Boltzmann machine."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gencore._commands import training
from gencore._commands.data import Data
from gencore._commands.shared import (
    Sheet,
    clamp_rows,
    independent_log_likelihood,
    judged_rows,
    mean_and_error,
    print_json,
    say,
    say_judged,
    start_rows,
)
from gencore._states import as_states
from gencore.evaluate import LogPartition
from gencore.models import RBM

Record = Mapping[str, float]


def train(args: argparse.Namespace) -> int:
    """`gencore train rbm`."""
    return training.run(args, _take, lambda data, rows: _plan(args, data, rows))


def _take(name: str, rows: NDArray[Any]) -> NDArray[Any]:
    return as_states("train", name, rows, rows.shape[1], values="unit interval")


def _plan(args: argparse.Namespace, data: Data, rows: NDArray[Any]) -> training.Plan:
    model = RBM(rows.shape[1], args.hidden, seed=args.seed)
    options = {
        "algorithm": args.algorithm, "k": args.k, "centered": args.centered, "momentum": args.momentum,
        "weight_decay": args.weight_decay, "n_chains": args.chains,
        "validation": _validation(data, rows.shape[1]),
    }  # fmt: skip
    return training.Plan(
        model,
        size=f"RBM, {model.n_visible} visible and {model.n_hidden} hidden units",
        learning=f"{args.algorithm.upper()}-{args.k}",
        options=options,
        figures=_figures,
        result=_figures,
    )


def _validation(data: Data, units: int) -> NDArray[Any] | None:
    """Rows to watch, where they are binary, as a likelihood needs them."""
    if "valid" not in data.splits:
        return None
    valid = as_states("train", f"{data.name} (valid)", data.splits["valid"], units, values="unit interval")
    return valid if valid.dtype == np.uint8 else None


def _figures(record: Record) -> str:
    names = {"pseudo_log_likelihood": "train", "validation_pseudo_log_likelihood": "valid"}
    texts = [f"{text} {record[name]:.6g}" for name, text in names.items() if name in record]
    if not texts:
        return f"reconstruction error {record['reconstruction_error']:.5f}"
    return f"pseudo-log-likelihood {', '.join(texts)}"


# --- sample -------------------------------------------------------------------------------------------------


def sample(args: argparse.Namespace) -> int:
    """`gencore sample` of a file that holds an RBM."""
    model = RBM.load(args.model)
    sheet, n = Sheet(args, model.n_visible), args.n or 64
    start = clamp = None
    if args.start is not None:
        start = start_rows(args, _cut(args), n, model.n_visible, as_states)
    if args.clamp is not None:
        clamp = clamp_rows(args, n, model.n_visible)
    drawn = model.sample(n, steps=args.steps, start=start, clamp=clamp, key=args.seed)
    result: NDArray[Any] = drawn
    if args.means:
        result = model.reconstruct(drawn)
        if clamp is not None:
            result = np.where(clamp == 1, drawn, result).astype(np.float32)
    sheet.write(result)
    print(f"{n} samples after {args.steps} Gibbs steps: {sheet.path}")
    return 0


def _cut(args: argparse.Namespace) -> float:
    """Threshold of grey levels: states are 0 and 1."""
    return 0.5 if args.threshold is None else float(args.threshold)


# --- evaluate -----------------------------------------------------------------------------------------------


def evaluate(args: argparse.Namespace) -> int:
    """`gencore evaluate` of a file that holds an RBM."""
    model = RBM.load(args.model)
    data, rows, _ = judged_rows(args, _cut(args), model.n_visible, as_states)
    say_judged(args, repr(model), data, rows)
    options = {"n_runs": args.runs, "betas": args.temperatures, "key": args.seed}
    log_z = model.log_partition(args.method, **options)
    each = model.log_likelihood(rows)
    mean, error = mean_and_error(each)
    result = {
        "model": str(args.model),
        "data": data.name,
        "split": args.split,
        "rows": len(rows),
        "log_likelihood": mean,
        "log_likelihood_lower": mean + log_z.value - log_z.upper,
        "log_likelihood_upper": mean + log_z.value - log_z.lower,
        "row_standard_error": error,
        "log_partition": log_z.value,
        "log_partition_lower": log_z.lower,
        "log_partition_upper": log_z.upper,
        "log_partition_reverse": log_z.reverse,
        "method": log_z.method,
        "runs": args.runs if log_z.method == "ais" else None,
        "temperatures": args.temperatures if log_z.method == "ais" else None,
        "ess": log_z.ess,
        "reverse_ess": log_z.reverse_ess,
        "pseudo_log_likelihood": float(model.pseudo_log_likelihood(rows).mean()),
        "independent_units": independent_log_likelihood(model.data_mean, rows),
    }
    if args.json:
        print_json(result)
    else:
        _print_evaluation(result, log_z)
    return 0


def _print_evaluation(result: Mapping[str, Any], log_z: LogPartition) -> None:
    exact = log_z.method == "exact"
    how = (
        "exact, by enumeration"
        if exact
        else f"AIS, {result['runs']} runs, {result['temperatures']:,} temperatures"
    )
    say("log Z", f"{log_z.value:.4f} ({how})")
    if not exact:
        say("", f"bracket {log_z.lower:.3f} to {log_z.upper:.3f}; reverse runs {log_z.reverse:.3f}")
        say("", f"effective runs: {log_z.ess:.1f} forward, {log_z.reverse_ess:.1f} reverse")
    print("\nnats a row, higher is better")
    say(
        "log-likelihood",
        f"{result['log_likelihood']:.4f} +- {result['row_standard_error']:.4f} (spread of the rows)",
    )
    if not exact:
        lower, upper = result["log_likelihood_lower"], result["log_likelihood_upper"]
        say("", f"bracket {lower:.3f} to {upper:.3f} (log Z)")
    say("pseudo", f"{result['pseudo_log_likelihood']:.4f} (pseudo-log-likelihood)")
    if result["independent_units"] is not None:
        say(
            "independent",
            f"{result['independent_units']:.4f} (units of the training data's means, nothing learned)",
        )
