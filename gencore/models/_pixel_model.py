"""What exact models of images share: their outputs, classes, learning, and samples pixel by pixel."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from gencore import optim
from gencore._checks import count
from gencore._checks import temperature as temperature_of
from gencore._devices import from_device, to_host
from gencore._states import as_numbers
from gencore.autograd import Tensor, no_grad
from gencore.autograd.tensors import plain
from gencore.kernels import conv
from gencore.kernels._arrays import contiguous
from gencore.kernels._pixels import log_prob_of_map, scaled_levels
from gencore.models._exact import ExactModel, Method
from gencore.nn import MaskedConv2d
from gencore.nn.module import parameter
from gencore.random import Generator, KeyLike, as_key
from gencore.train import Callback, History, Schedule
from gencore.train.fit import Options

__all__ = ["LayerStack", "Output", "PixelModel"]

Output = Literal["bernoulli", "categorical", "discretised_logistic"]
_OUTPUTS = ("bernoulli", "categorical", "discretised_logistic")

_ROWS = 250  # images whose log-probability is computed at a time


class LayerStack:
    """Layers that are added one after the other; numbers of maps come back."""

    def __init__(self) -> None:
        self.layers: list[conv.PixelLayer] = []

    def conv(self, layer: MaskedConv2d, src: int) -> int:
        """``activation(src * weight + bias)``."""
        return self._add("conv", src, 0, layer.weight, layer.bias, layer.mask, layer.activation)

    def relu(self, src: int) -> int:
        """``max(src, 0)``."""
        return self._add("relu", src)

    def gate(self, src: int) -> int:
        """``tanh`` of one half times ``logistic`` of the other."""
        return self._add("gate", src)

    def sum(self, a: int, b: int) -> int:
        """``a + b``."""
        return self._add("add", a, b)

    def _add(self, *arguments: Any) -> int:
        self.layers.append(conv.PixelLayer(*arguments))
        return len(self.layers)


class PixelModel(ExactModel):
    """An `ExactModel` of images (H, W, C): each pixel given those before it in raster order, colour after colour.

    A subclass passes what it takes itself to ``super().__init__``, and builds layers whose last one puts out
    ``self.n_logits`` channels; it has `forward` and `sample_cached`.

    What models of images take besides their own arguments:

    height, width : int
        Of the images.
    channels : int
        1, or the colours, whose features are kept apart as many groups.
    output : {"bernoulli", "categorical", "discretised_logistic"}
        A pixel is 0 or 1; or one of `levels` values, with a logit each, or under a mixture of logistics
        (`gencore.kernels.dense.logistic_mixture_log_prob`).
    levels : int
        Values of a pixel where it is not 0 or 1, 2 to 256: integers 0 to ``levels - 1``.
    n_mixtures : int
        Logistics of each colour of a pixel.
    n_classes : int
        0, or that of the `labels` on which images depend.
    """

    def __init__(
        self,
        seed: int,
        *,
        height: int,
        width: int,
        channels: int,
        output: str,
        levels: int,
        n_mixtures: int,
        n_classes: int,
        grouped: Mapping[str, int],
        **own: Any,
    ) -> None:
        kind = type(self).__name__
        sizes = {"height": height, "width": width, "channels": channels, "levels": levels, "n_mixtures": n_mixtures,
                 **grouped}  # fmt: skip
        sizes = {name: count(kind, name, value) for name, value in sizes.items()}
        classes = count(kind, "n_classes", n_classes, least=0)
        for name in grouped:  # numbers of features, which the colours share
            if sizes[name] % sizes["channels"] != 0:
                raise ValueError(
                    f"{kind}: expected {name} to be a multiple of channels, {channels}, received {sizes[name]}"
                )
        if output not in _OUTPUTS:
            raise ValueError(
                f"{kind}: expected output to be {', '.join(map(repr, _OUTPUTS[:-1]))} or {_OUTPUTS[-1]!r}, "
                f"received {output!r}"
            )
        if not 2 <= sizes["levels"] <= 256:
            raise ValueError(f"{kind}: expected levels from 2 to 256, received {levels!r}")
        if sizes["n_mixtures"] > 256:
            raise ValueError(f"{kind}: expected n_mixtures from 1 to 256, received {n_mixtures!r}")
        super().__init__(seed, **sizes, n_classes=classes, output=output, **own)
        self.shape = (sizes["height"], sizes["width"], sizes["channels"])
        self.output, self.levels = output, 2 if output == "bernoulli" else sizes["levels"]
        self.n_mixtures = sizes["n_mixtures"] if output == "discretised_logistic" else 0
        self.n_classes = classes
        of_colour = 3 * self.n_mixtures or (1 if self.levels == 2 else self.levels)
        self.n_logits = sizes["channels"] * of_colour
        self.keys = Generator(int(self.generator.key()))  # of initial weights

    # --- its layers -------------------------------------------------------------------------------------------

    def masked(
        self, n_in: int, n_out: int, size: Any, mask: conv.Mask, activation: Any = "identity"
    ) -> MaskedConv2d:
        """A layer of the model's colours; those of rows above are all known."""
        groups = self.shape[2] if mask in ("A", "B") else 1
        return MaskedConv2d(n_in, n_out, size, mask, activation, channel_groups=groups, key=self.keys)

    def of_class(self, layer: MaskedConv2d) -> MaskedConv2d:
        """The layer, with a bias for each class if the model has classes."""
        shape = (self.n_classes, layer.n_out) if self.n_classes else (layer.n_out,)
        layer.bias = parameter(np.zeros(shape, np.float32))
        return layer

    def make_head(self, features: int, hidden: int) -> list[MaskedConv2d]:
        """relu, 1x1, relu, 1x1, relu, 1x1; the first relu is no layer of this list."""
        return [
            self.of_class(self.masked(features, hidden, 1, "B", "relu")),
            self.masked(hidden, hidden, 1, "B", "relu"),
            self.masked(hidden, self.n_logits, 1, "B"),
        ]

    # --- what it computes -------------------------------------------------------------------------------------

    @abstractmethod
    def forward(self, images: Any, labels: Any = None) -> Any:
        """Levels (N, H, W, C) uint8 -> (N, H, W, n_logits); what is of a pixel sees earlier ones alone."""

    def scaled(self, images: NDArray[np.uint8]) -> Any:
        """Levels as layers read them: floats from 0 to 1."""
        return scaled_levels(images, self.levels)

    def log_prob_of(self, x: Any) -> Any:
        """Log-probability of images as kernels take them, or of those and their labels: (n,), differentiable."""
        images, labels = x if isinstance(x, tuple) else (x, None)
        return log_prob_of_map(self.forward(images, labels), images, self.levels, self.n_mixtures)

    def log_prob(self, X: Any, labels: Any = None) -> NDArray[np.float64]:
        """Exact log-probability of each image, nats.

        Parameters
        ----------
        X : (n, H, W, C), (n, H, W) with one colour, or (n, H W C) array_like
            Images: 0 and 1, or levels.
        labels : (n,) or () array_like of int, optional
            Class of each image, or of all, for a model of classes.

        Returns
        -------
        (n,) float64
        """
        return self._log_prob_in_parts(
            self._as_data(f"{type(self).__name__}.log_prob", "X", X, labels), _ROWS
        )

    # --- learning ---------------------------------------------------------------------------------------------

    def fit(
        self,
        X: Any,
        labels: Any = None,
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
        X, labels : array_like
            Images and, for a model of classes, their labels, as `log_prob` takes them.
        epochs, batch_size : int
            Passes over the data, images of an update.
        lr : float or Schedule
            Learning rate, or a function from the fraction of the training done to one (`gencore.train`).
        optimizer : {"rmsprop", "adam", "adamw", "sgd", "adagrad", "adadelta"}, or callable
            Of `gencore.optim`, with its defaults; or a function from a list of parameters to an optimizer.
        clip_norm, patience, callbacks, progress, checkpoint, checkpoint_every, resume
            As in `gencore.train.fit`; patience watches ``validation_log_prob``.
        validation : array_like, or tuple of two, optional
            Held-out images, or those and their labels, whose mean log-probability is recorded as
            ``validation_log_prob``.

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
        op = f"{type(self).__name__}.fit"
        data, held_out = self._as_data(op, "X", X, labels), self._as_held_out(op, validation, "images")
        options = Options(
            epochs, batch_size, lr, clip_norm, patience, "validation_log_prob", checkpoint, checkpoint_every, resume,
            callbacks,
        )  # fmt: skip
        return self._learn(data, held_out, optimizer, options, progress, recorded={})

    # --- sampling ---------------------------------------------------------------------------------------------

    def sample(
        self,
        n: int,
        *,
        labels: Any = None,
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
        labels : (n,) or () array_like of int, optional
            Class of each image, or of all, for a model of classes.
        method : {"cached", "naive"}
            One that computes each activation once; or one forward pass over the whole image for each pixel. The images
            are the same, bit for bit.
        partial : (H, W, C), (H, W) or (n, H, W, C) array_like, optional
            Pixels that stay; NaN where they are to be drawn (a float array), or a `numpy.ma.MaskedArray`. Pixels are
            drawn given those before them in raster order, kept ones included.
        temperature : float
            Logits, or log-probabilities of levels, are divided by it; 1e-30 to 1e30.
        key : Key, int or Generator, optional
            Random numbers; default: the model's own next key.

        Returns
        -------
        (n, H, W, C) uint8
            0 and 1, or levels; where the model is.

        Raises
        ------
        ValueError, TypeError
            A wrong argument; a parameter that is not finite (on a device, where no values are looked at, what is drawn
            by it means nothing).
        """
        op = f"{type(self).__name__}.sample"
        n = count(op, "n", n)
        self._checked_method(method)
        self._check_parameters(op)
        heat = temperature_of(op, temperature)
        classes = self._as_labels(op, labels, n)
        given, keep = self._partial(partial, n)
        draw = self.sample_cached if method == "cached" else self._sample_naively
        return draw(n, classes, given, keep, heat, as_key(self.key(key)))

    @abstractmethod
    def sample_cached(
        self, n: int, labels: Any, given: Any, keep: Any, temperature: float, key: int
    ) -> NDArray[np.uint8]:
        """`sample` by the method "cached", of arguments as kernels take them."""

    def draw(self, logits: Any, place: int, temperature: float, key: int) -> NDArray[np.uint8]:
        """Draw one colour of one pixel of each image from what the model says of it, (n, logits of a colour)."""
        return conv.pixel_draw(
            contiguous(logits), key, place, n_mixtures=self.n_mixtures, levels=self.levels,
            temperature=temperature,
        )  # fmt: skip

    def _sample_naively(
        self, n: int, labels: Any, given: Any, keep: Any, temperature: float, key: int
    ) -> NDArray[np.uint8]:
        height, width, channels = self.shape
        images, labels = np.zeros((n, *self.shape), np.uint8), self._here(labels)
        for place in range(height * width * channels):
            y, x, c = place // (width * channels), place // channels % width, place % channels
            with no_grad():
                last = to_host(plain(self.forward(self._here(images), labels)))
                logits = last[:, y, x].reshape(n, channels, -1)[:, c]
            drawn = self.draw(logits, place, temperature, key)
            if keep is not None:
                drawn = np.where(keep[:, y, x, c] != 0, given[:, y, x, c], drawn)
            images[:, y, x, c] = drawn
        drawn_images: NDArray[np.uint8] = self._here(images)
        return drawn_images

    # --- arguments --------------------------------------------------------------------------------------------

    def _partial(self, partial: Any, n: int) -> tuple[Any, Any]:
        """The images to complete, and where they stay."""
        if partial is None:
            return None, None
        also = (self.shape[:2],) if self.shape[2] == 1 else ()
        values, keep = self._known(partial, n, self.shape, *also)
        images = self._as_examples(f"{type(self).__name__}.sample", "partial", values)
        return np.ascontiguousarray(np.broadcast_to(images, (n, *self.shape))), keep

    def _as_examples(self, op: str, name: str, X: Any) -> NDArray[np.uint8]:
        """Levels (n, H, W, C), converted once."""
        array = as_numbers(op, name, from_device(X))
        flat = int(np.prod(self.shape))
        allowed = [self.shape, (flat,)] + ([self.shape[:2]] if self.shape[2] == 1 else [])
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
