"""Pixel recurrent neural networks: the Row LSTM and the Diagonal BiLSTM (van den Oord et al. 2016)."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gencore._checks import count
from gencore.autograd import no_grad
from gencore.autograd.tensors import plain
from gencore.kernels import conv, dense, recurrent
from gencore.kernels._arrays import contiguous, full
from gencore.models._pixel_model import LayerStack, Output, PixelModel
from gencore.nn import Module, init
from gencore.nn.module import parameter

__all__ = ["DiagonalBiLSTM", "RowLSTM"]


class _Layer(Module):
    """x + widen(lstm(x)): 2h -> h by the cells, h -> 2h by a 1x1 convolution.

    `sweeps` LSTMs side by side read the map by one kernel (`reach` columns, masked as type B), and their own states by
    two or three taps.
    """

    sweeps: int
    taps: int
    reach: int

    def __init__(self, h: int, model: PixelModel) -> None:
        super().__init__()
        self.groups = model.shape[2]
        columns, seen = 4 * self.sweeps * h, (self.reach // 2 + 1) * 2 * h
        draw = init.uniform(seen**-0.5)
        self.weight_input = parameter(draw((1, self.reach, 2 * h, columns), model.keys))
        draw = init.uniform((self.taps * h) ** -0.5)
        self.weight_state = parameter(draw((self.sweeps, self.taps, h, 4 * h), model.keys))
        bias = np.zeros((self.sweeps, 4, h), np.float32)
        bias[:, 1] = 1  # of the forget gate
        self.bias = parameter(bias.reshape(-1))
        self.widen = model.masked(h, 2 * h, 1, "B")

    @abstractmethod
    def states(self, x: Any) -> Any:
        """(N, H, W, 2h) -> (N, H, W, h)."""

    def forward(self, x: Any) -> Any:
        """(N, H, W, 2h) -> the same."""
        return x + self.widen(self.states(x))

    def swept(self, x: Any, path: recurrent.Path) -> Any:
        """The states of all sweeps."""
        w_input: Any = self.weight_input
        w_state: Any = self.weight_state
        bias: Any = self.bias
        return recurrent.lstm_of_map(x, w_input, w_state, bias, path, channel_groups=self.groups)

    def sums(self, x: Any) -> Any:
        """The part of the gates' sums that comes from the map."""
        weight: Any = self.weight_input
        bias: Any = self.bias
        return recurrent.input_to_state(x, weight, bias, sweeps=self.sweeps, channel_groups=self.groups)


class _RowLayer(_Layer):
    sweeps, taps, reach = 1, 3, 3

    def states(self, x: Any) -> Any:
        """Row by row."""
        return self.swept(x, "rows")


class _DiagonalLayer(_Layer):
    sweeps, taps, reach = 2, 2, 1

    def states(self, x: Any) -> Any:
        """Diagonal by diagonal, from the left and from the right."""
        return recurrent.both_sweeps(self.swept(x, "diagonals"))


# --- sampling: a layer's states as far as they are known ------------------------------------------------------


class _Cache:
    """What a layer keeps while images are drawn: its map in this row, states of this row and of the one above.

    Rows of states have a column of zeros on either side. Whatever is computed of a pixel may be computed again, with
    its next colour: nothing that it reads is overwritten.
    """

    def __init__(self, layer: _Layer, n: int, width: int) -> None:
        self.layer, self.n, self.width = layer, n, width
        sweeps, taps, h = layer.weight_state.shape[:3]
        self.h, self.weights = h, plain(layer.weight_state).reshape(sweeps, taps * h, 4 * h)
        self.x = self.zeros(n, 1, width, 2 * h)
        self.above, self.here, self.cells_above, self.cells = (self.no_states() for _ in range(4))

    def zeros(self, *shape: int) -> Any:
        """An array where the weights are."""
        return full(self.weights, shape, 0, np.float32)

    def no_states(self) -> Any:
        """States of a row, none yet."""
        return self.zeros(self.n, self.width + 2, self.h)

    def new_row(self) -> None:
        """Go to the next row: this one is complete."""
        self.above, self.here = self.here, self.above
        self.cells_above, self.cells = self.cells, self.cells_above

    @abstractmethod
    def states(self, column: int) -> NDArray[np.float32]:
        """(N, h) at a column of this row, whose map is known up to there."""

    def advance(self, x: Any, column: int) -> Any:
        """The layer's map (N, 1, 1, 2h) at a column, from that of the layer before."""
        self.x[:, :, column : column + 1] = x
        return x + self.layer.widen(self.states(column).reshape(self.n, 1, 1, self.h))

    def product(self, sweep: int, *met: NDArray[np.float32]) -> NDArray[np.float32]:
        """The part of the gates' sums that comes from the states that taps meet, each (..., h)."""
        states = np.concatenate(met, axis=-1)
        sums = dense.matmul(states.reshape(-1, states.shape[-1]), self.weights[sweep])
        return sums.reshape(*states.shape[:-1], 4 * self.h)

    def sums(self, column: int) -> NDArray[np.float32]:
        """The part that comes from the map, (N, gates)."""
        first = max(column - self.layer.reach // 2, 0)
        part = contiguous(self.x[:, :, first : column + 1])
        sums: NDArray[np.float32] = plain(self.layer.sums(part))[:, 0, -1]
        return sums


def _cell(x: NDArray[np.float32], states: NDArray[np.float32], before: NDArray[np.float32]) -> Any:
    """`lstm_cell` of parts of arrays."""
    return recurrent.lstm_cell(*map(contiguous, (x, states, before)))


class _RowCache(_Cache):
    def __init__(self, layer: _Layer, n: int, width: int) -> None:
        super().__init__(layer, n, width)
        self.from_above = self.zeros(n, width, 4 * self.h)

    def new_row(self) -> None:
        super().new_row()
        self.from_above = self.product(0, *(self.above[:, j : j + self.width] for j in range(3)))

    def states(self, column: int) -> NDArray[np.float32]:
        at = column + 1
        h, c = _cell(self.sums(column), self.from_above[:, column], self.cells_above[:, at])
        self.here[:, at], self.cells[:, at] = h, c
        return h  # type: ignore[no-any-return]


class _DiagonalCache(_Cache):
    def __init__(self, layer: _Layer, n: int, width: int) -> None:
        super().__init__(layer, n, width)
        self.right = self.no_states()  # of the sweep from the right, one row above

    def new_row(self) -> None:
        super().new_row()
        sums = plain(self.layer.sums(self.x))[:, 0, :, 4 * self.h :]
        here, c = self.no_states(), self.zeros(self.n, self.h)
        for at in range(self.width, 0, -1):
            states = self.product(1, self.right[:, at], here[:, at + 1])
            here[:, at], c = _cell(sums[:, at - 1], states, c)
        self.right = here

    def states(self, column: int) -> NDArray[np.float32]:
        at = column + 1
        states = self.product(0, self.above[:, at], self.here[:, at - 1])
        h, c = _cell(self.sums(column)[:, : 4 * self.h], states, self.cells[:, at - 1])
        self.here[:, at], self.cells[:, at] = h, c
        return h + self.right[:, at]  # type: ignore[no-any-return]


# --- models ---------------------------------------------------------------------------------------------------


class _RecurrentModel(PixelModel):
    """A 7x7 convolution of type A, residual LSTM layers, and a head of 1x1 layers."""

    layer: type[_Layer]
    cache: type[_Cache]

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
        n_mixtures: int = 10,
        n_hidden: int = 32,
        n_classes: int = 0,
        seed: int = 0,
    ) -> None:
        n_blocks = count(type(self).__name__, "n_blocks", n_blocks)
        super().__init__(
            seed, height=height, width=width, channels=channels, output=output, levels=levels, n_mixtures=n_mixtures,
            n_classes=n_classes, grouped={"n_features": n_features, "n_hidden": n_hidden}, n_blocks=n_blocks,
        )  # fmt: skip
        self.first = self.of_class(self.masked(channels, 2 * n_features, 7, "A"))
        self.blocks = [self.layer(n_features, self) for _ in range(n_blocks)]
        self.head = self.make_head(2 * n_features, n_hidden)
        self.eval()

    def first_layers(self) -> list[conv.PixelLayer]:
        """From the image to the first map."""
        stack = LayerStack()
        stack.conv(self.first, 0)
        return stack.layers

    def head_layers(self) -> list[conv.PixelLayer]:
        """From the last LSTM layer's map to the logits."""
        stack = LayerStack()
        x = stack.relu(0)
        for layer in self.head:
            x = stack.conv(layer, x)
        return stack.layers

    def stack(self, x: Any, layers: list[conv.PixelLayer], labels: Any) -> Any:
        """The last map of a stack of layers."""
        return conv.pixel_stack(
            x, layers, channel_groups=self.shape[2], labels=labels, n_classes=self.n_classes
        )

    def forward(self, images: Any, labels: Any = None) -> Any:
        """Levels (N, H, W, C) uint8 -> (N, H, W, n_logits); what is of a pixel sees earlier ones alone."""
        x = self.stack(self.scaled(images), self.first_layers(), labels)
        for block in self.blocks:
            x = block(x)
        return self.stack(x, self.head_layers(), labels)

    def sample_cached(
        self, n: int, labels: Any, given: Any, keep: Any, temperature: float, key: int
    ) -> NDArray[np.uint8]:
        """`sample` by the method "cached": each pixel's activations once, or once for each of its colours.

        A loop over the pixels in Python, of compiled steps on all n images.
        """
        height, width, channels = self.shape
        labels, given, keep = map(self._here, (labels, given, keep))
        like = self.like()
        images: NDArray[np.uint8] = full(like, (n, *self.shape), 0, np.uint8)
        margin = full(like, (n, height + 3, width + 6, channels), 0, np.float32)  # what the first layer reads
        first, head = self.first_layers(), self.head_layers()
        caches = [self.cache(block, n, width) for block in self.blocks]
        with no_grad():
            for place in range(height * width * channels):
                y, x, c = place // (width * channels), place // channels % width, place % channels
                if y > 0 and x == 0 and c == 0:
                    for cache in caches:
                        cache.new_row()
                window = contiguous(margin[:, y : y + 4, x : x + 7])
                maps = plain(self.stack(window, first, labels))[:, 3:, 3:4]
                for cache in caches:
                    maps = plain(cache.advance(maps, x))
                logits = plain(self.stack(contiguous(maps), head, labels))
                drawn = self.draw(logits.reshape(n, channels, -1)[:, c], place, temperature, key)
                if keep is not None:
                    drawn = np.where(keep[:, y, x, c] != 0, given[:, y, x, c], drawn)
                images[:, y, x, c] = drawn
                margin[:, y + 3, x + 3, c] = self.scaled(drawn)
        return images


class RowLSTM(_RecurrentModel):
    """Exact autoregressive model of images by LSTMs that go from the top down, all pixels of a row side by side.

    A 7x7 convolution of type A, residual layers 2h -> h -> 2h, a head of 1x1 layers as `PixelCNN`'s. A layer's cells
    see their row by a convolution of type B, 3 wide, and the states above by one that is 3 wide, too: a triangle above
    each pixel, that reaches to the top.

    Parameters
    ----------
    height, width, channels, output, levels, n_mixtures, n_hidden, seed
        As in `PixelCNN`.
    n_features : int
        h: cells of a layer, of which every pixel has its states; a multiple of `channels`. Colours of a pixel see
        earlier ones, and all of the pixels before.
    n_blocks : int
        LSTM layers, each on a 1x1 convolution's way back to 2h features and added to what it read.
    n_classes : int
        0; or that of the ``labels`` on which images depend: they choose the biases of the first layer and of the first
        1x1 layer of the head.

    Notes
    -----
    Source: van den Oord, Kalchbrenner & Kavukcuoglu (2016), "Pixel recurrent neural networks".

    Examples
    --------
    >>> import gencore as gc
    >>> data = gc.datasets.load("digits")
    >>> model = gc.models.RowLSTM(8, 8, n_features=4, n_blocks=1, seed=0)
    >>> history = model.fit(data.train, epochs=1, progress=False)
    >>> model.log_prob(data.test[:5]).shape
    (5,)
    >>> model.sample(2).shape
    (2, 8, 8, 1)
    """

    layer, cache = _RowLayer, _RowCache


class DiagonalBiLSTM(_RecurrentModel):
    """Exact autoregressive model of images by LSTMs along both diagonals, which see all of the image above a pixel.

    As `RowLSTM`, with other layers: their cells see their pixel, the states above and before it in the row, in a sweep
    from the left and one from the right, which goes in one row further down. So a pixel sees all before it but one: the
    last of the row above, whose own map does not see it (the first layer is of type A), is seen by the pixels whose 7x7
    window reaches it, and by all rows below.

    Parameters
    ----------
    height, width, channels, n_features, n_blocks, output, levels, n_mixtures, n_hidden, n_classes, seed
        As in `RowLSTM`.

    Notes
    -----
    Source: van den Oord, Kalchbrenner & Kavukcuoglu (2016), "Pixel recurrent neural networks".

    Examples
    --------
    >>> import gencore as gc
    >>> data = gc.datasets.load("digits")
    >>> model = gc.models.DiagonalBiLSTM(8, 8, n_features=4, n_blocks=1, seed=0)
    >>> history = model.fit(data.train, epochs=1, progress=False)
    >>> model.log_prob(data.test[:5]).shape
    (5,)
    >>> model.sample(2).shape
    (2, 8, 8, 1)
    """

    layer, cache = _DiagonalLayer, _DiagonalCache
