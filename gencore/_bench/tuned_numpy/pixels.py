"""Masked convolutions: a product for each tap that counts. PixelCNNs are left to libraries with gradients."""

from __future__ import annotations

import numpy as np

from ..measure import Candidate
from ..reference import Array
from ..registry import does, lacks
from ..works.pixels import Layer

for _kind in ("pixelcnn_step", "pixelcnn_sample"):
    lacks(_kind, "numpy", "has no gradients")


def _taps(p: Layer) -> list[tuple[int, int]]:
    return [(int(i), int(j)) for i, j in zip(*np.nonzero(p.taps[:, :, 0, 0]), strict=True)]


def _padded(x: Array, half: int) -> Array:
    return np.pad(x, ((0, 0), (half, half), (half, half), (0, 0)))


def _forward(p: Layer) -> Array:
    (_, height, width, _), padded = p.x.shape, _padded(p.x, p.w.shape[0] // 2)
    out = np.broadcast_to(p.bias, p.grad.shape).copy()
    for i, j in _taps(p):
        out += np.ascontiguousarray(padded[:, i : i + height, j : j + width]) @ p.w[i, j]
    return out


def _both(p: Layer) -> list[Array]:
    (_, height, width, c_in), half = p.x.shape, p.w.shape[0] // 2
    padded, by_x, by_w = _padded(p.x, half), _padded(np.zeros_like(p.x), half), np.zeros_like(p.w)
    flat = p.grad.reshape(-1, p.grad.shape[3])
    for i, j in _taps(p):
        by_x[:, i : i + height, j : j + width] += p.grad @ p.w[i, j].T
        by_w[i, j] = np.ascontiguousarray(padded[:, i : i + height, j : j + width]).reshape(-1, c_in).T @ flat
    inside = np.s_[:, half : half + height, half : half + width]
    return [_forward(p), by_x[inside], by_w, flat.sum(0)]


@does("masked_conv", "numpy")
def masked_conv(p: Layer, threads: int) -> Candidate:
    return Candidate(lambda: _forward(p), lambda: _forward(p))


@does("masked_conv_both", "numpy")
def masked_conv_both(p: Layer, threads: int) -> Candidate:
    return Candidate(lambda: _both(p), lambda: _both(p))
