#!/usr/bin/env python
"""A PixelCNN on a GPU beside PyTorch: `python bench/gpu_pixels.py [--out FILE] [NAME=RESULT...]`.

A step's log-probabilities and gradients, and samples; the model of `gencore bench pixelcnn`, 7 blocks of 16 features on
28 x 28 bits. Peers: PyTorch with masks that multiply the weights, channels last, call by call, captured in a CUDA graph
and compiled; for samples one pass over the images for each pixel, of which a row is timed and counted 28 times.
Otherwise as gpu_rbm.py, which times.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parent))
from gpu_rbm import Call, Later, Work, graph_of, main
from gpu_recurrent import Results, theirs_of
from peers.pixels import torch_model, torch_params

from gencore import _core
from gencore._bench.ours.pixels import stack
from gencore._bench.works.pixels import WORKS, PixelCnn
from gencore.kernels._pixels import compiled_layers

STEP, SAMPLE = (
    next(work for work in WORKS if work.name == f"pixelcnn_{name}") for name in ("step", "sample")
)


def ours_on(p: PixelCnn, device: str) -> tuple[dict[str, Any], torch.Tensor]:
    """The stack as ops take it, and the images."""
    rows, params = compiled_layers("bench", stack(p, p.params), 1)
    return {"layers": rows, "params": [torch.from_numpy(a).to(device) for a in params]}, torch.from_numpy(
        p.images
    ).to(device)


def theirs_on(p: PixelCnn, device: str, *, grad: bool) -> tuple[list[torch.Tensor], Callable[[Any], Any]]:
    params, masks = torch_params(torch, p, grad=False)
    params = [a.to(device).requires_grad_(grad) for a in params]
    return params, torch_model(torch, p, params, [m if m is None else m.to(device) for m in masks])


def step(device: str) -> Work:
    p = STEP.problem(device == "cpu")
    stack_of, images = ours_on(p, device)
    n = len(images)
    out, each = torch.empty(n, device=device), torch.full((n,), -1 / n, device=device)
    grads = [torch.empty_like(a) for a in stack_of["params"]]

    def ours() -> Results:
        _core.conv_stack_log_prob_vjp(**stack_of, images=images, grad=each, out=out, grads=grads)
        return out, *grads

    params, model = theirs_on(p, device, grad=True)
    x = images.permute(0, 3, 1, 2).float().contiguous(memory_format=torch.channels_last)

    def log_prob(x: torch.Tensor) -> torch.Tensor:
        loss = torch.nn.functional.binary_cross_entropy_with_logits(model(x), x, reduction="none")
        return -loss.sum((1, 2, 3))

    def theirs(function: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[], Results]:
        return theirs_of(lambda: function(x), params, each)

    eager = theirs(log_prob)
    candidates: dict[str, Call | Later] = {"gencore": ours, "eager": eager}
    if device != "cpu":
        candidates["compile"] = Later(lambda: theirs(torch.compile(log_prob)))
        candidates["graph"] = Later(lambda: graph_of(eager))

    def size(results: Results) -> float:
        """Log-probability, and the sizes of all gradients."""
        return float(results[0].mean() + sum((g.double() ** 2).sum().sqrt() for g in results[1:]))

    return Work(
        f"PixelCNN log-probabilities and gradients, {n} images", n, "image", candidates,
        flops=STEP.cost(p).flops, results={"gencore": lambda: size(ours()), "eager": lambda: size(eager())},
    )  # fmt: skip


def samples(n: int, device: str) -> Work:
    p = SAMPLE.problem(device == "cpu")
    stack_of, images = ours_on(p, device)
    drawn = torch.empty((n, *images.shape[1:]), dtype=torch.uint8, device=device)

    def ours() -> torch.Tensor:
        _core.conv_pixel_sample(**stack_of, out=drawn, key=7)
        return drawn

    _, model = theirs_on(p, device, grad=False)
    height, width = images.shape[1:3]
    x = torch.zeros((n, 1, height, width), device=device).contiguous(memory_format=torch.channels_last)

    def rows(count: int) -> Callable[[], torch.Tensor]:
        def call() -> torch.Tensor:
            with torch.no_grad():
                x.zero_()
                for y in range(count):
                    for column in range(width):
                        x[:, :, y, column] = torch.bernoulli(torch.sigmoid(model(x)[:, :, y, column]))
                return x

        return call

    one_row = rows(1)
    candidates: dict[str, Call | Later] = {"gencore": ours, f"eager/{height}": one_row}
    if device != "cpu":
        candidates[f"graph/{height}"] = Later(lambda: graph_of(one_row))
    return Work(
        f"PixelCNN, {n} samples", n, "image", candidates, flops=SAMPLE.cost(p).flops * n / len(images),
        results={"gencore": lambda: ours().double().mean(), "eager": lambda: rows(height)().double().mean()},
        tolerance=0.5 if device == "cpu" else 0.05,
    )  # fmt: skip


def all_works(device: str) -> list[partial[Work]]:
    if device == "cpu":
        return [partial(step, device), partial(samples, 3, device)]
    return [partial(step, device), *(partial(samples, n, device) for n in (16, 132, 1056))]


if __name__ == "__main__":
    torch.manual_seed(0)
    main(all_works, __doc__ or "", "gpu-pixels.json")
