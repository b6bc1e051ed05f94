"""PixelCNN (van den Oord, Kalchbrenner & Kavukcuoglu 2016)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from gencore import optim
from gencore._checks import count
from gencore.autograd import Tensor, no_grad
from gencore.kernels import conv, dense
from gencore.models._exact import ExactModel, Method
from gencore.nn import MaskedConv2d, Module
from gencore.random import Generator, KeyLike, as_key
from gencore.train import Callback, History, Schedule
from gencore.train.fit import Options

__all__ = ["PixelCNN"]

Output = Literal["bernoulli", "categorical"]

_ROWS = 250  # images whose log-probability is computed at a time


class _Block(Module):
    """x + conv(relu(conv(relu(conv(relu(x)))))): 2h -> h (1x1), h -> h (3x3), h -> 2h (1x1)."""

    def __init__(self, h: int, groups: int, keys: Generator) -> None:
        super().__init__()
        self.narrow = MaskedConv2d(2 * h, h, 1, "B", "relu", channel_groups=groups, key=keys)
        self.spread = MaskedConv2d(h, h, 3, "B", "relu", channel_groups=groups, key=keys)
        self.widen = MaskedConv2d(h, 2 * h, 1, "B", channel_groups=groups, key=keys)


class PixelCNN(ExactModel):
    """Exact autoregressive model of images: each pixel given those before it in raster order, by masked convolutions.

    A 7x7 convolution of type A, residual blocks 2h -> h -> h -> 2h whose middle is a 3x3 convolution of type B, two
    1x1 layers, and the logits. Colours of a pixel follow each other: red, then green given red, then blue.

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
    output : {"bernoulli", "categorical"}
        A pixel is 0 or 1, or one of `levels` values with a logit each.
    levels : int
        Values of a pixel of "categorical", 2 to 256: integers 0 to ``levels - 1``.
    n_hidden : int
        Features of the two 1x1 layers; a multiple of `channels`.
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
        output: Output = "bernoulli",
        levels: int = 256,
        n_hidden: int = 32,
        seed: int = 0,
    ) -> None:
        sizes = {"height": height, "width": width, "channels": channels, "n_features": n_features,
                 "n_blocks": n_blocks, "levels": levels, "n_hidden": n_hidden}  # fmt: skip
        for name, value in sizes.items():
            sizes[name] = count("PixelCNN", name, value)
        for name in ("n_features", "n_hidden"):
            if sizes[name] % sizes["channels"] != 0:
                raise ValueError(
                    f"PixelCNN: expected {name} to be a multiple of channels, {channels}, received {sizes[name]}"
                )
        if output not in ("bernoulli", "categorical"):
            raise ValueError(
                f"PixelCNN: expected output to be 'bernoulli' or 'categorical', received {output!r}"
            )
        if not 2 <= sizes["levels"] <= 256:
            raise ValueError(f"PixelCNN: expected levels from 2 to 256, received {levels!r}")
        super().__init__(seed, **sizes, output=output)
        self.shape = (sizes["height"], sizes["width"], sizes["channels"])
        self.output, self.levels = output, 2 if output == "bernoulli" else sizes["levels"]
        groups, h, hidden = sizes["channels"], sizes["n_features"], sizes["n_hidden"]
        keys = Generator(int(self.generator.key()))
        self.first = MaskedConv2d(groups, 2 * h, 7, "A", channel_groups=groups, key=keys)
        self.blocks = [_Block(h, groups, keys) for _ in range(sizes["n_blocks"])]
        logits = groups * (1 if output == "bernoulli" else self.levels)
        self.head = [
            MaskedConv2d(2 * h, hidden, 1, "B", "relu", channel_groups=groups, key=keys),
            MaskedConv2d(hidden, hidden, 1, "B", "relu", channel_groups=groups, key=keys),
            MaskedConv2d(hidden, logits, 1, "B", channel_groups=groups, key=keys),
        ]
        self.eval()

    # --- what it computes -------------------------------------------------------------------------------------

    def forward(self, images: Any) -> Any:
        """Levels (N, H, W, C) uint8 -> logits (N, H, W, C or C levels); those of a pixel see earlier ones alone."""
        x: Any = images.astype(np.float32)
        if self.levels > 2:
            x = x * np.float32(1 / (self.levels - 1))
        return conv.pixel_stack(x, self.layers(), channel_groups=self.shape[2])

    def log_prob_of(self, images: Any) -> Any:
        """Log-probability of images as kernels take them, (n,), differentiable with respect to the parameters."""
        logits = self.forward(images)
        if self.output == "bernoulli":
            return dense.bernoulli_log_prob(logits.reshape(len(images), -1), images.reshape(len(images), -1))
        loss = dense.softmax_cross_entropy(
            logits.reshape(-1, self.levels), images.reshape(-1).astype(np.int64)
        )
        return -np.sum(loss.reshape(len(images), -1), axis=1)

    def log_prob(self, X: Any) -> NDArray[np.float64]:
        """Exact log-probability of each image, nats.

        Parameters
        ----------
        X : (n, H, W, C), (n, H, W) with one colour, or (n, H W C) array_like
            Images: 0 and 1, or levels.

        Returns
        -------
        (n,) float64
        """
        images = self._as_images("PixelCNN.log_prob", "X", X)
        return self._log_prob_in_parts(images, _ROWS)

    # --- learning ---------------------------------------------------------------------------------------------

    def fit(
        self,
        X: Any,
        *,
        epochs: int,
        batch_size: int = 16,
        lr: float | Schedule = 1e-3,
        optimizer: str | Callable[[list[Tensor]], optim.Optimizer] = "rmsprop",
        clip_norm: float | None = None,
        validation: Any = None,
        patience: int | None = None,
        callbacks: Sequence[Callback] = (),
        progress: bool = True,
        checkpoint: str | Path | None = None,
        checkpoint_every: int | None = None,
        resume: bool = False,
    ) -> History:
        """Learn by maximum likelihood, from the parameters as they are.

        Parameters
        ----------
        X : array_like
            Images, as `log_prob` takes them.
        epochs, batch_size : int
            Passes over the data, images of an update.
        lr : float or Schedule
            Learning rate, or a function from the fraction of the training done to one (`gencore.train`).
        optimizer : {"rmsprop", "adam", "adamw", "sgd", "adagrad", "adadelta"}, or callable
            Of `gencore.optim`, with its defaults; or a function from a list of parameters to an optimizer.
        clip_norm, patience, callbacks, progress, checkpoint, checkpoint_every, resume
            As in `gencore.train.fit`; patience watches ``validation_log_prob``.
        validation : array_like, optional
            Held-out images, whose mean log-probability is recorded as ``validation_log_prob``.

        Returns
        -------
        History
            One record an epoch: ``epoch``, ``step``, ``seconds``, ``lr``, ``loss`` and ``log_prob``, in nats an image.

        Raises
        ------
        ValueError, TypeError
            A wrong argument.
        DivergenceError
            The loss or a parameter is no longer finite; the last good checkpoint is untouched.
        """
        data = self._as_images("PixelCNN.fit", "X", X)
        held_out = None if validation is None else self._as_images("PixelCNN.fit", "validation", validation)
        options = Options(
            epochs, batch_size, lr, clip_norm, patience, "validation_log_prob", checkpoint, checkpoint_every, resume
        )  # fmt: skip
        return self._learn(data, held_out, optimizer, options, callbacks, progress, recorded={})

    # --- sampling ---------------------------------------------------------------------------------------------

    def sample(
        self,
        n: int,
        *,
        method: Method = "cached",
        partial: Any = None,
        temperature: float = 1.0,
        key: KeyLike | None = None,
    ) -> NDArray[np.uint8]:
        """Draw images, or complete one.

        Parameters
        ----------
        n : int
            Images.
        method : {"cached", "naive"}
            One compiled call that computes each activation once; or one forward pass over the whole image for each
            pixel. The images are the same, bit for bit.
        partial : (H, W, C), (H, W) or (n, H, W, C) array_like, optional
            Pixels that stay; NaN where they are to be drawn (a float array), or a `numpy.ma.MaskedArray`. Pixels are
            drawn given those before them in raster order, kept ones included.
        temperature : float
            Logits are divided by it.
        key : Key, int or Generator, optional
            Random numbers; default: the model's own next key.

        Returns
        -------
        (n, H, W, C) uint8
            0 and 1, or levels.
        """
        n = count("PixelCNN.sample", "n", n)
        self._checked_method(method)
        given, keep = self._partial(partial, n)
        number = as_key(self.key(key))
        if method == "naive":
            return self._sample_naively(n, given, keep, temperature, number)
        return conv.pixel_sample(
            self.layers(), (n, *self.shape), number, channel_groups=self.shape[2], levels=self.levels,
            temperature=temperature, given=given, keep=keep,
        )  # fmt: skip

    def layers(self) -> list[conv.PixelLayer]:
        """The model as a stack of layers, as `pixel_stack` and `pixel_sample` take it."""
        layers: list[conv.PixelLayer] = []

        def add(layer: MaskedConv2d, src: int) -> int:
            layers.append(
                conv.PixelLayer("conv", src, 0, layer.weight, layer.bias, layer.mask, layer.activation)
            )
            return len(layers)

        def rectified(src: int) -> int:
            layers.append(conv.PixelLayer("relu", src))
            return len(layers)

        x = add(self.first, 0)
        for block in self.blocks:
            y = add(block.widen, add(block.spread, add(block.narrow, rectified(x))))
            layers.append(conv.PixelLayer("add", x, y))
            x = len(layers)
        x = rectified(x)
        for layer in self.head:
            x = add(layer, x)
        return layers

    def _sample_naively(
        self, n: int, given: Any, keep: Any, temperature: float, key: int
    ) -> NDArray[np.uint8]:
        height, width, channels = self.shape
        images = np.zeros((n, *self.shape), np.uint8)
        for place in range(height * width * channels):
            y, x, c = place // (width * channels), place // channels % width, place % channels
            with no_grad():
                logits = np.asarray(self.forward(images))[:, y, x].reshape(n, channels, -1)[:, c]
            drawn = conv.pixel_draw(np.ascontiguousarray(logits), key, place, temperature=temperature)
            if keep is not None:
                drawn = np.where(keep[:, y, x, c] != 0, given[:, y, x, c], drawn)
            images[:, y, x, c] = drawn
        return images

    # --- arguments --------------------------------------------------------------------------------------------

    def _partial(self, partial: Any, n: int) -> tuple[Any, Any]:
        """The images to complete, and where they stay."""
        if partial is None:
            return None, None
        also = (self.shape[:2],) if self.shape[2] == 1 else ()
        values, keep = self._known(partial, n, self.shape, *also)
        images = self._as_images("PixelCNN.sample", "partial", values)
        return np.ascontiguousarray(np.broadcast_to(images, (n, *self.shape))), keep

    def _as_images(self, op: str, name: str, X: Any) -> NDArray[np.uint8]:
        """Levels (n, H, W, C), converted once."""
        array = np.asarray(X.toarray() if hasattr(X, "toarray") else X)
        flat = int(np.prod(self.shape))
        allowed = [self.shape, (flat,)] + ([self.shape[:2]] if self.shape[2] == 1 else [])
        if array.dtype.kind not in "buif":
            raise TypeError(f"{op}: expected {name} to hold numbers, received dtype {array.dtype}")
        if array.ndim == 0 or array.shape[1:] not in allowed:
            raise ValueError(
                f"{op}: expected {name} of shape (n, {', '.join(map(str, self.shape))}) or (n, {flat}), "
                f"received {array.shape}"
            )
        images = array.reshape(-1, *self.shape)
        levels = images.astype(np.uint8) if images.dtype.kind == "b" else images
        wrong = ~((levels >= 0) & (levels < self.levels) & (levels == np.floor(levels)))
        if wrong.any():
            place = tuple(int(i[0]) for i in np.nonzero(wrong))
            raise ValueError(
                f"{op}: expected {name} to hold integers from 0 to {self.levels - 1}, "
                f"received {images[place]} at {place}"
            )
        return np.ascontiguousarray(levels, np.uint8)
