"""Masked convolutions, and what PixelCNNs are asked for: a step of learning, and samples."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, NamedTuple

import numpy as np

from .. import reference
from ..measure import Candidate
from ..reference import Array
from .common import EPS, Cost, Work


def seen_taps(mask: str, kernel: int) -> Array:
    """Taps that a mask of type A or B lets through, (k, k) of 0 and 1."""
    place = np.arange(kernel * kernel).reshape(kernel, kernel)
    centre = kernel // 2 * kernel + kernel // 2
    return (place <= centre if mask == "B" else place < centre).astype(float)


def convolve(x: Array, w: Array) -> Array:
    """``x * w`` with zeros around, float64, tap by tap."""
    (n, height, width, _), kernel = x.shape, w.shape[0]
    half = kernel // 2
    padded = np.pad(x, ((0, 0), (half, half), (half, half), (0, 0)))
    out = np.zeros((n, height, width, w.shape[3]))
    for i in range(kernel):
        for j in range(kernel):
            if w[i, j].any():
                out += padded[:, i : i + height, j : j + width] @ w[i, j]
    return out


class Layer(NamedTuple):
    """A masked convolution of images (N, H, W, C) with w (k, k, C, C'), and the gradient of its result."""

    x: Array
    w: Array
    bias: Array
    mask: str
    grad: Array

    @property
    def taps(self) -> Array:
        """Of the mask, (k, k, 1, 1)."""
        return seen_taps(self.mask, self.w.shape[0])[:, :, None, None]


def layer_works(
    name: str, n: int, side: int, c_in: int, c_out: int, kernel: int, mask: str
) -> tuple[Work, Work]:
    """Forward; and forward and back."""

    @lru_cache
    def problem(tiny: bool) -> Layer:
        rng = np.random.default_rng(22)
        shape = (2, 5, 5, min(c_in, 3)) if tiny else (n, side, side, c_in)
        out = min(c_out, 4) if tiny else c_out
        w = rng.standard_normal((kernel, kernel, shape[3], out)).astype(np.float32)
        w /= np.float32((kernel * kernel * shape[3] / 2) ** 0.5)
        x, grad = (rng.standard_normal((*shape[:3], c)).astype(np.float32) for c in (shape[3], out))
        return Layer(x, w, rng.standard_normal(out).astype(np.float32), mask, grad)

    def cost(p: Layer, passes: int) -> Cost:
        pixels, taps = p.x[..., 0].size, float(p.taps.sum())
        return Cost(
            2.0 * passes * pixels * taps * p.w.shape[2] * p.w.shape[3], 0, "multiply-adds of taps that count"
        )

    def check(p: Layer, candidate: Candidate, both: bool) -> str:
        x, w, grad = p.x.astype(float), p.w * p.taps, p.grad.astype(float)
        terms = p.taps.sum() * max(p.w.shape[2:]) + 4
        found = candidate.sample()
        y = found[0] if both else found
        magnitude = float((convolve(np.abs(x), np.abs(w)) + np.abs(p.bias)).max())
        said = reference.close("result", y, convolve(x, w) + p.bias, EPS * terms * magnitude)
        if not both:
            return said
        back = w[::-1, ::-1].transpose(0, 1, 3, 2)
        reference.close("gradient of x", found[1], convolve(grad, back),
                        EPS * terms * float(convolve(np.abs(grad), np.abs(back)).max()))  # fmt: skip
        half, (_, height, width, _) = w.shape[0] // 2, x.shape
        padded = np.pad(x, ((0, 0), (half, half), (half, half), (0, 0)))
        for i, j in zip(*np.nonzero(p.taps[:, :, 0, 0]), strict=True):
            part = padded[:, i : i + height, j : j + width].reshape(-1, x.shape[3])
            flat = grad.reshape(-1, grad.shape[3])
            bound = EPS * len(flat) ** 0.5 * 8 * float((np.abs(part).T @ np.abs(flat)).max())
            reference.close("gradient of w", found[2][i, j], part.T @ flat, bound)
        return said

    title = f"{kernel}x{kernel} {mask} {c_in}-{c_out}"
    return (
        Work(f"{name}_forward", f"Masked conv {title}", "masked_conv", problem, lambda p: cost(p, 1),
             lambda p, c: check(p, c, False)),
        Work(f"{name}_both", f"Masked conv {title}, grads", "masked_conv_both", problem, lambda p: cost(p, 3),
             lambda p, c: check(p, c, True)),
    )  # fmt: skip


# --- PixelCNN -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class PixelCnn:
    """A 7x7 convolution A, blocks 2h -> h -> h -> 2h with a 3x3 convolution B, two 1x1 layers, logits of bits.

    `params` are weight and bias of each convolution, in the order of the data flow.
    """

    params: list[Array]
    images: Array  # (N, H, W, 1) uint8
    blocks: int

    def logits(self, params: list[Array], images: Array) -> Array:
        """In float64."""
        layers = iter(zip(params[::2], params[1::2], strict=True))

        def masked(x: Array, mask: str) -> Array:
            w, b = next(layers)
            return convolve(x, w * seen_taps(mask, w.shape[0])[:, :, None, None]) + b

        x = masked(images.astype(float), "A")
        for _ in range(self.blocks):
            y = np.maximum(masked(np.maximum(x, 0), "B"), 0)
            x = x + masked(np.maximum(masked(y, "B"), 0), "B")
        x = np.maximum(masked(np.maximum(x, 0), "B"), 0)
        x = np.maximum(masked(x, "B"), 0)
        return masked(x, "B")

    def loss(self, params: list[Array], images: Array) -> float:
        """Minus the mean log-probability of an image."""
        x = self.logits(params, images)
        return float((reference.softplus(x) - images * x).sum() / len(images))

    @cached_property
    def directions(self) -> list[list[Array]]:
        """Four for all parameters."""
        rng = np.random.default_rng(24)
        return [[rng.standard_normal(p.shape) for p in self.params] for _ in range(4)]

    def check_step(self, candidate: Candidate) -> str:
        """`sample(images) -> (loss, gradients of params)`: along random directions, against differences of float64."""
        images, exact = self.images[:8], [p.astype(float) for p in self.params]
        value, grads = candidate.sample(images)
        units = float(np.prod(images.shape[1:]))
        said = reference.close("loss", value, self.loss(exact, images), 1e3 * EPS * units)
        for direction in self.directions:
            h = 1e-7  # few units lie so near the kink of relu
            ends = [
                self.loss([p + s * h * d for p, d in zip(exact, direction, strict=True)], images)
                for s in (1, -1)
            ]
            parts = [np.asarray(g, float) * d for g, d in zip(grads, direction, strict=True)]
            size = float(sum(np.abs(part).sum() for part in parts))
            slope = float(sum(part.sum() for part in parts))
            reference.close("gradient", slope, (ends[0] - ends[1]) / (2 * h), 1e-4 * size)
        return said

    def check_samples(self, candidate: Candidate) -> str:
        """`sample() -> images`: a pixel less its probability given those before it is 0 on average, however weighed."""
        images = np.asarray(candidate.sample()).reshape(-1, *self.images.shape[1:])
        exact = [p.astype(float) for p in self.params]
        p = reference.logistic(self.logits(exact, images))
        surprise, variance = images - p, p * (1 - p)
        left = np.roll(images, 1, axis=2).astype(float)  # known before, but for the first column
        left[:, :, 0] = 0
        weights = {"all": np.ones_like(p), "left neighbour": left, "probability": p}
        for name, weight in weights.items():
            z = float((weight * surprise).sum() / np.sqrt((weight**2 * variance).sum() + 1e-9))
            reference.close(f"surprise by {name}", z, 0.0, 6.0)
        return "pixels follow their conditional probabilities"


@lru_cache
def _pixelcnn(tiny: bool, n: int) -> PixelCnn:
    rng = np.random.default_rng(23)
    side, h, blocks, hidden = (6, 4, 1, 5) if tiny else (28, 16, 7, 32)
    shapes = [(7, 7, 1, 2 * h)]
    for _ in range(blocks):
        shapes += [(1, 1, 2 * h, h), (3, 3, h, h), (1, 1, h, 2 * h)]
    shapes += [(1, 1, 2 * h, hidden), (1, 1, hidden, hidden), (1, 1, hidden, 1)]
    params: list[Any] = []
    for i, shape in enumerate(shapes):
        taps = seen_taps("A" if i == 0 else "B", shape[0]).sum() * shape[2]
        scale = (2 / taps) ** 0.5 * (0.5 if shape[0] == 1 and shape[3] == 2 * h else 1)
        # Biases keep units off the kink of relu, at which differences find no slope.
        bias = (0.1 * rng.standard_normal(shape[3])).astype(np.float32)
        params += [(scale * rng.standard_normal(shape)).astype(np.float32), bias]
    params[-1] -= np.float32(1.5)
    images = (rng.random((3 if tiny else n, side, side, 1)) < 0.14).astype(np.uint8)
    return PixelCnn(params, images, blocks)


def _forward_flops(p: PixelCnn) -> float:
    per_pixel = sum(
        w.shape[2] * w.shape[3] * seen_taps("A" if i == 0 else "B", w.shape[0]).sum()
        for i, w in enumerate(p.params[::2])
    )
    return float(2.0 * p.images[0].size * per_pixel)


def _step_cost(p: PixelCnn) -> Cost:
    return Cost(3 * len(p.images) * _forward_flops(p), 0, "multiply-adds forward and back")


def _sample_cost(p: PixelCnn) -> Cost:
    return Cost(len(p.images) * _forward_flops(p), 0, "multiply-adds of one forward pass")


WORKS = (
    *layer_works("conv128", 16, 32, 128, 128, 3, "B"),
    *layer_works("conv7x7", 16, 28, 1, 32, 7, "A"),
    Work("pixelcnn_step", "PixelCNN loss + gradient, 100", "pixelcnn_step", lambda tiny: _pixelcnn(tiny, 100),
         _step_cost, PixelCnn.check_step),
    Work("pixelcnn_sample", "PixelCNN, 16 samples 28x28", "pixelcnn_sample", lambda tiny: _pixelcnn(tiny, 16),
         _sample_cost, PixelCnn.check_samples),
)  # fmt: skip
