#!/usr/bin/env python
"""LSTMs on a GPU beside PyTorch: `python bench/gpu_recurrent.py [--out FILE] [NAME=RESULT...]`.

States of sequences and of images and the gradients of all inputs, from a given gradient of the states. Peers:
torch.nn.LSTM (cuDNN), whose time per step the launch of all steps is to be held against; for the Diagonal BiLSTM a loop
over the columns of the skewed map, call by call and captured in a CUDA graph. Otherwise as gpu_rbm.py, which times.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parent))
from gpu_rbm import Call, Later, Work, graph_of, main
from peers.recurrent import diagonal_states

from gencore import _core

Results = tuple[torch.Tensor, ...]  # the states, then gradients


def arrays(device: str, *shapes: tuple[int, ...]) -> list[torch.Tensor]:
    """Inputs and weights of deviations that keep the gates away from both ends."""
    rng = np.random.default_rng(3)
    scales = [
        1.0 if i == 0 else shape[-2] ** -0.5 if len(shape) > 1 else 0.5 for i, shape in enumerate(shapes)
    ]
    found = (s * rng.standard_normal(shape) for s, shape in zip(scales, shapes, strict=True))
    return [torch.from_numpy(a.astype(np.float32)).to(device) for a in found]


def like(*tensors: torch.Tensor) -> list[torch.Tensor]:
    return [torch.empty_like(t) for t in tensors]


def ours_along_sequences(inputs: list[torch.Tensor], grad: torch.Tensor) -> Callable[[], Results]:
    x, w_input, w_hidden, bias = inputs
    h, grads = torch.empty_like(grad), like(*inputs)
    c = torch.empty_like(h[:, 0])
    gates, cells = torch.empty((*h.shape[:2], len(bias)), device=h.device), torch.empty_like(h)

    def call() -> Results:
        _core.recurrent_lstm(
            x=x, w_input=w_input, w_hidden=w_hidden, bias=bias, h=h, c=c, gates=gates, cells=cells
        )
        _core.recurrent_lstm_vjp(
            grad_h=grad, x=x, w_input=w_input, w_hidden=w_hidden, h=h, gates=gates, cells=cells,
            grad_x=grads[0], grad_w_input=grads[1], grad_w_hidden=grads[2], grad_bias=grads[3],
        )  # fmt: skip
        return h, *grads

    return call


def ours_along_diagonals(inputs: list[torch.Tensor], grad: torch.Tensor) -> Callable[[], Results]:
    """As `kernels.recurrent.diagonal_bilstm` and its gradient rule; one sweep's states go a row down."""
    x, w_input, w_state, bias = inputs
    units = grad.shape[-1]
    grads = like(*inputs)
    pixels, by_pixel = x.reshape(-1, x.shape[-1]), grads[0].reshape(-1, x.shape[-1])
    z, cells, h = (torch.empty((*grad.shape[:3], k * units), device=x.device) for k in (8, 2, 2))
    grad_z, flat = torch.empty_like(z), z.reshape(-1, 8 * units)
    pad = torch.nn.functional.pad

    def call() -> Results:
        _core.dense_matmul(a=pixels, b=w_input, bias=bias, out=flat)
        _core.recurrent_map_lstm(z=z, w=w_state, path=1, h=h, gates=z, cells=cells)
        out = h[..., :units] + pad(h[:, :-1, :, units:], (0, 0, 0, 0, 1, 0))
        grad_h = torch.cat([grad, pad(grad[:, 1:], (0, 0, 0, 0, 0, 1))], 3)
        _core.recurrent_map_lstm_vjp(
            grad_h=grad_h, w=w_state, path=1, h=h, gates=z, cells=cells, grad_z=grad_z, grad_w=grads[2]
        )
        _core.dense_linear_vjp(
            grad=grad_z.reshape(-1, 8 * units),
            x=pixels,
            w=w_input,
            grad_x=by_pixel,
            grad_w=grads[1],
            grad_bias=grads[3],
        )
        return out, *grads

    return call


def theirs_of(
    function: Callable[..., Any], leaves: list[torch.Tensor], grad: torch.Tensor
) -> Callable[[], Results]:
    def call() -> Results:
        h = function()
        return h.detach(), *torch.autograd.grad([h], leaves, [grad])

    return call


def size(results: Results) -> float:
    """Root mean squares of all that a call gives, added."""
    return float(sum((part.double() ** 2).mean().sqrt() for part in results))


def lstm(n: int, steps: int, depth: int, hidden: int, device: str) -> Work:
    inputs = arrays(device, (n, steps, depth), (depth, 4 * hidden), (hidden, 4 * hidden), (4 * hidden,))
    grad = torch.ones((n, steps, hidden), device=device)
    ours = ours_along_sequences(inputs, grad)
    layer = torch.nn.LSTM(depth, hidden, batch_first=True, device=device)
    x = inputs[0].clone().requires_grad_()
    own = dict(layer.named_parameters())
    with torch.no_grad():
        for name, value in zip(own, (inputs[1].T, inputs[2].T, inputs[3], 0 * inputs[3]), strict=True):
            own[name].copy_(value)
    leaves = [x, *list(own.values())[:3]]
    eager = theirs_of(lambda: layer(x)[0], leaves, grad)
    return Work(
        f"LSTM, {n} x {steps} steps, {depth}-{hidden}", n * steps, "step", {"gencore": ours, "cudnn": eager},
        flops=6.0 * n * steps * 4 * hidden * (depth + hidden),
        results={"gencore": lambda: size(ours()), "cudnn": lambda: size(eager())},
    )  # fmt: skip


def diagonal_bilstm(n: int, side: int, channels: int, units: int, device: str) -> Work:
    shapes = ((n, side, side, channels), (channels, 8 * units), (2, 2, units, 4 * units), (8 * units,))
    inputs = arrays(device, *shapes)
    grad = torch.ones((n, side, side, units), device=device)
    ours = ours_along_diagonals(inputs, grad)
    leaves = [a.clone().requires_grad_() for a in inputs]

    def states() -> torch.Tensor:
        with torch.device(device):  # of the zeros that it begins with
            found: torch.Tensor = diagonal_states(torch, *leaves)
        return found

    eager = theirs_of(states, leaves, grad)
    candidates: dict[str, Call | Later] = {"gencore": ours, "eager": eager}
    if device != "cpu":
        candidates["graph"] = Later(lambda: graph_of(eager))
    return Work(
        f"Diagonal BiLSTM, {n} x {side} x {side}, {channels}-{units}", n * side * side, "pixel", candidates,
        flops=6.0 * n * side * side * 8 * units * (channels + 2 * units),
        results={"gencore": lambda: size(ours()), "eager": lambda: size(eager())},
    )  # fmt: skip


def all_works(device: str) -> list[partial[Work]]:
    if device == "cpu":
        return [partial(lstm, 5, 4, 3, 7, device), partial(diagonal_bilstm, 2, 5, 6, 4, device)]
    sequences = ((64, 28, 64, 64), (64, 28, 64, 256), (2048, 28, 64, 256), (64, 28, 512, 512))
    images = ((16, 28, 64, 32), (128, 28, 64, 32), (16, 32, 256, 128))
    return [
        *(partial(lstm, *sizes, device) for sizes in sequences),
        *(partial(diagonal_bilstm, *sizes, device) for sizes in images),
    ]


if __name__ == "__main__":
    main(all_works, __doc__ or "", "gpu-recurrent.json")
