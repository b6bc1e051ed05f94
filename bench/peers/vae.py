"""Variational autoencoders of the peers: a training step with each library's own differentiation and Adam, and the
importance-weighted likelihood in chunks of draws.
"""

import numpy as np

from gencore._bench.measure import Candidate
from gencore._bench.reference import Array
from gencore._bench.registry import does, lacks
from gencore._bench.works.vae import Iwae, Layers, VaeStep
from peers.common import ONEDNN_NOTE, compiled, jax_with, onednn, tensors, torch_with

lacks("vae_step", "onednn", "torch's private op has no gradient")
for kind in ("vae_step", "iwae"):
    lacks(kind, "numba", "its np.dot calls SciPy's OpenBLAS")


def jax_softplus(jax):
    """log(1 + e^x) where log1p and exp are vectorised; jax.nn.softplus takes five times as long."""
    numpy = jax.numpy
    return lambda x: numpy.maximum(x, 0) + numpy.log1p(numpy.exp(-abs(x)))


# --- a training step ----------------------------------------------------------------------------------------


def vae_step_by_torch(p: VaeStep, threads: int, compiling: bool) -> Candidate:
    torch = torch_with(threads)
    functional = torch.nn.functional
    # Weights lie as nn.Linear has them, (out, in).
    params = [t.requires_grad_() for t in tensors(torch, *(np.ascontiguousarray(a.T) for a in p.adam.params))]
    (x,) = tensors(torch, p.x)
    optimizer = torch.optim.Adam(params, lr=p.adam.lr, fused=True)

    def forward(params, x):
        net = Layers.of(params)
        h = torch.tanh(functional.linear(x, *net.encoder1))
        h = torch.tanh(functional.linear(h, *net.encoder2))
        mean, logvar = functional.linear(h, *net.mean), functional.linear(h, *net.logvar)
        z = torch.addcmul(mean, torch.exp(0.5 * logvar), torch.randn_like(mean))
        h = torch.tanh(functional.linear(z, *net.decoder1))
        h = torch.tanh(functional.linear(h, *net.decoder2))
        logits = functional.linear(h, *net.out)
        kl = 0.5 * (mean * mean + torch.exp(logvar) - 1 - logvar).sum()
        fit = functional.binary_cross_entropy_with_logits(logits, x, reduction="sum")
        return (fit + kl) / len(x)

    run = compiled(torch)(forward) if compiling else forward

    def call() -> float:
        optimizer.zero_grad(set_to_none=True)
        with torch.enable_grad():
            loss = run(params, x)
            loss.backward()
        optimizer.step()
        return loss.item()

    call()  # makes the state

    def prepare() -> None:
        for t, a, m, v in zip(params, p.adam.params, p.adam.means, p.adam.squares, strict=True):
            state = optimizer.state[t]
            for tensor, start in ((t, a), (state["exp_avg"], m), (state["exp_avg_sq"], v)):
                tensor.copy_(torch.from_numpy(np.ascontiguousarray(start.T)))
            state["step"].fill_(p.adam.step - 1)

    def sample() -> tuple[float, list[Array]]:
        prepare()
        return call(), [t.detach().numpy().T for t in params]

    return Candidate(call, sample, prepare=prepare, workspace=p.adam.nbytes, note="fused=True")


@does("vae_step", "torch")
def vae_step_torch(p: VaeStep, threads: int) -> Candidate:
    return vae_step_by_torch(p, threads, compiling=False)


@does("vae_step", "compile")
def vae_step_compile(p: VaeStep, threads: int) -> Candidate:
    return vae_step_by_torch(p, threads, compiling=True)


@does("vae_step", "jax")
def vae_step_jax(p: VaeStep, threads: int) -> Candidate:
    jax = jax_with(threads)
    numpy, tree = jax.numpy, jax.tree_util.tree_map
    softplus = jax_softplus(jax)
    a, x = p.adam, numpy.asarray(p.x, numpy.float32)

    def loss(params, x, key):
        net = Layers.of(params)
        h = numpy.tanh(x @ net.encoder1[0] + net.encoder1[1])
        h = numpy.tanh(h @ net.encoder2[0] + net.encoder2[1])
        mean, logvar = h @ net.mean[0] + net.mean[1], h @ net.logvar[0] + net.logvar[1]
        z = mean + numpy.exp(0.5 * logvar) * jax.random.normal(key, mean.shape)
        h = numpy.tanh(z @ net.decoder1[0] + net.decoder1[1])
        h = numpy.tanh(h @ net.decoder2[0] + net.decoder2[1])
        logits = h @ net.out[0] + net.out[1]
        kl = 0.5 * (mean * mean + numpy.exp(logvar) - 1 - logvar).sum()
        return (kl - (x * logits - softplus(logits)).sum()) / len(x)

    def step(state, x):
        params, means, squares, count, key = state
        key, now = jax.random.split(key)
        value, grads = jax.value_and_grad(loss)(params, x, now)
        means = tree(lambda m, g: m + (1 - a.beta1) * (g - m), means, grads)
        squares = tree(lambda v, g: a.beta2 * v + (1 - a.beta2) * g * g, squares, grads)
        rate, scale = a.lr / (1 - a.beta1**count), (1 - a.beta2**count) ** -0.5
        params = tree(lambda y, m, v: y - rate * m / (numpy.sqrt(v) * scale + a.eps), params, means, squares)
        return (params, means, squares, count + 1, key), value

    jitted = jax.jit(step, donate_argnums=0)
    state, seed = None, 0

    def prepare() -> None:
        nonlocal state, seed
        seed += 1
        lists = [[numpy.array(y) for y in ys] for ys in (a.params, a.means, a.squares)]
        state = jax.block_until_ready((*lists, numpy.float32(a.step), jax.random.key(seed)))

    def call() -> float:
        nonlocal state
        state, value = jax.block_until_ready(jitted(state, x))
        return float(value)

    def sample() -> tuple[float, list[Array]]:
        prepare()
        return call(), [np.asarray(y) for y in state[0]]

    return Candidate(call, sample, prepare=prepare, workspace=a.nbytes, note="one jit, buffers donated")


# --- importance-weighted likelihood -------------------------------------------------------------------------

CHUNK = 1000  # draws of an image at a time: their logits stay near


def chunks(n_samples: int) -> list[int]:
    return [min(CHUNK, n_samples - done) for done in range(0, n_samples, CHUNK)]


def iwae_by_torch(p: Iwae, threads: int, wrap: str) -> Candidate:
    torch = torch_with(threads)
    functional = torch.nn.functional
    net = Layers.of(tensors(torch, *(np.ascontiguousarray(a.T) for a in p.layers.flat)))
    (x,) = tensors(torch, p.x)
    if wrap == "onednn":
        linear = onednn(torch)

        def hidden(y, layer):
            return linear(y, *layer, "tanh")
    else:
        linear = functional.linear

        def hidden(y, layer):
            return linear(y, *layer).tanh_()

    def log_weights(mean, logvar, x, n):
        noise = torch.randn(n, len(mean))
        z = torch.addcmul(mean, torch.exp(0.5 * logvar), noise)
        logits = linear(hidden(hidden(z, net.decoder1), net.decoder2), *net.out)
        ratio = 0.5 * (noise * noise - z * z + logvar).sum(1)
        return ratio + logits @ x - functional.softplus(logits).sum(1)

    if wrap == "compile":
        log_weights = compiled(torch)(log_weights)

    def estimate(n_samples: int) -> object:
        h = hidden(hidden(x, net.encoder1), net.encoder2)
        of_rows = zip(linear(h, *net.mean), linear(h, *net.logvar), x, strict=True)
        weights = [torch.cat([log_weights(*row, n) for n in chunks(n_samples)]) for row in of_rows]
        return torch.logsumexp(torch.stack(weights).double(), dim=1) - np.log(n_samples)

    note = ONEDNN_NOTE if wrap == "onednn" else ""
    return Candidate(lambda: estimate(p.n_samples), lambda n: estimate(n).numpy(), units=len(p.x), note=note)


@does("iwae", "torch")
def iwae_torch(p: Iwae, threads: int) -> Candidate:
    return iwae_by_torch(p, threads, "eager")


@does("iwae", "onednn")
def iwae_onednn(p: Iwae, threads: int) -> Candidate:
    return iwae_by_torch(p, threads, "onednn")


@does("iwae", "compile")
def iwae_compile(p: Iwae, threads: int) -> Candidate:
    return iwae_by_torch(p, threads, "compile")


@does("iwae", "jax")
def iwae_jax(p: Iwae, threads: int) -> Candidate:
    jax = jax_with(threads)
    numpy, softplus = jax.numpy, jax_softplus(jax)
    net = Layers.of([numpy.asarray(a) for a in p.layers.flat])
    x = numpy.asarray(p.x, numpy.float32)

    def of_row(net, row, n_samples):
        mean, logvar, x, key = row

        def of_chunk(total, key):
            noise = jax.random.normal(key, (min(CHUNK, n_samples), len(mean)))
            z = mean + numpy.exp(0.5 * logvar) * noise
            h = numpy.tanh(z @ net.decoder1[0] + net.decoder1[1])
            h = numpy.tanh(h @ net.decoder2[0] + net.decoder2[1])
            logits = h @ net.out[0] + net.out[1]
            fit = logits @ x - softplus(logits).sum(1)
            weights = fit + 0.5 * (noise * noise - z * z + logvar).sum(1)
            return numpy.logaddexp(total, jax.nn.logsumexp(weights)), None

        keys = jax.random.split(key, len(chunks(n_samples)))
        return jax.lax.scan(of_chunk, -numpy.inf, keys)[0] - numpy.log(n_samples)

    def run(net, x, key, n_samples):
        key, now = jax.random.split(key)
        h = numpy.tanh(x @ net.encoder1[0] + net.encoder1[1])
        h = numpy.tanh(h @ net.encoder2[0] + net.encoder2[1])
        mean, logvar = h @ net.mean[0] + net.mean[1], h @ net.logvar[0] + net.logvar[1]
        rows = (mean, logvar, x, jax.random.split(now, len(x)))
        return key, jax.lax.map(lambda row: of_row(net, row, n_samples), rows)

    jitted = jax.jit(run, static_argnums=3)
    state = [jax.random.key(0)]

    def estimate(n_samples: int) -> object:
        state[0], found = jitted(net, x, state[0], n_samples)
        return found.block_until_ready()

    return Candidate(lambda: estimate(p.n_samples), lambda n: np.asarray(estimate(n)), units=len(p.x))
