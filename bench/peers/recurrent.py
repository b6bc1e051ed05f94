"""LSTMs of the peers: torch.nn.LSTM, a loop over the columns of the skewed map, and a scan of JAX's."""

from typing import Any

import numpy as np

from gencore._bench.measure import Candidate
from gencore._bench.reference import Array
from gencore._bench.registry import does, lacks
from gencore._bench.works.recurrent import Diagonal, Lstm
from peers.common import jax_with, torch_with

lacks("lstm", "compile", "runs torch.nn.LSTM as it is")
for _kind in ("lstm", "diagonal_bilstm"):
    lacks(_kind, "numba", "has no LSTM")
lacks("diagonal_bilstm", "jax", "would scan over the skewed map as PyTorch loops over it")
lacks("diagonal_bilstm", "compile", "unrolls 55 steps, forward and back, for minutes")


@does("lstm", "torch")
def lstm_torch(p: Lstm, threads: int) -> Candidate:
    torch = torch_with(threads)
    with torch.enable_grad():
        layer = torch.nn.LSTM(p.x.shape[2], p.w_hidden.shape[0], batch_first=True)
    for name, value in (
        ("weight_ih_l0", p.w_input.T),
        ("weight_hh_l0", p.w_hidden.T),
        ("bias_ih_l0", p.bias),
        ("bias_hh_l0", np.zeros_like(p.bias)),
    ):
        getattr(layer, name).copy_(torch.from_numpy(np.ascontiguousarray(value)))
    x, grad = torch.from_numpy(p.x.copy()).requires_grad_(True), torch.from_numpy(p.grad.copy())

    @torch.enable_grad()  # type: ignore[untyped-decorator]
    def call() -> Any:
        x.grad = None
        layer.zero_grad(set_to_none=True)
        h, _ = layer(x)
        h.backward(grad)
        return h

    def sample() -> list[Array]:
        h = call().detach().numpy()
        grads = [x.grad, layer.weight_ih_l0.grad.T, layer.weight_hh_l0.grad.T, layer.bias_ih_l0.grad]
        return [h, *(g.numpy() for g in grads)]

    return Candidate(call, sample)


@does("lstm", "jax")
def lstm_jax(p: Lstm, threads: int) -> Candidate:
    jax = jax_with(threads)
    arrays, grad = [jax.numpy.asarray(a) for a in p[:4]], jax.numpy.asarray(p.grad)
    sigmoid, tanh = jax.nn.sigmoid, jax.numpy.tanh

    def layer(x: Any, w_input: Any, w_hidden: Any, bias: Any) -> Any:
        z = (x @ w_input + bias).swapaxes(0, 1)  # one product for all steps

        def step(state: Any, z_t: Any) -> Any:
            h, c = state
            i, f, g, o = jax.numpy.split(z_t + h @ w_hidden, 4, axis=1)
            c = sigmoid(f) * c + sigmoid(i) * tanh(g)
            h = sigmoid(o) * tanh(c)
            return (h, c), h

        zeros = jax.numpy.zeros((x.shape[0], w_hidden.shape[0]), x.dtype)
        return jax.lax.scan(step, (zeros, zeros), z)[1].swapaxes(0, 1)

    @jax.jit
    def run(*arguments: Any) -> Any:
        h, back = jax.vjp(layer, *arguments)
        return h, *back(grad)

    return Candidate(
        lambda: jax.block_until_ready(run(*arrays)), lambda: [np.asarray(a) for a in run(*arrays)]
    )


def skewed(torch: Any, x: Any) -> Any:
    """(N, Y, X, ...) -> (Y + X - 1, N, Y, ...): row y moved y columns to the right, columns first."""
    n, height, width, *rest = x.shape
    padded = torch.nn.functional.pad(x.reshape(n, height, width, -1), (0, 0, 0, height))
    flat = padded.reshape(n, height * (width + height), -1)[:, : height * (width + height - 1)]
    return flat.reshape(n, height, width + height - 1, *rest).movedim(2, 0)


def unskewed(torch: Any, x: Any, width: int) -> Any:
    """Back to (N, Y, X, ...)."""
    steps, n, height, *rest = x.shape
    flat = x.movedim(0, 2).reshape(n, height * steps, -1)
    padded = torch.nn.functional.pad(flat, (0, 0, 0, height)).reshape(n, height, steps + 1, *rest)
    return padded[:, :, :width]


def diagonal_states(torch: Any, x: Any, w_input: Any, w_state: Any, bias: Any) -> Any:
    """Both directions as a batch of two products a step."""
    n, height, width, _ = x.shape
    units = w_state.shape[2]
    z = (x @ w_input + bias).reshape(n, height, width, 2, 4 * units)
    z = torch.stack([z[:, :, :, 0], z[:, :, :, 1].flip(2)], 3)
    inside = skewed(torch, torch.ones(1, height, width, 1))[..., None]  # states beyond the image are 0
    z, weights = skewed(torch, z), w_state.reshape(2, 2 * units, 4 * units)
    h = c = torch.zeros(n, height, 2, units)
    found = []
    for z_t, here in zip(z, inside, strict=True):
        above = torch.nn.functional.pad(h, (0, 0, 0, 0, 1, 0))[:, :-1]
        met = torch.cat([above, h], 3).movedim(2, 0).reshape(2, n * height, 2 * units)
        i, f, g, o = (z_t + torch.bmm(met, weights).reshape(2, n, height, -1).movedim(0, 2)).chunk(4, 3)
        c = here * (f.sigmoid() * c + i.sigmoid() * g.tanh())
        h = o.sigmoid() * c.tanh()
        found.append(h)
    both = unskewed(torch, torch.stack(found), width)
    right = torch.nn.functional.pad(both[:, :-1, :, 1].flip(2), (0, 0, 0, 0, 1, 0))
    return both[:, :, :, 0] + right


@does("diagonal_bilstm", "torch")
def diagonal_torch(p: Diagonal, threads: int) -> Candidate:
    torch = torch_with(threads)
    leaves = [torch.tensor(a, requires_grad=True) for a in p[:4]]
    grad = torch.tensor(p.grad)

    @torch.enable_grad()  # type: ignore[untyped-decorator]
    def call() -> Any:
        for leaf in leaves:
            leaf.grad = None
        h = diagonal_states(torch, *leaves)
        h.backward(grad)
        return h

    return Candidate(call, lambda: [call().detach().numpy(), *(leaf.grad.numpy() for leaf in leaves)])
