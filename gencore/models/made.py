"""MADE, the masked autoencoder for distribution estimation (Germain, Gregor, Murray & Larochelle 2015)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from gencore._checks import count, flag
from gencore.kernels import dense, sample
from gencore.models._masked_net import Degrees, MaskedNet
from gencore.models._vectors import permutation, sizes
from gencore.random import Generator

__all__ = ["MADE"]


class MADE(MaskedNet):
    """Exact autoregressive model of binary vectors: a net whose masks let a dimension see those before it.

    A hidden unit of degree m sees inputs at places up to m and hidden units of degrees up to m; dimension d, at place t
    of the order, sees hidden units of degrees below t. Degrees are uniform, in deeper layers from the lowest of the
    layer before.

    Parameters
    ----------
    n_visible : int
        Dimensions D of the data.
    hidden : sequence of int
        Units of the hidden layers.
    n_masks : int
        Masks. Each update learns under the next of them in turn; `log_prob` is the log of the mean of the probabilities
        under all of them, at so many times the cost.
    order : None, "random" or sequence of int
        Which dimension comes first, second, ...: 0, 1, 2, ...; one at random for each mask; or this permutation of 0 to
        D - 1 for all masks.
    direct : bool
        Connect dimensions to those after them past the hidden layers, too.
    activation : {"relu", "softplus", "logistic", "tanh"}
        Of hidden units.
    n_classes : int
        0, or that of the `labels` on which rows depend: hidden units and logits see the label.
    seed : int
        All randomness follows from it, that of the masks included.

    Attributes
    ----------
    layers : list
        Of weights (k, n) and biases (n,): ``model.layers[0].weight``. Weights that no mask lets through stay 0.
    direct : (D, D) Tensor, or None
        The weights past the hidden layers.
    label_weight, label_bias : (n_classes, n) and (n_classes, D) Tensor, or None
        What a label adds to the sums of the first hidden layer, and to the logits.

    Notes
    -----
    With several masks, `sample` deals rows to them at random: draws of the mixture that `log_prob` speaks of.

    Examples
    --------
    >>> import gencore as gc
    >>> data = gc.datasets.load("digits")
    >>> model = gc.models.MADE(64, (100,), seed=0)
    >>> history = model.fit(data.train, epochs=2, progress=False)
    >>> model.log_prob(data.test[:5]).shape
    (5,)
    """

    def __init__(
        self,
        n_visible: int,
        hidden: Sequence[int] = (500,),
        *,
        n_masks: int = 1,
        order: Literal["random"] | Sequence[int] | None = None,
        direct: bool = False,
        activation: dense.Activation = "relu",
        n_classes: int = 0,
        seed: int = 0,
    ) -> None:
        visible, masks = count("MADE", "n_visible", n_visible), count("MADE", "n_masks", n_masks)
        widths = sizes("MADE", "hidden", hidden, least=1)
        dense.activation_code("MADE", activation)
        connected, drawn = flag("MADE", "direct", direct), isinstance(order, str)
        if drawn and order != "random":
            raise ValueError(f"MADE: expected order to be 'random' or a permutation, received {order!r}")
        places = None if drawn or order is None else permutation("MADE", "order", order, visible)
        classes = count("MADE", "n_classes", n_classes, least=0)
        super().__init__(
            seed, n_visible=visible, hidden=widths, n_masks=masks,
            order=order if places is None else places.tolist(), direct=connected, activation=activation,
            n_classes=classes,
        )  # fmt: skip
        self.activation = activation
        keys = Generator(int(self.generator.key()))
        degrees = []
        for _ in range(masks):
            if drawn:
                places = np.argsort(sample.uniform(visible, keys), kind="stable")
            first = np.arange(visible) if places is None else np.argsort(places)
            degrees.append(_degrees(first, widths, keys, ascending=masks == 1))
        self._build(widths, degrees, direct=connected, keys=keys, n_classes=classes)


def _degrees(
    places: NDArray[np.int64], hidden: Sequence[int], keys: Generator, *, ascending: bool
) -> Degrees:
    """Those of one mask. Before there is another one, units can be named by ascending degree, which is quicker."""
    found, top, least = [places], max(len(places) - 1, 1), 0
    for n in hidden:
        drawn = least + np.floor(sample.uniform(n, keys).astype(np.float64) * (top - least)).astype(np.int64)
        found.append(np.sort(drawn) if ascending else drawn)
        least = int(drawn.min())
    return tuple(found)
