"""LSTMs: one product for the inputs of all steps, one a step for the states; the weights' gradients at the end."""

from __future__ import annotations

import numpy as np

from ..measure import Candidate
from ..reference import Array
from ..registry import does, lacks
from ..works.recurrent import Lstm
from .common import ONE

lacks("diagonal_bilstm", "numpy", "has no gradients")


class Layer:
    """Steps first, so that a step's rows lie together; every array is made once."""

    def __init__(self, p: Lstm) -> None:
        n, steps, depth = p.x.shape
        self.p, self.hidden = p, p.w_hidden.shape[0]
        self.x = np.ascontiguousarray(p.x.swapaxes(0, 1)).reshape(steps * n, depth)
        self.grad = np.ascontiguousarray(p.grad.swapaxes(0, 1))
        self.gates = np.empty((steps, n, 4 * self.hidden), np.float32)
        self.sums = np.empty((n, 4 * self.hidden), np.float32)
        self.states, self.cells, self.squashed = (
            np.zeros((steps + 1, n, self.hidden), np.float32) for _ in range(3)
        )

    def forward(self) -> None:
        """Leaves gates, states, cells and tanh of the cells; row 0 of them is before the first step."""
        p, hidden = self.p, self.hidden
        np.matmul(self.x, p.w_input, out=self.gates.reshape(-1, 4 * hidden))
        self.gates += p.bias
        for t, gates in enumerate(self.gates):
            np.matmul(self.states[t], p.w_hidden, out=self.sums)
            gates += self.sums
            i_f, g, o = gates[:, : 2 * hidden], gates[:, 2 * hidden : 3 * hidden], gates[:, 3 * hidden :]
            for part in (i_f, o):  # e^-z overflows for no sum here
                np.negative(part, out=part)
                np.exp(part, out=part)
                part += ONE
                np.reciprocal(part, out=part)
            np.tanh(g, out=g)
            cells = self.cells[t + 1]
            np.multiply(i_f[:, hidden:], self.cells[t], out=cells)
            cells += i_f[:, :hidden] * g
            np.tanh(cells, out=self.squashed[t + 1])
            np.multiply(o, self.squashed[t + 1], out=self.states[t + 1])

    def backward(self) -> list[Array]:
        """Gradients of x, w_input, w_hidden and bias; the gates give way to their gradients."""
        p, hidden, steps = self.p, self.hidden, len(self.gates)
        dc, back, transposed = np.zeros_like(self.cells[0]), None, p.w_hidden.T
        for t in reversed(range(steps)):
            gates, tanh_c = self.gates[t], self.squashed[t + 1]
            i, f, g, o = (gates[:, k * hidden : (k + 1) * hidden] for k in range(4))
            dh = self.grad[t] if back is None else self.grad[t] + back
            dc += dh * o * (ONE - tanh_c * tanh_c)
            after = dc * f
            by_o = dh * tanh_c * o * (ONE - o)
            by_f = after * self.cells[t] * (ONE - f)
            by_g = dc * i * (ONE - g * g)
            np.multiply(dc * g * i, ONE - i, out=i)
            f[...], g[...], o[...] = by_f, by_g, by_o
            dc = after
            if t > 0:
                back = gates @ transposed
        flat = self.gates.reshape(-1, 4 * hidden)
        by_x = (flat @ p.w_input.T).reshape(steps, -1, p.x.shape[2]).swapaxes(0, 1)
        by_hidden = self.states[:-1].reshape(-1, hidden).T @ flat
        return [by_x, self.x.T @ flat, by_hidden, flat.sum(0)]

    def run(self) -> list[Array]:
        """Both."""
        self.forward()
        return [self.states[1:].swapaxes(0, 1), *self.backward()]


@does("lstm", "numpy")
def lstm(p: Lstm, threads: int) -> Candidate:
    layer = Layer(p)
    held = (layer.x, layer.grad, layer.gates, layer.sums, layer.states, layer.cells, layer.squashed)
    return Candidate(layer.run, layer.run, workspace=sum(a.nbytes for a in held))
