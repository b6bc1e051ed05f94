"""Fully visible Bayes nets: logistic (Frey 1998) and with hidden units (Bengio & Bengio 2000)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gencore._checks import count
from gencore.kernels import dense
from gencore.models._masked_net import MaskedNet
from gencore.models._vectors import permutation, sizes
from gencore.random import Generator

__all__ = ["FVBN"]


class FVBN(MaskedNet):
    """Exact autoregressive model of binary vectors whose conditionals have parameters of their own.

    Without hidden units each conditional is a logistic regression on what comes before (the logistic net, also called
    fully visible sigmoid belief net). With `hidden` the net is deep: each dimension has a group of so many hidden units
    in each layer, which see the dimensions before it; its logit sees its own group and those of the dimensions before
    it (Bengio & Bengio 2000). The first dimension has none: nothing comes before it. With the activation "identity"
    that net is linear: distributions of the logistic one, with weights that are products of the layers' matrices.

    Parameters
    ----------
    n_visible : int
        Dimensions D of the data.
    hidden : sequence of int
        Units of a dimension's group in each hidden layer: a layer has D - 1 times as many.
    order : sequence of int, optional
        Which dimension comes first, second, ...: a permutation of 0 to D - 1; by default 0, 1, 2, ...
    activation : {"tanh", "relu", "softplus", "logistic", "identity"}
        Of hidden units.
    n_classes : int
        0, or that of the `labels` on which rows depend: hidden units and logits see the label.
    seed : int
        All randomness follows from it.

    Attributes
    ----------
    layers : list
        Of weights (k, n) and biases (n,), the last of which put out the logits. Weights that would look ahead stay 0.

    Examples
    --------
    >>> import gencore as gc
    >>> data = gc.datasets.load("digits")
    >>> model = gc.models.FVBN(64, seed=0)
    >>> history = model.fit(data.train, epochs=2, progress=False)
    >>> model.log_prob(data.test[:5]).shape
    (5,)
    """

    def __init__(
        self,
        n_visible: int,
        *,
        hidden: Sequence[int] = (),
        order: Sequence[int] | None = None,
        activation: dense.Activation = "tanh",
        n_classes: int = 0,
        seed: int = 0,
    ) -> None:
        visible, groups = count("FVBN", "n_visible", n_visible), sizes("FVBN", "hidden", hidden, least=0)
        dense.activation_code("FVBN", activation)
        places = None if order is None else permutation("FVBN", "order", order, visible)
        classes = count("FVBN", "n_classes", n_classes, least=0)
        super().__init__(
            seed, n_visible=visible, hidden=groups, order=None if places is None else places.tolist(),
            activation=activation, n_classes=classes,
        )  # fmt: skip
        self.activation = activation
        # The group of the dimension at place t + 1 sees places up to t.
        units = [np.repeat(np.arange(visible - 1), size) for size in groups]
        first = np.arange(visible) if places is None else np.argsort(places)
        keys = Generator(int(self.generator.key()))
        self._build([len(u) for u in units], [(first, *units)], direct=False, keys=keys, n_classes=classes)
