"""Recurrent layers."""

from __future__ import annotations

from typing import Any

import numpy as np

from gencore._checks import count
from gencore.autograd.tensors import plain
from gencore.kernels import recurrent
from gencore.kernels._arrays import full
from gencore.nn import init as initial
from gencore.nn.layers import generator_of
from gencore.nn.module import Module, parameter
from gencore.random import KeyLike

__all__ = ["LSTM"]


class _Layer(Module):
    """One layer's parameters."""

    def __init__(self, n_in: int, n_hidden: int, bias: bool, keys: Any) -> None:
        super().__init__()
        draw = initial.uniform(n_hidden**-0.5)
        self.weight_ih = parameter(draw((n_in, 4 * n_hidden), keys))
        self.weight_hh = parameter(draw((n_hidden, 4 * n_hidden), keys))
        start = np.zeros(4 * n_hidden, np.float32)
        start[n_hidden : 2 * n_hidden] = 1
        self.bias = parameter(start) if bias else None


class LSTM(Module):
    """Layers of long short-term memory along sequences (N, T, n_in), the batch first.

    Parameters
    ----------
    n_in, n_hidden : int
        Units of the input, and of the state of each layer.
    n_layers : int
        Each reads the states of the one before.
    bias : bool
        Whether there is one.
    key : Key, int or Generator, optional
        Where the initial weights come from. None: from the operating system, other ones each time.

    Attributes
    ----------
    layers : list of Module
        Each with ``weight_ih`` (inputs, 4 n_hidden), ``weight_hh`` (n_hidden, 4 n_hidden) and ``bias`` (4 n_hidden,),
        gates i, f, g and o one after the other. They are the transposes of PyTorch's, whose two biases are one here.
        Weights start uniform on +-1 / sqrt(n_hidden), as PyTorch's; biases at 0, and at 1 for the forget gate f
        (Jozefowicz, Zaremba & Sutskever 2015).

    Examples
    --------
    >>> import gencore as gc
    >>> layer = gc.nn.LSTM(3, 5, key=1)
    >>> h, (h_n, c_n) = layer(np.zeros((2, 7, 3), np.float32))
    >>> h.shape, h_n.shape, c_n.shape
    ((2, 7, 5), (1, 2, 5), (1, 2, 5))
    """

    def __init__(
        self, n_in: int, n_hidden: int, n_layers: int = 1, *, bias: bool = True, key: KeyLike | None = None
    ) -> None:
        super().__init__()
        self.n_in, self.n_hidden = count("LSTM", "n_in", n_in), count("LSTM", "n_hidden", n_hidden)
        self.n_layers, keys = count("LSTM", "n_layers", n_layers), generator_of(key)
        self.layers = [
            _Layer(n_hidden if i > 0 else n_in, n_hidden, bias, keys) for i in range(self.n_layers)
        ]

    def forward(self, x: Any, state: tuple[Any, Any] | None = None) -> Any:
        """Sequences and states before the first step -> states of the last layer, and all layers' last states.

        Parameters
        ----------
        x : (N, T, n_in) float32
            Sequences of at least one step.
        state : pair of (n_layers, N, n_hidden) float32, optional
            h and c of each layer; 0 by default.

        Returns
        -------
        h : (N, T, n_hidden)
            States of the last layer.
        (h_n, c_n) : pair of (n_layers, N, n_hidden)
            Where each layer ended: a `state` to go on from.
        """
        if state is not None:
            expected = (self.n_layers, x.shape[0], self.n_hidden)
            for name, part in zip(("h", "c"), state, strict=True):
                if part.shape != expected:
                    raise ValueError(f"LSTM: expected {name} of shape {expected}, received {part.shape}")
        h, last_h, last_c = x, [], []
        for i, layer in enumerate(self.layers):
            h0, c0 = (None, None) if state is None else (state[0][i], state[1][i])
            bias: Any = layer.bias
            if bias is None:
                bias = full(plain(x), (4 * self.n_hidden,), 0, np.float32)
            w_input: Any = layer.weight_ih
            w_hidden: Any = layer.weight_hh
            h, c = recurrent.lstm(h, w_input, w_hidden, bias, h0, c0)
            last_h.append(h[:, -1])
            last_c.append(c)
        return h, (np.stack(last_h), np.stack(last_c))
