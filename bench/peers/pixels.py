"""Masked convolutions and PixelCNNs of the peers: a mask that multiplies the weights, NCHW data as channels last."""

from typing import Any

import numpy as np

from gencore._bench.measure import Candidate
from gencore._bench.reference import Array
from gencore._bench.registry import does, lacks
from gencore._bench.works.pixels import Layer, PixelCnn, seen_taps
from peers.common import compiled, jax_with, torch_with

for _kind in ("masked_conv", "masked_conv_both", "pixelcnn_step", "pixelcnn_sample"):
    lacks(_kind, "numba", "has no convolution")
lacks("pixelcnn_sample", "jax", "takes one forward pass a pixel, as PyTorch")
lacks("pixelcnn_sample", "compile", "as eager, whose passes are long enough")


def as_torch(torch: Any, images: Array, *, grad: bool = False) -> Any:
    """(N, H, W, C) as (N, C, H, W), channels last in memory."""
    x = torch.from_numpy(np.ascontiguousarray(images.astype(np.float32).transpose(0, 3, 1, 2)))
    return x.to(memory_format=torch.channels_last).requires_grad_(grad)


def weights(torch: Any, p: Layer, *, grad: bool = False) -> list[Any]:
    """Weight (C', C, k, k), bias, mask."""
    w = torch.from_numpy(np.ascontiguousarray(p.w.transpose(3, 2, 0, 1))).requires_grad_(grad)
    b = torch.from_numpy(p.bias.copy()).requires_grad_(grad)
    return [w, b, torch.from_numpy(p.taps[:, :, 0, 0].astype(np.float32))]


def images_of(x: Any) -> Array:
    """Back to (N, H, W, C)."""
    return x.detach().permute(0, 2, 3, 1).numpy()


def layer_with(p: Layer, threads: int, wrap: str, both: bool) -> Candidate:
    torch = torch_with(threads)
    x, (w, b, mask), grad = (
        as_torch(torch, p.x, grad=both),
        weights(torch, p, grad=both),
        as_torch(torch, p.grad),
    )

    def layer(x: Any, w: Any, b: Any) -> Any:
        return torch.nn.functional.conv2d(x, w * mask, b, padding=p.w.shape[0] // 2)

    run = compiled(torch)(layer) if wrap == "compile" else layer

    def forward() -> Any:
        with torch.no_grad():
            return run(x, w, b)

    @torch.enable_grad()  # type: ignore[untyped-decorator]
    def there_and_back() -> Any:
        x.grad = w.grad = b.grad = None
        y = run(x, w, b)
        y.backward(grad)
        return y

    def sample() -> Any:
        y = images_of(there_and_back())
        return [y, images_of(x.grad), w.grad.permute(2, 3, 1, 0).numpy(), b.grad.numpy()]

    return Candidate(there_and_back, sample) if both else Candidate(forward, lambda: images_of(forward()))


@does("masked_conv", "torch")
def conv_torch(p: Layer, threads: int) -> Candidate:
    return layer_with(p, threads, "eager", False)


@does("masked_conv", "compile")
def conv_compile(p: Layer, threads: int) -> Candidate:
    return layer_with(p, threads, "compile", False)


@does("masked_conv_both", "torch")
def both_torch(p: Layer, threads: int) -> Candidate:
    return layer_with(p, threads, "eager", True)


@does("masked_conv_both", "compile")
def both_compile(p: Layer, threads: int) -> Candidate:
    return layer_with(p, threads, "compile", True)


def jax_layer(p: Layer, threads: int) -> tuple[Any, list[Any], Any]:
    jax = jax_with(threads)
    arrays = [jax.numpy.asarray(a) for a in (p.x, p.w, p.bias)]
    taps = jax.numpy.asarray(p.taps.astype(np.float32))

    def layer(x: Any, w: Any, b: Any) -> Any:
        return (
            jax.lax.conv_general_dilated(
                x, w * taps, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
            )
            + b
        )

    return jax, arrays, layer


@does("masked_conv", "jax")
def conv_jax(p: Layer, threads: int) -> Candidate:
    jax, arrays, layer = jax_layer(p, threads)
    run = jax.jit(layer)
    return Candidate(lambda: run(*arrays).block_until_ready(), lambda: np.asarray(run(*arrays)))


@does("masked_conv_both", "jax")
def both_jax(p: Layer, threads: int) -> Candidate:
    jax, arrays, layer = jax_layer(p, threads)
    grad = jax.numpy.asarray(p.grad)

    @jax.jit
    def run(x: Any, w: Any, b: Any) -> Any:
        y, back = jax.vjp(layer, x, w, b)
        return y, *back(grad)

    return Candidate(
        lambda: jax.block_until_ready(run(*arrays)), lambda: [np.asarray(a) for a in run(*arrays)]
    )


# --- PixelCNN -------------------------------------------------------------------------------------------------


def torch_model(torch: Any, p: PixelCnn, params: list[Any], masks: list[Any]) -> Any:
    """The function from images (N, 1, H, W) to logits."""
    relu = torch.nn.functional.relu

    def logits(x: Any) -> Any:
        layers = iter(zip(params[::2], params[1::2], masks, strict=True))

        def masked(x: Any) -> Any:
            w, b, mask = next(layers)
            w = w if mask is None else w * mask
            return torch.nn.functional.conv2d(x, w, b, padding=w.shape[2] // 2)

        x = masked(x)
        for _ in range(p.blocks):
            x = x + masked(relu(masked(relu(masked(relu(x))))))
        return masked(relu(masked(relu(masked(relu(x))))))

    return logits


def torch_params(torch: Any, p: PixelCnn, *, grad: bool) -> tuple[list[Any], list[Any]]:
    params, masks = [], []
    for i, array in enumerate(p.params):
        if array.ndim == 4:
            kernel = array.shape[0]
            mask = torch.from_numpy(seen_taps("A" if i == 0 else "B", kernel).astype(np.float32))
            masks.append(None if kernel == 1 else mask)
            array = np.ascontiguousarray(array.transpose(3, 2, 0, 1))
        params.append(torch.from_numpy(array.copy()).requires_grad_(grad))
    return params, masks


def step_with(p: PixelCnn, threads: int, wrap: str) -> Candidate:
    torch = torch_with(threads)
    params, masks = torch_params(torch, p, grad=True)
    model = torch_model(torch, p, params, masks)
    model = compiled(torch)(model) if wrap == "compile" else model
    loss_of = torch.nn.functional.binary_cross_entropy_with_logits
    x = as_torch(torch, p.images)

    @torch.enable_grad()  # type: ignore[untyped-decorator]
    def step(x: Any) -> Any:
        for a in params:
            a.grad = None
        loss = loss_of(model(x), x, reduction="sum") / len(x)
        loss.backward()
        return loss

    def sample(images: Array) -> tuple[float, list[Array]]:
        loss = step(as_torch(torch, images))
        grads = [a.grad.permute(2, 3, 1, 0).numpy() if a.ndim == 4 else a.grad.numpy() for a in params]
        return float(loss), grads

    return Candidate(lambda: step(x), sample)


@does("pixelcnn_step", "torch")
def step_torch(p: PixelCnn, threads: int) -> Candidate:
    return step_with(p, threads, "eager")


@does("pixelcnn_step", "compile")
def step_compile(p: PixelCnn, threads: int) -> Candidate:
    return step_with(p, threads, "compile")


@does("pixelcnn_step", "jax")
def step_jax(p: PixelCnn, threads: int) -> Candidate:
    jax = jax_with(threads)
    params = [jax.numpy.asarray(a) for a in p.params]
    taps = [jax.numpy.asarray(seen_taps("A" if i == 0 else "B", w.shape[0])[:, :, None, None].astype(np.float32))
            for i, w in enumerate(p.params[::2])]  # fmt: skip
    relu, images = jax.nn.relu, jax.numpy.asarray(p.images, np.float32)

    def loss(params: list[Any], x: Any) -> Any:
        layers = iter(zip(params[::2], params[1::2], taps, strict=True))

        def masked(x: Any) -> Any:
            w, b, t = next(layers)
            numbers = ("NHWC", "HWIO", "NHWC")
            return jax.lax.conv_general_dilated(x, w * t, (1, 1), "SAME", dimension_numbers=numbers) + b

        y = masked(x)
        for _ in range(p.blocks):
            y = y + masked(relu(masked(relu(masked(relu(y))))))
        y = masked(relu(masked(relu(masked(relu(y))))))
        return (jax.nn.softplus(y) - x * y).sum() / len(x)

    step = jax.jit(jax.value_and_grad(loss))

    def sample(some: Array) -> tuple[float, list[Array]]:
        value, grads = step(params, jax.numpy.asarray(some, np.float32))
        return float(value), [np.asarray(g) for g in grads]

    return Candidate(lambda: jax.block_until_ready(step(params, images)), sample)


@does("pixelcnn_sample", "torch")
def sample_torch(p: PixelCnn, threads: int) -> Candidate:
    torch = torch_with(threads)
    params, masks = torch_params(torch, p, grad=False)
    params = [a if a.ndim == 1 or masks[i // 2] is None else a * masks[i // 2] for i, a in enumerate(params)]
    model = torch_model(torch, p, params, [None] * len(masks))
    n, height, width, _ = p.images.shape

    def call() -> Any:
        with torch.inference_mode():
            x = torch.zeros(n, 1, height, width).to(memory_format=torch.channels_last)
            for y in range(height):
                for column in range(width):
                    x[:, :, y, column] = torch.bernoulli(torch.sigmoid(model(x)[:, :, y, column]))
            return x

    return Candidate(call, lambda: images_of(call()), note="one forward pass a pixel")
