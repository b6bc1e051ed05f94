"""Convolutions and their gradients in float64, tap by tap; and which taps a mask lets through, from its definition."""

import numpy as np


def visible(mask, kh, kw, c_in, c_out, groups=1):
    """Weights that count, as a 0/1 array (kh, kw, c_in, c_out): from the raster order of pixels and colours."""
    ky, kx, i, o = np.ogrid[:kh, :kw, :c_in, :c_out]
    row, column = ky - kh // 2, kx - kw // 2
    if mask is None:
        seen = np.ones((kh, kw, c_in, c_out), bool)
    elif mask in ("rows-A", "rows-B"):
        seen = (row < 0) | ((row == 0) & (mask == "rows-B"))
    else:
        colour_in, colour_out = i // (c_in // groups), o // (c_out // groups)
        before = (row < 0) | ((row == 0) & (column < 0))
        same_pixel = (row == 0) & (column == 0)
        own = colour_in < colour_out if mask == "A" else colour_in <= colour_out
        seen = before | (same_pixel & own)
    return np.broadcast_to(seen, (kh, kw, c_in, c_out)).astype(np.float64)


def _windows(x, kernel, size, stride, pad):
    """For each tap, the pixels that it meets: (ky, kx, (n, h', w', c)) of an image with zeros around it."""
    n, h, w, c = x.shape
    (kh, kw), (oh, ow), (sh, sw), (top, left) = kernel, size, stride, pad
    below, right = max((oh - 1) * sh + kh - top - h, 0), max((ow - 1) * sw + kw - left - w, 0)
    padded = np.zeros((n, h + top + below, w + left + right, c))
    padded[:, top : top + h, left : left + w] = x
    for ky in range(kh):
        for kx in range(kw):
            yield (
                ky,
                kx,
                padded[:, ky : ky + (oh - 1) * sh + 1 : sh, kx : kx + (ow - 1) * sw + 1 : sw][:, :oh, :ow],
            )


def forward(x, w, size, stride=(1, 1), pad=(0, 0)):
    """``x * w`` on windows that begin `pad` before the image, (n, *size, c_out)."""
    out = np.zeros((len(x), *size, w.shape[3]))
    for ky, kx, seen in _windows(x, w.shape[:2], size, stride, pad):
        out += seen @ w[ky, kx]
    return out


def for_input(grad, w, size, stride=(1, 1), pad=(0, 0)):
    """Gradient of ``sum(grad * forward(x, w))`` for x, (n, *size, c_in): scattered tap by tap."""
    n, oh, ow, _ = grad.shape
    (kh, kw), (sh, sw), (top, left), (h, wd) = w.shape[:2], stride, pad, size
    big = np.zeros((n, top + h + kh + oh * sh, left + wd + kw + ow * sw, w.shape[2]))
    for ky in range(kh):
        for kx in range(kw):
            big[:, ky : ky + (oh - 1) * sh + 1 : sh, kx : kx + (ow - 1) * sw + 1 : sw][:, :oh, :ow] += (
                grad @ w[ky, kx].T
            )
    return big[:, top : top + h, left : left + wd]


def for_weight(x, grad, kernel, stride=(1, 1), pad=(0, 0)):
    """The same for w, (*kernel, c_in, c_out)."""
    out = np.zeros((*kernel, x.shape[3], grad.shape[3]))
    for ky, kx, seen in _windows(x, kernel, grad.shape[1:3], stride, pad):
        out[ky, kx] = np.einsum("nyxi,nyxo->io", seen, grad)
    return out
