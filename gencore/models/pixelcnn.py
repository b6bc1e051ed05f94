"""PixelCNN and the gated PixelCNN (van den Oord, Kalchbrenner & Kavukcuoglu 2016; van den Oord et al. 2016)."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gencore._checks import count
from gencore.kernels import conv
from gencore.models._pixel_model import LayerStack, Output, PixelModel
from gencore.nn import Module

__all__ = ["GatedPixelCNN", "PixelCNN"]


class _StackModel(PixelModel):
    """One that is a stack of convolutions and nothing else: its likelihood and gradients take one pass an image."""

    @abstractmethod
    def layers(self) -> list[conv.PixelLayer]:
        """The model as a stack of layers, as `pixel_stack` and `pixel_sample` take it."""

    def forward(self, images: Any, labels: Any = None) -> Any:
        """Levels (N, H, W, C) uint8 -> (N, H, W, n_logits); what is of a pixel sees earlier ones alone."""
        return conv.pixel_stack(
            self.scaled(images), self.layers(), channel_groups=self.shape[2], labels=labels, n_classes=self.n_classes
        )  # fmt: skip

    def log_prob_of(self, x: Any) -> Any:
        """Log-probability of images as kernels take them, or of those and their labels: (n,), differentiable."""
        images, labels = x if isinstance(x, tuple) else (x, None)
        return conv.pixel_log_prob(
            images, self.layers(), channel_groups=self.shape[2], levels=self.levels, n_mixtures=self.n_mixtures,
            labels=labels, n_classes=self.n_classes,
        )  # fmt: skip

    def sample_cached(
        self, n: int, labels: Any, given: Any, keep: Any, temperature: float, key: int
    ) -> NDArray[np.uint8]:
        """`sample` by the method "cached", of arguments as kernels take them."""
        return conv.pixel_sample(
            self.layers(), (n, *self.shape), key, channel_groups=self.shape[2], levels=self.levels,
            n_mixtures=self.n_mixtures, labels=self._here(labels), n_classes=self.n_classes, temperature=temperature,
            given=self._here(given), keep=self._here(keep),
        )  # fmt: skip


def _odd(model: str, kernel_size: int) -> int:
    size = count(model, "kernel_size", kernel_size)
    if size % 2 == 0:
        raise ValueError(f"{model}: expected kernel_size to be odd, received {size}")
    return size


class _Block(Module):
    """x + conv(relu(conv(relu(conv(relu(x)))))): 2h -> h (1x1), h -> h (size x size), h -> 2h (1x1)."""

    def __init__(self, h: int, size: int, model: PixelModel) -> None:
        super().__init__()
        self.narrow = model.masked(2 * h, h, 1, "B", "relu")
        self.spread = model.of_class(model.masked(h, h, size, "B", "relu"))
        self.widen = model.masked(h, 2 * h, 1, "B")


class PixelCNN(_StackModel):
    """Exact autoregressive model of images: each pixel given those before it in raster order, by masked convolutions.

    A 7x7 convolution of type A, residual blocks 2h -> h -> h -> 2h whose middle is a convolution of type B, two 1x1
    layers, and the logits. Colours of a pixel follow each other: red, then green given red, then blue. The kernels see
    a growing triangle above a pixel: what lies to the right of it, a few rows up, stays unseen (`GatedPixelCNN` sees
    all).

    Parameters
    ----------
    height, width : int
        Of the images.
    channels : int
        1, or the colours, whose features are kept apart as many groups.
    n_features : int
        h; a multiple of `channels`.
    n_blocks : int
        Residual blocks.
    kernel_size : int
        Rows and columns of their middle; odd. The paper's 3 reaches ``n_blocks + 3`` rows up; larger ones see further,
        to the right as well, at a cost in proportion to their taps.
    output : {"bernoulli", "categorical", "discretised_logistic"}
        A pixel is 0 or 1; or one of `levels` values, with a logit each, or under a mixture of logistics
        (`gencore.kernels.dense.logistic_mixture_log_prob`).
    levels : int
        Values of a pixel where it is not 0 or 1, 2 to 256: integers 0 to ``levels - 1``.
    n_mixtures : int
        Logistics of each colour of a pixel.
    n_hidden : int
        Features of the two 1x1 layers; a multiple of `channels`.
    n_classes : int
        0; or that of the ``labels`` on which images depend: they choose the biases of the first layer, of every 3x3
        layer and of the first 1x1 layer.
    seed : int
        All randomness follows from it.

    Examples
    --------
    >>> import gencore as gc
    >>> data = gc.datasets.load("digits")
    >>> model = gc.models.PixelCNN(8, 8, n_features=4, n_blocks=2, seed=0)
    >>> history = model.fit(data.train, epochs=1, progress=False)
    >>> model.log_prob(data.test[:5]).shape
    (5,)
    >>> model.sample(2).shape
    (2, 8, 8, 1)
    """

    def __init__(
        self,
        height: int,
        width: int,
        *,
        channels: int = 1,
        n_features: int = 16,
        n_blocks: int = 7,
        kernel_size: int = 3,
        output: Output = "bernoulli",
        levels: int = 256,
        n_mixtures: int = 10,
        n_hidden: int = 32,
        n_classes: int = 0,
        seed: int = 0,
    ) -> None:
        blocks, size = count("PixelCNN", "n_blocks", n_blocks), _odd("PixelCNN", kernel_size)
        super().__init__(
            seed, height=height, width=width, channels=channels, output=output, levels=levels, n_mixtures=n_mixtures,
            n_classes=n_classes, grouped={"n_features": n_features, "n_hidden": n_hidden}, n_blocks=blocks,
            kernel_size=size,
        )  # fmt: skip
        self.first = self.of_class(self.masked(channels, 2 * n_features, 7, "A"))
        self.blocks = [_Block(n_features, size, self) for _ in range(blocks)]
        self.head = self.make_head(2 * n_features, n_hidden)
        self.eval()

    def layers(self) -> list[conv.PixelLayer]:
        """The model as a stack of layers, as `pixel_stack` and `pixel_sample` take it."""
        stack = LayerStack()
        x = stack.conv(self.first, 0)
        for block in self.blocks:
            y = stack.conv(block.spread, stack.conv(block.narrow, stack.relu(x)))
            x = stack.sum(x, stack.conv(block.widen, y))
        x = stack.relu(x)
        for layer in self.head:
            x = stack.conv(layer, x)
        return stack.layers


class _GatedBlock(Module):
    """One gated layer: what comes from above, what comes from the left, and how the two meet."""

    def __init__(
        self, n_in: int, p: int, height: int, width: int, kind: conv.Mask, model: PixelModel
    ) -> None:
        super().__init__()
        rows: conv.Mask = "rows-A" if kind == "A" else "rows-B"
        self.above = model.of_class(model.masked(n_in, 2 * p, (height, width), rows))
        self.left = model.of_class(model.masked(n_in, 2 * p, (1, width), kind))
        self.down = model.masked(2 * p, 2 * p, 1, "rows-B")
        self.out = model.masked(p, p, 1, "B")


class GatedPixelCNN(_StackModel):
    """Exact autoregressive model of images by gated convolutions, each pixel given all before it in raster order.

    Two stacks: the vertical one sees whole rows above a pixel, the horizontal one the pixels to its left and, through
    1x1 convolutions, the vertical one; there is no blind spot. Each layer computes ``tanh(a) logistic(b)``; in the
    horizontal stack a 1x1 convolution and, from the second layer on, the layer's input follow. A head of 1x1 layers
    as `PixelCNN`'s.

    Parameters
    ----------
    height, width, channels, output, levels, n_mixtures, n_hidden, seed
        As in `PixelCNN`.
    n_features : int
        p: channels of either stack; a multiple of `channels`.
    n_blocks : int
        Gated layers after the first one, which is 7x7.
    kernel_size : int
        Columns of their kernels; odd. Those of the vertical stack have ``(kernel_size + 1) / 2`` rows that count.
    n_classes : int
        0; or that of the ``labels`` on which images depend: they choose the biases before every gate, and that of the
        first 1x1 layer.

    Notes
    -----
    Source: van den Oord et al. (2016), "Conditional image generation with PixelCNN decoders".

    Examples
    --------
    >>> import gencore as gc
    >>> data = gc.datasets.load("digits")
    >>> model = gc.models.GatedPixelCNN(8, 8, n_features=4, n_blocks=2, seed=0)
    >>> history = model.fit(data.train, epochs=1, progress=False)
    >>> model.log_prob(data.test[:5]).shape
    (5,)
    >>> model.sample(2).shape
    (2, 8, 8, 1)
    """

    def __init__(
        self,
        height: int,
        width: int,
        *,
        channels: int = 1,
        n_features: int = 16,
        n_blocks: int = 6,
        kernel_size: int = 3,
        output: Output = "bernoulli",
        levels: int = 256,
        n_mixtures: int = 10,
        n_hidden: int = 32,
        n_classes: int = 0,
        seed: int = 0,
    ) -> None:
        blocks, size = count("GatedPixelCNN", "n_blocks", n_blocks), _odd("GatedPixelCNN", kernel_size)
        super().__init__(
            seed, height=height, width=width, channels=channels, output=output, levels=levels, n_mixtures=n_mixtures,
            n_classes=n_classes, grouped={"n_features": n_features, "n_hidden": n_hidden}, n_blocks=blocks,
            kernel_size=size,
        )  # fmt: skip
        p = n_features
        self.first = _GatedBlock(channels, p, 7, 7, "A", self)
        self.blocks = [_GatedBlock(p, p, size, size, "B", self) for _ in range(blocks)]
        self.head = self.make_head(p, n_hidden)
        self.eval()

    def layers(self) -> list[conv.PixelLayer]:
        """The model as a stack of layers, as `pixel_stack` and `pixel_sample` take it."""
        stack, vertical, horizontal = LayerStack(), 0, 0
        for block in (self.first, *self.blocks):
            above = stack.conv(block.above, vertical)
            both = stack.sum(stack.conv(block.left, horizontal), stack.conv(block.down, above))
            vertical, y = stack.gate(above), stack.conv(block.out, stack.gate(both))
            horizontal = y if block is self.first else stack.sum(horizontal, y)
        x = stack.relu(horizontal)
        for layer in self.head:
            x = stack.conv(layer, x)
        return stack.layers
