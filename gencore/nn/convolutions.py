"""Convolutional layers."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from gencore._checks import count
from gencore.kernels import conv, dense
from gencore.nn import init as initial
from gencore.nn.layers import generator_of
from gencore.nn.module import Module, parameter
from gencore.random import KeyLike

__all__ = ["Conv2d", "ConvTranspose2d", "MaskedConv2d"]

Pair = int | tuple[int, int]


def _pair(name: str, value: Pair) -> tuple[int, int]:
    pair = (value, value) if not isinstance(value, tuple) else value
    return count(name, "kernel_size[0]", pair[0]), count(name, "kernel_size[1]", pair[1])


class Conv2d(Module):
    """``activation(x * weight + bias)`` on images (N, H, W, n_in).

    Parameters
    ----------
    n_in, n_out : int
        Channels of the images and of the result.
    kernel_size : int or pair
        Rows and columns of the kernel.
    activation : {"identity", "logistic", "tanh", "relu", "softplus"}
        Applied in the same pass.
    stride, padding
        As in `gencore.kernels.conv.conv2d`.
    bias : bool
        Whether there is one.
    init : Initializer
        Of the weight; the bias starts at 0.
    key : Key, int or Generator, optional
        Where the initial weights come from. None: from the operating system, other ones each time.

    Attributes
    ----------
    weight : (kh, kw, n_in, n_out) Tensor
    bias : (n_out,) Tensor or None
    """

    def __init__(
        self,
        n_in: int,
        n_out: int,
        kernel_size: Pair,
        activation: dense.Activation = "identity",
        *,
        stride: Pair = 1,
        padding: Pair | Literal["same"] = 0,
        bias: bool = True,
        init: initial.Initializer = initial.he_uniform,
        key: KeyLike | None = None,
    ) -> None:
        super().__init__()
        name = type(self).__name__
        self.n_in, self.n_out = count(name, "n_in", n_in), count(name, "n_out", n_out)
        dense.activation_code(name, activation)
        self.kernel_size, self.activation = _pair(name, kernel_size), activation
        self.stride: Any = stride
        self.padding: Any = padding
        self.weight = parameter(init((*self.kernel_size, *self._channels()), generator_of(key)))
        self.bias = parameter(np.zeros(self.n_out, np.float32)) if bias else None

    def _channels(self) -> tuple[int, int]:
        return self.n_in, self.n_out

    def forward(self, x: Any) -> Any:
        """(N, H, W, n_in) -> (N, H', W', n_out)."""
        weight: Any = self.weight
        bias: Any = self.bias
        return conv.conv2d(
            x, weight, bias, stride=self.stride, padding=self.padding, activation=self.activation
        )


class ConvTranspose2d(Conv2d):
    """Transposed convolution, from n_in to n_out channels.

    Parameters as those of `Conv2d`; `output_padding` as in `gencore.kernels.conv.conv_transpose2d`. The weight is
    (kh, kw, n_out, n_in).
    """

    def __init__(
        self, n_in: int, n_out: int, kernel_size: Pair, *, output_padding: Pair = 0, padding: Pair = 0, **options: Any
    ) -> None:  # fmt: skip
        super().__init__(n_in, n_out, kernel_size, padding=padding, **options)
        if self.activation != "identity":
            raise ValueError(
                f"ConvTranspose2d: expected activation to be 'identity', received {self.activation!r}"
            )
        self.output_padding: Any = output_padding

    def _channels(self) -> tuple[int, int]:
        return self.n_out, self.n_in

    def forward(self, x: Any) -> Any:
        """(N, H, W, n_in) -> (N, H', W', n_out)."""
        weight: Any = self.weight
        bias: Any = self.bias
        return conv.conv_transpose2d(
            x, weight, bias, stride=self.stride, padding=self.padding, output_padding=self.output_padding
        )


class MaskedConv2d(Module):
    """A convolution that sees only earlier pixels and colours: a layer of a PixelCNN.

    Parameters
    ----------
    n_in, n_out, kernel_size, activation, bias, key
        As in `Conv2d`. The size of images stays.
    mask, channel_groups
        As in `gencore.kernels.conv.masked_conv2d`.

    Attributes
    ----------
    weight : (kh, kw, n_in, n_out) Tensor
        Initial values are He's, for the taps that count. Masked taps are never read, and have gradient 0.
    bias : (n_out,) Tensor or None
    """

    def __init__(
        self,
        n_in: int,
        n_out: int,
        kernel_size: Pair,
        mask: conv.Mask = "B",
        activation: dense.Activation = "identity",
        *,
        channel_groups: int = 1,
        bias: bool = True,
        key: KeyLike | None = None,
    ) -> None:
        super().__init__()
        self.n_in, self.n_out = count("MaskedConv2d", "n_in", n_in), count("MaskedConv2d", "n_out", n_out)
        dense.activation_code("MaskedConv2d", activation)
        self.kernel_size, self.activation = _pair("MaskedConv2d", kernel_size), activation
        self.mask, self.channel_groups = mask, count("MaskedConv2d", "channel_groups", channel_groups)
        shape = (*self.kernel_size, self.n_in, self.n_out)
        # The share of taps that count: what an image of ones with weights of 1 shows at a pixel far from the borders.
        ones = np.ones((1, 2 * shape[0] + 1, 2 * shape[1] + 1, self.n_in), np.float32)
        seen = conv.masked_conv2d(ones, np.ones(shape, np.float32), None, mask, self.channel_groups)
        share = max(float(seen[0, shape[0], shape[1]].mean()) / float(np.prod(shape[:3])), 1e-3)
        scale = np.float32(share**-0.5)
        self.weight = parameter(initial.he_uniform(shape, generator_of(key)) * scale)
        self.bias = parameter(np.zeros(self.n_out, np.float32)) if bias else None

    def forward(self, x: Any) -> Any:
        """(N, H, W, n_in) -> (N, H, W, n_out)."""
        weight: Any = self.weight
        bias: Any = self.bias
        return conv.masked_conv2d(x, weight, bias, self.mask, self.channel_groups, activation=self.activation)
