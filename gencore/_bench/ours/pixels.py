"""Masked convolutions and PixelCNNs."""

from __future__ import annotations

from itertools import count
from typing import Any

import numpy as np

import gencore as gc
from gencore.kernels import conv, dense
from gencore.kernels.conv import PixelLayer

from ..measure import Candidate
from ..reference import Array
from ..registry import does
from ..works.pixels import Layer, PixelCnn


def _mask(p: Layer) -> Any:
    return p.mask


@does("masked_conv", "gencore")
def masked_conv(p: Layer, threads: int) -> Candidate:
    def call() -> Array:
        return conv.masked_conv2d(p.x, p.w, p.bias, _mask(p))

    return Candidate(call, call)


@does("masked_conv_both", "gencore")
def masked_conv_both(p: Layer, threads: int) -> Candidate:
    leaves: list[Any] = [gc.tensor(a, requires_grad=True) for a in (p.x, p.w, p.bias)]

    def call() -> list[Array]:
        for leaf in leaves:
            leaf.grad = None
        x, w, bias = leaves
        y: Any = conv.masked_conv2d(x, w, bias, _mask(p))
        y.backward(p.grad)
        return [y.numpy(), *(leaf.grad.numpy() for leaf in leaves)]

    return Candidate(call, call, note="through the tape")


def stack(p: PixelCnn, params: list[Any]) -> list[PixelLayer]:
    pairs = iter(zip(params[::2], params[1::2], strict=True))
    layers: list[PixelLayer] = []

    def add(src: int, mask: str, activation: dense.Activation = "identity") -> int:
        w, b = next(pairs)
        layers.append(PixelLayer("conv", src, 0, w, b, mask, activation))
        return len(layers)

    def relu(src: int) -> int:
        layers.append(PixelLayer("relu", src))
        return len(layers)

    x = add(0, "A")
    for _ in range(p.blocks):
        y = add(add(add(relu(x), "B", "relu"), "B", "relu"), "B")
        layers.append(PixelLayer("add", x, y))
        x = len(layers)
    add(add(add(relu(x), "B", "relu"), "B", "relu"), "B")
    return layers


@does("pixelcnn_step", "gencore")
def pixelcnn_step(p: PixelCnn, threads: int) -> Candidate:
    params: Any = [gc.tensor(a, requires_grad=True) for a in p.params]

    def step(images: Array) -> tuple[float, list[Array]]:
        for leaf in params:
            leaf.grad = None
        loss: Any = -np.mean(conv.pixel_log_prob(images, stack(p, params)))
        loss.backward()
        return float(loss), [leaf.grad.numpy() for leaf in params]

    return Candidate(lambda: step(p.images), step)


@does("pixelcnn_sample", "gencore")
def pixelcnn_sample(p: PixelCnn, threads: int) -> Candidate:
    layers, keys = stack(p, p.params), count(1)
    shape: Any = p.images.shape

    def call() -> Array:
        return conv.pixel_sample(layers, shape, next(keys))

    return Candidate(call, call)
