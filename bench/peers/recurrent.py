"""LSTMs of the peers: torch.nn.LSTM, and a scan of JAX's."""

from typing import Any

import numpy as np

from gencore._bench.measure import Candidate
from gencore._bench.reference import Array
from gencore._bench.registry import does, lacks
from gencore._bench.works.recurrent import Lstm
from peers.common import jax_with, torch_with

lacks("lstm", "compile", "runs torch.nn.LSTM as it is")
lacks("lstm", "numba", "has no LSTM")


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
