"""LSTMs on a device beyond their rows of the grid: how sweeps are laid out, gradients of gradients, the layer."""

import numpy as np
import pytest
import test_cuda
from cases import CASES
from cases.recurrent import map_size
from cases.recurrent import size as sequence_size
from device_array import DeviceArray as CupyArray

import gencore as gc
from gencore.kernels import recurrent

device = test_cuda.device
SEQUENCES = sequence_size(33, 3, 2, 5, states=True, kept=True)
IMAGES = map_size(2, 5, 7, 6, "diagonals", 2, kept=True)


def rows(sequences, *images):
    """Of each op with sums over states, at these sizes."""
    sizes = {"lstm": (sequences,), "lstm_vjp": (sequences,), "map_lstm": images, "map_lstm_vjp": images}
    return [
        pytest.param(
            test_cuda.on_device(CASES[f"recurrent.{name}"]), size, id=f"{name}-{size.get('path', 'steps')}"
        )
        for name, chosen in sizes.items()
        for size in chosen
    ]


# Of 12, 36 or 4 sequences a block. Shared memory holds the states and a part of the weights, the states, or nothing.
@pytest.mark.parametrize("multiprocessors", [1, 40])
@pytest.mark.parametrize("shared", [None, 100, 600, 1600])
@pytest.mark.parametrize(("case", "size"), rows(SEQUENCES, IMAGES))
def test_ways_give_the_same_bits(case, size, shared, multiprocessors, emulation, monkeypatch):
    """Whatever shares a block, and wherever states and weights lie."""
    usual = case.run_size(size)
    test_cuda.emulate(monkeypatch, multiprocessors, shared)
    test_cuda.test_cases.same_bits(case.run_size(size), usual, case.name)


WIDE = rows(
    sequence_size(35, 2, 3, 130, states=True, kept=True),
    map_size(1, 2, 17, 130, "rows", kept=True),
    map_size(1, 17, 2, 130, "diagonals", 2, kept=True),
)


@pytest.mark.parametrize(("case", "size"), WIDE)
def test_sixteen_positions_of_a_thread(case, size, emulation, monkeypatch):
    """What many positions with many units are given, whose errors have no useful bound: beside the CPU's."""
    test_cuda.emulate(monkeypatch, 1)
    with np.errstate(over="ignore"):  # of the bounds
        expected, results = CASES[case.name].run_size(size), case.run_size(size)
    for name, found in results.items():
        assert np.allclose(found, expected[name], rtol=1e-5, atol=1e-5), name


@pytest.mark.gpu
@pytest.mark.parametrize(("case", "size"), [*rows(sequence_size(2200, 2, 3, 130, states=True)), *WIDE[2:]])
def test_device_has_sixteen_positions_of_a_thread(case, size, device):
    with np.errstate(over="ignore"):
        expected, results = CASES[case.name].run_size(size), test_cuda.run_on(device, case, size)
    for name, found in results.items():
        assert np.allclose(found, expected[name], rtol=1e-4, atol=1e-4), name


# --- gradients ------------------------------------------------------------------------------------------------

SHAPES = {
    "lstm": ((2, 4, 3), (3, 20), (5, 20), (20,), (2, 5), (2, 5)),
    "row_lstm": ((2, 3, 4, 6), (1, 3, 6, 16), (3, 4, 16), (16,)),
    "diagonal_lstm": ((2, 3, 4, 3), (3, 16), (2, 4, 16), (16,)),
    "diagonal_bilstm": ((2, 3, 4, 6), (6, 32), (2, 2, 4, 16), (32,)),
}


def on_both(compute, arrays):
    """What a function of Tensors gives for arrays on a device, and on the CPU; nothing may leave the device."""
    ours, cpu = (
        compute([gc.tensor(put(a), requires_grad=True) for a in arrays]) for put in (CupyArray, np.array)
    )
    for on_device, expected in zip(ours, cpu, strict=True):
        assert on_device.device == "cuda"
        assert np.allclose(on_device.numpy(), expected.numpy(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        *((name, {}) for name in SHAPES),
        ("row_lstm", {"channel_groups": 2}),
        ("diagonal_bilstm", {"channel_groups": 2}),
    ],
)
def test_gradients_stay_on_the_device(name, options, emulation):
    """First ones by the kernels, second ones through the tape."""
    rng = np.random.default_rng(len(name))
    arrays = [rng.normal(0, 0.6, shape).astype(np.float32) for shape in SHAPES[name]]

    def loss(arguments):
        found = getattr(recurrent, name)(*arguments, **options)
        return sum((a * a).sum() for a in (found if name == "lstm" else (found,)))

    def both_orders(arguments):
        first = gc.grad([loss(arguments)], arguments)
        recorded = gc.grad([loss(arguments)], arguments, create_graph=True)
        second = gc.grad([sum((g * g).sum() for g in recorded)], arguments)
        return [loss(arguments), *first, *recorded, *second]

    on_both(both_orders, arrays)


@pytest.mark.parametrize("bias", [True, False])
def test_layers_on_a_device(bias, emulation):
    """Layers whose parameters are there: their states, and the parameters' gradients."""
    x = np.random.default_rng(2).normal(0, 1, (3, 4, 2)).astype(np.float32)
    layer = gc.nn.LSTM(2, 5, 2, bias=bias, key=3)
    parameters = list(layer.parameters())

    def run(put):
        for p in parameters:
            p._data, p.grad = put(p.numpy()), None
        h, (h_n, c_n) = layer(gc.tensor(put(x)))
        ((h * h).sum() + (h_n * c_n).sum()).backward()
        return [h, h_n, c_n, *(p.grad for p in parameters)]

    cpu = [a.numpy() for a in run(np.array)]
    for found, expected in zip(run(CupyArray), cpu, strict=True):
        assert found.device == "cuda"
        assert np.allclose(found.numpy(), expected, rtol=1e-5, atol=1e-5)
